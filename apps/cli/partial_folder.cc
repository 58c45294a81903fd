#include "partial_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "client.h"

namespace cli {
namespace fs = std::filesystem;
namespace {

constexpr const char* kCheckpoint = "checkpoint";          // as the engine calls it
constexpr const char* kNewCheckpoint = "checkpoint.part";  // until it is whole

/// The process that says it has a lock without flock: a run of the package in Node (web/engine/src/folder_lock.ts), which has none. 0: none
/// lives.
pid_t named_holder(int file) {
  char text[24] = {};
  if (::pread(file, text, sizeof text - 1, 0) <= 0) return 0;
  const long pid = std::strtol(text, nullptr, 10);  // ours begin with a word
  return pid > 0 && (::kill(pid_t(pid), 0) == 0 || errno == EPERM) ? pid_t(pid) : 0;
}

/// All of the bytes by pread or pwrite; otherwise false and errno.
template <class Move, class Byte>
bool move_all(Move move, int file, uint64_t offset, Byte* bytes, uint64_t n_bytes) {
  for (uint64_t done = 0; done < n_bytes;) {
    const ssize_t n = move(file, bytes + done, n_bytes - done, off_t(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;  // a file that ends early
    if (n <= 0) return false;
    done += uint64_t(n);
  }
  return true;
}
bool write_all(int file, uint64_t offset, const void* bytes, uint64_t n_bytes) {
  return move_all(::pwrite, file, offset, static_cast<const char*>(bytes), n_bytes);
}

}  // namespace

void PartialFolder::fail(const fs::path& file, const std::string& why) const {
  throw Failure{"kWriteFailed", "Writing " + file.string() + " failed: " + why,
                has_checkpoint_ ? "Make room on the disk or check its permissions, then go on with --resume: the last checkpoint stays."
                                : "Make room on the disk or check its permissions; nothing half-written stays."};
}

Descriptor::~Descriptor() {
  if (number >= 0) ::close(number);
}

void FolderLock::take(const fs::path& folder) {
  const fs::path path = folder.string() + ".lock";
  std::error_code error;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  auto failed = [&] {
    return Failure{"kWriteFailed", "Locking " + path.string() + " failed: " + std::strerror(errno),
                   "Check the permissions of the folder that it is in, and that its disk knows locks."};
  };
  for (;;) {
    Descriptor file;
    file.number = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (file.number < 0) throw failed();
    if (::flock(file.number, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) throw failed();
      throw Failure{"kTargetBusy", "Another run is making " + folder.string(), "Wait until it ends, or choose another name."};
    }
    // Whoever held it before may have removed the name since it was opened.
    struct stat held, named;
    if (::fstat(file.number, &held) != 0) throw failed();
    if (::stat(path.c_str(), &named) != 0 || held.st_ino != named.st_ino || held.st_dev != named.st_dev) continue;
    if (const pid_t pid = named_holder(file.number)) {
      throw Failure{"kTargetBusy",
                    "Another run is making " + folder.string() + ": process " + std::to_string(pid) + " has " + path.string(),
                    "Wait until it ends, or choose another name."};
    }
    const std::string own = "flock " + std::to_string(::getpid()) + "\n";
    if (::ftruncate(file.number, 0) != 0 || ::pwrite(file.number, own.data(), own.size(), 0) != ssize_t(own.size())) throw failed();
    std::swap(file_.number, file.number);
    path_ = path;
    return;
  }
}

FolderLock::~FolderLock() {
  if (!path_.empty()) ::unlink(path_.c_str());  // while it is held: whoever opens the name next locks a file of their own
}

PartialFolder::PartialFolder(const fs::path& target, bool resumes) : target_(target), path_(target.string() + ".partial") {
  std::error_code error;
  auto check = [&] {
    if (fs::exists(target_, error) && !(fs::is_directory(target_, error) && fs::is_empty(target_, error)))
      throw Failure{"kTargetExists", target_.string() + " is there already", "Remove it, or choose another name."};
    has_checkpoint_ = fs::exists(path_ / kCheckpoint, error);
    if (resumes && !has_checkpoint_) throw Failure{"kCheckpointMissing", path_.string() + " has no checkpoint", "Run it without --resume."};
  };
  check();  // before a file is made
  lock_.take(path_);
  check();  // another run may have ended in between
  if (resumes) return;
  if (has_checkpoint_) {
    throw Failure{"kCheckpointThere", path_.string() + " has the checkpoint of an earlier run",
                  "Go on with it by --resume, or remove that folder to begin anew."};
  }
  fs::remove_all(path_, error);
  if (!fs::create_directories(path_, error)) fail(path_, error.message());
}

PartialFolder::~PartialFolder() {
  files_.clear();
  std::error_code error;
  if (path_.empty()) return;
  if (has_checkpoint_) {
    fs::remove(path_ / kNewCheckpoint, error);
  } else {
    fs::remove_all(path_, error);
  }
}

void PartialFolder::write(const std::string& file_name, uint64_t offset, const void* data, uint64_t n_bytes) {
  const std::string name = file_name == kCheckpoint ? kNewCheckpoint : file_name;
  Descriptor& file = files_[name];
  if (file.number < 0) file.number = ::open((path_ / name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (file.number < 0) fail(path_ / name, std::strerror(errno));
  if (!write_all(file.number, offset, data, n_bytes)) fail(path_ / name, std::strerror(errno));
}

sb_scratch PartialFolder::scratch() {
  const fs::path path = path_ / "scratch";
  scratch_.number = ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (scratch_.number < 0) fail(path, std::strerror(errno));
  ::unlink(path.c_str());
  // What went wrong is told by check_scratch(): the engine in between knows no errno.
  const auto keep = [](void* self, uint64_t offset, const void* bytes, uint64_t n_bytes) -> int32_t {
    auto& folder = *static_cast<PartialFolder*>(self);
    if (write_all(folder.scratch_.number, offset, bytes, n_bytes)) return 0;
    folder.scratch_error_ = errno;
    return -1;
  };
  const auto bring = [](void* self, uint64_t offset, void* bytes, uint64_t n_bytes) -> int32_t {
    auto& folder = *static_cast<PartialFolder*>(self);
    if (move_all(::pread, folder.scratch_.number, offset, static_cast<char*>(bytes), n_bytes)) return 0;
    folder.scratch_error_ = errno;
    return -1;
  };
  return {this, keep, bring};
}

void PartialFolder::check_scratch() const {
  if (scratch_error_) fail(path_ / "scratch", std::strerror(scratch_error_));
}

void PartialFolder::keep_checkpoint() {
  // The bytes that it speaks of first.
  for (auto& [name, file] : files_) {
    if (::fsync(file.number) != 0) fail(path_ / name, std::strerror(errno));
  }
  files_.erase(kNewCheckpoint);
  std::error_code error;
  fs::rename(path_ / kNewCheckpoint, path_ / kCheckpoint, error);
  if (error) fail(path_ / kCheckpoint, error.message());
  has_checkpoint_ = true;
}

std::string PartialFolder::checkpoint() const { return read_file((path_ / kCheckpoint).string()); }

void PartialFolder::finish() {
  for (auto& [name, file] : files_) {
    if (::fsync(file.number) != 0) fail(path_ / name, std::strerror(errno));
  }
  files_.clear();
  std::error_code error;
  fs::remove(path_ / kCheckpoint, error);
  fs::remove(target_, error);  // an empty folder
  fs::rename(path_, target_, error);
  if (error) fail(target_, error.message());
  path_.clear();
}

}  // namespace cli
