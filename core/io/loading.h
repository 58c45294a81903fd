// Loading pulls: a load is a coroutine that says which bytes it wants next; the host (a page, a worker, a command line) brings them and
// resumes it. So nothing blocks and no file API is needed in here.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "base/json.h"
#include "base/memory.h"
#include "base/result.h"
#include "io/config.h"
#include "io/folder_index.h"
#include "io/gguf_vocab_fields.h"
#include "io/weights.h"

namespace sb {

/// What the load wants of its host.
struct ReadRequest {
  enum class Kind { kNothing, kSize, kBytes } kind = Kind::kNothing;
  std::string file;          // relative to the model; "" is the model file itself
  uint64_t offset = 0;       // bytes
  std::span<std::byte> dst;  // at most kMaxRequestBytes
};
inline constexpr uint64_t kMaxRequestBytes = 16u << 20;

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
  Loading(Loading&&) noexcept;
  Loading& operator=(Loading&&) noexcept;
  ~Loading();

  /// Runs until something is wanted, the load is complete (kNothing) or it fails.
  Result<ReadRequest> next();
  /// Answers kSize; nullopt says that there is no such file.
  void size_is(std::optional<uint64_t> n_bytes);
  /// Answers kBytes; fewer than wanted means that the file ends there.
  void bytes_are(uint64_t n_bytes);
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
