#include "io/foreign.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "formats/decode.h"
#include "formats/levels.h"
#include "io/tensor_index.h"

namespace sb {
namespace {

std::unexpected<Error> corrupt(const WeightTensor& tensor, std::string_view why) {
  return err(Code::kModelCorrupt, {{"file", tensor.file}, {"place", "tensor " + tensor.name}, {"why", why}});
}
std::unexpected<Error> misshapen(const WeightTensor& tensor, const std::string& expected) {
  return err(Code::kShapeMismatch,
             {{"what", "Tensor " + tensor.name + " of " + tensor.file}, {"shape", tensor.shape.text()}, {"expected", expected}});
}
Status expect_shape(const WeightTensor& tensor, const Shape& shape) {
  if (tensor.shape != shape) return misshapen(tensor, shape.text());
  return {};
}
Status expect_floats(const WeightTensor& tensor) {
  if (tensor.dtype == Dtype::kF16 || tensor.dtype == Dtype::kBF16 || tensor.dtype == Dtype::kF32) return {};
  return corrupt(tensor, std::string("it has type ") + dtype_name(tensor.dtype) + ", but F16, BF16 or F32 is needed");
}
Result<WeightTensor*> part(WeightStore& weights, const std::string& name) {
  WeightTensor* tensor = weights.find(name);
  if (!tensor) return err(Code::kTensorMissing, {{"file", weights.file()}, {"tensor", name}});
  return tensor;
}
Result<WeightTensor*> words_of(WeightStore& weights, const std::string& name) {
  SB_TRY(WeightTensor * tensor, part(weights, name));
  if (tensor->dtype != Dtype::kI32)
    return corrupt(*tensor, std::string("it has type ") + dtype_name(tensor->dtype) + ", but I32 is needed");
  if (tensor->shape.rank() != 2) return misshapen(*tensor, "a matrix of words");
  return tensor;
}

/// X of all tensors X + `ending`, in file order.
std::vector<std::string> modules_with(const WeightStore& weights, std::string_view ending) {
  std::vector<std::string> modules;
  for (const auto& tensor : weights.tensors()) {
    if (tensor->name.ends_with(ending)) modules.push_back(tensor->name.substr(0, tensor->name.size() - ending.size()));
  }
  return modules;
}

constexpr int64_t kBlock = 32;  // weights of a block of Q4_0 and Q5_0

/// Where the outputs 8i … 8i+7 lie in a word of AWQ.
constexpr int kAwqPlaces[8] = {0, 4, 1, 5, 2, 6, 3, 7};

/// A module's 4-bit codes. kInterleaved: AWQ's packing, else GPTQ's.
template <bool kInterleaved>
struct Codes {
  const uint32_t *words, *zero_words;
  int64_t n_rows;  // N
  bool one_less;

  int code(int64_t n, int64_t k) const {
    if constexpr (kInterleaved) return words[k * (n_rows / 8) + n / 8] >> 4 * kAwqPlaces[n % 8] & 15;
    return words[k / 8 * n_rows + n] >> 4 * (k % 8) & 15;
  }
  int zero(int64_t n, int64_t group) const {
    const uint32_t word = zero_words[group * (n_rows / 8) + n / 8];
    const uint32_t stored = word >> 4 * (kInterleaved ? kAwqPlaces[n % 8] : n % 8) & 15;
    return (one_less ? stored + 1 : stored) & 15;
  }
};

/// A 4-bit module as it is loaded.
struct Int4Module {
  WeightTensor *words = nullptr, *zeros = nullptr, *scales = nullptr, *order = nullptr;
  int64_t n_rows = 0, n_columns = 0, n_groups = 0;

