// The vocabulary inside a GGUF file → a Tokenizer. GGUF names a model and, for byte-level BPE, a pre-tokenizer; what these names stand
// for is the tables below (after llama.cpp's llama-vocab.cpp, and each model's own tokenizer.json where the two differ).
#include "input/tokenizer_gguf.h"

#include <algorithm>
#include <cmath>

#include "input/tokenizer_impl.h"
#include "input/unicode.h"

namespace sb {

namespace {

constexpr const char* kQwen2 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kGpt4o =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kTekken =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kDeepseek3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
// \u: characters that Unicode's normal form would replace, which breaks the ranges.
constexpr const char* kDeepseekLetters =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBEῂ-ῄῆ-ῌῐ-"
    "\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼ"
    "ℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
constexpr const char* kBloom = " ?[^(\\s|.,!?…。，、।۔،)]+";

struct PreTokenizerRow {
  std::string_view names;               // separated by spaces
  std::array<const char*, 5> patterns;  // each cuts what the one before left
  bool nfc = false, ignores_merges = false, adds_bos = false;
};
const PreTokenizerRow kRows[] = {
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", kGpt2Pattern, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 gpt2 mpt olmo phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat jais", {kGpt2Pattern}},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b", {"\\p{N}", kGpt2Pattern}},
    {"llama-bpe llama3 llama-v3 falcon3 pixtral lfm2", {kLlama3}, false, true, true},
    {"dbrx smaug-bpe chatglm-bpe glm4", {kLlama3}},
    {"qwen2 stablelm2 hunyuan megrez deepseek-r1-qwen", {kQwen2}, true},
    {"deepseek-llm", {"[\\r\\n]", kDeepseekLetters, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+|\\p{N}+"}},
    {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", kDeepseek3}},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", kGpt2Pattern, "[0-9][0-9][0-9]"}},
    {"gpt-4o llama4 o200k", {kGpt4o}},
    {"tekken", {kTekken}, false, true, true},
    {"bloom poro-chat gpt3-finnish", {kBloom}},
    {"viking", {kBloom, "\\p{N}"}},
};

bool names(std::string_view list, std::string_view name) {
  for (size_t at = 0; at <= list.size();) {
    size_t end = std::min(list.find(' ', at), list.size());
    if (list.substr(at, end - at) == name) return true;
    at = end + 1;
  }
  return false;
}

enum TokenType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

class Builder {
 public:
  explicit Builder(GgufVocab vocab) : v_(std::move(vocab)), t_(std::make_unique<Tokenizer::Impl>()) {}

  Result<std::unique_ptr<Tokenizer::Impl>> build() {
    SB_OK(check());
    if (v_.model == "gpt2" || v_.model == "llama") {
      SB_TRY(GgufBpe bpe, describe_bpe());
      SB_OK(byte_pairs(std::move(bpe)));
    } else if (v_.model == "t5") {
      SB_OK(unigram());
    } else if (v_.model == "bert") {
      SB_OK(wordpiece());
    } else {
      return err(Code::kTokenizerUnsupported, {{"what", "the model"}, {"name", v_.model}, {"known", "gpt2, llama, t5, bert"}});
    }
    finish_decoder(t_->decoder);
    t_->bos = id_of(v_.bos), t_->eos = id_of(v_.eos);
    SB_OK(t_->check());
    return std::move(t_);
  }

  Result<GgufBpe> bpe() {
    SB_OK(check());
    return describe_bpe();
  }

 private:
  Status check() {
    if (v_.tokens.empty()) return tokenizer_invalid("it has no tokens");
    if (v_.tokens.size() > size_t(Vocab::kMostIds)) return tokenizer_invalid("it has too many tokens");
    if (!v_.scores.empty() && v_.scores.size() != v_.tokens.size()) return tokenizer_invalid("it has not one score a token");
    if (!v_.types.empty() && v_.types.size() != v_.tokens.size()) return tokenizer_invalid("it has not one type a token");
    for (auto id : {v_.bos, v_.eos, v_.unk, v_.sep, v_.pad, v_.cls, v_.mask}) {
      if (id && *id != -1 && (*id < 0 || size_t(*id) >= v_.tokens.size()))
        return tokenizer_invalid("a special token's id is outside the vocabulary");
    }
    for (std::string& token : v_.tokens) {
      if (utf8_invalid_at(token) == std::string_view::npos) continue;
      std::string fixed;
      utf8_append_lossy(fixed, token);
      token = std::move(fixed);
    }
    return {};
  }

