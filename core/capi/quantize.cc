// The C API's second half: quantising and evaluation. Brings runtime and quantize together, which do not know each other. The WebAssembly
// module that answers in a page is linked without this file (wasm.cmake).
#include "capi/handles.h"
#include "option_tables.h"
#include "quantize/evaluate.h"
#include "quantize/folder_quantizer.h"
#include "runtime/folder_texts.h"
#include "runtime/options.h"

using namespace sb;

struct sb_quantizer : Scratch {
  bool keep(uint64_t offset, std::span<const std::byte> bytes) override {
    return scratch.keep(scratch.context, offset, bytes.data(), bytes.size()) == 0;
  }
  bool bring(uint64_t offset, std::span<std::byte> bytes) override {
    return scratch.bring(scratch.context, offset, bytes.data(), bytes.size()) == 0;
  }

  sb_scratch scratch = {};       // the host's, where it has one
  std::unique_ptr<Model> model;  // the source
  std::unique_ptr<FolderQuantizer> quantizer;
  FolderWrite write;
  std::string text;
};
struct sb_eval {
  WeightReport weights;
  std::unique_ptr<Evaluation> evaluation;
  std::string text;
};

namespace {

/// Text to ids without specials, and the ids that a sequence of this model begins with.
struct TextIds {
  std::vector<int32_t> ids, prefix;
};
Result<TextIds> text_ids(const Model& model, std::string_view text) {
  const Tokenizer* tokenizer = model.tokenizer();
  if (!tokenizer) return err(Code::kTokenizerInvalid, {{"file", model.file()}, {"why", "there is none, and text has to become tokens"}});
  TextIds out;
  SB_TRY(out.ids, tokenizer->encode(text, false));
  SB_TRY(const std::vector<int32_t> with_specials, tokenizer->encode("", true));
  // What stands around an empty text begins with BOS, and may end with an end token that does not belong before a text.
  if (!with_specials.empty() && tokenizer->bos() && with_specials[0] == *tokenizer->bos()) out.prefix = {with_specials[0]};
  return out;
}

Result<std::unique_ptr<FolderQuantizer>> open_quantizer(sb_engine& engine, ModelFiles files, std::optional<Result<Tokenizer>> tokenizer,
                                                        std::string_view text, const Options& options, Scratch* scratch,
                                                        std::unique_ptr<Model>& model) {
  Json config = {{"quant_method", "subbyte"}, {"version", 1}};
  // Opening turns GPT-2's matrices to [N, K], which is how GGUF has them: the folder says so.
  if (files.config.architecture() == "gpt2") config["gguf_conventions"] = true;
  FolderSource source;
  SB_TRY(source.texts, folder_texts(files, config));
  SB_TRY(model, Model::open(std::move(files), engine.device, 0, std::move(tokenizer)));
  source.graph = &model->graph();
  source.weights = &model->weights();
  SB_TRY(const TextIds calibration, text_ids(*model, text));
  FolderOptions o;
  // A refinement alone says two bits and two more.
  o.bits = options.flag("refine") && !options.given("bits") ? "2" : options.text("bits");
  o.bpw = options.number("bpw");
  o.n_bytes = uint64_t(options.integer("bytes"));
  o.embedding = options.text("embedding") == "auto" ? "" : options.text("embedding");
  o.refine = options.flag("refine");
  o.context = options.integer("window");
  o.most_tokens = options.integer("tokens");
  o.tune = options.flag("tune");
  o.tune_steps = options.integer("tune_steps");
  o.tune_rate = options.number("tune_rate");
  o.seed = uint64_t(options.integer("seed"));
  o.n_threads = engine.device->n_threads();
  o.scratch = scratch;
  if (const Json* allocation = options.extra("allocation")) o.allocation = json_text(*allocation);
  return FolderQuantizer::create(std::move(source), *engine.device, calibration.ids, calibration.prefix, std::move(o));
}

Result<Evaluation> open_evaluation(Model& model, Model* reference, std::string_view text, const Options& options) {
  if (reference && reference->shape().vocab != model.shape().vocab) {
    return err(Code::kArgumentInvalid, {{"what", "The model and its reference have vocabularies of " + std::to_string(model.shape().vocab) +
                                                     " and " + std::to_string(reference->shape().vocab)},
                                        {"fix", "Compare a model with the one it was made from."}});
  }
  SB_TRY(const TextIds held_out, text_ids(model, text));
  EvaluationOptions o;
  o.context = options.integer("ctx");
  o.n_windows = options.integer("windows");
  o.count_all = options.text("count") == "all";
  return Evaluation::create({{&model.graph()}}, reference ? &reference->graph() : nullptr, model.device(), held_out.ids, held_out.prefix,
                            o);
}

}  // namespace

