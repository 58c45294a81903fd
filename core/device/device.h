// The contract of a device: it compiles plans and replays them. Nothing blocks: a run is submitted and asked about.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "device/device_rows.h"
#include "device/kv_pages.h"
#include "device/plan.h"

namespace sb {

/// How a device chooses a token by itself: runtime/sampler.h has the meaning of each, in its order.
struct Draw {
  float temperature = 0;  // 0: the likeliest, and the rest is of no account
  int32_t top_k = 0;
  float top_p = 1, min_p = 0;
  float mark = 0;  // in [0, 1): where in what is kept the token lies
};

/// What changes from one run of a program to the next.
struct Scalars {
  std::span<const int32_t> ids = {};  // [T]; none: the id that the device chose last
  int32_t position = 0;               // of ids[0]: tokens in the cache already
  KvPages* kv = nullptr;              // room for position + T tokens is reserved
  int32_t n_choices = 0;  // above 0 the device picks one of so many "logits" by `draw`, for chosen() and the next run, and gives no outputs
  Draw draw = {};
};

inline constexpr int32_t kNotChosen = -1;

/// What running a plan takes beside weights and cache.
struct RunBytes {
  uint64_t activations = 0, scratch = 0;  // programs of a device share these bytes: the largest counts
  uint64_t program = 0;                   // each has its own
};

/// A compiled plan, tied to the device that made it.
class Program {
 public:
  virtual ~Program() = default;
  /// A named output of the last completed run, dense float32 [rows, columns]; valid until the device runs anything else.
  virtual std::span<float> output(std::string_view name) = 0;
};

/// Of bytes that are on their way to a device.
inline constexpr uint64_t kMostBringing = 16u << 20;

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  /// What it is and why: {"device", "isa", "threads", …} as JSON text.
  virtual std::string describe() const = 0;
  /// Threads that run its kernels; 1 where it has none of its own.
  virtual int n_threads() const = 0;
  /// Whether it has memory of its own where programs hold weights, so that they must go before weights change.
  virtual bool holds_weights() const { return false; }
  /// Room for a matrix in the device's own memory; null where a device reads the host's.
  /// Errors: kMemoryExhausted, kOpUnsupported (rows that it cannot hold).
  virtual Result<std::unique_ptr<DeviceRows>> keep_rows(const RowLayout& rows) { return nullptr; }
  /// What keep_rows() would take of the device's own memory.
  virtual uint64_t kept_bytes(const RowLayout& rows) const { return 0; }
  /// Bytes given to DeviceRows::append that are still on their way. Whoever brings much lets them be kMostBringing at most: wait(), or,
  /// where there is no waiting, come again later. Errors: kMemoryExhausted (rows for which there was no memory after all), kDeviceLost.
  virtual Result<uint64_t> bringing() { return 0; }
  /// Begins what running `plan` takes and can be done beside other work, such as compiling kernels. `half`: the cache's elements. Reads no
  /// weight.
  virtual void prepare(const Plan& plan, bool half) {}
  /// Lets `work` be done beside the caller where a thread is idle, else at once. It lives until finish(), which returns when it is done; a
  /// run finishes it first. One at a time.
  virtual void begin(std::function<void()>& work) { work(); }
  virtual void finish() {}
  /// Another one with the same kernels, that has memory of its own and can run at the same time. Errors: kMemoryExhausted.
  virtual Result<std::unique_ptr<Device>> twin(int n_threads) const = 0;
  /// Errors: kOpUnsupported {device, op, dtype}, kMemoryExhausted.
  virtual Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan> plan) = 0;
  /// What a run of `plan` takes whose last token is the cache's token number `context`. Reads no weight, takes nothing.
  virtual RunBytes measure(const Plan& plan, int64_t context) const = 0;
  /// Gives the input `name` of a plan (Plan::input) its numbers for the next run of this program. Errors: kMemoryExhausted.
  virtual Status fill(Program& program, std::string_view name, std::span<const float> values) = 0;
  /// Up to how many tokens a pass gives each of them the bits that a pass of its own would: 1 where passes round as they like.
  virtual int64_t n_alike() const { return 1; }
  /// Starts a run. On the CPU it has completed when this returns. Errors: kMemoryExhausted, kDeviceLost, kDeviceFailed.
  virtual Status submit(Program& program, const Scalars& scalars) = 0;
  /// Which life this is, from 1: a device that was lost and opened anew has the next one, and what was compiled, held or cached in an
  /// earlier one is gone. 0: it is lost.
  virtual uint64_t life() const { return 1; }
  /// Opens a lost device anew; false: it is not open yet, ask again after wait(). Nothing of its earlier life may be in use.
  /// Errors: kDeviceLost when it was lost too often lately, kDeviceMissing.
  virtual Result<bool> reopen() { return true; }
  /// Whether everything submitted has completed. Errors: kDeviceLost, kDeviceFailed.
  virtual Result<bool> idle() = 0;
  /// Waits for something to complete; false where there is no waiting: a page's host calls again later.
  virtual bool wait() { return true; }
  /// Nobody will ask for what is under way; idle() says when it is gone.
  virtual void drop() {}
  /// Whether runs can choose their token (Scalars::choose), and how many may be under way.
  virtual int n_choices() const { return 0; }
  /// A position from which on one token's attention is computed in another way than from the first on; 0 where it is not.
  virtual int32_t long_position() const { return 0; }
  /// The oldest choice not taken yet; none while it has not come. kNotChosen where logits were not finite.
  /// Errors: kDeviceLost, kDeviceFailed.
  virtual Result<std::optional<int32_t>> chosen() { return std::nullopt; }
  /// The kernels that running this plan takes, each known by its number, in no order; none where they need no check. `half`: the cache's
  /// elements. Reads no weight.
  virtual std::vector<uint64_t> kernels(const Plan& plan, bool half) const { return {}; }
  /// How long each step of a program that has run takes, one after the other, many times each:
  /// {"n_tokens", "repeats", "steps": [{"step", "groups": [x, y, z], "us"}]}. Its cache and values are not to be used afterwards.
  virtual Result<std::string> profile(Program& program) {
    return err(Code::kOpUnsupported, {{"device", name()}, {"op", "a profile"}, {"dtype", "any"}});
  }

  /// Whether `who` may submit now. Who has submitted keeps the device until it has its outputs and calls release(); it should do so soon
  /// when somebody else waits.
  bool acquire(const void* who) {
    if (user_ && user_ != who) is_wanted_ = true;
    if (!user_) user_ = who;
    return user_ == who;
  }
  void release(const void* who) {
    if (user_ != who) return;
    user_ = nullptr;
    is_wanted_ = false;
  }
  bool is_wanted() const { return is_wanted_; }
  /// Where a cache of this device lies; none: in the host's pages.
  virtual std::unique_ptr<KvStorage> kv_storage(int32_t n_layers, int32_t width, bool half) { return nullptr; }
  /// What such a cache in float16 takes once it holds n_tokens; 0: it lies in the host's pages.
  virtual uint64_t kv_bytes(int64_t n_layers, int64_t width, int64_t n_tokens) const { return 0; }

 private:
  const void* user_ = nullptr;  // whose runs are under way
  bool is_wanted_ = false;
};

/// Waits until all is done. False: it is not, and there is no waiting here.
inline Result<bool> settle(Device& device) {
  while (true) {
    SB_TRY(const bool is_idle, device.idle());
    if (is_idle || !device.wait()) return is_idle;
  }
}

}  // namespace sb
