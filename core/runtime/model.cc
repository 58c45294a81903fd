#include "runtime/model.h"

#include <algorithm>
#include <set>
#include <utility>

#include "formats/planes.h"
#include "io/plane_store.h"
#include "runtime/session.h"
#include "runtime/tokenizer_file.h"

namespace sb {
namespace {

// A session holds at most this many tokens unless the caller asks for more: models state 128 K and a tab has 2 GB.
constexpr int64_t kDefaultContext = 4096;

// Tokens that end a turn, by the names that instruction-tuned models give them; counted as ends when they are control tokens of a
// vocabulary whose file names one end only (GGUF).
constexpr const char* kTurnEnds[] = {"<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|eom_id|>"};

/// A token's text in tokenizer_config.json: a string, or {"content": …}.
std::string token_text(const Json& config, std::string_view key) {
  const Json* v = json_find(config, key);
  if (v && v->is_object()) return json_string(*v, "content").value_or("");
  return json_string(config, key).value_or("");
}

}  // namespace

int64_t session_context(const DecoderShape& shape, int64_t wanted) {
  return std::min(shape.context, wanted > 0 ? wanted : kDefaultContext);
}

void bring_model_to(Loading& loading, Device& device) {
  loading.bring_to(device, find_rework, [&device](ModelFiles shapes) {
    // What is wrong with the model shows when it opens.
    const Family* family = nullptr;
    const Result<std::unique_ptr<ModelGraph>> graph = open_model(shapes.config, shapes.weights, &family);
    if (!graph) return;
    for (const int64_t n : prefill_buckets()) {
      Plan plan(n);
      (*graph)->build(plan, {n, Pass::Logits::kLast, false});
      if (plan.finish()) device.prepare(plan, true);
    }
  });
}

Result<std::unique_ptr<Model>> Model::open(ModelFiles files, std::shared_ptr<Device> device, int64_t context,
                                           std::optional<Result<Tokenizer>> made) {
  std::unique_ptr<Model> model(new Model);
  Model& m = *model;
  m.files_ = std::make_unique<ModelFiles>(std::move(files));
  m.device_ = std::move(device);
  ModelFiles& f = *m.files_;
  SB_TRY(m.graph_, open_model(f.config, f.weights, &m.family_));
  m.shape_ = m.graph_->shape();
  m.context_ = session_context(m.shape_, context);

  // A first plan finds what is missing or misshapen now, not at the first token.
  SB_TRY(std::unique_ptr<Plan> probe, m.plan({1, Pass::Logits::kLast, false}));
  for (const Node& node : probe->nodes()) {
    const Embed* op = std::get_if<Embed>(&node.op);
    const int64_t needed = op && op->by_position ? m.context_ : m.shape_.vocab;
    if (!op) continue;
    const Shape& table = probe->values()[size_t(node.inputs[0])].shape;
    if (table[0] < needed)
      return err(Code::kShapeMismatch,
                 {{"what", "The embedding"}, {"shape", table.text()}, {"expected", "at least " + std::to_string(needed) + " rows"}});
  }
  for (const Output& output : probe->outputs()) {
    const Shape& logits = probe->values()[size_t(output.value)].shape;
    if (logits[1] < m.shape_.vocab)
      return err(Code::kShapeMismatch,
                 {{"what", "The head"}, {"shape", logits.text()}, {"expected", "at least " + std::to_string(m.shape_.vocab) + " columns"}});
  }
  SB_OK(m.start_life(std::move(probe)));

  if (f.vocab) {
    auto tokenizer = Tokenizer::from_gguf(vocab_of(std::move(*f.vocab)));
    if (!tokenizer) return err(tokenizer.error().with({"file", f.file}));
    m.tokenizer_ = std::move(*tokenizer);
    f.vocab.reset();
  } else if (!f.tokenizer_json.empty()) {
    auto tokenizer = made ? *std::move(made) : Tokenizer::from_json(f.tokenizer_json);
    if (!tokenizer) return err(tokenizer.error().with({"file", f.file}));
    m.tokenizer_ = std::move(*tokenizer);
    f.tokenizer_json = {};
  }
  if (!f.chat_template.empty()) {
    SB_TRY(ChatTemplate chat, ChatTemplate::parse(f.chat_template));
    m.chat_template_ = std::move(chat);
  }
  m.read_specials();
  return model;
}

std::vector<int32_t> end_ids(const ModelFiles& f, const Tokenizer* tokenizer, int64_t n_vocab) {
  std::vector<int32_t> ends;
  auto add_end = [&](int64_t id) {
    if (id >= 0 && id < n_vocab && std::find(ends.begin(), ends.end(), int32_t(id)) == ends.end()) ends.push_back(int32_t(id));
  };
  for (int64_t id : f.config.integers("eos_token_id")) add_end(id);
  const Config generation(Container::kFolder, f.file, f.generation_config.is_object() ? f.generation_config : Json::object());
  for (int64_t id : generation.integers("eos_token_id")) add_end(id);
  if (!tokenizer) return ends;
  if (f.container == Container::kGguf) {
    if (auto eos = tokenizer->eos()) add_end(*eos);
    for (const char* name : kTurnEnds) {
      if (auto id = tokenizer->id_of(name); id && tokenizer->is_special(*id)) add_end(*id);
    }
  } else if (!(f.config.gguf_conventions() && generation.has("eos_token_id"))) {
    // A tokenizer.json names no end, so this one is a guess by usual names. A folder made from a GGUF lists its ends: it could only add
    // one.
    if (auto eos = tokenizer->eos()) add_end(*eos);
  }
  return ends;
}

void Model::read_specials() {
  const ModelFiles& f = *files_;
  ends_ = end_ids(f, tokenizer(), shape_.vocab);
  if (!tokenizer_) return;
  if (f.container == Container::kGguf) {
    if (auto id = tokenizer_->bos()) bos_text_ = tokenizer_->token(*id);
    if (auto id = tokenizer_->eos()) eos_text_ = tokenizer_->token(*id);
  } else {
    bos_text_ = token_text(f.tokenizer_config, "bos_token");
    eos_text_ = token_text(f.tokenizer_config, "eos_token");
  }
}

bool Model::is_end(int32_t id) const { return std::find(ends_.begin(), ends_.end(), id) != ends_.end(); }

Result<std::string> Model::chat_prompt(const OrderedJson& request) const {
  if (!chat_template_) return err(Code::kTemplateMissing, {{"file", files_->file}});
  const OrderedJson* messages = json_find(request, "messages");
  if (!messages || !messages->is_array() || messages->empty()) {
    return err(Code::kArgumentInvalid, {{"what", "\"messages\" must be a list with at least one {role, content}"},
                                        {"fix", "Give [{\"role\": \"user\", \"content\": \"…\"}]."}});
  }
  for (const OrderedJson& message : *messages) {
    if (!json_string(message, "role")) {
      return err(Code::kArgumentInvalid,
                 {{"what", "A message has no \"role\""}, {"fix", "Every message is an object with role and content."}});
    }
  }
  OrderedJson context = request;
  if (!context.contains("add_generation_prompt")) context["add_generation_prompt"] = true;
  context["bos_token"] = bos_text_;
  context["eos_token"] = eos_text_;
  return chat_template_->render(context);
}

Status Model::start_life(std::unique_ptr<Plan> first) {
  SB_TRY(programs_[std::make_tuple(int64_t(1), Pass::Logits::kLast, false)], device_->compile(std::move(first)));
  device_life_ = device_->life();
  ++life_;
  return {};
}

Result<Model::Mend> Model::mend() {
  if (life() != 0) return Mend::kNothing;
  programs_.clear();
  retired_.clear();
  if (const Result<bool> is_open = device_->reopen(); is_open) {
    if (!*is_open) return Mend::kWait;
  } else {
    if (!make_other_) return std::unexpected(is_open.error());
    SB_OK(fall_back(is_open.error()));
  }
  return Mend::kWeights;
}

Status Model::fall_back(const Error& why) {
  why_here_ = why.message();
  device_life_ = 0;
  SB_TRY(device_, std::exchange(make_other_, nullptr)());
  return {};
}

Loading Model::reload() const {
  const PlaneSets sets = planes() == std::string_view("base") ? PlaneSets::kBase : PlaneSets::kFull;
  Loading loading = files_->container == Container::kGguf ? Loading::gguf(files_->file) : Loading::folder(files_->file, {}, sets);
  bring_model_to(loading, *device_);
  return loading;
}

Status Model::restore(ModelFiles files) {
  auto fresh = std::make_unique<ModelFiles>(std::move(files));
  SB_TRY(std::unique_ptr<ModelGraph> graph, open_model(fresh->config, fresh->weights, &family_));
  if (graph->shape() != shape_) return err(Code::kModelChanged, {{"file", fresh->file}});
  programs_.clear();
  retired_.clear();
  graph_ = std::move(graph);
  files_ = std::move(fresh);
  files_->vocab.reset();
  files_->tokenizer_json = {};
  SB_TRY(std::unique_ptr<Plan> first, plan({1, Pass::Logits::kLast, false}));
  Status status = start_life(std::move(first));
  if (status || status.error().code() == Code::kDeviceLost) return {};
  if (!make_other_) return status;
  return fall_back(status.error());
}

Result<std::unique_ptr<Plan>> Model::plan(const Pass& pass) const {
  auto plan = std::make_unique<Plan>(pass.n_tokens);
  graph_->build(*plan, pass);
  if (Status status = plan->finish(); !status) return err(status.error().with({"file", files_->file}));
  return plan;
}

Result<Program*> Model::program(const Pass& pass) {
  std::unique_ptr<Program>& known = programs_[std::make_tuple(pass.n_tokens, pass.logits, pass.hidden_states)];
  if (!known) {
    SB_TRY(std::unique_ptr<Plan> made, plan(pass));
    SB_TRY(known, device_->compile(std::move(made)));
  }
  return known.get();
}

Result<Program*> Model::run(const Pass& pass, const Scalars& scalars) {
  SB_ASSERT(scalars.ids.empty() ? pass.n_tokens == 1 : int64_t(scalars.ids.size()) == pass.n_tokens);
  retired_.clear();
  SB_TRY(Program * compiled, program(pass));
  SB_OK(scalars.kv->reserve(scalars.position + pass.n_tokens));
  SB_OK(device_->submit(*compiled, scalars));
  return compiled;
}

Result<Loading> Model::refinement() const {
  if (!has_refinement()) return err(Code::kRefinementMissing, {{"file", files_->file}});
  Loading loading = Loading::refinement(files_->file, *files_->index, refined_matrices(weights()));
  loading.bring_to(*device_);
  return loading;
}

Status Model::refine(ModelFiles files) {
  if (!files_->index) return err(Code::kRefinementMissing, {{"file", files_->file}});
  SB_OK(attach_refinement(*files_->index, std::move(files.weights), files_->weights));
  retire_programs();
  return {};
}

void Model::retire_programs() {
  if (!device_->holds_weights()) return;
  for (auto& [pass, program] : programs_) retired_.push_back(std::move(program));
  programs_.clear();
  // Nobody waits for one of them: what they hold on the device is free at once.
  if (device_->acquire(this)) {
    retired_.clear();
    device_->release(this);
  }
}

uint64_t Model::drop_refinement(uint64_t n_bytes) {
  if (!files_->index || refined_matrices(weights()).empty()) return 0;
  retire_programs();
  return sb::drop_refinement(*files_->index, files_->weights, n_bytes);
}

bool Model::has_refinement() const {
  return files_->index && std::ranges::any_of(files_->index->shards, [](const ShardEntry& shard) { return shard.is_refinement; });
}

const char* Model::planes() const {
  if (!has_refinement()) return "full";
  const size_t n_refined = refined_matrices(weights()).size();
  const auto n_refinable = size_t(std::ranges::count_if(files_->index->matrices, [](const MatrixEntry& m) { return !m.refine.empty(); }));
  return n_refined == 0 ? "base" : n_refined < n_refinable ? "partial" : "full";
}

namespace {

/// Bytes of a tensor of the model: its own, or its rows' part of its matrix.
double tensor_bytes(const WeightTensor& tensor) {
  if (!tensor.planes) return double(tensor.n_bytes());
  const PlaneMatrix& m = *tensor.planes;
  double shared = m.signs ? double(m.n_columns) / 8 : 0, row = 0;
  for (int set = 0; set < m.n_sets; ++set) {
    const PlaneSet& s = m.sets[set];
    row += double(s.code.n_planes) * double(m.n_columns) / 8 + (s.row_scale.floats ? 4 : 2);
    shared += (s.column_scale ? 2.0 * double(m.n_columns) : 0) + 4.0 * s.code.n_planes * s.code.n_taps;
  }
  return double(tensor.shape[0]) * (row + shared / double(m.n_rows));
}

/// The bits that a tensor's name of its type stands for: "coded3", "coded2+coded2", "Q4_1".
std::string tensor_format(const WeightTensor& tensor) {
  if (!tensor.planes) return dtype_name(tensor.dtype);
  std::string name = plane_format_name(tensor.planes->sets[0].code);
  if (tensor.planes->n_sets > 1) name += "+" + plane_format_name(tensor.planes->sets[1].code);
  return name;
}

}  // namespace

WeightReport Model::weight_report() const {
  // Linear layers are what is multiplied, but for the matrix that makes logits; the other matrices are tables that ids or positions index.
  std::set<const WeightTensor*> linears;
  if (auto made = plan({1, Pass::Logits::kLast, false})) {
    const Plan& p = **made;
    for (const Node& node : p.nodes()) {
      if (!std::holds_alternative<MatMul>(node.op) || p.values()[size_t(node.output)].shape[1] >= shape_.vocab) continue;
      const TensorView& w = p.values()[size_t(node.inputs[1])].weight;
      // One product may serve several neighbouring tensors of a matrix.
      for (const auto& tensor : weights().tensors()) {
        const bool is_inside = w.planes  ? tensor->planes == w.planes
                               : w.there ? tensor->there.get() == w.there
                                         : tensor->block.data() == w.data && w.data;
        if (is_inside) linears.insert(tensor.get());
      }
    }
  }
  double parameters[2] = {}, bytes[2] = {};  // linears, embeddings
  int64_t n_parameters = 0;
  for (const auto& tensor : weights().tensors()) {
    if (!tensor->array_of.empty()) continue;
    n_parameters += tensor->shape.elements();
    if (tensor->shape.rank() < 2) continue;
    const bool is_embedding = !linears.contains(tensor.get());
    parameters[is_embedding] += double(tensor->shape.elements());
    bytes[is_embedding] += tensor_bytes(*tensor);
  }
  auto bpw = [](double n_bytes, double n) { return n > 0 ? 8 * n_bytes / n : 0.0; };
  return {weights().n_bytes(), n_parameters, bpw(double(weights().n_bytes()), double(n_parameters)), bpw(bytes[0], parameters[0]),
          bpw(bytes[1], parameters[1])};
}

Result<std::string> Model::profile_json() {
  SB_TRY(Program * decode, program({1, Pass::Logits::kLast, false}));
  return device_->profile(*decode);
}

std::string Model::info_json() const {
  int64_t n_parameters = 0, n_tensors = 0;
  for (const auto& tensor : weights().tensors()) {
    if (!tensor->array_of.empty()) continue;  // arrays of a matrix, whose tensors count
    n_parameters += tensor->shape.elements();
    ++n_tensors;
  }
  OrderedJson j;
  const Json* name = files_->config.find(files_->container == Container::kGguf ? "general.name" : "_name_or_path");
  j["name"] = name && name->is_string() && !name->get<std::string>().empty() ? name->get<std::string>() : files_->file;
  j["file"] = files_->file;
  j["container"] = files_->container == Container::kGguf ? "gguf" : "folder";
  j["family"] = family_->name;
  j["architecture"] = files_->config.architecture();
  j["layers"] = shape_.n_layers;
  j["hidden"] = shape_.hidden;
  j["heads"] = shape_.n_heads;
  j["kv_heads"] = shape_.n_kv_heads;
  j["head_dim"] = shape_.head_dim;
  j["vocab"] = shape_.vocab;
  j["context"] = context_;
  j["context_of_model"] = shape_.context;
  j["has_tokenizer"] = tokenizer_.has_value();
  j["has_chat_template"] = chat_template_.has_value();
  j["n_tensors"] = n_tensors;
  j["n_parameters"] = n_parameters;
  j["weight_bytes"] = weights().n_bytes();
  j["bpw"] = n_parameters ? 8.0 * double(weights().n_bytes()) / double(n_parameters) : 0.0;
  j["planes"] = planes();
  j["has_refinement"] = has_refinement();
  j["end_ids"] = ends_;
  j["device"] = device_->name();
  j["device_why"] = why_here_;
  return json_text(j);
}

std::string Model::tensors_json() const {
  OrderedJson list = OrderedJson::array();
  for (const auto& tensor : weights().tensors()) {
    if (!tensor->array_of.empty()) continue;
    const double n_bytes = tensor_bytes(*tensor);
    OrderedJson j;
    j["name"] = tensor->name;
    j["dtype"] = tensor_format(*tensor);
    j["shape"] = OrderedJson::array();
    for (int i = 0; i < tensor->shape.rank(); ++i) j["shape"].push_back(tensor->shape[i]);
    j["n_bytes"] = int64_t(n_bytes);
    j["bpw"] = tensor->shape.elements() ? 8.0 * n_bytes / double(tensor->shape.elements()) : 0.0;
    list.push_back(std::move(j));
  }
  return json_text(list);
}

}  // namespace sb
