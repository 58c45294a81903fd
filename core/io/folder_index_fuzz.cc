// Any bytes as a quantised folder: sections divided by lines of "===": the index without its sum, then the shards in its order. All sums
// are set right, so that what they guard is reached: the index, heads, arrays, assembly, the refinement that comes and goes. A single
// section is sizes of tensors to lay out.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/synthetic_folder.h"

namespace {

using namespace sb;
using namespace testing_files;

void decode_some(const WeightStore& weights) {
  for (const auto& tensor : weights.tensors()) {
    if (tensor->dtype != Dtype::kPlanes) continue;
    std::vector<float> row(size_t(tensor->shape[1]));
    decode_row(tensor->view(), 0, row.data(), tensor->shape[1]);
    decode_row(tensor->view(), tensor->shape[0] - 1, row.data(), tensor->shape[1]);
  }
}

Result<ModelFiles> run(const Files& files, Loading loading) {
  Host host{.files = files};
  auto model = host.run(std::move(loading));
  SB_ASSERT(model && host.broken_promise.empty());
  if (!*model) SB_ASSERT(!model->error().to_json().empty());
  return std::move(*model);
}

void load(Files files, uint64_t n) {
  const LoadTuning tuning{.first_bytes = 1 + n % 97 * 10, .most_request_bytes = 16 + n % 13 * 400, .most_shared_bytes = n % 7 * 100};
  (void)run(files, Loading::folder("fuzz", tuning));  // with the sums as they come
  sum_anew(files);
  const Result<ModelFiles> full = run(files, Loading::folder("fuzz", tuning));
  Result<ModelFiles> base = run(files, Loading::folder("fuzz", tuning, PlaneSets::kBase));
  const Result<ModelFiles> verified = run(files, Loading::verify("fuzz", tuning));
  if (full) {
    decode_some(full->weights);
    SB_ASSERT(full->weights.n_bytes() <= n && verified);
  }
  if (!base) return;
  const uint64_t n_base = base->weights.n_bytes();
  decode_some(base->weights);
  for (int round = 0; round < 2; ++round) {
    Result<ModelFiles> refinement = run(files, Loading::refinement("fuzz", *base->index, {}, tuning));
    if (!refinement) return;
    const uint64_t n_refinement = refinement->weights.n_bytes();
    if (attach_refinement(*base->index, std::move(refinement->weights), base->weights)) {
      decode_some(base->weights);
      SB_ASSERT(drop_refinement(*base->index, base->weights) == n_refinement);
    }
    SB_ASSERT(base->weights.n_bytes() == n_base);
    decode_some(base->weights);
  }
}

/// The input's bytes as sizes of tensors.
void lay_out(std::string_view bytes) {
  static constexpr const char* kTypes[] = {"U32", "F32", "I32", "F16", "BF16", "U8"};
  std::vector<FolderTensor> tensors;
  for (size_t i = 0; i < std::min<size_t>(bytes.size(), 40); ++i) {
    const uint8_t c = uint8_t(bytes[i]);
    tensors.push_back({"t" + std::to_string(i), kTypes[c % 6], {c / 6 % 7 + 1, c % 11 + 1}, std::to_string(i / 5), c % 5 == 0});
  }
  const Result<FolderLayout> layout = FolderLayout::plan(tensors, bytes.size() * 7 % 4000);
  if (!layout) return;
  FolderSums sums(*layout);
  for (size_t i = 0; i < tensors.size(); ++i) sums.add(i, std::vector<std::byte>(size_t(layout->place(i).n_bytes)));
  SB_ASSERT(parse_folder_index(folder_index_json(sums.index()), "layout"));
  size_t n_places = 0;
  for (const FolderLayout::Shard& shard : layout->shards())
    n_places += safetensors_parse_head(std::as_bytes(std::span(shard.head)), shard.n_bytes, shard.name)->size();
  SB_ASSERT(n_places == tensors.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr std::string_view kDivider = "\n===\n";
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> sections;
  for (size_t end; sections.size() < 4 && (end = rest.find(kDivider)) != std::string_view::npos;) {
    sections.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + kDivider.size());
  }
  sections.emplace_back(rest);
  if (sections.size() == 1) lay_out(rest);

  const std::string text = with_index_sum(sections[0]);
  const Result<FolderIndex> index = parse_folder_index(text, "fuzz");
  if (!index) {
    SB_ASSERT(!index.error().to_json().empty());
    return 0;
  }
  const std::string again = folder_index_json(*index);
  SB_ASSERT(folder_index_json(*parse_folder_index(again, "again")) == again);
  Files files = {{"config.json", R"({"model_type": "llama", "quantization_config": {"quant_method": "subbyte"}})"}};
  for (size_t i = 0; i < index->shards.size() && i + 1 < sections.size(); ++i) files[index->shards[i].name] = sections[i + 1];
  files[kFolderIndexFile] = text;
  load(std::move(files), size);
  return 0;
}
