#include "device/cpu/cpu_device.h"

#include <algorithm>

#include "base/json.h"
#include "base/thread_pool.h"
#include "device/cpu/kernel.h"
#include "formats/decode.h"

#if !defined(__wasm__)
#include <thread>
#endif

namespace sb {
namespace {

/// Bytes that a step reads or writes, as offsets in the arena; each layer's cache parts get numbers of their own beyond it.
struct Range {
  int64_t begin, end;
  bool is_write;
  bool collides(const Range& other) const { return (is_write || other.is_write) && begin < other.end && other.begin < end; }
};

struct CpuStep {
  Kernel kernel;
  std::array<int32_t, 4> inputs;  // values
  int32_t output;
  int64_t packed_at = -1;  // in the arena, where the input lies packed
  Step step = {};          // pointers, bound to an arena
};

/// Steps that touch nothing of each other's: their parts are done in any order.
struct Stage {
  uint32_t first_step, n_steps;
};

class CpuProgram final : public Program {
 public:
  std::span<float> output(std::string_view name) override {
    for (const Output& o : plan->outputs()) {
      if (o.name != name) continue;
      const MutableTensorView v = view(o.value);
      return {reinterpret_cast<float*>(v.data), size_t(v.shape.elements())};
    }
    return {};
  }

  const Value& value(int32_t index) const { return plan->values()[size_t(index)]; }

  /// Offset of an activation's first byte in the arena; an alias lies inside its root.
  int64_t offset(int32_t index) const {
    const Value& v = value(index);
    return v.alias_of >= 0 ? offset(v.alias_of) + 4 * v.first_column : layout.offset[size_t(index)];
  }
  int64_t row_bytes(int32_t index) const {
    const Value& v = value(index);
    return v.alias_of >= 0 ? row_bytes(v.alias_of) : 4 * v.shape[-1];
  }
  MutableTensorView view(int32_t index) const {
    const Value& v = value(index);
    if (v.kind == ValueKind::kActivation) return {arena + offset(index), v.dtype, v.shape, row_bytes(index)};
    SB_ASSERT(v.kind != ValueKind::kIds);
    if (!floats[size_t(index)].empty())
      return {reinterpret_cast<std::byte*>(const_cast<float*>(floats[size_t(index)].data())), Dtype::kF32, v.shape, 4 * v.shape[-1]};
    SB_ASSERT(!v.weight.planes);
    return {const_cast<std::byte*>(v.weight.data), v.dtype, v.shape, v.weight.row_bytes};
  }

  std::unique_ptr<Plan> plan;
  ArenaLayout layout;
  int64_t n_arena_bytes = 0;
  std::vector<std::vector<float>> floats;  // a value: constants, and vectors that the file has in another type than float32
  std::vector<CpuStep> steps;
  std::vector<Stage> stages;
  std::byte* arena = nullptr;  // what the steps are bound to
};

/// What a node's input is packed into.
PackedForm packed_form(const KernelTable& table, const Plan& plan, const Node& node, bool exact) {
  const MatMul* op = std::get_if<MatMul>(&node.op);
  if (!table.pack || !op) return PackedForm::kNone;
  const int64_t n_tokens = plan.values()[size_t(node.inputs[0])].shape[0];
  return table.packed_form(plan.values()[size_t(node.inputs[1])].weight, n_tokens, exact || op->exact);
}

int64_t most_packed_bytes(const KernelTable& table, const Plan& plan, bool exact) {
  int64_t most = 0;
  for (const Node& node : plan.nodes()) {
    const PackedForm form = packed_form(table, plan, node, exact);
    if (form == PackedForm::kNone) continue;
    const Shape& x = plan.values()[size_t(node.inputs[0])].shape;
    most = std::max(most, (table.packed_bytes(form, plan.values()[size_t(node.inputs[1])].weight, x[0], x[1]) + 63) / 64 * 64);
  }
  return most;
}

/// Two places for packed inputs, in turn: one is filled while the other may still be read.
constexpr int kPackedPlaces = 2;

/// Turns nodes into steps: packs inputs where kernels want it, and begins a stage only where two steps touch the same bytes.
class Lowering {
 public:
  Lowering(CpuProgram& program, const KernelTable& table) : p_(program), table_(table) {}

  void run() {
    packed_bytes_ = most_packed_bytes(table_, *p_.plan, false);
    packed_at_ = p_.layout.n_bytes;
    cache_at_ = p_.n_arena_bytes = packed_at_ + kPackedPlaces * packed_bytes_;
    for (const Node& node : p_.plan->nodes()) lower(node);
  }

