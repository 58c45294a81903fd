// Loading pulls: a load is a coroutine that says which bytes it wants next; the host (a page, a worker, a command line) brings them and
// resumes it. So nothing blocks and no file API is needed in here.
#pragma once

#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "base/json.h"
#include "base/memory.h"
#include "base/result.h"
#include "device/device.h"
#include "io/config.h"
#include "io/folder_index.h"
#include "io/gguf_vocab_fields.h"
#include "io/weights.h"

namespace sb {

/// What the load wants of its host. kPause: nothing but to be called again, once the device has taken some of what is on its way to it.
struct ReadRequest {
  enum class Kind { kNothing, kSize, kBytes, kPause } kind = Kind::kNothing;
  std::string file;          // relative to the model; "" is the model file itself
  uint64_t offset = 0;       // bytes
  std::span<std::byte> dst;  // at most kMaxRequestBytes
};
inline constexpr uint64_t kMaxRequestBytes = 16u << 20;
/// Staged at once on their way to a device.
inline constexpr uint64_t kSentBytes = 4u << 20;

/// What a load brings home.
struct ModelFiles {
  Container container = Container::kGguf;
  std::string file;  // name for errors and reports
  Config config;     // config.json, or GGUF metadata
  WeightStore weights;
  std::string tokenizer_json;             // text; empty for a GGUF
  std::optional<GgufVocabFields> vocab;   // the tokenizer inside a GGUF
  std::string chat_template;              // Jinja source; empty when there is none
  Json tokenizer_config;                  // tokenizer_config.json, or null (bos/eos token texts)
  Json generation_config;                 // generation_config.json, or null
  std::optional<FolderIndex> index = {};  // of a quantised folder
};

/// How the bytes are asked for. The defaults suit files and HTTP alike.
struct LoadTuning {
  uint64_t first_bytes = 64u << 10;                // of a file whose index is at its start; grows until the index is complete
  uint64_t most_request_bytes = kMaxRequestBytes;  // of one request
  uint64_t most_shared_bytes = 4u << 20;           // neighbouring tensors up to so many bytes together come in one request
};

struct LoadProgress {
  const char* phase = "index";  // index, tokenizer, weights
  uint64_t done_bytes = 0, total_bytes = 0;
};

/// What a load costs, known once it is complete.
struct LoadCost {
  uint64_t download_bytes = 0;  // of all files that it reads
  uint64_t staging_bytes = 0;   // held at once on their way, at most
  uint64_t most_bytes = 0;      // those and the weights together, at most
};

/// How a device with memory of its own keeps a tensor of a model, or an array of one; nothing where it stays on the host, which reads
/// vectors and tables of a few numbers.
std::optional<RowLayout> device_layout(const WeightTensor& tensor);
std::optional<RowLayout> device_layout(Dtype dtype, const Shape& shape);

/// What a family changes in its weights before a model opens over them (models/registry.h); they stay on the host until then.
using WeightRework = Status (*)(const Config& config, WeightStore& weights);
/// That of a model; null where there is nothing to change.
using FindRework = WeightRework (*)(const Config& config);

/// Hears which tensors a load will bring home, as Loading::shapes has them, with the config and nothing else: as soon as they are known,
/// before the bytes that are still to come.
using SeeShapes = std::function<void(ModelFiles shapes)>;

/// One model being loaded.
class Loading {
 public:
  static Loading gguf(std::string file, LoadTuning tuning = {});
  /// A folder as Hugging Face has it, or a quantised one, of which `sets` are read.
  static Loading folder(std::string file, LoadTuning tuning = {}, PlaneSets sets = PlaneSets::kFull);
  /// Only the refinement of a quantised folder whose base is loaded: weights hold its arrays, for attach_refinement(), but for those of the
  /// matrices that `have` theirs; these are checked and let go.
  static Loading refinement(std::string file, FolderIndex index, std::set<std::string, std::less<>> have = {}, LoadTuning tuning = {});
  /// Reads a whole quantised folder, checks all that a load checks, and keeps one component at a time. Comes home with the index alone.
  static Loading verify(std::string file, LoadTuning tuning = {});
  /// The same load without its bytes: ends after the heads and comes home with every tensor's name, type and shape. Vectors and tables of a
  /// few numbers have a block of zeros, since opening a model looks at them; the other blocks are empty. For plans of memory.
  static Loading shapes(std::string file, Container container, PlaneSets sets = PlaneSets::kFull);
  /// Matrices go to the device's own memory as their bytes come, if it has some, and the host keeps none of them. Before the first next();
  /// the device outlives the load. Through a staging block of at most kSentBytes, because every byte is checked on its way. `see_shapes`
  /// is not called for models that are changed on the host first, nor where their shapes are not what the load will accept.
  void bring_to(Device& device, FindRework find_rework = nullptr, SeeShapes see_shapes = nullptr);
  /// `see` hears the text of tokenizer.json as soon as it has come; the text stays where it is until the load's files are let go. Before
  /// the first next().
  void see_tokenizer(std::function<void(const std::string& json)> see);
  Loading(Loading&&) noexcept;
  Loading& operator=(Loading&&) noexcept;
  ~Loading();

  /// Runs until something is wanted, the load is complete (kNothing) or it fails.
  Result<ReadRequest> next();
  /// Answers kSize; nullopt says that there is no such file.
  void size_is(std::optional<uint64_t> n_bytes);
  /// Answers kBytes; fewer than wanted means that the file ends there.
  void bytes_are(uint64_t n_bytes);
  /// The host has summed a component of a quantised folder, found the SHA-256 that the index names, and will answer with those bytes: they
  /// are not summed again. Before the first of them is answered. A host may sum ten times as fast as WebAssembly.
  void is_summed(std::string component);
  LoadProgress progress() const;
  LoadCost cost() const;
  /// After kNothing, once.
  Result<ModelFiles> finish();

  struct State;

 private:
  explicit Loading(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sb
