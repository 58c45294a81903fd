#include "quantize/checkpoint.h"

#include <algorithm>
#include <bit>

namespace sb {
namespace {

constexpr std::string_view kMagic = "subbyte checkpoint 2\n";

}  // namespace

void QuickSum::mix(uint64_t word) {
  sum_ = (sum_ ^ word) * 0xBF58476D1CE4E5B9u;
  sum_ ^= sum_ >> 29;
}

void QuickSum::add(std::span<const std::byte> bytes) {
  n_bytes_ += bytes.size();
  for (; n_held_ && !bytes.empty(); bytes = bytes.subspan(1)) hold(bytes[0]);
  for (uint64_t word; bytes.size() >= 8; bytes = bytes.subspan(8)) {
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
  }
  for (std::byte b : bytes) hold(b);
}

void QuickSum::hold(std::byte b) {
  held_ |= uint64_t(b) << (8 * n_held_);
  if (++n_held_ < 8) return;
  mix(held_);
  held_ = 0;
  n_held_ = 0;
}

uint64_t QuickSum::value() const {
  QuickSum all = *this;
  all.mix(held_);
  all.mix(n_bytes_);
  return all.sum_;
}

CheckpointWriter::CheckpointWriter() { own(kMagic.data(), kMagic.size()); }

void CheckpointWriter::own(const void* data, size_t n) {
  if (parts_.empty() || parts_.back().owned.empty()) parts_.emplace_back();
  const auto* bytes = static_cast<const std::byte*>(data);
  parts_.back().owned.insert(parts_.back().owned.end(), bytes, bytes + n);
}

void CheckpointWriter::text(std::string_view s) {
  number(s.size());
  own(s.data(), s.size());
}

std::vector<std::byte> CheckpointWriter::next(size_t most) {
  std::vector<std::byte> piece;
  while (!parts_.empty() && piece.size() < most) {
    const Part& part = parts_.front();
    const size_t n = size_t(std::min<uint64_t>(part.size() - taken_, most - piece.size())), begin = piece.size();
    if (part.bring) {
      piece.resize(begin + n);
      is_whole_ = part.bring(taken_, std::span(piece).subspan(begin)) && is_whole_;
    } else {
      const auto some = (part.owned.empty() ? part.seen : std::span<const std::byte>(part.owned)).subspan(size_t(taken_), n);
      piece.insert(piece.end(), some.begin(), some.end());
    }
    taken_ += n;
    if (taken_ < part.size()) continue;
    parts_.pop_front();
    taken_ = 0;
  }
  offset_ += piece.size();
  if (is_summed_) return piece;
  sum_.add(piece);
  if (parts_.empty()) {
    is_summed_ = true;
    const uint64_t sum = is_whole_ ? sum_.value() : ~sum_.value();
    piece.resize(piece.size() + sizeof sum);
    std::memcpy(piece.data() + piece.size() - sizeof sum, &sum, sizeof sum);
    offset_ += sizeof sum;
  }
  return piece;
}

CheckpointReader::CheckpointReader(std::span<const std::byte> bytes) {
  failed_ = true;
  if (bytes.size() < kMagic.size() + 8 || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return;
  const std::span<const std::byte> summed = bytes.first(bytes.size() - 8);
  QuickSum sum;
  sum.add(summed);
  uint64_t written = 0;
  std::memcpy(&written, bytes.data() + summed.size(), 8);
  if (written != sum.value()) return;
  failed_ = false;
  left_ = summed.subspan(kMagic.size());
}

uint64_t CheckpointReader::number() {
  uint64_t v = 0;
  if (left_.size() < sizeof v) {
    fail();
    return 0;
  }
  std::memcpy(&v, left_.data(), sizeof v);
  left_ = left_.subspan(sizeof v);
  return v;
}

double CheckpointReader::real() { return std::bit_cast<double>(number()); }

std::string CheckpointReader::text() {
  std::string out;
  array(out);
  return out;
}

size_t CheckpointReader::count() {
  const uint64_t n = number();
  if (n <= left_.size()) return size_t(n);
  fail();
  return 0;
}

Status CheckpointReader::status() const {
  if (failed_) return err(Code::kCheckpointInvalid, {{"file", kCheckpointFile}});
  return {};
}

}  // namespace sb
