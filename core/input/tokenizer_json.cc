// tokenizer.json → a Tokenizer. The vocabulary and the merges, which are nearly all of the file, go straight into their tables while the
// text is read; only the rest becomes a tree.
#include <array>

#include "base/json.h"
#include "input/tokenizer_impl.h"
#include "input/unicode.h"

namespace sb {

namespace {

constexpr int kMostDepth = 64;

std::unexpected<Error> unsupported(std::string_view what, std::string_view name, std::string_view known) {
  return err(Code::kTokenizerUnsupported, {{"what", what}, {"name", name}, {"known", known}});
}

/// nlohmann's SAX events: `model.vocab` and `model.merges` are taken out, the rest goes on to its tree builder.
class Reader {
 public:
  explicit Reader(Json& root) : tree_(root, false) {}

  bool null() { return taking_ ? no("null") : tree_.null(); }
  bool boolean(bool v) { return taking_ ? no("a boolean") : tree_.boolean(v); }
  bool number_integer(Json::number_integer_t v) { return taking_ ? number(double(v), v) : tree_.number_integer(v); }
  bool number_unsigned(Json::number_unsigned_t v) {
    return taking_ ? number(double(v), v > INT32_MAX ? -1 : int64_t(v)) : tree_.number_unsigned(v);
  }
  bool number_float(Json::number_float_t v, const std::string& text) { return taking_ ? number(v, -1) : tree_.number_float(v, text); }
  bool string(std::string& v) {
    if (!taking_) return tree_.string(v);
    if (taking_ == kMerges && (inner_ == 1 || inner_ == 2)) return merge(v);
    if (taking_ == kVocab && array_ && inner_ == 2 && !has_key_) return key_ = v, has_key_ = true, true;
    return no("text");
  }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t n) {
    if (++depth_ > kMostDepth) return fail("nested too deeply");
    if (take(false)) return true;
    if (taking_) return no("an object");
    return tree_.start_object(n);
  }
  bool key(std::string& v) {
    if (taking_) {
      key_ = v;
      return true;
    }
    if (depth_ == 1) in_model_ = v == "model";
    if (depth_ == 2 && in_model_) next_ = v == "vocab" ? kVocab : v == "merges" ? kMerges : kNothing;
    return tree_.key(v);
  }
  bool end_object() {
    --depth_;
    if (taking_) return taken();
    return tree_.end_object();
  }
  bool start_array(size_t n) {
    if (++depth_ > kMostDepth) return fail("nested too deeply");
    if (take(true)) return true;
    if (taking_) {
      has_key_ = false;
      n_parts_ = 0;
      return ++inner_ <= 2 && array_ ? true : no("an array");
    }
    return tree_.start_array(n);
  }
  bool end_array() {
    --depth_;
    if (!taking_) return tree_.end_array();
    if (inner_ == 2) {
      if (taking_ == kMerges && n_parts_ != 2) return fail("a merge is not of two tokens");
      if (taking_ == kVocab && has_key_) return fail("a vocabulary entry lacks its score");
      inner_ = 1;
      return true;
    }
    return taken();
  }
  template <class E>
  bool parse_error(size_t position, const std::string&, const E&) {
    byte = position;
    return false;
  }

  Vocab vocab;
  std::vector<double> scores;  // of a vocabulary that is a list
  std::string merges;          // left and right, one after the other
  std::vector<uint32_t> merge_ends;
  bool has_vocab = false, vocab_is_list = false, has_merges = false;
  std::string why;
  size_t byte = 0;

 private:
  enum What { kNothing, kVocab, kMerges };