  static Result<Int4Module> find(WeightStore& weights, const std::string& name, const ForeignScheme& scheme, bool is_interleaved) {
    Int4Module m;
    SB_TRY(m.words, words_of(weights, name + ".qweight"));
    SB_TRY(m.zeros, words_of(weights, name + ".qzeros"));
    SB_TRY(m.scales, part(weights, name + ".scales"));
    SB_OK(expect_floats(*m.scales));
    m.order = weights.find(name + ".g_idx");
    if (m.words->shape[0] > INT32_MAX || m.words->shape[1] > INT32_MAX) return misshapen(*m.words, "less than 2^31 of each");
    m.n_rows = m.words->shape[1] * (is_interleaved ? 8 : 1);
    m.n_columns = m.words->shape[0] * (is_interleaved ? 1 : 8);
    if (m.n_rows % 8 || m.n_rows == 0 || m.n_columns == 0) return misshapen(*m.words, "a multiple of 8 outputs");
    m.n_groups = scheme.group_size ? (m.n_columns + scheme.group_size - 1) / scheme.group_size : 1;
    SB_OK(expect_shape(*m.scales, {m.n_groups, m.n_rows}));
    SB_OK(expect_shape(*m.zeros, {m.n_groups, m.n_rows / 8}));
    if (m.order && m.order->dtype != Dtype::kI32) return corrupt(*m.order, "it holds no whole numbers");
    if (m.order) SB_OK(expect_shape(*m.order, {m.n_columns}));
    return m;
  }

