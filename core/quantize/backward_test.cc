// Each op's backward against central differences of its definition (run_reference), with fresh random numbers, and the gradient of a whole
// model against differences of its loss.
#include "quantize/backward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "device/cpu/cpu_device.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

struct Input {
  Shape shape;
  bool is_differentiated = true;
  float offset = 0;  // added to a unit normal
};
struct Case {
  const char* name;
  Op op;
  std::vector<Input> inputs;
  Shape out;
};

const Attention kPlain{.layer = 0, .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .scale = 0.35f};
Attention with(Attention op, int32_t window, float softcap) {
  op.window = window;
  op.softcap = softcap;
  return op;
}

const Case kCases[] = {
    {"matmul", MatMul{}, {{{13, 20}}, {{37, 20}, false}, {{37}}}, {13, 37}},
    {"matmul without bias", MatMul{}, {{{1, 33}}, {{8, 33}, false}}, {1, 8}},
    {"rms_norm", RmsNorm{1e-5f, 0}, {{{5, 24}}, {{24}}}, {5, 24}},
    {"rms_norm of heads, gain − 1", RmsNorm{1e-5f, 1}, {{{5, 24}}, {{8}}}, {5, 24}},
    {"layer_norm", LayerNorm{1e-5f}, {{{5, 24}}, {{24}}, {{24}}}, {5, 24}},
    {"rope, halves", Rope{8, RopeStyle::kHalves}, {{{5, 16}}, {{5, 8}, false}}, {5, 16}},
    {"rope, pairs, part of a head", Rope{8, RopeStyle::kPairs}, {{{5, 16}}, {{5, 6}, false}}, {5, 16}},
    {"attention, grouped", kPlain, {{{70, 32}}, {{70, 16}}, {{70, 16}}}, {70, 32}},
    {"attention, window and soft cap", with(kPlain, 9, 1.5f), {{{70, 32}}, {{70, 16}}, {{70, 16}}}, {70, 32}},
    {"glu, silu", Glu{Activation::kSilu}, {{{5, 24}}, {{5, 24}}}, {5, 24}},
    {"glu, gelu tanh", Glu{Activation::kGeluTanh}, {{{5, 24}}, {{5, 24}}}, {5, 24}},
    {"glu, gelu erf", Glu{Activation::kGeluErf}, {{{5, 24}}, {{5, 24}}}, {5, 24}},
    {"activate, gelu erf", Activate{Activation::kGeluErf}, {{{5, 24}}}, {5, 24}},
    {"activate, relu above 0", Activate{Activation::kRelu}, {{{5, 24}, true, 8}}, {5, 24}},
    {"activate, relu below 0", Activate{Activation::kRelu}, {{{5, 24}, true, -8}}, {5, 24}},
    {"add", Add{}, {{{5, 24}}, {{5, 24}}}, {5, 24}},
    {"softcap", SoftCap{2}, {{{5, 24}}}, {5, 24}},
    {"last_row", LastRow{}, {{{5, 24}}}, {1, 24}},
};

MutableTensorView view_of(std::vector<float>& v, const Shape& shape) {
  return {reinterpret_cast<std::byte*>(v.data()), Dtype::kF32, shape, shape[-1] * 4};
}

/// Five-point central difference with steps of 1/32: rounding of the float32 outputs (6e-8 over the step) and the fifth derivative's h⁴/30
/// both stay below 1e-5 for values of order 1.
double difference(const std::function<double(float)>& f, float at) {
  constexpr float h = 1.0f / 32;
  return (8 * (f(at + h) - f(at - h)) - (f(at + 2 * h) - f(at - 2 * h))) / (12 * double(h));
}

class OpBackward : public testing::TestWithParam<Case> {};

