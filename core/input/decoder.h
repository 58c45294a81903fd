// Decoders: tokens back to text (tokenizer.json: "decoder"). They run one token at a time, so that decode() and a stream of tokens are
// the same code and give the same text.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "input/normalizer.h"

namespace sb {

struct DecoderStep {
  enum Kind { kJoin, kByteLevel, kWordPiece, kMetaspace, kByteFallback, kFuse, kStrip, kReplace, kBpe, kCtc } kind;
  std::string text;            // kWordPiece: prefix; kReplace: new text; kBpe: suffix; kCtc: padding
  std::string delimiter;       // kCtc
  bool cleans = false;         // kWordPiece, kCtc
  bool drops_first = false;    // kMetaspace: the first token's mark is no space
  char32_t character = 0;      // kMetaspace, kStrip
  size_t start = 0, stop = 0;  // kStrip, in characters
  Pattern pattern;             // kReplace
  bool streams = false;        // kFuse, kByteLevel: what follows can work on parts of the one token they make; kStrip: it gets such parts
};

/// Sets what depends on a step's neighbours; called once when the list is complete.
void finish_decoder(std::vector<DecoderStep>& steps);

class DecoderRun {
 public:
  explicit DecoderRun(const std::vector<DecoderStep>& steps) : steps_(&steps), states_(steps.size()) {}
  void push(std::string_view token) { feed(0, token); }
  /// After the last token.
  void finish();
  /// What has been decided since the last take().
  std::string take() { return std::exchange(out_, {}); }

 private:
  struct State {
    size_t n_tokens = 0;
    std::string held;
    bool holds = false, open = true;
  };
  void feed(size_t step, std::string_view token);
  void flush(size_t step);
  void flush_bytes(size_t step);

  const std::vector<DecoderStep>* steps_;
  std::vector<State> states_;
  std::string out_;
};

}  // namespace sb
