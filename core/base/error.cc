#include "base/error.h"

#include "base/host.h"
#include "base/json.h"
#include "base/result.h"

namespace sb {

std::string Error::fill(std::string_view sentence) const {
  std::string out;
  while (!sentence.empty()) {
    size_t open = sentence.find('{');
    size_t close = open == std::string_view::npos ? open : sentence.find('}', open);
    if (close == std::string_view::npos) break;
    out += sentence.substr(0, open);
    std::string_view name = sentence.substr(open + 1, close - open - 1);
    bool found = false;
    for (const ErrorField& field : fields_) {
      if (field.name == name) {
        out += field.value;
        found = true;
        break;
      }
    }
    if (!found) out += "?";
    sentence.remove_prefix(close + 1);
  }
  return out.append(sentence);
}

std::string Error::to_json() const {
  OrderedJson j;
  j["code"] = error_row(code_).name;
  j["message"] = message();
  j["hint"] = hint();
  j["retryable"] = retryable();
  j["of_device"] = of_device();
  for (const ErrorField& field : fields_) j["fields"][field.name] = field.value;
  return json_text(j);
}

Error& Error::with(ErrorField field) {
  for (const ErrorField& known : fields_) {
    if (known.name == field.name) return *this;
  }
  fields_.push_back(std::move(field));
  return *this;
}

void assert_failed(const char* condition, const char* file, int line) {
  std::string text = std::string("subbyte: internal error, please report: ") + condition + " at " + file + ":" + std::to_string(line);
  host_fatal(text);
}

}  // namespace sb
