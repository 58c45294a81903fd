#include "io/config.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sb {
namespace {

Config folder(const char* text) { return Config(Container::kFolder, "m/config.json", *json_parse(text, "config.json")); }
Config gguf(const char* text) { return Config(Container::kGguf, "m.gguf", *json_parse(text, "metadata")); }

TEST(Config, OneQuestionTwoContainers) {
  const Config a = folder(
      R"({"model_type": "llama", "num_hidden_layers": 30, "rms_norm_eps": 1e-5, "eos_token_id": [2, 7], "tie_word_embeddings": true})");
  const Config b = gguf(R"({"general.architecture": "llama", "llama.block_count": 30, "llama.attention.layer_norm_rms_epsilon": 1e-5,
                            "tokenizer.ggml.eos_token_id": 2, "llama.rope.scaling.factor": 8.0})");
  for (const Config* c : {&a, &b}) {
    EXPECT_EQ(c->architecture(), "llama");
    EXPECT_EQ(c->dimension("num_hidden_layers").value_or(0), 30);
    EXPECT_EQ(c->number_or("rms_norm_eps", 0).value_or(0), 1e-5);
    EXPECT_EQ(c->dimension_or("head_dim", 64).value_or(0), 64);
    EXPECT_EQ(c->number_or("rope_theta", 1e4).value_or(0), 1e4);
  }
  EXPECT_EQ(a.integers("eos_token_id"), (std::vector<int64_t>{2, 7}));
  EXPECT_EQ(b.integers("eos_token_id"), (std::vector<int64_t>{2}));
  EXPECT_EQ(b.number_or("rope.scaling.factor", 1).value_or(0), 8.0);  // what has no Hugging Face name is asked for without the architecture
  EXPECT_EQ(a.flag_or("tie_word_embeddings", false).value_or(false), true);
  EXPECT_FALSE(b.has("tie_word_embeddings"));
}

TEST(Config, TwoSpellingsOfOneSetting) {
  const Config c = folder(R"({"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_inner": null, "n_positions": 1024})");
  EXPECT_EQ(c.dimension("num_hidden_layers").value_or(0), 12);
  EXPECT_EQ(c.dimension("hidden_size").value_or(0), 768);
  EXPECT_EQ(c.dimension("max_position_embeddings").value_or(0), 1024);
  EXPECT_FALSE(c.has("intermediate_size"));
}

TEST(Config, GgufConventions) {
  EXPECT_TRUE(gguf("{}").gguf_conventions());
  EXPECT_TRUE(folder(R"({"quantization_config": {"gguf_conventions": true}})").gguf_conventions());
  for (const char* text :
       {"{}", R"({"quantization_config": {}})", R"({"quantization_config": {"gguf_conventions": 1}})",
        R"({"quantization_config": {"gguf_conventions": false}})", R"({"gguf_conventions": true})", R"({"quantization_config": null})"})
    EXPECT_FALSE(folder(text).gguf_conventions()) << text;
}

TEST(Config, SpeltAsHuggingFaceDoes) {
  const Config llama = gguf(R"({"general.architecture": "llama", "general.name": "x", "llama.block_count": 2, "llama.context_length": 64,
               "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.scaling.type": "linear", "llamas.a": 1,
               "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.pre": "x"})");
  EXPECT_EQ(json_text(llama.hugging_face_values()),
            R"({"eos_token_id":2,"max_position_embeddings":64,"num_hidden_layers":2,"rms_norm_eps":1e-05,"rope.scaling.type":"linear"})");
  const Config gpt2 =
      gguf(R"({"general.architecture": "gpt2", "gpt2.block_count": 2, "gpt2.embedding_length": 8, "gpt2.feed_forward_length": 32,
               "gpt2.attention.head_count": 2, "gpt2.attention.layer_norm_epsilon": 1, "gpt2.context_length": 64, "gpt2.vocab_size": 9})");
  EXPECT_EQ(json_text(gpt2.hugging_face_values()),
            R"({"layer_norm_epsilon":1,"n_embd":8,"n_head":2,"n_inner":32,"n_layer":2,"n_positions":64,"vocab_size":9})");
  // Whatever is asked of the GGUF, the folder answers the same.
  const Config copy(Container::kFolder, "config.json", gpt2.hugging_face_values());
  for (const char* key : {"num_hidden_layers", "n_layer", "hidden_size", "n_ctx", "max_position_embeddings", "layer_norm_eps"})
    EXPECT_EQ(copy.dimension(key).value_or(0), gpt2.dimension(key).value_or(-1)) << key;
}

TEST(Config, NullIsAbsent) {
  const Config c = folder(R"({"sliding_window": null, "flag": null})");
  EXPECT_FALSE(c.has("sliding_window"));
  EXPECT_EQ(c.dimension_or("sliding_window", 7).value_or(0), 7);
  EXPECT_EQ(c.architecture(), "");
}

TEST(Config, RefusesWrongTypesAndSaysWhich) {
  const Config c = folder(R"({"a": 0, "b": -1, "c": 1.5, "d": "4", "e": 4294967296, "f": [1], "g": true, "i": 18446744073709551615})");
  for (const char* key : {"a", "b", "c", "d", "e", "f", "g", "i", "absent"}) {
    const auto n = c.dimension(key);
    ASSERT_FALSE(n) << key;
    EXPECT_EQ(n.error().code(), Code::kConfigInvalid);
  }
  for (const char* key : {"d", "f", "g"}) EXPECT_FALSE(c.number_or(key, 1)) << key;
  for (const char* key : {"a", "d", "f"}) EXPECT_FALSE(c.flag_or(key, true)) << key;
  for (const char* key : {"a", "f", "g"}) EXPECT_FALSE(c.text_or(key, "")) << key;
  EXPECT_EQ(c.dimension("a").error().message(), "m/config.json: setting a is 0; a whole number from 1 to 2147483647 is needed");
  EXPECT_EQ(gguf(R"({"general.architecture": "qwen2", "qwen2.block_count": "x"})").dimension("num_hidden_layers").error().message(),
            "m.gguf: setting qwen2.block_count is \"x\"; a whole number from 1 to 2147483647 is needed");

  Json not_finite = Json::object();
  not_finite["x"] = NAN;
  EXPECT_FALSE(Config(Container::kFolder, "c", not_finite).number_or("x", 1));
}

}  // namespace
}  // namespace sb
