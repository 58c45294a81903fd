// subbyte plan: the bytes that a model takes, before anything of it is downloaded.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>

#include "commands.h"

namespace cli {
namespace {

struct PlanArguments {
  std::string model;
  std::vector<std::string> bits;
  Json options = Json::object(), engine = Json::object();
  bool json = false;
};

/// What devices are seen to bear: a page's heap on phones and tablets, a tab on a desk.
struct Budget {
  const char* name;
  double bytes;
};
constexpr Budget kBudgets[] = {{"iPhone 450 MB", 450e6}, {"Android 800 MB", 800e6}, {"tab 1500 MB", 1500e6}};

std::string megabytes(const Json& bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", bytes.get<double>() / 1e6);
  return text;
}

/// A line of the table: its name, then a cell for each plan.
void print_row(const std::string& name, const std::vector<Json>& plans, const std::function<std::string(const Json& plan)>& cell) {
  std::printf("  %-22s", name.c_str());
  for (const Json& plan : plans) std::printf(" %10s", cell(plan).c_str());
  std::printf("\n");
}

void print_table(const std::vector<Json>& plans) {
  const Json& first = plans[0];
  const std::string kv_bits = std::to_string(first["kv_bits"].get<int>());
  std::printf("%s: %.1f M parameters, context %lld, key-value cache of %s bits%s\n", first["name"].get<std::string>().c_str(),
              first["n_parameters"].get<double>() / 1e6, (long long)first["context"].get<int64_t>(), kv_bits.c_str(),
              first["kv_is_planned"] ? " (a planned format: no release has it yet)" : "");
  if (first["by_rule"])
    std::printf("no family runs this architecture yet: activations and scratch are one layer's of each kind, by our own ops\n");
  std::printf("\n");
  print_row("MB at", plans, [](const Json& p) { return p["bits"] == "file" ? "file" : p["bits"].get<std::string>() + " bits"; });
  for (const auto& [tag, bytes] : first["by_tag"].items()) {
    print_row(tag + (tag == "kv" && first["kv_is_planned"] ? " (planned format)" : ""), plans,
              [&tag = tag](const Json& p) { return megabytes(p["by_tag"][tag]); });
  }
  print_row("peak", plans, [](const Json& p) { return megabytes(p["peak_bytes"]); });
  if (first["device_bytes"] != 0) print_row("on the GPU", plans, [](const Json& p) { return megabytes(p["device_bytes"]); });
  print_row("download", plans, [](const Json& p) { return megabytes(p["download_bytes"]); });
  print_row("bits per weight", plans, [](const Json& p) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", p["bpw"].get<double>());
    return std::string(text);
  });
  std::printf("\n");
  for (const Budget& budget : kBudgets) {
    print_row(std::string("fits ") + budget.name, plans,
              [&](const Json& p) { return std::string(p["peak_bytes"].get<double>() <= budget.bytes ? "yes" : "no"); });
  }
}

void plan(PlanArguments a) {
  const Engine engine = open_engine(a.engine);
  std::error_code error;
  const bool is_file = std::filesystem::exists(a.model, error);
  if (a.bits.empty())
    a.bits = is_file ? std::vector<std::string>{"file", "4", "3", "2"} : std::vector<std::string>{"16", "8", "4", "3", "2"};
  std::vector<Json> requests, plans;
  for (const std::string& bits : a.bits) {
    requests.push_back(a.options);
    requests.back()["bits"] = bits;
  }
  if (is_file) {
    plans = plan_model(engine.get(), a.model, requests);
  } else {
    for (Json& request : requests) {
      request["architecture"] = a.model;
      plans.push_back(parsed(sb_plan(engine.get(), request_text(request).c_str())));
    }
  }
  if (!a.json) return print_table(plans);
  std::printf("%s\n", Json(plans).dump(1).c_str());
}

}  // namespace

void add_plan(CLI::App& app) {
  auto a = std::make_shared<PlanArguments>();
  CLI::App* command = app.add_subcommand("plan", "Say what a model takes, by tag, before anything is downloaded");
  command->add_option("ARCH_OR_MODEL", a->model, "An architecture (bert-base, t5-small, llama-7b, …), a GGUF file or a folder")->required();
  command
      ->add_option("--bits", a->bits,
                   "Bits a weight, a column each: file, 2, 3, 4, 8, 16, 32. Default file,4,3,2, of an architecture 16,8,4,3,2.")
      ->delimiter(',');
  command->add_flag("--json", a->json, "As JSON, a list of plans");
  command->add_option_function<int64_t>(
      "--context", [a](const int64_t& n) { a->options["context"] = n; }, "Tokens that the session is to hold");
  command->add_option_function<std::string>(
      "--kv-bits", [a](const std::string& bits) { a->options["kv_bits"] = bits; },
      "Bits of the key-value cache: 16, 8, 4, 3 or 2. Default 16; the others are a planned format.");
  add_options(*command, "engine", a->engine);
  command->callback([a] { plan(*a); });
}

}  // namespace cli