  bool take(bool array) {
    if (taking_ || next_ == kNothing || depth_ != 3) return false;
    taking_ = std::exchange(next_, kNothing);
    array_ = array;
    inner_ = 1;
    if (taking_ == kVocab) {
      vocab = Vocab();
      scores.clear();
      has_vocab = true;
      vocab_is_list = array;
    } else {
      merges.clear();
      merge_ends.clear();
      has_merges = true;
    }
    return true;
  }
  bool taken() {
    taking_ = kNothing;
    return tree_.null();
  }
  bool number(double value, int64_t id) {
    if (taking_ != kVocab) return no("a number");
    if (!array_) {
      if (id < 0 || id > INT32_MAX || !vocab.add(key_, int32_t(id))) return fail("the token \"" + key_ + "\" has an id out of range");
      return true;
    }
    if (inner_ != 2 || !has_key_) return no("a number");
    has_key_ = false;
    if (!vocab.add(key_, int32_t(scores.size()))) return fail("its vocabulary is too large");
    scores.push_back(value);
    return true;
  }
  // "left right", or one of a pair. Tokens may hold spaces only in pairs.
  bool merge(const std::string& text) {
    auto put = [&](std::string_view token) {
      merges += token;
      merge_ends.push_back(uint32_t(merges.size()));
    };
    if (merges.size() + text.size() > UINT32_MAX) return fail("its merges are too large");
    if (inner_ == 2) {
      if (++n_parts_ > 2) return fail("a merge is not of two tokens");
      put(text);
      return true;
    }
    if (text.starts_with("#version")) return true;
    size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
      return fail("the merge \"" + text + "\" is not of two tokens");
    put(std::string_view(text).substr(0, space));
    put(std::string_view(text).substr(space + 1));
    return true;
  }
  bool fail(std::string reason) {
    if (why.empty()) why = std::move(reason);
    return false;
  }
  bool no(const char* found) {
    return fail(std::string(taking_ == kMerges ? "its merges hold " : "its vocabulary holds ") + found + " where none belongs");
  }

