// The C API: checks handles, maps Results to codes, keeps the strings it lends. No logic.
#include <cstring>
#include <utility>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "capi/handles.h"
#include "device/cpu/cpu_device.h"
#include "device/cpu/kernel.h"
#include "device/webgpu/webgpu_device.h"
#include "io/gguf.h"
#include "option_tables.h"
#include "runtime/golden.h"
#include "runtime/memory_plan.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/tokenizer_file.h"

using namespace sb;

namespace {

thread_local std::string g_error;

Result<SelfCheck*> check_of(sb_model* model) {
  if (!model->check) {
    SB_TRY(std::unique_ptr<Device> reference, make_cpu_device({.threads = 1}));
    model->check = std::make_unique<SelfCheck>(*model->model, std::move(reference));
  }
  return model->check.get();
}

/// Gives a model what a load has brought; the load goes.
int32_t take_load(Model& model, sb_load* load, Status (Model::*take)(ModelFiles)) {
  const std::unique_ptr<sb_load> used_up(load);
  auto files = load->loading.finish();
  if (!files) return failed(files.error());
  auto status = (model.*take)(std::move(*files));
  return status ? 0 : failed(status.error());
}

}  // namespace

namespace sb {

int32_t failed(const Error& error) {
  g_error = error.to_json();
  return -1;
}
std::nullptr_t failed_null(const Error& error) {
  failed(error);
  return nullptr;
}
const char* lend(std::string& place, Result<std::string> text) {
  if (!text) return failed_null(text.error());
  place = std::move(*text);
  return place.c_str();
}

}  // namespace sb

