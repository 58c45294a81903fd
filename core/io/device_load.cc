// Brings a load's matrices to a device with memory of its own. They go there through a small staging block, in which each byte is summed
// and looked at; what is on its way to the device is bounded, too.
#include <algorithm>

#include "io/load_task.h"
#include "io/split_tensors.h"

namespace sb {
namespace {

constexpr std::string_view kPlanes = ".planes";

/// What a tensor is to a device.
struct Kept {
  std::string name;  // of all its pieces
  RowLayout rows;
  Dtype dtype;  // of its numbers, for check_finite
};

/// Nothing where it stays on the host.
std::optional<Kept> kept_as(const Loading::State& state, const TensorPlace& place) {
  if (place.is_i64 || place.shape.rank() < 2) return std::nullopt;
  const FolderIndex* folder = state.folder;
  TensorPlace whole = place;
  if (folder) {
    const auto split = std::ranges::find(folder->split, std::string_view(place.name).substr(0, place.name.rfind('#')), &SplitEntry::name);
    if (split != folder->split.end()) {
      whole.name = split->name;
      whole.shape[0] = split->n_rows;
    }
    if (is_refined(state, place)) return std::nullopt;
  }
  const Result<uint64_t> n_bytes = dense_bytes(whole.dtype, whole.shape);
  if (!n_bytes || (folder && *n_bytes > folder->shard_bytes(PlaneSets::kFull))) return std::nullopt;  // whoever takes it will refuse it

  const Shape& shape = whole.shape;
  if (whole.dtype == Dtype::kI32) {
    const bool is_set = folder && whole.name.ends_with(kPlanes) && shape.rank() == 3 && shape[1] <= kMaxPlanes && shape[0] % 32 == 0;
    if (!is_set || is_small(shape, *n_bytes)) return std::nullopt;
    return Kept{whole.name, plane_layout(shape[0], shape[1], shape[2] * 32), whole.dtype};
  }
  const std::optional<RowLayout> rows = device_layout(whole.dtype, shape);
  if (!rows || whole.dtype != Dtype::kU8) return rows ? std::optional<Kept>({whole.name, *rows, whole.dtype}) : std::nullopt;
  const bool is_rows8 =
      folder && whole.name.ends_with(std::string(".") + kRows8) && shape[1] % dtype_row(Dtype::kQ8_0).bytes_per_block == 0;
  return is_rows8 ? std::optional<Kept>({whole.name, *rows, Dtype::kQ8_0}) : std::nullopt;
}

/// Bytes that a chunk of such numbers is a multiple of.
uint64_t chunk_bytes(Dtype dtype) {
  const auto unit = std::max<uint64_t>(4, 4 * uint64_t(dtype_row(dtype).bytes_per_block));
  return kSentBytes / unit * unit;
}

/// co_await: gives the device what is staged, as soon as it has room.
LoadTask<Status> send(Loading::State& state, DeviceRows& rows, std::span<const std::byte> bytes) {
  state.n_unasked += bytes.size();
  if (state.n_unasked > kSentBytes) {
    SB_CO_OK(co_await let_bring(state, kMostBringing - kSentBytes).in(state));
    state.n_unasked = bytes.size();
  }
  co_return rows.append(bytes);
}

/// Makes room for so many bytes.
Result<std::span<std::byte>> take_staging(Loading::State& state, uint64_t n_bytes) {
  if (state.sent.size() < n_bytes) {
    state.sent = Block();
    state.n_sent = n_bytes;
    SB_TRY(state.sent, Block::take(Tag::kStaging, n_bytes));
  }
  return state.sent.bytes().first(size_t(n_bytes));
}

}  // namespace

std::optional<RowLayout> device_layout(Dtype dtype, const Shape& shape) {
  if (shape.rank() != 2 || dtype == Dtype::kI32 || dtype == Dtype::kPlanes) return std::nullopt;
  const RowLayout rows{shape[0], dtype_bytes(dtype, shape[1])};
  return is_small(shape, uint64_t(rows.n_rows * rows.row_bytes)) ? std::nullopt : std::optional(rows);
}

std::optional<RowLayout> device_layout(const WeightTensor& t) {
  if (!t.array_of.empty()) {
    if (t.dtype != Dtype::kI32 || t.shape.rank() != 3 || !t.name.ends_with(kPlanes)) return std::nullopt;
    return plane_layout(t.shape[0], t.shape[1], t.shape[2] * 32);
  }
  return t.dtype == Dtype::kU8 ? std::nullopt : device_layout(t.dtype, t.shape);
}

LoadTask<Status> let_bring(Loading::State& state, uint64_t most) {
  while (state.device) {
    SB_CO_TRY(const uint64_t n_bytes, state.device->bringing());
    if (n_bytes <= most) break;
    if (!state.device->wait()) co_await HostPause{state};
  }
  co_return Status();
}

LoadTask<Status> end_sending(Loading::State& state) {
  state.sent = Block();
  state.n_sent = 0;
  co_return co_await let_bring(state, 0).in(state);
}

bool is_sent(const Loading::State& state, const TensorPlace& place) {
  const std::optional<Kept> kept = state.device ? kept_as(state, place) : std::nullopt;
  return kept && state.device->kept_bytes(kept->rows) > 0;
}

Result<DeviceRows*> room_for(Loading::State& state, const TensorPlace& place) {
  if (!state.device) return nullptr;
  const std::optional<Kept> kept = kept_as(state, place);
  if (!kept) return nullptr;
  std::unique_ptr<DeviceRows>& rows = state.coming[kept->name];
  if (!rows) { SB_TRY(rows, state.device->keep_rows(kept->rows)); }
  const bool has_room = rows && place.n_bytes <= rows->n_bytes() - rows->n_come();
  return has_room ? rows.get() : nullptr;
}

LoadTask<Result<TensorBytes>> send_tensor(Loading::State& state, const TensorFile& from, const TensorPlace& place, DeviceRows& rows,
                                          KnownBytes known, const SeeBytes& see) {
  const std::optional<Kept> kept = kept_as(state, place);
  const DtypeRow& type = dtype_row(kept->dtype);
  const uint64_t most = chunk_bytes(kept->dtype);
  std::optional<Error> flaw;
  for (uint64_t done = 0; done < place.n_bytes;) {
    const uint64_t offset = place.offset + done, n = std::min(most, place.n_bytes - done);
    std::span<const std::byte> chunk;
    if (offset >= known.offset && offset + n <= known.offset + known.bytes.size()) {
      chunk = known.bytes.subspan(size_t(offset - known.offset), size_t(n));
    } else {
      SB_CO_TRY(const std::span<std::byte> to, take_staging(state, n));
      state.stages(known.bytes.size());
      const uint64_t n_known = copy_known(known, offset, to);
      SB_CO_OK(co_await read_bytes(state, from.file, from.label, offset + n_known, to.subspan(size_t(n_known))).in(state));
      chunk = to;
    }
    if (see) see(chunk);
    const int64_t first = int64_t(rows.n_come()) / type.bytes_per_block * type.block;
    Status numbers = check_finite(kept->name, from.label, kept->dtype, chunk, first);
    if (!numbers && !flaw) flaw = std::move(numbers).error();
    SB_CO_OK(co_await send(state, rows, chunk).in(state));
    done += n;
  }
  if (rows.n_come() < rows.n_bytes()) co_return TensorBytes(nullptr, std::move(flaw));  // more pieces follow
  auto all = std::move(state.coming.extract(kept->name).mapped());
  co_return TensorBytes(std::move(all), std::move(flaw));
}

namespace {

/// co_await: `n_rows` rows from the host; `read` gives those from `first` on, of which there are at most `to` bytes.
using ReadRows = std::function<std::span<const std::byte>(int64_t first, int64_t n)>;
LoadTask<Result<std::unique_ptr<DeviceRows>>> send_rows(Loading::State& state, const RowLayout& layout, ReadRows read) {
  SB_CO_TRY(std::unique_ptr<DeviceRows> rows, state.device->keep_rows(layout));
  const int64_t n_staged = std::max<int64_t>(1, int64_t(kSentBytes) / layout.row_bytes);
  for (int64_t first = 0; rows && first < layout.n_rows; first += n_staged)
    SB_CO_OK(co_await send(state, *rows, read(first, std::min(n_staged, layout.n_rows - first))).in(state));
  co_return rows;
}

}  // namespace

LoadTask<Status> send_matrices(Loading::State& state, WeightStore& weights) {
  std::map<const void*, WeightTensor*> owners;  // of blocks
  for (const auto& tensor : weights.tensors()) {
    if (tensor->block.size()) owners[tensor->block.data()] = tensor.get();
  }
  for (const auto& [name, unused] : weights.matrices()) {
    PlaneMatrix& m = *weights.find_matrix(name);
    for (PlaneSet& set : m.sets) {
      const auto owner = owners.find(set.words);
      const RowLayout layout = plane_layout(m.n_rows, set.code.n_planes, m.n_columns);
      if (owner == owners.end() || layout.row_bytes > int64_t(kSentBytes)) continue;
      SB_CO_TRY(const std::span<std::byte> staged, take_staging(state, kSentBytes));
      auto read = [&](int64_t first, int64_t n) -> std::span<const std::byte> {
        for (int64_t i = 0; i < n; ++i)
          plane_row_words(m, set, first + i, reinterpret_cast<uint32_t*>(staged.data() + i * layout.row_bytes));
        return staged.first(size_t(n * layout.row_bytes));
      };
      SB_CO_TRY(std::unique_ptr<DeviceRows> rows, co_await send_rows(state, layout, read).in(state));
      if (!rows) co_return Status();
      set.words = nullptr;
      set.order = PlaneOrder::kRows;
      set.there = rows.get();
      owner->second->there = std::move(rows);
      owner->second->block = Block();
      owners.erase(owner);
    }
  }
  for (const auto& [data, tensor] : owners) {
    const std::optional<Kept> kept =
        tensor->array_of.empty() ? kept_as(state, {.name = tensor->name, .dtype = tensor->dtype, .shape = tensor->shape}) : std::nullopt;
    if (!kept) continue;
    auto read = [&](int64_t first, int64_t n) {
      return std::span<const std::byte>(tensor->block.bytes())
          .subspan(size_t(first * kept->rows.row_bytes), size_t(n * kept->rows.row_bytes));
    };
    SB_CO_TRY(tensor->there, co_await send_rows(state, kept->rows, read).in(state));
    if (tensor->there) tensor->block = Block();
  }
  co_return Status();
}

}  // namespace sb
