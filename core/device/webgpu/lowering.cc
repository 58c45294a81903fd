#include "device/webgpu/lowering.h"

#include "device/webgpu/lowering_walk.h"

namespace sb {

Result<GpuLowered> lower_to_gpu(const Plan& plan, GpuWeights& weights, bool half) {
  Lowering first(plan, half, {}, nullptr, nullptr);
  SB_TRY(const GpuLowered sketch, first.run());
  const ArenaLayout layout = plan_arena(plan, &first.times());
  Lowering second(plan, half, first.scratch(), &weights, &layout);
  SB_TRY(GpuLowered lowered, second.run());
  return lowered;
}

std::vector<std::string> gpu_texts(const Plan& plan, bool half) {
  Result<GpuLowered> lowered = Lowering(plan, half, {}, nullptr, nullptr).run();
  std::vector<std::string> texts;
  if (!lowered) return texts;
  for (GpuStep& step : lowered->steps) texts.push_back(std::move(step.text));
  return texts;
}

GpuSize gpu_size(const Plan& plan) {
  Lowering first(plan, true, {}, nullptr, nullptr);
  const Result<GpuLowered> sketch = first.run();
  if (!sketch) return {};
  const ArenaLayout layout = plan_arena(plan, &first.times());
  return {Lowering(plan, true, first.scratch(), nullptr, &layout).arena_words(), sketch->steps.size()};
}

}  // namespace sb
