#include "input/tokenizer_export.h"

#include "base/json.h"
#include "input/tokenizer_gguf.h"
#include "input/tokenizer_impl.h"

namespace sb {

namespace {

// The vocabulary and the merges are nearly all of the file (95 % of the 14 MB of Gemma): they are written as text, not by way of a tree.
void append_quoted(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (char c : text) {
    if (uint8_t(c) < 0x20) {
      out += "\\u00";
      out += kHex[c >> 4], out += kHex[c & 15];
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

OrderedJson byte_level_step() { return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}; }

OrderedJson split_step(const std::string& regex, const char* behavior) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", false}};
}

OrderedJson replace_step(std::string_view text, std::string_view by) {
  return {{"type", "Replace"}, {"pattern", {{"String", text}}}, {"content", by}};
}

/// A character class of the byte letters that the vocabulary lacks, as far as UTF-8 has such bytes; empty when it has them all.
std::string missing_letters(const Vocab& vocab) {
  std::string letters;
  for (int b = 0; b < 256; ++b) {
    const bool in_utf8 = b < 0xC0 || (b >= 0xC2 && b <= 0xF4);
    const std::string_view letter = byte_letter(uint8_t(b));
    if (!in_utf8 || vocab.find(letter) >= 0) continue;
    if (std::string_view("\\[]^-").find(letter) != std::string_view::npos) letters += '\\';
    letters += letter;
  }
  return letters.empty() ? letters : "[" + letters + "]";
}

Result<OrderedJson> pre_tokenizer_of(const GgufBpe& bpe) {
  if (!bpe.is_byte_level) return nullptr;
  OrderedJson steps = OrderedJson::array();
  for (const char* pattern : bpe.patterns) steps.push_back(split_step(pattern, "Isolated"));
  steps.push_back(byte_level_step());
  // A byte without a token parts its neighbours (BpeOptions::keeps_gaps), where Hugging Face's model would let them merge: so words are cut
  // there before the model sees them. Where whole words come before merges, the shorter words that this makes would be taken whole.
  if (std::string missing = missing_letters(bpe.vocab); bpe.options.keeps_gaps && !missing.empty()) {
    if (bpe.options.ignores_merges) {
      return err(Code::kTokenizerUnsupported,
                 {{"what", "bytes without a token,"}, {"name", missing}, {"known", "vocabularies with all bytes"}});
    }
    steps.push_back(split_step(missing, "Removed"));
  }
  if (steps.size() == 1) return OrderedJson(steps[0]);
  return OrderedJson{{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

OrderedJson normalizer_of(const GgufBpe& bpe) {
  if (bpe.is_byte_level) return bpe.normalizes_nfc ? OrderedJson{{"type", "NFC"}} : OrderedJson(nullptr);
  OrderedJson spaces = replace_step(" ", kSpaceMark);
  if (!bpe.prefixes_space) return spaces;
  OrderedJson steps = OrderedJson::array();
  steps.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  steps.push_back(std::move(spaces));
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

OrderedJson decoder_of(const GgufBpe& bpe) {
  if (bpe.is_byte_level) return byte_level_step();
  OrderedJson steps = OrderedJson::array();
  steps.push_back(replace_step(kSpaceMark, " "));
  steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (bpe.prefixes_space) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

OrderedJson added_tokens_of(const GgufBpe& bpe) {
  // By id, as tokenizers wants them; of two that share a text (the second has a twin's name in the vocabulary) one being special is enough.
  std::vector<const AddedToken*> by_id(bpe.vocab.limit());
  std::vector<bool> special(bpe.vocab.limit());
  for (const AddedToken& token : bpe.added) {
    if (token.content.empty()) continue;
    const size_t id = size_t(bpe.vocab.find(token.content));
    by_id[id] = &token;
    special[id] = special[id] || token.special;
  }
  OrderedJson list = OrderedJson::array();
  for (size_t id = 0; id < by_id.size(); ++id) {
    if (!by_id[id]) continue;
    list.push_back({{"id", id},
                    {"content", by_id[id]->content},
                    {"single_word", by_id[id]->single_word},
                    {"lstrip", by_id[id]->left_strip},
                    {"rstrip", by_id[id]->right_strip},
                    {"normalized", by_id[id]->normalized},
                    {"special", bool(special[id])}});
  }
  return list;
}

OrderedJson post_processor_of(const GgufBpe& bpe) {
  if (bpe.post_processor.empty()) return nullptr;
  OrderedJson templates[2] = {OrderedJson::array(), OrderedJson::array()};
  OrderedJson special = OrderedJson::object();
  auto add = [&](int32_t id, OrderedJson& to, int text) {
    if (id == Tokenizer::Impl::kSequence) {
      to.push_back({{"Sequence", {{"id", text ? "B" : "A"}, {"type_id", text}}}});
      return;
    }
    const std::string token(bpe.vocab.token(id));
    to.push_back({{"SpecialToken", {{"id", token}, {"type_id", text}}}});
    special[token] = {{"id", token}, {"ids", OrderedJson::array({id})}, {"tokens", OrderedJson::array({token})}};
  };
  for (int32_t id : bpe.post_processor) add(id, templates[0], 0);
  for (int text : {0, 1}) {  // tokenizers refuses a template without one for pairs
    for (int32_t id : bpe.post_processor) add(id, templates[1], text);
  }
  return {{"type", "TemplateProcessing"},
          {"single", std::move(templates[0])},
          {"pair", std::move(templates[1])},
          {"special_tokens", std::move(special)}};
}

void append_model(std::string& out, const GgufBpe& bpe) {
  const BpeOptions& o = bpe.options;
  OrderedJson head = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", o.has_unknown ? OrderedJson(o.unknown) : OrderedJson(nullptr)},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", o.fuses_unknown},
                      {"byte_fallback", o.byte_fallback},
                      {"ignore_merges", o.ignores_merges}};
  out += json_text(head);
  out.back() = ',';  // the object goes on
  out += "\"vocab\":{";
  for (int32_t id = 0; size_t(id) < bpe.vocab.limit(); ++id) {
    if (id) out += ',';
    append_quoted(out, bpe.vocab.token(id));
    out += ':';
    out += std::to_string(id);
  }
  // Pairs, not "left right": a token may hold a space.
  out += "},\"merges\":[";
  for (size_t i = 0; i < bpe.merges.size(); ++i) {
    out += i ? ",[" : "[";
    append_quoted(out, bpe.vocab.token(bpe.merges[i].left));
    out += ',';
    append_quoted(out, bpe.vocab.token(bpe.merges[i].right));
    out += ']';
  }
  out += "]}";
}

}  // namespace

Result<std::string> tokenizer_json_of(const GgufVocab& vocab) {
  SB_TRY(const GgufBpe bpe, gguf_bpe(vocab));
  SB_TRY(OrderedJson pre_tokenizer, pre_tokenizer_of(bpe));
  OrderedJson head = {{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", added_tokens_of(bpe)},
                      {"normalizer", normalizer_of(bpe)},
                      {"pre_tokenizer", std::move(pre_tokenizer)},
                      {"post_processor", post_processor_of(bpe)},
                      {"decoder", decoder_of(bpe)}};
  std::string out = json_text(head);
  out.back() = ',';
  out += "\"model\":";
  append_model(out, bpe);
  out += "}\n";
  return out;
}

}  // namespace sb
