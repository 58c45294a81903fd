/* subbyte's C API: the only door out of the core. The web engine, the CLI and the Python package all come through here.
 *
 * Conventions
 *   - Handles are opaque; every sb_<noun>_free(NULL) is a no-op.
 *   - Options and reports are JSON text (UTF-8). An unknown option is an error that names the nearest one.
 *   - A function that can fail returns NULL or a negative number; sb_error() then has {code, message, hint, retryable, fields}.
 *   - Returned `const char*` belongs to the library and lives until the next call on the same handle (sb_error: on the same thread).
 *   - Nothing blocks: a load says which bytes it wants, a session runs one step a call. A handle is used by one thread at a time.
 */
#ifndef SUBBYTE_H
#define SUBBYTE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__wasm__)
#define SB_API __attribute__((visibility("default"), used))
#else
#define SB_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sb_engine sb_engine;
typedef struct sb_load sb_load;
typedef struct sb_model sb_model;
typedef struct sb_tokenizer sb_tokenizer;
typedef struct sb_session sb_session;

/* ---- The library ---- */

/* {version, build: native|simd|relaxed|simd-threads|relaxed-threads, sanitizers}. */
SB_API const char* sb_version(void);
/* Every option: {engine: [{name, type, default, min?, max?, one_of?, doc}], model: […], plan: […], generate: […]}. */
SB_API const char* sb_options(void);
/* The last error of this thread as JSON, or NULL. */
SB_API const char* sb_error(void);
/* Books of memory: {current, peak, by_tag: {weights: {current, peak}, kv, activations, staging, scratch, host}, gpu: {current, peak,
 * by_tag}}; bytes. `gpu`: what of all that lies in a GPU's own memory. */
SB_API const char* sb_memory(void);
/* Peaks start anew from the current bytes. */
SB_API void sb_memory_reset_peak(void);

/* ---- Engine: the device and its threads ---- */

/* options: data/options.json "engine". */
SB_API sb_engine* sb_engine_create(const char* options_json);
SB_API void sb_engine_free(sb_engine*);
/* {device, device_why: why it is not the GPU where that was wanted, isa, threads, threads_why, gpu?: {adapter, vendor, software, …},
 * families: [...], dtypes: [...]}. */
SB_API const char* sb_engine_capabilities(sb_engine*);
/* Measures which of the CPU's kernels, and how many threads, answer soonest here: about a second, whatever the engine's own device.
 * {isa, threads, measured: [{isa, threads, gweights_per_s, gmac_per_s, answer_ns}]}: of one token, of a prompt's, a weight of a usual
 * answer. In a page, whose host makes the threads, those of this engine (on the CPU) and one are measured, and the host chooses: no threads
 * then. */
SB_API const char* sb_engine_tuning(sb_engine*);
/* After a load that failed with kDeviceLost: opens the GPU anew. SB_STEP_DONE: load again; SB_STEP_WAITS, in a page: ask again when the GPU
 * has answered; or negative, also when it was lost too often lately. */
SB_API int32_t sb_engine_reopen(sb_engine*);
/* After a load on the GPU that failed: loads from now on run on the CPU, `why` goes into the capabilities. 1; or 0 and nothing changes,
 * where the option "fallback" is off or it is the CPU already. */
SB_API int32_t sb_engine_fall_back(sb_engine*, const char* why);

/* ---- Loading: the core pulls, the host brings ---- */

enum { SB_LOAD_DONE = 0, SB_LOAD_WANTS_SIZE = 1, SB_LOAD_WANTS_BYTES = 2, SB_LOAD_WAITS = 3 };

typedef struct sb_request {
  const char* file; /* name relative to the model's folder; "" is the model file itself (a GGUF) */
  uint64_t offset;  /* bytes from the file's start; requests on a file come in rising order wherever the format allows */
  uint64_t n_bytes; /* at most 16 MiB a request */
  void* dst;        /* where the bytes go */
} sb_request;

/* options: {file: name shown in errors, container: "gguf"|"folder", shapes = false (sb_load_plan), and those of data/options.json
 * "model"}. */
SB_API sb_load* sb_load_create(sb_engine*, const char* options_json);
/* What is wanted next: SB_LOAD_WANTS_SIZE (answer with sb_load_size), SB_LOAD_WANTS_BYTES (write them to request->dst,
 * answer with sb_load_bytes), SB_LOAD_DONE (then sb_load_finish), or negative for an error.
 * In a page also SB_LOAD_WAITS: the GPU has not taken what was brought so far; call again when it has. */