 private:
  void lower(const Node& node) {
    CpuStep step{table_.by_op[node.op.index()], node.inputs, node.output};
    step.step.op = &node.op;
    std::vector<Range> touched;
    for (int32_t in : node.inputs) touch(in, false, touched);
    touch(node.output, true, touched);
    if (const CacheWrite* op = std::get_if<CacheWrite>(&node.op)) {
      const int64_t part = cache_at_ + 2 * op->layer + int(op->part);
      touched.push_back({part, part + 1, true});
    } else if (const Attention* op = std::get_if<Attention>(&node.op)) {
      touched.push_back({cache_at_ + 2 * op->layer, cache_at_ + 2 * op->layer + 2, false});
    }
    if (const PackedForm form = packed_form(table_, *p_.plan, node, false); form != PackedForm::kNone) {
      // Packed once for all who read it in one form; matrices of planes have a rotation of their own.
      const TensorView& weight = p_.value(node.inputs[1]).weight;
      if (packed_value_ != node.inputs[0] || packed_form_ != form || packed_for_ != weight.planes) {
        packed_value_ = node.inputs[0];
        packed_form_ = form;
        packed_for_ = weight.planes;
        turn_ ^= 1;
        CpuStep pack{table_.pack, {packed_value_, node.inputs[1], -1, -1}, -1, packed_place()};
        pack.step.op = &node.op;
        std::vector<Range> packing = {{packed_place(), packed_place() + packed_bytes_, true}};
        touch(packed_value_, false, packing);
        push(pack, packing);
      }
      step.packed_at = packed_place();
      touched.push_back({packed_place(), packed_place() + packed_bytes_, false});
    }
    push(step, touched);
  }

  int64_t packed_place() const { return packed_at_ + turn_ * packed_bytes_; }

  void touch(int32_t index, bool is_write, std::vector<Range>& out) const {
    if (index < 0 || p_.value(index).kind != ValueKind::kActivation) return;
    const Shape& shape = p_.value(index).shape;
    const int64_t begin = p_.offset(index);
    out.push_back({begin, begin + (shape[0] - 1) * p_.row_bytes(index) + 4 * shape[1], is_write});
  }

  void push(CpuStep step, const std::vector<Range>& touched) {
    bool collides = p_.stages.empty();
    for (const Range& mine : touched) {
      for (const Range& theirs : open_) collides = collides || mine.collides(theirs);
    }
    if (collides) {
      open_.clear();
      p_.stages.push_back({uint32_t(p_.steps.size()), 0});
    }
    open_.insert(open_.end(), touched.begin(), touched.end());
    p_.steps.push_back(step);
    ++p_.stages.back().n_steps;
  }

  CpuProgram& p_;
  const KernelTable& table_;
  std::vector<Range> open_;  // touched in the last stage
  int32_t packed_value_ = -1;
  PackedForm packed_form_ = PackedForm::kNone;
  const PlaneMatrix* packed_for_ = nullptr;
  int64_t packed_at_ = 0, packed_bytes_ = 0, cache_at_ = 0;
  int turn_ = 0;
};

class CpuDevice final : public Device {
 public:
  CpuDevice(const KernelTable& table, int threads, bool is_exact)
      : table_(table), pool_(threads), stages_(pool_.size()), is_exact_(is_exact) {}

  std::string_view name() const override { return "cpu"; }
  std::string describe() const override {
    OrderedJson j;
    j["device"] = "cpu";
    j["isa"] = table_.isa;
    j["threads"] = pool_.size();
    j["rounded"] = !is_exact_;
    return json_text(j);
  }

  int n_threads() const override { return pool_.size(); }
  void begin(std::function<void()>& work) override { pool_.begin(work); }
  void finish() override { pool_.finish(); }
  Result<std::unique_ptr<Device>> twin(int n_threads) const override { return std::make_unique<CpuDevice>(table_, n_threads, is_exact_); }

  Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan> plan) override {
    SB_OK(plan->finish());
    if (is_exact_) plan->make_exact();
    auto program = std::make_unique<CpuProgram>();
    program->layout = plan_arena(*plan);
    program->plan = std::move(plan);
    program->floats.resize(program->plan->values().size());
    SB_OK(check_weights(*program->plan, name()));
    for (size_t i = 0; i < program->floats.size(); ++i) {
      const Value& v = program->value(int32_t(i));
      if (v.kind == ValueKind::kConstant) program->floats[i] = v.constant;
      if (v.kind == ValueKind::kWeight && v.shape.rank() == 1 && v.dtype != Dtype::kF32) {
        program->floats[i].resize(size_t(v.shape[0]));
        decode_row(v.dtype, v.weight.data, program->floats[i].data(), v.shape[0]);
      }
    }
    Lowering(*program, table_).run();
    return program;
  }

