#include "quantize/encode.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>

#include "device/cpu/quantize_kernels.h"
#include "formats/decode.h"
#include "io/safetensors.h"

namespace sb {
namespace {

std::string golden_bytes() {
  std::string bytes;
  if (FILE* file = std::fopen(SB_TESTS "/golden/formats/golden_formats.safetensors", "rb")) {
    char part[1 << 16];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) bytes.append(part, n);
    std::fclose(file);
  }
  return bytes;
}

std::vector<float> floats(const WeightTensor& t) {
  std::vector<float> out(static_cast<size_t>(t.shape.elements()));
  decode_row(t.dtype, t.block.data(), out.data(), int64_t(out.size()));
  return out;
}

// tr(E Hd Eᵀ) / tr(W Hd Wᵀ) in double, from the definition, with the matrix decoded to the model's own basis.
double proxy_of(const PlaneMatrix& m, const std::vector<float>& w, const std::vector<float>& h, int64_t n, int64_t k) {
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) mean += double(h[size_t(i * k + i)]) / double(k);
  double error = 0, power = 0;
  std::vector<float> row(static_cast<size_t>(m.n_columns));
  for (int64_t r = 0; r < n; ++r) {
    decode_plane_row(m, r, row.data());
    for (int64_t i = 0; i < k; ++i) {
      const double ei = double(w[size_t(r * k + i)]) - double(row[size_t(i)]), wi = double(w[size_t(r * k + i)]);
      for (int64_t j = 0; j < k; ++j) {
        const double hij = double(h[size_t(i * k + j)]) + (i == j ? 0.025 * mean : 0.0);
        error += ei * hij * (double(w[size_t(r * k + j)]) - double(row[size_t(j)]));
        power += wi * hij * double(w[size_t(r * k + j)]);
      }
    }
  }
  return error / power;
}

struct EncodeCase {
  std::string name;
  std::vector<float> w, h;
  int64_t n, k;
};

PlaneMatrix matrix_of(const RotatedMatrix& m, std::initializer_list<const EncodedSet*> sets) {
  PlaneMatrix matrix{m.n_rows, m.n_columns, m.segment, m.hadamard_block, m.signs.data(), 0, 2, {}};
  for (const EncodedSet* set : sets) matrix.sets[matrix.n_sets++] = set->view();
  return matrix;
}

RotatedMatrix rotated(const std::vector<float>& w, int64_t n, int64_t k, const std::vector<float>& h, uint64_t seed) {
  RotatedMatrix m;
  ThreadPool pool(2);
  m.shape(n, k, seed);
  m.take_rows([&](int64_t first, int64_t count, float* to) { std::copy_n(w.data() + first * k, count * k, to); }, n, k, pool);
  EXPECT_TRUE(m.take_moment({h.begin(), h.end()}, k, pool));
  return m;
}

EncodedSet encode_with(int n_threads, const RotatedMatrix& m, Booked<float> target, const PlaneCode& code) {
  ThreadPool pool(n_threads);
  return encode(m, std::move(target), code, pool);
}

// The encoder against the golden proxies: equal within 3 %, by the definition in double.
TEST(Encode, ReachesTheGoldenProxies) {
  const std::string bytes = golden_bytes();
  auto golden = safetensors_read(std::as_bytes(std::span(bytes)), "golden_formats.safetensors");
  ASSERT_TRUE(golden) << golden.error().message();
  const std::pair<const char*, const char*> codes[] = {{"pln2", "plain2"}, {"pln3", "plain3"}, {"pln4", "plain4"},
                                                       {"lsc2", "coded2"}, {"lsc3", "coded3"}, {"lsc4", "coded4"}};
  for (const std::string name : {"a", "b"}) {
    const std::vector<float> w = floats(*golden->find(name + ".W")), h = floats(*golden->find(name + ".H"));
    const int64_t n = golden->find(name + ".W")->shape[0], k = golden->find(name + ".W")->shape[1];
    const RotatedMatrix m = rotated(w, n, k, h, 7);
    // The golden signs in place of ours: the same rotation, so that the proxies can be compared.
    EncodedSet base;
    for (const auto& [theirs, ours] : codes) {
      const EncodedSet set = encode_with(1, m, m.weights, plane_format(ours)->code);
      const double got = proxy_of(matrix_of(m, {&set}), w, h, n, k);
      const double want = floats(*golden->find(name + "." + theirs + ".proxy"))[0];
      EXPECT_LT(got, 1.06 * want) << name << " " << ours;  // another rotation than the golden one: ±3 % of its own
      EXPECT_NEAR(set.error / set.power, got, 0.01 * got) << name << " " << ours << ": the encoder's own count of its error";
      if (ours == std::string("coded2")) base = set;
      const EncodedSet threaded = encode_with(3, m, m.weights, plane_format(ours)->code);
      EXPECT_EQ(threaded.words, set.words);
      EXPECT_EQ(threaded.row_scale, set.row_scale);
      EXPECT_EQ(threaded.column_scale, set.column_scale);
      EXPECT_EQ(threaded.error, set.error);
    }
    ThreadPool pool(2);
    Booked<float> left = m.weights;
    subtract(m, base, left, pool);
    const EncodedSet refined = encode_with(1, m, left, plane_format("coded2")->code);
    const double want = floats(*golden->find(name + ".res22.proxy"))[0];
    EXPECT_LT(proxy_of(matrix_of(m, {&base, &refined}), w, h, n, k), 1.06 * want) << name;
  }
}