SB_API int32_t sb_load_next(sb_load*, sb_request* request);
/* The file's size in bytes; -1 says that there is no such file. */
SB_API int32_t sb_load_size(sb_load*, int64_t n_bytes);
/* How many of the wanted bytes were written; fewer than wanted means that the file ends there. */
SB_API int32_t sb_load_bytes(sb_load*, uint64_t n_bytes);
/* The host has summed a component of a quantised folder, found the SHA-256 of the index, and answers with those bytes: they are not summed
 * again. Before the first of them is answered. */
SB_API int32_t sb_load_summed(sb_load*, const char* component);
/* {phase: "index"|"tokenizer"|"weights", done_bytes, total_bytes}. */
SB_API const char* sb_load_progress(sb_load*);
/* Builds the model; the load is used up, also when this fails. */
SB_API sb_model* sb_load_finish(sb_load*);
/* Gives up a load that is not finished. */
SB_API void sb_load_free(sb_load*);

/* ---- Plan: what a model takes, before any weight is here ---- */

/* Of an architecture by name (data/architectures.json). request: {architecture, and data/options.json "plan"}.
 * {name, n_parameters, bits, bpw, context, kv_bits, kv_is_planned, by_rule, by_tag: {weights, kv, activations, staging, scratch, host},
 * peak_bytes, device_bytes, download_bytes}: bytes at most, at a full context. device_bytes: what of it lies in a GPU's own memory.
 * by_rule: no family here knows it, so its activations are those of one layer of each kind. kv_is_planned: the engine has no such cache
 * yet. */
SB_API const char* sb_plan(sb_engine*, const char* request_json);
/* The same of a file or folder whose load was created with {"shapes": true} and is done; such a load reads heads only and finishes to no
 * model. May be asked again, until the load is freed. */
SB_API const char* sb_load_plan(sb_load*, const char* request_json);

/* ---- Model ---- */

SB_API void sb_model_free(sb_model*);
/* {name, family, context, vocab, layers, hidden, has_chat_template, has_tokenizer, n_parameters, weight_bytes, bpw, device,
 * planes: "base"|"partial"|"full", has_refinement, ...}. */
SB_API const char* sb_model_info(sb_model*);
/* After an answer: how long each of the steps takes that make a token, {n_tokens, repeats, steps: [{step, groups, us}]}. For developers;
 * reset sessions afterwards. Errors: kOpUnsupported (the CPU), kArgumentInvalid (before an answer, or in a page). */
SB_API const char* sb_model_profile(sb_model*);
/* [{name, dtype, shape, n_bytes, bpw}] in file order. */
SB_API const char* sb_model_tensors(sb_model*);
/* The model's own tokenizer, borrowed: valid while the model is, never freed by the caller. NULL if the files have none. */
SB_API sb_tokenizer* sb_model_tokenizer(sb_model*);
/* Messages to prompt text. request: {messages: [{role, content, ...}], tools?, add_generation_prompt = true}. */
SB_API const char* sb_model_chat(sb_model*, const char* request_json);

/* ---- Whether the GPU computes rightly ---- */

/* After a load and before the first session: what a verdict holds for, 16 hex digits of the adapter and of the kernels that this model
 * runs;
 * "" on the CPU, where there is nothing to check. A host may keep keys that passed, and not check them again. */
SB_API const char* sb_model_check_key(sb_model*);
/* Checks a few kernels, over small random weights, against the CPU. SB_STEP_MORE, SB_STEP_WAITS (in a page), SB_STEP_DONE; or
 * negative, with kDeviceWrong {adapter, op, error} where it computes wrongly: the model is not to be used then. Takes 8 s at most. */
SB_API int32_t sb_model_check_step(sb_model*);
/* After the last step: {kernels: that the model runs, checked: of these, stretches, worst: squared error over squared values, ms}. */
SB_API const char* sb_model_check_report(sb_model*);

/* ---- A device that is lost ---- */

/* A load of the model's weights from where they came, to be driven like any other; see SB_STEP_WANTS_WEIGHTS. */
SB_API sb_load* sb_model_reload(sb_model*);
/* Gives the model what that load brought. The load is used up. Errors: those of sb_load_finish; kModelChanged. */
SB_API int32_t sb_model_restore(sb_model*, sb_load*);

/* ---- Progressive precision: the refinement planes of a quantised folder ---- */

/* A load of the refinement that this model's folder has, to be driven like any other while the model is in use: NULL with
 * kRefinementMissing when there is none. Its progress knows the total bytes from the start. */
