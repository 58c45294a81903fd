// The GPU natively: what becomes of an answer whose device is lost, and of kernels that are wrong. Through the command line's client of the
// C API. A GPU is needed, a software one at least.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "client.h"
#include "device/webgpu/gpu.h"

extern "C" {
void lose_gpu(int after, int times);

// --wrap: each text that becomes a pipeline comes by here.
sb::GpuId __real_gpu_pipeline(const char* wgsl, uint32_t n);
sb::GpuId __wrap_gpu_pipeline(const char* wgsl, uint32_t n);
uint32_t __real_gpu_info(char* to, uint32_t n);
uint32_t __wrap_gpu_info(char* to, uint32_t n);
}

namespace {

std::string g_from, g_to;            // of every kernel's text
std::string g_info_from, g_info_to;  // of what the GPU says of itself

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; !from.empty() && (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  return text;
}

}  // namespace

sb::GpuId __wrap_gpu_pipeline(const char* wgsl, uint32_t n) {
  const std::string text = replaced({wgsl, n}, g_from, g_to);
  return __real_gpu_pipeline(text.data(), uint32_t(text.size()));
}
uint32_t __wrap_gpu_info(char* to, uint32_t n) {
  char text[4096];
  const std::string info = replaced({text, __real_gpu_info(text, sizeof text)}, g_info_from, g_info_to);
  std::copy_n(info.data(), std::min<size_t>(n, info.size()), to);
  return uint32_t(info.size());
}

namespace cli {
namespace {

const std::string kModel = SB_TESTS "/golden/llama";

class Trust : public testing::Test {
 protected:
  void SetUp() override {
    g_from = g_to = g_info_from = g_info_to = "";
    lose_gpu(-1, 0);
    const char* library = std::getenv("SUBBYTE_WEBGPU");
    ASSERT_TRUE(library) << "the test's own library must be named";
    try {
      open_engine(kGpu);
    } catch (const Failure& failure) {
      ASSERT_FALSE(std::getenv("SUBBYTE_NEEDS_GPU")) << failure.message;
      GTEST_SKIP() << failure.message;
    }
  }
  void TearDown() override {
    g_from = g_to = g_info_from = g_info_to = "";
    lose_gpu(-1, 0);
  }

  struct Told {
    Json ids;
    std::string states;
  };
  /// Answers; the device goes before submit number `after`, if that is not below 0.
  static Told answer(sb_model* model, int after = -1, int times = 1, const Json& options = Json::object()) {
    const Session session(checked(sb_session_create(model, "{}")));
    Json request = {{"ids", {1, 5, 9, 2, 7, 20, 30}}, {"max_tokens", 8}, {"ignore_eos", true}};
    request.update(options);
    checked(sb_session_start(session.get(), request.dump().c_str()));
    lose_gpu(after, after < 0 ? 0 : times);
    Told told;
    const Json done = run_answer(model, session.get(), [&](const Json& event) {
      if (event["type"] == "device") told.states += event["state"].get<std::string>() + " ";
    });
    lose_gpu(-1, 0);
    told.ids = done["ids"];
    return told;
  }
  static std::string code_of(const std::function<void()>& work) {
    try {
      work();
    } catch (const Failure& failure) { return failure.code + ": " + failure.message; }
    return "";
  }

