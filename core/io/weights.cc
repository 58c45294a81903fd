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
  for (const auto& tensor : tensors_) n += tensor->n_bytes();
  return n;
}

uint64_t WeightStore::remove(const std::function<bool(const WeightTensor&)>& is_chosen) {
  const uint64_t before = n_bytes();
  std::erase_if(tensors_, [&](const auto& tensor) { return is_chosen(*tensor); });
  index_.clear();
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i]->name, i);
  return before - n_bytes();
}

Status WeightStore::rename(std::string_view from, std::string to) {
  const auto place = index_.find(from);
  SB_ASSERT(place != index_.end());
  const size_t i = place->second;
  if (!index_.emplace(to, i).second)
    return err(Code::kModelCorrupt, {{"file", tensors_[i]->file}, {"place", "tensor " + to}, {"why", "the name occurs twice"}});
  index_.erase(place);
  tensors_[i]->name = std::move(to);
  return {};
}

PlaneMatrix* WeightStore::add_matrix(std::string_view name, const PlaneMatrix& matrix) {
  auto [place, is_new] = matrices_.emplace(name, nullptr);
  if (!is_new) return nullptr;
  place->second = std::make_unique<PlaneMatrix>(matrix);
  return place->second.get();
}

PlaneMatrix* WeightStore::find_matrix(std::string_view name) {
  auto found = matrices_.find(name);
  return found == matrices_.end() ? nullptr : found->second.get();
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

std::string Weights::path(std::string_view name) const { return joined(path_, name); }

std::string Weights::full_name(std::string_view name) const {
  std::string full = joined(path_, name);
  if (!map_) return full;
  std::string in_file = map_(full);
  return in_file.empty() || in_file == full ? full : full + " (there: " + in_file + ")";
}

}  // namespace sb