  static std::optional<int32_t> id_of(std::optional<int32_t> id) { return id && *id >= 0 ? id : std::nullopt; }
  int type(size_t id) const { return v_.types.empty() ? kNormal : v_.types[id]; }
  bool is_named(size_t id) const {
    for (auto special : {v_.bos, v_.eos, v_.sep, v_.pad, v_.cls, v_.mask}) {
      if (special && *special >= 0 && size_t(*special) == id) return true;
    }
    return false;
  }

  // Two ids for one text happen (padding tokens); the first keeps it, the others can be decoded only.
  Result<Vocab> vocabulary() {
    Vocab vocab;
    vocab.reserve(v_.tokens.size());
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      std::string token = v_.tokens[id];
      if (vocab.find(token) >= 0) token = "[twin " + std::to_string(id) + " of " + token + "]";
      if (!vocab.add(token, int32_t(id))) return tokenizer_invalid("its vocabulary is too large");
    }
    int32_t clash;
    if (!vocab.finish(clash)) return tokenizer_invalid("its token ids clash");
    return vocab;
  }

  // Control and user-defined tokens are found in the text before anything else.
  std::vector<AddedToken> added_tokens() const {
    std::vector<AddedToken> added;
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      bool special = type(id) == kControl || type(id) == kUnknown || (v_.types.empty() && is_named(id));
      if (special || type(id) == kUserDefined) added.push_back({.content = v_.tokens[id], .special = special});
    }
    return added;
  }
  Status add_tokens() { return t_->added.build(added_tokens(), t_->model->vocab(), {}); }

  static std::vector<int32_t> template_of(bool bos, bool eos, std::optional<int32_t> first, std::optional<int32_t> last) {
    std::vector<int32_t> sequence;
    if (bos && first && *first >= 0) sequence.push_back(*first);
    sequence.push_back(Tokenizer::Impl::kSequence);
    if (eos && last && *last >= 0) sequence.push_back(*last);
    return sequence.size() > 1 ? sequence : std::vector<int32_t>();
  }
  void process_by(std::vector<int32_t> sequence) {
    if (!sequence.empty()) t_->post_processors.push_back(std::move(sequence));
  }

  void normalize_by(NormalizerStep::Kind kind, std::string text = "", std::string pattern = "") {
    NormalizerStep s{};
    s.kind = kind;
    s.text = std::move(text);
    s.pattern = Pattern::literal(std::move(pattern));
    t_->normalizer.push_back(std::move(s));
  }
  DecoderStep& decode_by(DecoderStep::Kind kind) {
    DecoderStep& s = t_->decoder.emplace_back();
    s.kind = kind;
    return s;
  }

  Result<GgufBpe> describe_bpe() {
    if (v_.model == "gpt2") return byte_level();
    if (v_.model == "llama") return sentencepiece();
    return err(Code::kTokenizerUnsupported, {{"what", "the model"}, {"name", v_.model}, {"known", "gpt2, llama"}});
  }

  Result<GgufBpe> byte_level() {
    std::string_view pre = v_.pre.empty() ? std::string_view("default") : v_.pre;
    const PreTokenizerRow* row = nullptr;
    std::string known;
    for (const PreTokenizerRow& r : kRows) {
      if (names(r.names, pre)) row = &r;
      for (char c : r.names) known += c == ' ' ? std::string(", ") : std::string(1, c);
      known += &r == &kRows[std::size(kRows) - 1] ? "" : ", ";
    }
    if (!row) return err(Code::kTokenizerUnsupported, {{"what", "the pre-tokenizer"}, {"name", pre}, {"known", known}});
    GgufBpe bpe{.is_byte_level = true, .normalizes_nfc = row->nfc};
    for (const char* pattern : row->patterns) {
      if (pattern) bpe.patterns.push_back(pattern);
    }
    SB_TRY(bpe.vocab, vocabulary());
    bpe.merges.reserve(v_.merges.size());
    std::string buffer;
    for (std::string_view merge : v_.merges) {
      size_t space = merge.find(' ', 1);
      std::string_view left = merge.substr(0, space), right = space == std::string_view::npos ? "" : merge.substr(space + 1);
      MergePair m{bpe.vocab.find(left), bpe.vocab.find(right), joined_id(bpe.vocab, left, right, 0, buffer)};
      if (m.left < 0 || m.right < 0 || m.joined < 0)
        return tokenizer_invalid("the merge \"" + std::string(merge) + "\" names tokens that do not exist");
      bpe.merges.push_back(m);
    }
    bpe.options.maps_bytes = true;
    bpe.options.keeps_gaps = true;
    bpe.options.ignores_merges = row->ignores_merges;
    bpe.added = added_tokens();
    bpe.post_processor = template_of(v_.add_bos.value_or(row->adds_bos), v_.add_eos.value_or(false), v_.bos, v_.eos);
    return bpe;
  }

