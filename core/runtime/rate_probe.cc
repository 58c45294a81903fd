#include "runtime/rate_probe.h"

#include <algorithm>
#include <limits>

#include "base/host.h"

namespace sb {
namespace {

constexpr int64_t kWidth = 1536;       // N and K
constexpr size_t kMatrices = 24;       // 57 million weights: 21 MB
constexpr size_t kPromptMatrices = 4;  // a prompt reads each for all of its tokens
constexpr int64_t kPromptTokens = 32;  // a chunk of it
constexpr double kMs = 40;             // of a measurement, at least
constexpr int kRuns = 3;               // likewise

}  // namespace

RateProbe::RateProbe() {
  PlaneMatrix like;
  like.n_sets = 1;
  like.sets[0].code = plane_format("coded3")->code;
  like.hadamard = plane_hadamard(kWidth);
  const uint16_t scaled = 0;
  like.sets[0].row_scale = &scaled;
  like.sets[0].column_scale = &scaled;
  for (size_t i = 0; i < kMatrices; ++i)
    matrices_.push_back(weights_.matrix({nullptr, Dtype::kPlanes, {kWidth, kWidth}, 0, &like, 0}, kWidth, kWidth));
}

Result<double> RateProbe::seconds(Device& device, int64_t n_tokens, size_t n_matrices) const {
  auto plan = std::make_unique<Plan>(n_tokens);
  Ref x = plan->input("x", kWidth);
  for (size_t i = 0; i < n_matrices; ++i) x = plan->add(MatMul{}, {x, plan->weight(matrices_[i]), {}}, {n_tokens, kWidth});
  plan->output("y", x);
  SB_TRY(const std::unique_ptr<Program> program, device.compile(std::move(plan)));
  SB_OK(device.fill(*program, "x", RandomWeights(2).numbers(n_tokens * kWidth)));
  double best = std::numeric_limits<double>::infinity(), all = 0;
  for (int run = 0; run <= kRuns || all < kMs; ++run) {
    const double began = host_now_ms();
    SB_OK(device.submit(*program, {}));
    SB_OK(settle(device));
    const double ms = host_now_ms() - began;
    all += ms;
    if (run > 0) best = std::min(best, ms);  // the first one warms up
  }
  return std::max(best, 1e-3) / 1000;
}

Result<DeviceRate> RateProbe::measure(Device& device) const {
  SB_TRY(const double one, seconds(device, 1, kMatrices));
  SB_TRY(const double many, seconds(device, kPromptTokens, kPromptMatrices));
  return DeviceRate{double(kWidth * kWidth) * double(kMatrices) / one,
                    double(kWidth * kWidth * kPromptTokens) * double(kPromptMatrices) / many};
}

}  // namespace sb
