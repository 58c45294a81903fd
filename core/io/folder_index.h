// subbyte.index.json: what a quantised model's folder holds, where it lies and what its bytes sum to (docs/formats.md §5).
//
//   {"format": "subbyte-folder", "version": 1,
//    "shards":     [{"file": "base-00001.safetensors", "set": "base", "bytes": 49876543, "head_bytes": 8200, "head_sha256": "…"}, …],
//    "components": [{"name": "layer_0", "set": "base", "shard": "base-00001.safetensors", "bytes": [8200, 431200], "sha256": "…",
//                    "needs": []}, …],
//    "matrices":   [{"name": "….qkv_proj.weight", "format": "coded3", "refine": "coded2", "shape": [960, 576],
//                    "rows": [["….q_proj.weight", 576], …]}, …],
//    "give_back":  ["…"], "split": [{"name": "….embed_tokens.weight.planes", "rows": 262144, "pieces": 6}, …], "index_sha256": "…"}
//
// Shards and components stand in load order, the base before the refinement. "split" is there when a
// tensor is. index_sha256 ends the text and is the sum of all before it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace sb {

inline constexpr const char* kFolderIndexFile = "subbyte.index.json";
inline constexpr const char* kRows8 = "rows8";

/// Which planes of a quantised folder: a complete model, or that and the refinement of its matrices.
enum class PlaneSets : uint8_t { kBase, kFull };

struct MatrixEntry {
  std::string name;
  std::string format;                                 // a name of plane_formats(), or kRows8
  std::string refine;                                 // the refinement's format; "" when it has none
  int64_t n_rows = 0, n_columns = 0;                  // N, K, unpadded
  std::vector<std::pair<std::string, int64_t>> rows;  // tensor of the model → its rows, in order; they sum to n_rows
};

/// A run of bytes that is fetched and checked as one: "embeddings", "layer_0", …, "lm_head"; "layer_0.refine".
struct ComponentEntry {
  std::string name;
  bool is_refinement = false;
  std::string shard;            // file name
  uint64_t begin = 0, end = 0;  // bytes in that file
  std::string sha256;
  std::vector<std::string> needs;  // components without which this one is of no use; they stand before it
};

struct ShardEntry {
  std::string name;
  bool is_refinement = false;
  uint64_t n_bytes = 0;     // of the file
  uint64_t head_bytes = 0;  // of the safetensors header with its length field
  std::string head_sha256;
};

/// A tensor that no shard could hold: pieces NAME#0 … of whole rows, in order.
struct SplitEntry {
  std::string name;
  int64_t n_rows = 0;
  int64_t n_pieces = 0;
};

struct FolderIndex {
  std::vector<MatrixEntry> matrices;
  std::vector<ComponentEntry> components;
  std::vector<ShardEntry> shards;
  std::vector<std::string> give_back;  // names of refined matrices, cheapest refinement first
  std::vector<SplitEntry> split;

  /// Bytes of the shards that a load of these sets reads.
  uint64_t shard_bytes(PlaneSets sets) const;
};

/// Checks every field: types, hashes' form, file names that stay in the folder, ranges that tile their shard, names that are unique, rows
/// that sum up, formats and shapes that exist. `label` names the file in errors.
/// Errors: kJsonInvalid, kModelCorrupt, kVersionUnknown, kHashMismatch (the text is not the one that was written).
Result<FolderIndex> parse_folder_index(std::string_view text, std::string_view label);

/// The text that parse_folder_index reads, in a stable order.
std::string folder_index_json(const FolderIndex& index);

/// Ends the text of an index, which is a JSON object, with its own sum.
std::string with_index_sum(std::string text);

/// Whether a file so named lies beside the file that names it: a name that leads elsewhere is refused before anything is fetched.
bool is_plain_name(std::string_view name);

}  // namespace sb
