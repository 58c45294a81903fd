#include "runtime/tokenizer_file.h"

#include <utility>

#include "io/gguf.h"

namespace sb {

void TokenizerBeside::begin(const std::string& json) {
  constexpr size_t kFewBytes = 1 << 16;  // made sooner than handed over
  if (json.size() < kFewBytes) return;
  work_ = [this, text = std::string_view(json)] { made_ = Tokenizer::from_json(text); };
  device_->begin(work_);
}

std::optional<Result<Tokenizer>> TokenizerBeside::take() {
  device_->finish();
  return std::exchange(made_, std::nullopt);
}

GgufVocab vocab_of(GgufVocabFields f) {
  GgufVocab v;
  v.model = std::move(f.model);
  v.pre = std::move(f.pre);
  v.tokens = std::move(f.tokens);
  v.scores = std::move(f.scores);
  v.types = std::move(f.types);
  v.merges = std::move(f.merges);
  v.bos = f.bos, v.eos = f.eos, v.unk = f.unk, v.sep = f.sep, v.pad = f.pad, v.cls = f.cls, v.mask = f.mask;
  v.add_bos = f.add_bos, v.add_eos = f.add_eos, v.add_space_prefix = f.add_space_prefix;
  return v;
}

Result<Tokenizer> tokenizer_from_file(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with("GGUF")) return Tokenizer::from_json(text);
  GgufHead head;
  // The head may be all that the caller has; the tensors behind it do not matter here.
  SB_TRY(uint64_t needed, gguf_parse_head(bytes, UINT64_MAX, "the GGUF", head));
  if (needed) return err(Code::kModelTruncated, {{"file", "the GGUF"}, {"size", bytes.size()}, {"needed", needed}});
  if (!head.vocab) return err(Code::kTokenizerInvalid, {{"file", "the GGUF"}, {"why", "it holds no tokenizer"}});
  return Tokenizer::from_gguf(vocab_of(std::move(*head.vocab)));
}

}  // namespace sb