SB_API sb_load* sb_model_refinement(sb_model*);
/* Gives the model what that load brought, between two steps of its sessions, whose caches stay. The load is used up. */
SB_API int32_t sb_model_refine(sb_model*, sb_load*);
/* Takes refinements away again between two steps, whole matrices in the order that the folder's index names, until at least n_bytes are
 * free (UINT64_MAX: all): {freed_bytes}. sb_model_refinement then loads what is missing. */
SB_API const char* sb_model_drop_refinement(sb_model*, uint64_t n_bytes);

/* ---- Tokenizer ---- */

/* From the bytes of a tokenizer.json, or of a GGUF file's head (as much as holds its metadata). */
SB_API sb_tokenizer* sb_tokenizer_create(const void* data, uint64_t n_bytes);
SB_API void sb_tokenizer_free(sb_tokenizer*);
/* Text (n_bytes of UTF-8) to ids: {"ids": [...], "tokens": [...]}. options: {add_special = true, tokens = false}. */
SB_API const char* sb_tokenizer_encode(sb_tokenizer*, const char* text, uint64_t n_bytes, const char* options_json);
/* Ids to text; *n_bytes gets its length (it may hold NUL). options: {skip_special = true}. */
SB_API const char* sb_tokenizer_decode(sb_tokenizer*, const int32_t* ids, uint64_t n_ids, const char* options_json, uint64_t* n_bytes);

/* ---- Session: one conversation, its KV cache and its sampler ---- */

enum { SB_STEP_DONE = 0, SB_STEP_MORE = 1, SB_STEP_WAITS = 2, SB_STEP_WANTS_WEIGHTS = 3 };

/* options: {context}: tokens this session can hold; default the model's. */
SB_API sb_session* sb_session_create(sb_model*, const char* options_json);
SB_API void sb_session_free(sb_session*);
/* Starts an answer. request: one of {prompt: text as it is}, {messages: [...], tools?, date?: "2026-01-31"}, {ids: [...]}, plus
 * data/options.json "generate". `date` is for templates that write it; the core has no calendar.
 * With messages, what the cache already holds of the same conversation is not computed again.
 * Errors: kSessionBusy while an answer runs. */
SB_API int32_t sb_session_start(sb_session*, const char* request_json);
/* One step: a chunk of the prompt, or one token. SB_STEP_MORE, SB_STEP_DONE, or negative (the answer has ended with an error).
 * In a page also SB_STEP_WAITS: the GPU has not answered yet; call again when it has.
 * SB_STEP_WANTS_WEIGHTS: the GPU was lost, and the weights with it; bring them by sb_model_reload and sb_model_restore, then go on
 * stepping: the answer goes on where it was. A GPU that is lost for the fourth time within a minute is given up: the answer ends with
 * kDeviceLost, or goes on on the CPU where the engine's option "fallback" allows it. */
SB_API int32_t sb_session_step(sb_session*);
/* The next event, or NULL when there is none: {"type": "prefill", n_tokens, done, ms}, {"type": "token", id, text, ms, top?: [{id,
 * logit}]},
 * {"type": "done", finish_reason: "stop"|"length"|"cancelled"|"context", usage: {prompt_tokens, cached_tokens, completion_tokens,
 * guessed_tokens, guessed_right (draft_tokens: guesses checked, and those that were chosen), prefill_ms, decode_ms, first_token_ms,
 * prefill_tokens_per_s, decode_tokens_per_s}, text, ids},
 * {"type": "device", state: "lost"|"restored"|"fallback" (another device goes on), device, why}.
 * `text` of a token is whole UTF-8 characters only; it may be empty while a character is incomplete or a stop text may be beginning. */
SB_API const char* sb_session_event(sb_session*);
/* Ends the running answer now; a "done" event with "cancelled" follows. The session is ready at once. */
SB_API void sb_session_cancel(sb_session*);
/* Forgets the conversation and empties the cache. Errors: kSessionBusy while an answer runs. */
SB_API int32_t sb_session_reset(sb_session*);
/* {n_tokens, context, kv_bytes}. */
SB_API const char* sb_session_info(sb_session*);

/* ---- Quantising: a model becomes a folder of low-bit planes ---- */

typedef struct sb_quantizer sb_quantizer;
typedef struct sb_write {
  const char* file; /* name in the folder */
  uint64_t offset;  /* bytes from the file's start */
  uint64_t n_bytes;
  const void* data; /* until the next call on this quantizer */
} sb_write;

