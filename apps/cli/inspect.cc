#include <cstdio>
#include <map>
#include <memory>

#include "commands.h"

namespace cli {
namespace {

void inspect(const std::string& path, bool as_json) {
  const Engine engine = open_engine({{"device", "cpu"}});
  const Model model = load_model(engine.get(), path, Json::object());
  Json info = parsed(sb_model_info(model.get()));
  const Json tensors = parsed(sb_model_tensors(model.get()));
  struct Sum {
    int64_t n_tensors = 0, n_elements = 0, n_bytes = 0;
  };
  std::map<std::string, Sum> by_dtype;
  for (const Json& t : tensors) {
    int64_t n = 1;
    for (const Json& d : t["shape"]) n *= d.get<int64_t>();
    Sum& sum = by_dtype[t["dtype"]];
    sum.n_tensors += 1;
    sum.n_elements += n;
    sum.n_bytes += t["n_bytes"].get<int64_t>();
  }
  if (as_json) {
    for (const auto& [dtype, sum] : by_dtype)
      info["by_dtype"][dtype] = {{"n_tensors", sum.n_tensors}, {"n_parameters", sum.n_elements}, {"n_bytes", sum.n_bytes}};
    info["tensors"] = tensors;
    std::printf("%s\n", info.dump(1).c_str());
    return;
  }
  std::printf("%s\n  family %s (%s), %d layers, width %d, %d heads over %d, vocabulary %d, context %d\n  tokenizer %s, chat template %s\n",
              info["name"].get<std::string>().c_str(), info["family"].get<std::string>().c_str(),
              info["architecture"].get<std::string>().c_str(), info["layers"].get<int>(), info["hidden"].get<int>(),
              info["heads"].get<int>(), info["kv_heads"].get<int>(), info["vocab"].get<int>(), info["context_of_model"].get<int>(),
              info["has_tokenizer"] ? "inside" : "none", info["has_chat_template"] ? "inside" : "none");
  std::printf("  %.1f M parameters in %.1f MB: %.3f bits per weight, scales counted\n\n", info["n_parameters"].get<double>() / 1e6,
              info["weight_bytes"].get<double>() / 1e6, info["bpw"].get<double>());
  std::printf("  %-6s %8s %14s %14s %8s\n", "type", "tensors", "parameters", "bytes", "bpw");
  for (const auto& [dtype, sum] : by_dtype) {
    std::printf("  %-6s %8lld %14lld %14lld %8.3f\n", dtype.c_str(), (long long)sum.n_tensors, (long long)sum.n_elements,
                (long long)sum.n_bytes, 8.0 * double(sum.n_bytes) / double(std::max<int64_t>(1, sum.n_elements)));
  }
  std::printf("\n");
  for (const Json& t : tensors)
    std::printf("  %-6s %8.3f bpw %12lld B  %-16s %s\n", t["dtype"].get<std::string>().c_str(), t["bpw"].get<double>(),
                (long long)t["n_bytes"].get<int64_t>(), t["shape"].dump().c_str(), t["name"].get<std::string>().c_str());
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("inspect", "Show a model: architecture, tensors, types, bytes, true bits per weight");
  command->add_option("MODEL", *path, "A GGUF file or a Hugging Face folder")->required();
  command->add_flag("--json", *json, "As JSON");
  command->callback([path, json] { inspect(*path, *json); });
}

}  // namespace cli
