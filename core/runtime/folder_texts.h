// The text files of the folder that a quantised model is written as.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/loading.h"

namespace sb {

/// The text files of a Hugging Face style folder for a loaded model: name → contents. `quantization_config` (an object) is put into
/// config.json. For a folder source its own files are passed on.
///
/// Of a GGUF they are made: config.json under Hugging Face's keys, tokenizer.json and tokenizer_config.json of its vocabulary,
/// generation_config.json with every id that ends an answer, chat_template.jinja. Model::open on the folder then finds the same settings,
/// ids and ends, provided that its tensors have Hugging Face's names and the GGUF's numbers: quantization_config says "gguf_conventions":
/// true (Config::gguf_conventions), and stays so when such a folder is the source. rope_freqs.weight keeps its name.
///
/// `files` must be as the load brought them: Model::open takes the vocabulary away. Errors: those of tokenizer_json_of.
Result<std::vector<std::pair<std::string, std::string>>> folder_texts(const ModelFiles& files, const Json& quantization_config);

}  // namespace sb
