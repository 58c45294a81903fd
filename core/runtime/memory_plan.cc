#include "runtime/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>

#include "architecture_tables.h"
#include "models/registry.h"
#include "ops/ops.h"
#include "runtime/session.h"

namespace sb {
namespace {

constexpr uint64_t kBlockAlignment = 64;  // of base/memory.h: a Block's bytes in the books
uint64_t block_bytes(uint64_t n_bytes) { return (n_bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment; }

/// A tensor of a model, without its bytes.
struct ShapedTensor {
  std::string name;
  Dtype dtype;
  Shape shape;
  const PlaneMatrix* planes = nullptr;  // kPlanes
  int64_t first_row = 0;
};

/// Tensors of one input, by their places in a list; those that are kept are groups of one.
struct Group {
  TensorRole role;
  std::vector<size_t> tensors;
};

/// A store that a family can open and write plans over, as long as nothing reads a matrix. Vectors are zeros: biases are put together and
/// rope's divisors divided by while plans are written.
Result<WeightStore> store_of(const std::vector<ShapedTensor>& tensors, const Config& config) {
  WeightStore store(config.file(), config.container());
  for (const ShapedTensor& t : tensors) {
    SB_TRY(const uint64_t n_bytes, dense_bytes(t.dtype, t.shape));
    SB_TRY(Block block, Block::take(Tag::kWeights, t.shape.rank() < 2 ? n_bytes : 0));
    SB_OK(store.add({.name = t.name,
                     .file = config.file(),
                     .dtype = t.dtype,
                     .shape = t.shape,
                     .block = std::move(block),
                     .planes = t.planes,
                     .first_row = t.first_row}));
  }
  return store;
}

/// A model as shapes; moves, since its graph refers to its store.
struct OpenShapes {
  std::unique_ptr<WeightStore> store;
  std::unique_ptr<ModelGraph> graph;
};
Result<OpenShapes> open_shapes(const std::vector<ShapedTensor>& tensors, const Config& config) {
  OpenShapes out;
  SB_TRY(WeightStore store, store_of(tensors, config));
  out.store = std::make_unique<WeightStore>(std::move(store));
  const Family* family = nullptr;
  SB_TRY(out.graph, open_model(config, *out.store, &family));
  return out;
}

Result<std::unique_ptr<Plan>> plan_of(const ModelGraph& graph, const Pass& pass) {
  auto plan = std::make_unique<Plan>(pass.n_tokens);
  graph.build(*plan, pass);
  SB_OK(plan->finish());
  return plan;
}

/// What each tensor is to the model, read off a plan. Tensors that no plan reads are in no group.
Result<std::vector<Group>> groups_of(std::vector<ShapedTensor> tensors, const Config& config) {
  // Names in a plan are Hugging Face's, a GGUF's are not. No weight of these has planes, so the row is free to carry the tensor's place.
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i].first_row = int64_t(i);
  SB_TRY(const OpenShapes model, open_shapes(tensors, config));
  SB_TRY(const std::unique_ptr<Plan> plan, plan_of(*model.graph, {1, Pass::Logits::kLast, false}));

  std::vector<Group> groups;
  std::vector<bool> is_known(tensors.size());
  auto take = [&](TensorRole role, int32_t value, Group* into = nullptr) {
    const Value& v = plan->values()[size_t(value)];
    const size_t place = size_t(v.weight.first_row);
    if (v.kind != ValueKind::kWeight || is_known[place]) return;
    is_known[place] = true;
    if (into) {
      into->tensors.push_back(place);
    } else {
      groups.push_back({role, {place}});
    }
  };
  const Node* head = nullptr;  // the last product
  for (const Node& node : plan->nodes()) {
    if (std::holds_alternative<MatMul>(node.op)) head = &node;
    const Embed* embed = std::get_if<Embed>(&node.op);
    if (embed) take(embed->by_position ? TensorRole::kKept : TensorRole::kEmbedding, node.inputs[0]);
  }
  if (head) take(TensorRole::kEmbedding, head->inputs[1]);
  std::map<int32_t, Group> by_input;
  for (const Node& node : plan->nodes()) {
    if (std::holds_alternative<MatMul>(node.op)) take(TensorRole::kLinear, node.inputs[1], &by_input[node.inputs[0]]);
  }
  for (auto& [input, group] : by_input) {
    group.role = TensorRole::kLinear;
    if (!group.tensors.empty()) groups.push_back(std::move(group));
  }
  for (size_t i = 0; i < plan->values().size(); ++i) take(TensorRole::kKept, int32_t(i));
  return groups;
}

/// How `bits` store a matrix of K columns: planes, or rows of a type.
struct Storage {
  const PlaneFormat* planes = nullptr;
  Dtype dtype = Dtype::kF32;
};
Storage storage_of(TensorRole role, int bits, int64_t columns) {
  if (bits <= 4) return {plane_format(role == TensorRole::kEmbedding ? "coded4" : "coded" + std::to_string(bits)), Dtype::kPlanes};
  if (bits == 8 && columns % dtype_row(Dtype::kQ8_0).block == 0) return {nullptr, Dtype::kQ8_0};
  return {nullptr, bits == 32 ? Dtype::kF32 : Dtype::kF16};
}

/// What weights take: on the host, and of a device's own memory.
class WeightBytes {
 public:
  explicit WeightBytes(const Device& device) : device_(device) {}