  inline static const Json kGpu = {{"device", "webgpu"}, {"fallback", false}};
  inline static const Json kGpuOrCpu = {{"device", "webgpu"}};
};

TEST_F(Trust, ALostDeviceComesBack) {
  const Engine engine = open_engine(kGpu);
  const Model model = load_model(engine.get(), kModel, Json::object());
  const Told whole = answer(model.get());
  EXPECT_EQ(whole.states, "");
  EXPECT_EQ(whole.ids.size(), 8);
  for (int after : {0, 2, 7}) {
    const Told told = answer(model.get(), after);
    EXPECT_EQ(told.states, "lost restored ") << after;
    EXPECT_EQ(told.ids, whole.ids) << after;
  }
}

TEST_F(Trust, ALostDeviceIsGivenUpInTheEnd) {
  const Engine engine = open_engine(kGpu);
  const Model model = load_model(engine.get(), kModel, Json::object());
  EXPECT_TRUE(code_of([&] { answer(model.get(), 0, 9); }).starts_with("kDeviceLost: The GPU was lost: 4 times within a minute"));
}

TEST_F(Trust, TheCpuGoesOn) {
  const Engine engine = open_engine(kGpuOrCpu);
  const Model model = load_model(engine.get(), kModel, Json::object());
  const Told whole = answer(model.get()), told = answer(model.get(), 1, 9);
  EXPECT_EQ(told.states, "lost restored lost restored lost restored lost fallback ");
  EXPECT_EQ(told.ids, whole.ids);
  EXPECT_EQ(parsed(sb_model_info(model.get()))["device"], "cpu");
}

TEST_F(Trust, WrongKernelsAreCaught) {
  // An output that is off, an order that is lost, an input that is read from its neighbour.
  const std::pair<const char*, const char*> kWrong[] = {
      {"sqrt(", "1.1 * sqrt("}, {"workgroupBarrier();", ""}, {"exp(", "exp2("}, {"score +=", "score -="}};
  for (const auto& [from, to] : kWrong) {
    g_from = from;
    g_to = to;
    const Engine engine = open_engine(kGpu);
    const std::string told = code_of([&] { load_model(engine.get(), kModel, Json::object()); });
    if (std::string(to).empty()) continue;  // a software GPU may keep the order by itself
    EXPECT_TRUE(told.starts_with("kDeviceWrong: The GPU (")) << from << ": " << told;
  }
}

TEST_F(Trust, WrongKernelsSendTheModelToTheCpu) {
  g_from = "exp(";
  g_to = "exp2(";
  const Engine engine = open_engine(kGpuOrCpu);
  const Model model = load_model(engine.get(), kModel, Json::object());
  EXPECT_EQ(parsed(sb_model_info(model.get()))["device"], "cpu");
  const Json about = parsed(sb_engine_capabilities(engine.get()));
  EXPECT_EQ(about["device"], "cpu");
  EXPECT_NE(about["device_why"].get<std::string>().find("computes wrongly"), std::string::npos) << about["device_why"];
}

TEST_F(Trust, RightKernelsAreAllChecked) {
  for (const char* family : {"llama", "gemma3", "gpt2", "qwen3", "gptq"}) {
    const Engine engine = open_engine(kGpu);
    const Model model = load_model(engine.get(), std::string(SB_TESTS "/golden/") + family, Json::object());
    const Json report = parsed(sb_model_check_report(model.get()));
    EXPECT_GT(report["kernels"], 5) << family;
    EXPECT_EQ(report["checked"], report["kernels"]) << family << ": " << report;
    EXPECT_EQ(std::string(sb_model_check_key(model.get())).size(), 16);
  }
}

TEST_F(Trust, ADeviceThatIsTooSmallOrSoftwareIsRefused) {
  g_info_from = "\"workgroup\":";
  g_info_to = "\"workgroup\":1,\"was\":";
  const std::string told = code_of([] { open_engine(kGpu); });
  EXPECT_NE(told.find("its limit \"workgroup\" is 1, and 16384 are needed"), std::string::npos) << told;
  const Engine small = open_engine(kGpuOrCpu);
  EXPECT_EQ(parsed(sb_engine_capabilities(small.get()))["device"], "cpu");

  g_info_from = "\"adapter\":\"";
  g_info_to = "\"adapter\":\"SwiftShader ";
  const Json software = parsed(sb_engine_capabilities(open_engine(Json::object()).get()));
  EXPECT_EQ(software["device"], "cpu");
  EXPECT_NE(software["device_why"].get<std::string>().find("computes in software"), std::string::npos) << software["device_why"];
}

}  // namespace
}  // namespace cli
