#include "runtime/session.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/host.h"
#include "option_tables.h"
#include "runtime/draft.h"

namespace sb {
namespace {

// Prompts run in the largest bucket that fits, then the next smaller: few shapes to plan, no padding. In a page a chunk is also the
// longest time between two looks at the cancel button, so it stays short.
#if defined(__wasm__)
constexpr int64_t kBuckets[] = {64, 16, 4, 1};
#else
constexpr int64_t kBuckets[] = {256, 64, 16, 4, 1};
#endif

double rate(double n, double ms) { return ms > 0 ? n * 1000 / ms : 0; }

}  // namespace

std::span<const int64_t> prefill_buckets() { return kBuckets; }

Session::Session(Model& model, int64_t context)
    : model_(model),
      context_(context > 0 ? std::min(context, model.context()) : model.context()),
      kv_(model.new_cache(true)),
      life_(model.life()) {}

Session::~Session() { leave(); }

Result<std::vector<int32_t>> Session::prompt_ids(const Options& options, std::string_view request_json) const {
  const Json *prompt = options.extra("prompt"), *messages = options.extra("messages"), *ids = options.extra("ids");
  if (!!prompt + !!messages + !!ids != 1) {
    return err(Code::kArgumentInvalid, {{"what", "A request needs exactly one of prompt, messages and ids"}, {"fix", "Give one of them."}});
  }
  std::vector<int32_t> out;
  if (ids) {
    if (!ids->is_array()) return err(Code::kArgumentInvalid, {{"what", "\"ids\" is not a list"}, {"fix", "Give a list of token ids."}});
    for (const Json& id : *ids) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= model_.shape().vocab) {
        return err(Code::kTokenOutside, {{"id", json_text(id)}, {"size", model_.shape().vocab}});
      }
      out.push_back(id.get<int32_t>());
    }
    return out;
  }
  const Tokenizer* tokenizer = model_.tokenizer();
  if (!tokenizer) return err(Code::kTokenizerInvalid, {{"file", model_.file()}, {"why", "there is none; give ids instead of text"}});
  if (prompt) {
    if (!prompt->is_string()) return err(Code::kArgumentInvalid, {{"what", "\"prompt\" is not text"}, {"fix", "Give a string."}});
    return tokenizer->encode(prompt->get<std::string>(), true);
  }
  // Templates see keys in the order in which the caller wrote them.
  SB_TRY(OrderedJson request, json_parse_ordered(request_json, "request"));
  SB_TRY(std::string text, model_.chat_prompt(request));
  return tokenizer->encode(text, false);  // the template writes its own special tokens
}

Status Session::start(std::string_view request_json) {
  if (answer_) return err(Code::kSessionBusy);
  SB_TRY(Options options,
         Options::parse(request_json, kGenerateOptions, {"prompt", "messages", "ids", "tools", "add_generation_prompt", "date"}));
  SB_TRY(std::vector<int32_t> ids, prompt_ids(options, request_json));
  if (ids.empty()) return err(Code::kPromptEmpty);
  for (int32_t id : ids) {
    if (id < 0 || id >= model_.shape().vocab) return err(Code::kTokenOutside, {{"id", id}, {"size", model_.shape().vocab}});
  }
  // One place is left for the answer.
  if (int64_t(ids.size()) >= context_) return err(Code::kPromptTooLong, {{"n_tokens", ids.size()}, {"context", context_}});

  if (life_ != model_.life()) cached_.clear();  // the cache went with the device
  // What the cache already holds of this prompt stays; the last token runs again, because its logits are needed.
  const size_t limit = std::min(cached_.size(), ids.size() - 1);
  const int64_t common = std::mismatch(cached_.begin(), cached_.begin() + int64_t(limit), ids.begin()).first - cached_.begin();
  keep(common);

  SamplerOptions sampling;
  sampling.temperature = float(options.number("temperature"));
  sampling.top_k = int32_t(options.integer("top_k"));
  sampling.top_p = float(options.number("top_p"));
  sampling.min_p = float(options.number("min_p"));
  sampling.repetition_penalty = float(options.number("repetition_penalty"));
  sampling.seed = uint64_t(options.integer("seed"));
  answer_.emplace(Answer{Sampler(sampling), StopScan(options.texts("stop")), std::nullopt});
  if (model_.tokenizer()) answer_->stream.emplace(*model_.tokenizer());
  answer_->max_tokens = options.integer("max_tokens");
  answer_->ignore_eos = options.flag("ignore_eos");
  answer_->n_top = options.integer("top_logits");
  answer_->n_draft = std::min(options.integer("draft_tokens"), model_.device().n_alike() - 1);
  answer_->n_prompt = int64_t(ids.size());
  answer_->prompt = std::move(ids);
  answer_->n_done = answer_->n_cached = common;
  answer_->started_ms = host_now_ms();
  return {};
}