  // SentencePiece merges the neighbours whose joint token has the best score. As ranked merges (so Hugging Face converts them): every way
  // to cut a token in two tokens, best score first, then longer left parts.
  Result<GgufBpe> sentencepiece() {
    if (v_.scores.empty()) return tokenizer_invalid("it has no scores");
    GgufBpe bpe{.prefixes_space = v_.add_space_prefix.value_or(true)};
    SB_TRY(bpe.vocab, vocabulary());
    const Vocab& vocab = bpe.vocab;
    struct Ranked {
      MergePair pair;
      float score;
      uint32_t left_size, right_size;
    };
    std::vector<Ranked> ranked;
    auto can_merge = [&](size_t id) { return type(id) == kNormal || type(id) == kUserDefined || type(id) == kUnused; };
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      std::string_view token = v_.tokens[id];
      if (!can_merge(id) || token.size() > 512 || vocab.find(token) != int32_t(id)) continue;
      if (std::isnan(v_.scores[id])) return tokenizer_invalid("a token's score is not a number");
      uint32_t n_left = 0, n = 0;
      for (char b : token) n += !utf8_continues(b);
      size_t first = ranked.size();
      for (size_t at = utf8_length(token[0]); at < token.size(); at += utf8_length(token[at])) {
        ++n_left;
        int32_t left = vocab.find(token.substr(0, at));
        if (left < 0 || !can_merge(size_t(left))) continue;
        int32_t right = vocab.find(token.substr(at));
        if (right < 0 || !can_merge(size_t(right))) continue;
        ranked.push_back({{left, right, int32_t(id)}, v_.scores[id], n_left, n - n_left});
      }
      std::sort(ranked.begin() + ptrdiff_t(first), ranked.end(), [](const Ranked& a, const Ranked& b) {
        return a.pair.left != b.pair.left ? a.pair.left < b.pair.left : a.pair.right < b.pair.right;
      });
    }
    std::vector<uint32_t> order(ranked.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = uint32_t(i);
    std::sort(order.begin(), order.end(), [&](uint32_t i, uint32_t j) {
      const Ranked &a = ranked[i], &b = ranked[j];
      if (a.score != b.score) return a.score > b.score;
      if (a.left_size != b.left_size) return a.left_size > b.left_size;
      if (a.right_size != b.right_size) return a.right_size > b.right_size;
      return i < j;
    });
    bpe.merges.reserve(ranked.size());
    for (uint32_t i : order) bpe.merges.push_back(ranked[i].pair);

    int32_t unknown = v_.unk.value_or(0);
    bpe.options.has_unknown = unknown >= 0;
    bpe.options.unknown = unknown >= 0 ? v_.tokens[size_t(unknown)] : "";
    bpe.options.fuses_unknown = true;
    bpe.options.byte_fallback = true;
    bpe.added = added_tokens();
    bpe.post_processor = template_of(v_.add_bos.value_or(true), v_.add_eos.value_or(false), v_.bos, v_.eos);
    return bpe;
  }

  Status byte_pairs(GgufBpe bpe) {
    if (bpe.normalizes_nfc) {
      normalize_by(NormalizerStep::kForm);
      t_->normalizer.back().form = NormalForm::kNfc;
    }
    for (const char* pattern : bpe.patterns) {
      PreTokenizerStep s{};
      s.kind = PreTokenizerStep::kSplit;
      SB_TRY(s.pattern, Pattern::regex(pattern));
      t_->pre_tokenizer.push_back(std::move(s));
    }
    t_->model = make_bpe(std::move(bpe.vocab), std::move(bpe.merges), std::move(bpe.options));
    SB_OK(t_->added.build(std::move(bpe.added), t_->model->vocab(), {}));
    process_by(std::move(bpe.post_processor));
    if (bpe.is_byte_level) {
      decode_by(DecoderStep::kByteLevel);
      return {};
    }
    if (bpe.prefixes_space) normalize_by(NormalizerStep::kPrepend, std::string(kSpaceMark));
    normalize_by(NormalizerStep::kReplace, std::string(kSpaceMark), " ");
    DecoderStep& replace = decode_by(DecoderStep::kReplace);
    replace.pattern = Pattern::literal(std::string(kSpaceMark));
    replace.text = " ";
    decode_by(DecoderStep::kByteFallback);
    decode_by(DecoderStep::kFuse);
    if (bpe.prefixes_space) {
      DecoderStep& strip = decode_by(DecoderStep::kStrip);
      strip.character = ' ';
      strip.start = 1;
    }
    return {};
  }

