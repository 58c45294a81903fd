// Writing a folder so that nothing half-written stands under the name that was asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace cli {

/// The folder being written, under a name of its own until it is whole. Everything throws Failure kWriteFailed.
class PartialFolder {
 public:
  /// Throws kTargetExists when `target` is there and not an empty folder.
  explicit PartialFolder(const std::filesystem::path& target);
  /// Removes what is not finished.
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  void write(const std::string& name, uint64_t offset, const void* data, uint64_t n_bytes);
  void write_text(const std::string& name, const std::string& text) { write(name, 0, text.data(), text.size()); }
  /// All bytes to the disk, then the name.
  void finish();
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Descriptor {
    int number = -1;
    Descriptor() = default;
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor();
  };
  std::filesystem::path target_, path_;
  std::map<std::string, Descriptor> files_;
};

}  // namespace cli
