// A tokenizer from a file of its own: tokenizer.json, or the head of a GGUF.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "device/device.h"
#include "input/tokenizer.h"
#include "io/gguf_vocab_fields.h"

namespace sb {

/// Errors: those of Tokenizer and of reading a GGUF head; kModelTruncated when `bytes` end inside it.
Result<Tokenizer> tokenizer_from_file(std::span<const std::byte> bytes);
/// The tokenizer of a load, made on a thread of the device that is idle while the rest comes.
class TokenizerBeside {
 public:
  explicit TokenizerBeside(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  TokenizerBeside(TokenizerBeside&&) = delete;
  ~TokenizerBeside() { device_->finish(); }
  /// At most once. `json` outlives this, or stays until take().
  void begin(const std::string& json);
  /// None where nothing was begun.
  std::optional<Result<Tokenizer>> take();

 private:
  std::shared_ptr<Device> device_;
  std::function<void()> work_;
  std::optional<Result<Tokenizer>> made_;
};

/// What io read, in the words of input.
GgufVocab vocab_of(GgufVocabFields fields);

}  // namespace sb
