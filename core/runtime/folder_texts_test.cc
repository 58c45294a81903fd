// The folder made of a GGUF must say what the GGUF said.
#include "runtime/folder_texts.h"

#include <gtest/gtest.h>

#include <map>

#include "io/synthetic_files.h"
#include "runtime/model.h"
#include "runtime/tokenizer_file.h"

namespace sb {
namespace {

using namespace testing_files;

Files files_of(const ModelFiles& model, const Json& quantization_config) {
  auto texts = folder_texts(model, quantization_config);
  EXPECT_TRUE(texts) << texts.error().message();
  Files files;
  for (auto& [name, text] : *texts) files[name] = text;
  return files;
}

/// A GGUF of this architecture: settings, six tokens of which three end a turn, a template, one tensor.
GgufBuilder model_gguf(const std::string& architecture, uint32_t n_layers = 2) {
  GgufBuilder g;
  auto key = [&](const char* name) { return architecture + "." + name; };
  g.text("general.architecture", architecture).text("general.name", "A \"small\" one");
  g.u32(key("block_count"), n_layers)
      .u32(key("embedding_length"), 8)
      .u32(key("attention.head_count"), 2)
      .u32(key("attention.key_length"), 4);
  g.f32(key("attention.layer_norm_rms_epsilon"), 1e-5f).u32(key("context_length"), 64).u32(key("attention.sliding_window"), 16);
  g.text(key("rope.scaling.type"), "linear").f32(key("rope.scaling.factor"), 8).u32(key("rope.dimension_count"), 4);
  g.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a", "<|im_end|>", "<end_of_turn>"});
  g.list<float>("tokenizer.ggml.scores", 6, {0, 0, 0, -1, 0, 0}).list<int32_t>("tokenizer.ggml.token_type", 5, {2, 3, 3, 1, 3, 4});
  g.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2).text("tokenizer.chat_template", "{{ bos_token }}ä");
  return g.floats("token_embd.weight", {8, 2}, std::vector<float>(16, 1));
}

ModelFiles folder_of(Files files) {
  files["model.safetensors"] = small_safetensors();
  auto folder = load_folder_files(std::move(files));
  EXPECT_TRUE(folder) << folder.error().message();
  return std::move(*folder);
}

TEST(FolderTexts, OfAGguf) {
  const std::pair<const char*, const char*> types[] = {{"llama", "llama"}, {"qwen3", "qwen3"}, {"gemma3", "gemma3_text"}};
  for (auto [architecture, type] : types) {
    const ModelFiles gguf = *load_gguf_text(model_gguf(architecture).build());
    const ModelFiles folder = folder_of(files_of(gguf, {{"bits", 4}}));
    EXPECT_EQ(folder.config.architecture(), type);
    EXPECT_TRUE(folder.config.gguf_conventions());
    EXPECT_EQ(folder.config.values()["quantization_config"]["bits"], 4);
    EXPECT_EQ(folder.config.values()["_name_or_path"], "A \"small\" one");
    EXPECT_EQ(folder.config.values()["tie_word_embeddings"], true);
    for (const char* key : {"num_hidden_layers", "hidden_size", "num_attention_heads", "head_dim", "max_position_embeddings", "vocab_size",
                            "sliding_window", "rope_dims", "bos_token_id", "eos_token_id"}) {
      EXPECT_TRUE(folder.config.values().contains(key)) << key;
      EXPECT_EQ(folder.config.dimension(key).value_or(-1), gguf.config.dimension(key).value_or(-2)) << key;
    }
    for (const char* key : {"rms_norm_eps", "rope.scaling.factor"})
      EXPECT_EQ(folder.config.number_or(key, -1).value_or(-1), gguf.config.number_or(key, -2).value_or(-2)) << key;
    EXPECT_EQ(folder.config.text_or("rope.scaling.type", "").value_or(""), "linear");
    EXPECT_EQ(folder.chat_template, gguf.chat_template);

    auto before = Tokenizer::from_gguf(vocab_of(*gguf.vocab));
    auto after = Tokenizer::from_json(folder.tokenizer_json);
    ASSERT_TRUE(before && after);
    EXPECT_EQ(*before->encode("a a<|im_end|>", true), *after->encode("a a<|im_end|>", true));
    // <end_of_turn> is no control token here, and </s> is what tokenizer.json's names would not have said.
    EXPECT_EQ(end_ids(gguf, &*before, 6), (std::vector<int32_t>{2, 4}));
    EXPECT_EQ(end_ids(folder, &*after, 6), (std::vector<int32_t>{2, 4}));
    EXPECT_EQ(folder.tokenizer_config["bos_token"], "<s>");
    EXPECT_EQ(folder.tokenizer_config["eos_token"], "</s>");
    EXPECT_EQ(folder.tokenizer_config["add_bos_token"], true);
    EXPECT_EQ(folder.tokenizer_config["add_eos_token"], false);

    // Written once more, it is the same folder with the new quantisation.
    Files again = files_of(folder, {{"bits", 2}});
    EXPECT_EQ(again["tokenizer.json"], folder.tokenizer_json);
    Json config = folder.config.values();
    config["quantization_config"] = {{"bits", 2}, {"gguf_conventions", true}};
    EXPECT_EQ(*json_parse(again["config.json"], "config.json"), config);
  }
}

/// A tensor by its two names; {rows, columns} or {n}.
struct NamedTensor {
  const char *gguf, *hugging_face;
  std::vector<uint64_t> shape;
};
const std::vector<NamedTensor> kLlama = {{"token_embd.weight", "model.embed_tokens.weight", {6, 8}},
                                         {"output_norm.weight", "model.norm.weight", {8}},
                                         {"rope_freqs.weight", "rope_freqs.weight", {2}},
                                         {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", {8}},
                                         {"blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", {8, 8}},
                                         {"blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight", {8, 8}},
                                         {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight", {8, 8}},
                                         {"blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", {8, 8}},
                                         {"blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight", {8}},
                                         {"blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight", {4, 8}},
                                         {"blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight", {4, 8}},
                                         {"blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", {8, 4}}};
const std::vector<NamedTensor> kGemma3 = {{"token_embd.weight", "model.embed_tokens.weight", {6, 8}},
                                          {"output_norm.weight", "model.norm.weight", {8}},
                                          {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", {8}},
                                          {"blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", {8, 8}},
                                          {"blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight", {8, 8}},
                                          {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight", {8, 8}},
                                          {"blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", {8, 8}},
                                          {"blk.0.attn_q_norm.weight", "model.layers.0.self_attn.q_norm.weight", {4}},
                                          {"blk.0.attn_k_norm.weight", "model.layers.0.self_attn.k_norm.weight", {4}},
                                          {"blk.0.post_attention_norm.weight", "model.layers.0.post_attention_layernorm.weight", {8}},
                                          {"blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight", {8}},
                                          {"blk.0.post_ffw_norm.weight", "model.layers.0.post_feedforward_layernorm.weight", {8}},
                                          {"blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight", {4, 8}},
                                          {"blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight", {4, 8}},
                                          {"blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", {8, 4}}};
const std::vector<NamedTensor> kGpt2 = {{"token_embd.weight", "transformer.wte.weight", {6, 8}},
                                        {"position_embd.weight", "transformer.wpe.weight", {64, 8}},
                                        {"output_norm.weight", "transformer.ln_f.weight", {8}},
                                        {"output_norm.bias", "transformer.ln_f.bias", {8}},
                                        {"blk.0.attn_norm.weight", "transformer.h.0.ln_1.weight", {8}},
                                        {"blk.0.attn_norm.bias", "transformer.h.0.ln_1.bias", {8}},
                                        {"blk.0.attn_qkv.weight", "transformer.h.0.attn.c_attn.weight", {24, 8}},
                                        {"blk.0.attn_output.weight", "transformer.h.0.attn.c_proj.weight", {8, 8}},
                                        {"blk.0.ffn_norm.weight", "transformer.h.0.ln_2.weight", {8}},
                                        {"blk.0.ffn_norm.bias", "transformer.h.0.ln_2.bias", {8}},
                                        {"blk.0.ffn_up.weight", "transformer.h.0.mlp.c_fc.weight", {8, 8}},
                                        {"blk.0.ffn_down.weight", "transformer.h.0.mlp.c_proj.weight", {8, 8}}};

std::vector<float> numbers_of(const NamedTensor& tensor) {
  size_t n = 1;
  for (uint64_t d : tensor.shape) n *= size_t(d);
  std::vector<float> out;
  for (size_t i = 0; i < n; ++i) out.push_back(float(out.size() + tensor.shape[0]) + 1);
  return out;
}

/// What the model computes, as text: every node with what the conventions decide, and every number it reads.
std::string plan_text(const ModelFiles& model) {
  const Family* family = nullptr;
  auto graph = open_model(model.config, const_cast<WeightStore&>(model.weights), &family);
  if (!graph) return graph.error().message();
  Plan plan(2);
  (*graph)->build(plan, {.n_tokens = 2});
  if (Status status = plan.finish(); !status) return status.error().message();
  std::string text;
  for (const Node& node : plan.nodes()) {
    text += op_name(node.op);
    if (const auto* op = std::get_if<RmsNorm>(&node.op)) text += " +" + std::to_string(op->offset) + " eps " + std::to_string(op->eps);
    if (const auto* op = std::get_if<Rope>(&node.op)) text += op->style == RopeStyle::kPairs ? " pairs" : " halves";
    if (const auto* op = std::get_if<Attention>(&node.op)) text += " window " + std::to_string(op->window);
    for (int32_t input : node.inputs) {
      text += " " + std::to_string(input);
      if (input < 0) continue;
      const Value& value = plan.values()[size_t(input)];
      text += value.shape.text();
      for (float x : value.constant) text += " " + std::to_string(x);
      if (value.kind != ValueKind::kWeight) continue;
      for (int64_t i = 0; i < value.shape.elements(); ++i) text += " " + std::to_string(int(value.weight.row<float>(0)[i]));
    }
    text += "\n";
  }
  return text;
}

// The GGUF's numbers under Hugging Face's names, in a folder that says so, are the same model; in one that does not, they are another.
TEST(FolderTexts, TheSameModel) {
  const std::pair<const char*, const std::vector<NamedTensor>*> models[] = {{"llama", &kLlama}, {"gemma3", &kGemma3}, {"gpt2", &kGpt2}};
  for (auto [architecture, tensors] : models) {
    SCOPED_TRACE(architecture);
    GgufBuilder g = model_gguf(architecture, 1);
    g.tensors.clear();
    std::vector<SafetensorsEntry> entries;
    std::vector<std::vector<float>> numbers;
    for (const NamedTensor& t : *tensors) numbers.push_back(numbers_of(t));
    for (size_t i = 0; i < numbers.size(); ++i) {
      const NamedTensor& t = (*tensors)[i];
      Shape shape;
      for (uint64_t d : t.shape) shape.push(int64_t(d));
      g.floats(t.gguf, {t.shape.rbegin(), t.shape.rend()}, numbers[i]);
      entries.push_back({t.hugging_face, Dtype::kF32, shape, std::as_bytes(std::span(numbers[i]))});
    }
    const ModelFiles gguf = *load_gguf_text(g.build());
    Files files = files_of(gguf, nullptr);
    files["model.safetensors"] = text_of(write_safetensors(entries));
    const std::string expected = plan_text(gguf);
    EXPECT_NE(expected.find("attention"), std::string::npos) << expected;
    EXPECT_EQ(plan_text(*load_folder_files(files)), expected);
    files["config.json"].replace(files["config.json"].find("gguf_conventions"), 1, "G");
    EXPECT_NE(plan_text(*load_folder_files(files)), expected);
  }
}

TEST(FolderTexts, AHeadOfItsOwnIsNotTied) {
  GgufBuilder g = model_gguf("llama");
  g.floats("output.weight", {8, 2}, std::vector<float>(16, 1));
  EXPECT_EQ(folder_of(files_of(*load_gguf_text(g.build()), nullptr)).config.values()["tie_word_embeddings"], false);
}

TEST(FolderTexts, WithoutATokenizer) {
  GgufBuilder g;
  g.text("general.architecture", "llama");
  const Files files = files_of(*load_gguf_text(g.build()), Json::object());
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(*json_parse(files.at("config.json"), ""),
            *json_parse(R"({"model_type": "llama", "tie_word_embeddings": true, "quantization_config": {"gguf_conventions": true}})", ""));
}

TEST(FolderTexts, ATokenizerThatCannotBeWritten) {
  GgufBuilder g;
  g.text("general.architecture", "llama").text("tokenizer.ggml.model", "rwkv").texts("tokenizer.ggml.tokens", {"a"});
  auto texts = folder_texts(*load_gguf_text(g.build()), nullptr);
  ASSERT_FALSE(texts);
  EXPECT_EQ(texts.error().code(), Code::kTokenizerUnsupported);
}

TEST(FolderTexts, OfAFolder) {
  Files source = small_folder();
  source["config.json"] = R"({"model_type": "llama", "hidden_size": 4, "rope_scaling": null, "quantization_config": {"old": 1}})";
  const ModelFiles folder = *load_folder_files(source);
  Files files = files_of(folder, {{"bits", 4}});
  EXPECT_EQ(files.size(), 5u);
  EXPECT_EQ(*json_parse(files["config.json"], ""),
            *json_parse(R"({"model_type": "llama", "hidden_size": 4, "rope_scaling": null, "quantization_config": {"bits": 4}})", ""));
  EXPECT_EQ(files["tokenizer.json"], source["tokenizer.json"]);
  for (const char* name : {"tokenizer_config.json", "generation_config.json"})
    EXPECT_EQ(*json_parse(files[name], name), *json_parse(source[name], name));
  EXPECT_EQ(files["chat_template.jinja"], "{{ a }}");
  files = files_of(*load_folder_files({{"config.json", "{}"}, {"model.safetensors", small_safetensors()}}), {{"bits", 4}});
  EXPECT_EQ(files.size(), 1u);
}

}  // namespace
}  // namespace sb
