#include "device/webgpu/chain.h"

#include "device/webgpu/kernel_text.h"

namespace sb {
namespace {

constexpr size_t kStageVectors = 3;  // vec4 of parameters a stage
constexpr size_t kMostStages = kGpuParams / 4 / kStageVectors;

std::string parameter(size_t i) { return "P[" + std::to_string(i) + "]"; }

}  // namespace

bool Chain::takes(int64_t n_tokens, int32_t layer) const {
  return stages_.empty() || (n_tokens == n_tokens_ && stages_.size() < kMostStages && (layer < 0 || layer_ < 0 || layer == layer_));
}

void Chain::add(int64_t n_tokens, std::string text, Words words, const std::vector<std::string>& shared, int32_t layer) {
  n_tokens_ = n_tokens;
  for (const std::string& helper : shared) {
    if (shared_.insert(helper).second) helpers_ += helper;
  }
  if (layer >= 0) layer_ = layer;
  stages_.push_back({std::move(text), words});
}

void Chain::read(GpuId weights, GpuId weights_2, std::vector<uint32_t> params) {
  weights_[0] = weights;
  weights_[1] = weights_2;
  more_params_ = std::move(params);
}

GpuStep Chain::finish() {
  std::string text = wgsl("prelude") + wgsl("rows/main") + helpers_, calls;
  std::vector<uint32_t> params;
  for (size_t i = 0; i < stages_.size(); ++i) {
    std::string body = std::move(stages_[i].text);
    fill(body, {{"$A", parameter(i * kStageVectors)},
                {"$B", parameter(i * kStageVectors + 1)},
                {"$C", parameter(i * kStageVectors + 2)},
                {"$N", std::to_string(i)}});
    text += body;
    if (i) calls += "storageBarrier();\nworkgroupBarrier();\n";
    calls += "stage" + std::to_string(i) + "(group.x, l);\n";
    stages_[i].words.resize(4 * kStageVectors);
    params.insert(params.end(), stages_[i].words.begin(), stages_[i].words.end());
  }
  SB_ASSERT(more_params_.empty() || stages_.size() == 1);
  params.insert(params.end(), more_params_.begin(), more_params_.end());
  text += "@compute @workgroup_size(256)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {\n";
  text += kKeepLayout;
  if (layer_ >= 0) text += "if (step.n_tokens == kNone) { keep_cache(); }\n";
  GpuStep step{text + calls + "}\n", std::move(params), {weights_[0], weights_[1]}, layer_, {uint32_t(n_tokens_), 1, 1}};
  *this = {};
  return step;
}

}  // namespace sb
