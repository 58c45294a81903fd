// Any bytes as a GGUF file: the whole load, in requests of sizes that the input's length decides.
#include <cstddef>
#include <cstdint>
#include <string>

#include "io/synthetic_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sb;
  const uint64_t n = size;
  testing_files::Host host{.files = {{"", std::string(reinterpret_cast<const char*>(data), size)}}};
  const LoadTuning tuning{.first_bytes = 1 + n % 97 * 40, .most_request_bytes = 16 + n % 13 * 400, .most_shared_bytes = n % 7 * 100};
  const auto model = host.run(Loading::gguf("fuzz.gguf", tuning));
  SB_ASSERT(model && host.broken_promise.empty() && host.n_bytes <= size);
  if (*model) {
    SB_ASSERT((*model)->weights.n_bytes() <= size);
    (void)(*model)->config.dimension("num_hidden_layers");
    (void)json_text((*model)->config.values());
  } else {
    SB_ASSERT(!model->error().to_json().empty());
  }
  return 0;
}
