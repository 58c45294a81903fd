#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>

#include "commands.h"

namespace cli {
namespace {

struct TokenizeArguments {
  std::string source, text;
  std::vector<int32_t> ids;
  bool decode = false, json = false, lines = false, no_special = false, keep_special = false;
};

/// A GGUF's head may be long; only as much of the file as it takes is read.
Tokenizer open_tokenizer(const std::string& source) {
  std::string path = source;
  if (std::filesystem::is_directory(path)) path = (std::filesystem::path(path) / "tokenizer.json").string();
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) throw Failure{"kFileMissing", path + " was not found", "Give a GGUF file, a tokenizer.json, or a folder that holds one."};
  const bool gguf = path.ends_with(".gguf");
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  std::string bytes;
  for (uint64_t n = gguf ? 1 << 20 : size;; n *= 2) {
    n = std::min(n, size);
    const size_t have = bytes.size();
    bytes.resize(n);
    if (!file || std::fread(bytes.data() + have, 1, n - have, file.get()) != n - have)
      throw Failure{"kReadFailed", "Reading " + path + " failed", "Check the file's permissions."};
    if (Tokenizer tokenizer{sb_tokenizer_create(bytes.data(), bytes.size())}) return tokenizer;
    if (n == size || Json::parse(sb_error())["code"] != "kModelTruncated") fail_with_last_error();
  }
}

void print_encoded(sb_tokenizer* tokenizer, const std::string& text, const TokenizeArguments& a) {
  const Json options = {{"add_special", !a.no_special}, {"tokens", true}};
  const Json out = parsed(sb_tokenizer_encode(tokenizer, text.data(), text.size(), options.dump().c_str()));
  if (a.json) {
    std::printf("%s\n", out.dump().c_str());
    return;
  }
  for (size_t i = 0; i < out["ids"].size(); ++i)
    std::printf("%8d  %s\n", out["ids"][i].get<int>(), out["tokens"][i].get<std::string>().c_str());
}

void tokenize(const TokenizeArguments& a) {
  const Tokenizer tokenizer = open_tokenizer(a.source);
  if (a.decode) {
    const Json options = {{"skip_special", !a.keep_special}};
    uint64_t n_bytes = 0;
    const char* text = checked(sb_tokenizer_decode(tokenizer.get(), a.ids.data(), a.ids.size(), options.dump().c_str(), &n_bytes));
    if (a.json) {
      std::printf("%s\n", Json{{"text", std::string(text, n_bytes)}}.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    } else {
      std::fwrite(text, 1, n_bytes, stdout);
      std::printf("\n");
    }
    return;
  }
  if (!a.lines) return print_encoded(tokenizer.get(), a.text, a);
  // A JSON string a line, so that a text may hold anything.
  for (std::string line; std::getline(std::cin, line);) print_encoded(tokenizer.get(), Json::parse(line).get<std::string>(), a);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto a = std::make_shared<TokenizeArguments>();
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, or back with --decode");
  command->add_option("SOURCE", a->source, "A GGUF file, a tokenizer.json, or a folder that holds one")->required();
  CLI::Option* text = command->add_option("TEXT", a->text, "The text");
  CLI::Option* decode = command->add_option("--decode", a->ids, "Token ids to turn into text")->delimiter(',');
  CLI::Option* lines = command->add_flag("--lines", a->lines, "Read texts from standard input, a JSON string a line");
  text->excludes(decode)->excludes(lines);
  command->add_flag("--json", a->json, "As JSON, a line a text");
  command->add_flag("--no-special", a->no_special, "Leave out what the tokenizer adds around a text");
  command->add_flag("--keep-special", a->keep_special, "With --decode: write special tokens too");
  command->callback([a, text, decode, lines] {
    a->decode = decode->count() > 0;
    if (!a->decode && !lines->count() && !text->count()) throw CLI::RequiredError("TEXT, --decode or --lines");
    tokenize(*a);
  });
}

}  // namespace cli
