// One op case on one device.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <vector>

#include "ops/op_cases.h"

namespace sb {

inline std::vector<float> run_on(Device& device, const OpCase& c, uint64_t seed) {
  auto plan = std::make_unique<Plan>(c.n_tokens);
  Sources sources(*plan, seed);
  const Ref y = c.build(*plan, sources);
  plan->output("y", y);
  EXPECT_TRUE(plan->finish()) << plan->finish().error().message();
  const int32_t kv_width = std::max(1, c.kv_width);
  KvPages kv(1, kv_width, head_dim_of(*plan, kv_width), c.half, 0, device.kv_storage(1, kv_width, c.half));
  EXPECT_TRUE(kv.reserve(c.position + c.n_tokens));
  if (c.kv_width) sources.fill(kv, 1, c.position);
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < c.n_tokens; ++t) ids.push_back(int32_t(t));
  auto program = device.compile(std::move(plan));
  EXPECT_TRUE(program) << program.error().message();
  if (!program) return {};
  const Status submitted = device.submit(**program, {ids, c.position, &kv});
  EXPECT_TRUE(submitted) << submitted.error().message();
  for (Result<bool> idle = false; submitted && !(idle && *idle); device.wait()) {
    idle = device.idle();
    EXPECT_TRUE(idle) << idle.error().message();
    if (!idle) return {};
  }
  const std::span<float> out = (*program)->output("y");
  return {out.begin(), out.end()};
}

/// Σ(a−b)² / Σb²
inline double normalised_error(std::span<const float> got, std::span<const float> want) {
  double error = 0, power = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
    power += double(want[i]) * want[i];
  }
  return error / power;
}

}  // namespace sb