void Session::keep(int64_t n_tokens) {
  cached_.resize(size_t(n_tokens));
  kv_.shrink(n_tokens);
}

Result<bool> Session::step() {
  waits_ = wants_weights_ = false;
  if (!answer_) return false;
  const bool is_whole = life_ != 0 && life_ == model_.life();
  Result<bool> more = is_whole ? advance() : mend();
  if (is_whole && !more && more.error().code() == Code::kDeviceLost) {
    lose(more.error());
    return true;  // the next steps mend it
  }
  if (!more) {
    leave();
    answer_.reset();
  }
  return more;
}

Result<bool> Session::advance() {
  Answer& a = *answer_;
  if (a.n_choices > 0) return decode();
  if (running_) {
    SB_TRY(const bool has_come, settle(model_.device()));
    if (!has_come) return wait();
    return choose(*std::exchange(running_, nullptr));
  }
  return a.n_done < int64_t(a.prompt.size()) ? prefill() : decode();
}

Result<bool> Session::wait() {
  waits_ = true;
  return true;
}

// ---- A device that is lost ----

void Session::lose(const Error& error) {
  life_ = 0;
  is_mending_ = true;
  tell_device("lost", error.message());
  leave();
}

Result<bool> Session::mend() {
  SB_TRY(const Model::Mend what, model_.mend());
  if (what == Model::Mend::kWait) return wait();
  if (what == Model::Mend::kWeights) {
    wants_weights_ = true;
    return true;
  }
  begin_anew();
  if (std::exchange(is_mending_, false)) tell_device(model_.why_here().empty() ? "restored" : "fallback", model_.why_here());
  return true;
}

/// The cache is gone: all that the answer knows is its prompt now, and the next token follows from that. Sampler and texts stay as they
/// are.
void Session::begin_anew() {
  leave();
  kv_ = model_.new_cache(true);
  cached_.clear();
  life_ = model_.life();
  Answer& a = *answer_;
  a.prompt.resize(size_t(a.n_prompt));
  a.prompt.insert(a.prompt.end(), a.ids.begin(), a.ids.end());
  a.n_done = a.n_choices = a.n_runs = 0;
  a.guesses.clear();
  a.sampler.rewind();
  a.n_draft = std::min(a.n_draft, model_.device().n_alike() - 1);
}

void Session::tell_device(const char* state, std::string_view why) {
  events_.push_back(json_text(OrderedJson{{"type", "device"}, {"state", state}, {"device", model_.device().name()}, {"why", why}}));
}

/// Gives the device up; what is still under way there is dropped.
void Session::leave() {
  if (running_ || (answer_ && answer_->n_choices > 0)) model_.device().drop();
  running_ = nullptr;
  model_.device().release(this);
}

/// Whether tokens can be chosen on the device, run after run, without a look at the logits.
bool Session::chooses_ahead() const { return model_.device().n_choices() > 0 && answer_->sampler.is_drawable() && answer_->n_top == 0; }

/// False: the device is somebody else's for now, and nothing happened.
Result<bool> Session::submit(const Pass& pass, std::span<const int32_t> ids, int64_t position) {
  Device& device = model_.device();
  Answer& a = *answer_;
  if (!device.acquire(this)) return false;
  if (a.n_choices == 0) {
    SB_TRY(const bool is_idle, settle(device));  // of what another left behind
    if (!is_idle) return false;
  }
  const bool chooses = pass.logits != Pass::Logits::kNone && chooses_ahead();
  const Draw draw = chooses ? a.sampler.draw() : Draw();
  SB_TRY(Program * program, model_.run(pass, {ids, int32_t(position), &kv_, chooses ? int32_t(model_.shape().vocab) : 0, draw}));
  if (chooses) ++a.n_choices;
  if (pass.logits != Pass::Logits::kNone && !chooses) running_ = program;
  return true;
}

