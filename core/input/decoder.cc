#include "input/decoder.h"

#include <utility>

#include "input/model.h"  // byte_of_letter
#include "input/unicode.h"

namespace sb {

namespace {

void replace_all(std::string& text, std::string_view old, std::string_view fresh) {
  if (old.empty()) return;
  size_t at = text.find(old);
  if (at == std::string::npos) return;
  std::string out;
  size_t from = 0;
  for (; at != std::string::npos; at = text.find(old, from)) {
    out.append(text, from, at - from);
    out += fresh;
    from = at + old.size();
  }
  out.append(text, from, std::string::npos);
  text.swap(out);
}

// The spaces that BERT's pre-tokenizer put between words and marks.
void clean_up(std::string& text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  if (text.find(' ') == std::string::npos) return;
  for (auto [old, fresh] : kRules) replace_all(text, old, fresh);
}

// "<0x0A>" → 10, else -1.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (size_t i = 3; i < 5; ++i) {
    char c = token[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0 && !(i == 3 && c == '+')) return -1;  // Rust's from_str_radix takes a leading plus
    value = value * 16 + (digit < 0 ? 0 : digit);
  }
  return value;
}

std::string strip(std::string_view token, char32_t c, size_t start, size_t stop) {
  std::string mark;
  utf8_append(mark, c);
  for (size_t i = 0; i < start && token.starts_with(mark); ++i) token.remove_prefix(mark.size());
  for (size_t i = 0; i < stop && token.ends_with(mark); ++i) token.remove_suffix(mark.size());
  return std::string(token);
}

}  // namespace

void finish_decoder(std::vector<DecoderStep>& steps) {
  if (steps.empty()) steps.emplace_back(DecoderStep{}).kind = DecoderStep::kJoin;
  bool plain = true;
  for (size_t i = steps.size(); i-- > 0;) {
    DecoderStep& s = steps[i];
    if (s.kind == DecoderStep::kFuse || s.kind == DecoderStep::kByteLevel) s.streams = plain;
    plain = plain && ((s.kind == DecoderStep::kStrip && s.stop == 0) || s.kind == DecoderStep::kFuse);
  }
  bool fused = false;
  for (DecoderStep& s : steps) {
    if (s.kind == DecoderStep::kStrip) {
      s.streams = fused;
    } else {
      fused = s.streams;
    }
  }
}

void DecoderRun::feed(size_t step, std::string_view token) {
  if (step == steps_->size()) {
    out_ += token;
    return;
  }
  const DecoderStep& s = (*steps_)[step];
  State& state = states_[step];
  const bool first = state.n_tokens++ == 0;
  switch (s.kind) {
    case DecoderStep::kJoin:
      if (!first) out_ += ' ';
      return feed(step + 1, token);
    case DecoderStep::kByteLevel: {
      size_t start = state.held.size();
      for (size_t at = 0; at < token.size();) {
        int b = byte_of_letter(utf8_next(token, at));
        if (b < 0) {  // one letter that is none: the token is taken as it stands
          state.held.resize(start);
          state.held += token;
          break;
        }
        state.held += char(b);
      }
      if (!s.streams) return;
      size_t n = utf8_decided(state.held);
      if (n == 0) return;
      std::string text;
      utf8_append_lossy(text, std::string_view(state.held).substr(0, n));
      state.held.erase(0, n);
      return feed(step + 1, text);
    }
    case DecoderStep::kWordPiece: {
      std::string text;
      if (first) {
        text = token;
      } else if (token.starts_with(s.text)) {
        text = token.substr(s.text.size());
      } else {
        text = " ";
        text += token;
      }
      if (s.cleans) clean_up(text);
      return feed(step + 1, text);
    }
    case DecoderStep::kMetaspace: {
      std::string mark, text(token);
      utf8_append(mark, s.character);
      replace_all(text, mark, first && s.drops_first ? "" : " ");
      return feed(step + 1, text);
    }
    case DecoderStep::kByteFallback:
      // Bytes wait for the whole run: if it is not UTF-8 from end to end, each of them becomes U+FFFD.
      if (int b = byte_of_token(token); b >= 0) {
        state.held += char(b);
        return;
      }
      flush_bytes(step);
      return feed(step + 1, token);
    case DecoderStep::kFuse:
      if (s.streams) return feed(step + 1, token);
      state.held += token;
      return;
    case DecoderStep::kStrip: {
      if (!s.streams) return feed(step + 1, strip(token, s.character, s.start, s.stop));
      // Parts of one token: the first `start` characters may go, as long as no other came before.
      std::string mark;
      utf8_append(mark, s.character);
      while (state.open && !token.empty()) {
        state.open = state.held.size() < s.start && token.starts_with(mark);
        if (!state.open) break;
        token.remove_prefix(mark.size());
        state.held += 'x';  // counts
      }
      return feed(step + 1, token);
    }
    case DecoderStep::kReplace: {
      std::vector<RegexSearch::Match> matches;
      std::string text;
      size_t from = 0;
      s.pattern.find_all(token, matches);
      for (auto [start, end] : matches) {
        text += token.substr(from, start - from);
        text += s.text;
        from = end;
      }
      text += token.substr(from);
      return feed(step + 1, text);
    }
    case DecoderStep::kBpe: {
      std::string before = std::exchange(state.held, std::string(token));
      if (!state.holds) {
        state.holds = true;
        return;
      }
      replace_all(before, s.text, " ");
      return feed(step + 1, before);
    }
    case DecoderStep::kCtc: {
      if (state.holds && state.held == token) return;
      state.holds = true;
      state.held = token;
      std::string text(token);
      replace_all(text, s.text, "");
      if (s.cleans) {
        clean_up(text);
        replace_all(text, s.delimiter, " ");
      }
      if (!text.empty()) feed(step + 1, text);
      return;
    }
  }
}

void DecoderRun::flush_bytes(size_t step) {
  State& state = states_[step];
  if (state.held.empty()) return;
  std::string bytes = std::exchange(state.held, {});
  if (utf8_invalid_at(bytes) == std::string_view::npos) return feed(step + 1, bytes);
  for (size_t i = 0; i < bytes.size(); ++i) feed(step + 1, "\xEF\xBF\xBD");
}

void DecoderRun::flush(size_t step) {
  const DecoderStep& s = (*steps_)[step];
  State& state = states_[step];
  switch (s.kind) {
    case DecoderStep::kByteLevel: {
      std::string text;
      utf8_append_lossy(text, state.held);
      return feed(step + 1, text);
    }
    case DecoderStep::kByteFallback:
      return flush_bytes(step);
    case DecoderStep::kFuse:
      if (!s.streams) feed(step + 1, std::exchange(state.held, {}));
      return;
    case DecoderStep::kBpe:
      if (!state.holds) return;
      replace_all(state.held, s.text, "");
      return feed(step + 1, std::exchange(state.held, {}));
    default:
      return;
  }
}

void DecoderRun::finish() {
  for (size_t step = 0; step < steps_->size(); ++step) flush(step);
  states_.assign(steps_->size(), State());
}

}  // namespace sb
