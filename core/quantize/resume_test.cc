// A run that is interrupted and goes on from its checkpoint, in another object, makes the same folder; checkpoints of something else are
// refused.
#include <gtest/gtest.h>

#include "device/cpu/cpu_device.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

class Resume : public testing::Test {
 protected:
  void SetUp() override {
    host_.root = std::string(SB_TESTS) + "/golden/llama";
    source_ = open(host_.load(Loading::folder("llama")));
    auto device = make_cpu_device({1, "auto"});
    ASSERT_TRUE(device);
    device_ = std::move(*device);
    ids_ = random_ids(384, source_.graph->shape().vocab);
  }
  std::unique_ptr<FolderQuantizer> create(FolderOptions options, bool sets_aside = false) {
    if (sets_aside) options.scratch = scratches_.emplace_back(std::make_unique<MemoryScratch>()).get();
    options.context = 64;
    options.n_threads = 1;
    auto q = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {{"config.json", "{}"}}}, *device_, ids_, {}, options);
    EXPECT_TRUE(q) << q.error().message();
    return std::move(*q);
  }
  /// At most n steps; false when all is done.
  static bool run(FolderQuantizer& q, int n, FolderHost& out) {
    for (; n > 0; --n) {
      auto more = q.step();
      EXPECT_TRUE(more) << more.error().message();
      take(q, out);
      if (!more || !*more) return false;
    }
    return true;
  }
  static void take(FolderQuantizer& q, FolderHost& out) {
    FolderWrite write;
    while (q.next_write(write)) out.write(write);
  }
  static Status resume(FolderQuantizer& q, const std::string& bytes) { return q.resume(std::as_bytes(std::span(bytes))); }

  FolderHost host_;
  Opened source_;
  std::unique_ptr<Device> device_;
  std::vector<int32_t> ids_;
  std::vector<std::unique_ptr<MemoryScratch>> scratches_;
};

FolderOptions plain() {
  FolderOptions options;
  options.bits = "2";
  return options;
}
FolderOptions refined() {
  FolderOptions options = plain();
  options.refine = true;
  return options;
}
FolderOptions mixed() {
  FolderOptions options;
  options.bits = "mixed";
  options.bpw = 8;
  return options;
}
FolderOptions tuned() {
  FolderOptions options = plain();
  options.tune = true;
  options.tune_steps = 6;  // measured before, after the fifth and at the end
  return options;
}

TEST_F(Resume, TheSameBytesAsInOneRun) {
  for (const FolderOptions& options : {plain(), refined(), mixed(), tuned()}) {
    FolderHost whole;
    auto in_one = create(options);
    run(*in_one, 1 << 20, whole);
    // Interrupted again and again, at every kind of place, with what is kept of the text in memory and set aside in turns. A cut tuning
    // step begins anew: each turn is longer than the one before it.
    FolderHost parts;
    std::string checkpoint, report;
    int n_resumed = 0, n_in_tuning = 0;
    for (bool more = true; more; ++n_resumed) {
      auto q = create(options, n_resumed % 2 == 1);
      if (!checkpoint.empty()) {
        auto status = resume(*q, checkpoint);
        ASSERT_TRUE(status) << status.error().message();
      }
      const bool tunes = (*json_parse(q->progress_json(), "progress"))["phase"] == "tune";
      n_in_tuning += tunes;
      more = run(*q, 3 + n_in_tuning, parts);
      report = q->report_json();
      if (!more) break;
      ASSERT_TRUE(q->checkpoint());
      take(*q, parts);
      checkpoint = std::exchange(parts.files[kCheckpointFile], "");
    }
    parts.files.erase(kCheckpointFile);
    EXPECT_GE(n_resumed, 3);
    if (options.tune) EXPECT_GE(n_in_tuning, 8);
    EXPECT_EQ(parts.files, whole.files) << options.bits << options.refine << options.tune;
    EXPECT_EQ(report, in_one->report_json());
  }
}

TEST_F(Resume, AFullScratchIsAnErrorAndItsCheckpointIsRefused) {
  for (const FolderOptions& options : {plain(), mixed()}) {
    auto q = create(options, true);
    scratches_.back()->most = scratches_.back()->bytes.size() + 20'000;
    FolderHost out;
    Result<bool> more = true;
    while (more && *more) {
      more = q->step();
      take(*q, out);
    }
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().code(), Code::kScratchFailed);
    ASSERT_TRUE(q->checkpoint());
    take(*q, out);
    auto status = resume(*create(options), out.files[kCheckpointFile]);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code(), Code::kCheckpointInvalid);
  }
}

TEST_F(Resume, WhatDoesNotFitIsRefused) {
  FolderHost out;
  auto q = create(plain());
  run(*q, 3, out);
  ASSERT_TRUE(q->checkpoint());
  take(*q, out);
  const std::string good = out.files[kCheckpointFile];

  FolderOptions other = plain();
  other.seed = 1;
  auto status = resume(*create(other), good);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Code::kCheckpointForeign);

  for (size_t at : {size_t(0), good.size() / 2, good.size() - 1}) {
    std::string bad = good;
    bad[at] = char(bad[at] ^ 4);
    status = resume(*create(plain()), bad);
    ASSERT_FALSE(status) << at;
    EXPECT_EQ(status.error().code(), Code::kCheckpointInvalid) << at;
  }
  status = resume(*create(plain()), good.substr(0, good.size() / 3));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Code::kCheckpointInvalid);

  source_.files->weights.find(source_.files->weights.tensors()[0]->name)->block.data()[3] ^= std::byte{1};
  status = resume(*create(plain()), good);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Code::kSourceChanged);
}

TEST_F(Resume, ProgressKnowsTheTimeLeft) {
  FolderHost out;
  auto q = create(mixed());
  double last = 0;
  while (run(*q, 1, out)) {
    const Json progress = *json_parse(q->progress_json(), "progress");
    const double fraction = progress["fraction"];
    EXPECT_GE(fraction, 0);
    EXPECT_LE(fraction, 1);
    ASSERT_TRUE(progress.contains("seconds_left"));
    EXPECT_GE(progress["seconds_left"].get<double>(), 0);
    last = fraction;
  }
  EXPECT_GT(last, 0.5);
}

}  // namespace
}  // namespace sb
