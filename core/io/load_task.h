// The coroutines that loading is made of. Private to io.
//
// A LoadTask<T> is lazy; awaiting one pushes it on the State's stack, and Loading::next() resumes whatever is on top until something is
// wanted of the host. An explicit stack instead of symmetric transfer: WebAssembly without the tail-call feature would nest one native
// frame per awaited task.
#pragma once

#include <algorithm>
#include <coroutine>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "io/loading.h"
#include "io/tensor_index.h"

namespace sb {

/// co_await a Result-giving expression, or leave the coroutine with its error.
#define SB_CO_TRY(declaration, expression) SB_CO_TRY_(SB_CONCAT(sb_result_, __LINE__), declaration, expression)
#define SB_CO_TRY_(result, declaration, expression)                         \
  auto result = (expression);                                               \
  if (!result) co_return std::unexpected<Error>(std::move(result).error()); \
  declaration = std::move(*result)
#define SB_CO_OK(expression)                                                                                       \
  do {                                                                                                             \
    if (auto sb_status = (expression); !sb_status) co_return std::unexpected<Error>(std::move(sb_status).error()); \
  } while (0)

template <class T>
class LoadTask;

/// The tensors of the files that a load has begun to read, by label. With the last file's, `see` hears of them.
struct Heads {
  size_t n_files = 0;
  std::function<void()> see;  // or nobody
  std::vector<std::pair<std::string, std::vector<TensorPlace>>> files;

  void add(const std::string& label, const std::vector<TensorPlace>& places) {
    if (!see) return;
    files.emplace_back(label, places);
    if (files.size() < n_files) return;
    see();
    files.clear();
  }
};

struct Loading::State {
  std::string file;
  LoadTuning tuning;
  PlaneSets sets = PlaneSets::kFull;  // of a quantised folder
  bool shapes_only = false;           // heads are read, tensors are not
  LoadCost cost;
  uint64_t weight_bytes = 0;                   // of the tensors so far
  std::optional<FolderIndex> index;            // of the folder whose refinement is loaded …
  std::set<std::string, std::less<>> refined;  // … and the matrices that have theirs
  Device* device = nullptr;                    // where matrices go, as long as they may
  FindRework find_rework = nullptr;
  std::function<void(const std::string& json)> see_tokenizer;
  std::string tokenizer_json;  // here, since who sees it may read on when the load has failed
  SeeShapes see_shapes;
  Heads heads;             // gathered for it
  Block sent;              // what is staged for the device: kept, and enlarged, until the load's end
  uint64_t n_sent = 0;     // its bytes
  uint64_t n_unasked = 0;  // bytes given to it since it was last asked how many are on their way
  std::map<std::string, std::unique_ptr<DeviceRows>, std::less<>> coming;  // of tensors that are not all there
  const FolderIndex* folder = nullptr;                                     // whose shards are being read
  std::set<std::string, std::less<>> summed;                               // components that the host has summed itself
  ReadRequest request;                                                     // what is wanted; kNothing while nothing is
  std::optional<uint64_t> answer;                                          // to the last request
  std::vector<std::coroutine_handle<>> stack;
  LoadProgress progress;
  std::optional<ModelFiles> files;  // once complete
  std::optional<Error> error;       // once failed
  std::unique_ptr<LoadTask<Result<ModelFiles>>> root;