TEST_P(OpBackward, IsTheDerivativeOfItsDefinition) {
  const Case& c = GetParam();
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> inputs, gradients;
  for (const Input& input : c.inputs) {
    std::vector<float> v(size_t(input.shape.elements()));
    for (float& x : v) x = normal(random) + input.offset;
    inputs.push_back(v);
    gradients.emplace_back(v.size(), 0.5f);  // added to, not set
  }
  std::vector<float> y(size_t(c.out.elements())), dy(y.size());
  for (float& g : dy) g = normal(random);

  KvPages kv(1, 16, 16, false);
  ASSERT_TRUE(kv.reserve(c.out[0]));
  const bool is_attention = std::holds_alternative<Attention>(c.op);
  OpViews views;
  for (size_t i = 0; i < inputs.size(); ++i) {
    views.in[i] = view_of(inputs[i], c.inputs[i].shape);
    views.has[i] = true;
  }
  views.out = view_of(y, c.out);
  auto loss = [&] {
    if (is_attention) {
      for (int64_t t = 0; t < c.out[0]; ++t) {
        for (int part : {0, 1}) std::copy_n(inputs[size_t(part) + 1].begin() + t * 16, 16, reinterpret_cast<float*>(kv.at(t, 0, part, 0)));
      }
    }
    run_reference(c.op, views, {{}, 0, &kv});
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += double(y[i]) * double(dy[i]);
    return sum;
  };

  OpGradients to;
  to.out = view_of(dy, c.out);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (c.inputs[i].is_differentiated) to.in[i] = view_of(gradients[i], c.inputs[i].shape);
  }
  ThreadPool pool(2);
  ASSERT_TRUE(run_backward(c.op, views, to, pool));
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!c.inputs[i].is_differentiated) continue;
    for (int probe = 0; probe < 40; ++probe) {
      const size_t j = random() % inputs[i].size();
      const float kept = inputs[i][j];
      const double expected = difference(
          [&](float v) {
            inputs[i][j] = v;
            return loss();
          },
          kept);
      inputs[i][j] = kept;
      ASSERT_NEAR(double(gradients[i][j]) - 0.5, expected, 3e-4 * (1 + std::abs(expected))) << "input " << i << ", element " << j;
    }
  }
  // Numbers of threads share the work, not the sums.
  std::vector<std::vector<float>> again;
  for (size_t i = 0; i < inputs.size(); ++i) {
    again.emplace_back(inputs[i].size(), 0.5f);
    if (to.in[i].data) to.in[i] = view_of(again[i], c.inputs[i].shape);
  }
  ThreadPool alone(1);
  ASSERT_TRUE(run_backward(c.op, views, to, alone));
  EXPECT_EQ(again, gradients);
}

INSTANTIATE_TEST_SUITE_P(Ops, OpBackward, testing::ValuesIn(kCases), [](const auto& info) {
  std::string name;
  for (const char* c = info.param.name; *c; ++c) {
    if (std::isalnum(static_cast<unsigned char>(*c))) name += *c;
  }
  return name;
});

TEST(OpBackward, AMatmulOfStoredWeightsIsRefused) {
  std::vector<float> x(32), dy(1), dx(32);
  std::vector<std::byte> w(34);
  OpViews views;
  views.in[0] = view_of(x, {1, 32});
  views.in[1] = {w.data(), Dtype::kQ8_0, {1, 32}, 34, nullptr, 0};
  OpGradients to;
  to.out = view_of(dy, {1, 1});
  to.in[0] = view_of(dx, {1, 32});
  ThreadPool pool(1);
  auto status = run_backward(MatMul{}, views, to, pool);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Code::kOpUnsupported);
}

/// Keeps what a stretch reports, by name.
struct Kept final : GradientSink {
  std::map<std::string, std::vector<float>, std::less<>> vectors;  // asked for beforehand: zeros
  std::map<std::string, std::vector<double>, std::less<>> rows;    // d loss / d log of a row's factor
  std::map<std::string, std::vector<double>, std::less<>> columns;
  std::map<std::string, std::vector<std::string>, std::less<>> groups;

  std::span<float> vector(std::string_view name) override {
    auto found = vectors.find(name);
    return found == vectors.end() ? std::span<float>() : std::span(found->second);
  }
  void product(std::string_view weight, const TensorView& y, const TensorView& bias, const TensorView& dy) override {
    std::vector<double>& to = rows[std::string(weight)];
    to.resize(size_t(y.shape[1]));
    for (int64_t t = 0; t < y.shape[0]; ++t) {
      for (int64_t n = 0; n < y.shape[1]; ++n)
        to[size_t(n)] += double(y.row<float>(t)[n] - (bias.data ? bias.row<float>(0)[n] : 0.0f)) * double(dy.row<float>(t)[n]);
    }
  }
  void input(std::span<const std::string_view> weights, const TensorView& x, const TensorView& dx) override {
    std::vector<double>& to = columns[std::string(weights[0])];
    to.resize(size_t(x.shape[1]));
    groups[std::string(weights[0])].assign(weights.begin(), weights.end());
    for (int64_t t = 0; t < x.shape[0]; ++t) {
      for (int64_t k = 0; k < x.shape[1]; ++k) to[size_t(k)] += double(x.row<float>(t)[k]) * double(dx.row<float>(t)[k]);
    }
  }
};

class FamilyBackward : public testing::TestWithParam<const char*> {};

