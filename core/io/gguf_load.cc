// Loads one GGUF file: its head, grown until it parses, then the tensors in the file's order.
#include <algorithm>

#include "io/gguf.h"
#include "io/load_task.h"

namespace sb {

LoadTask<Result<ModelFiles>> load_gguf(Loading::State& state) {
  const std::optional<uint64_t> size = co_await ask_size(state, "");
  if (!size) co_return err(Code::kFileMissing, {{"file", state.file}});
  state.progress = {"index", 0, *size};

  GgufHead head;
  TensorFile from{.file = "", .label = state.file, .places = {}, .start = {}, .start_bytes = 0};
  for (uint64_t n_wanted = state.tuning.first_bytes;;) {
    SB_CO_OK(co_await extend_start(state, from, std::min(*size, n_wanted)).in(state));
    SB_CO_TRY(const uint64_t n_needed, gguf_parse_head(from.start.bytes(), *size, state.file, head));
    if (n_needed == 0) break;
    n_wanted = std::max(n_needed, 2 * from.start_bytes);
  }
  from.places = std::move(head.tensors);
  const Config config(Container::kGguf, state.file, std::move(head.metadata));
  if (state.see_shapes) state.heads = {.n_files = 1, .see = [&] { show_shapes(state, config, std::nullopt); }, .files = {}};
  state.heads.add(from.label, from.places);

  state.progress.phase = "weights";
  WeightStore weights(state.file, Container::kGguf);
  auto take = [&](const TensorPlace& place, TensorBytes bytes) { return add_tensor(place, state.file, std::move(bytes), weights); };
  SB_CO_OK(co_await read_tensors(state, std::move(from), take).in(state));
  SB_CO_OK(co_await end_sending(state).in(state));
  state.progress.done_bytes = *size;
  ModelFiles files = files_without_texts(state, config, std::move(weights));
  files.vocab = std::move(head.vocab);
  files.chat_template = std::move(head.chat_template);
  co_return std::move(files);
}

}  // namespace sb
