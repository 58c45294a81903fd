// What Qwen2 and Qwen3 share: configuration and GGUF names.
#pragma once

#include "models/decoder.h"

namespace sb {

struct QwenConfig : DecoderConfig {
  std::vector<float> frequencies;
  std::vector<bool> slides;  // a layer: whether it sees only the last `window` tokens

  int32_t window_of(int64_t layer) const { return slides[size_t(layer)] ? window : 0; }
};

Result<QwenConfig> read_qwen_config(const Config& config, const Weights& w);
std::string qwen_gguf_name(std::string_view name);

}  // namespace sb