Result<bool> Session::prefill() {
  Answer& a = *answer_;
  const int64_t left = int64_t(a.prompt.size()) - a.n_done;
  int64_t n = 1;
  for (int64_t bucket : kBuckets) {
    if (bucket <= left) {
      n = bucket;
      break;
    }
  }
  const bool last = n == left;
  const Pass pass{n, last ? Pass::Logits::kLast : Pass::Logits::kNone, false};
  const std::span<const int32_t> ids(a.prompt.data() + a.n_done, size_t(n));
  SB_TRY(const bool is_submitted, submit(pass, ids, int64_t(cached_.size())));
  if (!is_submitted) return wait();
  cached_.insert(cached_.end(), ids.begin(), ids.end());
  a.n_done += n;
  if (a.ids.empty()) a.prefilled_ms = host_now_ms();
  OrderedJson event = {{"type", "prefill"}, {"n_tokens", a.prompt.size()}, {"done", a.n_done}, {"ms", host_now_ms() - a.started_ms}};
  events_.push_back(json_text(event));
  return last ? advance() : true;
}

Result<bool> Session::decode() {
  Answer& a = *answer_;
  const Pass one{1, Pass::Logits::kLast, false};
  if (a.n_choices == 0) {
    const int32_t newest = a.ids.back();
    if (!a.guesses.empty() && a.guesses.front().first == newest) {  // it ran already
      std::vector<float> logits = std::move(a.guesses.front().second);
      a.guesses.pop_front();
      ++a.n_right;
      cached_.push_back(newest);
      return choose(logits);
    }
    guess(newest);
    std::vector<int32_t> ids = {newest};
    for (const auto& [id, logits] : a.guesses) ids.push_back(id);
    const Pass pass = a.guesses.empty() ? one : Pass{int64_t(ids.size()), Pass::Logits::kAll, false};
    SB_TRY(const bool is_submitted, submit(pass, ids, int64_t(cached_.size())));
    if (!is_submitted) {
      drop_guesses();
      return wait();
    }
    a.n_guessed += int64_t(a.guesses.size());
    cached_.push_back(newest);
    if (a.n_choices == 0) return advance();
    a.n_runs = 0;
  }
  // The device goes on with what it chose, while its choices come one by one. Somebody else's turn comes when it has run dry.
  auto has_room = [&] { return int64_t(cached_.size()) + a.n_runs + 1 < context_ && int64_t(a.ids.size()) + a.n_choices < a.max_tokens; };
  while (a.n_choices < model_.device().n_choices() && has_room() && !model_.device().is_wanted()) {
    SB_TRY(const bool is_submitted, submit(one, {}, int64_t(cached_.size()) + a.n_runs));
    SB_ASSERT(is_submitted);
    ++a.n_runs;
  }
  return take_choice();
}

Result<bool> Session::take_choice() {
  Answer& a = *answer_;
  Device& device = model_.device();
  while (true) {
    SB_TRY(const std::optional<int32_t> id, device.chosen());
    if (!id && device.wait()) continue;
    if (!id) return wait();
    --a.n_choices;
    a.sampler.take();
    if (*id == kNotChosen) return err(Code::kLogitsNotFinite, {{"position", cached_.size()}});
    if (a.n_choices == 0) device.release(this);
    SB_TRY(const bool more, accept(*id));
    // The run that has this token as its input is under way already.
    if (more && a.n_runs > 0) {
      cached_.push_back(*id);
      --a.n_runs;
    }
    return more;
  }
}

/// Guesses what follows `newest`, which joins the cache next; nothing whose logits nobody would ask for, because answer or context end.
void Session::guess(int32_t newest) {
  Answer& a = *answer_;
  drop_guesses();
  const int64_t most = std::min({a.n_draft, a.max_tokens - int64_t(a.ids.size()) - 1, context_ - int64_t(cached_.size()) - 2});
  if (most <= 0) return;
  cached_.push_back(newest);
  for (const int32_t id : draft(cached_, most)) a.guesses.emplace_back(id, std::vector<float>());
  cached_.pop_back();
}

void Session::drop_guesses() {
  if (answer_->guesses.empty()) return;
  answer_->guesses.clear();
  kv_.shrink(int64_t(cached_.size()));
}

