#include "device/webgpu/webgpu_device.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <deque>
#include <map>

#include "base/hash.h"
#include "base/host.h"
#include "base/json.h"
#include "device/webgpu/gpu.h"
#include "device/webgpu/kernel_text.h"
#include "device/webgpu/lowering.h"
#include "ops/reference.h"

namespace sb {
namespace {

constexpr int64_t kFirstCacheTokens = 256;  // a cache begins with room for so many, and doubles
constexpr uint32_t kMostAhead = 4;          // choices under way: enough to hide a readback
constexpr int64_t kDispatchWords = 6;
constexpr uint32_t kParamsBytes = kGpuParams * 4;
// A device that goes more often than that will go again.
constexpr size_t kMostLosses = 3;
constexpr double kLossesMs = 60e3;

/// What every WebGPU must allow, by its specification; the names are gpu_info's.
constexpr std::pair<const char*, double> kLeastLimits[] = {
    {"buffer", 256 << 20}, {"binding", 128 << 20}, {"workgroup", 16384}, {"groups", 65535}};

/// GPUs that are programs, as adapters and drivers name them: Chromium's, Mesa's and Windows' own.
constexpr const char* kSoftwareGpus[] = {"swiftshader", "llvmpipe", "lavapipe", "softpipe", "warp", "basic render"};

bool is_software(const OrderedJson& info) {
  if (json_bool(info, "software").value_or(false)) return true;
  std::string names;
  for (const char* key : {"adapter", "vendor", "architecture", "driver"}) names += json_string(info, key).value_or("") + "\n";
  std::ranges::transform(names, names.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return std::ranges::any_of(kSoftwareGpus, [&](const char* name) { return names.find(name) != std::string::npos; });
}
constexpr uint64_t kStepBytes = 256;                              // of the scalars of a step
constexpr const char *kLikeliest = "argmax", *kDrawn = "sample";  // kernels that choose a token

std::string text_of(uint32_t (*from)(char*, uint32_t)) {
  std::string text(1024, '\0');
  const uint32_t n = from(text.data(), uint32_t(text.size()));
  text.resize(std::min<size_t>(n, text.size()));
  return text;
}

/// What has gone wrong on the GPU since the last question.
Status gpu_status(uint32_t opening) {
  const std::string text = text_of(gpu_error);
  if (text.empty() && gpu_open() != opening) return err(Code::kDeviceLost, {{"why", "another engine of this process has opened it anew"}});
  if (text.empty()) return {};
  const size_t colon = text.find(": ");
  const std::string kind = text.substr(0, colon), why = colon == std::string::npos ? text : text.substr(colon + 2);
  if (kind == "lost") return err(Code::kDeviceLost, {{"why", why}});
  if (kind == "memory") return err(Code::kMemoryExhausted, {{"n_bytes", why}, {"tag", "gpu"}, {"current", memory_report().total.current}});
  return err(Code::kDeviceFailed, {{"why", why}});
}

/// Keys and values of each layer, [tokens, elements] in a buffer each.
class GpuCache final : public KvStorage {
 public:
  GpuCache(int32_t n_layers, int32_t width, bool half)
      : layers_(size_t(n_layers)), width_(width), row_bytes_(row_bytes(width, half)), half_(half) {}

  /// What a token's row takes.
  static int64_t row_bytes(int64_t width, bool half) { return half ? (width + 1) / 2 * 4 : width * 4; }
  /// Tokens that there is room for once n_tokens are to be held.
  static int64_t capacity_for(int64_t n_tokens) {
    int64_t capacity = kFirstCacheTokens;
    while (capacity < n_tokens) capacity *= 2;
    return capacity;
  }

  Status reserve(int64_t n_tokens) override { return n_tokens <= capacity_ ? Status() : resize(capacity_for(n_tokens)); }
  void shrink(int64_t n_tokens) override {
    if (n_tokens > 0 || capacity_ <= kFirstCacheTokens) return;
    for (Layer& layer : layers_) layer = {};
    capacity_ = 0;
    *serial_ = 0;
  }
  uint64_t n_bytes() const override {
    uint64_t n = 0;
    for (const Layer& layer : layers_) n += layer.parts[0].size() + layer.parts[1].size();
    return n;
  }
  void write(int64_t token, int32_t layer, int part, const std::byte* row) override {
    std::vector<std::byte> padded(size_t(row_bytes_), std::byte(0));
    std::memcpy(padded.data(), row, size_t(width_) * (half_ ? 2 : 4));
    layers_[size_t(layer)].parts[part].write(uint64_t(token * row_bytes_), std::span<const std::byte>(padded));
  }

  const GpuBuffer& part(int32_t layer, int part) const { return layers_[size_t(layer)].parts[part]; }
  /// Another number whenever buffers are others.
  uint64_t serial() const { return *serial_; }
  std::weak_ptr<const uint64_t> watch() const { return serial_; }

 private:
  struct Layer {
    GpuBuffer parts[2];
  };

  /// Layer by layer, so that the old bytes of one only lie beside the new ones.
  Status resize(int64_t capacity) {
    for (Layer& layer : layers_) {
      for (GpuBuffer& part : layer.parts) {
        if (int64_t(part.size()) >= capacity * row_bytes_) continue;  // an earlier try came so far
        SB_TRY(GpuBuffer larger, GpuBuffer::take(Tag::kKv, uint64_t(capacity * row_bytes_)));
        if (part.size()) {
          const uint32_t copy[] = {uint32_t(GpuCommand::kCopy), part.id(), 0, larger.id(), 0, uint32_t(part.size())};
          gpu_submit(copy, std::size(copy));
        }
        part = std::move(larger);
        *serial_ = part.serial();
      }
    }
    capacity_ = capacity;
    return {};
  }

  std::vector<Layer> layers_;
  int64_t width_, row_bytes_, capacity_ = 0;
  bool half_;
  std::shared_ptr<uint64_t> serial_ = std::make_shared<uint64_t>(0);  // of the newest buffer
};

/// A plan lowered for one kind of cache, with its pipelines.
struct GpuVariant {
  GpuLowered lowered;
  GpuBuffer params;  // a slot of kParamsBytes a step
  std::vector<GpuId> pipelines, binds;
  struct Choice {
    GpuId bind = 0, pipeline = 0;
  };
  Choice likeliest, drawn;  // made when first asked for
  std::vector<uint32_t> commands;
  // What the binds are made for.
  uint64_t arena = 0, vectors = 0, cache = 0;  // serials

  void unbind() {
    for (GpuId bind : binds) gpu_bind_free(bind);
    binds.clear();
    for (Choice* choice : {&likeliest, &drawn}) {
      gpu_bind_free(choice->bind);
      choice->bind = 0;
    }
  }
  ~GpuVariant() { unbind(); }
};

class GpuProgram final : public Program {
 public:
  std::span<float> output(std::string_view name) override {
    for (Read& read : *outputs) {
      if (read.name == name) return read.numbers;
    }
    return {};
  }

  struct Read {
    std::string name;
    int32_t value;
    std::vector<float> numbers;
  };
  std::unique_ptr<Plan> plan;
  std::unique_ptr<GpuVariant> variants[2];  // of a cache in float32, in float16
  // What a run reads back; shared with the device, since a program may go while its outputs are on their way.
  std::shared_ptr<std::vector<Read>> outputs = std::make_shared<std::vector<Read>>();
  std::map<std::string, std::vector<float>> filled;
};

class WebgpuDevice final : public Device {
 public:
  WebgpuDevice(uint32_t opening, OrderedJson info)
      : info_(std::move(info)), opening_(opening), most_bytes_(uint64_t(info_["limits"]["binding"].get<double>())), weights_(most_bytes_) {}

  ~WebgpuDevice() override { give_reads(); }

  std::string_view name() const override { return "webgpu"; }
  std::string describe() const override {
    OrderedJson j = {{"device", "webgpu"}, {"isa", "wgsl"}, {"threads", 1}, {"rounded", false}};
    j["gpu"] = info_;
    return json_text(j);
  }
  int n_threads() const override { return 1; }
  Result<std::unique_ptr<Device>> twin(int) const override {
    return err(Code::kOpUnsupported, {{"device", "webgpu"}, {"op", "a second queue"}, {"dtype", "any"}});
  }

  uint64_t life() const override { return lost_ ? 0 : life_; }
  Result<bool> reopen() override {
    if (!lost_) return true;
    if (!is_reopening_) {
      const double now = host_now_ms();
      while (!losses_.empty() && now - losses_.front() > kLossesMs) losses_.pop_front();
      if (losses_.size() == kMostLosses) {
        const std::string times = std::to_string(kMostLosses + 1) + " times within a minute; the last time: ";
        return err(Code::kDeviceLost, {{"why", times + *lost_}});
      }
      losses_.push_back(now);
      forget();
      is_reopening_ = true;
    }
    const uint32_t opening = gpu_open();
    if (opening == kGpuOpening) return false;
    is_reopening_ = false;
    SB_TRY(info_, open_info(opening));
    (void)text_of(gpu_error);  // of the earlier life
    opening_ = opening;
    most_bytes_ = uint64_t(info_["limits"]["binding"].get<double>());
    weights_ = GpuWeights(most_bytes_);
    ++life_;
    lost_.reset();
    return true;
  }

  /// What gpu_info says. Errors: kDeviceMissing, when nothing was opened.
  static Result<OrderedJson> open_info(uint32_t opening) {
    OrderedJson info = json_parse_ordered(text_of(gpu_info), "gpu").value_or(OrderedJson::object());
    auto missing = [](std::string_view why) { return err(Code::kDeviceMissing, {{"device", "webgpu"}, {"why", why}}); };
    if (!opening) return missing(json_string(info, "why").value_or("there is none"));
    for (const auto& [name, least] : kLeastLimits) {
      const double limit = info["limits"][name].get<double>();
      if (limit < least)
        return missing("its limit \"" + std::string(name) + "\" is " + std::to_string(int64_t(limit)) + ", and " +
                       std::to_string(int64_t(least)) + " are needed");
    }
    info["software"] = is_software(info);
    return info;
  }

  Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan> plan) override {
    SB_OK(check());
    SB_OK(plan->finish());
    SB_OK(check_weights(*plan, name()));
    auto program = std::make_unique<GpuProgram>();
    for (const Output& output : plan->outputs()) {
      if (!plan->values()[size_t(output.value)].is_input) program->outputs->push_back({output.name, output.value, {}});
    }
    program->plan = std::move(plan);
    SB_OK(variant(*program, true));
    return program;
  }

  RunBytes measure(const Plan& plan, int64_t) const override {
    const GpuSize size = gpu_size(plan);
    uint64_t most_read = 0;
    for (const Output& output : plan.outputs()) most_read += uint64_t(plan.values()[size_t(output.value)].shape.elements()) * 4;
    return {GpuBuffer::bytes_of(size.arena_words * 4), kStepBytes + most_read, GpuBuffer::bytes_of((size.n_steps + 1) * kParamsBytes)};
  }

  Status fill(Program& program, std::string_view name, std::span<const float> values) override {
    static_cast<GpuProgram&>(program).filled[std::string(name)].assign(values.begin(), values.end());
    return {};
  }

  Status submit(Program& program, const Scalars& scalars) override {
    SB_OK(check());
    GpuProgram& p = static_cast<GpuProgram&>(program);
    const auto* cache = scalars.kv ? static_cast<const GpuCache*>(scalars.kv->storage()) : nullptr;
    SB_TRY(GpuVariant * v, variant(p, scalars.kv && scalars.kv->half()));
    SB_OK(make_room(*v));
    SB_OK(bind(*v, cache));
    last_cache_ = cache ? cache->watch() : std::weak_ptr<const uint64_t>();

    n_splits_ = p.plan->n_tokens() == 1 ? n_splits(uint32_t(scalars.position)) : 1;
    const uint32_t step[4] = {uint32_t(scalars.position), uint32_t(p.plan->n_tokens()), n_splits_};
    step_.write(0, std::span<const uint32_t>(step));
    if (!scalars.ids.empty()) arena_.write(kGpuIdsAt * 4, scalars.ids);
    for (const GpuAngles& angles : v->lowered.angles) write_angles(angles, p.plan->n_tokens(), scalars.position);
    for (const auto& [name, numbers] : p.filled) {
      for (const Output& output : p.plan->outputs()) {
        if (output.name == name) arena_.write(uint64_t(v->lowered.value_at[size_t(output.value)]) * 4, std::span<const float>(numbers));
      }
    }

    std::vector<uint32_t> commands;
    commands.reserve(v->commands.size() + 2 * kDispatchWords);
    for (size_t i = 0; i < v->lowered.steps.size(); ++i) add_dispatch(*v, i, commands);
    if (scalars.n_choices > 0) {
      add_choice(p, *v, scalars.n_choices, scalars.draw, commands);
    } else {
      SB_OK(add_reads(p, *v, commands));
    }
    gpu_submit(commands.data(), uint32_t(commands.size()));
    return check();
  }

  Result<bool> idle() override {
    SB_OK(check());
    while (is_dropping_ && !choices_.empty()) {
      int32_t id = 0;
      const int32_t come = gpu_take(choices_.front(), &id, 4);
      if (come == 0) return false;
      choices_.pop_front();
    }
    is_dropping_ = false;
    while (reading_) {
      std::vector<float>& numbers = (*reading_)[n_read_].numbers;
      const int32_t come = gpu_take(uint32_t(n_read_), numbers.data(), uint32_t(numbers.size() * 4));
      if (come == 0) return false;
      if (come < 0) return failed_read();
      if (++n_read_ == reading_->size()) reading_ = nullptr;
    }
    return choices_.empty();
  }
  bool wait() override {
#if defined(__wasm__)
    return false;
#else
    gpu_wait();
    return true;
#endif
  }
  void drop() override { is_dropping_ = true; }
  bool holds_weights() const override { return true; }
  Result<std::unique_ptr<DeviceRows>> keep_rows(const RowLayout& rows) override { return weights_.take(rows); }
  uint64_t kept_bytes(const RowLayout& rows) const override { return weights_.bytes_of(rows); }
  Result<uint64_t> bringing() override {
    const auto n_bytes = uint64_t(gpu_writing());
    SB_OK(check());
    return n_bytes;
  }

  std::vector<uint64_t> kernels(const Plan& plan, bool half) const override {
    std::vector<uint64_t> hashes;
    for (const std::string& text : gpu_texts(plan, half)) hashes.push_back(hash_of(text));
    return hashes;
  }
  void prepare(const Plan& plan, bool half) override {
    if (info_["software"].get<bool>()) return;  // it would compile on the cores that load
    std::vector<std::string> texts = gpu_texts(plan, half);
    for (const char* kernel : {kLikeliest, kDrawn}) texts.push_back(choice_text(kernel));
    for (const std::string& text : texts) {
      if (pipelines_.try_emplace(text, 0).second) gpu_prepare(text.data(), uint32_t(text.size()));
    }
  }

  int n_choices() const override { return int(kMostAhead); }
  int32_t long_position() const override { return kSplitFrom + 80; }
  Result<std::optional<int32_t>> chosen() override {
    SB_OK(check());
    if (choices_.empty()) return std::nullopt;
    int32_t id = 0;
    const int32_t come = gpu_take(choices_.front(), &id, 4);
    if (come == 0) return std::nullopt;
    choices_.pop_front();
    if (come < 0) return std::unexpected(failed_read().error());
    return id;
  }

#if !defined(__wasm__)  // where there is no waiting
  Result<std::string> profile(Program& program) override {
    constexpr int kRepeats = 100;
    constexpr uint32_t kSlot = kGpuSlots - 1;
    SB_TRY(const bool is_idle, settle(*this));
    GpuProgram& p = static_cast<GpuProgram&>(program);
    const auto cache_serial = last_cache_.lock();
    const GpuVariant* v = nullptr;
    for (const auto& known : p.variants) {
      if (known && !known->binds.empty() && known->arena == arena_.serial() && cache_serial && known->cache == *cache_serial)
        v = known.get();
    }
    if (!is_idle || !v)
      return err(Code::kArgumentInvalid,
                 {{"what", "Nothing has run that could be profiled"}, {"fix", "Let the model answer first, where waiting is possible."}});
    OrderedJson steps = OrderedJson::array();
    for (size_t i = 0; i < v->lowered.steps.size(); ++i) {
      std::vector<uint32_t> commands;
      for (int n = 0; n < kRepeats; ++n) add_dispatch(*v, i, commands);
      if (commands.empty()) continue;
      commands.insert(commands.end(), {uint32_t(GpuCommand::kRead), arena_.id(), 0, 4, kSlot});
      double ms = 0;
      for (int turn = 0; turn < 2; ++turn) {  // the first warms up
        const double begin = host_now_ms();
        gpu_submit(commands.data(), uint32_t(commands.size()));
        int32_t come = 0;
        for (uint32_t word = 0; come == 0; come = gpu_take(kSlot, &word, 4)) gpu_wait();
        if (come < 0) return std::unexpected(failed_read().error());
        ms = host_now_ms() - begin;
      }
      const GpuStep& step = v->lowered.steps[i];
      steps.push_back({{"step", step.name},
                       {"groups",
                        { step.groups[0],
                          step.groups[1],
                          step.groups[2] }},
                       { "us",
                         ms * 1000 / kRepeats }});
    }
    return json_text(OrderedJson{{"n_tokens", p.plan->n_tokens()}, {"repeats", kRepeats}, { "steps", steps }});
  }
#endif

  std::unique_ptr<KvStorage> kv_storage(int32_t n_layers, int32_t width, bool half) override {
    return std::make_unique<GpuCache>(n_layers, width, half);
  }
  uint64_t kv_bytes(int64_t n_layers, int64_t width, int64_t n_tokens) const override {
    return uint64_t(n_layers) * 2 * GpuBuffer::bytes_of(uint64_t(GpuCache::capacity_for(n_tokens) * GpuCache::row_bytes(width, true)));
  }

 private:
  /// What has gone wrong since the last question; a loss for good.
  Status check() {
    if (lost_) return err(Code::kDeviceLost, {{"why", *lost_}});
    Status status = gpu_status(opening_);
    if (!status && status.error().code() == Code::kDeviceLost) lost_ = status.error().fields().front().value;
    return status;
  }
  /// Lets go of what the lost device had.
  void forget() {
    weights_ = GpuWeights(most_bytes_);
    arena_ = {};
    step_ = {};
    pipelines_.clear();
    give_reads();
    reading_ = nullptr;
    n_read_ = 0;
    choices_.clear();
    is_dropping_ = false;
  }
  std::unexpected<Error> failed_read() {
    Status status = check();
    return err(status ? Error(Code::kDeviceFailed, {{"why", "a buffer could not be read"}}) : status.error());
  }

  Result<GpuVariant*> variant(GpuProgram& p, bool half) {
    std::unique_ptr<GpuVariant>& known = p.variants[half];
    if (known) return known.get();
    auto made = std::make_unique<GpuVariant>();
    SB_TRY(made->lowered, lower_to_gpu(*p.plan, weights_, half));
    SB_TRY(made->params, GpuBuffer::take(Tag::kScratch, (made->lowered.steps.size() + 1) * kParamsBytes, GpuUse::kUniform));
    std::vector<uint32_t> words;
    for (GpuStep& step : made->lowered.steps) {
      SB_ASSERT(step.params.size() <= kGpuParams);
      words.insert(words.end(), step.params.begin(), step.params.end());
      words.resize((words.size() + kGpuParams - 1) / kGpuParams * kGpuParams);
      made->pipelines.push_back(pipeline(step.text));
      step.text.clear();
    }
    if (!words.empty()) made->params.write(0, std::span<const uint32_t>(words));
    SB_OK(check());
    known = std::move(made);
    return known.get();
  }

  GpuId pipeline(const std::string& text) {
    GpuId& known = pipelines_[text];
    if (!known) known = gpu_pipeline(text.data(), uint32_t(text.size()));
    return known;
  }

  /// Step i, as the last run's position has it.
  void add_dispatch(const GpuVariant& v, size_t i, std::vector<uint32_t>& commands) const {
    const GpuStep& step = v.lowered.steps[i];
    if (step.merges && n_splits_ == 1) return;
    const auto one = v.commands.begin() + int64_t(i) * kDispatchWords;
    commands.insert(commands.end(), one, one + kDispatchWords);
    if (step.is_split) *(commands.end() - 2) = n_splits_;  // of its groups the second
  }

  Status make_room(const GpuVariant& v) {
    const uint64_t n_bytes = v.lowered.arena_words * 4;
    if (n_bytes > most_bytes_)
      return err(Code::kMemoryExhausted, {{"n_bytes", n_bytes}, {"tag", "activations"}, {"current", memory_report().total.current}});
    if (arena_.size() < n_bytes) {
      // The choice and the ids that a run under way leaves move along.
      SB_TRY(GpuBuffer larger, GpuBuffer::take(Tag::kActivations, n_bytes));
      if (arena_.size()) {
        const uint32_t copy[] = {uint32_t(GpuCommand::kCopy), arena_.id(), 0, larger.id(), 0, 256};
        gpu_submit(copy, std::size(copy));
      }
      arena_ = std::move(larger);
    }
    if (!step_.id()) { SB_TRY(step_, GpuBuffer::take(Tag::kScratch, kStepBytes, GpuUse::kUniform)); }
    return weights_.flush();
  }

  Status bind(GpuVariant& v, const GpuCache* cache) {
    const uint64_t cache_serial = cache ? cache->serial() : 0;
    const bool is_bound = v.arena == arena_.serial() && v.vectors == weights_.vectors().serial() && v.cache == cache_serial;
    if (!v.binds.empty() && is_bound) return {};
    v.unbind();
    v.commands.clear();
    for (size_t i = 0; i < v.lowered.steps.size(); ++i) {
      const GpuStep& step = v.lowered.steps[i];
      std::vector<GpuBinding> bindings = {{step_.id(), 0, 16},
                                          {v.params.id(), uint32_t(i) * kParamsBytes, kParamsBytes},
                                          {arena_.id(), 0, 0},
                                          {weights_.vectors().id(), 0, 0}};
      for (GpuId weights : step.weights) {
        if (weights) bindings.push_back({weights, 0, 0});
      }
      if (step.kv_layer >= 0) {
        SB_ASSERT(cache);
        for (int part = 0; part < 2; ++part) {
          const GpuBuffer& buffer = cache->part(step.kv_layer, part);
          bindings.push_back({buffer.id(), 0, 0});
        }
      }
      v.binds.push_back(gpu_bind(v.pipelines[i], bindings.data(), uint32_t(bindings.size())));
      v.commands.insert(v.commands.end(),
                        {uint32_t(GpuCommand::kDispatch), v.pipelines[i], v.binds.back(), step.groups[0], step.groups[1], step.groups[2]});
    }
    v.arena = arena_.serial();
    v.vectors = weights_.vectors().serial();
    v.cache = cache_serial;
    return check();
  }

  void write_angles(const GpuAngles& angles, int64_t n_tokens, int32_t position) const {
    const auto n = int64_t(angles.frequencies.size());
    std::vector<float> table(size_t(n_tokens * 2 * n));
    OpViews views;
    views.in[0] = {reinterpret_cast<const std::byte*>(angles.frequencies.data()), Dtype::kF32, {n}, 4 * n};
    views.has[0] = true;
    views.out = {reinterpret_cast<std::byte*>(table.data()), Dtype::kF32, {n_tokens, 2 * n}, 8 * n};
    run_reference(RopeTable{}, views, {.position = position});
    arena_.write(uint64_t(angles.at) * 4, std::span<const float>(table));
  }

  void give_reads() {
    for (uint64_t& n_bytes : read_bytes_) memory_give_gpu(Tag::kScratch, std::exchange(n_bytes, 0));
  }
  /// A slot's buffer stays, for reads of no more bytes.
  void enter_read(uint32_t slot, uint64_t n_bytes) {
    if (n_bytes <= read_bytes_[slot]) return;
    memory_take_gpu(Tag::kScratch, n_bytes - read_bytes_[slot]);
    read_bytes_[slot] = n_bytes;
  }

  /// Reads of all outputs.
  Status add_reads(GpuProgram& p, const GpuVariant& v, std::vector<uint32_t>& commands) {
    SB_ASSERT(choices_.empty() && !reading_ && p.outputs->size() <= kGpuSlots);
    uint32_t slot = 0;
    for (GpuProgram::Read& read : *p.outputs) {
      const Value& value = p.plan->values()[size_t(read.value)];
      SB_ASSERT(value.alias_of < 0);
      const auto n = uint32_t(value.shape.elements());
      read.numbers.resize(n);
      enter_read(slot, n * 4);
      commands.insert(commands.end(),
                      {uint32_t(GpuCommand::kRead), arena_.id(), v.lowered.value_at[size_t(read.value)] * 4, n * 4, slot++});
    }
    n_read_ = 0;
    if (slot > 0) reading_ = p.outputs;
    return {};
  }

  /// Picks one of the first n "logits" on the GPU, where the next run finds it as its token, and reads it.
  void add_choice(GpuProgram& p, GpuVariant& v, int32_t n, const Draw& draw, std::vector<uint32_t>& commands) {
    SB_ASSERT(!reading_ && choices_.size() < kMostAhead);
    const auto logits = std::ranges::find(*p.outputs, "logits", &GpuProgram::Read::name);
    SB_ASSERT(logits != p.outputs->end());
    const uint32_t at = uint32_t(v.lowered.steps.size()) * kParamsBytes;
    // Written before every run that draws: the queue keeps the order of writes and runs.
    const uint32_t params[12] = {v.lowered.value_at[size_t(logits->value)],
                                 uint32_t(n),
                                 kGpuIdsAt,
                                 kGpuChoiceAt,
                                 bits(draw.temperature),
                                 uint32_t(draw.top_k),
                                 bits(draw.top_p),
                                 bits(draw.min_p),
                                 bits(draw.mark)};
    const bool is_drawn = draw.temperature > 0;
    if (is_drawn || !v.likeliest.bind) v.params.write(at, std::span<const uint32_t>(params));
    add_choice(v, v.likeliest, kLikeliest, at, commands);
    if (is_drawn) add_choice(v, v.drawn, kDrawn, at, commands);
    const uint32_t slot = next_slot_++ % kMostAhead;
    enter_read(slot, 4);
    commands.insert(commands.end(), {uint32_t(GpuCommand::kRead), arena_.id(), kGpuChoiceAt * 4, 4, slot});
    choices_.push_back(slot);
  }
  static std::string choice_text(const std::string& kernel) {
    return "// " + kernel + "\n" + wgsl("prelude") + wgsl("access4") + wgsl(kernel, {{"$KEEP", std::string(kKeepLayout)}});
  }
  void add_choice(GpuVariant& v, GpuVariant::Choice& choice, const char* kernel, uint32_t params_at, std::vector<uint32_t>& commands) {
    if (!choice.bind) {
      choice.pipeline = pipeline(choice_text(kernel));
      const GpuBinding bindings[] = {
          {step_.id(), 0, 16}, {v.params.id(), params_at, kParamsBytes}, {arena_.id(), 0, 0}, {weights_.vectors().id(), 0, 0}};
      choice.bind = gpu_bind(choice.pipeline, bindings, 4);
    }
    commands.insert(commands.end(), {uint32_t(GpuCommand::kDispatch), choice.pipeline, choice.bind, 1, 1, 1});
  }

  OrderedJson info_;
  uint32_t opening_;     // of the GPU, as gpu_open numbers them
  uint64_t most_bytes_;  // of a binding
  uint64_t life_ = 1;
  std::optional<std::string> lost_;  // why
  bool is_reopening_ = false;
  std::deque<double> losses_;  // when, in ms; those of the last minute
  GpuWeights weights_;
  GpuBuffer arena_, step_;
  std::array<uint64_t, kGpuSlots> read_bytes_{};
  std::map<std::string, GpuId> pipelines_;                  // by their text; 0: prepared
  std::shared_ptr<std::vector<GpuProgram::Read>> reading_;  // outputs on their way
  size_t n_read_ = 0;
  std::deque<uint32_t> choices_;  // slots, oldest first
  uint32_t next_slot_ = 0;
  std::weak_ptr<const uint64_t> last_cache_;  // the serial of the cache of the last run, while there is that cache
  bool is_dropping_ = false;
  uint32_t n_splits_ = 1;  // of attention in the last run
};

}  // namespace

Result<std::unique_ptr<Device>> make_webgpu_device(bool takes_software) {
  const uint32_t opening = gpu_open();
  SB_TRY(OrderedJson info, WebgpuDevice::open_info(opening == kGpuOpening ? 0 : opening));
  if (!takes_software && info["software"].get<bool>())
    return err(Code::kDeviceMissing,
               {{"device", "webgpu"}, {"why", "its adapter, " + json_string(info, "adapter").value_or("") + ", computes in software"}});
  return std::make_unique<WebgpuDevice>(opening, std::move(info));
}

}  // namespace sb
