#include "formats/planes.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace sb {
namespace {

// The two orders hold the same signs: every row decodes to the same numbers, bit by bit, before and after.
TEST(Planes, BothOrdersDecodeAlike) {
  std::mt19937 random(std::random_device{}());
  for (const PlaneFormat& format : plane_formats()) {
    for (const int64_t k : {32, 96, 576}) {
      PlaneMatrix m;
      m.n_rows = 192;
      m.n_columns = k;
      m.segment = plane_segment(m.n_rows);
      std::vector<uint32_t> words(size_t(m.n_rows * format.code.n_planes * m.words_per_row()));
      for (uint32_t& word : words) word = uint32_t(random());
      std::vector<uint32_t> blocks = words;
      pack_plane_blocks(blocks.data(), m.n_rows, format.code.n_planes, m.words_per_row());
      ASSERT_NE(words, blocks);
      for (int64_t r = 0; r < m.n_rows; ++r) {
        std::vector<float> want(static_cast<size_t>(k)), got(static_cast<size_t>(k));
        m.sets[0] = {format.code, words.data(), {}, nullptr, PlaneOrder::kRows};
        decode_plane_values(m, 0, r, want.data());
        m.sets[0] = {format.code, blocks.data(), {}, nullptr, PlaneOrder::kBlocks};
        decode_plane_values(m, 0, r, got.data());
        ASSERT_EQ(want, got) << format.name << " K " << k << " row " << r;
      }
    }
  }
}

}  // namespace
}  // namespace sb
