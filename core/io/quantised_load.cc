// Loads a quantised folder: subbyte.index.json says which shards there are, and every byte of them is summed before it is believed.
#include <algorithm>
#include <map>

#include "base/sha256.h"
#include "io/load_task.h"
#include "io/plane_store.h"
#include "io/safetensors.h"
#include "io/split_tensors.h"

namespace sb {
namespace {

/// Takes a shard's tensors in file order, sums each component as its bytes come, unless the host has done so, and lets them on only when
/// the sum is right.
class ComponentGate {
 public:
  /// `state` and its folder outlive this. `pass` gets every tensor that is what was written.
  ComponentGate(const Loading::State& state, const ShardEntry& shard, std::string label, TakeTensor pass)
      : summed_(state.summed), label_(std::move(label)), pass_(std::move(pass)) {
    for (const ComponentEntry& component : state.folder->components) {
      if (component.shard == shard.name) components_.push_back(&component);
    }
  }

  /// Whether the head's tensors fill the components without gaps, so that the blocks are all the bytes there are.
  Status check(const std::vector<TensorPlace>& places) const {
    auto refuse = [&](const std::string& name, std::string_view why) {
      return err(Code::kModelCorrupt, {{"file", label_}, {"place", "tensor " + name}, {"why", why}});
    };
    size_t next = 0;
    uint64_t at = components_.front()->begin;
    for (const TensorPlace& place : places) {
      // Their blocks would not be the file's bytes; nor has an empty one a component.
      if (place.is_i64 || place.n_bytes == 0) return refuse(place.name, "a quantised folder has no such tensor");
      if (place.offset != at) return refuse(place.name, "there is a gap before it");
      if (at == components_[next]->end) ++next;
      at += place.n_bytes;
      if (next == components_.size() || at > components_[next]->end) return refuse(place.name, "it crosses the end of its component");
    }
    if (at != components_.back()->end) return refuse(places.empty() ? "" : places.back().name, "there is a gap behind it");
    return {};
  }

  void see(std::span<const std::byte> bytes) {
    if (!summed_.contains(components_[next_]->name)) sum_.update(bytes);
  }
  Status take(const TensorPlace& place, TensorBytes bytes) {
    const ComponentEntry& component = *components_[next_];
    const bool is_last = place.offset + place.n_bytes == component.end;
    waiting_.emplace_back(place, std::move(bytes));
    if (!is_last) return {};
    if (!summed_.contains(component.name) && sum_.hex() != component.sha256)
      return err(Code::kHashMismatch, {{"file", label_}, {"component", component.name}});
    for (auto& [waiting, bytes] : waiting_) SB_OK(pass_(waiting, std::move(bytes)));
    waiting_.clear();
    sum_ = {};
    ++next_;
    return {};
  }

