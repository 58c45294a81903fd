// Writing a folder so that nothing half-written stands under the name that was asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "subbyte.h"

namespace cli {

struct Descriptor {
  int number = -1;
  Descriptor() = default;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();
};

/// Keeps other runs off a folder: a file beside it, locked (flock) as long as this lives or until the process dies. It says "flock PID",
/// for runs of the package in Node, which has no flock; what they write there (a PID that lives) is heeded too.
class FolderLock {
 public:
  FolderLock() = default;
  /// Throws kTargetBusy when another run holds it, kWriteFailed when there can be no such file.
  void take(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  std::filesystem::path path_;  // empty: not held
  Descriptor file_;
};

/// The folder being written, under a name of its own until it is whole. Everything throws Failure kWriteFailed.
class PartialFolder {
 public:
  /// With `resumes`, an unfinished folder that has a checkpoint is gone on with. Throws kTargetExists when `target` is there and not an
  /// empty folder, kTargetBusy when another run makes it, kCheckpointThere when a checkpoint would be lost, kCheckpointMissing when there
  /// is none to resume.
  PartialFolder(const std::filesystem::path& target, bool resumes);
  /// Removes what is not finished, unless there is a checkpoint to go on from.
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  void write(const std::string& name, uint64_t offset, const void* data, uint64_t n_bytes);
  void write_text(const std::string& name, const std::string& text) { write(name, 0, text.data(), text.size()); }
  /// All bytes to the disk, then the name.
  void finish();
  const std::filesystem::path& path() const { return path_; }
  /// What was written as "checkpoint" takes the older one's place, at once.
  void keep_checkpoint();
  bool has_checkpoint() const { return has_checkpoint_; }
  /// Throws kReadFailed.
  std::string checkpoint() const;
  /// Bytes set aside in a file without a name, on the folder's disk, which go with this object.
  sb_scratch scratch();
  /// Throws kWriteFailed when it could not be written or read.
  void check_scratch() const;

 private:
  [[noreturn]] void fail(const std::filesystem::path& file, const std::string& why) const;
  std::filesystem::path target_, path_;
  FolderLock lock_;  // goes when the folder has
  bool has_checkpoint_ = false;
  Descriptor scratch_;
  int scratch_error_ = 0;  // errno
  std::map<std::string, Descriptor> files_;
};

}  // namespace cli
