// The C API with C++ manners: owners that free, errors that throw Failure, and a host that brings a load its bytes from disk.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "subbyte.h"

namespace cli {

using Json = nlohmann::ordered_json;

/// An error of the engine or of the command line; main() prints it and exits with 1.
struct Failure {
  std::string code, message, hint;
  bool of_device = false;  // it may succeed on another device
};
/// Throws what sb_error() says.
[[noreturn]] void fail_with_last_error();

template <auto kFree>
struct Freer {
  template <class T>
  void operator()(T* p) const {
    kFree(p);
  }
};
using Engine = std::unique_ptr<sb_engine, Freer<sb_engine_free>>;
using Model = std::unique_ptr<sb_model, Freer<sb_model_free>>;
using Session = std::unique_ptr<sb_session, Freer<sb_session_free>>;
using Load = std::unique_ptr<sb_load, Freer<sb_load_free>>;
using Quantizer = std::unique_ptr<sb_quantizer, Freer<sb_quantizer_free>>;
using Evaluation = std::unique_ptr<sb_eval, Freer<sb_eval_free>>;
using Tokenizer = std::unique_ptr<sb_tokenizer, Freer<sb_tokenizer_free>>;

template <class T>
T* checked(T* p) {
  if (!p) fail_with_last_error();
  return p;
}
inline int32_t checked(int32_t status) {
  if (status < 0) fail_with_last_error();
  return status;
}
inline Json parsed(const char* text) { return Json::parse(checked(text)); }

/// Whole file; throws Failure kFileMissing or kReadFailed.
std::string read_file(const std::string& path);

/// A request or options as the text that the engine takes. Throws Failure kUtf8Invalid when a text from outside is not UTF-8.
std::string request_text(const Json& request);

/// "2026-01-31", for chat templates that write the date.
std::string today();

Engine open_engine(const Json& options);
/// The same on the CPU unless another device is asked for: quantising runs there alone, and figures are compared with figures from there.
Engine open_engine_for_measuring(Json options);
/// A load that has all the bytes it wants: of a GGUF file or a Hugging Face folder; options may name another container ("verify").
Load bring(sb_engine* engine, const std::string& path, Json options, const std::function<void(const Json& progress)>& on_progress = {});
/// A GGUF file or a Hugging Face folder. `options`: those of data/options.json "model". What cannot run on the GPU goes to the CPU, says so
/// on stderr and in the engine's capabilities, unless the engine's option "fallback" is off.
Model load_model(sb_engine* engine, const std::string& path, const Json& options,
                 const std::function<void(const Json& progress)>& on_progress = {});

/// What a model would take, for each request (data/options.json "plan"): nothing but its heads is read.
std::vector<Json> plan_model(sb_engine* engine, const std::string& path, const std::vector<Json>& requests);

/// A step of the session's answer: SB_STEP_MORE or SB_STEP_DONE. Where the GPU was lost it reads the model's weights again.
int32_t step(sb_model* model, sb_session* session);

/// Runs the started answer to its end, handing over each event; `stop()` is asked between steps. Returns the "done" event.
Json run_answer(sb_model* model, sb_session* session, const std::function<void(const Json& event)>& on_event,
                const std::function<bool()>& stop = {});

}  // namespace cli
