#include "runtime/golden.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "io/safetensors.h"

namespace sb {
namespace {

constexpr const char* kGreedy = "out.greedy_ids";

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

Result<std::unique_ptr<GoldenRun>> GoldenRun::start(Model& model, std::span<const std::byte> golden) {
  SB_TRY(WeightStore file, safetensors_read(golden, "golden.safetensors"));
  const WeightTensor* input = file.find("in.input_ids");
  if (!input || input->dtype != Dtype::kI32 || input->shape.elements() < 1)
    return misfit("golden.safetensors has no in.input_ids of integers");
  const DecoderShape& shape = model.shape();
  const std::span<const int32_t> ids(input->view().row<int32_t>(0), size_t(input->shape.elements()));
  for (int32_t id : ids) {
    if (id < 0 || id >= shape.vocab) return err(Code::kTokenOutside, {{"id", id}, {"size", shape.vocab}});
  }
  const WeightTensor* greedy = file.find("out.greedy_ids");
  const int64_t n_tokens = int64_t(ids.size()) + (greedy ? greedy->shape.elements() : 0);
  if (n_tokens > shape.context) return err(Code::kPromptTooLong, {{"n_tokens", n_tokens}, {"context", shape.context}});

  std::unique_ptr<GoldenRun> run(new GoldenRun(model, std::move(file), ids));
  SB_OK(run->pass({int64_t(ids.size()), Pass::Logits::kAll, true}, ids, 0));
  return run;
}

GoldenRun::GoldenRun(Model& model, WeightStore file, std::span<const int32_t> ids)
    : model_(model), file_(std::move(file)), ids_(ids), kv_(model.new_cache(false)) {}  // float32 as the reference

GoldenRun::~GoldenRun() {
  if (running_) model_.device().drop();
  model_.device().release(this);
}

Status GoldenRun::pass(const Pass& pass, std::span<const int32_t> ids, int64_t position) {
  if (!model_.device().acquire(this)) return err(Code::kSessionBusy);
  SB_TRY(running_, model_.run(pass, ids, position, kv_));
  return {};
}

Result<GoldenStep> GoldenRun::step() {
  const Result<GoldenStep> step = advance();
  if (!step || *step == GoldenStep::kDone) model_.device().release(this);
  return step;
}

Result<GoldenStep> GoldenRun::advance() {
  if (!running_) return GoldenStep::kDone;
  SB_TRY(const bool is_idle, settle(model_.device()));
  if (!is_idle) return GoldenStep::kWaits;
  Program& done = *std::exchange(running_, nullptr);
  SB_OK(is_whole_ ? take_whole(done) : take_greedy(done));
  if (running_) return GoldenStep::kMore;
  const auto passed = [](const GoldenOutput& o) { return o.passed; };
  report_.passed = !report_.outputs.empty() && std::all_of(report_.outputs.begin(), report_.outputs.end(), passed);
  report_.dump = write_safetensors(computed_.entries);
  return GoldenStep::kDone;
}

/// Compares the pass over the whole input, and starts on the greedy ids where there are any.
Status GoldenRun::take_whole(Program& done) {
  is_whole_ = false;
  const auto n_tokens = int64_t(ids_.size());
  for (const auto& expected : file_.tensors()) {
    const std::string& name = expected->name;
    if (!name.starts_with("out.") || name == kGreedy) continue;
    const std::span<const float> got = done.output(std::string_view(name).substr(4));
    if (got.empty()) return misfit("golden.safetensors has " + name + ", which this model does not compute");
    report_.outputs.push_back(compare_floats(*expected, got));
    computed_.add<float>(name, Dtype::kF32, {1, n_tokens, int64_t(got.size()) / n_tokens}, got);
  }
  const WeightTensor* greedy = file_.find(kGreedy);
  if (!greedy) return {};
  // The reference's ids begin with the prompt that it was given, a beginning of the input; what follows is ours to find.
  const int32_t* want = greedy->view().row<int32_t>(0);
  const int64_t limit = std::min(n_tokens, greedy->shape.elements());
  const int64_t n_prompt = greedy->dtype == Dtype::kI32 ? std::mismatch(ids_.begin(), ids_.begin() + limit, want).first - ids_.begin() : 0;
  greedy_.assign(ids_.begin(), ids_.begin() + n_prompt);
  position_ = n_prompt ? n_prompt : n_tokens;  // or they are the continuation of the whole input
  return pass({position_, Pass::Logits::kLast, false}, ids_.first(size_t(position_)), 0);
}

Status GoldenRun::take_greedy(Program& done) {
  const WeightTensor& expected = *file_.find(kGreedy);
  const int64_t n = expected.shape.elements();
  if (int64_t(greedy_.size()) < n) greedy_.push_back(likeliest(done.output("logits").first(size_t(model_.shape().vocab))));
  if (int64_t(greedy_.size()) < n) return pass({1, Pass::Logits::kLast, false}, {&greedy_.back(), 1}, position_++);
  report_.outputs.push_back(compare_ids(expected, greedy_));
  computed_.add<int32_t>(kGreedy, Dtype::kI32, {1, n}, greedy_);
  return {};
}

std::string GoldenReport::json() const {
  OrderedJson j;
  j["passed"] = passed;
  j["outputs"] = OrderedJson::array();
  for (const GoldenOutput& o : outputs) {
    const bool ids = o.name == kGreedy;
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