// A matrix in parts: the same proxy as in one piece, the same bits whoever works, and its padding is zeros.
TEST(Encode, InPartsLosesNoMore) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  const int64_t n = 5 * 1024 - 7, k = 96;
  std::vector<float> w(static_cast<size_t>(n * k)), mix(static_cast<size_t>(k * k)), h(mix.size(), 0.0f);
  for (int64_t r = 0; r < n; ++r) {
    const float size = std::exp(0.5f * normal(random));  // rows of many sizes, columns of two
    for (int64_t j = 0; j < k; ++j) w[size_t(r * k + j)] = size * (j % 7 ? 1.0f : 3.0f) * normal(random);
  }
  for (float& v : mix) v = normal(random);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      for (int64_t t = 0; t < k; ++t) h[size_t(i * k + j)] += mix[size_t(i * k + t)] * mix[size_t(j * k + t)];
    }
  }
  const auto source = [&](int64_t first, int64_t count, float* to) { std::copy_n(w.data() + first * k, count * k, to); };
  for (const char* name : {"coded2", "coded4", "plain3"}) {
    const PlaneCode& code = plane_format(name)->code;
    const RotatedMatrix m = rotated(w, n, k, h, 5);
    const EncodedSet whole = encode_with(2, m, m.weights, code);
    std::vector<EncodedSet> parts(2);
    RotatedMatrix shape;
    for (int i = 0; i < 2; ++i) {
      ThreadPool pool(1 + 2 * i);
      ASSERT_TRUE(
          encode_in_parts(source, n, k, 5, {h.begin(), h.end()}, code, {.part = 2048, .sample = 1024}, pool, shape, parts[size_t(i)]));
    }
    EXPECT_EQ(parts[0].words, parts[1].words) << name;
    EXPECT_EQ(parts[0].row_scale, parts[1].row_scale) << name;
    EXPECT_EQ(parts[0].words.size(), whole.words.size()) << name;
    EXPECT_EQ(shape.n_rows, m.n_rows);
    const double in_parts = proxy_of(matrix_of(shape, {&parts[0]}), w, h, n, k), in_one = proxy_of(matrix_of(m, {&whole}), w, h, n, k);
    EXPECT_LT(in_parts, 1.02 * in_one) << name;
    EXPECT_NEAR(parts[0].error / parts[0].power, in_parts, 0.01 * in_parts) << name;
    for (int64_t r = n; r < m.n_rows; ++r) EXPECT_EQ(parts[0].row_scale[size_t(r)], 0) << name;
  }
}

struct GoldenSet {
  std::vector<uint32_t> words;
  std::vector<uint16_t> sv, c;
  PlaneCode code;
  GoldenSet(const WeightStore& golden, const std::string& name) {
    const WeightTensor &planes = *golden.find(name + ".planes"), &filter = *golden.find(name + ".C");
    auto copy = [](const WeightTensor& t, auto& to) {
      to.resize(t.block.size() / sizeof(to[0]));
      std::memcpy(to.data(), t.block.data(), t.block.size());
    };
    copy(planes, words);
    copy(*golden.find(name + ".sv"), sv);
    copy(*golden.find(name + ".c"), c);
    code.n_planes = int(planes.shape[1]);
    code.n_taps = int(filter.shape[0]);
    const std::vector<float> taps = floats(filter);
    for (int q = 0; q < code.n_taps; ++q) {
      for (int p = 0; p < code.n_planes; ++p) code.filter[size_t(q)][size_t(p)] = taps[size_t(q * code.n_planes + p)];
    }
  }
  PlaneSet view() const { return {code, words.data(), sv.data(), c.data()}; }
};