TEST_P(FamilyBackward, WholeGradientIsTheDerivativeOfTheLogits) {
  FolderHost host{std::string(SB_TESTS) + "/golden/" + GetParam()};
  const Opened source = open(host.load(Loading::folder(GetParam())));
  auto device = make_cpu_device({2, "auto"});
  ASSERT_TRUE(device);
  constexpr int64_t kTokens = 24;
  const std::vector<int32_t> ids = random_ids(kTokens, source.graph->shape().vocab);
  const Pass pass{kTokens, Pass::Logits::kAll, false, 0, -1};
  auto matrices = plan_matrices(*source.graph);
  ASSERT_TRUE(matrices);
  // Everything in float32, where a factor can be put on a row, a column, a gain.
  std::map<std::string, std::vector<float>> floats;
  Substitutes substitutes;
  auto take = [&](const std::string& name, const TensorView& view) {
    std::vector<float>& to = floats[name];
    const int64_t k = view.shape[-1];
    to.resize(size_t(view.shape.elements()));
    for (int64_t r = 0; r < view.shape.elements() / k; ++r) decode_row(view, r, to.data() + r * k, k);
    substitutes[name] = {reinterpret_cast<const std::byte*>(to.data()), Dtype::kF32, view.shape, k * 4, nullptr, 0};
  };
  Kept kept;
  for (const GroupPlan& group : matrices->groups) {
    for (size_t i = 0; i < group.tensors.size(); ++i) take(group.tensors[i], group.views[i]);
  }
  for (const KeptTensor& tensor : matrices->kept) {
    take(tensor.name, tensor.view);
    if (tensor.view.shape.rank() == 1) kept.vectors[tensor.name].resize(size_t(tensor.view.shape[0]));
  }
  auto stretch = ReversibleStretch::compile(*source.graph, **device, pass, substitutes);
  ASSERT_TRUE(stretch) << stretch.error().message();
  std::vector<float> r(size_t(kTokens * source.graph->shape().vocab));
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (float& v : r) v = normal(random);
  auto loss = [&] {
    EXPECT_TRUE(stretch->run({}, ids));
    const std::span<const float> logits = stretch->output("logits");
    double sum = 0;
    for (size_t i = 0; i < r.size(); ++i) sum += double(logits[i]) * double(r[i]);
    return sum;
  };
  loss();
  ThreadPool pool(2);
  ASSERT_TRUE(stretch->back("logits", r, kept, {}, pool));
  const int64_t n_groups = int64_t(kept.columns.size());
  EXPECT_EQ(n_groups, 4 * source.graph->shape().n_layers + 1);  // q k v, o, gate up, down in every layer, and the head

  // A factor 1 + h on some numbers of some tensors; the rest of the model runs in float32, whose sums differ in the sixth digit.
  auto expect = [&](double gradient, const std::vector<std::pair<std::string, std::vector<size_t>>>& where, bool is_factor,
                    const std::string& what) {
    std::vector<std::vector<float>> before;
    for (const auto& [name, places] : where) before.push_back(floats[name]);
    const double expected = difference(
        [&](float h) {
          for (size_t i = 0; i < where.size(); ++i) {
            for (size_t at : where[i].second) floats[where[i].first][at] = is_factor ? before[i][at] * (1 + h) : before[i][at] + h;
          }
          return loss();
        },
        0);
    for (size_t i = 0; i < where.size(); ++i) std::copy(before[i].begin(), before[i].end(), floats[where[i].first].begin());
    EXPECT_NEAR(gradient, expected, 0.02 * (1 + std::abs(expected))) << what;
  };
  for (const auto& [name, gradient] : kept.vectors) {
    const size_t i = random() % gradient.size();
    expect(double(gradient[i]), {{name, {i}}}, false, name);
  }
  auto is_embedding = [&](const std::string& name) {  // a tied head's rows and columns are read by the embedding too
    return std::any_of(matrices->groups.begin(), matrices->groups.end(),
                       [&](const GroupPlan& g) { return g.name == name && g.is_embedding; });
  };
  for (const auto& [name, gradient] : kept.rows) {
    if (is_embedding(name)) continue;
    const size_t k = floats[name].size() / gradient.size(), row = random() % gradient.size();
    std::vector<size_t> places;
    for (size_t j = 0; j < k; ++j) places.push_back(row * k + j);
    expect(gradient[row], {{name, places}}, true, name + ", a row");
  }
  for (const auto& [name, gradient] : kept.columns) {
    if (is_embedding(name)) continue;
    const size_t k = gradient.size(), column = random() % k;
    std::vector<std::pair<std::string, std::vector<size_t>>> where;
    for (const std::string& matrix : kept.groups[name]) {
      std::vector<size_t> places;
      for (size_t at = column; at < floats[matrix].size(); at += k) places.push_back(at);
      where.emplace_back(matrix, places);
    }
    expect(gradient[column], where, true, name + ", a column");
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyBackward, testing::Values("llama", "mistral", "gemma3", "qwen2", "qwen3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sb
