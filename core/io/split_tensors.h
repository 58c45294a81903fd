// Tensors that are larger than a shard may be: a folder holds them as pieces NAME#0, NAME#1, … of whole rows (FolderIndex::split), and a
// load joins them as they come.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "io/folder_index.h"
#include "io/tensor_index.h"

namespace sb {

/// What becomes of a tensor of the file `label`.
using TakeFrom = std::function<Status(const std::string& label, const TensorPlace& place, TensorBytes bytes)>;

std::string piece_name(std::string_view tensor, int64_t piece);

class PieceJoiner {
 public:
  /// `index` outlives this. `pass` gets tensors that are in one piece, and joined ones once they are complete: with their bytes, or when
  /// `keeps_bytes` is off with an empty block, their pieces' floats checked. `holds` is told how many bytes a joined tensor has taken
  /// beyond those of the pieces that came before.
  PieceJoiner(const FolderIndex& index, bool keeps_bytes, TakeFrom pass, std::function<void(uint64_t n_bytes)> holds = [](uint64_t) {});
  /// Errors: kModelCorrupt when a piece is not the one that follows; kMemoryExhausted; kWeightsNotFinite.
  Status take(const std::string& label, const TensorPlace& place, TensorBytes bytes);
  /// Errors: kTensorMissing when a tensor that began did not end.
  Status finish(std::string_view file) const;

 private:
  struct Joined {
    const SplitEntry* entry = nullptr;
    int64_t next = 0;     // piece
    TensorPlace place;    // with the rows so far
    Block block;          // of all rows
    uint64_t n_done = 0;  // bytes
  };
  std::map<std::string, Joined, std::less<>> joined_;
  uint64_t most_bytes_;
  bool keeps_bytes_;
  TakeFrom pass_;
  std::function<void(uint64_t)> holds_;
};

}  // namespace sb
