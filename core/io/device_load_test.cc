// Loads whose matrices go to a device with memory of its own, against the same loads to the host.
#include <gtest/gtest.h>

#include <cstdio>

#include "io/synthetic_folder.h"
#include "io/synthetic_foreign.h"

namespace sb {
namespace {

using namespace testing_files;

/// Keeps rows in memory of its own, and takes what is on its way only when somebody waits.
class KeepingDevice final : public Device {
 public:
  class Rows final : public DeviceRows {
   public:
    Rows(KeepingDevice& device, const RowLayout& layout)
        : DeviceRows(uint64_t(layout.n_rows * layout.row_bytes)), layout(layout), device_(device) {
      ++device_.n_alive;
    }
    ~Rows() override { --device_.n_alive; }

    RowLayout layout;
    std::string bytes;

   private:
    Status write(uint64_t offset, std::span<const std::byte> from) override {
      EXPECT_EQ(offset, bytes.size());
      bytes.append(reinterpret_cast<const char*>(from.data()), from.size());
      device_.n_on_way += from.size();
      device_.most_on_way = std::max(device_.most_on_way, device_.n_on_way);
      return {};
    }
    KeepingDevice& device_;
  };

  int n_alive = 0, n_pauses = 0;
  uint64_t n_on_way = 0, most_on_way = 0;
  std::optional<Error> trouble;
  std::optional<ModelFiles> shapes;  // that were seen …
  int n_alive_then = 0;              // … when so many rows were here

