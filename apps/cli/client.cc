#include "client.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>

namespace cli {
namespace {

struct FileCloser {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

/// Open files of one model, by the names that its load uses.
class Files {
 public:
  explicit Files(std::filesystem::path root) : root_(std::move(root)) {}

  int64_t size(const std::string& name) {
    std::error_code error;
    const auto n_bytes = std::filesystem::file_size(path(name), error);
    return error ? -1 : int64_t(n_bytes);
  }
  uint64_t read(const std::string& name, uint64_t offset, void* to, uint64_t n_bytes) {
    File& file = files_[name];
    if (!file) file.reset(std::fopen(path(name).c_str(), "rb"));
    if (!file || fseeko(file.get(), off_t(offset), SEEK_SET) != 0)
      throw Failure{"kReadFailed", "Reading " + path(name).string() + " failed: " + std::strerror(errno),
                    "Check the disk and the file's permissions."};
    const size_t n = std::fread(to, 1, n_bytes, file.get());
    if (n < n_bytes && std::ferror(file.get()))
      throw Failure{"kReadFailed", "Reading " + path(name).string() + " failed: " + std::strerror(errno),
                    "Check the disk, then try again."};
    return n;
  }

 private:
  std::filesystem::path path(const std::string& name) const { return name.empty() ? root_ : root_ / name; }
  std::filesystem::path root_;
  std::map<std::string, File> files_;
};

/// Brings a load all that it wants.
void pull(sb_load* load, Files& files, const std::function<void(const Json& progress)>& on_progress) {
  sb_request wanted;
  while (int32_t kind = checked(sb_load_next(load, &wanted))) {
    if (kind == SB_LOAD_WANTS_SIZE) {
      checked(sb_load_size(load, files.size(wanted.file)));
    } else if (kind == SB_LOAD_WANTS_BYTES) {
      checked(sb_load_bytes(load, files.read(wanted.file, wanted.offset, wanted.dst, wanted.n_bytes)));
    }
    if (on_progress) on_progress(Json::parse(sb_load_progress(load)));
  }
}

}  // namespace

void fail_with_last_error() {
  const char* text = sb_error();
  const Json j = text ? Json::parse(text) : Json::object();
  throw Failure{j.value("code", "kInternal"), j.value("message", "unknown error"), j.value("hint", ""), j.value("of_device", false)};
}

std::string read_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw Failure{"kFileMissing", path + " was not found", "Check the path."};
  Files files(path);
  std::string bytes(size_t(std::max<int64_t>(0, files.size(""))), '\0');
  bytes.resize(files.read("", 0, bytes.data(), bytes.size()));
  return bytes;
}

std::string request_text(const Json& request) {
  try {
    return request.dump();
  } catch (const Json::type_error&) {  // all that a dump can throw: bytes that are not UTF-8
    throw Failure{"kUtf8Invalid", "The prompt, an option or a path is not valid UTF-8", "Pass the text as UTF-8."};
  }
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::localtime(&now));
  return text;
}

Engine open_engine_for_measuring(Json options) {
  if (!options.contains("device")) options["device"] = "cpu";
  return open_engine(options);
}

Engine open_engine(const Json& options) {
  Engine engine(checked(sb_engine_create(request_text(options).c_str())));
  const Json here = parsed(sb_engine_capabilities(engine.get()));
  if (options.value("device", "auto") == "webgpu" && here["device"] != "webgpu")
    std::fprintf(stderr, "subbyte: %s; it runs on the CPU\n", here["device_why"].get<std::string>().c_str());
  return engine;
}

Load bring(sb_engine* engine, const std::string& path, Json options, const std::function<void(const Json& progress)>& on_progress) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  if (!is_folder && !std::filesystem::is_regular_file(path, error)) {
    throw Failure{"kFileMissing", path + " was not found",
                  "Give a GGUF file, or a Hugging Face folder with config.json and *.safetensors."};
  }
  options["file"] = path;
  if (!options.contains("container")) options["container"] = is_folder ? "folder" : "gguf";
  Files files(path);
  Load load(checked(sb_load_create(engine, request_text(options).c_str())));
  pull(load.get(), files, on_progress);
  return load;
}

Model load_model(sb_engine* engine, const std::string& path, const Json& options,
                 const std::function<void(const Json& progress)>& on_progress) {
  for (;;) {
    try {
      Model model(checked(sb_load_finish(bring(engine, path, options, on_progress).release())));
      if (!std::string(checked(sb_model_check_key(model.get()))).empty()) {
        while (checked(sb_model_check_step(model.get())) != SB_STEP_DONE) {}
      }
      return model;
    } catch (const Failure& failure) {
      if (failure.code == "kDeviceLost" && sb_engine_reopen(engine) == SB_STEP_DONE) continue;
      if (!failure.of_device || !checked(sb_engine_fall_back(engine, failure.message.c_str()))) throw;
      std::fprintf(stderr, "subbyte: %s; it runs on the CPU\n", failure.message.c_str());
    }
  }
}

int32_t step(sb_model* model, sb_session* session) {
  for (;;) {
    const int32_t status = checked(sb_session_step(session));
    if (status != SB_STEP_WANTS_WEIGHTS) return status;
    Files files(parsed(sb_model_info(model))["file"].get<std::string>());
    Load load(checked(sb_model_reload(model)));
    try {
      pull(load.get(), files, {});
      checked(sb_model_restore(model, load.release()));
    } catch (const Failure& failure) {
      if (failure.code != "kDeviceLost") throw;  // lost once more: the next step counts it
    }
  }
}

std::vector<Json> plan_model(sb_engine* engine, const std::string& path, const std::vector<Json>& requests) {
  const Load load = bring(engine, path, {{"shapes", true}}, {});
  std::vector<Json> plans;
  for (const Json& request : requests) plans.push_back(parsed(sb_load_plan(load.get(), request_text(request).c_str())));
  return plans;
}

Json run_answer(sb_model* model, sb_session* session, const std::function<void(const Json& event)>& on_event,
                const std::function<bool()>& stop) {
  Json done;
  auto drain = [&] {
    while (const char* text = sb_session_event(session)) {
      Json event = Json::parse(text);
      if (on_event) on_event(event);
      if (event["type"] == "done") done = std::move(event);
    }
  };
  for (;;) {
    int32_t more = SB_STEP_DONE;
    try {
      more = step(model, session);
    } catch (const Failure&) {
      drain();
      throw;
    }
    drain();
    if (more == SB_STEP_DONE) break;
    if (stop && stop()) {
      sb_session_cancel(session);
      drain();
      break;
    }
  }
  return done;
}

}  // namespace cli