  /// The group of each input.
  Result<std::vector<int32_t>> groups(int64_t group_size) const {
    std::vector<int32_t> out(static_cast<size_t>(n_columns));
    const int32_t* given = order ? order->view().row<int32_t>(0) : nullptr;
    for (int64_t k = 0; k < n_columns; ++k) {
      out[size_t(k)] = given ? given[k] : group_size ? int32_t(k / group_size) : 0;
      if (out[size_t(k)] < 0 || out[size_t(k)] >= n_groups) {
        return corrupt(*order, "input " + std::to_string(k) + " is of group " + std::to_string(out[size_t(k)]) + ", but there are " +
                                   std::to_string(n_groups));
      }
    }
    return out;
  }
};

bool is_half(float v) { return half_to_float(float_to_half(v)) == v; }

/// Rows of Q4_0 or Q5_0 blocks; `blocks` has the group of every block of 32 inputs.
template <bool kInterleaved>
void write_blocks(const Codes<kInterleaved>& codes, Dtype dtype, int64_t k, const std::vector<int32_t>& blocks, const float* scales,
                  std::byte* to) {
  constexpr int64_t kRows = 64;  // at once: their words lie side by side
  const int64_t row_bytes = dtype_bytes(dtype, k), block_bytes = dtype_row(dtype).bytes_per_block;
  const bool is_wide = dtype == Dtype::kQ5_0;
  for (int64_t n0 = 0; n0 < codes.n_rows; n0 += kRows) {
    for (int64_t b = 0; b < k / kBlock; ++b) {
      const int32_t group = blocks[size_t(b)];
      for (int64_t n = n0; n < std::min(n0 + kRows, codes.n_rows); ++n) {
        std::byte* block = to + n * row_bytes + b * block_bytes;
        const uint16_t scale = float_to_half(scales[group * codes.n_rows + n]);
        std::memcpy(block, &scale, 2);
        // q − zero, from −15 to 15, kept above 0: Q4_0 takes 8 off, Q5_0 16.
        const int shift = is_wide ? 16 - codes.zero(n, group) : 0;
        uint32_t fifths = 0;
        std::byte* nibbles = block + (is_wide ? 6 : 2);
        for (int j = 0; j < 16; ++j) {
          const int low = codes.code(n, b * kBlock + j) + shift, high = codes.code(n, b * kBlock + 16 + j) + shift;
          nibbles[j] = std::byte((low & 15) | (high & 15) << 4);
          fifths |= uint32_t(low >> 4) << j | uint32_t(high >> 4) << (16 + j);
        }
        if (is_wide) std::memcpy(block + 2, &fifths, 4);
      }
    }
  }
}

template <bool kInterleaved>
Status convert_module(const ForeignScheme& scheme, WeightStore& weights, const std::string& name, bool shapes_only,
                      std::set<std::string>& used_up) {
  SB_TRY(const Int4Module m, Int4Module::find(weights, name, scheme, kInterleaved));
  Dtype dtype = Dtype::kF32;
  Block block;
  const Shape shape = {m.n_rows, m.n_columns};
  if (shapes_only) {
    const bool has_blocks = m.n_columns % kBlock == 0 && scheme.group_size % kBlock == 0 && m.scales->dtype == Dtype::kF16 &&
                            !(scheme.is_reordered && m.order && scheme.group_size);
    if (has_blocks) dtype = scheme.is_symmetric ? Dtype::kQ4_0 : Dtype::kQ5_0;
  } else {
    SB_TRY(const std::vector<int32_t> groups, m.groups(scheme.group_size));
    const Codes<kInterleaved> codes{m.words->view().row<uint32_t>(0), m.zeros->view().row<uint32_t>(0), m.n_rows, scheme.one_less};
    std::vector<float> scales(size_t(m.n_groups * m.n_rows));
    for (int64_t g = 0; g < m.n_groups; ++g) decode_row(m.scales->view(), g, scales.data() + g * m.n_rows, m.n_rows);

    bool has_blocks = m.n_columns % kBlock == 0 && std::all_of(scales.begin(), scales.end(), is_half);
    std::vector<int32_t> blocks;
    for (int64_t k = 0; has_blocks && k < m.n_columns; k += kBlock) {
      blocks.push_back(groups[size_t(k)]);
      has_blocks = std::all_of(groups.begin() + k, groups.begin() + k + kBlock, [&](int32_t g) { return g == groups[size_t(k)]; });
    }
    bool is_symmetric = true;
    for (int64_t g = 0; g < m.n_groups; ++g) {
      for (int64_t n = 0; n < m.n_rows; ++n) is_symmetric = is_symmetric && codes.zero(n, g) == 8;
    }
    if (has_blocks) dtype = is_symmetric ? Dtype::kQ4_0 : Dtype::kQ5_0;
    SB_TRY(const uint64_t n_bytes, dense_bytes(dtype, shape));
    SB_TRY(block, Block::take(Tag::kWeights, n_bytes));
    if (has_blocks) {
      write_blocks(codes, dtype, m.n_columns, blocks, scales.data(), block.data());
    } else {
      float* to = reinterpret_cast<float*>(block.data());
      for (int64_t n = 0; n < m.n_rows; ++n) {
        for (int64_t k = 0; k < m.n_columns; ++k) {
          const int64_t g = groups[size_t(k)];
          *to++ = scales[size_t(g * m.n_rows + n)] * float(codes.code(n, k) - codes.zero(n, g));
        }
      }
    }
  }
  for (WeightTensor* tensor : {m.zeros, m.scales, m.order}) {
    if (!tensor) continue;
    tensor->block = Block();
    used_up.insert(tensor->name);
  }
  m.words->dtype = dtype;
  m.words->shape = shape;
  m.words->block = std::move(block);
  return weights.rename(name + ".qweight", name + ".weight");
}

template <bool kInterleaved>
Status convert_int4(const ForeignScheme& scheme, WeightStore& weights, bool shapes_only) {
  std::set<std::string> used_up;
  for (const std::string& module : modules_with(weights, ".qweight"))
    SB_OK(convert_module<kInterleaved>(scheme, weights, module, shapes_only, used_up));
  weights.remove([&](const WeightTensor& tensor) { return used_up.contains(tensor.name); });
  return {};
}

Status convert_ternary(const ForeignScheme& scheme, WeightStore& weights, const std::string& name, bool shapes_only) {
  SB_TRY(const WeightTensor* scale, part(weights, name + ".weight_scale"));
  SB_TRY(WeightTensor * packed, part(weights, name + ".weight"));
  SB_OK(expect_floats(*scale));
  if (scale->shape.elements() != 1) return misshapen(*scale, "one element");
  if (packed->dtype != Dtype::kU8) return corrupt(*packed, std::string("it has type ") + dtype_name(packed->dtype) + ", but U8 is needed");
  if (packed->shape.rank() != 2 || packed->shape.elements() == 0 || packed->shape[0] > INT32_MAX || packed->shape[1] > INT32_MAX)
    return misshapen(*packed, "a matrix of bytes");
  const int64_t n_packed = packed->shape[0], k = packed->shape[1], n = 4 * n_packed;
  PlaneMatrix m;
  m.n_rows = plane_rows(n);
  m.n_columns = plane_columns(k);
  m.segment = plane_segment(m.n_rows);
  m.sets[0].code = levels_code(Levels::kTernary);

  const std::string matrix = name + ".weight";
  const Shape planes_shape = {m.n_rows, 2, m.words_per_row()}, scales_shape = {m.n_rows};
  Block planes, ones;
  if (!shapes_only) {
    float s;
    decode_row(scale->view(), 0, &s, 1);
    if (scheme.divides) s = float(1 / double(s));
    if (s == 0 || !std::isfinite(s)) return corrupt(*scale, "no weight can have that scale");
    // One scale for all rows: the filter has it in float32, and the rows' own are 1.
    m.sets[0].code.filter[0] = {s / 2, s / 2};
    SB_TRY(planes, Block::take(Tag::kWeights, uint64_t(planes_shape.elements()) * 4));
    SB_TRY(ones, Block::take(Tag::kWeights, uint64_t(m.n_rows) * 2));
    uint32_t* words = reinterpret_cast<uint32_t*>(planes.data());
    std::fill_n(words, planes_shape.elements(), 0u);
    std::fill_n(reinterpret_cast<uint16_t*>(ones.data()), m.n_rows, float_to_half(1));
    for (int64_t r = 0; r < n_packed; ++r) {
      const uint8_t* from = packed->view().row<uint8_t>(r);
      for (int64_t i = 0; i < 4; ++i) {
        uint32_t* row = words + (i * n_packed + r) * 2 * m.words_per_row();
        for (int64_t c = 0; c < k; ++c) {
          const int code = from[c] >> 2 * i & 3;
          if (code == 3) {
            return corrupt(
                *packed, "output " + std::to_string(i * n_packed + r) + ", input " + std::to_string(c) + " has code 3, which is no weight");
          }
          set_signs(row, m.words_per_row(), c, code >= 1, code == 2);
        }
      }
    }
    pack_plane_blocks(words, m.n_rows, 2, m.words_per_row());
    m.sets[0].words = words;
    m.sets[0].order = PlaneOrder::kBlocks;
    m.sets[0].row_scale = reinterpret_cast<const uint16_t*>(ones.data());
  }
  packed->block = Block();
  packed->dtype = Dtype::kPlanes;
  packed->shape = {n, k};
  const std::string file = packed->file;
  SB_OK(weights.add({matrix + ".planes", file, Dtype::kI32, planes_shape, std::move(planes), nullptr, 0, matrix}));
  SB_OK(weights.add({matrix + ".sv", file, Dtype::kF16, scales_shape, std::move(ones), nullptr, 0, matrix}));
  weights.find(matrix)->planes = weights.add_matrix(matrix, m);
  return {};
}

Status convert_bitnet(const ForeignScheme& scheme, WeightStore& weights, bool shapes_only) {
  std::set<std::string> used_up;
  for (const std::string& module : modules_with(weights, ".weight_scale")) {
    SB_OK(convert_ternary(scheme, weights, module, shapes_only));
    used_up.insert(module + ".weight_scale");
  }
  weights.remove([&](const WeightTensor& tensor) { return used_up.contains(tensor.name); });
  return {};
}

/// Settings of a quantization_config.
struct Settings {
  const Json& json;
  std::string_view file;