  std::string_view name() const override { return "keeping"; }
  std::string describe() const override { return "{}"; }
  int n_threads() const override { return 1; }
  bool holds_weights() const override { return true; }
  Result<std::unique_ptr<DeviceRows>> keep_rows(const RowLayout& rows) override { return std::make_unique<Rows>(*this, rows); }
  uint64_t kept_bytes(const RowLayout& rows) const override { return uint64_t(rows.n_rows * rows.row_bytes); }
  Result<uint64_t> bringing() override {
    if (trouble) return err(*trouble);
    return n_on_way;
  }
  bool wait() override { return false; }
  Result<std::unique_ptr<Device>> twin(int) const override { return std::make_unique<KeepingDevice>(); }
  RunBytes measure(const Plan&, int64_t) const override { return {}; }
  Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan>) override { return err(Code::kInternal, {{"what", "compiled"}}); }
  Status fill(Program&, std::string_view, std::span<const float>) override { return {}; }
  Status submit(Program&, const Scalars&) override { return {}; }
  Result<bool> idle() override { return true; }
};

Result<ModelFiles> run_on(KeepingDevice& device, const Files& files, Loading loading, FindRework rework = nullptr) {
  loading.bring_to(device, rework, [&](ModelFiles shapes) {
    EXPECT_FALSE(device.shapes) << "seen twice";
    device.shapes = std::move(shapes);
    device.n_alive_then = device.n_alive;
  });
  Host host{.files = files};
  host.on_pause = [&] {
    EXPECT_GT(device.n_on_way, 0u) << "a pause for nothing";
    ++device.n_pauses;
    device.n_on_way = 0;
  };
  Result<ModelFiles> model = *host.run(std::move(loading));
  EXPECT_EQ(host.broken_promise, "");
  EXPECT_LE(device.most_on_way, kMostBringing);
  return model;
}

std::string text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
const KeepingDevice::Rows& rows_of(const DeviceRows* there) { return static_cast<const KeepingDevice::Rows&>(*there); }

/// The words of a set in rows' order, from the host.
std::string words_of(const PlaneMatrix& m, const PlaneSet& set) {
  std::vector<uint32_t> row(size_t(m.words_per_row() * set.code.n_planes));
  std::string out;
  for (int64_t r = 0; r < m.n_rows; ++r) {
    plane_row_words(m, set, r, row.data());
    out += raw_list(row);
  }
  return out;
}

/// Returns how many tensors the device keeps.
int expect_same(const WeightStore& host, const WeightStore& device) {
  int n_kept = 0;
  EXPECT_EQ(host.tensors().size(), device.tensors().size());
  EXPECT_EQ(host.n_bytes(), device.n_bytes());
  for (const auto& tensor : host.tensors()) {
    const WeightTensor* other = device.find(tensor->name);
    EXPECT_TRUE(other) << tensor->name;
    if (!other) continue;
    EXPECT_EQ(other->dtype, tensor->dtype) << tensor->name;
    EXPECT_EQ(other->shape, tensor->shape) << tensor->name;
    EXPECT_EQ(other->array_of, tensor->array_of);
    EXPECT_EQ(other->view().there, other->there.get());
    if (!other->there) {
      EXPECT_EQ(text(other->block.bytes()), text(tensor->block.bytes())) << tensor->name;
      EXPECT_TRUE(tensor->planes || tensor->shape.rank() < 2 || tensor->block.size() <= 1024) << tensor->name << " stayed on the host";
      continue;
    }
    ++n_kept;
    EXPECT_EQ(other->block.size(), 0u) << tensor->name;
    EXPECT_EQ(other->there->n_come(), other->there->n_bytes());
    if (tensor->array_of.empty()) EXPECT_TRUE(rows_of(other->there.get()).bytes == text(tensor->block.bytes())) << tensor->name;
  }
  for (const auto& [name, matrix] : host.matrices()) {
    const PlaneMatrix& other = *device.matrices().at(name);
    EXPECT_EQ(other.n_sets, matrix->n_sets);
    for (int set = 0; set < matrix->n_sets; ++set) {
      const PlaneSet& s = other.sets[set];
      if (!s.there) {
        EXPECT_TRUE(words_of(other, s) == words_of(*matrix, matrix->sets[set])) << name;
        continue;
      }
      EXPECT_FALSE(s.words);
      EXPECT_TRUE(rows_of(s.there).bytes == words_of(*matrix, matrix->sets[set])) << name;
      EXPECT_EQ(rows_of(s.there).layout.grain_rows, matrix->segment);
    }
  }
  return n_kept;
}

/// What was seen when at most so many matrices had come is what was brought home.
void expect_seen(const KeepingDevice& device, const WeightStore& host, int most_alive = 0) {
  ASSERT_TRUE(device.shapes);
  EXPECT_LE(device.n_alive_then, most_alive);
  const WeightStore& seen = device.shapes->weights;
  EXPECT_EQ(seen.tensors().size(), host.tensors().size());
  EXPECT_EQ(seen.matrices().size(), host.matrices().size());
  for (const auto& tensor : host.tensors()) {
    const WeightTensor* other = seen.find(tensor->name);
    ASSERT_TRUE(other) << tensor->name;
    EXPECT_EQ(other->dtype, tensor->dtype) << tensor->name;
    EXPECT_EQ(other->shape, tensor->shape) << tensor->name;
    EXPECT_EQ(other->array_of, tensor->array_of);
  }
}

FolderBuilder larger_quantised() {
  FolderBuilder b;
  std::string rows8;
  for (int block = 0; block < 2 * 101; ++block) rows8 += b.halves(1) + b.words(8);
  b.tensor({"embed.rows8", "U8", {101, 68}, "embeddings"}, rows8);
  b.matrices.push_back({"embed", kRows8, "", 101, 64, {{"embed.weight", 101}}});
  b.tensor({"positions", "F16", {37, 32}, "embeddings"}, b.halves(37 * 32));
  b.matrix({"qkv.0", "coded3", "coded2", 700, 64, {{"q.0", 400}, {"k.0", 200}, {"v.0", 100}}}, "layer_0", true);
  b.matrix({"up.1", "coded2", "plain2", 960, 64, {{"up.1", 960}}}, "layer_1", true);
  b.tensor({"norm", "F16", {64}, "final_norm"}, b.halves(64));
  b.give_back = {"up.1", "qkv.0"};
  return b;
}

TEST(DeviceLoad, AQuantisedFolderOfAnyShardSize) {
  for (const uint64_t most_shard_bytes : {50'000'000, 20'000, 5'000}) {
    const Files files = larger_quantised().build(most_shard_bytes);
    const auto host = load_folder_files(files);
    ASSERT_TRUE(host) << host.error().message();
    for (const LoadTuning& tuning : {LoadTuning{}, LoadTuning{.most_request_bytes = 700}, LoadTuning{.most_shared_bytes = 2000}}) {
      KeepingDevice device;
      {
        const auto model = run_on(device, files, Loading::folder("m", tuning));
        ASSERT_TRUE(model) << model.error().message();
        EXPECT_EQ(expect_same(host->weights, model->weights), 6) << most_shard_bytes;  // rows8, positions, four sets
        EXPECT_EQ(device.n_alive, 6);
        EXPECT_EQ(device.n_on_way, 0u) << "a load ends when all is there";
        expect_seen(device, host->weights, 6);
      }
      EXPECT_EQ(device.n_alive, 0);
    }
  }
}

TEST(DeviceLoad, TheHostKeepsWhatIsSmall) {
  const uint64_t before = memory_report().total.current;
  memory_reset_peak();
  const Files files = larger_quantised().build();
  KeepingDevice device;
  const auto model = run_on(device, files, Loading::folder("m"));
  ASSERT_TRUE(model);
  device.shapes.reset();
  uint64_t n_kept = 0, n_all = 0;
  for (const auto& tensor : model->weights.tensors()) {
    n_kept += tensor->there ? tensor->there->n_bytes() : 0;
    n_all += (tensor->block.size() + 63) / 64 * 64;
  }
  EXPECT_GT(n_kept, 40'000u);
  EXPECT_EQ(memory_report().total.current - before, n_all);
}

TEST(DeviceLoad, ARefinementComesAndGoes) {
  const Files files = larger_quantised().build();
  const auto host = load_folder_files(files);
  KeepingDevice device;
  auto model = run_on(device, files, Loading::folder("m", {}, PlaneSets::kBase));
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(device.n_alive, 4);
  auto refinement = [&] { return run_on(device, files, Loading::refinement("m", *model->index, refined_matrices(model->weights))); };
  auto come = refinement();
  ASSERT_TRUE(come) << come.error().message();
  ASSERT_TRUE(attach_refinement(*model->index, std::move(come->weights), model->weights));
  EXPECT_EQ(expect_same(host->weights, model->weights), 6);
  // One goes, and comes back alone.
  const uint64_t n_freed = drop_refinement(*model->index, model->weights, 1);
  EXPECT_GE(n_freed, 960u * 64 * 2 / 8);
  EXPECT_EQ(device.n_alive, 5);
  come = refinement();
  ASSERT_TRUE(come) << come.error().message();
  EXPECT_EQ(device.n_alive, 6);
  ASSERT_TRUE(attach_refinement(*model->index, std::move(come->weights), model->weights));
  EXPECT_EQ(expect_same(host->weights, model->weights), 6);
  drop_refinement(*model->index, model->weights);
  EXPECT_EQ(device.n_alive, 4);
}

TEST(DeviceLoad, DamageIsToldAsOnTheHost) {
  FolderBuilder b = larger_quantised();
  b.bytes_of("positions").replace(2 * 333, 2, raw<uint16_t>(0x7C00));
  for (const uint64_t most_shard_bytes : {50'000'000, 1'000}) {
    Files files = b.build(most_shard_bytes);
    const auto host = load_folder_files(files);
    ASSERT_FALSE(host);
    EXPECT_EQ(host.error().code(), Code::kWeightsNotFinite);
    KeepingDevice device;
    auto model = run_on(device, files, Loading::folder("model"));
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().to_json(), host.error().to_json());
    // What is not what was written is told first.
    const std::string around = b.bytes_of("positions").substr(2 * 332, 6);
    int n_damaged = 0;
    for (auto& [name, bytes] : files) {
      const size_t at = bytes.find(around);
      if (at == std::string::npos) continue;
      bytes[at] = char(bytes[at] ^ 1);
      ++n_damaged;
    }
    ASSERT_EQ(n_damaged, 1);
    model = run_on(device, files, Loading::folder("model"));
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().code(), Code::kHashMismatch);
    EXPECT_EQ(device.n_alive, 0);
  }
}

Files files_of(const std::string& folder, std::initializer_list<const char*> names) {
  Files files;
  for (const char* name : names) {
    FILE* file = std::fopen((std::string(SB_TESTS "/golden/") + folder + "/" + name).c_str(), "rb");
    SB_ASSERT(file);
    char part[4096];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) files[name].append(part, n);
    std::fclose(file);
  }
  return files;
}

