#include "io/weights.h"

namespace sb {

Status WeightStore::add(WeightTensor tensor) {
  auto [place, is_new] = index_.emplace(tensor.name, tensors_.size());
  if (!is_new)
    return err(Code::kModelCorrupt, {{"file", tensor.file}, {"place", "tensor " + tensor.name}, {"why", "the name occurs twice"}});
  tensors_.push_back(std::make_unique<WeightTensor>(std::move(tensor)));
  return {};
}

const WeightTensor* WeightStore::find(std::string_view name) const {
  auto found = index_.find(name);
  return found == index_.end() ? nullptr : tensors_[found->second].get();
}

WeightTensor* WeightStore::find(std::string_view name) {
  auto found = index_.find(name);
  return found == index_.end() ? nullptr : tensors_[found->second].get();
}

uint64_t WeightStore::n_bytes() const {
  uint64_t n = 0;
  for (const auto& tensor : tensors_) n += tensor->block.size();
  return n;
}

namespace {

std::string joined(const std::string& path, std::string_view name) {
  if (path.empty()) return std::string(name);
  if (name.empty()) return path;
  return path + "." + std::string(name);
}

}  // namespace

Weights Weights::operator[](std::string_view name) const {
  Weights below = *this;
  below.path_ = joined(path_, name);
  return below;
}

const WeightTensor* Weights::tensor(std::string_view name) const {
  std::string full = joined(path_, name);
  if (map_) full = map_(full);
  return full.empty() ? nullptr : store_->find(full);
}

std::string Weights::full_name(std::string_view name) const {
  std::string full = joined(path_, name);
  if (!map_) return full;
  std::string in_file = map_(full);
  return in_file.empty() || in_file == full ? full : full + " (there: " + in_file + ")";
}

}  // namespace sb
