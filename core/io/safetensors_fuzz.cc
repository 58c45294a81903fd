// Any bytes as a folder: sections divided by lines of "===": config.json, a safetensors file, and, if there is a third, the index that
// names the file as model-1.safetensors. A single section is a safetensors file.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/synthetic_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sb;
  constexpr std::string_view kDivider = "\n===\n";
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> sections;
  while (sections.size() < 2) {
    const size_t end = rest.find(kDivider);
    if (end == std::string_view::npos) break;
    sections.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + kDivider.size());
  }
  sections.emplace_back(rest);

  testing_files::Files files = {{"config.json", R"({"model_type": "llama"})"}};
  if (sections.size() == 1) {
    files["model.safetensors"] = sections[0];
  } else {
    files["config.json"] = sections[0];
    files["tokenizer_config.json"] = sections[0];
    files[sections.size() == 2 ? "model.safetensors" : "model-1.safetensors"] = sections[1];
    if (sections.size() == 3) files["model.safetensors.index.json"] = sections[2];
  }
  const uint64_t n = size;
  testing_files::Host host{.files = std::move(files)};
  const LoadTuning tuning{.first_bytes = 1 + n % 97 * 10, .most_request_bytes = 16 + n % 13 * 400, .most_shared_bytes = n % 7 * 100};
  const auto model = host.run(Loading::folder("fuzz", tuning));
  SB_ASSERT(model && host.broken_promise.empty());
  if (*model) {
    SB_ASSERT((*model)->weights.n_bytes() <= size);
    (void)(*model)->config.integers("eos_token_id");
  } else {
    SB_ASSERT(!model->error().to_json().empty());
  }
  return 0;
}
