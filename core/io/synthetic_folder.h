// For tests and fuzzers only: a small quantised folder, written as the quantiser writes one, whose every part can be made wrong.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "formats/decode.h"
#include "formats/planes.h"
#include "io/folder_layout.h"
#include "io/plane_store.h"
#include "io/synthetic_files.h"

namespace sb::testing_files {

struct FolderBuilder {
  std::vector<FolderTensor> tensors;
  std::vector<std::string> bytes;  // one a tensor
  std::vector<MatrixEntry> matrices;
  std::vector<std::string> give_back;
  uint32_t seed = 1;

  uint32_t random() { return seed = seed * 1664525 + 1013904223; }
  std::string words(int64_t n) {
    std::string out;
    for (int64_t i = 0; i < n; ++i) out += raw(uint32_t(random() >> 16 | random() << 8));
    return out;
  }
  std::string halves(int64_t n) {
    std::string out;
    for (int64_t i = 0; i < n; ++i) out += raw(float_to_half(0.5f + float(random() >> 24) / 256));
    return out;
  }
  std::string floats(int64_t n) {
    std::string out;
    for (int64_t i = 0; i < n; ++i) out += raw(0.5f + float(random() >> 8) / 16777216);
    return out;
  }

  FolderBuilder& tensor(FolderTensor tensor, std::string its_bytes) {
    tensors.push_back(std::move(tensor));
    bytes.push_back(std::move(its_bytes));
    return *this;
  }
  FolderTensor& tensor(std::string_view name) { return *std::ranges::find(tensors, name, &FolderTensor::name); }
  std::string& bytes_of(std::string_view name) { return bytes[size_t(&tensor(name) - tensors.data())]; }
  void erase(std::string_view name) {
    const auto i = &tensor(name) - tensors.data();
    tensors.erase(tensors.begin() + i);
    bytes.erase(bytes.begin() + i);
  }

  /// The arrays of one set, filled at random.
  void set(const std::string& name, std::string_view format, int64_t n, int64_t k, const std::string& component, bool is_refinement,
           bool with_columns) {
    const PlaneCode& code = plane_format(format)->code;
    const int64_t rows = plane_rows(n), columns = plane_columns(k);
    tensor({name + ".planes", "U32", {rows, code.n_planes, columns / 32}, component, is_refinement},
           words(rows * code.n_planes * columns / 32));
    // Without column scales it is an imported matrix, whose row scales are floats.
    tensor({name + ".sv", with_columns ? "F16" : "F32", {rows}, component, is_refinement}, with_columns ? halves(rows) : floats(rows));
    if (with_columns) tensor({name + ".c", "F16", {columns}, component, is_refinement}, halves(columns));
    std::string filter;
    for (int q = 0; q < code.n_taps; ++q) {
      for (int p = 0; p < code.n_planes; ++p) filter += raw(code.filter[size_t(q)][size_t(p)]);
    }
    tensor({name + ".filter", "F32", {code.n_taps, code.n_planes}, component, is_refinement}, filter);
  }
  void matrix(MatrixEntry entry, const std::string& component, bool with_columns) {
    set(entry.name, entry.format, entry.n_rows, entry.n_columns, component, false, with_columns);
    if (entry.n_columns % 32 == 0)
      tensor({entry.name + ".su", "U32", {entry.n_columns / 32}, component, false}, words(entry.n_columns / 32));
    if (!entry.refine.empty()) set(entry.name + ".refine", entry.refine, entry.n_rows, entry.n_columns, component, true, with_columns);
    matrices.push_back(std::move(entry));
  }

  /// The layout's index with sums over what the files hold now, and these matrices.
  FolderIndex index(const FolderLayout& layout) const {
    FolderSums sums(layout);
    for (size_t i = 0; i < tensors.size(); ++i) sums.add(i, std::as_bytes(std::span(bytes[i])));
    FolderIndex out = sums.index();
    out.matrices = matrices;
    out.give_back = give_back;
    return out;
  }
  Files build(uint64_t most_shard_bytes = 50'000'000) const {
    const Result<FolderLayout> layout = FolderLayout::plan(tensors, most_shard_bytes);
    SB_ASSERT(layout);
    Files files = small_folder();
    files.erase("model.safetensors");
    files["config.json"] = R"({"model_type": "llama", "quantization_config": {"quant_method": "subbyte"}})";
    files[kFolderIndexFile] = folder_index_json(index(*layout));
    for (const FolderLayout::Shard& shard : layout->shards()) {
      files[shard.name] = shard.head;
      files[shard.name].resize(size_t(shard.n_bytes));
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      const FolderLayout::Place& place = layout->place(i);
      files[layout->shards()[place.shard].name].replace(size_t(place.offset), size_t(place.n_bytes), bytes[i]);
    }
    return files;
  }
};

/// Every kind of thing: rows8, three tensors in one padded matrix, two refinements, a matrix without rotation and column scales, norms.
inline FolderBuilder small_quantised() {
  FolderBuilder b;
  std::string rows8;
  for (int block = 0; block < 6; ++block) rows8 += b.halves(1) + b.words(8);
  b.tensor({"embed.rows8", "U8", {6, 34}, "embeddings"}, rows8);
  b.matrices.push_back({"embed", kRows8, "", 6, 32, {{"embed.weight", 6}}});
  b.tensor({"norm.0", "F32", {32}, "layer_0"}, raw_list(std::vector<float>(32, 1.0f)));
  b.matrix({"qkv.0", "coded3", "coded2", 70, 32, {{"q.0", 40}, {"k.0", 20}, {"v.0", 10}}}, "layer_0", true);
  b.matrix({"up.1", "coded2", "plain2", 96, 64, {{"up.1", 96}}}, "layer_1", true);
  b.matrix({"down.1", "plain4", "", 64, 40, {{"down.1", 64}}}, "layer_1", false);
  b.tensor({"norm", "F16", {32}, "final_norm"}, b.halves(32));
  b.give_back = {"up.1", "qkv.0"};
  return b;
}

/// A quantised folder whose files were changed: the sums of what is there now.
inline void sum_anew(Files& files) {
  Result<FolderIndex> index = parse_folder_index(files[kFolderIndexFile], "sum_anew");
  SB_ASSERT(index);
  auto sum = [&](const std::string& file, uint64_t begin, uint64_t end) {
    const std::string& bytes = files[file];
    return sha256_hex(std::as_bytes(std::span(bytes))
                          .subspan(std::min<size_t>(begin, bytes.size()))
                          .first(std::min<size_t>(end, bytes.size()) - std::min<size_t>(begin, bytes.size())));
  };
  for (ShardEntry& shard : index->shards) shard.head_sha256 = sum(shard.name, 0, shard.head_bytes);
  for (ComponentEntry& component : index->components) component.sha256 = sum(component.shard, component.begin, component.end);
  files[kFolderIndexFile] = folder_index_json(*index);
}

}  // namespace sb::testing_files