TEST(DeviceLoad, OrdinaryAndConvertedFolders) {
  for (const auto [folder, is_converted] :
       {std::pair("llama", false), {"gemma3", false}, {"gptq", true}, {"gptq_order", true}, {"awq", true}}) {
    const Files files = files_of(folder, {"config.json", "model.safetensors"});
    const auto host = load_folder_files(files);
    ASSERT_TRUE(host) << host.error().message();
    KeepingDevice device;
    const auto model = run_on(device, files, Loading::folder("m"));
    ASSERT_TRUE(model) << model.error().message();
    EXPECT_GT(expect_same(host->weights, model->weights), 4) << folder;
    if (is_converted) {
      EXPECT_FALSE(device.shapes) << "they change";
    } else {
      expect_seen(device, host->weights);
    }
  }
}

TEST(DeviceLoad, PlanesThatWereMadeOnTheHost) {
  const TernarySource source(640, 64, 21.7f, 7);
  Files files = small_folder();
  files["config.json"] = R"({"model_type": "llama", "quantization_config": {"quant_method": "bitnet"}})";
  files["model.safetensors"] = safetensors_of(source.bitnet("m.up", Dtype::kF32));
  const auto host = load_folder_files(files);
  ASSERT_TRUE(host) << host.error().message();
  KeepingDevice device;
  const auto model = run_on(device, files, Loading::folder("m"));
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(expect_same(host->weights, model->weights), 1);
}

