#include "io/folder_layout.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/json.h"
#include "io/safetensors.h"

namespace sb {
namespace {

struct ElementType {
  std::string_view name;
  uint64_t n_bytes;
};
constexpr ElementType kElementTypes[] = {{"U32", 4}, {"F32", 4}, {"I32", 4}, {"F16", 2}, {"BF16", 2}, {"U8", 1}};

std::unexpected<Error> refuse(const std::string& what) {
  return err(Code::kArgumentInvalid, {{"what", what}, {"fix", "A model that another program can read has no such tensors."}});
}

/// At most so many bytes of a shard's head: the entry's punctuation, and numbers of up to 20 digits.
uint64_t most_head_bytes(const FolderTensor& tensor) { return json_text(Json(tensor.name)).size() + 160; }
constexpr uint64_t kHeadFrameBytes = 8 + 2 + 7;  // length field, braces, padding

/// Tensors that stay together.
struct Part {
  std::string name;
  std::vector<size_t> tensors;
  uint64_t n_bytes = 0;  // with its share of a head
  std::vector<std::string> needs = {};
};

}  // namespace

Result<uint64_t> stored_bytes(const FolderTensor& tensor) {
  const auto* type = std::ranges::find(kElementTypes, tensor.type, &ElementType::name);
  if (type == std::end(kElementTypes)) return refuse("Tensor " + tensor.name + " has type " + tensor.type + ", which a folder cannot hold");
  uint64_t n = type->n_bytes;
  for (int i = 0; i < tensor.shape.rank(); ++i) {
    if (tensor.shape[i] < 1 || __builtin_mul_overflow(n, uint64_t(tensor.shape[i]), &n) || n > uint64_t(1) << 60)
      return refuse("Tensor " + tensor.name + " has shape " + tensor.shape.text());
  }
  return n;
}

Result<FolderLayout> FolderLayout::plan(std::vector<FolderTensor> tensors, uint64_t most_shard_bytes) {
  FolderLayout out;
  out.tensors_ = std::move(tensors);
  out.places_.resize(out.tensors_.size());
  const uint64_t most = most_shard_bytes - std::min(most_shard_bytes, kHeadFrameBytes);

  std::set<std::string_view> names;
  for (size_t i = 0; i < out.tensors_.size(); ++i) {
    const FolderTensor& tensor = out.tensors_[i];
    SB_TRY(out.places_[i].n_bytes, stored_bytes(tensor));
    if (tensor.name.empty() || tensor.name == "__metadata__") return refuse("A tensor is called \"" + tensor.name + "\"");
    if (!names.insert(tensor.name).second) return refuse("Two tensors are called " + tensor.name);
    if (tensor.component.empty()) return refuse("Tensor " + tensor.name + " has no component");
  }

  // The components of one set, in the order in which they begin.
  auto components_of = [&](bool is_refinement) -> Result<std::vector<Part>> {
    std::vector<Part> components;
    std::set<std::string_view> begun;
    for (size_t i = 0; i < out.tensors_.size(); ++i) {
      const FolderTensor& tensor = out.tensors_[i];
      if (tensor.is_refinement != is_refinement) continue;
      if (components.empty() || components.back().name != tensor.component) {
        if (!begun.insert(tensor.component).second) return refuse("Component " + tensor.component + " is not in one run");
        components.push_back({.name = tensor.component, .tensors = {}});
      }
      components.back().tensors.push_back(i);
      components.back().n_bytes += out.places_[i].n_bytes + most_head_bytes(tensor);
    }
    return components;
  };
  auto parts_of = [&](const Part& component) {
    if (component.n_bytes <= most) return std::vector<Part>{component};
    std::vector<Part> parts;
    for (size_t i : component.tensors) {
      const uint64_t n_bytes = out.places_[i].n_bytes + most_head_bytes(out.tensors_[i]);
      if (parts.empty() || parts.back().n_bytes + n_bytes > most) {
        parts.push_back(
            {.name = component.name + "." + std::to_string(parts.size() + 1), .tensors = {}, .n_bytes = 0, .needs = component.needs});
      }
      parts.back().tensors.push_back(i);
      parts.back().n_bytes += n_bytes;
    }
    if (parts.size() == 1) parts[0].name = component.name;
    return parts;
  };

  auto pack = [&](std::vector<Part> parts, bool is_refinement) {
    for (size_t first = 0, n_shards = 0; first < parts.size();) {
      size_t last = first;
      for (uint64_t n_bytes = 0; last < parts.size() && (last == first || n_bytes + parts[last].n_bytes <= most); ++last)
        n_bytes += parts[last].n_bytes;
      const std::string number = std::to_string(++n_shards);
      const std::string name = (is_refinement ? "refine-" : "base-") + std::string(5 - std::min<size_t>(number.size(), 5), '0') + number;
      std::vector<SafetensorsPlan> plans;
      for (size_t k = first; k < last; ++k) {
        for (size_t i : parts[k].tensors)
          plans.push_back({out.tensors_[i].name, out.tensors_[i].type, out.tensors_[i].shape, out.places_[i].n_bytes});
      }
      Shard shard{.name = name + ".safetensors", .head = safetensors_head(plans), .is_refinement = is_refinement, .n_bytes = 0};
      uint64_t offset = shard.head.size();
      for (; first < last; ++first) {
        const uint64_t begin = offset;
        for (size_t i : parts[first].tensors) {
          out.places_[i].shard = out.shards_.size();
          out.places_[i].component = out.index_.components.size();
          out.places_[i].offset = offset;
          offset += out.places_[i].n_bytes;
        }
        out.index_.components.push_back({parts[first].name, is_refinement, shard.name, begin, offset, "", std::move(parts[first].needs)});
      }
      shard.n_bytes = offset;
      const std::string sum = sha256_hex(std::as_bytes(std::span(shard.head)));
      out.index_.shards.push_back({shard.name, is_refinement, shard.n_bytes, shard.head.size(), sum});
      out.shards_.push_back(std::move(shard));
    }
  };

  std::map<std::string, std::vector<std::string>, std::less<>> base_parts;  // component → what it became
  for (const bool is_refinement : {false, true}) {
    SB_TRY(std::vector<Part> components, components_of(is_refinement));
    std::vector<Part> parts;
    for (Part& component : components) {
      const std::string base = component.name;
      if (is_refinement) {
        if (!base_parts.contains(base)) return refuse("The refinement of " + base + " has nothing to refine");
        component.name += ".refine";
        component.needs = base_parts[base];
      }
      for (Part& part : parts_of(component)) {
        if (!is_refinement) base_parts[base].push_back(part.name);
        parts.push_back(std::move(part));
      }
    }
    pack(std::move(parts), is_refinement);
  }
  // "a" split in two beside an "a.1", say.
  std::set<std::string_view> component_names;
  for (const ComponentEntry& component : out.index_.components) {
    if (!component_names.insert(component.name).second) return refuse("Two components are called " + component.name);
  }
  return out;
}

FolderSums::FolderSums(const FolderLayout& layout) : layout_(layout), n_done_(layout.tensors().size()) {
  for (const ComponentEntry& component : layout.index().components) running_.push_back({{}, component.begin});
}

void FolderSums::add(size_t tensor, std::span<const std::byte> bytes) {
  const FolderLayout::Place& place = layout_.place(tensor);
  Running& running = running_[place.component];
  SB_ASSERT(running.offset == place.offset + n_done_[tensor]);  // in the component's order
  SB_ASSERT(bytes.size() <= place.n_bytes - n_done_[tensor]);
  running.sum.update(bytes);
  running.offset += bytes.size();
  n_done_[tensor] += bytes.size();
}

std::vector<std::byte> FolderSums::state() const {
  static_assert(std::is_trivially_copyable_v<Running>);
  const auto done = std::as_bytes(std::span(n_done_)), running = std::as_bytes(std::span(running_));
  std::vector<std::byte> out(done.begin(), done.end());
  out.insert(out.end(), running.begin(), running.end());
  return out;
}

bool FolderSums::restore(std::span<const std::byte> state) {
  const auto done = std::as_writable_bytes(std::span(n_done_)), running = std::as_writable_bytes(std::span(running_));
  if (state.size() != done.size() + running.size()) return false;
  std::copy_n(state.begin(), done.size(), done.begin());
  std::copy_n(state.begin() + int64_t(done.size()), running.size(), running.begin());
  return true;
}

bool FolderSums::is_complete() const {
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i].offset != layout_.index().components[i].end) return false;
  }
  return true;
}

FolderIndex FolderSums::index() const {
  SB_ASSERT(is_complete());
  FolderIndex out = layout_.index();
  for (size_t i = 0; i < running_.size(); ++i) out.components[i].sha256 = running_[i].sum.hex();
  return out;
}

}  // namespace sb
