// subbyte: the engine on a command line. A client of the C API, without privileges.
#include <cstdio>

#include "commands.h"

namespace cli {

void add_options(CLI::App& app, const char* group, Json& into) {
  const Json groups = Json::parse(sb_options());
  for (const Json& row : groups[group]) {
    const std::string name = row["name"], type = row["type"];
    std::string flag = "--" + name;
    std::replace(flag.begin(), flag.end(), '_', '-');
    std::string doc = row["doc"];
    if (row.contains("one_of")) doc += " One of: " + row["one_of"].dump() + ".";
    if (type == "bool") {
      // What is on by itself can only be switched off.
      const bool is_on = row["default"];
      if (is_on) doc = "Not so: " + doc;
      app.add_flag_function(
             is_on ? "--no-" + flag.substr(2) : flag, [&into, name, is_on](int64_t) { into[name] = !is_on; }, doc)
          ->group("Options");
      continue;
    }
    doc += " Default " + row["default"].dump() + ".";
    CLI::Option* option = nullptr;
    if (type == "int") {
      option = app.add_option_function<int64_t>(flag, [&into, name](const int64_t& v) { into[name] = v; }, doc);
    } else if (type == "number") {
      option = app.add_option_function<double>(flag, [&into, name](const double& v) { into[name] = v; }, doc);
    } else if (type == "strings") {
      option = app.add_option_function<std::vector<std::string>>(
          flag, [&into, name](const std::vector<std::string>& v) { into[name] = v; }, doc);
    } else {
      option = app.add_option_function<std::string>(flag, [&into, name](const std::string& v) { into[name] = v; }, doc);
    }
    option->group("Options");
  }
}

}  // namespace cli

int main(int argc, char** argv) {
  CLI::App app{"subbyte runs neural networks in less than a byte per weight."};
  app.name("subbyte");
  app.require_subcommand(1);
  app.set_version_flag("--version", cli::Json::parse(sb_version()).value("version", ""));
  cli::add_run(app);
  cli::add_chat(app);
  cli::add_inspect(app);
  cli::add_plan(app);
  cli::add_tokenize(app);
  cli::add_golden(app);
  cli::add_bench(app);
  cli::add_session(app);
  cli::add_quantize(app);
  cli::add_eval(app);
  cli::add_verify(app);
  cli::add_doctor(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) { return app.exit(error) == 0 ? 0 : 2; } catch (const cli::Failure& failure) {
    std::fprintf(stderr, "subbyte: %s (%s)\n", failure.message.c_str(), failure.code.c_str());
    if (!failure.hint.empty()) std::fprintf(stderr, "         %s\n", failure.hint.c_str());
    return 1;
  }
  return 0;
}
