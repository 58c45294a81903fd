#include "partial_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "client.h"

namespace cli {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& file, const std::string& why) {
  throw Failure{"kWriteFailed", "Writing " + file.string() + " failed: " + why,
                "Make room on the disk or check its permissions; nothing half-written stays."};
}

}  // namespace

PartialFolder::Descriptor::~Descriptor() {
  if (number >= 0) ::close(number);
}

PartialFolder::PartialFolder(const fs::path& target) : target_(target), path_(target.string() + ".partial") {
  std::error_code error;
  if (fs::exists(target_, error) && !(fs::is_directory(target_, error) && fs::is_empty(target_, error)))
    throw Failure{"kTargetExists", target_.string() + " is there already", "Remove it, or choose another name."};
  fs::remove_all(path_, error);
  if (!fs::create_directories(path_, error)) fail(path_, error.message());
}

PartialFolder::~PartialFolder() {
  files_.clear();
  std::error_code error;
  if (!path_.empty()) fs::remove_all(path_, error);
}

void PartialFolder::write(const std::string& name, uint64_t offset, const void* data, uint64_t n_bytes) {
  Descriptor& file = files_[name];
  if (file.number < 0) file.number = ::open((path_ / name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (file.number < 0) fail(path_ / name, std::strerror(errno));
  for (uint64_t done = 0; done < n_bytes;) {
    const ssize_t n = ::pwrite(file.number, static_cast<const char*>(data) + done, n_bytes - done, off_t(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(path_ / name, std::strerror(errno));
    done += uint64_t(n);
  }
}

void PartialFolder::finish() {
  for (auto& [name, file] : files_) {
    if (::fsync(file.number) != 0) fail(path_ / name, std::strerror(errno));
  }
  files_.clear();
  std::error_code error;
  fs::remove(target_, error);  // an empty folder
  fs::rename(path_, target_, error);
  if (error) fail(target_, error.message());
  path_.clear();
}

}  // namespace cli
