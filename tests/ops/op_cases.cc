#include "ops/op_cases.h"

#include <cstring>
#include <string>

#include "formats/decode.h"
#include "formats/list.h"
#include "formats/planes.h"

namespace sb {

Ref Sources::x(int64_t width) {
  std::normal_distribution<float> normal;
  const int64_t n = plan_.n_tokens() * width;
  auto bytes = std::make_unique<std::vector<std::byte>>(size_t(n) * 4);
  float* to = reinterpret_cast<float*>(bytes->data());
  for (int64_t i = 0; i < n; ++i) to[i] = normal(random_) * (random_() % 97 == 0 ? 20.0f : 1.0f);
  const Ref table = plan_.weight({bytes->data(), Dtype::kF32, {plan_.n_tokens(), width}, width * 4});
  bytes_.push_back(std::move(bytes));
  return embed(plan_, table, plan_.ids(), {});
}

Ref Sources::w(Dtype dtype, int64_t n, int64_t k) {
  const int64_t row_bytes = dtype_bytes(dtype, k);
  auto bytes = std::make_unique<std::vector<std::byte>>(size_t(n * row_bytes));
  for (std::byte& b : *bytes) b = std::byte(random_());
  std::normal_distribution<float> normal(0, 1 / std::sqrt(float(k)));
  if (dtype_row(dtype).block == 1) {
    for (int64_t i = 0; i < n * k; ++i) {
      const float value = normal(random_);
      const uint32_t bits = __builtin_bit_cast(uint32_t, value);
      const uint16_t half = dtype == Dtype::kF16 ? float_to_half(value) : uint16_t(bits >> 16);
      if (dtype == Dtype::kF32) {
        std::memcpy(bytes->data() + i * 4, &value, 4);
      } else {
        std::memcpy(bytes->data() + i * 2, &half, 2);
      }
    }
  } else {
    // Random codes are fine as they are; random scales are not.
    const Format& row = format_of(dtype);
    for (int64_t block = 0; block < n * k / dtype_row(dtype).block; ++block) {
      for (int at : row.half_at) {
        if (at < 0) continue;
        const uint16_t scale = float_to_half(normal(random_) * 0.1f);
        std::memcpy(bytes->data() + block * dtype_row(dtype).bytes_per_block + at, &scale, 2);
      }
    }
  }
  const Ref ref = plan_.weight({bytes->data(), dtype, {n, k}, row_bytes});
  bytes_.push_back(std::move(bytes));
  return ref;
}

template <class T, class F>
T* Sources::numbers(int64_t n, F make) {
  bytes_.push_back(std::make_unique<std::vector<std::byte>>(size_t(n) * sizeof(T)));
  T* to = reinterpret_cast<T*>(bytes_.back()->data());
  for (int64_t i = 0; i < n; ++i) to[i] = make();
  return to;
}

Ref Sources::planes(const char* format, const char* refine, int64_t n, int64_t k, int64_t first_row, PlaneOrder order) {
  std::normal_distribution<float> scale(1, 0.3f);
  auto m = std::make_unique<PlaneMatrix>();
  m->n_rows = plane_rows(n + first_row);
  m->n_columns = plane_columns(k);
  m->segment = plane_segment(m->n_rows);
  m->hadamard = plane_hadamard(k);
  auto word = [&] { return uint32_t(random_()); };
  auto half = [&] { return float_to_half(scale(random_)); };
  if (m->hadamard) m->signs = numbers<uint32_t>(m->words_per_row(), word);
  m->n_sets = m->max_sets = *refine ? 2 : 1;
  for (int set = 0; set < m->n_sets; ++set) {
    PlaneSet& s = m->sets[set];
    s.code = plane_format(set ? refine : format)->code;
    uint32_t* words = numbers<uint32_t>(m->n_rows * s.code.n_planes * m->words_per_row(), word);
    s.words = words;
    if (order == PlaneOrder::kBlocks) pack_plane_blocks(words, m->n_rows, s.code.n_planes, m->words_per_row());
    s.order = order;
    if (set == 0) s.row_scale = numbers<uint16_t>(m->n_rows, half);
    if (set == 1) s.row_scale = numbers<float>(m->n_rows, [&] { return scale(random_); });  // as an imported matrix has them
    if (set == 0) s.column_scale = numbers<uint16_t>(m->n_columns, half);                   // a set without column scales is one of all 1
  }
  matrices_.push_back(std::move(m));
  return plan_.weight({nullptr, Dtype::kPlanes, {n, k}, 0, matrices_.back().get(), first_row});
}

std::pair<Ref, Ref> Sources::largest_planes(const char* format, int64_t n, int64_t k) {
  auto m = std::make_unique<PlaneMatrix>();
  m->n_rows = n;
  m->n_columns = k;
  m->segment = plane_segment(n);
  PlaneSet& s = m->sets[0];
  s.code = plane_format(format)->code;
  s.order = PlaneOrder::kBlocks;  // whose words of 32 rows are all ones or all zeros in either order
  int64_t i = 0;
  const int64_t block_words = kPlaneBlockRows * s.code.n_planes * m->words_per_row();
  s.words = numbers<uint32_t>(n / kPlaneBlockRows * block_words, [&] { return i++ / block_words % 2 ? 0u : ~0u; });
  s.row_scale = numbers<uint16_t>(n, [] { return float_to_half(1); });
  matrices_.push_back(std::move(m));
  const float* large = numbers<float>(plan_.n_tokens() * k, [] { return 1e4f; });
  const Ref table = plan_.weight({reinterpret_cast<const std::byte*>(large), Dtype::kF32, {plan_.n_tokens(), k}, k * 4});
  return {embed(plan_, table, plan_.ids(), {}), plan_.weight({nullptr, Dtype::kPlanes, {n, k}, 0, matrices_.back().get(), 0})};
}

Ref Sources::v(int64_t n, float mean) {
  std::normal_distribution<float> normal(mean, 0.3f);
  auto bytes = std::make_unique<std::vector<std::byte>>(size_t(n) * 4);
  for (int64_t i = 0; i < n; ++i) reinterpret_cast<float*>(bytes->data())[i] = normal(random_);
  const Ref ref = plan_.weight({bytes->data(), Dtype::kF32, {n}, n * 4});
  bytes_.push_back(std::move(bytes));
  return ref;
}

void Sources::fill(KvPages& kv, int32_t n_layers, int64_t position) {
  std::normal_distribution<float> normal;
  std::vector<std::byte> row(size_t(kv.row_bytes()));
  for (int64_t t = 0; t < position; ++t) {
    for (int32_t layer = 0; layer < n_layers; ++layer) {
      for (int part = 0; part < 2; ++part) {
        for (int32_t i = 0; i < kv.width(); ++i) {
          const float value = normal(random_);
          if (kv.half()) {
            reinterpret_cast<uint16_t*>(row.data())[i] = float_to_half(value);
          } else {
            reinterpret_cast<float*>(row.data())[i] = value;
          }
        }
        kv.write(t, layer, part, row.data());
      }
    }
  }
}

namespace {

std::string text(std::initializer_list<std::pair<const char*, int64_t>> numbers) {
  std::string out;
  for (const auto& [name, value] : numbers) out += (out.empty() ? "" : " ") + std::string(name) + "=" + std::to_string(value);
  return out;
}

struct MatMulRow {
  int64_t t, n, k;
  bool bias;
  bool exact = false;
};

OpCase matmul_case(Dtype dtype, const MatMulRow& r) {
  struct Allowed {
    double nmse;
    const char* why;
  };
  const Allowed allowed =
      dtype_row(dtype).block == 1 || (r.t > 3 && r.exact) ? Allowed{1e-11, "f32 sums over K"}
      : r.t <= 3 ? Allowed{1e-7, "16-bit activations: 2^-15 of the largest in 32, and the sources have outliers of 60"}
                 : Allowed{2e-3, "8-bit activations: 1/254 of the largest in 32, 3e-5 for even ones; outliers of 60 make it worse"};
  return {"matmul",
          std::string(dtype_name(dtype)) + " " + text({{"T", r.t}, {"N", r.n}, {"K", r.k}}) + (r.exact ? " exact" : ""),
          r.t,
          0,
          0,
          false,
          allowed.nmse,
          allowed.why,
          [=](Plan& p, Sources& s) {
            const Ref w = s.w(dtype, r.n, r.k);
            const Ref y = matmul(p, s.x(r.k), w, r.bias ? s.v(r.n, 0) : Ref{});
            if (r.exact) p.make_exact();
            return y;
          },
          double(r.t * r.n * r.k)};
}

bool multiplies(Dtype dtype) { return dtype != Dtype::kI32 && dtype != Dtype::kU8 && dtype != Dtype::kPlanes; }

void add_matmul(std::vector<OpCase>& cases) {
  const MatMulRow rows[] = {{1, 576, 576, false}, {1, 192, 1536, true}, {2, 33, 256, false},  {3, 100, 512, true},
                            {4, 64, 256, false},  {7, 49, 768, true},   {64, 130, 576, false}};
  for (size_t d = 0; d < kDtypeCount; ++d) {
    const Dtype dtype = Dtype(d);
    if (!multiplies(dtype)) continue;
    for (MatMulRow r : rows) {
      const int64_t block = dtype_row(dtype).block;
      r.k = block == 1 ? r.k + 3 : (r.k + block - 1) / block * block;  // odd widths where the type has them: tails
      cases.push_back(matmul_case(dtype, r));
      r.exact = true;
      if (block > 1 && r.t > 3) cases.push_back(matmul_case(dtype, r));
    }
  }
}

struct PlanesRow {
  int64_t t, n, k, first_row;
  bool bias;
  PlaneOrder order = PlaneOrder::kBlocks;
};

OpCase planes_case(const char* format, const char* refine, const PlanesRow& r) {
  return {
      "matmul",
      std::string(format) + (*refine ? "+" : "") + refine + " " + text({{"T", r.t}, {"N", r.n}, {"K", r.k}, {"first_row", r.first_row}}),
      r.t,
      0,
      0,
      false,
      r.k % 32 == 0 ? 1e-3 : 1e-2,
      "8-bit sums of four: 1/254 of the largest in 256, 5e-5 for even inputs; outliers of 60 in few inputs make it worse, most so without "
      "rotation",
      [=](Plan& p, Sources& s) {
        const Ref w = s.planes(format, refine, r.n, r.k, r.first_row, r.order);
        return matmul(p, s.x(r.k), w, r.bias ? s.v(r.n, 0) : Ref{});
      },
      double(r.t * r.n * r.k)};
}

void add_planes(std::vector<OpCase>& cases) {
  // 576 and 960 have segments of 192, 640 of 160; 33 rows and 100 columns are padded; rows 70 … begin inside a segment.
  const PlanesRow rows[] = {{1, 576, 576, 0, false},
                            {1, 960, 1536, 0, true},
                            {2, 33, 256, 0, false},
                            {3, 100, 96, 70, true},
                            {4, 64, 256, 0, false},
                            {7, 640, 64, 0, true},
                            {64, 130, 576, 70, true},
                            {5, 65, 100, 0, false},
                            {1, 65, 100, 0, true},
                            {17, 192, 1024, 0, false},
                            {19, 130, 320, 70, true, PlaneOrder::kRows}};
  auto add_case = [&](const char* format, const char* refine, const PlanesRow& r) {
    cases.push_back(planes_case(format, refine, r));
    cases.push_back({"embed", std::string(format) + (*refine ? "+" : "") + refine + " " + text({{"T", r.t}, {"V", r.n}, {"D", r.k}}), r.t,
                     0, 0, false, 1e-12, "f32 sums over taps and a Hadamard block", [=](Plan& p, Sources& s) {
                       return embed(p, s.planes(format, refine, std::max(r.n, r.t), r.k, r.first_row, r.order), p.ids(), {});
                     }});
  };
  for (const PlaneFormat& format : plane_formats()) {
    for (const PlanesRow& r : rows) add_case(format.name, "", r);
  }
  for (const PlanesRow& r : rows) {
    add_case("coded2", "coded2", r);
    add_case("coded3", "plain2", r);
  }
  // A product, what follows it column by column, and the product behind: a GPU's first leaves its blocks' first rows unfinished.
  struct Followed {
    const char *format, *refine;
    int64_t t, n, k;
  };
  for (const Followed& r : {Followed{"coded2", "", 1, 256, 4352}, {"coded2", "coded2", 3, 192, 2304}, {"plain3", "", 2, 320, 8192}}) {
    auto add_followed = [&](const char* between, std::function<Ref(Plan&, Sources&, Ref, Ref)> read) {
      cases.push_back(
          {"matmul", std::string(r.format) + "+" + r.refine + " followed by " + between + " " + text({{"T", r.t}, {"N", r.n}, {"K", r.k}}),
           r.t, 0, 0, false, 3e-3, "two roundings of inputs to 8 bits, the second of what two factors make", [=](Plan& p, Sources& s) {
             const Ref x = s.x(r.n);
             return read(p, s, x, matmul(p, s.x(r.k), s.planes(r.format, r.refine, r.n, r.k, 0, PlaneOrder::kBlocks)));
           }});
    };
    add_followed("add, norm", [=](Plan& p, Sources& s, Ref before, Ref y) {
      const Ref x = add(p, before, y);
      return add(p, x, matmul(p, rms_norm(p, x, s.v(r.n), RmsNorm{1e-6f, 0}), s.planes("coded2", "", r.n, r.n, 0, PlaneOrder::kBlocks)));
    });
    add_followed("glu of its halves", [=](Plan& p, Sources& s, Ref, Ref y) {
      const int64_t half = r.n / 2;
      const Ref x = glu(p, p.columns(y, 0, half), p.columns(y, half, half), {Activation::kSilu});
      return matmul(p, x, s.planes("coded2", "", 64, half, 0, PlaneOrder::kBlocks));
    });
  }
  for (const char* format : {"plain4", "coded2"}) {
    for (const int64_t k : {256, 288, 2048}) {
      cases.push_back({"matmul", std::string(format) + " largest sums " + text({{"N", 128}, {"K", k}}), 3, 0, 0, false, 1e-10,
                       "every entry is ±127 of the scale, so only the sums can go wrong", [=](Plan& p, Sources& s) {
                         const auto [x, w] = s.largest_planes(format, 128, k);
                         return matmul(p, x, w);
                       }});
    }
  }
}

void add_attention(std::vector<OpCase>& cases) {
  struct Row {
    int32_t t, position, heads, kv_heads, head_dim, window;
    float softcap;
    bool half;
  };
  const Row rows[] = {{1, 0, 4, 4, 16, 0, 0, false},     {1, 200, 9, 3, 64, 0, 0, true},     {5, 63, 8, 2, 64, 0, 0, true},
                      {64, 100, 9, 3, 64, 0, 0, true},   {20, 0, 4, 2, 16, 8, 0, false},     {3, 130, 4, 1, 256, 128, 0, true},
                      {4, 17, 6, 3, 20, 0, 30, false},   {1, 700, 32, 1, 80, 512, 50, true}, {17, 60, 40, 2, 8, 0, 0, true},
                      {40, 300, 6, 2, 64, 100, 0, true}, {33, 31, 3, 3, 24, 0, 20, false}};
  for (const Row& r : rows) {
    cases.push_back({"attention",
                     text({{"T", r.t},
                           {"position", r.position},
                           {"H", r.heads},
                           {"K", r.kv_heads},
                           {"dh", r.head_dim},
                           {"window", r.window},
                           {"softcap", int64_t(r.softcap)},
                           {"half", r.half}}),
                     r.t, r.position, r.kv_heads * r.head_dim, r.half, 1e-10,
                     "f32 sums, exp to 2 ulp; the reference reads the same rounded cache",
                     [=](Plan& p, Sources& s) {
                       cache_write(p, s.x(r.kv_heads * r.head_dim), {0, KvPart::kKeys});
                       cache_write(p, s.x(r.kv_heads * r.head_dim), {0, KvPart::kValues});
                       return attention(p, s.x(r.heads * r.head_dim),
                                        {.layer = 0,
                                         .n_heads = r.heads,
                                         .n_kv_heads = r.kv_heads,
                                         .head_dim = r.head_dim,
                                         .scale = float(1 / std::sqrt(double(r.head_dim))),
                                         .window = r.window,
                                         .softcap = r.softcap});
                     },
                     2.0 * r.t * (r.position + r.t) * r.heads * r.head_dim});
  }
}

void add_rows(std::vector<OpCase>& cases) {
  const int64_t shapes[][2] = {{1, 576}, {7, 4099}, {64, 576}, {3, 8}};
  for (const auto& [t, d] : shapes) {
    const int64_t width = d;
    auto add_case = [&, tokens = t](const char* op, double nmse, const char* why, std::function<Ref(Plan&, Sources&)> build) {
      cases.push_back({op, text({{"T", tokens}, {"D", width}}), tokens, 5, 0, false, nmse, why, std::move(build)});
    };
    add_case("rms_norm", 1e-12, "f32 sums over a row",
             [=](Plan& p, Sources& s) { return rms_norm(p, s.x(width), s.v(width), RmsNorm{1e-6f, 0.5f}); });
    add_case("layer_norm", 1e-12, "f32 sums over a row",
             [=](Plan& p, Sources& s) { return layer_norm(p, s.x(width), s.v(width), s.v(width, 0), LayerNorm{1e-5f}); });
    for (Activation act : {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu}) {
      add_case("glu", 1e-11, "exp to 2 ulp", [=](Plan& p, Sources& s) { return glu(p, s.x(width), s.x(width), {act}); });
      add_case("activate", 1e-11, "exp to 2 ulp", [=](Plan& p, Sources& s) { return activate(p, s.x(width), {act}); });
    }
    add_case("add", 1e-14, "one rounding", [=](Plan& p, Sources& s) { return add(p, s.x(width), s.x(width)); });
    add_case("softcap", 1e-11, "exp to 2 ulp", [=](Plan& p, Sources& s) { return softcap(p, s.x(width), 7); });
    add_case("last_row", 0, "a copy", [=](Plan& p, Sources& s) { return last_row(p, s.x(width)); });
    add_case("embed", 1e-14, "one rounding", [=](Plan& p, Sources& s) {
      return embed(p, s.w(Dtype::kQ8_0, 80, (width + 31) / 32 * 32), p.ids(), {.scale = 2.5f, .by_position = true});
    });
  }
  struct Heads {
    int64_t t, heads, head_dim, n_rot;
  };
  const Heads heads[] = {{1, 9, 64, 64}, {5, 3, 80, 20}, {64, 4, 32, 32}, {2, 2, 18, 18}};
  for (const Heads& h : heads) {
    for (RopeStyle style : {RopeStyle::kHalves, RopeStyle::kPairs}) {
      cases.push_back({"rope", text({{"T", h.t}, {"H", h.heads}, {"dh", h.head_dim}, {"n_rot", h.n_rot}}), h.t, 1000, 0, false, 1e-12,
                       "f32 products", [=](Plan& p, Sources& s) {
                         std::vector<float> frequencies;
                         for (int64_t i = 0; i < h.n_rot / 2; ++i)
                           frequencies.push_back(std::pow(10000.0f, -2 * float(i) / float(h.n_rot)));
                         return rope(p, s.x(h.heads * h.head_dim), rope_table(p, p.constant(frequencies)), {int32_t(h.head_dim), style});
                       }});
    }
    cases.push_back({"rms_norm", "a head a run " + text({{"T", h.t}, {"H", h.heads}, {"dh", h.head_dim}}), h.t, 0, 0, false, 1e-12,
                     "f32 sums over a head",
                     [=](Plan& p, Sources& s) { return rms_norm(p, s.x(h.heads * h.head_dim), s.v(h.head_dim), RmsNorm{1e-6f, 0}); }});
  }
  // Columns of one matrix product, as GPT-2's q, k and v are.
  cases.push_back({"add", "columns of a wider value", 5, 0, 0, false, 1e-14, "one rounding", [](Plan& p, Sources& s) {
                     const Ref wide = s.x(96);
                     return add(p, p.columns(wide, 32, 32), p.columns(wide, 64, 32));
                   }});
  // A chain in which arena bytes are reused and threads must meet.
  cases.push_back({"matmul", "a chain of eight", 1, 0, 0, false, 1e-7, "eight roundings to 16 bits", [](Plan& p, Sources& s) {
                     Ref x = s.x(256);
                     for (int i = 0; i < 8; ++i)
                       x = add(p, rms_norm(p, matmul(p, x, s.w(Dtype::kQ4_0, 256, 256)), s.v(256), RmsNorm{1e-6f, 0}), x);
                     return x;
                   }});
}

}  // namespace

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_matmul(cases);
  add_planes(cases);
  add_attention(cases);
  add_rows(cases);
  return cases;
}

std::vector<OpCase> bench_cases() {
  constexpr int64_t kWidth = 2048, kTokens[] = {1, 64};
  std::vector<OpCase> cases;
  for (const int64_t t : kTokens) {
    for (const PlaneFormat& format : plane_formats()) cases.push_back(planes_case(format.name, "", {t, kWidth, kWidth, 0, false}));
    cases.push_back(planes_case("coded2", "coded2", {t, kWidth, kWidth, 0, false}));
    for (size_t d = 0; d < kDtypeCount; ++d) {
      if (multiplies(Dtype(d))) cases.push_back(matmul_case(Dtype(d), {t, kWidth, kWidth, false}));
    }
  }
  return cases;
}

}  // namespace sb
