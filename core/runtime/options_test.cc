#include "runtime/options.h"

#include <gtest/gtest.h>

#include <limits>

#include "option_tables.h"

namespace sb {
namespace {

TEST(Options, DefaultsAreTheTables) {
  auto o = Options::parse("", kGenerateOptions);
  ASSERT_TRUE(o);
  EXPECT_EQ(o->integer("max_tokens"), 256);
  EXPECT_EQ(o->number("top_p"), 1.0);
  EXPECT_FALSE(o->flag("ignore_eos"));
  EXPECT_TRUE(o->texts("stop").empty());
  EXPECT_FALSE(o->given("seed"));
  EXPECT_EQ(Options::parse("{}", kEngineOptions)->text("device"), "auto");
}

TEST(Options, EveryDefaultIsOfItsKindAndInRange) {
  auto check = [](std::span<const OptionRow> rows) {
    for (const OptionRow& row : rows) {
      Json object;
      object[row.name] = row.kind == OptionKind::kString ? Json(row.default_text) : *json_parse(row.default_text, row.name);
      EXPECT_TRUE(Options::check(object, rows)) << row.name;
    }
  };
  check(kEngineOptions);
  check(kModelOptions);
  check(kGenerateOptions);
}

TEST(Options, GivesWhatWasGiven) {
  auto o =
      Options::parse(R"({"max_tokens": 7, "top_k": 40.0, "temperature": 1, "stop": ["\n", "é"], "seed": 9007199254740991, "prompt": "hi"})",
                     kGenerateOptions, {"prompt", "messages"});
  ASSERT_TRUE(o);
  EXPECT_EQ(o->integer("max_tokens"), 7);
  EXPECT_EQ(o->integer("top_k"), 40);
  EXPECT_EQ(o->number("temperature"), 1.0);
  EXPECT_EQ(o->texts("stop"), (std::vector<std::string>{"\n", "é"}));
  EXPECT_EQ(o->integer("seed"), 9007199254740991);
  EXPECT_TRUE(o->given("prompt"));
  EXPECT_EQ(*o->extra("prompt"), "hi");
  EXPECT_EQ(o->extra("messages"), nullptr);
}

TEST(Options, RefusesWithReasons) {
  struct Case {
    const char* json;
    const char* message;
  };
  const Case cases[] = {
      {R"({"temprature": 1})", "There is no option \"temprature\""},
      {R"({"prompt": "hi"})", "There is no option \"prompt\""},
      {R"({"max_tokens": 0})", "Option \"max_tokens\" is 0; it must be a whole number from 1 to 1048576"},
      {R"({"max_tokens": -1})", "Option \"max_tokens\" is -1; it must be a whole number from 1 to 1048576"},
      {R"({"max_tokens": 1.5})", "Option \"max_tokens\" is 1.5; it must be a whole number from 1 to 1048576"},
      {R"({"max_tokens": "9"})", "Option \"max_tokens\" is \"9\"; it must be a whole number from 1 to 1048576"},
      {R"({"max_tokens": null})", "Option \"max_tokens\" is null; it must be a whole number from 1 to 1048576"},
      {R"({"seed": 18446744073709551615})",
       "Option \"seed\" is 18446744073709551615; it must be a whole number from 0 to 9007199254740991"},
      {R"({"top_p": 0})", "Option \"top_p\" is 0; it must be a number above 0 and at most 1"},
      {R"({"top_p": 1.01})", "Option \"top_p\" is 1.01; it must be a number above 0 and at most 1"},
      {R"({"repetition_penalty": true})", "Option \"repetition_penalty\" is true; it must be a number from 0.01 to 10"},
      {R"({"ignore_eos": 1})", "Option \"ignore_eos\" is 1; it must be true or false"},
      {R"({"stop": "x"})", "Option \"stop\" is \"x\"; it must be a list of texts, none of them empty"},
      {R"({"stop": [""]})", "Option \"stop\" is [\"\"]; it must be a list of texts, none of them empty"},
      {R"({"stop": [1]})", "Option \"stop\" is [1]; it must be a list of texts, none of them empty"},
      {R"([1])", "The options are no JSON object"},
      {R"({"a")", "the options is not valid JSON: it breaks at byte 5"},
  };
  for (const Case& c : cases) {
    auto o = Options::parse(c.json, kGenerateOptions);
    ASSERT_FALSE(o) << c.json;
    EXPECT_EQ(o.error().message(), c.message);
  }
  auto device = Options::parse(R"({"device": "gpu"})", kEngineOptions);
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code(), Code::kOptionInvalid);
  EXPECT_TRUE(device.error().message().ends_with("it must be one of auto, cpu, webgpu")) << device.error().message();
}

TEST(Options, NamesTheNearest) {
  auto o = Options::parse(R"({"max_token": 1})", kGenerateOptions);
  ASSERT_FALSE(o);
  EXPECT_EQ(o.error().code(), Code::kOptionUnknown);
  EXPECT_EQ(o.error().hint(), "Did you mean \"max_tokens\"?");
  auto also = Options::parse(R"({"mesages": []})", kGenerateOptions, {"messages"});
  ASSERT_FALSE(also);
  EXPECT_EQ(also.error().hint(), "Did you mean \"messages\"?");
  EXPECT_FALSE(Options::parse("{\"" + std::string(1 << 20, 'x') + "\": 1}", kGenerateOptions));
}

TEST(Options, NotFiniteIsRefused) {
  for (double v : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    Json object;
    object["temperature"] = v;
    auto o = Options::check(object, kGenerateOptions);
    ASSERT_FALSE(o);
    EXPECT_EQ(o.error().code(), Code::kOptionInvalid);
  }
}

TEST(Options, LongValuesAreCutOnACharactersEdge) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "é";
  auto o = Options::check(Json{{"max_tokens", text}}, kGenerateOptions);
  ASSERT_FALSE(o);
  EXPECT_LT(o.error().message().size(), 200u);
  EXPECT_TRUE(o.error().message().find("é…;") != std::string::npos);
}

}  // namespace
}  // namespace sb
