// One function a subcommand: it adds itself to the command line.
#pragma once

#include <CLI/CLI.hpp>

#include "client.h"

namespace cli {

void add_run(CLI::App& app);
void add_chat(CLI::App& app);
void add_inspect(CLI::App& app);
void add_plan(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_golden(CLI::App& app);
void add_bench(CLI::App& app);
void add_session(CLI::App& app);
void add_quantize(CLI::App& app);
void add_eval(CLI::App& app);
void add_verify(CLI::App& app);
void add_doctor(CLI::App& app);

/// The engine's own options (sb_options), offered as flags: "max_tokens" is --max-tokens. Values land in `into` with their types.
void add_options(CLI::App& app, const char* group, Json& into);

}  // namespace cli