extern "C" {

sb_quantizer* sb_quantizer_create(sb_engine* engine, sb_load* load, const char* text, uint64_t n_bytes, const sb_scratch* scratch,
                                  const char* options_json) {
  const std::unique_ptr<sb_load> used_up(load);
  auto options = Options::parse(view(options_json), kQuantizeOptions, {"allocation"});
  if (!options) return failed_null(options.error());
  if (engine->device->holds_weights())  // the quantiser reads them
    return failed_null(
        Error(Code::kOpUnsupported, {{"device", engine->device->name()}, {"op", "quantising"}, {"dtype", "weights on the GPU"}}));
  auto files = load->loading.finish();
  if (!files) return failed_null(files.error());
  auto out = std::make_unique<sb_quantizer>();
  if (scratch) out->scratch = *scratch;
  auto quantizer = open_quantizer(*engine, std::move(*files), load->take_tokenizer(), {text, size_t(n_bytes)}, *options,
                                  scratch ? out.get() : nullptr, out->model);
  if (!quantizer) return failed_null(quantizer.error());
  out->quantizer = std::move(*quantizer);
  return out.release();
}
void sb_quantizer_free(sb_quantizer* quantizer) { delete quantizer; }
int32_t sb_quantizer_step(sb_quantizer* quantizer) {
  auto more = quantizer->quantizer->step();
  return more ? (*more ? SB_STEP_MORE : SB_STEP_DONE) : failed(more.error());
}
int32_t sb_quantizer_write(sb_quantizer* quantizer, sb_write* write) {
  if (!quantizer->quantizer->next_write(quantizer->write)) return 0;
  const FolderWrite& w = quantizer->write;
  *write = {w.file.c_str(), w.offset, w.bytes.size(), w.bytes.data()};
  return 1;
}
int32_t sb_quantizer_checkpoint(sb_quantizer* quantizer) { return quantizer->quantizer->checkpoint() ? 1 : 0; }
int32_t sb_quantizer_resume(sb_quantizer* quantizer, const void* bytes, uint64_t n_bytes) {
  auto status = quantizer->quantizer->resume({static_cast<const std::byte*>(bytes), size_t(n_bytes)});
  return status ? 0 : failed(status.error());
}
const char* sb_quantizer_progress(sb_quantizer* quantizer) { return lend(quantizer->text, quantizer->quantizer->progress_json()); }
const char* sb_quantizer_report(sb_quantizer* quantizer) { return lend(quantizer->text, quantizer->quantizer->report_json()); }

sb_eval* sb_eval_create(sb_model* model, sb_model* reference, const char* text, uint64_t n_bytes, const char* options_json) {
  auto options = Options::parse(view(options_json), kEvalOptions);
  if (!options) return failed_null(options.error());
  auto evaluation = open_evaluation(*model->model, reference ? reference->model.get() : nullptr, {text, size_t(n_bytes)}, *options);
  if (!evaluation) return failed_null(evaluation.error());
  return new sb_eval{model->model->weight_report(), std::make_unique<Evaluation>(std::move(*evaluation)), {}};
}
void sb_eval_free(sb_eval* eval) { delete eval; }
int32_t sb_eval_step(sb_eval* eval) {
  auto more = eval->evaluation->step();
  return more ? (*more ? SB_STEP_MORE : SB_STEP_DONE) : failed(more.error());
}
const char* sb_eval_report(sb_eval* eval) {
  const EvaluationReport r = eval->evaluation->report(0);
  OrderedJson j = {{"ppl", r.ppl}, {"ppl_se", r.ppl_se}};
  if (r.has_reference) {
    j["kl"] = r.kl;
    j["kl_se"] = r.kl_se;
  }
  j["top1"] = r.top1;
  if (r.has_reference) {
    j["top1_ref"] = r.top1_ref;
    j["top1_drop"] = r.top1_drop;
    j["top1_drop_se"] = r.top1_drop_se;
    j["agree"] = r.agree;
    j["ppl_ref"] = r.ppl_ref;
  }
  j["n_tokens"] = r.n_tokens;
  j["n_windows"] = eval->evaluation->n_windows();
  j["done_windows"] = eval->evaluation->n_done();
  j["weight_bytes"] = eval->weights.n_bytes;
  j["n_parameters"] = eval->weights.n_parameters;
  j["bpw"] = eval->weights.bpw;
  j["bpw_linears"] = eval->weights.bpw_linears;
  j["bpw_embedding"] = eval->weights.bpw_embedding;
  return lend(eval->text, json_text(j));
}

}  // extern "C"