  /// `layout`: of what a device keeps.
  void add(uint64_t n_bytes, const std::optional<RowLayout>& layout) {
    const uint64_t n_kept = layout ? device_.kept_bytes(*layout) : 0;
    kept_ += n_kept;
    if (!n_kept) host_ += block_bytes(n_bytes);
  }
  /// One that the host reads; a device has a copy of it in float32.
  void add_vector(uint64_t n_bytes, int64_t n) {
    add(n_bytes, std::nullopt);
    if (device_.holds_weights()) kept_ += uint64_t(n) * 4;
  }
  void add(Dtype dtype, const Shape& shape, uint64_t n_bytes) {
    if (shape.rank() < 2) return add_vector(n_bytes, shape.elements());
    add(n_bytes, device_layout(dtype, shape));
  }
  void add(const PlaneCode& code, int64_t n, int64_t k) {
    const int64_t rows = plane_rows(n), columns = plane_columns(k);
    add(uint64_t(rows * code.n_planes * columns / 8), plane_layout(rows, code.n_planes, columns));
    add_vector(2 * uint64_t(rows), rows);
    add_vector(2 * uint64_t(columns), columns);
    add_vector(plane_hadamard(columns) ? uint64_t(columns / 8) : 0, columns / 32);
    add(uint64_t(code.n_taps * code.n_planes) * 4, std::nullopt);  // a device has each filter once
  }

  uint64_t kept() const { return kept_; }
  uint64_t total() const { return host_ + kept_; }