  RunBytes measure(const Plan& plan, int64_t context) const override {
    const int64_t packed = kPackedPlaces * most_packed_bytes(table_, plan, is_exact_);
    const int64_t scratch = table_.scratch_bytes(plan) * pool_.size() + table_.shared_bytes(plan, context - plan.n_tokens());
    return {uint64_t(plan_arena(plan).n_bytes + packed), uint64_t(scratch)};
  }

  int64_t n_alike() const override { return kFewTokens; }

  Status fill(Program& program, std::string_view name, std::span<const float> values) override {
    CpuProgram& p = static_cast<CpuProgram&>(program);
    SB_OK(make_room(p));
    if (p.arena != arena_.data()) bind(p);
    const std::span<float> to = p.output(name);
    SB_ASSERT(to.size() == values.size());
    std::copy(values.begin(), values.end(), to.begin());
    return {};
  }

  Status submit(Program& program, const Scalars& scalars) override {
    CpuProgram& p = static_cast<CpuProgram&>(program);
    SB_OK(make_room(p));
    if (const auto n = uint64_t(table_.shared_bytes(*p.plan, scalars.position)); n > shared_.size()) {
      shared_ = {};
      SB_TRY(shared_, Block::take(Tag::kScratch, n));
    }
    if (p.arena != arena_.data()) bind(p);
    stages_.begin();
    pool_.run([&](int call) {
      std::byte* scratch = scratch_.data() + call * scratch_stride_;
      stages_.work(
          call, uint32_t(p.stages.size()), [&](uint32_t stage) { return p.stages[stage].n_steps; },
          [&](uint32_t stage, uint32_t i, uint32_t part) {
            const CpuStep& s = p.steps[p.stages[stage].first_step + i];
            s.kernel(s.step, scalars, {int(part), pool_.size(), scratch, shared_.data()});
          });
    });
    return {};
  }

  Result<bool> idle() override { return true; }

 private:
  Status make_room(const CpuProgram& p) {
    if (int64_t(arena_.size()) < p.n_arena_bytes) {
      arena_ = {};
      SB_TRY(arena_, Block::take(Tag::kActivations, uint64_t(p.n_arena_bytes)));
    }
    const int64_t stride = table_.scratch_bytes(*p.plan);
    if (stride > scratch_stride_) {
      scratch_ = {};
      scratch_stride_ = 0;
      SB_TRY(scratch_, Block::take(Tag::kScratch, uint64_t(stride) * uint64_t(pool_.size())));
      scratch_stride_ = stride;
    }
    return {};
  }

  /// Resolves a program's pointers into the arena. All programs share it, and it moves when a larger one comes.
  void bind(CpuProgram& p) {
    p.arena = arena_.data();
    for (CpuStep& s : p.steps) {
      for (size_t i = 0; i < s.inputs.size(); ++i) {
        s.step.views.has[i] = s.inputs[i] >= 0 && p.value(s.inputs[i]).kind != ValueKind::kIds;
        if (!s.step.views.has[i]) continue;
        const Value& v = p.value(s.inputs[i]);
        s.step.views.in[i] = v.weight.planes ? v.weight : TensorView(p.view(s.inputs[i]));
      }
      if (s.output >= 0) s.step.views.out = p.view(s.output);
      if (s.packed_at >= 0) s.step.packed = p.arena + s.packed_at;
    }
  }

  const KernelTable& table_;
  ThreadPool pool_;
  Stages stages_;
  bool is_exact_;
  Block arena_, scratch_, shared_;
  int64_t scratch_stride_ = 0;  // bytes of scratch a thread
};

int default_threads() {
#if defined(__wasm__)
  return 1;  // the page knows how many workers it started, and says so
#else
  return std::max(1, int(std::thread::hardware_concurrency()));
#endif
}

}  // namespace

Result<std::unique_ptr<Device>> make_cpu_device(const CpuOptions& options) {
  std::string here;
  for (const KernelTable* table : kernel_tables()) {
    if (options.isa == "auto" || options.isa == table->isa) {
      return std::make_unique<CpuDevice>(*table, options.threads > 0 ? options.threads : default_threads(), options.exact);
    }
    here += here.empty() ? table->isa : std::string(", ") + table->isa;
  }
  return err(Code::kDeviceMissing, {{"device", "cpu (" + options.isa + ")"}, {"why", "this machine and build have " + here}});
}

}  // namespace sb
