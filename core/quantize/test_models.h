// For tests: the models of tests/golden, and quantised folders in memory.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "io/loading.h"
#include "models/registry.h"
#include "quantize/folder_quantizer.h"

namespace sb {

/// Files in memory, or of a folder on disk when they are not there.
struct FolderHost {
  std::string root;
  std::map<std::string, std::string> files = {};

  const std::string* find(const std::string& name) {
    if (auto found = files.find(name); found != files.end()) return &found->second;
    if (root.empty()) return nullptr;
    FILE* file = std::fopen((root + "/" + name).c_str(), "rb");
    if (!file) return nullptr;
    std::string bytes;
    char part[1 << 16];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) bytes.append(part, n);
    std::fclose(file);
    return &(files[name] = std::move(bytes));
  }
  void write(const FolderWrite& w) {
    std::string& file = files[w.file];
    if (file.size() < w.offset + w.bytes.size()) file.resize(w.offset + w.bytes.size());
    std::copy_n(reinterpret_cast<const char*>(w.bytes.data()), w.bytes.size(), file.begin() + int64_t(w.offset));
  }
  Result<ModelFiles> load(Loading loading) {
    for (;;) {
      SB_TRY(const ReadRequest wanted, loading.next());
      if (wanted.kind == ReadRequest::Kind::kNothing) return loading.finish();
      const std::string* file = find(wanted.file);
      if (wanted.kind == ReadRequest::Kind::kSize) {
        loading.size_is(file ? std::optional<uint64_t>(file->size()) : std::nullopt);
      } else {
        const size_t n = std::min(wanted.dst.size(), file->size() - std::min<size_t>(file->size(), wanted.offset));
        std::copy_n(reinterpret_cast<const std::byte*>(file->data()) + wanted.offset, n, wanted.dst.begin());
        loading.bytes_are(n);
      }
    }
  }
};

/// A host's scratch, outside the books; it fails when it holds more than `most`.
struct MemoryScratch : Scratch {
  std::vector<std::byte> bytes;
  size_t most = SIZE_MAX;
  bool keep(uint64_t offset, std::span<const std::byte> from) override {
    if (offset + from.size() > most) return false;
    if (bytes.size() < offset + from.size()) bytes.resize(offset + from.size());
    std::copy(from.begin(), from.end(), bytes.begin() + int64_t(offset));
    return true;
  }
  bool bring(uint64_t offset, std::span<std::byte> to) override {
    if (offset + to.size() > bytes.size()) return false;
    std::copy_n(bytes.begin() + int64_t(offset), to.size(), to.begin());
    return true;
  }
};

struct Opened {
  std::unique_ptr<ModelFiles> files;
  std::unique_ptr<ModelGraph> graph;
};
inline Opened open(Result<ModelFiles> files) {
  EXPECT_TRUE(files) << files.error().message();
  Opened out;
  if (!files) return out;
  out.files = std::make_unique<ModelFiles>(std::move(*files));
  const Family* family = nullptr;
  auto graph = open_model(out.files->config, out.files->weights, &family);
  EXPECT_TRUE(graph) << graph.error().message();
  if (graph) out.graph = std::move(*graph);
  return out;
}

inline std::vector<int32_t> random_ids(int64_t n, int64_t vocab) {
  std::mt19937 random(11);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t(random() % uint32_t(vocab)));
  return ids;
}

}  // namespace sb