 private:
  const std::set<std::string, std::less<>>& summed_;
  std::string label_;
  TakeTensor pass_;
  std::vector<const ComponentEntry*> components_;  // in file order, never empty: the index leaves no byte without one
  size_t next_ = 0;
  Sha256 sum_;
  std::vector<std::pair<TensorPlace, TensorBytes>> waiting_;
};

LoadTask<Status> read_shard(Loading::State& state, const ShardEntry& shard, TakeTensor pass) {
  TensorFile from{.file = shard.name, .label = label_of(state, shard.name), .places = {}, .start = {}, .start_bytes = 0};
  const uint64_t first_bytes = std::min(shard.n_bytes, std::max(shard.head_bytes, state.tuning.first_bytes));
  SB_CO_OK(co_await extend_start(state, from, first_bytes).in(state));
  const std::span<const std::byte> head = from.start.bytes().first(size_t(shard.head_bytes));
  if (sha256_hex(head) != shard.head_sha256) co_return err(Code::kHashMismatch, {{"file", from.label}, {"component", "its head"}});
  SB_CO_TRY(const uint64_t n_head, safetensors_head_bytes(head, shard.n_bytes, from.label));
  if (n_head != shard.head_bytes) {
    const std::string why = "its head has " + std::to_string(n_head) + " bytes, but the index says " + std::to_string(shard.head_bytes);
    co_return err(Code::kModelCorrupt, {{"file", from.label}, {"place", "byte 0"}, {"why", why}});
  }
  SB_CO_TRY(from.places, safetensors_parse_head(head, shard.n_bytes, from.label));
  state.heads.add(from.label, from.places);
  if (state.shapes_only) co_return co_await read_tensors(state, std::move(from), std::move(pass)).in(state);
  ComponentGate gate(state, shard, from.label, std::move(pass));
  SB_CO_OK(gate.check(from.places));
  auto take = [&](const TensorPlace& place, TensorBytes bytes) { return gate.take(place, std::move(bytes)); };
  auto see = [&](std::span<const std::byte> bytes) { gate.see(bytes); };
  co_return co_await read_tensors(state, std::move(from), take, see).in(state);
}

/// The shards in load order. All sizes are asked first: what is missing is better known before the download than after it.
LoadTask<Status> read_shards(Loading::State& state, const FolderIndex& index, bool with_base, bool with_refinement, TakeFrom take,
                             bool keeps_bytes = true) {
  state.folder = &index;
  PieceJoiner joiner(index, keeps_bytes, std::move(take), [&](uint64_t n_bytes) {
    if (!state.device) state.holds(n_bytes);  // a device has one room for all pieces
  });
  for (const bool is_asking : {true, false}) {
    for (const ShardEntry& shard : index.shards) {
      if (!(shard.is_refinement ? with_refinement : with_base)) continue;
      const std::string label = label_of(state, shard.name);
      if (is_asking) {
        ++state.heads.n_files;
        const std::optional<uint64_t> size = co_await ask_size(state, shard.name);
        if (!size) co_return err(Code::kFileMissing, {{"file", label}});
        if (*size < shard.n_bytes) co_return err(Code::kModelTruncated, {{"file", label}, {"size", *size}, {"needed", shard.n_bytes}});
        if (*size > shard.n_bytes) {
          const std::string place = "byte " + std::to_string(shard.n_bytes);
          co_return err(Code::kModelCorrupt, {{"file", label}, {"place", place}, {"why", "the index says that it ends there"}});
        }
      } else {
        auto pass = [&](const TensorPlace& place, TensorBytes bytes) { return joiner.take(label, place, std::move(bytes)); };
        SB_CO_OK(co_await read_shard(state, shard, pass).in(state));
      }
    }
  }
  co_return joiner.finish(state.file);
}

TakeFrom into(WeightStore& weights) {
  return [&weights](const std::string& label, const TensorPlace& place, TensorBytes bytes) {
    return add_tensor(place, label, std::move(bytes), weights);
  };
}

/// Of a load that is about a folder's bytes, not its model.
ModelFiles files_of(const Loading::State& state, WeightStore weights, FolderIndex index) {
  return files_without_texts(state, Config(Container::kFolder, label_of(state, "config.json"), Json::object()), std::move(weights),
                             std::move(index));
}

}  // namespace

LoadTask<Result<FolderIndex>> read_folder_index(Loading::State& state, PlaneSets sets) {
  const std::string label = label_of(state, kFolderIndexFile);
  SB_CO_TRY(const std::optional<std::string> text, co_await read_text(state, kFolderIndexFile).in(state));
  if (!text) co_return err(Code::kFileMissing, {{"file", label}});
  SB_CO_TRY(FolderIndex index, parse_folder_index(*text, label));
  state.progress.total_bytes += index.shard_bytes(sets);
  co_return std::move(index);
}

LoadTask<Status> read_quantised(Loading::State& state, const FolderIndex& index, PlaneSets sets, WeightStore& weights) {
  SB_CO_OK(co_await read_shards(state, index, true, sets == PlaneSets::kFull, into(weights)).in(state));
  co_return assemble_matrices(index, weights, sets);
}

void show_shapes(const Loading::State& state, const Config& config, const std::optional<FolderIndex>& index) {
  WeightStore shapes(state.file, config.container());
  const FolderIndex none;
  PieceJoiner joiner(index ? *index : none, false, into(shapes));
  for (const auto& [label, places] : state.heads.files) {
    auto take = [&](const TensorPlace& place, TensorBytes bytes) { return joiner.take(label, place, std::move(bytes)); };
    if (!take_shapes(places, take)) return;
  }
  if (index && !assemble_matrices(*index, shapes, state.sets)) return;
  state.see_shapes(files_without_texts(state, config, std::move(shapes)));
}

LoadTask<Result<ModelFiles>> load_refinement(Loading::State& state) {
  const FolderIndex& index = *state.index;
  WeightStore weights(state.file, Container::kFolder);
  const TakeFrom keep = into(weights);
  TakeFrom take = [&](const std::string& label, const TensorPlace& place, TensorBytes bytes) -> Status {
    return is_refined(state, place) ? Status() : keep(label, place, std::move(bytes));
  };
  SB_CO_OK(co_await read_shards(state, index, false, true, take).in(state));
  SB_CO_OK(co_await end_sending(state).in(state));
  co_return files_of(state, std::move(weights), index);
}

LoadTask<Result<ModelFiles>> verify_folder(Loading::State& state) {
  SB_CO_TRY(FolderIndex index, co_await read_folder_index(state, PlaneSets::kFull).in(state));
  state.progress.phase = "weights";
  std::map<std::string, ArrayKind, std::less<>> kinds;
  TakeFrom look = [&](const std::string& label, const TensorPlace& place, TensorBytes bytes) -> Status {
    SB_OK(check_finite(place.name, label, place.dtype, bytes.block.bytes()));
    if (kinds.emplace(place.name, ArrayKind{place.dtype, place.shape}).second) return {};
    return err(Code::kModelCorrupt, {{"file", label}, {"place", "tensor " + place.name}, {"why", "the name occurs twice"}});
  };
  SB_CO_OK(co_await read_shards(state, index, true, true, look, false).in(state));
  const FindArray find = [&](std::string_view name) -> std::optional<ArrayKind> {
    const auto kind = kinds.find(name);
    if (kind == kinds.end()) return std::nullopt;
    return kind->second;
  };
  SB_CO_OK(check_arrays(index, PlaneSets::kFull, find, state.file));
  co_return files_of(state, WeightStore(state.file, Container::kFolder), std::move(index));
}

}  // namespace sb
