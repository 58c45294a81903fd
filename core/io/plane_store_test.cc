#include "io/plane_store.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "io/synthetic_folder.h"

namespace sb {
namespace {

using namespace testing_files;

uint64_t weight_bytes_in_books() { return memory_report().by_tag[size_t(Tag::kWeights)].current; }
uint64_t rounded(uint64_t n) { return (n + 63) / 64 * 64; }

Result<ModelFiles> load(const Files& files, PlaneSets sets = PlaneSets::kFull, LoadTuning tuning = {}) {
  Host host{.files = files, .largest_request = tuning.most_request_bytes};
  Result<ModelFiles> model = *host.run(Loading::folder("m", tuning, sets));
  EXPECT_EQ(host.broken_promise, "");
  return model;
}
Result<ModelFiles> load_refinement(const Files& files, const FolderIndex& index) {
  Host host{.files = files};
  return *host.run(Loading::refinement("m", index));
}
/// What a host gets that has summed a component itself.
Status load_summed(const Files& files, const std::string& component) {
  Host host{.files = files};
  Loading loading = Loading::folder("m");
  loading.is_summed(component);
  const Result<ModelFiles> model = *host.run(std::move(loading));
  if (!model) return err(model.error());
  return {};
}
Status status_of(const Result<ModelFiles>& model) {
  if (!model) return err(model.error());
  return {};
}
Status verify(const Files& files) {
  Host host{.files = files};
  const Result<ModelFiles> model = *host.run(Loading::verify("m"));
  if (!model) return err(model.error());
  EXPECT_EQ(model->weights.n_bytes(), 0u);
  EXPECT_TRUE(model->index);
  return {};
}

/// Rows [first, first + n) of a matrix of the builder, from the bytes that it was given and docs/formats.md §1, by no code of io.
std::vector<float> rows_of(FolderBuilder& b, const std::string& name, int64_t n, int64_t k, int64_t first, int64_t count, int n_sets) {
  PlaneMatrix m;
  m.n_rows = plane_rows(n);
  m.n_columns = plane_columns(k);
  m.segment = plane_segment(m.n_rows);
  m.n_sets = n_sets;
  auto at = [&](const std::string& array) {
    return std::ranges::count(b.tensors, array, &FolderTensor::name) ? b.bytes_of(array).data() : nullptr;
  };
  m.signs = reinterpret_cast<const uint32_t*>(at(name + ".su"));
  m.hadamard = m.signs ? plane_hadamard(k) : 0;
  for (int set = 0; set < n_sets; ++set) {
    const std::string of = set ? name + ".refine" : name;
    const auto entry = std::ranges::find(b.matrices, name, &MatrixEntry::name);
    m.sets[set] = {plane_format(set ? entry->refine : entry->format)->code, reinterpret_cast<const uint32_t*>(at(of + ".planes")),
                   reinterpret_cast<const uint16_t*>(at(of + ".sv")), reinterpret_cast<const uint16_t*>(at(of + ".c"))};
    if (std::string_view(b.tensor(of + ".sv").type) == "F32") m.sets[set].row_scale = reinterpret_cast<const float*>(at(of + ".sv"));
  }
  std::vector<float> out(size_t(count * m.n_columns));
  for (int64_t r = 0; r < count; ++r) decode_plane_row(m, first + r, out.data() + r * m.n_columns);
  return out;
}

void expect_weights(const WeightStore& weights, int n_sets) {
  FolderBuilder b = small_quantised();
  struct Row {
    const char *tensor, *matrix;
    int64_t n, k, first, count;
    int n_sets;
  };
  const Row rows[] = {{"q.0", "qkv.0", 70, 32, 0, 40, n_sets},
                      {"k.0", "qkv.0", 70, 32, 40, 20, n_sets},
                      {"v.0", "qkv.0", 70, 32, 60, 10, n_sets},
                      {"up.1", "up.1", 96, 64, 0, 96, n_sets},
                      {"down.1", "down.1", 64, 40, 0, 64, 1}};
  for (const Row& row : rows) {
    const WeightTensor* tensor = weights.find(row.tensor);
    ASSERT_TRUE(tensor) << row.tensor;
    EXPECT_EQ(tensor->dtype, Dtype::kPlanes);
    EXPECT_EQ(tensor->shape, (Shape{row.count, row.k}));
    EXPECT_EQ(tensor->array_of, "");
    ASSERT_TRUE(tensor->planes);
    EXPECT_EQ(tensor->planes->n_sets, row.n_sets) << row.tensor;
    EXPECT_EQ(tensor->planes->max_sets, std::string_view(row.tensor) == "down.1" ? 1 : 2) << row.tensor;
    const std::vector<float> want = rows_of(b, row.matrix, row.n, row.k, row.first, row.count, row.n_sets);
    const int64_t wide = plane_columns(row.k);
    for (int64_t r = 0; r < row.count; ++r) {
      std::vector<float> got(size_t(row.k), NAN);
      decode_row(tensor->view(), r, got.data(), row.k);
      ASSERT_TRUE(std::equal(got.begin(), got.end(), want.begin() + r * wide)) << row.tensor << " row " << r;
    }
  }
  const WeightTensor* embed = weights.find("embed.weight");
  ASSERT_TRUE(embed);
  EXPECT_EQ(embed->dtype, Dtype::kQ8_0);
  EXPECT_EQ(embed->shape, (Shape{6, 32}));
  EXPECT_TRUE(std::ranges::equal(embed->block.bytes(), std::as_bytes(std::span(b.bytes_of("embed.rows8")))));
  EXPECT_FALSE(weights.find("embed.rows8"));
  EXPECT_EQ(weights.find("norm.0")->view().row<float>(0)[31], 1.0f);
  EXPECT_EQ(weights.find("norm")->dtype, Dtype::kF16);
  EXPECT_EQ(weights.find("qkv.0.planes")->array_of, "qkv.0");
  EXPECT_EQ(weights.find("norm")->array_of, "");
  uint64_t n_bytes = 0;
  for (size_t i = 0; i < b.tensors.size(); ++i) n_bytes += b.tensors[i].is_refinement && n_sets == 1 ? 0 : b.bytes[i].size();
  EXPECT_EQ(weights.n_bytes(), n_bytes);
}

TEST(QuantisedFolder, WhatIsWrittenComesBack) {
  for (uint64_t most_shard_bytes : {0u, 2000u, 5000u, 50'000'000u}) {
    const Files files = small_quantised().build(most_shard_bytes);
    for (const auto& [name, text] : files) {
      if (name.ends_with(".safetensors")) EXPECT_TRUE(safetensors_read(std::as_bytes(std::span(text)), name)) << name;
    }
    for (uint64_t most : {64u, 1000u, 1u << 20}) {
      for (PlaneSets sets : {PlaneSets::kBase, PlaneSets::kFull}) {
        const auto model = load(files, sets, {.first_bytes = most, .most_request_bytes = most, .most_shared_bytes = most});
        ASSERT_TRUE(model) << model.error().message();
        ASSERT_TRUE(model->index);
        expect_weights(model->weights, sets == PlaneSets::kFull ? 2 : 1);
      }
    }
    EXPECT_TRUE(verify(files));
  }
}

TEST(QuantisedFolder, TheBaseLeavesTheRefinementAlone) {
  Files files = small_quantised().build();
  ASSERT_TRUE(files.erase("refine-00001.safetensors"));
  const auto base = load(files, PlaneSets::kBase);
  ASSERT_TRUE(base) << base.error().message();
  expect_weights(base->weights, 1);
  for (const Status& missing : {verify(files), status_of(load(files)), status_of(load_refinement(files, *base->index))}) {
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().message(), "m/refine-00001.safetensors was not found");
  }
}

TEST(QuantisedFolder, OnlyAConfigThatSaysSo) {
  Files files = small_folder();
  files[kFolderIndexFile] = "nonsense";
  EXPECT_TRUE(load(files));
  files["config.json"] = R"({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}})";
  EXPECT_TRUE(load(files));
  files = small_quantised().build();
  files.erase(kFolderIndexFile);
  EXPECT_EQ(load(files).error().message(), "m/subbyte.index.json was not found");
  EXPECT_EQ(verify(files).error().message(), "m/subbyte.index.json was not found");
}

TEST(Refinement, ComesAndGoes) {
  const uint64_t before = weight_bytes_in_books();
  {
    const Files files = small_quantised().build(3000);
    auto model = load(files, PlaneSets::kBase);
    ASSERT_TRUE(model) << model.error().message();
    const uint64_t base = weight_bytes_in_books();
    const PlaneMatrix* matrix = model->weights.find("q.0")->planes;
    uint64_t n_refinement = 0, n_rounded = 0;
    const FolderBuilder b = small_quantised();
    for (size_t i = 0; i < b.tensors.size(); ++i) {
      if (!b.tensors[i].is_refinement) continue;
      n_refinement += b.bytes[i].size();
      n_rounded += rounded(b.bytes[i].size());
    }
    EXPECT_EQ(drop_refinement(*model->index, model->weights), 0u);
    for (int round = 0; round < 2; ++round) {
      auto refinement = load_refinement(files, *model->index);
      ASSERT_TRUE(refinement) << refinement.error().message();
      EXPECT_EQ(refinement->weights.n_bytes(), n_refinement);
      const Status attached = attach_refinement(*model->index, std::move(refinement->weights), model->weights);
      ASSERT_TRUE(attached) << attached.error().message();
      expect_weights(model->weights, 2);
      EXPECT_EQ(model->weights.find("qkv.0.refine.sv")->array_of, "qkv.0");
      EXPECT_EQ(weight_bytes_in_books(), base + n_rounded);
      EXPECT_EQ(drop_refinement(*model->index, model->weights), n_refinement);
      expect_weights(model->weights, 1);
      EXPECT_EQ(weight_bytes_in_books(), base);
    }
    EXPECT_EQ(model->weights.find("q.0")->planes, matrix);  // programs hold it

    auto full = load(files);
    ASSERT_TRUE(full);
    EXPECT_EQ(drop_refinement(*full->index, full->weights), n_refinement);
    expect_weights(full->weights, 1);
  }
  EXPECT_EQ(weight_bytes_in_books(), before);
}

TEST(Refinement, IsGivenBackInTheIndexsOrderAndTheRestComesBackAlone) {
  const Files files = small_quantised().build(3000);  // its order: up.1, qkv.0
  auto model = load(files);
  ASSERT_TRUE(model) << model.error().message();
  uint64_t n_up = 0, n_qkv = 0;
  const FolderBuilder b = small_quantised();
  for (size_t i = 0; i < b.tensors.size(); ++i) {
    if (b.tensors[i].is_refinement) (b.tensors[i].name.starts_with("up.1") ? n_up : n_qkv) += b.bytes[i].size();
  }
  using Names = std::set<std::string, std::less<>>;
  EXPECT_EQ(drop_refinement(*model->index, model->weights, 0), 0u);
  EXPECT_EQ(refined_matrices(model->weights), (Names{"qkv.0", "up.1"}));
  EXPECT_EQ(drop_refinement(*model->index, model->weights, 1), n_up);
  EXPECT_EQ(refined_matrices(model->weights), Names{"qkv.0"});
  const uint32_t* words = model->weights.find_matrix("qkv.0")->sets[1].words;

  Host host{.files = files};
  auto missing = *host.run(Loading::refinement("m", *model->index, refined_matrices(model->weights)));
  ASSERT_TRUE(missing) << missing.error().message();
  EXPECT_EQ(missing->weights.n_bytes(), n_up);
  ASSERT_TRUE(attach_refinement(*model->index, std::move(missing->weights), model->weights));
  expect_weights(model->weights, 2);
  EXPECT_EQ(model->weights.find_matrix("qkv.0")->sets[1].words, words) << "what was there has moved";
  EXPECT_EQ(drop_refinement(*model->index, model->weights, n_up + 1), n_up + n_qkv);
  expect_weights(model->weights, 1);
}

TEST(Refinement, OneThatDoesNotFitChangesNothing) {
  const Files files = small_quantised().build();
  auto model = load(files, PlaneSets::kBase);
  ASSERT_TRUE(model);
  struct Row {
    const char* name;
    void (*change)(FolderBuilder&);
    const char* says;
  };
  const Row rows[] = {
      {"an array too few", [](FolderBuilder& b) { b.erase("up.1.refine.sv"); }, "no tensor up.1.refine.sv"},
      {"a whole matrix too few",
       [](FolderBuilder& b) {
         for (const char* array : {"planes", "sv", "c", "filter"}) b.erase(std::string("up.1.refine.") + array);
       },
       "no tensor up.1.refine.planes"},
      {"an array too many", [](FolderBuilder& b) { b.tensor({"up.1.refine.su", "U32", {2}, "layer_1", true}, b.words(2)); },
       "up.1.refine.su: it is part of no refinement"},
      {"a name that is taken",
       [](FolderBuilder& b) {
         b.tensor({"norm.0", "F32", {1}, "layer_1", true}, b.words(1));
         b.bytes_of("norm.0") = b.bytes.back();
         b.erase("norm.0");
       },
       "it is part of no refinement"},
      {"a shape",
       [](FolderBuilder& b) {
         b.tensor("up.1.refine.sv").shape = {95};
         b.bytes_of("up.1.refine.sv").resize(190);
       },
       "up.1.refine.sv of m has shape [95], but [96] is needed"},
  };
  for (const Row& row : rows) {
    FolderBuilder b = small_quantised();
    row.change(b);
    const Files other = b.build();
    const auto index = parse_folder_index(other.at(kFolderIndexFile), "i");
    ASSERT_TRUE(index) << row.name;
    auto refinement = load_refinement(other, *index);
    ASSERT_TRUE(refinement) << row.name << ": " << refinement.error().message();
    const Status attached = attach_refinement(*model->index, std::move(refinement->weights), model->weights);
    ASSERT_FALSE(attached) << row.name;
    EXPECT_NE(attached.error().message().find(row.says), std::string::npos) << row.name << ": " << attached.error().message();
    expect_weights(model->weights, 1);
  }
}

// Right sums, wrong contents: what a careless or a hostile writer makes.
TEST(QuantisedFolder, RefusesArraysThatDoNotFit) {
  struct Row {
    const char* name;
    void (*change)(FolderBuilder&);
    Code code;
    const char* says;
    bool is_seen_by_verify = true;
  };
  const Row rows[] = {
      {"no planes", [](FolderBuilder& b) { b.erase("qkv.0.planes"); }, Code::kTensorMissing, "m has no tensor qkv.0.planes"},
      {"no scales", [](FolderBuilder& b) { b.erase("down.1.sv"); }, Code::kTensorMissing, "down.1.sv"},
      {"scales of whole numbers", [](FolderBuilder& b) { b.tensor("down.1.sv").type = "I32"; }, Code::kModelCorrupt,
       "down.1.sv: it has type I32, but F16 is needed"},
      {"no filter", [](FolderBuilder& b) { b.erase("down.1.filter"); }, Code::kTensorMissing, "down.1.filter"},
      {"no rows8", [](FolderBuilder& b) { b.erase("embed.rows8"); }, Code::kTensorMissing, "embed.rows8"},
      {"no refinement of one", [](FolderBuilder& b) { b.matrices[3].refine = "coded2"; }, Code::kTensorMissing, "down.1.refine.planes"},
      {"planes of floats",
       [](FolderBuilder& b) {
         b.tensor("qkv.0.planes").type = "F32";
         b.bytes_of("qkv.0.planes").assign(128 * 3 * 4, 0);
       },
       Code::kModelCorrupt, "it has type F32, but I32 is needed"},
      {"a plane too many", [](FolderBuilder& b) { b.matrices[1].format = "coded2"; }, Code::kShapeMismatch,
       "qkv.0.planes of m has shape [128, 3, 1], but [128, 2, 1] is needed"},
      {"unpadded rows",
       [](FolderBuilder& b) {
         b.matrices[1].n_rows = 60;
         b.matrices[1].rows[0].second = 30;
       },
       Code::kShapeMismatch, "needed"},
      {"columns", [](FolderBuilder& b) { b.matrices[3].n_columns = 72; }, Code::kShapeMismatch, "down.1.planes"},
      {"c of another length",
       [](FolderBuilder& b) {
         b.tensor("up.1.c").shape = {63};
         b.bytes_of("up.1.c").resize(126);
       },
       Code::kShapeMismatch, "up.1.c of m has shape [63], but [64]"},
      {"signs of another length",
       [](FolderBuilder& b) {
         b.tensor("up.1.su").shape = {3};
         b.bytes_of("up.1.su").resize(12);
       },
       Code::kShapeMismatch, "up.1.su of m has shape [3], but [2]"},
      {"signs where none can be", [](FolderBuilder& b) { b.tensor({"down.1.su", "U32", {1}, "final_norm"}, b.words(1)); },
       Code::kModelCorrupt, "not rotated"},
      {"taps of another code",
       [](FolderBuilder& b) {
         b.tensor("qkv.0.filter").shape = {1, 3};
         b.bytes_of("qkv.0.filter").resize(12);
       },
       Code::kShapeMismatch, "qkv.0.filter of m has shape [1, 3], but [4, 3]"},
      {"taps too many",
       [](FolderBuilder& b) {
         b.tensor("qkv.0.filter").shape = {5, 3};
         b.bytes_of("qkv.0.filter").resize(60);
       },
       Code::kShapeMismatch, "but [4, 3]"},
      {"a tap too many for any",
       [](FolderBuilder& b) {
         b.tensor("up.1.filter").shape = {7, 2};
         b.bytes_of("up.1.filter").resize(56);
       },
       Code::kShapeMismatch, "but [6, 2]"},
      {"a filter in one row", [](FolderBuilder& b) { b.tensor("qkv.0.filter").shape = {12}; }, Code::kShapeMismatch, "but [4, 3]"},
      {"rows8 of another width", [](FolderBuilder& b) { b.matrices[0].n_columns = 64; }, Code::kShapeMismatch,
       "embed.rows8 of m has shape [6, 34], but [6, 68]"},
      {"a NaN in a scale", [](FolderBuilder& b) { b.bytes_of("qkv.0.sv").replace(4, 2, "\xff\x7f"); }, Code::kWeightsNotFinite,
       "Tensor qkv.0.sv of m/base-00001.safetensors holds NaN or infinite values (first at element 2)"},
      {"an infinity in c", [](FolderBuilder& b) { b.bytes_of("up.1.refine.c").replace(0, 2, std::string("\x00\xfc", 2)); },
       Code::kWeightsNotFinite, "up.1.refine.c"},
      {"a NaN in a filter", [](FolderBuilder& b) { b.bytes_of("up.1.filter").replace(0, 4, "\xff\xff\xff\x7f"); }, Code::kWeightsNotFinite,
       "up.1.filter"},
      {"a NaN in rows8", [](FolderBuilder& b) { b.bytes_of("embed.rows8").replace(34, 2, "\xff\x7f"); }, Code::kWeightsNotFinite,
       "embed.rows8", false},
      {"a tensor that is there", [](FolderBuilder& b) { b.matrices[1].rows[0].first = "norm"; }, Code::kModelCorrupt,
       "norm: the name occurs twice", false},
      {"rows8 that is there", [](FolderBuilder& b) { b.matrices[0].rows[0].first = "norm"; }, Code::kModelCorrupt,
       "norm: the name occurs twice", false},
  };
  for (const Row& row : rows) {
    FolderBuilder b = small_quantised();
    row.change(b);
    const Files files = b.build();
    const auto model = load(files);
    const Status verified = verify(files);
    ASSERT_FALSE(model) << row.name;
    EXPECT_EQ(model.error().code(), row.code) << row.name << ": " << model.error().message();
    EXPECT_NE(model.error().message().find(row.says), std::string::npos) << row.name << ": " << model.error().message();
    EXPECT_EQ(verified.has_value(), !row.is_seen_by_verify) << row.name;
    if (!verified) EXPECT_EQ(verified.error().message(), model.error().message()) << row.name;
  }
}

// The model's tensors may be called anything that is free: also like an array that is not there, which must not be mistaken for it.
TEST(QuantisedFolder, ATensorWithTheNameOfAnArray) {
  for (const char* name : {"down.1.c", "down.1.su", "down.1.rows8"}) {
    for (int matrix : {0, 1}) {
      FolderBuilder b = small_quantised();
      b.matrices[size_t(matrix)].rows[0].first = name;
      const auto model = load(b.build());
      ASSERT_TRUE(model) << model.error().message();
      const PlaneMatrix* planes = model->weights.find("down.1")->planes;
      EXPECT_EQ(planes->sets[0].column_scale, nullptr);
      EXPECT_EQ(planes->signs, nullptr);
      EXPECT_EQ(model->weights.find(name)->array_of, "");
    }
  }
  FolderBuilder b = small_quantised();
  b.erase("up.1.refine.c");
  b.matrices[0].rows[0].first = "up.1.refine.c";
  const Files files = b.build();
  auto model = load(files, PlaneSets::kBase);
  ASSERT_TRUE(model) << model.error().message();
  auto refinement = load_refinement(files, *model->index);
  ASSERT_TRUE(attach_refinement(*model->index, std::move(refinement->weights), model->weights));
  EXPECT_EQ(model->weights.find("up.1")->planes->sets[1].column_scale, nullptr);
  drop_refinement(*model->index, model->weights);
  EXPECT_TRUE(model->weights.find("up.1.refine.c"));
}

/// The last byte of a component in its shard.
char& last_byte(Files& files, std::string_view component) {
  const auto index = parse_folder_index(files[kFolderIndexFile], "i");
  const auto c = std::ranges::find(index->components, component, &ComponentEntry::name);
  return files[c->shard][size_t(c->end - 1)];
}

TEST(QuantisedFolder, RefusesWhatWasDamaged) {
  const Files whole = small_quantised().build(3000);
  const auto index = parse_folder_index(whole.at(kFolderIndexFile), "i");
  ASSERT_TRUE(index && index->shards.size() > 4);
  for (const ComponentEntry& component : index->components) {
    Files files = whole;
    last_byte(files, component.name) ^= 0x40;
    const std::string says = "m/" + component.shard + " is damaged: " + component.name + " does not have its SHA-256";
    for (const Status& refused : {verify(files), status_of(load(files))}) {
      ASSERT_FALSE(refused) << component.name;
      EXPECT_EQ(refused.error().code(), Code::kHashMismatch);
      EXPECT_TRUE(refused.error().retryable());
      EXPECT_EQ(refused.error().message(), says);
    }
    for (const ComponentEntry& summed : index->components) {
      const Status taken = load_summed(files, summed.name);
      EXPECT_EQ(!taken && taken.error().code() == Code::kHashMismatch, &summed != &component) << summed.name;
    }
    EXPECT_EQ(load(files, PlaneSets::kBase).has_value(), component.is_refinement);
    EXPECT_EQ(load_refinement(files, *index).has_value(), !component.is_refinement);
  }
  for (const ShardEntry& shard : index->shards) {
    Files files = whole;
    files[shard.name][12] ^= 1;
    EXPECT_EQ(load(files).error().message(), "m/" + shard.name + " is damaged: its head does not have its SHA-256");
    EXPECT_EQ(verify(files).error().code(), Code::kHashMismatch);
    files = whole;
    files[shard.name].pop_back();
    EXPECT_EQ(load(files).error().code(), Code::kModelTruncated);
    EXPECT_EQ(verify(files).error().code(), Code::kModelTruncated);
    files[shard.name] += "ab";
    EXPECT_EQ(load(files).error().code(), Code::kModelCorrupt);
    files.erase(shard.name);
    EXPECT_EQ(load(files).error().message(), "m/" + shard.name + " was not found");
    EXPECT_EQ(load(files, PlaneSets::kBase).has_value(), shard.is_refinement);
  }
}

TEST(QuantisedFolder, EveryByteCounts) {
  const Files whole = small_quantised().build();
  for (const auto& [name, text] : whole) {
    if (!name.ends_with(".safetensors") && name != kFolderIndexFile) continue;
    Files files = whole;
    for (size_t i = 0; i < text.size(); i += 1 + i % 7) {
      files[name][i] ^= 4;
      ASSERT_FALSE(load(files)) << name << " " << i;
      files[name][i] ^= 4;
    }
    EXPECT_TRUE(load(files));
  }
}

// Sums are right, but the head does not say what the index says.
TEST(QuantisedFolder, RefusesHeadsThatDoNotFitTheIndex) {
  auto refusal = [](std::string_view from, std::string_view to, uint64_t most_shard_bytes) -> std::string {
    Files files = small_quantised().build(most_shard_bytes);
    std::string& shard = files["base-00001.safetensors"];
    const size_t at = shard.find(from);
    if (at == std::string::npos) return "not found";
    shard.replace(at, from.size(), to);
    sum_anew(files);
    const auto model = load(files);
    return model ? "" : model.error().message();
  };
  // embed.rows8 [6, 34] is 204 bytes at 0, norm.0 128 bytes behind it.
  EXPECT_NE(refusal("[0,204]", "[1,205]", 50'000'000).find("overlap"), std::string::npos);
  EXPECT_NE(refusal("\"shape\":[6,34],\"data_offsets\":[0,204]", "\"shape\":[6,33],\"data_offsets\":[0,198]", 50'000'000)
                .find("norm.0: there is a gap before it"),
            std::string::npos);
  EXPECT_NE(refusal("\"shape\":[6,34],\"data_offsets\":[0,204]", "\"shape\":[0,34],\"data_offsets\":[0,  0]", 50'000'000)
                .find("has no such tensor"),
            std::string::npos);
  EXPECT_NE(refusal("\"F32\",\"shape\":[32]", "\"I64\",\"shape\":[16]", 50'000'000).find("has no such tensor"), std::string::npos);
  EXPECT_NE(refusal("{\"embed.rows8\"", "{\"embed.rows9\"", 50'000'000).find("no tensor embed.rows8"), std::string::npos);
  EXPECT_NE(refusal("{\"embed", "x\"embed", 50'000'000).find("JSON"), std::string::npos);
  EXPECT_NE(refusal(std::string("\0\0\0\0\0", 5), std::string("\0\0\0\1\0", 5), 50'000'000).find("header"), std::string::npos);

  // A component that ends inside a tensor.
  Files files = small_quantised().build();
  auto index = *parse_folder_index(files[kFolderIndexFile], "i");
  index.components[0].end -= 4;
  index.components[1].begin -= 4;
  files[kFolderIndexFile] = folder_index_json(index);
  sum_anew(files);
  EXPECT_NE(load(files).error().message().find("embed.rows8: it crosses the end of its component"), std::string::npos);
  // A head that is longer than its header.
  files = small_quantised().build();
  index = *parse_folder_index(files[kFolderIndexFile], "i");
  index.shards[0].head_bytes += 8;
  index.components[0].begin += 8;
  files[kFolderIndexFile] = folder_index_json(index);
  sum_anew(files);
  EXPECT_NE(load(files).error().message().find("but the index says"), std::string::npos);
}

TEST(QuantisedFolder, ProgressRisesToTheTotal) {
  Files files = small_quantised().build(3000);
  const FolderIndex index = *parse_folder_index(files[kFolderIndexFile], "i");
  const LoadTuning tuning{.first_bytes = 300, .most_request_bytes = 1000, .most_shared_bytes = 700};
  Loading loads[] = {Loading::folder("m", tuning, PlaneSets::kBase), Loading::folder("m", tuning, PlaneSets::kFull),
                     Loading::refinement("m", index, {}, tuning), Loading::verify("m", tuning)};
  for (Loading& loading : loads) {
    uint64_t done = 0;
    for (;;) {
      const auto wanted = loading.next();
      ASSERT_TRUE(wanted) << wanted.error().message();
      EXPECT_GE(loading.progress().done_bytes, done);
      done = loading.progress().done_bytes;
      EXPECT_LE(done, loading.progress().total_bytes);
      if (wanted->kind == ReadRequest::Kind::kNothing) break;
      const auto file = files.find(wanted->file);
      if (wanted->kind == ReadRequest::Kind::kSize) {
        loading.size_is(file == files.end() ? std::nullopt : std::optional<uint64_t>(file->second.size()));
      } else {
        std::memcpy(wanted->dst.data(), file->second.data() + wanted->offset, wanted->dst.size());
        loading.bytes_are(wanted->dst.size());
      }
    }
    EXPECT_EQ(done, loading.progress().total_bytes);
    EXPECT_STREQ(loading.progress().phase, "weights");
    EXPECT_TRUE(loading.finish());
  }
}

// A load that fails or is abandoned at any point leaves nothing behind.
TEST(QuantisedFolder, CutAnywhere) {
  const MemoryReport before = memory_report();
  const Files whole = small_quantised().build(3000);
  size_t n_all = 0;
  for (const auto& [name, text] : whole) n_all += text.size();
  for (size_t n = 0; n < n_all; n += 1 + n % 61) {
    Host host{.files = whole, .most_bytes = n};
    const auto model = host.run(Loading::folder("m", {.first_bytes = 300, .most_request_bytes = 4000}));
    ASSERT_TRUE(model && !*model) << n;
    EXPECT_EQ(model->error().code(), Code::kModelTruncated) << n;
  }
  for (uint64_t n = 0; n < 40; ++n) {
    Host host{.files = whole, .most_answers = n};
    host.run(Loading::folder("m", {.first_bytes = 300, .most_request_bytes = 1000}));
  }
  for (Tag tag : {Tag::kWeights, Tag::kStaging}) EXPECT_EQ(memory_report().by_tag[size_t(tag)].current, before.by_tag[size_t(tag)].current);
}

// Written by Python (tools/make_io_corpus.py), so that the layout is not only what our own writer makes.
TEST(QuantisedFolder, TheFuzzersSeeds) {
  struct Seed {
    const char* name;
    size_t n_matrices, n_split;
  };
  for (const auto [seed, n_matrices, n_split] : {Seed{"plain", 1, 0}, {"refined", 2, 0}, {"split", 1, 2}}) {
    std::string text;
    FILE* file = std::fopen((std::string(SB_TESTS "/fuzz/corpus/folder_index/") + seed).c_str(), "rb");
    ASSERT_TRUE(file) << seed;
    char part[4096];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
    std::fclose(file);
    Files files = small_quantised().build();
    std::vector<std::string> sections;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find("\n===\n", begin), text.size());
      sections.push_back(text.substr(begin, end - begin));
      begin = end + 5;
    }
    files[kFolderIndexFile] = with_index_sum(sections[0]);
    const auto index = parse_folder_index(files[kFolderIndexFile], seed);
    ASSERT_TRUE(index) << index.error().message();
    ASSERT_EQ(index->shards.size() + 1, sections.size());
    for (size_t i = 0; i < index->shards.size(); ++i) files[index->shards[i].name] = sections[i + 1];
    EXPECT_EQ(load(files).error().code(), Code::kHashMismatch);
    sum_anew(files);
    const auto model = load(files);
    ASSERT_TRUE(model) << model.error().message();
    EXPECT_TRUE(verify(files));
    EXPECT_EQ(model->weights.matrices().size(), n_matrices);
    ASSERT_EQ(index->split.size(), n_split);
    if (n_split) EXPECT_EQ(model->weights.find("embed")->shape, (Shape{10, 4}));
  }
}

// Verifying holds one component, not the model.
TEST(QuantisedFolder, VerifyingHoldsLittle) {
  const Files files = small_quantised().build(2000);
  memory_reset_peak();
  const uint64_t before = memory_report().by_tag[size_t(Tag::kWeights)].current;
  ASSERT_TRUE(verify(files));
  EXPECT_LT(memory_report().by_tag[size_t(Tag::kWeights)].peak - before, 3000u);
}

}  // namespace
}  // namespace sb
