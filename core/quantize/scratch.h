// Bytes that the quantiser sets aside outside memory, where its host has a place for them (a file): what grows with the text.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace sb {

/// What the host provides. Offsets are the quantiser's; what was kept comes back unchanged. False: it could not be done.
class Scratch {
 public:
  virtual ~Scratch() = default;
  virtual bool keep(uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual bool bring(uint64_t offset, std::span<std::byte> bytes) = 0;
};

/// Bytes of a ScratchSpace.
struct Place {
  uint64_t offset = 0, n_bytes = 0;
};

/// The space of a Scratch, handed out from its start. After a failure nothing is kept or brought, and status() says so: it is asked at the
/// end of every step, so that those who keep and bring in its middle need not.
class ScratchSpace {
 public:
  explicit ScratchSpace(Scratch& scratch) : scratch_(scratch) {}
  /// Where the place is too small it becomes a new one. Layers are alike: after the first all find room where the last one had it.
  void fit(Place& place, uint64_t n_bytes) {
    if (n_bytes <= place.n_bytes) return;
    place = {end_, n_bytes};
    end_ += n_bytes;
  }
  template <class V>
  void keep(uint64_t offset, const V& values) {
    is_good_ = is_good_ && scratch_.keep(offset, std::as_bytes(std::span(values)));
  }
  template <class V>
  bool bring(uint64_t offset, V&& values) {
    return is_good_ = is_good_ && scratch_.bring(offset, std::as_writable_bytes(std::span(values)));
  }
  /// Errors: kScratchFailed.
  Status status() const {
    if (!is_good_) return err(Code::kScratchFailed);
    return {};
  }

 private:
  Scratch& scratch_;
  uint64_t end_ = 0;
  bool is_good_ = true;
};

}  // namespace sb