  std::unexpected<Error> unsupported(const std::string& what) const {
    return err(Code::kQuantisationUnsupported, {{"file", file}, {"what", what}});
  }
  std::string text(std::string_view key, std::string_view otherwise) const {
    return json_string(json, key).value_or(std::string(otherwise));
  }
  bool flag(std::string_view key) const { return json_bool(json, key).value_or(false); }
  /// The first of two spellings that is there.
  Result<int64_t> number(std::string_view key, std::string_view older) const {
    for (const std::string_view name : {key, older}) {
      if (const std::optional<int64_t> n = json_int(json, name)) return *n;
    }
    return unsupported("no " + std::string(key));
  }
};

Result<ForeignScheme> int4_scheme(const Settings& settings) {
  ForeignScheme scheme;
  SB_TRY(const int64_t bits, settings.number("bits", "w_bit"));
  if (bits != 4) return settings.unsupported("bits " + std::to_string(bits));
  SB_TRY(scheme.group_size, settings.number("group_size", "q_group_size"));
  if (scheme.group_size == -1) scheme.group_size = 0;
  if (scheme.group_size < 0 || scheme.group_size > INT32_MAX)
    return settings.unsupported("group_size " + std::to_string(scheme.group_size));
  return scheme;
}

Result<ForeignScheme> gptq_scheme(const Settings& settings) {
  SB_TRY(ForeignScheme scheme, int4_scheme(settings));
  const std::string packing = settings.text("checkpoint_format", "gptq");
  if (packing != "gptq" && packing != "gptq_v2") return settings.unsupported("checkpoint_format " + packing);
  if (settings.flag("is_marlin_format")) return settings.unsupported("is_marlin_format");
  scheme.convert = convert_int4<false>;
  scheme.one_less = packing == "gptq";
  scheme.is_symmetric = settings.flag("sym");
  scheme.is_reordered = settings.flag("desc_act");
  return scheme;
}

Result<ForeignScheme> awq_scheme(const Settings& settings) {
  SB_TRY(ForeignScheme scheme, int4_scheme(settings));
  const std::string packing = settings.text("version", "gemm");
  if (packing != "gemm" && packing != "GEMM") return settings.unsupported("version " + packing);
  scheme.convert = convert_int4<true>;
  return scheme;
}

Result<ForeignScheme> bitnet_scheme(const Settings& settings) {
  const std::string layer = settings.text("linear_class", "bitlinear"), mode = settings.text("quantization_mode", "offline");
  if (layer != "bitlinear" && layer != "autobitlinear") return settings.unsupported("linear_class " + layer);
  // Weights of full precision, which each forward pass would make ternary.
  if (mode != "offline") return settings.unsupported("quantization_mode " + mode);
  if (settings.flag("use_rms_norm")) return settings.unsupported("use_rms_norm");
  return ForeignScheme{.convert = convert_bitnet, .divides = layer == "bitlinear"};
}

struct Method {
  const char* name;
  Result<ForeignScheme> (*scheme)(const Settings& settings);
};
constexpr Method kMethods[] = {{"gptq", gptq_scheme}, {"awq", awq_scheme}, {"bitnet", bitnet_scheme}};

}  // namespace

Result<std::optional<ForeignScheme>> foreign_scheme(const Json& config, std::string_view file) {
  const Json* json = json_find(config, "quantization_config");
  const std::optional<std::string> method = json ? json_string(*json, "quant_method") : std::nullopt;
  if (!method || *method == "subbyte") return std::optional<ForeignScheme>();
  const Settings settings{*json, file};
  for (const Method& known : kMethods) {
    if (*method != known.name) continue;
    SB_TRY(const ForeignScheme scheme, known.scheme(settings));
    return std::optional(scheme);
  }
  return settings.unsupported("quant_method " + *method);
}

Status convert_foreign(const ForeignScheme& scheme, WeightStore& weights, bool shapes_only) {
  return scheme.convert(scheme, weights, shapes_only);
}

}  // namespace sb
