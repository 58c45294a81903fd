// Pre-tokenizers: where text is cut into the pieces (words, mostly) that the model then encodes (tokenizer.json: "pre_tokenizer").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "input/normalizer.h"

namespace sb {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct PreTokenizerStep {
  enum Kind { kByteLevel, kSplit, kDigits, kMetaspace, kBert, kWhitespace, kWhitespaceSplit, kPunctuation, kDelimiter, kFixedLength } kind;
  SplitBehavior behavior = SplitBehavior::kIsolated;           // kSplit, kPunctuation
  bool inverted = false;                                       // kSplit
  Pattern pattern;                                             // kSplit; kByteLevel: GPT-2's
  bool prefix_space = false, uses_regex = true;                // kByteLevel
  bool maps_bytes = true;                                      // kByteLevel: false when it comes last and the model does it
  bool individual = false;                                     // kDigits
  char32_t character = 0;                                      // kMetaspace, kDelimiter
  enum Prepend { kAlways, kFirst, kNever } prepend = kAlways;  // kMetaspace
  bool splits = true;                                          // kMetaspace
  size_t length = 5;                                           // kFixedLength, in characters
};

/// GPT-2's pattern, which ByteLevel applies.
extern const char kGpt2Pattern[];

/// A text and the pieces of it, in order.
struct Pieces {
  struct Range {
    size_t start, end;
  };
  std::string buffer;     // holds the text once a step has changed it
  std::string_view text;  // buffer, or the caller's text
  std::vector<Range> ranges;
};

/// Cuts `text`; `at_start`: it is the beginning of the whole input. Errors: kTokenizerInvalid when a pattern gave up.
Status pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_start, Pieces& pieces);

}  // namespace sb
