// Chat templates: the subset of Jinja that models' templates really use.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace sb {

class ChatTemplate {
 public:
  /// Errors: kTemplateInvalid {line, why} (syntax, or a filter, test or statement we do not know, named).
  static Result<ChatTemplate> parse(std::string_view source);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// Renders with the variables of `context`: messages, tools, add_generation_prompt, bos_token, eos_token …
  /// Errors: kTemplateRaised (raise_exception in the template), kTemplateInvalid {line, why}; runaway loops and output are bounded.
  Result<std::string> render(const OrderedJson& context) const;

  struct Impl;

 private:
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sb
