#include "models/registry.h"

namespace sb {

extern const Family kLlama, kQwen, kGemma3, kGpt2;

std::span<const Family* const> families() {
  static constexpr const Family* kFamilies[] = {&kLlama, &kQwen, &kGemma3, &kGpt2};
  return kFamilies;
}

namespace {

const Family* family_of(const Config& config) {
  for (const Family* f : families()) {
    for (std::string_view type : f->types) {
      if (type == config.architecture()) return f;
    }
  }
  return nullptr;
}

}  // namespace

WeightRework find_rework(const Config& config) {
  const Family* f = family_of(config);
  return f && f->rework ? f->rework(config) : nullptr;
}

Result<std::unique_ptr<ModelGraph>> open_model(const Config& config, WeightStore& weights, const Family** family) {
  *family = family_of(config);
  if (*family) {
    const WeightRework rework = find_rework(config);
    if (rework && !weights.is_reworked()) SB_OK(rework(config, weights));
    return (*family)->open(config, weights);
  }
  std::string known;
  for (const Family* f : families()) {
    for (std::string_view type : f->types) known += (known.empty() ? "" : ", ") + std::string(type);
  }
  return err(Code::kArchitectureUnknown, {{"file", config.file()}, {"architecture", config.architecture()}, {"known", known}});
}

}  // namespace sb
