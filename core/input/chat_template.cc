#include "input/chat_template.h"

#include "input/jinja.h"

namespace sb {

struct ChatTemplate::Impl {
  jinja::Program program;
};

namespace {
std::unexpected<Error> error_of(const jinja::Failure& failure) {
  if (failure.is_raised) return err(Code::kTemplateRaised, {{"why", failure.why}});
  return err(Code::kTemplateInvalid, {{"line", failure.line}, {"why", failure.why}});
}
}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  jinja::Failure failure;
  std::vector<jinja::Token> tokens = jinja::tokenize(source, failure);
  auto impl = std::make_unique<Impl>();
  if (!failure.happened) impl->program = jinja::parse(tokens, failure);
  if (failure.happened) return error_of(failure);
  return ChatTemplate(std::move(impl));
}

Result<std::string> ChatTemplate::render(const OrderedJson& context) const {
  jinja::Interpreter interpreter(impl_->program, context);
  std::string out = interpreter.run();
  if (interpreter.failure.happened) return error_of(interpreter.failure);
  return out;
}

}  // namespace sb
