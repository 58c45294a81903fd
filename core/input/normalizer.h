// Normalizers: what happens to text before it is cut, one step after another (tokenizer.json: "normalizer").
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "input/regex.h"
#include "input/unicode.h"

namespace sb {

/// A text or a pattern, as Replace and Split have them; finds its matches in a text.
class Pattern {
 public:
  static Pattern literal(std::string text);
  /// Errors: those of Regex::compile.
  static Result<Pattern> regex(std::string_view source);
  /// All matches in order; false when the pattern gave up (a hostile one).
  bool find_all(std::string_view text, std::vector<RegexSearch::Match>& matches) const;

 private:
  std::string text_;
  std::shared_ptr<const Regex> regex_;
};

/// SentencePiece's character map: a double-array trie of what is replaced, and the replacements.
class CharacterMap {
 public:
  /// From the bytes of precompiled_charsmap. Errors: kTokenizerInvalid.
  static Result<CharacterMap> read(std::string_view bytes);
  void apply(std::string_view text, std::string& out) const;

 private:
  bool find(std::string_view part, std::string_view& replacement) const;
  std::vector<uint32_t> units_;
  std::string replacements_;
};

struct NormalizerStep {
  enum Kind { kForm, kLowercase, kStrip, kStripAccents, kReplace, kPrepend, kBert, kNmt, kCharacterMap, kByteLevel } kind;
  NormalForm form{};
  bool left = false, right = false;                                          // kStrip
  bool cleans = false, chinese = false, accents = false, lowercase = false;  // kBert (accents: strip them)
  std::string text;                                                          // kReplace, kPrepend
  Pattern pattern;                                                           // kReplace
  std::shared_ptr<const CharacterMap> map;
};

/// Errors: kTokenizerInvalid when a pattern gave up.
Status apply_normalizer(const std::vector<NormalizerStep>& steps, std::string_view text, std::string& out);

}  // namespace sb