  nlohmann::detail::json_sax_dom_parser<Json> tree_;
  int depth_ = 0, inner_ = 0, n_parts_ = 0;
  bool in_model_ = false, array_ = false, has_key_ = false;
  What taking_ = kNothing, next_ = kNothing;
  std::string key_;
};

std::string type_of(const Json& component) { return json_string(component, "type").value_or(""); }
bool flag(const Json& component, std::string_view key, bool otherwise) { return json_bool(component, key).value_or(otherwise); }

/// The steps of a component: itself, or what its Sequence lists under `key`.
template <class F>
Status each_step(const Json& component, std::string_view key, F read) {
  if (component.is_null()) return {};
  if (!component.is_object()) return tokenizer_invalid("a component is not an object");
  if (type_of(component) != "Sequence") return read(component);
  const Json* list = json_find(component, key);
  if (!list || !list->is_array()) return tokenizer_invalid("a Sequence lacks its " + std::string(key));
  for (const Json& step : *list) SB_OK(each_step(step, key, read));
  return {};
}

Result<Pattern> read_pattern(const Json& component) {
  const Json* pattern = json_find(component, "pattern");
  if (pattern && pattern->is_string()) return Pattern::literal(pattern->get<std::string>());
  if (pattern) {
    if (auto text = json_string(*pattern, "String")) return Pattern::literal(*text);
    if (auto regex = json_string(*pattern, "Regex")) return Pattern::regex(*regex);
  }
  return tokenizer_invalid("a " + type_of(component) + " lacks its pattern");
}

Result<char32_t> read_character(const Json& component, std::string_view key) {
  std::string text = json_string(component, key).value_or("");
  size_t at = 0;
  if (!text.empty()) {
    char32_t c = utf8_next(text, at);
    if (at == text.size()) return c;
  }
  return tokenizer_invalid("a " + type_of(component) + "'s " + std::string(key) + " is not one character");
}

Result<std::string> base64(std::string_view text) {
  std::string out;
  uint32_t bits = 0;
  int n = 0;
  for (char c : text) {
    int v = c >= 'A' && c <= 'Z'   ? c - 'A'
            : c >= 'a' && c <= 'z' ? c - 'a' + 26
            : c >= '0' && c <= '9' ? c - '0' + 52
            : c == '+'             ? 62
            : c == '/'             ? 63
                                   : -1;
    if (c == '=' || c == '\n') continue;
    if (v < 0) return tokenizer_invalid("precompiled_charsmap is not base64");
    bits = bits << 6 | uint32_t(v);
    if ((n += 6) >= 8) out += char(bits >> (n -= 8) & 0xFF);
  }
  return out;
}

Status read_normalizer(const Json& c, std::vector<NormalizerStep>& steps) {
  std::string type = type_of(c);
  NormalizerStep s{};
  static constexpr std::pair<std::string_view, NormalForm> kForms[] = {
      {"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}};
  for (auto [name, form] : kForms) {
    if (type != name) continue;
    s.kind = NormalizerStep::kForm;
    s.form = form;
    steps.push_back(std::move(s));
    return {};
  }
  if (type == "Lowercase") {
    s.kind = NormalizerStep::kLowercase;
  } else if (type == "Strip") {
    s.kind = NormalizerStep::kStrip;
    s.left = flag(c, "strip_left", true), s.right = flag(c, "strip_right", true);
  } else if (type == "StripAccents") {
    s.kind = NormalizerStep::kStripAccents;
  } else if (type == "Replace") {
    s.kind = NormalizerStep::kReplace;
    SB_TRY(s.pattern, read_pattern(c));
    s.text = json_string(c, "content").value_or("");
  } else if (type == "Prepend") {
    s.kind = NormalizerStep::kPrepend;
    s.text = json_string(c, "prepend").value_or("");
  } else if (type == "BertNormalizer" || type == "Bert") {
    s.kind = NormalizerStep::kBert;
    s.cleans = flag(c, "clean_text", true), s.chinese = flag(c, "handle_chinese_chars", true), s.lowercase = flag(c, "lowercase", true);
    s.accents = flag(c, "strip_accents", s.lowercase);
  } else if (type == "Nmt") {
    s.kind = NormalizerStep::kNmt;
  } else if (type == "Precompiled") {
    s.kind = NormalizerStep::kCharacterMap;
    const Json* text = json_find(c, "precompiled_charsmap");
    if (!text || text->is_null()) return {};
    if (!text->is_string()) return tokenizer_invalid("precompiled_charsmap is not text");
    SB_TRY(std::string bytes, base64(text->get_ref<const std::string&>()));
    if (bytes.empty()) return {};
    SB_TRY(CharacterMap map, CharacterMap::read(bytes));
    s.map = std::make_shared<const CharacterMap>(std::move(map));
  } else if (type == "ByteLevel") {
    s.kind = NormalizerStep::kByteLevel;
  } else {
    return unsupported(
        "the normalizer", type,
        "NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, Prepend, BertNormalizer, Nmt, Precompiled, ByteLevel, Sequence");
  }
  steps.push_back(std::move(s));
  return {};
}

Result<SplitBehavior> read_behavior(const Json& c, std::string_view otherwise) {
  std::string name = json_string(c, "behavior").value_or(std::string(otherwise));
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {{"Removed", SplitBehavior::kRemoved},
                                                                              {"Isolated", SplitBehavior::kIsolated},
                                                                              {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
                                                                              {"MergedWithNext", SplitBehavior::kMergedWithNext},
                                                                              {"Contiguous", SplitBehavior::kContiguous}};
  for (auto [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  return unsupported("the split behaviour", name, "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

PreTokenizerStep::Prepend read_prepend(const Json& c) {
  std::string scheme = json_string(c, "prepend_scheme").value_or("always");
  if (!flag(c, "add_prefix_space", true)) return PreTokenizerStep::kNever;
  return scheme == "first" ? PreTokenizerStep::kFirst : scheme == "never" ? PreTokenizerStep::kNever : PreTokenizerStep::kAlways;
}

Status read_pre_tokenizer(const Json& c, std::vector<PreTokenizerStep>& steps) {
  std::string type = type_of(c);
  PreTokenizerStep s{};
  if (type == "ByteLevel") {
    s.kind = PreTokenizerStep::kByteLevel;
    s.prefix_space = flag(c, "add_prefix_space", true);
    s.uses_regex = flag(c, "use_regex", true);
    SB_TRY(s.pattern, Pattern::regex(kGpt2Pattern));
  } else if (type == "Split") {
    s.kind = PreTokenizerStep::kSplit;
    SB_TRY(s.pattern, read_pattern(c));
    SB_TRY(s.behavior, read_behavior(c, ""));
    s.inverted = flag(c, "invert", false);
  } else if (type == "Digits") {
    s.kind = PreTokenizerStep::kDigits;
    s.individual = flag(c, "individual_digits", false);
  } else if (type == "Metaspace") {
    s.kind = PreTokenizerStep::kMetaspace;
    SB_TRY(s.character, read_character(c, "replacement"));
    s.prepend = read_prepend(c);
    s.splits = flag(c, "split", true);
  } else if (type == "BertPreTokenizer") {
    s.kind = PreTokenizerStep::kBert;
  } else if (type == "Whitespace") {
    s.kind = PreTokenizerStep::kWhitespace;
  } else if (type == "WhitespaceSplit") {
    s.kind = PreTokenizerStep::kWhitespaceSplit;
  } else if (type == "Punctuation") {
    s.kind = PreTokenizerStep::kPunctuation;
    SB_TRY(s.behavior, read_behavior(c, "Isolated"));
  } else if (type == "CharDelimiterSplit") {
    s.kind = PreTokenizerStep::kDelimiter;
    SB_TRY(s.character, read_character(c, "delimiter"));
  } else if (type == "FixedLength") {
    s.kind = PreTokenizerStep::kFixedLength;
    int64_t length = json_int(c, "length").value_or(5);
    if (length < 1 || length > INT32_MAX) return tokenizer_invalid("a FixedLength's length is out of range");
    s.length = size_t(length);
  } else {
    return unsupported("the pre-tokenizer", type,
                       "ByteLevel, Split, Digits, Metaspace, BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation, "
                       "CharDelimiterSplit, FixedLength, Sequence");
  }
  steps.push_back(std::move(s));
  return {};
}

/// ["[SEP]", 102]
Result<int32_t> read_pair_id(const Json& c, std::string_view key) {
  const Json* pair = json_find(c, key);
  if (!pair || !pair->is_array() || pair->size() != 2 || !(*pair)[1].is_number_unsigned() || (*pair)[1].get<uint64_t>() > INT32_MAX)
    return tokenizer_invalid("a " + type_of(c) + " lacks its " + std::string(key));
  return (*pair)[1].get<int32_t>();
}

Status read_post_processor(const Json& c, Tokenizer::Impl& t) {
  std::string type = type_of(c);
  std::vector<int32_t> sequence;
  if (type == "ByteLevel") return {};  // it only trims offsets
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    SB_TRY(int32_t cls, read_pair_id(c, "cls"));
    SB_TRY(int32_t sep, read_pair_id(c, "sep"));
    sequence = {cls, Tokenizer::Impl::kSequence, sep};
  } else if (type == "TemplateProcessing") {
    const Json* single = json_find(c, "single");
    const Json* special = json_find(c, "special_tokens");
    if (!single || !single->is_array()) return tokenizer_invalid("a TemplateProcessing lacks its single");
    for (const Json& item : *single) {
      if (const Json* text = json_find(item, "Sequence")) {
        if (json_string(*text, "id").value_or("A") != "A") return tokenizer_invalid("a template for one text names another");
        sequence.push_back(Tokenizer::Impl::kSequence);
        continue;
      }
      const Json* token = json_find(item, "SpecialToken");
      auto name = token ? json_string(*token, "id") : std::nullopt;
      const Json* entry = name && special ? json_find(*special, *name) : nullptr;
      const Json* ids = entry ? json_find(*entry, "ids") : nullptr;
      if (!ids || !ids->is_array()) return tokenizer_invalid("a template names a special token that it does not define");
      for (const Json& id : *ids) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) return tokenizer_invalid("a template's token id is out of range");
        sequence.push_back(id.get<int32_t>());
      }
    }
    if (sequence.size() > 4096) return tokenizer_invalid("a template is too long");
  } else {
    return unsupported("the post-processor", type, "TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel, Sequence");
  }
  size_t n_texts = size_t(std::count(sequence.begin(), sequence.end(), Tokenizer::Impl::kSequence));
  if (n_texts > 4 || t.post_processors.size() >= 8) return tokenizer_invalid("its post-processor repeats the text too often");
  t.post_processors.push_back(std::move(sequence));
  return {};
}

Status read_decoder(const Json& c, std::vector<DecoderStep>& steps) {
  std::string type = type_of(c);
  DecoderStep s{};
  if (type == "ByteLevel") {
    s.kind = DecoderStep::kByteLevel;
  } else if (type == "WordPiece") {
    s.kind = DecoderStep::kWordPiece;
    s.text = json_string(c, "prefix").value_or("##");
    s.cleans = flag(c, "cleanup", true);
  } else if (type == "Metaspace") {
    s.kind = DecoderStep::kMetaspace;
    SB_TRY(s.character, read_character(c, "replacement"));
    s.drops_first = read_prepend(c) != PreTokenizerStep::kNever;
  } else if (type == "ByteFallback") {
    s.kind = DecoderStep::kByteFallback;
  } else if (type == "Fuse") {
    s.kind = DecoderStep::kFuse;
  } else if (type == "Strip") {
    s.kind = DecoderStep::kStrip;
    SB_TRY(s.character, read_character(c, "content"));
    int64_t start = json_int(c, "start").value_or(0), stop = json_int(c, "stop").value_or(0);
    if (start < 0 || stop < 0 || start > 1 << 20 || stop > 1 << 20) return tokenizer_invalid("a Strip's counts are out of range");
    s.start = size_t(start), s.stop = size_t(stop);
  } else if (type == "Replace") {
    s.kind = DecoderStep::kReplace;
    SB_TRY(s.pattern, read_pattern(c));
    s.text = json_string(c, "content").value_or("");
  } else if (type == "BPEDecoder") {
    s.kind = DecoderStep::kBpe;
    s.text = json_string(c, "suffix").value_or("</w>");
  } else if (type == "CTC") {
    s.kind = DecoderStep::kCtc;
    s.text = json_string(c, "pad_token").value_or("<pad>");
    s.delimiter = json_string(c, "word_delimiter_token").value_or("|");
    s.cleans = flag(c, "cleanup", true);
  } else {
    return unsupported("the decoder", type,
                       "ByteLevel, WordPiece, Metaspace, ByteFallback, Fuse, Strip, Replace, BPEDecoder, CTC, Sequence");
  }
  steps.push_back(std::move(s));
  return {};
}

Result<std::unique_ptr<TokenModel>> read_model(const Json& c, Reader& reader, std::vector<PreTokenizerStep>& pre_tokenizer) {
  std::string type = type_of(c);
  if (!reader.has_vocab) return tokenizer_invalid("its model has no vocabulary");
  if (type.empty()) type = reader.has_merges ? "BPE" : reader.vocab_is_list ? "Unigram" : "WordPiece";  // files older than 0.8 name no type
  int32_t clash = -1;
  if (!reader.vocab.finish(clash)) return tokenizer_invalid("its token ids clash or are too far apart, at id " + std::to_string(clash));
  if (reader.vocab.count() == 0) return tokenizer_invalid("its vocabulary is empty");
  if (reader.vocab_is_list != (type == "Unigram")) return tokenizer_invalid("its vocabulary has the wrong shape for " + type);
  if (type == "BPE") {
    BpeOptions o;
    if (json_number(c, "dropout").value_or(0) != 0) return unsupported("the model option", "dropout", "null");
    auto unknown = json_string(c, "unk_token");
    o.has_unknown = unknown.has_value();
    o.unknown = unknown.value_or("");
    o.continuing_prefix = json_string(c, "continuing_subword_prefix").value_or("");
    o.word_suffix = json_string(c, "end_of_word_suffix").value_or("");
    o.fuses_unknown = flag(c, "fuse_unk", false);
    o.byte_fallback = flag(c, "byte_fallback", false);
    o.ignores_merges = flag(c, "ignore_merges", false);
    if (!reader.has_merges) return tokenizer_invalid("its model has no merges");
    std::vector<MergePair> merges;
    merges.reserve(reader.merge_ends.size() / 2);
    std::string buffer;
    uint32_t start = 0;
    for (size_t i = 0; i + 1 < reader.merge_ends.size(); i += 2) {
      uint32_t middle = reader.merge_ends[i], end = reader.merge_ends[i + 1];
      std::string_view all = reader.merges, left = all.substr(start, middle - start), right = all.substr(middle, end - middle);
      start = end;
      MergePair m{reader.vocab.find(left), reader.vocab.find(right),
                  joined_id(reader.vocab, left, right, o.continuing_prefix.size(), buffer)};
      if (m.left < 0 || m.right < 0 || m.joined < 0)
        return tokenizer_invalid("the merge of \"" + std::string(left) + "\" and \"" + std::string(right) +
                                 "\" names tokens that do not exist");
      merges.push_back(m);
    }
    // The last step's spelling of bytes is left to the model, which has a table for it.
    if (!pre_tokenizer.empty() && pre_tokenizer.back().kind == PreTokenizerStep::kByteLevel) {
      pre_tokenizer.back().maps_bytes = false;
      o.maps_bytes = true;
    }
    return make_bpe(std::move(reader.vocab), std::move(merges), std::move(o));
  }
  if (type == "Unigram") {
    auto unknown = json_int(c, "unk_id");
    if (unknown && (*unknown < 0 || size_t(*unknown) >= reader.scores.size())) return tokenizer_invalid("unk_id is outside the vocabulary");
    for (double score : reader.scores) {
      if (!(score >= -1e30 && score <= 1e30)) return tokenizer_invalid("a token's score is not a number");
    }
    return make_unigram(std::move(reader.vocab), std::move(reader.scores), unknown ? int32_t(*unknown) : -1,
                        flag(c, "byte_fallback", false));
  }
  if (type == "WordPiece") {
    int64_t most = json_int(c, "max_input_chars_per_word").value_or(100);
    return make_wordpiece(std::move(reader.vocab), json_string(c, "unk_token").value_or("[UNK]"),
                          json_string(c, "continuing_subword_prefix").value_or("##"), most < 0 ? 0 : size_t(most));
  }
  if (type == "WordLevel") return make_wordlevel(std::move(reader.vocab), json_string(c, "unk_token").value_or("<unk>"));
  return unsupported("the model", type, "BPE, Unigram, WordPiece, WordLevel");
}

/// tokenizer.json does not say which tokens begin and end a text; the names that everybody uses do (config.json has the last word).
std::optional<int32_t> first_of(const Tokenizer::Impl& t, std::initializer_list<std::string_view> names) {
  for (std::string_view name : names) {
    int32_t id = t.added.find_id(name);
    if (id >= 0) return id;
  }
  return std::nullopt;
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view text) {
  size_t bad = utf8_invalid_at(text);
  if (bad != std::string_view::npos) return err(Code::kJsonInvalid, {{"what", "tokenizer.json"}, {"byte", bad}});
  Json root;
  Reader reader(root);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    if (!reader.why.empty()) return tokenizer_invalid(reader.why);
    return err(Code::kJsonInvalid, {{"what", "tokenizer.json"}, {"byte", reader.byte}});
  }
  const Json* model = json_find(root, "model");
  if (!model || !model->is_object()) return tokenizer_invalid("it has no model");
  auto impl = std::make_unique<Impl>();
  auto part = [&](const char* name) -> const Json& {
    static const Json kNull;
    const Json* found = json_find(root, name);
    return found ? *found : kNull;
  };
  SB_OK(each_step(part("normalizer"), "normalizers", [&](const Json& c) { return read_normalizer(c, impl->normalizer); }));
  SB_OK(each_step(part("pre_tokenizer"), "pretokenizers", [&](const Json& c) { return read_pre_tokenizer(c, impl->pre_tokenizer); }));
  SB_OK(each_step(part("decoder"), "decoders", [&](const Json& c) { return read_decoder(c, impl->decoder); }));
  finish_decoder(impl->decoder);
  SB_TRY(impl->model, read_model(*model, reader, impl->pre_tokenizer));

  std::vector<AddedToken> added;
  const Json& list = part("added_tokens");
  if (!list.is_null() && !list.is_array()) return tokenizer_invalid("its added tokens are not a list");
  for (const Json& item : list) {
    auto content = json_string(item, "content");
    if (!content) return tokenizer_invalid("an added token has no content");
    bool special = flag(item, "special", false);
    added.push_back({*content, flag(item, "single_word", false), flag(item, "lstrip", false), flag(item, "rstrip", false),
                     flag(item, "normalized", !special), special});
  }
  SB_OK(impl->added.build(std::move(added), impl->model->vocab(), impl->normalizer));
  SB_OK(each_step(part("post_processor"), "processors", [&](const Json& c) { return read_post_processor(c, *impl); }));
  SB_OK(impl->check());

  // Gemma's "<s>" and "</s>" are HTML.
  impl->bos = first_of(*impl, {"<bos>", "<s>", "<|begin_of_text|>", "<|startoftext|>", "[CLS]",
                               "<\xEF\xBD\x9C"
                               "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"});
  impl->eos = first_of(*impl, {"<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[SEP]",
                               "<\xEF\xBD\x9C"
                               "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"});
  return Tokenizer(std::move(impl));
}

}  // namespace sb
