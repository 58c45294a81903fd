// One conversation: its tokens, their cache, and the answer that is being made, one step a call.
#pragma once

#include <deque>
#include <string>

#include "runtime/model.h"
#include "runtime/options.h"
#include "runtime/sampler.h"
#include "runtime/stop_scan.h"

namespace sb {

/// Tokens of the chunks that a prompt runs in, largest first.
std::span<const int64_t> prefill_buckets();

class Session {
 public:
  /// `context`: tokens it can hold, 0 for the model's. The model must outlive it.
  Session(Model& model, int64_t context);

  /// Starts an answer (sb_session_start in capi/subbyte.h). Errors: kSessionBusy, kPromptTooLong, kPromptEmpty, kTokenOutside, options'.
  Status start(std::string_view request_json);
  ~Session();
  Session(Session&&) = delete;
  /// One step of the running answer; false when it is over. After an error the answer is over and the session usable.
  Result<bool> step();
  /// Whether the last step did nothing, because the device has not answered yet: only where there is no waiting (Device::wait).
  bool waits() const { return waits_; }
  /// Whether the last step did nothing, because the device was lost and the model's weights with it: Model::reload() and Model::restore()
  /// bring them, then the answer goes on.
  bool wants_weights() const { return wants_weights_; }
  /// The oldest event not taken yet, as JSON text; empty when there is none.
  std::string next_event();
  void cancel();
  /// Errors: kSessionBusy.
  Status reset();
  std::string info_json() const;

 private:
  struct Answer {
    Sampler sampler;
    StopScan stops;
    std::optional<TokenStream> stream;  // none when the model came without a tokenizer
    int64_t max_tokens = 0;
    bool ignore_eos = false;
    int64_t n_top = 0;     // likeliest ids to report with each token
    OrderedJson top = {};  // of the newest token
    // The whole prompt, of n_prompt tokens, and behind it the answer as far as it was when the device was lost; its first n_done tokens
    // are in the cache.
    std::vector<int32_t> prompt = {};
    int64_t n_prompt = 0, n_done = 0, n_cached = 0;
    // Tokens that the device chooses by itself, so that it need not wait for us: choices on their way, and runs whose token was such a
    // choice. The cache then holds n_ahead runs more than cached_ tells.
    int64_t n_choices = 0, n_runs = 0;
    std::vector<int32_t> ids = {};  // the answer
    int64_t n_draft = 0;            // tokens to guess at a time
    // Guessed ids that run, or ran, together with a chosen one and wait to be chosen too; once they ran, each with the logits [V] behind
    // it. Their keys and values lie in the cache behind those of cached_.
    std::deque<std::pair<int32_t, std::vector<float>>> guesses = {};
    int64_t n_guessed = 0, n_right = 0;
    std::string text = {};
    double started_ms = 0, prefilled_ms = 0, first_token_ms = 0, last_token_ms = 0;
  };

  Result<bool> advance();
  Result<bool> mend();
  void lose(const Error& error);
  void begin_anew();
  void tell_device(const char* state, std::string_view why);
  Result<bool> wait();
  Result<bool> submit(const Pass& pass, std::span<const int32_t> ids, int64_t position);
  Result<bool> take_choice();
  bool chooses_ahead() const;
  void leave();
  Result<std::vector<int32_t>> prompt_ids(const Options& options, std::string_view request_json) const;
  Result<bool> prefill();
  Result<bool> decode();
  Result<bool> choose(Program& program);
  Result<bool> choose(std::span<float> logits);
  void guess(int32_t newest);
  void drop_guesses();
  Result<bool> accept(int32_t id);
  void keep(int64_t n_tokens);
  bool finish(const char* reason);

  Model& model_;
  int64_t context_;
  KvPages kv_;
  std::vector<int32_t> cached_;  // tokens whose keys and values are in the cache, in order
  uint64_t life_;                // of the model, in which the cache was made; 0: it is lost
  std::optional<Answer> answer_;
  Program* running_ = nullptr;  // whose logits are on their way
  bool waits_ = false, wants_weights_ = false, is_mending_ = false;
  std::deque<std::string> events_;
};

}  // namespace sb
