// A quantising run on disk: what has to be known to go on after the last finished group. Little-endian numbers, texts and arrays one after
// another; a sum at the end. It lies in the unfinished folder and is of no use to another version of this program.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/result.h"

namespace sb {

inline constexpr const char* kCheckpointFile = "checkpoint";

/// A sum of bytes that come in pieces, 64 bits; quick, and no defence against malice.
class QuickSum {
 public:
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  uint64_t value() const;

 private:
  void mix(uint64_t word);
  void hold(std::byte b);
  uint64_t sum_ = 0x9E3779B97F4A7C15u, held_ = 0, n_bytes_ = 0;
  int n_held_ = 0;  // bytes that do not fill a word yet
};

class CheckpointWriter {
 public:
  CheckpointWriter();
  void number(uint64_t v) { own(&v, sizeof v); }
  void real(double v) { own(&v, sizeof v); }
  void text(std::string_view s);
  /// Seen, not copied: it stays as it is until the checkpoint is written.
  template <class V>
  void array(const V& v) {
    number(v.size());
    if (!v.empty()) parts_.push_back({{}, std::as_bytes(std::span(v.data(), v.size()))});
  }
  /// An array that is brought piece by piece as the checkpoint is written: `bring` fills with its bytes from one on. Where it cannot, the
  /// checkpoint becomes one that nobody reads.
  using Bring = std::function<bool(uint64_t first_byte, std::span<std::byte> bytes)>;
  template <class T>
  void array_elsewhere(uint64_t n, Bring bring) {
    number(n);
    if (n) parts_.push_back({{}, {}, std::move(bring), n * sizeof(T)});
  }
  /// The next piece of at most `most` bytes; empty when all have been taken.
  std::vector<std::byte> next(size_t most);
  uint64_t offset() const { return offset_; }

 private:
  struct Part {
    std::vector<std::byte> owned;
    std::span<const std::byte> seen = {};  // where nothing is owned
    Bring bring = nullptr;                 // where nothing is in memory either
    uint64_t n_brought = 0;
    uint64_t size() const { return bring ? n_brought : owned.empty() ? seen.size() : owned.size(); }
  };
  void own(const void* data, size_t n);
  std::deque<Part> parts_;
  uint64_t taken_ = 0;  // of the first part
  uint64_t offset_ = 0;
  QuickSum sum_;
  bool is_whole_ = true;    // all that was to be brought came
  bool is_summed_ = false;  // the sum went out with the last piece
};

/// Reads what CheckpointWriter wrote. After the first mistake everything reads as nothing, and status() says so.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::span<const std::byte> bytes);
  uint64_t number();
  double real();
  std::string text();
  template <class V>
  void array(V& v) {
    using T = typename V::value_type;
    static_assert(std::is_trivially_copyable_v<T>);
    const uint64_t n = number();
    if (n > left_.size() / sizeof(T)) return fail();
    v.resize(size_t(n));
    if (n) std::memcpy(v.data(), left_.data(), size_t(n) * sizeof(T));
    left_ = left_.subspan(size_t(n) * sizeof(T));
  }
  /// A count that is followed by so many things of at least one byte.
  size_t count();
  void fail() {
    failed_ = true;
    left_ = {};
  }
  /// Errors: kCheckpointInvalid.
  Status status() const;

 private:
  std::span<const std::byte> left_;
  bool failed_ = false;
};

}  // namespace sb