  Status unigram() {
    if (v_.scores.empty()) return tokenizer_invalid("it has no scores");
    SB_TRY(Vocab vocab, vocabulary());
    std::vector<double> scores(v_.scores.begin(), v_.scores.end());
    for (double score : scores) {
      if (!std::isfinite(score)) return tokenizer_invalid("a token's score is not a number");
    }
    t_->model =
        make_unigram(std::move(vocab), std::move(scores), v_.unk.value_or(2) < int32_t(v_.tokens.size()) ? v_.unk.value_or(2) : 0, false);
    SB_OK(add_tokens());
    if (!v_.precompiled_charsmap.empty()) {
      SB_TRY(CharacterMap map, CharacterMap::read(v_.precompiled_charsmap));
      normalize_by(NormalizerStep::kCharacterMap);
      t_->normalizer.back().map = std::make_shared<const CharacterMap>(std::move(map));
    } else {
      normalize_by(NormalizerStep::kForm);
      t_->normalizer.back().form = NormalForm::kNfkc;
    }
    if (v_.remove_extra_whitespaces.value_or(true)) {
      normalize_by(NormalizerStep::kStrip);
      t_->normalizer.back().left = false, t_->normalizer.back().right = true;
      normalize_by(NormalizerStep::kReplace, std::string(kSpaceMark));
      SB_TRY(t_->normalizer.back().pattern, Pattern::regex(" {2,}"));
    }
    PreTokenizerStep s{};
    s.kind = PreTokenizerStep::kMetaspace;
    s.character = 0x2581;
    s.prepend = v_.add_space_prefix.value_or(true) ? PreTokenizerStep::kAlways : PreTokenizerStep::kNever;
    t_->pre_tokenizer.push_back(std::move(s));
    DecoderStep& d = decode_by(DecoderStep::kMetaspace);
    d.character = 0x2581;
    d.drops_first = v_.add_space_prefix.value_or(true);
    process_by(template_of(v_.add_bos.value_or(false), v_.add_eos.value_or(true), v_.bos, v_.eos));
    return {};
  }

  // GGUF spells words with a ▁ in front and their continuations bare; BERT's own spelling is bare words and ##continuations.
  Status wordpiece() {
    bool cased = false;
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      std::string& token = v_.tokens[id];
      bool bracketed = token.size() > 2 && token.front() == '[' && token.back() == ']';
      if (type(id) != kNormal || (v_.types.empty() && (is_named(id) || bracketed))) continue;
      if (token.starts_with(kSpaceMark)) {
        token.erase(0, kSpaceMark.size());
      } else {
        token.insert(0, "##");
      }
      for (char c : token) cased = cased || (c >= 'A' && c <= 'Z' && !bracketed);
    }
    SB_TRY(Vocab vocab, vocabulary());
    int32_t unknown = v_.unk.value_or(-1);
    std::string unknown_text = unknown >= 0 ? v_.tokens[size_t(unknown)] : "[UNK]";
    t_->model = make_wordpiece(std::move(vocab), unknown_text, "##", 100);
    SB_OK(add_tokens());
    NormalizerStep n{};
    n.kind = NormalizerStep::kBert;
    n.cleans = n.chinese = true;
    n.lowercase = n.accents = !cased;
    t_->normalizer.push_back(std::move(n));
    PreTokenizerStep s{};
    s.kind = PreTokenizerStep::kBert;
    t_->pre_tokenizer.push_back(std::move(s));
    DecoderStep& d = decode_by(DecoderStep::kWordPiece);
    d.text = "##";
    d.cleans = true;
    process_by(template_of(v_.add_bos.value_or(true), v_.add_eos.value_or(true), v_.cls ? v_.cls : v_.bos, v_.sep ? v_.sep : v_.eos));
    return {};
  }

  GgufVocab v_;
  std::unique_ptr<Tokenizer::Impl> t_;
};

}  // namespace

Result<GgufBpe> gguf_bpe(GgufVocab vocab) { return Builder(std::move(vocab)).bpe(); }

Result<Tokenizer> Tokenizer::from_gguf(GgufVocab vocab) {
  SB_TRY(std::unique_ptr<Impl> impl, Builder(std::move(vocab)).build());
  return Tokenizer(std::move(impl));
}

}  // namespace sb