// The conventions: golden planes decoded by us are the golden weights (rounded to f16 there) and give the golden outputs.
TEST(Planes, GoldenVectorsAreReproduced) {
  const std::string bytes = golden_bytes();
  auto golden = safetensors_read(std::as_bytes(std::span(bytes)), "golden_formats.safetensors");
  ASSERT_TRUE(golden) << golden.error().message();
  int n_weights = 0, n_outputs = 0;
  for (const std::string name : {"a", "b"}) {
    const std::vector<float> x = floats(*golden->find(name + ".x"));
    const int64_t n = golden->find(name + ".W")->shape[0], k = int64_t(x.size());
    std::vector<uint32_t> signs(static_cast<size_t>(k / 32));
    for (int64_t i = 0; i < k; ++i) {
      if (int8_t(golden->find(name + ".su")->block.data()[i]) > 0) signs[size_t(i / 32)] |= 1u << plane_bit(i);
    }
    for (const std::string code : {"pln2", "pln3", "pln4", "lsc2", "lsc3", "lsc4", "res22"}) {
      const GoldenSet base(*golden, name + (code == "res22" ? ".lsc2" : "." + code));
      PlaneMatrix m{n, k, plane_segment(n), plane_hadamard(k), signs.data(), 1, 1, {base.view(), {}}};
      std::optional<GoldenSet> refine;
      if (code == "res22") {
        refine.emplace(*golden, name + ".res22.residual");
        m.sets[m.n_sets++] = refine->view();
      } else {
        // Our table is the golden one.
        const PlaneFormat* ours = plane_format((code[0] == 'p' ? "plain" : "coded") + code.substr(3));
        ASSERT_EQ(ours->code.n_taps, base.code.n_taps);
        for (int q = 0; q < base.code.n_taps; ++q) {
          for (int p = 0; p < base.code.n_planes; ++p)
            EXPECT_NEAR(ours->code.filter[size_t(q)][size_t(p)], base.code.filter[size_t(q)][size_t(p)], 1e-6) << code;
        }
      }
      const WeightTensor* weights = golden->find(name + "." + code + ".What");
      const std::vector<float> want_w = weights ? floats(*weights) : std::vector<float>(),
                               want = floats(*golden->find(name + "." + code + ".y"));
      double error = 0, power = 0;
      std::vector<float> row(static_cast<size_t>(k));
      for (int64_t r = 0; r < n; ++r) {
        decode_plane_row(m, r, row.data());
        double y = 0;
        for (int64_t i = 0; i < k; ++i) {
          y += double(row[size_t(i)]) * double(x[size_t(i)]);
          if (weights)
            ASSERT_NEAR(row[size_t(i)], want_w[size_t(r * k + i)], 1e-3 * std::abs(want_w[size_t(r * k + i)]) + 1e-6) << name << code;
        }
        error += (y - double(want[size_t(r)])) * (y - double(want[size_t(r)]));
        power += double(want[size_t(r)]) * double(want[size_t(r)]);
        ++n_outputs;
      }
      n_weights += weights != nullptr;
      EXPECT_LT(std::sqrt(error / power), 1e-5) << name << "." << code;
    }
  }
  EXPECT_EQ(n_weights, 5);
  EXPECT_EQ(n_outputs, 7 * (192 + 128));
}

// D of FORMATS.md: mean square error on a unit Gaussian.
TEST(Viterbi, ReachesTheDistortionOfItsCode) {
  std::mt19937_64 random(uint64_t(std::chrono::system_clock::now().time_since_epoch().count()));
  std::normal_distribution<float> normal;
  const std::pair<const char*, double> rows[] = {{"coded2", 0.0764}, {"coded3", 0.0196}, {"coded4", 0.0051}};
  for (const auto& [name, distortion] : rows) {
    const PlaneCode& code = plane_format(name)->code;
    const std::vector<float> values = state_values(code);
    double error = 0;
    const int64_t n = 512, half = n / 2, n_segments = 400;
    for (int64_t s = 0; s < n_segments; ++s) {
      std::vector<float> target(n), coded(n), history(static_cast<size_t>(viterbi_scratch_floats(code.n_planes, n)));
      std::vector<uint8_t> bits(n);
      for (float& t : target) t = normal(random);
      quantize_kernels().viterbi({code.n_planes, values.data(), target.data(), n / 2, 2, history.data(), bits.data(), coded.data()});
      for (int64_t i = 0; i < n; ++i) {
        error += (double(target[size_t(i)]) - double(coded[size_t(i)])) * (double(target[size_t(i)]) - double(coded[size_t(i)]));
        // What is written (bits) is what was counted (coded): the filter over the bits, around the segment's end.
        double v = 0;
        for (int q = 0; q < code.n_taps; ++q) {
          for (int p = 0; p < code.n_planes; ++p)
            v += double(code.filter[size_t(q)][size_t(p)]) *
                 ((bits[size_t(i / half * half + (i % half - q + half) % half)] >> p & 1) ? 1 : -1);
        }
        ASSERT_NEAR(v, double(coded[size_t(i)]), 1e-5) << name << " row " << i;
      }
    }
    EXPECT_LT(error / double(n * n_segments), 1.06 * distortion)
        << name;  // the Gaussian's tails: 1.2 % of its own from run to run, 1.2 % for the short closing
  }
}

