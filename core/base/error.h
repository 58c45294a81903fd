// What went wrong, said so that a user can act on it. The codes, sentences and hints are rows of data/errors.json;
// the build generates error_codes.h from them, and the TypeScript and Python error classes too.
#pragma once

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "error_codes.h"  // generated: enum class Code, error_row()

namespace sb {

/// One named value of an error: {"file", "model.gguf"}, {"size", 1234}.
struct ErrorField {
  std::string name;
  std::string value;

  ErrorField(std::string_view n, std::string_view v) : name(n), value(v) {}
  ErrorField(std::string_view n, const std::string& v) : name(n), value(v) {}
  ErrorField(std::string_view n, const char* v) : name(n), value(v) {}
  template <std::integral T>
  ErrorField(std::string_view n, T v) : name(n), value(std::to_string(v)) {}
};

/// A refusal: a code of data/errors.json and the values that fill its sentence.
class Error {
 public:
  Error(Code code, std::vector<ErrorField> fields) : code_(code), fields_(std::move(fields)) {}

  Code code() const { return code_; }
  bool retryable() const { return error_row(code_).retryable; }
  /// Whether what failed with this may succeed on another device.
  bool of_device() const { return error_row(code_).of_device; }
  /// The row's sentence with its {names} filled in.
  std::string message() const { return fill(error_row(code_).message); }
  /// What to do about it, in the user's terms.
  std::string hint() const { return fill(error_row(code_).hint); }
  /// {"code", "message", "hint", "retryable", "of_device", "fields"} as JSON text.
  std::string to_json() const;
  const std::vector<ErrorField>& fields() const { return fields_; }
  /// Adds a value that only an outer layer knows (the file's name, say), unless it is already there.
  Error& with(ErrorField field);

 private:
  std::string fill(std::string_view sentence) const;

  Code code_;
  std::vector<ErrorField> fields_;
};

}  // namespace sb
