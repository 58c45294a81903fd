// What the handles of subbyte.h hold, and how errors and texts go out. Private to capi.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "capi/subbyte.h"
#include "runtime/golden.h"
#include "runtime/model.h"
#include "runtime/self_check.h"
#include "runtime/session.h"
#include "runtime/tokenizer_file.h"

struct sb_engine {
  std::shared_ptr<sb::Device> device;
  std::string why;                   // it is not the GPU; else empty
  sb::Model::MakeDevice make_other;  // the CPU, for models that cannot stay on the GPU; none: they fail instead
  std::string text;
};
struct sb_load {
  std::shared_ptr<sb::Device> device;
  sb::Loading loading;
  int64_t context;
  std::string wanted_file, text;
  bool shapes_only = false;
  std::optional<sb::ModelFiles> shapes = {};  // once asked for
  sb::Model::MakeDevice make_other = {};
  std::unique_ptr<sb::TokenizerBeside> tokenizer = {};  // goes first: it reads what the load has brought

  std::optional<sb::Result<sb::Tokenizer>> take_tokenizer() { return tokenizer ? tokenizer->take() : std::nullopt; }
};
struct sb_tokenizer {
  const sb::Tokenizer* tokenizer;
  std::unique_ptr<sb::Tokenizer> owned;  // null when the model owns it
  std::string text;
};
struct sb_model {
  std::unique_ptr<sb::Model> model;
  sb_tokenizer tokenizer;
  std::string text;
  std::unique_ptr<sb::GoldenRun> golden;
  std::unique_ptr<sb::SelfCheck> check = {};
};
struct sb_session {
  sb::Session session;
  std::string text;
};

namespace sb {

/// Keeps the error for sb_error(); -1.
int32_t failed(const Error& error);
std::nullptr_t failed_null(const Error& error);
/// The text of a Result<std::string>, kept in `place`; NULL after an error.
const char* lend(std::string& place, Result<std::string> text);
inline std::string_view view(const char* text) { return text ? std::string_view(text) : std::string_view(); }

}  // namespace sb
