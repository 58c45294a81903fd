#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

namespace sb {
namespace {

// Bounds that no real file comes near; above them a count is damage, below them a missing byte is a cut download.
constexpr uint64_t kMostEntries = 1u << 20;      // metadata keys, tensors
constexpr uint64_t kMostElements = 1u << 28;     // of an array
constexpr uint64_t kLongestText = 1u << 30;      // bytes
constexpr uint64_t kLongestHead = 1u << 30;      // bytes
constexpr uint64_t kMostKept = 1u << 20;         // array elements that go into the metadata object; longer arrays are left out
constexpr uint64_t kMostKeptOfTokenizer = 4096;  // the same for tokenizer.* (what is wanted of those is in GgufVocabFields)
constexpr int kDeepestArray = 4;

enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kText, kArray, kU64, kI64, kF64, kValueTypes };
constexpr uint64_t kLeastBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

const char* ggml_type_name(uint32_t number) {
  static constexpr const char* kNames[] = {
      "F32",      "F16",    "Q4_0",  "Q4_1",       "Q4_2",       "Q4_3",       "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",     "Q2_K",
      "Q3_K",     "Q4_K",   "Q5_K",  "Q6_K",       "Q8_K",       "IQ2_XXS",    "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL",   "IQ3_S",
      "IQ2_S",    "IQ4_XS", "I8",    "I16",        "I32",        "I64",        "F64",    "IQ1_M",   "BF16",  "Q4_0_4_4", "Q4_0_4_8",
      "Q4_0_8_8", "TQ1_0",  "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",  "NVFP4"};
  return number < sizeof(kNames) / sizeof(kNames[0]) ? kNames[number] : nullptr;
}

/// Walks the bytes. After the first thing that stops it (bytes that have not come, or damage) every read gives zeros, and stopped()
/// stays true: callers look once per entry, and before they allocate.
class HeadReader {
 public:
  HeadReader(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  uint64_t at() const { return at_; }
  bool stopped() const { return needed_ != 0 || error_; }
  uint64_t needed() const { return needed_; }
  std::optional<Error>& error() { return error_; }

  void corrupt(std::string_view place, std::string_view why) {
    if (stopped()) return;
    error_ = Error(Code::kModelCorrupt, {{"file", file_}, {"place", place}, {"why", why}});
  }
  /// True when the next `n` bytes are here.
  bool require(uint64_t n) {
    if (stopped()) return false;
    if (n <= bytes_.size() - at_) return true;
    needed_ = at_ + n;
    return false;
  }
  template <class T>
  T number() {
    T value{};
    if (!require(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  /// A count that is at most `most`; `what` names it in the error.
  uint64_t count(uint64_t most, const char* what) {
    const uint64_t start = at_, n = number<uint64_t>();
    if (n <= most) return n;
    corrupt("byte " + std::to_string(start), std::string(what) + " of " + std::to_string(n) + " cannot be");
    return 0;
  }
  std::string_view text(const char* what) {
    const uint64_t n = count(kLongestText, what);
    if (!require(n)) return {};
    std::string_view out(reinterpret_cast<const char*>(bytes_.data() + at_), size_t(n));
    at_ += n;
    return out;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  uint64_t at_ = 0;
  uint64_t needed_ = 0;  // bytes from the start; 0 while nothing is missing
  std::optional<Error> error_;
};

Json scalar(HeadReader& in, uint32_t type, std::string_view key) {
  switch (type) {
    case kU8:
      return in.number<uint8_t>();
    case kI8:
      return in.number<int8_t>();
    case kU16:
      return in.number<uint16_t>();
    case kI16:
      return in.number<int16_t>();
    case kU32:
      return in.number<uint32_t>();
    case kI32:
      return in.number<int32_t>();
    case kF32:
      return in.number<float>();
    case kU64:
      return in.number<uint64_t>();
    case kI64:
      return in.number<int64_t>();
    case kF64:
      return in.number<double>();
    case kText:
      return std::string(in.text("a text length"));
    case kBool: {
      const uint8_t b = in.number<uint8_t>();
      if (b > 1) in.corrupt("key " + std::string(key), "a truth value is neither 0 nor 1");
      return b == 1;
    }
    default:
      in.corrupt("key " + std::string(key), "its value has unknown type " + std::to_string(type));
      return nullptr;
  }
}

struct ArrayHead {
  uint32_t type = 0;
  uint64_t n = 0;  // so many elements, at least in their shortest form, are here
};
ArrayHead array_head(HeadReader& in, std::string_view key) {
  ArrayHead head;
  head.type = in.number<uint32_t>();
  head.n = in.count(kMostElements, "an array length");
  if (head.type >= kValueTypes) in.corrupt("key " + std::string(key), "its elements have unknown type " + std::to_string(head.type));
  if (in.stopped() || !in.require(head.n * kLeastBytes[head.type])) head.n = 0;
  return head;
}

/// An array as JSON; null when it has more than `most_kept` elements (it is walked all the same).
Json array(HeadReader& in, std::string_view key, uint64_t most_kept, int depth) {
  if (depth > kDeepestArray) {
    in.corrupt("key " + std::string(key), "arrays are nested too deeply");
    return nullptr;
  }
  const ArrayHead head = array_head(in, key);
  Json out = head.n <= most_kept ? Json(Json::array()) : Json(nullptr);
  for (uint64_t i = 0; i < head.n && !in.stopped(); ++i) {
    Json element = head.type == kArray ? array(in, key, most_kept, depth + 1) : scalar(in, head.type, key);
    if (out.is_array()) out.push_back(std::move(element));
  }
  return out;
}

void texts(HeadReader& in, std::string_view key, std::vector<std::string>& out) {
  const ArrayHead head = array_head(in, key);
  if (!in.stopped() && head.type != kText) in.corrupt("key " + std::string(key), "its elements must be texts");
  if (in.stopped()) return;
  out.reserve(size_t(head.n));
  for (uint64_t i = 0; i < head.n && !in.stopped(); ++i) out.emplace_back(in.text("a text length"));
}

template <class T>
void numbers(HeadReader& in, std::string_view key, std::vector<T>& out) {
  const ArrayHead head = array_head(in, key);
  if (!in.stopped() && (head.type == kText || head.type == kArray)) in.corrupt("key " + std::string(key), "its elements must be numbers");
  if (in.stopped()) return;
  out.reserve(size_t(head.n));
  for (uint64_t i = 0; i < head.n && !in.stopped(); ++i) {
    const Json value = scalar(in, head.type, key);
    out.push_back(value.is_number() ? value.get<T>() : T{});
  }
}

/// One metadata entry's value, into the vocabulary or the metadata object.
void value(HeadReader& in, std::string_view key, uint32_t type, GgufHead& head, GgufVocabFields& vocab) {
  if (type != kArray) {
    Json v = scalar(in, type, key);
    if (!in.stopped()) head.metadata[std::string(key)] = std::move(v);
  } else if (key == "tokenizer.ggml.tokens") {
    texts(in, key, vocab.tokens);
  } else if (key == "tokenizer.ggml.merges") {
    texts(in, key, vocab.merges);
  } else if (key == "tokenizer.ggml.scores") {
    numbers(in, key, vocab.scores);
  } else if (key == "tokenizer.ggml.token_type") {
    numbers(in, key, vocab.types);
  } else {
    Json v = array(in, key, key.starts_with("tokenizer.") ? kMostKeptOfTokenizer : kMostKept, 1);
    if (!in.stopped() && !v.is_null()) head.metadata[std::string(key)] = std::move(v);
  }
}

void metadata(HeadReader& in, uint64_t n_keys, GgufHead& head, GgufVocabFields& vocab) {
  std::set<std::string_view> seen;
  for (uint64_t i = 0; i < n_keys && !in.stopped(); ++i) {
    const std::string_view key = in.text("a key length");
    const uint32_t type = in.number<uint32_t>();
    if (in.stopped()) return;
    if (!seen.insert(key).second) return in.corrupt("key " + std::string(key), "the key occurs twice");
    value(in, key, type, head, vocab);
  }
}

std::optional<int32_t> token_id(const Json& metadata, const char* key) {
  const std::optional<int64_t> id = json_int(metadata, key);
  return id && *id >= 0 && *id <= INT32_MAX ? std::optional<int32_t>(int32_t(*id)) : std::nullopt;
}

void fill_vocab(GgufHead& head, GgufVocabFields vocab) {
  const Json& m = head.metadata;
  vocab.model = json_string(m, "tokenizer.ggml.model").value_or("");
  vocab.pre = json_string(m, "tokenizer.ggml.pre").value_or("");
  vocab.bos = token_id(m, "tokenizer.ggml.bos_token_id");
  vocab.eos = token_id(m, "tokenizer.ggml.eos_token_id");
  vocab.unk = token_id(m, "tokenizer.ggml.unknown_token_id");
  vocab.sep = token_id(m, "tokenizer.ggml.seperator_token_id");  // so spelt by llama.cpp
  vocab.pad = token_id(m, "tokenizer.ggml.padding_token_id");
  vocab.cls = token_id(m, "tokenizer.ggml.cls_token_id");
  vocab.mask = token_id(m, "tokenizer.ggml.mask_token_id");
  vocab.eot = token_id(m, "tokenizer.ggml.eot_token_id");
  vocab.add_bos = json_bool(m, "tokenizer.ggml.add_bos_token");
  vocab.add_eos = json_bool(m, "tokenizer.ggml.add_eos_token");
  vocab.add_space_prefix = json_bool(m, "tokenizer.ggml.add_space_prefix");
  head.chat_template = json_string(m, "tokenizer.chat_template").value_or("");
  head.metadata.erase("tokenizer.chat_template");
  const std::string size_key = json_string(m, "general.architecture").value_or("") + ".vocab_size";
  if (!json_find(m, size_key) && !vocab.tokens.empty()) head.metadata[size_key] = vocab.tokens.size();
  if (!vocab.model.empty() || !vocab.tokens.empty()) head.vocab = std::move(vocab);
}

Result<TensorPlace> tensor_place(HeadReader& in, std::string_view file) {
  TensorPlace place;
  place.name = in.text("a tensor name's length");
  const uint32_t n_dims = in.number<uint32_t>();
  if (n_dims > uint32_t(Shape::kMaxRank)) in.corrupt("tensor " + place.name, std::to_string(n_dims) + " dimensions are more than 4");
  uint64_t dims[Shape::kMaxRank] = {};
  for (uint32_t i = 0; i < n_dims && !in.stopped(); ++i) dims[i] = in.number<uint64_t>();
  const uint32_t type = in.number<uint32_t>();
  place.offset = in.number<uint64_t>();
  if (in.stopped()) return place;

  auto corrupt = [&](std::string_view why) {
    return err(Code::kModelCorrupt, {{"file", file}, {"place", "tensor " + place.name}, {"why", why}});
  };
  for (uint32_t i = n_dims; i-- > 0;) {
    if (dims[i] == 0 || dims[i] > uint64_t(INT64_MAX)) return corrupt("a dimension of " + std::to_string(dims[i]) + " cannot be");
    place.shape.push(int64_t(dims[i]));
  }
  const std::optional<Dtype> dtype = dtype_from_gguf(type);
  if (!dtype) {
    const char* known = ggml_type_name(type);
    const std::string shown = known ? known : "number " + std::to_string(type);
    return err(Code::kDtypeUnknown, {{"tensor", place.name}, {"file", file}, {"dtype", shown}, {"known", known_dtypes()}});
  }
  place.dtype = *dtype;
  const Result<uint64_t> n_bytes = dense_bytes(*dtype, place.shape);
  if (!n_bytes) return corrupt(n_bytes.error().message());
  place.n_bytes = *n_bytes;
  return place;
}

Status check_start(std::span<const std::byte> bytes, uint64_t file_size, std::string_view file) {
  auto not_a_model = [&](std::string_view why) { return err(Code::kNotAModel, {{"file", file}, {"why", why}}); };
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (file_size == 0) return not_a_model("it is empty");
  if (!std::string_view("GGUF").starts_with(start.substr(0, 4))) {
    const std::string_view why = foreign_file(start);
    return not_a_model(why.empty() ? "it does not begin with \"GGUF\"" : why);
  }
  if (bytes.size() < 8) return {};
  uint32_t version;
  std::memcpy(&version, bytes.data() + 4, sizeof version);
  if (version == 1) return not_a_model("it is GGUF version 1; convert it anew with llama.cpp");
  if (version == 2 || version == 3) return {};
  if ((version & 0xFFFF) == 0 && version) return not_a_model("it is a big-endian GGUF; convert it to little-endian");
  return not_a_model("it is GGUF version " + std::to_string(version) + ", and versions 2 and 3 are known");
}

Result<uint64_t> missing_bytes(HeadReader& in, uint64_t file_size, std::string_view file) {
  if (in.error()) return err(std::move(*in.error()));
  if (in.needed() > file_size) return err(Code::kModelTruncated, {{"file", file}, {"size", file_size}, {"needed", in.needed()}});
  if (in.needed() > kLongestHead) {
    return err(Code::kModelCorrupt,
               {{"file", file}, {"place", "byte " + std::to_string(in.at())}, {"why", "its index is longer than 1 GiB"}});
  }
  return in.needed();
}

Status check_metadata(const GgufHead& head, const GgufVocabFields& vocab, std::string_view file) {
  const std::optional<int64_t> n_parts = json_int(head.metadata, "split.count");
  if (n_parts && *n_parts > 1) {
    return err(
        Code::kNotAModel,
        {{"file", file}, {"why", "it is one of " + std::to_string(*n_parts) + " parts; join them with llama.cpp's gguf-split --merge"}});
  }
  auto differs = [&](size_t n) { return n != 0 && n != vocab.tokens.size(); };
  if (differs(vocab.scores.size()) || differs(vocab.types.size())) {
    return err(Code::kModelCorrupt,
               {{"file", file}, {"place", "key tokenizer.ggml.tokens"}, {"why", "scores or types differ from the tokens in number"}});
  }
  return {};
}

}  // namespace

Result<uint64_t> gguf_parse_head(std::span<const std::byte> bytes, uint64_t file_size, std::string_view file, GgufHead& head) {
  head = GgufHead();
  if (bytes.size() > file_size) bytes = bytes.first(size_t(file_size));
  SB_OK(check_start(bytes, file_size, file));
  HeadReader in(bytes, file);
  in.number<uint32_t>();  // magic
  in.number<uint32_t>();  // version
  const uint64_t n_tensors = in.count(kMostEntries, "a tensor count");
  const uint64_t n_keys = in.count(kMostEntries, "a key count");
  GgufVocabFields vocab;
  metadata(in, n_keys, head, vocab);
  if (in.stopped()) return missing_bytes(in, file_size, file);
  SB_OK(check_metadata(head, vocab, file));

  std::set<std::string, std::less<>> names;
  for (uint64_t i = 0; i < n_tensors && !in.stopped(); ++i) {
    SB_TRY(TensorPlace place, tensor_place(in, file));
    if (in.stopped()) break;
    if (!names.insert(place.name).second) in.corrupt("tensor " + place.name, "the name occurs twice");
    head.tensors.push_back(std::move(place));
  }
  if (in.stopped()) return missing_bytes(in, file_size, file);

  const int64_t alignment = json_find(head.metadata, "general.alignment") ? json_int(head.metadata, "general.alignment").value_or(0) : 32;
  if (alignment < 1 || alignment > INT32_MAX || !std::has_single_bit(uint64_t(alignment))) {
    return err(Code::kModelCorrupt, {{"file", file}, {"place", "key general.alignment"}, {"why", "a power of two is needed"}});
  }
  const uint64_t mask = uint64_t(alignment) - 1;
  const uint64_t data = (in.at() + mask) & ~mask;
  for (TensorPlace& place : head.tensors) {
    uint64_t end = 0;
    const bool is_aligned = (place.offset & mask) == 0;
    const bool overflows = __builtin_add_overflow(place.offset, data, &place.offset) ||
                           __builtin_add_overflow(place.offset, place.n_bytes, &end) || end > uint64_t(INT64_MAX);
    if (is_aligned && !overflows) continue;
    return err(Code::kModelCorrupt, {{"file", file},
                                     {"place", "tensor " + place.name},
                                     {"why", overflows ? "its offset is beyond any file" : "its offset is no multiple of the alignment"}});
  }
  SB_OK(settle_tensor_places(head.tensors, file_size, file));
  fill_vocab(head, std::move(vocab));
  return 0;
}

}  // namespace sb