 private:
  const Device& device_;
  uint64_t host_ = 0, kept_ = 0;
};

/// A model's tensors in another storage, and what they take.
struct Stored {
  std::vector<ShapedTensor> tensors;
  std::deque<PlaneMatrix> matrices;  // they do not move
  WeightBytes bytes;
};

Result<Stored> store_as(const std::vector<ShapedTensor>& tensors, const std::vector<Group>& groups, int bits, const Device& device) {
  Stored out{{}, {}, WeightBytes(device)};
  for (const Group& group : groups) {
    const ShapedTensor& first = tensors[group.tensors[0]];
    const Storage storage = group.role == TensorRole::kKept ? Storage{} : storage_of(group.role, bits, first.shape[-1]);
    PlaneMatrix* matrix = nullptr;
    if (storage.planes) {
      int64_t n_rows = 0;
      for (size_t i : group.tensors) n_rows += tensors[i].shape.rows();
      matrix = &out.matrices.emplace_back();
      matrix->n_rows = plane_rows(n_rows);
      matrix->n_columns = plane_columns(first.shape[-1]);
      matrix->segment = plane_segment(matrix->n_rows);
      matrix->hadamard = plane_hadamard(matrix->n_columns);
      matrix->sets[0].code = storage.planes->code;
      out.bytes.add(storage.planes->code, n_rows, first.shape[-1]);
    }
    int64_t first_row = 0;
    for (size_t i : group.tensors) {
      ShapedTensor t = tensors[i];
      if (group.role != TensorRole::kKept) {
        t.dtype = storage.dtype;
      } else if (bits >= 16) {
        t.dtype = bits == 32 ? Dtype::kF32 : Dtype::kF16;
      }
      t.planes = matrix;
      t.first_row = first_row;
      first_row += t.shape.rows();
      if (!matrix) {
        SB_TRY(const uint64_t n_bytes, dense_bytes(t.dtype, t.shape));
        out.bytes.add(t.dtype, t.shape, n_bytes);
      }
      out.tensors.push_back(std::move(t));
    }
  }
  return out;
}

/// Of two programs of a device.
RunBytes both(RunBytes a, RunBytes b) {
  return {std::max(a.activations, b.activations), std::max(a.scratch, b.scratch), a.program + b.program};
}

/// Tokens in the cache of a session whose context is full: its last token never enters it.
int64_t cached_tokens(int64_t context) { return std::max<int64_t>(1, context - 1); }

/// The most that any pass of such a session takes.
Result<RunBytes> measure_passes(const ModelGraph& graph, int64_t context, const Device& device) {
  RunBytes most;
  for (int64_t n_tokens : prefill_buckets()) {
    if (n_tokens > cached_tokens(context)) continue;
    for (Pass::Logits logits : {Pass::Logits::kNone, Pass::Logits::kLast}) {
      SB_TRY(const std::unique_ptr<Plan> plan, plan_of(graph, {n_tokens, logits, false}));
      most = both(most, device.measure(*plan, cached_tokens(context)));
    }
  }
  return most;
}

/// One layer of a stack over T tokens, by the rule of the header.
class StackPlan {
 public:
  StackPlan(const ArchitectureStack& stack, int bits, int64_t n_tokens) : s_(stack), bits_(bits), plan_(n_tokens) {
    Ref x = plan_.input("x", s_.hidden);
    x = add(plan_, x, attend(norm(x)));
    if (s_.cross_tokens) x = add(plan_, x, attend(norm(x)));
    const Ref h = norm(x);
    Ref inner = product(h, s_.ffn);
    inner = s_.is_gated ? glu(plan_, inner, product(h, s_.ffn), {}) : activate(plan_, inner, {});
    x = add(plan_, x, product(inner, s_.hidden));
    plan_.output("y", x);
    if (s_.vocab) plan_.output("logits", product(last_row(plan_, x), s_.vocab, TensorRole::kEmbedding));
  }
  const Plan& plan() const { return plan_; }

 private:
  Ref norm(Ref x) {
    const Ref vector = plan_.constant(std::vector<float>(size_t(s_.hidden)));
    return layer_norm(plan_, x, vector, vector, {});
  }
  Ref product(Ref x, int64_t n_rows, TensorRole role = TensorRole::kLinear) {
    const int64_t k = plan_.shape(x)[1];
    const Storage storage = storage_of(role, bits_, k);
    TensorView w;
    w.dtype = storage.dtype;
    w.shape = {n_rows, k};
    if (storage.planes) {
      PlaneMatrix& matrix = matrices_.emplace_back();
      matrix.n_rows = plane_rows(n_rows);
      matrix.n_columns = plane_columns(k);
      w.planes = &matrix;
    }
    return matmul(plan_, x, plan_.weight(w));
  }
  Ref attend(Ref h) {
    const Ref q = product(h, s_.heads * s_.head_dim), k = product(h, s_.kv_heads * s_.head_dim), v = product(h, s_.kv_heads * s_.head_dim);
    Attention op;
    op.n_heads = int32_t(s_.heads);
    op.n_kv_heads = int32_t(s_.kv_heads);
    op.head_dim = int32_t(s_.head_dim);
    cache_write(plan_, k, {0, KvPart::kKeys});
    cache_write(plan_, v, {0, KvPart::kValues});
    return product(attention(plan_, q, op), s_.hidden);
  }

