#include "device/webgpu/chain.h"

#include "device/webgpu/kernel_text.h"

namespace sb {
namespace {

constexpr size_t kStageVectors = 3;  // vec4 of parameters a stage
constexpr uint32_t kSpan = 256;      // columns a workgroup, where a chain is split
constexpr size_t kMostStages = kGpuParams / 4 / kStageVectors;

std::string parameter(size_t i) { return "P[" + std::to_string(i) + "]"; }

}  // namespace

bool Chain::takes(int64_t n_tokens, int32_t layer) const {
  return stages_.empty() || (n_tokens == n_tokens_ && stages_.size() < kMostStages && (layer < 0 || layer_ < 0 || layer == layer_));
}

void Chain::add(int64_t n_tokens, RowText text, Words words, const std::vector<std::string>& shared, int32_t layer) {
  n_tokens_ = n_tokens;
  for (const std::string& helper : shared) {
    if (shared_.insert(helper).second) helpers_ += helper;
  }
  if (layer >= 0) layer_ = layer;
  name_ += (name_.empty() ? "" : " ") + text.name;
  stages_.push_back({std::move(text.text), words, text.local});
}

void Chain::read(GpuId weights, GpuId weights_2, std::vector<uint32_t> params) {
  weights_[0] = weights;
  weights_[1] = weights_2;
  more_params_ = std::move(params);
}

/// Columns of a chain that can be split by them; 0 of one that cannot.
uint32_t Chain::columns() const {
  const uint32_t n = stages_.back().local;
  for (const Stage& stage : stages_) {
    if (stage.local != n) return 0;
  }
  return n;
}

GpuStep Chain::finish() {
  const uint32_t n_columns = columns();
  const bool is_split = n_columns > kSpan;
  std::string text = wgsl("prelude") + wgsl("access") + wgsl("rows/main") + helpers_, calls;
  std::vector<uint32_t> params;
  for (size_t i = 0; i < stages_.size(); ++i) {
    std::string body = std::move(stages_[i].text);
    fill(body, {{"$A", parameter(i * kStageVectors)},
                {"$B", parameter(i * kStageVectors + 1)},
                {"$C", parameter(i * kStageVectors + 2)},
                {"$N", std::to_string(i)}});
    text += body;
    if (i) calls += "storageBarrier();\nworkgroupBarrier();\n";
    calls += "stage" + std::to_string(i) + "(group.x, l, first, end);\n";
    stages_[i].words.resize(4 * kStageVectors);
    params.insert(params.end(), stages_[i].words.begin(), stages_[i].words.end());
  }
  SB_ASSERT(more_params_.empty() || stages_.size() == 1);
  params.insert(params.end(), more_params_.begin(), more_params_.end());
  text += "@compute @workgroup_size(256)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {\n";
  text += kKeepLayout;
  text += is_split ? "let first = group.y * " + std::to_string(kSpan) + "u;\nlet end = first + " + std::to_string(kSpan) + "u;\n"
                   : "let first = 0u;\nlet end = kNone;\n";
  if (layer_ >= 0) text += "if (step.n_tokens == kNone) { keep_cache(); }\n";
  GpuStep step{std::move(name_),
               text + calls + "}\n",
               std::move(params),
               {weights_[0], weights_[1]},
               layer_,
               {uint32_t(n_tokens_), is_split ? (n_columns + kSpan - 1) / kSpan : 1, 1}};
  *this = {};
  return step;
}

}  // namespace sb
