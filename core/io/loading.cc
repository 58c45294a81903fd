#include "io/loading.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "io/load_task.h"

namespace sb {

Loading::State::~State() { root.reset(); }

void Loading::State::stages(uint64_t n_bytes) {
  n_bytes += n_sent;
  cost.staging_bytes = std::max(cost.staging_bytes, n_bytes);
  cost.most_bytes = std::max(cost.most_bytes, weight_bytes + n_bytes);
}

Loading::Loading(std::unique_ptr<State> state) : state_(std::move(state)) {}
Loading::Loading(Loading&&) noexcept = default;
Loading& Loading::operator=(Loading&&) noexcept = default;
Loading::~Loading() = default;

namespace {

using Loader = LoadTask<Result<ModelFiles>> (*)(Loading::State&);

std::unique_ptr<Loading::State> start(std::string file, LoadTuning tuning, Loader loader) {
  tuning.first_bytes = std::clamp<uint64_t>(tuning.first_bytes, 1, kMaxRequestBytes);
  tuning.most_request_bytes = std::clamp<uint64_t>(tuning.most_request_bytes, 1, kMaxRequestBytes);
  auto state = std::make_unique<Loading::State>();
  state->file = std::move(file);
  state->tuning = tuning;
  state->root = std::make_unique<LoadTask<Result<ModelFiles>>>(loader(*state));
  state->stack.push_back(state->root->handle());
  return state;
}

}  // namespace

Loading Loading::gguf(std::string file, LoadTuning tuning) { return Loading(start(std::move(file), tuning, load_gguf)); }
Loading Loading::folder(std::string file, LoadTuning tuning, PlaneSets sets) {
  auto state = start(std::move(file), tuning, load_folder);
  state->sets = sets;  // the loader has not begun
  return Loading(std::move(state));
}
Loading Loading::refinement(std::string file, FolderIndex index, std::set<std::string, std::less<>> have, LoadTuning tuning) {
  auto state = start(std::move(file), tuning, load_refinement);
  state->index = std::move(index);
  state->refined = std::move(have);
  // Known before the first read, so that a host may ask whether so many bytes fit.
  state->progress = {"weights", 0, state->index->shard_bytes(PlaneSets::kFull) - state->index->shard_bytes(PlaneSets::kBase)};
  return Loading(std::move(state));
}
Loading Loading::verify(std::string file, LoadTuning tuning) { return Loading(start(std::move(file), tuning, verify_folder)); }
Loading Loading::shapes(std::string file, Container container, PlaneSets sets) {
  auto state = start(std::move(file), {}, container == Container::kGguf ? load_gguf : load_folder);
  state->shapes_only = true;
  state->sets = sets;
  return Loading(std::move(state));
}

void Loading::bring_to(Device& device, FindRework find_rework, SeeShapes see_shapes) {
  if (!device.holds_weights()) return;
  state_->device = &device;
  state_->find_rework = find_rework;
  if (!state_->shapes_only) state_->see_shapes = std::move(see_shapes);
}

void Loading::see_tokenizer(std::function<void(const std::string&)> see) { state_->see_tokenizer = std::move(see); }

Result<ReadRequest> Loading::next() {
  State& s = *state_;
  if (s.request.kind == ReadRequest::Kind::kPause) s.request = {};
  while (s.request.kind == ReadRequest::Kind::kNothing && !s.stack.empty()) {
    const std::coroutine_handle<> top = s.stack.back();
    top.resume();
    // The finished task is the top one: what it awaited has been popped before it went on.
    if (top.done()) s.stack.pop_back();
  }
  if (s.stack.empty() && s.root) {
    Result<ModelFiles> result = s.root->take();
    s.root.reset();
    if (result) {
      s.files = std::move(*result);
    } else {
      s.error = std::move(result).error();
    }
  }
  if (s.error) return err(*s.error);
  return s.request;
}

void Loading::size_is(std::optional<uint64_t> n_bytes) {
  if (state_->request.kind != ReadRequest::Kind::kSize) return;
  state_->answer = n_bytes;
  state_->request = {};
}

void Loading::bytes_are(uint64_t n_bytes) {
  State& s = *state_;
  if (s.request.kind != ReadRequest::Kind::kBytes) return;
  s.answer = std::min<uint64_t>(n_bytes, s.request.dst.size());
  s.progress.done_bytes += *s.answer;
  s.request = {};
}

void Loading::is_summed(std::string component) { state_->summed.insert(std::move(component)); }

LoadProgress Loading::progress() const { return state_->progress; }
LoadCost Loading::cost() const {
  LoadCost cost = state_->cost;
  cost.download_bytes = state_->progress.total_bytes;
  return cost;
}

Result<ModelFiles> Loading::finish() {
  State& s = *state_;
  if (s.error) return err(*s.error);
  if (!s.files) return err(Code::kInternal, {{"what", "a load was finished before it was complete"}});
  Result<ModelFiles> files = std::move(*s.files);
  s.files.reset();
  return files;
}

HostAnswer ask_size(Loading::State& state, std::string file) {
  state.request = {ReadRequest::Kind::kSize, std::move(file), 0, {}};
  return {state};
}

LoadTask<Status> read_bytes(Loading::State& state, std::string file, std::string label, uint64_t offset, std::span<std::byte> dst) {
  while (!dst.empty()) {
    const std::span<std::byte> part = dst.first(size_t(std::min<uint64_t>(dst.size(), state.tuning.most_request_bytes)));
    state.request = {ReadRequest::Kind::kBytes, file, offset, part};
    const uint64_t n = (co_await HostAnswer{state}).value_or(0);
    if (n < part.size()) co_return err(Code::kModelTruncated, {{"file", label}, {"size", offset + n}, {"needed", offset + dst.size()}});
    offset += n;
    dst = dst.subspan(size_t(n));
  }
  co_return Status();
}

LoadTask<Status> extend_start(Loading::State& state, TensorFile& from, uint64_t n_bytes) {
  if (n_bytes <= from.start_bytes) co_return Status();
  state.stages(from.start_bytes + n_bytes);
  {
    SB_CO_TRY(Block longer, Block::take(Tag::kStaging, n_bytes));
    if (from.start_bytes) std::memcpy(longer.data(), from.start.data(), size_t(from.start_bytes));
    std::swap(from.start, longer);
  }
  const uint64_t n_old = std::exchange(from.start_bytes, n_bytes);
  co_return co_await read_bytes(state, from.file, from.label, n_old, from.start.bytes().subspan(size_t(n_old))).in(state);
}

uint64_t copy_known(const KnownBytes& known, uint64_t offset, std::span<std::byte> to) {
  const uint64_t end = known.offset + known.bytes.size();
  if (to.empty() || offset < known.offset || offset >= end) return 0;
  const uint64_t n = std::min<uint64_t>(to.size(), end - offset);
  std::memcpy(to.data(), known.bytes.data() + (offset - known.offset), size_t(n));
  return n;
}

Status add_tensor(const TensorPlace& place, const std::string& label, TensorBytes bytes, WeightStore& weights) {
  if (bytes.flaw) return err(*std::move(bytes.flaw));
  if (place.is_i64) { SB_TRY(bytes.block, stored_block(place, bytes.block.bytes(), label)); }
  SB_OK(check_finite(place.name, label, place.dtype, bytes.block.bytes()));
  return weights.add({.name = place.name,
                      .file = label,
                      .dtype = place.dtype,
                      .shape = place.shape,
                      .block = std::move(bytes.block),
                      .there = std::move(bytes.there)});
}

bool is_small(const Shape& shape, uint64_t n_bytes) {
  constexpr uint64_t kFewBytes = 1024;
  return shape.rank() < 2 || n_bytes <= kFewBytes;
}

Status take_shapes(std::span<const TensorPlace> places, const TakeTensor& take) {
  for (const TensorPlace& place : places) {
    // Zeros for what opening a model looks at.
    SB_TRY(Block unread, Block::take(Tag::kWeights, is_small(place.shape, place.n_bytes) ? place.n_bytes : 0));
    SB_OK(take(place, std::move(unread)));
  }
  return {};
}

ModelFiles files_without_texts(const Loading::State& state, Config config, WeightStore weights, std::optional<FolderIndex> index) {
  return ModelFiles{.container = config.container(),
                    .file = state.file,
                    .config = std::move(config),
                    .weights = std::move(weights),
                    .tokenizer_json = "",
                    .vocab = std::nullopt,
                    .chat_template = "",
                    .tokenizer_config = nullptr,
                    .generation_config = nullptr,
                    .index = std::move(index)};
}

// A tensor alone is read straight into its Block. Neighbours that are small together share one request through a staging Block: a
// model of 30 layers has hundreds of tensors, and each request may be a round trip.
LoadTask<Status> read_tensors(Loading::State& state, TensorFile from, TakeTensor take, SeeBytes see) {
  const std::vector<TensorPlace>& places = from.places;
  Block known = std::move(from.start);      // bytes that came already …
  uint64_t known_offset = 0;                // … from here …
  uint64_t known_bytes = from.start_bytes;  // … and so many
  uint64_t n_staged = known.size();
  for (size_t i = 0; i < places.size(); ++i) {
    const TensorPlace& place = places[i];
    const uint64_t known_end = known_offset + known_bytes;
    const uint64_t end = place.offset + place.n_bytes;
    if (place.offset >= known_end) {
      known = Block();
      n_staged = 0;
      known_offset = known_end;
      known_bytes = 0;
    }
    if (place.n_bytes && end > known_end) {
      const uint64_t begin = std::max(place.offset, known_end);
      uint64_t shared_end = end;
      size_t n_sharing = 1;
      for (size_t j = i + 1; j < places.size() && places[j].offset + places[j].n_bytes <= begin + state.tuning.most_shared_bytes; ++j) {
        shared_end = std::max(shared_end, places[j].offset + places[j].n_bytes);
        ++n_sharing;
      }
      if (n_sharing > 1 && begin == place.offset) {
        known_offset = begin;
        known_bytes = shared_end - begin;
        state.stages(n_staged + known_bytes);
        n_staged = known_bytes;
        if (!state.shapes_only) {
          SB_CO_TRY(known, Block::take(Tag::kStaging, known_bytes));
          SB_CO_OK(co_await read_bytes(state, from.file, from.label, begin, known.bytes()).in(state));
        }
      }
    }
    state.weight_bytes += place.n_bytes;
    state.stages(n_staged);
    if (state.shapes_only) {
      if (end > known_offset + known_bytes && is_sent(state, place))
        state.n_sent = std::max(state.n_sent, std::min(place.n_bytes, kSentBytes));
      state.stages(n_staged);
      SB_CO_OK(take_shapes({&place, 1}, take));
      continue;
    }
    const KnownBytes come{known.bytes().first(size_t(known_bytes)), known_offset};
    SB_CO_TRY(DeviceRows * rows, room_for(state, place));
    if (rows) {
      SB_CO_TRY(TensorBytes sent, co_await send_tensor(state, from, place, *rows, come, see).in(state));
      SB_CO_OK(take(place, std::move(sent)));
      continue;
    }
    SB_CO_TRY(Block block, Block::take(Tag::kWeights, place.n_bytes));
    const uint64_t n_copied = copy_known(come, place.offset, block.bytes());
    if (n_copied < place.n_bytes) {
      SB_CO_OK(
          co_await read_bytes(state, from.file, from.label, place.offset + n_copied, block.bytes().subspan(size_t(n_copied))).in(state));
    }
    if (see) see(block.bytes());
    SB_CO_OK(take(place, std::move(block)));
  }
  co_return Status();
}

}  // namespace sb