  const ArchitectureStack& s_;
  int bits_;
  Plan plan_;
  std::deque<PlaneMatrix> matrices_;
};

Result<RunBytes> measure_stack(const ArchitectureStack& stack, int bits, int64_t context, const Device& device) {
  RunBytes most;
  auto measure = [&](int64_t n_tokens, int64_t attended) -> Status {
    const StackPlan layer(stack, bits, n_tokens);
    SB_OK(layer.plan().finish());
    most = both(most, device.measure(layer.plan(), attended));
    return {};
  };
  const int64_t n_all = stack.tokens ? stack.tokens : context;
  if (!stack.is_decoder) {
    SB_OK(measure(n_all, n_all));
    return most;
  }
  for (int64_t n_tokens : prefill_buckets()) {
    if (n_tokens <= cached_tokens(context)) SB_OK(measure(n_tokens, std::max(cached_tokens(context), stack.cross_tokens)));
  }
  return most;
}

/// Bits of keys and of values for each choice of the user.
struct KvBits {
  int choice, keys, values;
};
constexpr KvBits kKvBits[] = {{8, 8, 8}, {4, 4, 4}, {3, 4, 2}, {2, 2, 2}};
constexpr int64_t kKvSinks = 4, kKvWindow = 64, kKvBlock = 32;  // tokens (docs/formats.md §3.4, .5)

std::vector<ShapedTensor> tensors_of(const WeightStore& weights) {
  std::vector<ShapedTensor> out;
  for (const auto& t : weights.tensors()) {
    if (t->array_of.empty()) out.push_back({t->name, t->dtype, t->shape, t->planes, t->first_row});
  }
  return out;
}

std::vector<ShapedTensor> tensors_of(const Architecture& architecture, std::vector<Group>& groups) {
  std::vector<ShapedTensor> out;
  for (const ArchitectureTensor& row : architecture.tensors) {
    for (int64_t layer = 0; layer < row.times; ++layer) {
      Group group{row.role, {}};
      std::string_view names = row.names;
      for (size_t i = 0; !names.empty(); ++i) {
        const size_t comma = std::min(names.find(','), names.size());
        std::string name(names.substr(0, comma));
        names.remove_prefix(std::min(comma + 1, names.size()));
        if (const size_t hash = name.find('#'); hash != std::string::npos) name.replace(hash, 1, std::to_string(layer));
        group.tensors.push_back(out.size());
        const bool is_vector = row.columns == 0;
        out.push_back(
            {std::move(name), is_vector ? Dtype::kF32 : Dtype::kF16, is_vector ? Shape{row.rows[i]} : Shape{row.rows[i], row.columns}});
      }
      groups.push_back(std::move(group));
    }
  }
  return out;
}

int64_t parameters_of(const std::vector<ShapedTensor>& tensors) {
  int64_t n = 0;
  for (const ShapedTensor& t : tensors) n += t.shape.elements();
  return n;
}

/// Adds up what is filled in.
void settle_peak(MemoryPlan& plan, uint64_t load_bytes) {
  const uint64_t running = plan.weight_bytes + plan.bytes(Tag::kKv) + plan.bytes(Tag::kActivations) + plan.bytes(Tag::kScratch);
  plan.peak_bytes = std::max({load_bytes, running, plan.bytes(Tag::kWeights)}) + plan.bytes(Tag::kHost);
}

/// A session at a full context.
void add_run(MemoryPlan& plan, uint64_t kv_bytes, const RunBytes& run, const Device& device) {
  plan.by_tag[size_t(Tag::kKv)] = kv_bytes;
  plan.by_tag[size_t(Tag::kActivations)] = run.activations;
  plan.by_tag[size_t(Tag::kScratch)] = run.scratch + run.program;
  if (device.holds_weights()) plan.device_bytes += kv_bytes + run.activations + run.scratch + run.program;
}

/// Cache, activations and scratch of a model that a family knows, and its context.
Status add_session(MemoryPlan& plan, const ModelGraph& graph, const Device& device) {
  const DecoderShape shape = graph.shape();
  plan.options.context = session_context(shape, plan.options.context);
  SB_TRY(const RunBytes run, measure_passes(graph, plan.options.context, device));
  const int64_t n_tokens = cached_tokens(plan.options.context);
  uint64_t kv = plan.options.kv_bits == 16 ? device.kv_bytes(shape.n_layers, shape.n_kv_heads * shape.head_dim, n_tokens) : 0;
  if (!kv) kv = kv_cache_bytes(shape.n_layers, shape.n_kv_heads, shape.head_dim, n_tokens, plan.options.kv_bits);
  add_run(plan, kv, run, device);
  return {};
}

/// A load of weights that are in no file yet: what neighbours share (LoadTuning).
void add_load(MemoryPlan& plan) {
  const uint64_t staging = std::min(plan.weight_bytes, LoadTuning().most_shared_bytes);
  plan.by_tag[size_t(Tag::kStaging)] = staging;
  settle_peak(plan, plan.weight_bytes + staging);
}

/// GPT-2's folders keep their matrices [K, N], and the family turns them when it opens; here only the shapes can turn, and the
/// configuration says that it is done. `most_bytes`: of one that turns, which is there twice meanwhile.
Config turned(const Config& config, std::vector<ShapedTensor>& tensors, uint64_t& most_bytes) {
  if (config.architecture() != "gpt2" || config.gguf_conventions()) return config;
  for (ShapedTensor& t : tensors) {
    const bool is_turned = std::ranges::any_of(std::initializer_list<const char*>{".c_attn.weight", ".c_proj.weight", ".c_fc.weight"},
                                               [&](const char* end) { return t.name.ends_with(end); });
    if (!is_turned || t.shape.rank() != 2) continue;
    t.shape = {t.shape[1], t.shape[0]};
    most_bytes = std::max(most_bytes, block_bytes(uint64_t(t.shape.rows() * dtype_bytes(t.dtype, t.shape[-1]))));
  }
  Json values = config.values();
  values["quantization_config"]["gguf_conventions"] = true;
  return Config(config.container(), config.file(), std::move(values));
}

}  // namespace

PlanOptions PlanOptions::of(const Options& options) {
  auto number = [&](const char* name) {
    const std::string text = options.text(name);
    int n = 0;  // "file"
    std::from_chars(text.data(), text.data() + text.size(), n);
    return n;
  };
  return {number("bits"), options.integer("context"), number("kv_bits")};
}

double MemoryPlan::bpw() const { return n_parameters ? 8.0 * double(weight_bytes) / double(n_parameters) : 0.0; }

std::string MemoryPlan::json() const {
  OrderedJson j;
  j["name"] = name;
  j["n_parameters"] = n_parameters;
  j["bits"] = options.bits ? std::to_string(options.bits) : "file";
  j["bpw"] = bpw();
  j["context"] = options.context;
  j["kv_bits"] = options.kv_bits;
  j["kv_is_planned"] = options.kv_bits != 16;  // no engine to check it against yet
  j["by_rule"] = by_rule;
  for (size_t i = 0; i < kTagCount; ++i) j["by_tag"][tag_name(Tag(i))] = by_tag[i];
  j["peak_bytes"] = peak_bytes;
  j["device_bytes"] = device_bytes;
  j["download_bytes"] = download_bytes;
  return json_text(j);
}

uint64_t plane_blocks_bytes(const PlaneCode& code, int64_t n, int64_t k) {
  const uint64_t rows = uint64_t(plane_rows(n)), columns = uint64_t(plane_columns(k));
  const uint64_t planes = plane_set_bytes(code.n_planes, n, k) - 2 * rows - 2 * columns;
  const uint64_t signs = plane_hadamard(int64_t(columns)) ? columns / 8 : 0;
  return block_bytes(planes) + block_bytes(2 * rows) + block_bytes(2 * columns) + block_bytes(signs) +
         block_bytes(uint64_t(code.n_taps * code.n_planes) * 4);
}

uint64_t kv_cache_bytes(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, int64_t n_tokens, int bits) {
  const uint64_t half_token = uint64_t(n_layers * n_kv_heads * head_dim) * 2 * 2;  // bytes of keys and values in float16
  if (bits == 16) return uint64_t((n_tokens + kPageTokens - 1) / kPageTokens) * kPageTokens * half_token;
  const KvBits* choice = std::ranges::find(kKvBits, bits, &KvBits::choice);
  SB_ASSERT(choice != std::end(kKvBits));
  const int64_t n_half = std::min(n_tokens, kKvSinks + kKvWindow);
  const int64_t n_coded = (n_tokens - n_half + kKvBlock - 1) / kKvBlock * kKvBlock;
  // Planes, and a float16 scale each for keys and values of a head.
  const uint64_t coded_token = uint64_t(n_layers * n_kv_heads * (head_dim * (choice->keys + choice->values) + 2 * 16)) / 8;
  return uint64_t(n_half) * half_token + uint64_t(n_coded) * coded_token;
}

Result<MemoryPlan> plan_architecture(std::string_view name, const PlanOptions& options, const Device& device) {
  const Architecture* found = nullptr;
  std::string known;
  for (const Architecture& row : kArchitectures) {
    if (name == row.name) found = &row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  if (!found) {
    return err(Code::kArgumentInvalid, {{"what", "There is no architecture \"" + std::string(name) + "\""},
                                        {"fix", "Known: " + known + "; or give a GGUF file or a folder."}});
  }
  if (options.bits == 0)
    return err(Code::kOptionInvalid, {{"option", "bits"}, {"value", "file"}, {"expected", "2, 3, 4, 8, 16 or 32 for an architecture"}});

  MemoryPlan plan;
  plan.name = found->title;
  plan.options = options;
  std::vector<Group> groups;
  const std::vector<ShapedTensor> tensors = tensors_of(*found, groups);
  plan.n_parameters = parameters_of(tensors);
  SB_TRY(const Stored stored, store_as(tensors, groups, options.bits, device));
  plan.weight_bytes = plan.by_tag[size_t(Tag::kWeights)] = plan.download_bytes = stored.bytes.total();
  plan.device_bytes = stored.bytes.kept();
  if (*found->config) {
    SB_TRY(Json values, json_parse(found->config, found->name));
    SB_TRY(const OpenShapes model, open_shapes(stored.tensors, Config(Container::kFolder, found->name, std::move(values))));
    SB_OK(add_session(plan, *model.graph, device));
  } else {
    plan.by_rule = true;
    DecoderShape limit;
    limit.context = found->context;
    const int64_t context = plan.options.context = session_context(limit, options.context);
    RunBytes most;
    uint64_t kv = 0;
    for (const ArchitectureStack& s : found->stacks) {
      SB_TRY(const RunBytes run, measure_stack(s, options.bits, context, device));
      most = both(most, run);
      if (s.is_decoder) kv += kv_cache_bytes(s.layers, s.kv_heads, s.head_dim, cached_tokens(context), options.kv_bits);
      if (s.cross_tokens) kv += kv_cache_bytes(s.layers, s.kv_heads, s.head_dim, s.cross_tokens, options.kv_bits);
    }
    add_run(plan, kv, most, device);
  }
  add_load(plan);
  return plan;
}

Result<MemoryPlan> plan_model(const ModelFiles& shapes, const LoadCost& cost, const PlanOptions& options, const Device& device) {
  std::vector<ShapedTensor> tensors = tensors_of(shapes.weights);
  uint64_t turning_bytes = 0;
  const Config config = turned(shapes.config, tensors, turning_bytes);
  WeightBytes as_they_are(device);
  uint64_t loaded_bytes = 0, largest_bytes = 0;
  for (const auto& t : shapes.weights.tensors()) {
    SB_TRY(const uint64_t n, dense_bytes(t->dtype, t->shape));
    loaded_bytes += n;
    largest_bytes = std::max(largest_bytes, n);
    if (t->shape.rank() < 2) {
      as_they_are.add_vector(n, t->shape.elements());
    } else {
      as_they_are.add(n, device_layout(*t));
    }
  }
  const uint64_t n_bytes = as_they_are.total();
  if (turning_bytes > 0 && device.holds_weights()) turning_bytes = largest_bytes;  // each goes there once all have turned
  MemoryPlan plan;
  plan.name = shapes.file;
  plan.options = options;
  plan.n_parameters = parameters_of(tensors);
  if (options.bits == 0) {
    plan.device_bytes = as_they_are.kept();
    plan.weight_bytes = n_bytes;
    plan.by_tag[size_t(Tag::kWeights)] = n_bytes + turning_bytes;
    plan.by_tag[size_t(Tag::kStaging)] = cost.staging_bytes;
    plan.download_bytes = cost.download_bytes;
    SB_TRY(const OpenShapes model, open_shapes(tensors, config));
    SB_OK(add_session(plan, *model.graph, device));
    settle_peak(plan, cost.most_bytes + std::max(n_bytes, loaded_bytes) - loaded_bytes);
    return plan;
  }
  // A matrix of planes is taken for what it stands for.
  for (ShapedTensor& t : tensors) {
    if (t.dtype == Dtype::kPlanes) t = {t.name, Dtype::kF16, t.shape};
  }
  SB_TRY(const std::vector<Group> groups, groups_of(tensors, config));
  SB_TRY(const Stored stored, store_as(tensors, groups, options.bits, device));
  plan.weight_bytes = plan.by_tag[size_t(Tag::kWeights)] = stored.bytes.total();
  plan.device_bytes = stored.bytes.kept();
  plan.download_bytes = plan.weight_bytes + cost.download_bytes - std::min(n_bytes, cost.download_bytes);  // settings and tokenizer stay
  SB_TRY(const OpenShapes model, open_shapes(stored.tensors, config));
  SB_OK(add_session(plan, *model.graph, device));
  add_load(plan);
  return plan;
}

}  // namespace sb