Result<bool> Session::choose(Program& program) {
  // One row of logits [V or more] for the chosen token and each guess; they wait here, since the device may run for others meanwhile.
  auto& guesses = answer_->guesses;
  const std::span<float> all = program.output("logits");
  const size_t row = all.size() / (1 + guesses.size()), n_vocab = size_t(model_.shape().vocab);
  for (size_t i = 0; i < guesses.size(); ++i) {
    const std::span<const float> logits = all.subspan((i + 1) * row, n_vocab);
    guesses[i].second.assign(logits.begin(), logits.end());
  }
  return choose(all.first(n_vocab));
}

Result<bool> Session::choose(std::span<float> logits) {
  Answer& a = *answer_;
  if (a.n_top > 0) {
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + std::min<int64_t>(a.n_top, int64_t(order.size()));
    std::partial_sort(order.begin(), end, order.end(), [&](int32_t x, int32_t y) { return logits[size_t(x)] > logits[size_t(y)]; });
    a.top = OrderedJson::array();
    for (auto id = order.begin(); id != end; ++id) a.top.push_back({{"id", *id}, {"logit", logits[size_t(*id)]}});
  }
  SB_TRY(int32_t id, a.sampler.sample(logits, cached_));
  model_.device().release(this);
  return accept(id);
}

Result<bool> Session::accept(int32_t id) {
  Answer& a = *answer_;
  const double now = host_now_ms();
  if (a.ids.empty()) a.first_token_ms = now - a.started_ms;
  a.last_token_ms = now;
  if (!a.ignore_eos && model_.is_end(id)) return finish("stop");
  a.ids.push_back(id);
  std::string text;
  if (a.stream) {
    SB_TRY(std::string piece, a.stream->push(id));
    text = a.stops.push(piece);
  }
  a.text += text;
  OrderedJson event = {{"type", "token"}, {"id", id}, {"text", text}, {"ms", now - a.started_ms}};
  if (a.n_top > 0) event["top"] = std::move(a.top);
  events_.push_back(json_text(event));
  if (a.stops.stopped()) return finish("stop");
  if (int64_t(a.ids.size()) >= a.max_tokens) return finish("length");
  if (int64_t(cached_.size()) + 1 >= context_) return finish("context");
  return true;
}

bool Session::finish(const char* reason) {
  Answer& a = *answer_;
  drop_guesses();
  if (a.stream) {
    // What a stop text or an unfinished character held back.
    const std::string rest = a.stops.push(a.stream->finish()) + a.stops.finish();
    if (!rest.empty()) {
      a.text += rest;
      events_.push_back(json_text(OrderedJson{{"type", "token"}, {"id", nullptr}, {"text", rest}, {"ms", a.last_token_ms - a.started_ms}}));
    }
  }
  const double prefill_ms = a.prefilled_ms > 0 ? a.prefilled_ms - a.started_ms : 0;
  const double decode_ms = a.ids.empty() ? 0 : a.last_token_ms - a.started_ms - a.first_token_ms;
  const int64_t n_decoded = int64_t(a.ids.size()) - 1;
  OrderedJson usage = {{"prompt_tokens", a.n_prompt},
                       {"cached_tokens", a.n_cached},
                       {"completion_tokens", a.ids.size()},
                       {"guessed_tokens", a.n_guessed},
                       {"guessed_right", a.n_right},
                       {"prefill_ms", prefill_ms},
                       {"decode_ms", decode_ms},
                       {"first_token_ms", a.first_token_ms},
                       {"prefill_tokens_per_s", rate(double(std::min(a.n_done, a.n_prompt) - a.n_cached), prefill_ms)},
                       {"decode_tokens_per_s", rate(double(std::max<int64_t>(0, n_decoded)), decode_ms)}};
  OrderedJson event = {{"type", "done"}, {"finish_reason", reason}, {"usage", usage}, {"text", a.text}, {"ids", a.ids}};
  events_.push_back(json_text(event));
  leave();
  answer_.reset();
  return false;
}

std::string Session::next_event() {
  if (events_.empty()) return "";
  std::string event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void Session::cancel() {
  if (answer_) finish("cancelled");
}

Status Session::reset() {
  if (answer_) return err(Code::kSessionBusy);
  events_.clear();
  keep(0);
  return {};
}

std::string Session::info_json() const {
  return json_text(OrderedJson{{"n_tokens", cached_.size()}, {"context", context_}, {"kv_bytes", kv_.n_bytes()}});
}

}  // namespace sb
