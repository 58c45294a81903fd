// Any bytes as a folder: sections divided by lines of "===": config.json, a safetensors file, and, if there is a third, the index that
// names the file as model-1.safetensors. A single section is a safetensors file.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/synthetic_files.h"

namespace {

/// The first and the last row of a matrix, which a conversion may have made.
void decode_some(const sb::WeightTensor& tensor) {
  const int64_t k = tensor.shape.rank() == 2 ? tensor.shape[1] : 0;
  if (k == 0 || tensor.shape[0] == 0 || !tensor.array_of.empty()) return;
  std::vector<float> row(static_cast<size_t>(k));
  for (const int64_t r : {int64_t(0), tensor.shape[0] - 1}) sb::decode_row(tensor.view(), r, row.data(), k);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sb;
  constexpr std::string_view kDivider = "\n===\n";
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> sections;
  while (sections.size() < 2) {
    const size_t end = rest.find(kDivider);
    if (end == std::string_view::npos) break;
    sections.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + kDivider.size());
  }
  sections.emplace_back(rest);

  testing_files::Files files = {{"config.json", R"({"model_type": "llama"})"}};
  if (sections.size() == 1) {
    files["model.safetensors"] = sections[0];
  } else {
    files["config.json"] = sections[0];
    files["tokenizer_config.json"] = sections[0];
    files[sections.size() == 2 ? "model.safetensors" : "model-1.safetensors"] = sections[1];
    if (sections.size() == 3) files["model.safetensors.index.json"] = sections[2];
  }
  const uint64_t n = size;
  testing_files::Host host{.files = std::move(files)};
  const LoadTuning tuning{.first_bytes = 1 + n % 97 * 10, .most_request_bytes = 16 + n % 13 * 400, .most_shared_bytes = n % 7 * 100};
  const auto model = host.run(Loading::folder("fuzz", tuning));
  SB_ASSERT(model && host.broken_promise.empty());
  if (*model) {
    // What another quantiser packed takes at most eight times its bytes, or a padded matrix for the smallest.
    const bool is_foreign = json_find((*model)->config.values(), "quantization_config") != nullptr;
    SB_ASSERT((*model)->weights.n_bytes() <= (is_foreign ? 1024 * size : size));
    for (const auto& tensor : (*model)->weights.tensors()) decode_some(*tensor);
    (void)(*model)->config.integers("eos_token_id");
  } else {
    SB_ASSERT(!model->error().to_json().empty());
  }
  return 0;
}