/* A place outside memory, a file say, for what quantising keeps of the text between two steps: megabytes a thousand tokens. Called within
 * create, step and write; what was kept at an offset is brought back from it. Both answer 0, or -1 when it could not be done. */
typedef struct sb_scratch {
  void* context;
  int32_t (*keep)(void* context, uint64_t offset, const void* bytes, uint64_t n_bytes);
  int32_t (*bring)(void* context, uint64_t offset, void* bytes, uint64_t n_bytes);
} sb_scratch;

/* `load`: complete, of the source; it is used up, also when this fails. `text` (n_bytes of UTF-8) is what to calibrate on. `scratch` is
 * copied; NULL keeps all in memory. options: data/options.json "quantize", and allocation: {group: format}. */
SB_API sb_quantizer* sb_quantizer_create(sb_engine*, sb_load* load, const char* text, uint64_t n_bytes, const sb_scratch* scratch,
                                         const char* options_json);
SB_API void sb_quantizer_free(sb_quantizer*);
/* A stretch of work. SB_STEP_MORE, SB_STEP_DONE, or negative. Between steps the writes are to be taken. */
SB_API int32_t sb_quantizer_step(sb_quantizer*);
/* 1 and fills `write` when bytes wait to be written, else 0. */
SB_API int32_t sb_quantizer_write(sb_quantizer*, sb_write* write);
/* Queues a checkpoint: sb_quantizer_write gives it as the file "checkpoint", from its start, and all of it is to be taken before the next
 * step. 1; or 0 and nothing is queued, once all is done. Tuning goes on at the optimiser's step or the measurement that it was in. */
SB_API int32_t sb_quantizer_checkpoint(sb_quantizer*);
/* Before the first step: goes on from a checkpoint that a run over the same source, text and options made. The folder's other files are to
 * be as that run left them. */
SB_API int32_t sb_quantizer_resume(sb_quantizer*, const void* bytes, uint64_t n_bytes);
/* {phase: "sensitivity"|"quantize"|"tune"|"done", fraction, seconds_left?}: of all before tuning, by the rates measured so far. */
SB_API const char* sb_quantizer_progress(sb_quantizer*);
/* {n_parameters, weight_bytes, bpw, bpw_linears, bpw_embedding, mean_proxy, formats, sensitivity?}. */
SB_API const char* sb_quantizer_report(sb_quantizer*);

/* ---- Evaluation: what a model lost ---- */

typedef struct sb_eval sb_eval;
/* The models must outlive it; `reference` may be NULL. options: data/options.json "eval". */
SB_API sb_eval* sb_eval_create(sb_model* model, sb_model* reference, const char* text, uint64_t n_bytes, const char* options_json);
SB_API void sb_eval_free(sb_eval*);
/* One window of text. SB_STEP_MORE, SB_STEP_DONE, or negative. */
SB_API int32_t sb_eval_step(sb_eval*);
/* So far: {ppl, ppl_se, kl, kl_se, top1, top1_ref, top1_drop, top1_drop_se, agree, ppl_ref, n_tokens, n_windows, done_windows,
 * weight_bytes, bpw, bpw_linears, bpw_embedding}. Without a reference the keys that compare are absent. */
SB_API const char* sb_eval_report(sb_eval*);

/* ---- Proof: a model against reference outputs ---- */

/* Starts the model on the `in.*` tensors of a golden.safetensors, whose bytes must stay until the last step. */
SB_API int32_t sb_golden_start(sb_model*, const void* golden, uint64_t n_bytes);
/* One pass of it. SB_STEP_MORE, SB_STEP_WAITS, SB_STEP_DONE, or negative. */
SB_API int32_t sb_golden_step(sb_model*);
/* After the last step, how its `out.*` compare: {passed, outputs: [{name, n, max_abs, worst: |a-b|/(1+|b|), tolerance, passed}]}. */
SB_API const char* sb_golden_report(sb_model*);
/* After the last step, what was computed, as the bytes of a safetensors file under the golden names. */
SB_API const void* sb_golden_dump(sb_model*, uint64_t* n_bytes);

/* ---- WebAssembly only ---- */

#if defined(__wasm__)
SB_API void* sb_alloc(uint32_t n_bytes);
SB_API void sb_dealloc(void*);
/* A pool thread's whole life (builds with threads): the host gives each worker its stack and TLS, then calls this. Returns when the
 * engine is freed. */
SB_API void sb_worker_run(int32_t index);
#endif

#ifdef __cplusplus
}
#endif
#endif
