#include "runtime/golden.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "io/safetensors.h"

namespace sb {
namespace {

/// Computed values waiting to be written out.
struct Computed {
  std::vector<SafetensorsEntry> entries;
  std::deque<std::vector<std::byte>> bytes;  // does not move what entries point to

  template <class T>
  void add(const std::string& name, Dtype dtype, const Shape& shape, std::span<const T> values) {
    const auto raw = std::as_bytes(values);
    bytes.emplace_back(raw.begin(), raw.end());
    entries.push_back({name, dtype, shape, bytes.back()});
  }
};

std::unexpected<Error> misfit(const std::string& what) {
  return err(Code::kArgumentInvalid, {{"what", what}, {"fix", "Give a golden file that was made for this model."}});
}

GoldenOutput compare_floats(const WeightTensor& expected, std::span<const float> got) {
  GoldenOutput out{.name = expected.name, .n = got.size()};
  const float* want = expected.view().row<float>(0);
  out.passed = expected.dtype == Dtype::kF32 && uint64_t(expected.shape.elements()) == got.size();
  for (size_t i = 0; out.passed && i < got.size(); ++i) {
    const double difference = std::abs(double(got[i]) - double(want[i]));
    if (!std::isfinite(got[i])) out.passed = false;
    out.max_abs = std::max(out.max_abs, difference);
    out.worst = std::max(out.worst, difference / (1 + std::abs(double(want[i]))));
  }
  out.passed = out.passed && out.worst <= kGoldenTolerance;
  return out;
}

GoldenOutput compare_ids(const WeightTensor& expected, std::span<const int32_t> got) {
  GoldenOutput out{.name = expected.name, .n = got.size()};
  const int32_t* want = expected.view().row<int32_t>(0);
  out.passed =
      expected.dtype == Dtype::kI32 && uint64_t(expected.shape.elements()) == got.size() && std::equal(got.begin(), got.end(), want);
  return out;
}

int32_t likeliest(std::span<const float> logits) { return int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin()); }

}  // namespace

Result<GoldenReport> golden_run(Model& model, std::span<const std::byte> golden) {
  SB_TRY(WeightStore file, safetensors_read(golden, "golden.safetensors"));
  const WeightTensor* input = file.find("in.input_ids");
  if (!input || input->dtype != Dtype::kI32 || input->shape.elements() < 1)
    return misfit("golden.safetensors has no in.input_ids of integers");
  const DecoderShape& shape = model.shape();
  const std::span<const int32_t> ids(input->view().row<int32_t>(0), size_t(input->shape.elements()));
  for (int32_t id : ids) {
    if (id < 0 || id >= shape.vocab) return err(Code::kTokenOutside, {{"id", id}, {"size", shape.vocab}});
  }
  const int64_t n_tokens = int64_t(ids.size());
  const WeightTensor* greedy = file.find("out.greedy_ids");
  const int64_t n_greedy = greedy ? greedy->shape.elements() : 0;
  if (n_tokens + n_greedy > shape.context)
    return err(Code::kPromptTooLong, {{"n_tokens", n_tokens + n_greedy}, {"context", shape.context}});

  // float32 in the cache too: the reference is float32.
  const auto n_layers = int32_t(shape.n_layers), kv_width = int32_t(shape.n_kv_heads * shape.head_dim);
  Device& device = model.device();
  KvPages kv(n_layers, kv_width, false, 0, device.kv_storage(n_layers, kv_width, false));
  // Runs a pass to its end.
  auto run = [&](const Pass& pass, std::span<const int32_t> tokens, int64_t position) -> Result<Program*> {
    if (!device.acquire(&kv)) return err(Code::kSessionBusy);
    Result<Program*> program = model.run(pass, tokens, position, kv);
    if (program) {
      const Result<bool> settled = settle(device);
      if (!settled) program = std::unexpected(settled.error());
    }
    device.release(&kv);
    return program;
  };
  SB_TRY(Program * program, run({n_tokens, Pass::Logits::kAll, true}, ids, 0));

  GoldenReport report;
  Computed computed;
  for (const auto& expected : file.tensors()) {
    const std::string& name = expected->name;
    if (!name.starts_with("out.") || name == "out.greedy_ids") continue;
    const std::span<const float> got = program->output(std::string_view(name).substr(4));
    if (got.empty()) return misfit("golden.safetensors has " + name + ", which this model does not compute");
    report.outputs.push_back(compare_floats(*expected, got));
    computed.add<float>(name, Dtype::kF32, {1, n_tokens, int64_t(got.size()) / n_tokens}, got);
  }
  if (greedy) {
    // The reference's ids begin with the prompt that it was given, a beginning of the input; what follows is ours to find.
    const int32_t* want = greedy->view().row<int32_t>(0);
    const int64_t limit = std::min(n_tokens, n_greedy);
    int64_t n_prompt = greedy->dtype == Dtype::kI32 ? std::mismatch(ids.begin(), ids.begin() + limit, want).first - ids.begin() : 0;
    std::vector<int32_t> answer(ids.begin(), ids.begin() + n_prompt);
    if (n_prompt == 0) n_prompt = n_tokens;  // or they are the continuation of the whole input
    SB_TRY(Program * prompt, run({n_prompt, Pass::Logits::kLast, false}, ids.first(size_t(n_prompt)), 0));
    int32_t next = likeliest(prompt->output("logits").first(size_t(shape.vocab)));
    for (int64_t position = n_prompt; int64_t(answer.size()) < n_greedy; ++position) {
      answer.push_back(next);
      SB_TRY(Program * step, run({1, Pass::Logits::kLast, false}, {&next, 1}, position));
      next = likeliest(step->output("logits").first(size_t(shape.vocab)));
    }
    report.outputs.push_back(compare_ids(*greedy, answer));
    computed.add<int32_t>("out.greedy_ids", Dtype::kI32, {1, n_greedy}, answer);
  }
  report.passed =
      !report.outputs.empty() && std::all_of(report.outputs.begin(), report.outputs.end(), [](const GoldenOutput& o) { return o.passed; });
  report.dump = write_safetensors(computed.entries);
  return report;
}

std::string GoldenReport::json() const {
  OrderedJson j;
  j["passed"] = passed;
  j["outputs"] = OrderedJson::array();
  for (const GoldenOutput& o : outputs) {
    const bool ids = o.name == "out.greedy_ids";
    j["outputs"].push_back({{"name", o.name},
                            {"n", o.n},
                            {"max_abs", o.max_abs},
                            {"worst", o.worst},
                            {"tolerance", ids ? 0.0 : kGoldenTolerance},
                            {"passed", o.passed}});
  }
  return json_text(j);
}

}  // namespace sb
