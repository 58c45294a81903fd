#include "models/registry.h"

namespace sb {

extern const Family kLlama, kQwen, kGemma3, kGpt2;

std::span<const Family* const> families() {
  static constexpr const Family* kFamilies[] = {&kLlama, &kQwen, &kGemma3, &kGpt2};
  return kFamilies;
}

Result<std::unique_ptr<ModelGraph>> open_model(const Config& config, WeightStore& weights, const Family** family) {
  std::string known;
  for (const Family* f : families()) {
    for (std::string_view type : f->types) {
      if (type == config.architecture()) {
        *family = f;
        return f->open(config, weights);
      }
      known += (known.empty() ? "" : ", ") + std::string(type);
    }
  }
  return err(Code::kArchitectureUnknown, {{"file", config.file()}, {"architecture", config.architecture()}, {"known", known}});
}

}  // namespace sb
