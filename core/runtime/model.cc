#include "runtime/model.h"

#include <algorithm>

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

Result<std::unique_ptr<Model>> Model::open(ModelFiles files, std::shared_ptr<Device> device, int64_t context) {
  std::unique_ptr<Model> model(new Model);
  Model& m = *model;
  m.files_ = std::make_unique<ModelFiles>(std::move(files));
  m.device_ = std::move(device);
  ModelFiles& f = *m.files_;
  SB_TRY(m.graph_, open_model(f.config, f.weights, &m.family_));
  m.shape_ = m.graph_->shape();
  m.context_ = context > 0 ? std::min(context, m.shape_.context) : std::min(m.shape_.context, kDefaultContext);

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
  SB_TRY(m.programs_[std::make_tuple(int64_t(1), Pass::Logits::kLast, false)], m.device_->compile(std::move(probe)));

  if (f.vocab) {
    auto tokenizer = Tokenizer::from_gguf(vocab_of(std::move(*f.vocab)));
    if (!tokenizer) return err(tokenizer.error().with({"file", f.file}));
    m.tokenizer_ = std::move(*tokenizer);
    f.vocab.reset();
  } else if (!f.tokenizer_json.empty()) {
    auto tokenizer = Tokenizer::from_json(f.tokenizer_json);
    if (!tokenizer) return err(tokenizer.error().with({"file", f.file}));
    m.tokenizer_ = std::move(*tokenizer);
    f.tokenizer_json = {};
  }
  if (!f.chat_template.empty()) {
    SB_TRY(ChatTemplate chat, ChatTemplate::parse(f.chat_template));
    m.chat_template_ = std::move(chat);
  }
  SB_OK(m.read_ends());
  return model;
}

Status Model::read_ends() {
  const ModelFiles& f = *files_;
  auto add_end = [&](int64_t id) {
    if (id >= 0 && id < shape_.vocab && std::find(ends_.begin(), ends_.end(), int32_t(id)) == ends_.end()) ends_.push_back(int32_t(id));
  };
  for (int64_t id : f.config.integers("eos_token_id")) add_end(id);
  const Config generation(Container::kFolder, f.file, f.generation_config.is_object() ? f.generation_config : Json::object());
  for (int64_t id : generation.integers("eos_token_id")) add_end(id);
  if (!tokenizer_) return {};
  if (auto eos = tokenizer_->eos()) add_end(*eos);
  if (f.container == Container::kGguf) {
    for (const char* name : kTurnEnds) {
      if (auto id = tokenizer_->id_of(name); id && tokenizer_->is_special(*id)) add_end(*id);
    }
    if (auto id = tokenizer_->bos()) bos_text_ = tokenizer_->token(*id);
    if (auto id = tokenizer_->eos()) eos_text_ = tokenizer_->token(*id);
  } else {
    bos_text_ = token_text(f.tokenizer_config, "bos_token");
    eos_text_ = token_text(f.tokenizer_config, "eos_token");
  }
  return {};
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

Result<Program*> Model::run(const Pass& pass, std::span<const int32_t> ids, int64_t position, KvPages& kv) {
  SB_ASSERT(int64_t(ids.size()) == pass.n_tokens);
  SB_TRY(Program * compiled, program(pass));
  SB_OK(kv.reserve(position + pass.n_tokens));
  SB_OK(device_->submit(*compiled, {ids, int32_t(position), &kv}));
  return compiled;
}

std::string Model::info_json() const {
  int64_t n_parameters = 0;
  for (const auto& tensor : weights().tensors()) n_parameters += tensor->shape.elements();
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
  j["n_tensors"] = weights().tensors().size();
  j["n_parameters"] = n_parameters;
  j["weight_bytes"] = weights().n_bytes();
  j["bpw"] = n_parameters ? 8.0 * double(weights().n_bytes()) / double(n_parameters) : 0.0;
  j["end_ids"] = ends_;
  j["device"] = device_->name();
  return json_text(j);
}

std::string Model::tensors_json() const {
  OrderedJson list = OrderedJson::array();
  for (const auto& tensor : weights().tensors()) {
    OrderedJson j;
    j["name"] = tensor->name;
    j["dtype"] = dtype_name(tensor->dtype);
    j["shape"] = OrderedJson::array();
    for (int i = 0; i < tensor->shape.rank(); ++i) j["shape"].push_back(tensor->shape[i]);
    j["n_bytes"] = tensor->block.size();
    j["bpw"] = tensor->shape.elements() ? 8.0 * double(tensor->block.size()) / double(tensor->shape.elements()) : 0.0;
    list.push_back(std::move(j));
  }
  return json_text(list);
}

}  // namespace sb