// W* of the normal equations: with whole shares and hardly any damping, W*·x is the least-squares answer to W·exact + lost stream.
TEST(Correct, SolvesTheNormalEquations) {
  std::mt19937_64 random(9);
  std::normal_distribution<float> normal;
  const int64_t n = 7, k = 150, n_tokens = 3000;  // not a multiple of the blocks
  std::vector<float> w(static_cast<size_t>(n * k)), x(static_cast<size_t>(n_tokens * k)), exact(x.size()),
      stream(static_cast<size_t>(n_tokens * n));
  for (float& v : w) v = normal(random);
  for (float& v : x) v = normal(random);
  for (size_t i = 0; i < x.size(); ++i)
    exact[i] = x[i] + 0.3f * normal(random) + 0.2f * x[(i / size_t(k)) * size_t(k) + (i + 1) % size_t(k)];
  for (float& v : stream) v = normal(random);
  std::vector<float> moment(static_cast<size_t>(k * k)), cross(moment.size()), off(static_cast<size_t>(n * k));
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        moment[size_t(i * k + j)] += x[size_t(t * k + i)] * x[size_t(t * k + j)] / float(n_tokens);
        cross[size_t(i * k + j)] += exact[size_t(t * k + i)] * x[size_t(t * k + j)] / float(n_tokens);
      }
    }
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t j = 0; j < k; ++j) off[size_t(r * k + j)] += stream[size_t(t * n + r)] * x[size_t(t * k + j)] / float(n_tokens);
    }
  }
  std::vector<float> corrected = w;
  Moments moments;
  moments.own.assign(moment.begin(), moment.end());
  moments.cross.assign(cross.begin(), cross.end());
  moments.stream.assign(off.begin(), off.end());
  ThreadPool pool(2);
  Correction correction;
  ASSERT_TRUE(Correction::prepare(moments, k, pool, correction, 1, 1));
  correction.apply(0, 5, corrected.data());
  correction.apply(5, n - 5, corrected.data() + 5 * k);
  // (W* − W)·(H + λI) = W·(R − H) + stream, element by element in double.
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) mean += double(moment[size_t(i * k + i)]) / double(k);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t j = 0; j < k; ++j) {
      double left = 0, right = double(off[size_t(r * k + j)]);
      for (int64_t i = 0; i < k; ++i) {
        left += (double(corrected[size_t(r * k + i)]) - double(w[size_t(r * k + i)])) *
                (double(moment[size_t(i * k + j)]) + (i == j ? 0.025 * mean : 0.0));
        right += double(w[size_t(r * k + i)]) * (double(cross[size_t(i * k + j)]) - double(moment[size_t(i * k + j)]));
      }
      ASSERT_NEAR(left, right, 2e-4) << r << "," << j;
    }
  }
}

TEST(Encode, OddShapesAreDecodedByTheDefinition) {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{33, 40}, {576, 64}, {100, 96}, {960, 32}, {320, 192}, {65, 33}}) {
    std::vector<float> w(static_cast<size_t>(n * k)), h(static_cast<size_t>(k * k));
    for (float& v : w) v = normal(random);
    for (int64_t i = 0; i < k; ++i) h[size_t(i * k + i)] = 1;
    const RotatedMatrix m = rotated(w, n, k, h, 3);
    for (const PlaneFormat& format : plane_formats()) {
      const EncodedSet set = encode_with(1, m, m.weights, format.code);
      const double proxy = proxy_of(matrix_of(m, {&set}), w, h, n, k);
      EXPECT_LT(proxy, format.code.n_planes == 2 ? 0.14 : format.code.n_planes == 3 ? 0.045 : 0.016) << n << "×" << k << " " << format.name;
    }
  }
}

}  // namespace
}  // namespace sb
