// The plan of a model against what the same model then takes, through the door that clients use: fixtures of tests/golden, every tag.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/json.h"
#include "capi/subbyte.h"

namespace sb {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return file ? text.str() : "";
}

/// Answers a load from a folder; returns how many bytes it asked for, or −1 after an error.
int64_t serve(sb_load* load, const std::string& folder) {
  sb_request wanted;
  int64_t n_read = 0;
  for (int32_t kind; (kind = sb_load_next(load, &wanted)) != SB_LOAD_DONE;) {
    if (kind < 0) return -1;
    const std::string bytes = read_file(folder + "/" + wanted.file);
    if (kind == SB_LOAD_WANTS_SIZE) {
      sb_load_size(load, bytes.empty() ? -1 : int64_t(bytes.size()));
    } else {
      std::memcpy(wanted.dst, bytes.data() + wanted.offset, wanted.n_bytes);
      n_read += int64_t(wanted.n_bytes);
      sb_load_bytes(load, wanted.n_bytes);
    }
  }
  return n_read;
}

class PlanOfFixture : public testing::TestWithParam<const char*> {
 protected:
  static constexpr int kContext = 96, kPrompt = 71;

  /// Plans, loads and runs the fixture to the end of its context. `engine` goes.
  void run(sb_engine* engine) {
    const std::string folder = std::string(SB_TESTS "/golden/") + GetParam();
    sb_load* shapes = sb_load_create(engine, R"({"container": "folder", "shapes": true})");
    ASSERT_TRUE(shapes);
    const int64_t n_head = serve(shapes, folder);
    ASSERT_GE(n_head, 0) << sb_error();
    const char* text = sb_load_plan(shapes, R"({"context": 96})");
    ASSERT_TRUE(text) << sb_error();
    plan = *json_parse(text, "plan");
    for (const char* bits : {"2", "3", "4", "8", "16", "32"}) {
      text = sb_load_plan(shapes, json_text(Json{{"bits", bits}}).c_str());
      ASSERT_TRUE(text) << bits << ": " << sb_error();
    }
    sb_load_free(shapes);

    sb_memory_reset_peak();
    const Json before = *json_parse(sb_memory(), "memory");
    ASSERT_EQ(before["current"], 0) << "a plan left bytes behind";
    sb_load* load = sb_load_create(engine, R"({"container": "folder"})");
    ASSERT_GT(serve(load, folder), n_head);
    sb_model* model = sb_load_finish(load);
    ASSERT_TRUE(model) << sb_error();
    sb_session* session = sb_session_create(model, json_text(Json{{"context", kContext}}).c_str());
    Json ids = Json::array();
    for (int i = 0; i < kPrompt; ++i) ids.push_back(i % 300);
    ASSERT_EQ(sb_session_start(session, json_text(Json{{"ids", ids}, {"max_tokens", 1000}, {"ignore_eos", true}}).c_str()), 0)
        << sb_error();
    int32_t more;
    while ((more = sb_session_step(session)) == SB_STEP_MORE) {}
    ASSERT_EQ(more, SB_STEP_DONE) << sb_error();
    memory = *json_parse(sb_memory(), "memory");
    sb_session_free(session);
    sb_model_free(model);
    sb_engine_free(engine);
    EXPECT_EQ((*json_parse(sb_memory(), "memory"))["current"], 0);
  }
  void expect_near(const char* tag) const {
    const double planned = plan["by_tag"][tag].get<double>(), measured = memory["by_tag"][tag]["peak"].get<double>();
    EXPECT_NEAR(planned, measured, 0.03 * measured) << tag;
  }

  Json plan, memory;
};

TEST_P(PlanOfFixture, IsWhatTheModelTakes) {
  sb_engine* engine = sb_engine_create(R"({"device": "cpu", "threads": 2})");
  ASSERT_TRUE(engine);
  run(engine);
  if (HasFatalFailure()) return;
  for (const char* tag : {"weights", "kv", "activations", "staging", "scratch", "host"}) expect_near(tag);
  EXPECT_NEAR(plan["peak_bytes"].get<double>(), memory["peak"].get<double>(), 0.03 * memory["peak"].get<double>());
  EXPECT_EQ(plan["device_bytes"], 0);
  EXPECT_EQ(memory["gpu"]["peak"], 0);
}

TEST_P(PlanOfFixture, IsWhatItTakesOfAGpu) {
  sb_engine* engine = sb_engine_create(R"({"device": "webgpu"})");
  if (!engine) GTEST_SKIP() << sb_error();
  run(engine);
  if (HasFatalFailure()) return;
  for (const char* tag : {"weights", "kv", "activations", "staging", "host"}) expect_near(tag);
  // Not every pass that a session may make was made.
  const auto bytes = [](const Json& n) { return n.get<double>(); };
  const double unmade = bytes(plan["by_tag"]["scratch"]) - bytes(memory["by_tag"]["scratch"]["peak"]);
  EXPECT_GE(unmade, 0);
  EXPECT_NEAR(bytes(plan["device_bytes"]) - unmade, bytes(memory["gpu"]["peak"]), 0.03 * bytes(memory["gpu"]["peak"]));
  EXPECT_LE(bytes(memory["peak"]), bytes(plan["peak_bytes"]));
  // The host has small vectors.
  const Json& gpu = memory["gpu"]["by_tag"];
  EXPECT_LE(bytes(memory["by_tag"]["weights"]["current"]) - bytes(gpu["weights"]["current"]), 0.1 * bytes(gpu["weights"]["current"]));
  for (const char* tag : {"kv", "activations", "scratch"}) EXPECT_EQ(memory["by_tag"][tag], gpu[tag]) << tag;
}

INSTANTIATE_TEST_SUITE_P(Families, PlanOfFixture, testing::Values("llama", "llama3_rope", "mistral", "qwen2", "qwen3", "gemma3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PlanDoor, RefusesByName) {
  sb_engine* engine = sb_engine_create(R"({"device": "cpu"})");
  EXPECT_FALSE(sb_plan(engine, R"({"architecture": "nonesuch", "bits": "4"})"));
  EXPECT_NE(std::string(sb_error()).find("whisper-small"), std::string::npos);
  EXPECT_FALSE(sb_plan(engine, R"({"architecture": "llama-7b", "bits": "5"})"));
  EXPECT_NE(std::string(sb_error()).find("kOptionInvalid"), std::string::npos);
  sb_load* load = sb_load_create(engine, R"({"container": "folder", "shapes": true})");
  ASSERT_GE(serve(load, SB_TESTS "/golden/llama"), 0);
  EXPECT_FALSE(sb_load_finish(load));
  EXPECT_NE(std::string(sb_error()).find("sb_load_plan"), std::string::npos);
  sb_engine_free(engine);
}

}  // namespace
}  // namespace sb