  /// Enters in the cost that so many bytes are staged now.
  void stages(uint64_t n_bytes);
  /// … or that so many are taken beside the tensors so far.
  void holds(uint64_t n_bytes) { cost.most_bytes = std::max(cost.most_bytes, weight_bytes + n_bytes); }
  ~State();
};

template <class T>
class LoadTask {
 public:
  struct promise_type {
    std::optional<T> value;
    LoadTask get_return_object() { return LoadTask(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    template <class U>
    void return_value(U&& v) {
      value.emplace(std::forward<U>(v));
    }
    void unhandled_exception() noexcept {}
  };

  LoadTask(LoadTask&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  LoadTask& operator=(LoadTask&&) = delete;
  ~LoadTask() {
    if (handle_) handle_.destroy();
  }
  std::coroutine_handle<> handle() const { return handle_; }
  T take() { return std::move(*handle_.promise().value); }

  struct Awaiter {
    LoadTask task;
    Loading::State& state;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<>) { state.stack.push_back(task.handle()); }
    T await_resume() { return task.take(); }
  };
  /// co_await task.in(state)
  Awaiter in(Loading::State& state) && { return {std::move(*this), state}; }

 private:
  explicit LoadTask(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

/// Suspends until the host calls again.
struct HostPause {
  Loading::State& state;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) noexcept { state.request.kind = ReadRequest::Kind::kPause; }
  void await_resume() const noexcept {}
};

/// Suspends until the host has answered; gives its answer.
struct HostAnswer {
  Loading::State& state;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) noexcept {}
  std::optional<uint64_t> await_resume() { return std::exchange(state.answer, std::nullopt); }
};

/// co_await: the file's size, or nullopt when there is none.
HostAnswer ask_size(Loading::State& state, std::string file);
/// co_await: fills `dst` in requests of bounded size. Errors: kModelTruncated {label, …} when the file ends early.
LoadTask<Status> read_bytes(Loading::State& state, std::string file, std::string label, uint64_t offset, std::span<std::byte> dst);

/// What a loader knows of one file with tensors.
struct TensorFile {
  std::string file;   // for requests
  std::string label;  // for errors
  std::vector<TensorPlace> places;
  Block start;               // the file's first bytes, already read
  uint64_t start_bytes = 0;  // how many of them
};
/// co_await: reads on until `from.start` holds the first `n_bytes` of the file.
LoadTask<Status> extend_start(Loading::State& state, TensorFile& from, uint64_t n_bytes);
/// co_await: reads every tensor into its own Block, or to the state's device: offsets rise, and no byte is asked for twice. `see` hears
/// each tensor's bytes in order before it is taken.
using SeeBytes = std::function<void(std::span<const std::byte> bytes)>;
LoadTask<Status> read_tensors(Loading::State& state, TensorFile from, TakeTensor take, SeeBytes see = {});
/// What read_tensors() does of a load of shapes.
Status take_shapes(std::span<const TensorPlace> places, const TakeTensor& take);
/// What most loads do with one: narrows 64-bit integers, checks the numbers.
Status add_tensor(const TensorPlace& place, const std::string& label, TensorBytes bytes, WeightStore& weights);

/// Whether an array is of a refinement that the model has: it is checked and let go.
inline bool is_refined(const Loading::State& state, const TensorPlace& place) {
  return std::ranges::any_of(state.refined, [&](const std::string& m) { return place.name.starts_with(m + ".refine."); });
}
/// Whether a tensor is small enough to stay on the host, where opening a model looks at it: vectors, the filters of sign planes.
bool is_small(const Shape& shape, uint64_t n_bytes);
/// Bytes that come already, of those that a tensor of a file has.
struct KnownBytes {
  std::span<const std::byte> bytes;
  uint64_t offset = 0;  // in the file
};
/// Copies the part of [offset, offset + to.size()) that is known; returns how many leading bytes of `to` are filled.
uint64_t copy_known(const KnownBytes& known, uint64_t offset, std::span<std::byte> to);
/// Room on the state's device for a tensor as it comes; null where it stays on the host. Of one in pieces, the room of all.
Result<DeviceRows*> room_for(Loading::State& state, const TensorPlace& place);
/// co_await: brings a tensor's bytes there.
LoadTask<Result<TensorBytes>> send_tensor(Loading::State& state, const TensorFile& from, const TensorPlace& place, DeviceRows& rows,
                                          KnownBytes known, const SeeBytes& see);
/// co_await: brings the matrices there that have come to be on the host.
LoadTask<Status> send_matrices(Loading::State& state, WeightStore& weights);
/// Whether it goes there.
bool is_sent(const Loading::State& state, const TensorPlace& place);
/// co_await: all that was sent is there. Errors: what has gone wrong with it.
LoadTask<Status> end_sending(Loading::State& state);
/// co_await: waits until at most `most` bytes are on their way to the device. Errors: what has gone wrong there.
LoadTask<Status> let_bring(Loading::State& state, uint64_t most);

/// What a load brings home that is not about texts.
ModelFiles files_without_texts(const Loading::State& state, Config config, WeightStore weights, std::optional<FolderIndex> index = {});

/// A file of the folder as errors name it.
std::string label_of(const Loading::State& state, const std::string& file);
/// co_await: a whole text file, or nullopt when there is none or only its size is wanted; enters its size in the progress.
LoadTask<Result<std::optional<std::string>>> read_text(Loading::State& state, std::string file, bool size_only = false);
/// co_await: subbyte.index.json; enters the sizes of the shards of `sets` in the progress. Errors: kFileMissing, its parser's.
LoadTask<Result<FolderIndex>> read_folder_index(Loading::State& state, PlaneSets sets);
/// co_await: reads the shards of `sets`, and assembles. Errors: kHashMismatch and all that hostile shards may cause.
LoadTask<Status> read_quantised(Loading::State& state, const FolderIndex& index, PlaneSets sets, WeightStore& weights);
/// Shows see_shapes what the state's heads promise, unless the load will refuse it.
void show_shapes(const Loading::State& state, const Config& config, const std::optional<FolderIndex>& index);

LoadTask<Result<ModelFiles>> load_gguf(Loading::State& state);
LoadTask<Result<ModelFiles>> load_folder(Loading::State& state);
LoadTask<Result<ModelFiles>> load_refinement(Loading::State& state);
LoadTask<Result<ModelFiles>> verify_folder(Loading::State& state);

}  // namespace sb
