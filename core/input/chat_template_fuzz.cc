#include "input/chat_template.h"

// Any bytes as a template: parse, then render with a conversation that has a bit of everything.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const sb::OrderedJson context = *sb::json_parse_ordered(
      R"({"messages": [{"role": "system", "content": " be brief "}, {"role": "user", "content": [{"type": "text", "text": "h\u00e9"}]},
          {"role": "assistant", "content": null, "tool_calls": [{"id": "abc123XYZ", "function": {"name": "f", "arguments": {"a": 1.5}}}]},
          {"role": "tool", "content": "7"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"items": []}}}],
          "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "date": "2024-07-26"})",
      "context");
  auto parsed = sb::ChatTemplate::parse({reinterpret_cast<const char*>(data), size});
  if (parsed) (void)parsed->render(context);
  return 0;
}