TEST(DeviceLoad, AFamilysChangesComeFirst) {
  const Files files = files_of("llama", {"config.json", "model.safetensors"});
  KeepingDevice device;
  const FindRework find = [](const Config&) -> WeightRework {
    return [](const Config& config, WeightStore& weights) -> Status {
      EXPECT_EQ(config.architecture(), "llama");
      for (const auto& tensor : weights.tensors()) {
        EXPECT_FALSE(tensor->there);
        if (tensor->shape.rank() == 2) tensor->block.data()[5] = std::byte(77);
      }
      weights.mark_reworked();
      return {};
    };
  };
  const auto model = run_on(device, files, Loading::folder("m"), find);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_TRUE(model->weights.is_reworked());
  EXPECT_FALSE(device.shapes) << "they change";
  EXPECT_GT(device.n_alive, 4);
  for (const auto& tensor : model->weights.tensors()) {
    if (tensor->there) EXPECT_EQ(rows_of(tensor->there.get()).bytes[5], 77) << tensor->name;
  }
}

TEST(DeviceLoad, WhatIsOnItsWayIsBounded) {
  GgufBuilder g = small_gguf();
  std::string bytes(size_t(40) << 20, '\0');
  for (size_t i = 0; i < bytes.size(); i += 2) bytes[i] = char(i >> 8);
  g.tensor({"large", {1 << 10, 20 << 10}, 1, bytes, {}});
  for (int i = 0; i < 40; ++i) g.tensor({"small." + std::to_string(i), {1 << 9, 1 << 9}, 1, bytes.substr(0, 1 << 19), {}});
  KeepingDevice device;
  memory_reset_peak();
  const uint64_t before = memory_report().total.current;
  const auto model = run_on(device, {{"", g.build()}}, Loading::gguf("m"));
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_TRUE(rows_of(model->weights.find("large")->there.get()).bytes == bytes);
  EXPECT_TRUE(rows_of(model->weights.find("small.39")->there.get()).bytes == bytes.substr(0, 1 << 19));
  EXPECT_GE(device.n_pauses, 3);
  expect_seen(device, model->weights);
  EXPECT_LE(memory_report().total.peak - before, 3 * kSentBytes) << "staging, a shared request, what stays";
}

TEST(DeviceLoad, TroubleOfTheDeviceEndsTheLoad) {
  const Files files = larger_quantised().build();
  KeepingDevice device;
  device.trouble = Error(Code::kMemoryExhausted, {{"n_bytes", "1"}, {"tag", "gpu"}, {"current", 0}});
  const auto model = run_on(device, files, Loading::folder("m"));
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), Code::kMemoryExhausted);
  EXPECT_EQ(device.n_alive, 0);
}

}  // namespace
}  // namespace sb