extern "C" {

const char* sb_version(void) {
  static const std::string text = [] {
    OrderedJson j;
    j["version"] = SB_VERSION;
#if !defined(__wasm__)
    j["build"] = "native";
#else
    std::string build = kernel_tables().front()->isa == std::string_view("relaxed") ? "relaxed" : "simd";
#if defined(SB_THREADS)
    build += "-threads";
#endif
    j["build"] = build;
#endif
#ifdef SB_SANITIZE
    j["sanitizers"] = true;
#else
    j["sanitizers"] = false;
#endif
    return json_text(j);
  }();
  return text.c_str();
}

const char* sb_options(void) {
  static const std::string text = [] {
    OrderedJson j;
    for (const OptionGroup& group : kOptionGroups) j[group.name] = options_json(group.rows);
    return json_text(j);
  }();
  return text.c_str();
}

const char* sb_error(void) { return g_error.empty() ? nullptr : g_error.c_str(); }

const char* sb_memory(void) {
  thread_local std::string text;
  text = memory_report_json();
  return text.c_str();
}
void sb_memory_reset_peak(void) { memory_reset_peak(); }

sb_engine* sb_engine_create(const char* options_json) {
  auto options = Options::parse(view(options_json), kEngineOptions);
  if (!options) return failed_null(options.error());
  CpuOptions cpu;
  cpu.threads = int(options->integer("threads"));
  cpu.isa = options->text("isa");
  cpu.exact = !options->flag("rounded");
  auto make_cpu = [cpu]() -> Result<std::shared_ptr<Device>> { return make_cpu_device(cpu); };
  const std::string wanted = options->text("device");
  const bool may_fall_back = options->flag("fallback");
  std::string why;
  // Whoever chooses kernels of the CPU means the CPU.
  const bool names_cpu = wanted == "auto" && (cpu.isa != "auto" || !cpu.exact);
  if (wanted != "cpu" && !names_cpu) {
    auto gpu = make_webgpu_device(wanted == "webgpu");
    if (gpu) return new sb_engine{std::move(*gpu), {}, may_fall_back ? make_cpu : Model::MakeDevice(), {}};
    if (wanted == "webgpu" && !may_fall_back) return failed_null(gpu.error());
    why = gpu.error().message();
  }
  auto device = make_cpu();
  if (!device) return failed_null(device.error());
  return new sb_engine{std::move(*device), why, {}, {}};
}
void sb_engine_free(sb_engine* engine) { delete engine; }

int32_t sb_engine_reopen(sb_engine* engine) {
  auto is_open = engine->device->reopen();
  if (!is_open) return failed(is_open.error());
  return *is_open ? SB_STEP_DONE : SB_STEP_WAITS;
}
int32_t sb_engine_fall_back(sb_engine* engine, const char* why) {
  if (!engine->make_other) return 0;
  auto device = std::exchange(engine->make_other, nullptr)();
  if (!device) return failed(device.error());
  engine->device = std::move(*device);
  engine->why = view(why);
  return 1;
}

const char* sb_engine_capabilities(sb_engine* engine) {
  OrderedJson j = json_parse_ordered(engine->device->describe(), "device").value_or(OrderedJson::object());
  j["device_why"] = engine->why;
  for (const Family* family : families()) j["families"].push_back(family->name);
  for (const DtypeRow& row : kDtypeRows) j["dtypes"].push_back(row.name);
  engine->text = json_text(j);
  return engine->text.c_str();
}

sb_load* sb_load_create(sb_engine* engine, const char* options_json) {
  auto options = Options::parse(view(options_json), kModelOptions, {"file", "container", "shapes"});
  if (!options) return failed_null(options.error());
  const Json *file = options->extra("file"), *container = options->extra("container");
  const std::string name = file && file->is_string() ? file->get<std::string>() : "model";
  const std::string kind = container && container->is_string() ? container->get<std::string>() : "gguf";
  if (kind != "gguf" && kind != "folder" && kind != "verify")
    return failed_null(Error(Code::kOptionInvalid, {{"option", "container"}, {"value", kind}, {"expected", "gguf, folder or verify"}}));
  if (kind == "verify") return new sb_load{engine->device, Loading::verify(name), 0, {}, {}};
  const auto bringing = [&](Loading loading) {
    bring_model_to(loading, *engine->device);  // which the handle holds
    return loading;
  };
  const PlaneSets sets = options->text("planes") == "base" ? PlaneSets::kBase : PlaneSets::kFull;
  if (const Json* shapes = options->extra("shapes"); shapes && *shapes == true)
    return new sb_load{
        engine->device, bringing(Loading::shapes(name, kind == "gguf" ? Container::kGguf : Container::kFolder, sets)), 0, {}, {}, true};
  auto* load = new sb_load{engine->device,
                           bringing(kind == "gguf" ? Loading::gguf(name) : Loading::folder(name, {}, sets)),
                           options->integer("context"),
                           {},
                           {}};
  load->make_other = engine->make_other;
  load->tokenizer = std::make_unique<TokenizerBeside>(engine->device);
  load->loading.see_tokenizer([beside = load->tokenizer.get()](const std::string& json) { beside->begin(json); });
  return load;
}

int32_t sb_load_next(sb_load* load, sb_request* request) {
  auto wanted = load->loading.next();
  if (!wanted) return failed(wanted.error());
  load->wanted_file = std::move(wanted->file);
  *request = {load->wanted_file.c_str(), wanted->offset, wanted->dst.size(), wanted->dst.data()};
  switch (wanted->kind) {
    case ReadRequest::Kind::kNothing:
      return SB_LOAD_DONE;
    case ReadRequest::Kind::kSize:
      return SB_LOAD_WANTS_SIZE;
    case ReadRequest::Kind::kBytes:
      return SB_LOAD_WANTS_BYTES;
    case ReadRequest::Kind::kPause:
      return SB_LOAD_WAITS;
  }
  return SB_LOAD_DONE;
}
int32_t sb_load_size(sb_load* load, int64_t n_bytes) {
  load->loading.size_is(n_bytes < 0 ? std::nullopt : std::optional<uint64_t>(uint64_t(n_bytes)));
  return 0;
}
int32_t sb_load_bytes(sb_load* load, uint64_t n_bytes) {
  load->loading.bytes_are(n_bytes);
  return 0;
}
int32_t sb_load_summed(sb_load* load, const char* component) {
  load->loading.is_summed(component);
  return 0;
}
const char* sb_load_progress(sb_load* load) {
  const LoadProgress p = load->loading.progress();
  load->text = json_text(OrderedJson{{"phase", p.phase}, {"done_bytes", p.done_bytes}, {"total_bytes", p.total_bytes}});
  return load->text.c_str();
}
sb_model* sb_load_finish(sb_load* load) {
  const std::unique_ptr<sb_load> used_up(load);
  if (load->shapes_only) {
    return failed_null(Error(Code::kArgumentInvalid, {{"what", "A load of shapes finishes to no model"}, {"fix", "Ask sb_load_plan."}}));
  }
  auto files = load->loading.finish();
  if (!files) return failed_null(files.error());
  auto model = Model::open(std::move(*files), load->device, load->context, load->take_tokenizer());
  if (!model) return failed_null(model.error());
  (*model)->falls_back_to(std::move(load->make_other));
  sb_model* out = new sb_model{std::move(*model), {}, {}, {}};
  out->tokenizer.tokenizer = out->model->tokenizer();
  return out;
}
void sb_load_free(sb_load* load) { delete load; }

const char* sb_plan(sb_engine* engine, const char* request_json) {
  auto options = Options::parse(view(request_json), kPlanOptions, {"architecture"});
  if (!options) return failed_null(options.error());
  const Json* name = options->extra("architecture");
  auto plan = plan_architecture(name && name->is_string() ? name->get<std::string>() : "", PlanOptions::of(*options), *engine->device);
  if (!plan) return failed_null(plan.error());
  return lend(engine->text, plan->json());
}
const char* sb_load_plan(sb_load* load, const char* request_json) {
  auto options = Options::parse(view(request_json), kPlanOptions);
  if (!options) return failed_null(options.error());
  if (!load->shapes_only) {
    return failed_null(Error(Code::kArgumentInvalid, {{"what", "This load reads weights"}, {"fix", "Create it with {\"shapes\": true}."}}));
  }
  if (!load->shapes) {
    auto shapes = load->loading.finish();
    if (!shapes) return failed_null(shapes.error());
    load->shapes = std::move(*shapes);
  }
  auto plan = plan_model(*load->shapes, load->loading.cost(), PlanOptions::of(*options), *load->device);
  if (!plan) return failed_null(plan.error());
  return lend(load->text, plan->json());
}

void sb_model_free(sb_model* model) { delete model; }
const char* sb_model_info(sb_model* model) { return lend(model->text, model->model->info_json()); }
const char* sb_model_profile(sb_model* model) { return lend(model->text, model->model->profile_json()); }
const char* sb_model_tensors(sb_model* model) { return lend(model->text, model->model->tensors_json()); }
sb_tokenizer* sb_model_tokenizer(sb_model* model) { return model->tokenizer.tokenizer ? &model->tokenizer : nullptr; }
const char* sb_model_chat(sb_model* model, const char* request_json) {
  auto request = json_parse_ordered(view(request_json), "request");
  if (!request) return failed_null(request.error());
  return lend(model->text, model->model->chat_prompt(*request));
}

const char* sb_model_check_key(sb_model* model) {
  auto check = check_of(model);
  if (!check) return failed_null(check.error());
  return lend(model->text, (*check)->key());
}
int32_t sb_model_check_step(sb_model* model) {
  auto check = check_of(model);
  if (!check) return failed(check.error());
  auto step = (*check)->step();
  if (!step) return failed(step.error());
  return *step == CheckStep::kDone ? SB_STEP_DONE : *step == CheckStep::kMore ? SB_STEP_MORE : SB_STEP_WAITS;
}
const char* sb_model_check_report(sb_model* model) {
  auto check = check_of(model);
  return lend(model->text, check ? Result<std::string>((*check)->json()) : std::unexpected(check.error()));
}

sb_load* sb_model_reload(sb_model* model) { return new sb_load{model->model->shared_device(), model->model->reload(), 0, {}, {}}; }
int32_t sb_model_restore(sb_model* model, sb_load* load) { return take_load(*model->model, load, &Model::restore); }

sb_load* sb_model_refinement(sb_model* model) {
  auto load = model->model->refinement();
  if (!load) return failed_null(load.error());
  return new sb_load{model->model->shared_device(), std::move(*load), 0, {}, {}};
}
int32_t sb_model_refine(sb_model* model, sb_load* load) { return take_load(*model->model, load, &Model::refine); }
const char* sb_model_drop_refinement(sb_model* model, uint64_t n_bytes) {
  return lend(model->text, json_text(OrderedJson{{"freed_bytes", model->model->drop_refinement(n_bytes)}}));
}

sb_tokenizer* sb_tokenizer_create(const void* data, uint64_t n_bytes) {
  auto tokenizer = tokenizer_from_file({static_cast<const std::byte*>(data), size_t(n_bytes)});
  if (!tokenizer) return failed_null(tokenizer.error());
  auto owned = std::make_unique<Tokenizer>(std::move(*tokenizer));
  const Tokenizer* borrowed = owned.get();
  return new sb_tokenizer{borrowed, std::move(owned), {}};
}
void sb_tokenizer_free(sb_tokenizer* tokenizer) {
  if (tokenizer && tokenizer->owned) delete tokenizer;
}

const char* sb_tokenizer_encode(sb_tokenizer* tokenizer, const char* text, uint64_t n_bytes, const char* options_json) {
  auto options = json_parse(options_json && *options_json ? view(options_json) : "{}", "options");
  if (!options) return failed_null(options.error());
  auto ids = tokenizer->tokenizer->encode({text, size_t(n_bytes)}, json_bool(*options, "add_special").value_or(true));
  if (!ids) return failed_null(ids.error());
  OrderedJson j;
  j["ids"] = *ids;
  if (json_bool(*options, "tokens").value_or(false)) {
    j["tokens"] = OrderedJson::array();
    for (int32_t id : *ids) j["tokens"].push_back(std::string(tokenizer->tokenizer->token(id)));
  }
  return lend(tokenizer->text, json_text(j));
}

const char* sb_tokenizer_decode(sb_tokenizer* tokenizer, const int32_t* ids, uint64_t n_ids, const char* options_json, uint64_t* n_bytes) {
  auto options = json_parse(options_json && *options_json ? view(options_json) : "{}", "options");
  if (!options) return failed_null(options.error());
  const char* text =
      lend(tokenizer->text, tokenizer->tokenizer->decode({ids, size_t(n_ids)}, json_bool(*options, "skip_special").value_or(true)));
  if (text && n_bytes) *n_bytes = tokenizer->text.size();
  return text;
}

sb_session* sb_session_create(sb_model* model, const char* options_json) {
  auto options = Options::parse(view(options_json), kModelOptions);
  if (!options) return failed_null(options.error());
  return new sb_session{Session(*model->model, options->integer("context")), {}};
}
void sb_session_free(sb_session* session) { delete session; }
int32_t sb_session_start(sb_session* session, const char* request_json) {
  auto status = session->session.start(view(request_json));
  return status ? 0 : failed(status.error());
}
int32_t sb_session_step(sb_session* session) {
  auto more = session->session.step();
  if (!more) return failed(more.error());
  if (session->session.wants_weights()) return SB_STEP_WANTS_WEIGHTS;
  return session->session.waits() ? SB_STEP_WAITS : *more ? SB_STEP_MORE : SB_STEP_DONE;
}
const char* sb_session_event(sb_session* session) {
  session->text = session->session.next_event();
  return session->text.empty() ? nullptr : session->text.c_str();
}
void sb_session_cancel(sb_session* session) { session->session.cancel(); }
int32_t sb_session_reset(sb_session* session) {
  auto status = session->session.reset();
  return status ? 0 : failed(status.error());
}
const char* sb_session_info(sb_session* session) { return lend(session->text, session->session.info_json()); }

int32_t sb_golden_start(sb_model* model, const void* golden, uint64_t n_bytes) {
  auto run = GoldenRun::start(*model->model, {static_cast<const std::byte*>(golden), size_t(n_bytes)});
  if (!run) return failed(run.error());
  model->golden = std::move(*run);
  return 0;
}
int32_t sb_golden_step(sb_model* model) {
  if (!model->golden)
    return failed(Error(Code::kArgumentInvalid, {{"what", "No golden run was started"}, {"fix", "Call sb_golden_start first."}}));
  auto step = model->golden->step();
  if (!step) return failed(step.error());
  return *step == GoldenStep::kDone ? SB_STEP_DONE : *step == GoldenStep::kMore ? SB_STEP_MORE : SB_STEP_WAITS;
}
const char* sb_golden_report(sb_model* model) { return lend(model->text, model->golden->report().json()); }
const void* sb_golden_dump(sb_model* model, uint64_t* n_bytes) {
  const std::vector<std::byte>& dump = model->golden->report().dump;
  *n_bytes = dump.size();
  return dump.data();
}

#if defined(__wasm__)
void* sb_alloc(uint32_t n_bytes) { return ::operator new(n_bytes, std::nothrow); }
void sb_dealloc(void* p) { ::operator delete(p); }
void sb_worker_run(int32_t index) { thread_pool_worker(index); }
#endif

}  // extern "C"
