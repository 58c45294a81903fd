// libFuzzer: hostile tokenizer.json files, patterns and texts. The first byte chooses.
#include <cstdint>
#include <string>

#include "input/regex.h"
#include "input/tokenizer.h"
#include "input/unicode.h"

using namespace sb;

namespace {

void use(const Tokenizer& tokenizer, std::string_view text) {
  std::string clean;
  utf8_append_lossy(clean, text.substr(0, 2000));
  auto ids = tokenizer.encode(clean, true);
  if (!ids) return;
  auto decoded = tokenizer.decode(*ids, true);
  TokenStream stream(tokenizer);
  std::string streamed;
  for (int32_t id : *ids) streamed += stream.push(id).value_or("");
  streamed += stream.finish();
  SB_ASSERT(decoded && *decoded == streamed);
  SB_ASSERT(utf8_invalid_at(streamed) == std::string_view::npos);
}

// A pattern or a component inside an otherwise sound file, so that the fuzzer gets past the vocabulary.
std::string wrap(std::string_view normalizer, std::string_view pre_tokenizer, std::string_view decoder) {
  std::string text =
      R"({"model": {"type": "BPE", "unk_token": "a", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3}, "merges": ["a b"]}, "normalizer": )";
  text += normalizer;
  text += ", \"pre_tokenizer\": ";
  text += pre_tokenizer;
  text += ", \"decoder\": ";
  text += decoder;
  return text + "}";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  size_t middle = input.find('\0');
  std::string_view head = input.substr(0, middle), tail = middle == std::string_view::npos ? input : input.substr(middle + 1);
  switch (data[0] % 6) {
    case 0:
      if (auto t = Tokenizer::from_json(head)) use(*t, tail);
      break;
    case 1:
      if (auto t = Tokenizer::from_json(wrap(head, "null", "null"))) use(*t, tail);
      break;
    case 2:
      if (auto t = Tokenizer::from_json(wrap("null", head, "null"))) use(*t, tail);
      break;
    case 3:
      if (auto t = Tokenizer::from_json(wrap("null", "null", head))) use(*t, tail);
      break;
    case 4:
      if (auto regex = Regex::compile(head)) {
        std::string clean;
        utf8_append_lossy(clean, tail.substr(0, 2000));
        RegexSearch search(*regex, clean);
        size_t from = 0;
        while (auto m = search.next()) {
          SB_ASSERT(m->start >= from && m->end >= m->start && m->end <= clean.size());
          from = m->end;
        }
      }
      break;
    case 5: {
      std::string clean;
      utf8_append_lossy(clean, input);
      std::string nfc = normalize(clean, NormalForm::kNfc);
      SB_ASSERT(normalize(nfc, NormalForm::kNfc) == nfc);
      SB_ASSERT(normalize(normalize(clean, NormalForm::kNfd), NormalForm::kNfc) == nfc);
      break;
    }
  }
  return 0;
}
