#include "io/split_tensors.h"

#include <cstring>

namespace sb {

std::string piece_name(std::string_view tensor, int64_t piece) { return std::string(tensor) + "#" + std::to_string(piece); }

PieceJoiner::PieceJoiner(const FolderIndex& index, bool keeps_bytes, TakeFrom pass, std::function<void(uint64_t)> holds)
    : most_bytes_(index.shard_bytes(PlaneSets::kFull)), keeps_bytes_(keeps_bytes), pass_(std::move(pass)), holds_(std::move(holds)) {
  for (const SplitEntry& entry : index.split) joined_[entry.name].entry = &entry;
}

Status PieceJoiner::take(const std::string& label, const TensorPlace& piece, TensorBytes bytes) {
  const auto found = joined_.find(std::string_view(piece.name).substr(0, piece.name.rfind('#')));
  if (found == joined_.end() || piece.name == found->first) return pass_(label, piece, std::move(bytes));
  Joined& joined = found->second;
  const Block& block = bytes.block;
  auto refuse = [&](std::string_view why) {
    return err(Code::kModelCorrupt, {{"file", label}, {"place", "tensor " + piece.name}, {"why", why}});
  };
  if (piece.name != piece_name(found->first, joined.next)) return refuse("it is not the piece that follows");
  if (piece.shape.rank() < 1 || piece.is_i64) return refuse("it has no rows");
  TensorPlace& whole = joined.place;
  Shape shape = piece.shape;
  shape[0] = joined.entry->n_rows;
  if (joined.next == 0) {
    whole = {.name = found->first, .dtype = piece.dtype, .shape = shape, .offset = 0, .n_bytes = 0};
    SB_TRY(whole.n_bytes, dense_bytes(whole.dtype, whole.shape));
    if (whole.n_bytes > most_bytes_) return refuse("the tensor would have more bytes than the folder");
    // A load of shapes has no bytes to keep.
    if (keeps_bytes_ && block.size() == piece.n_bytes) { SB_TRY(joined.block, Block::take(Tag::kWeights, whole.n_bytes)); }
  }
  if (piece.dtype != whole.dtype || shape != whole.shape) return refuse("it has another type or other rows than the piece before");
  if (piece.n_bytes > whole.n_bytes - joined.n_done) return refuse("it goes beyond the tensor's rows");
  if (bytes.flaw) return err(*std::move(bytes.flaw));
  if (joined.block.size()) {
    std::memcpy(joined.block.data() + joined.n_done, block.data(), size_t(piece.n_bytes));
  } else if (block.size()) {
    SB_OK(check_finite(piece.name, label, piece.dtype, block.bytes()));
  }
  holds_(whole.n_bytes - joined.n_done);
  joined.n_done += piece.n_bytes;
  const bool is_last = ++joined.next == joined.entry->n_pieces;
  if (is_last != (joined.n_done == whole.n_bytes)) return refuse("the pieces' rows do not sum up");
  if (!is_last) return {};
  bytes.block = std::move(joined.block);
  return pass_(label, whole, std::move(bytes));
}

Status PieceJoiner::finish(std::string_view file) const {
  for (const auto& [name, joined] : joined_) {
    if (joined.next > 0 && joined.next < joined.entry->n_pieces)
      return err(Code::kTensorMissing, {{"file", file}, {"tensor", piece_name(name, joined.next)}});
  }
  return {};
}

}  // namespace sb
