#include "io/folder_index.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/json.h"
#include "base/sha256.h"
#include "formats/planes.h"
#include "io/safetensors.h"

namespace sb {
namespace {

constexpr std::string_view kFormat = "subbyte-folder";
constexpr int64_t kVersion = 1;
constexpr uint64_t kLongestSide = uint64_t(1) << 31;  // of a matrix
constexpr uint64_t kMostPieces = 1 << 16;             // of a tensor
constexpr uint64_t kLargestFile = uint64_t(1) << 62;  // bytes: sums of two do not overflow

constexpr std::string_view kSumBegin = ",\"index_sha256\":\"", kSumEnd = "\"}";
constexpr size_t kSumBytes = kSumBegin.size() + 64 + kSumEnd.size();

bool is_sha256(std::string_view text) {
  return text.size() == 64 && std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_plane_format(std::string_view name) { return plane_format(name) != nullptr; }

std::string sum_of(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

/// Fields of one entry; the first thing wrong is kept, so that the callers read straight through.
class Fields {
 public:
  Fields(const Json& entry, std::string place, std::string_view label) : entry_(entry), place_(std::move(place)), label_(label) {
    if (!entry.is_object()) fail("it is no JSON object");
  }

  std::string text(const char* key) {
    const std::optional<std::string> value = json_string(entry_, key);
    if (!value || value->empty()) fail(std::string("its ") + key + " is no text");
    return value.value_or("");
  }
  uint64_t number(const char* key, uint64_t least, uint64_t most) {
    const Json* value = json_find(entry_, key);
    return number(value ? *value : Json(), key, least, most);
  }
  uint64_t number(const Json& value, const char* key, uint64_t least, uint64_t most) {
    const uint64_t n = value.is_number_unsigned() ? value.get<uint64_t>() : UINT64_MAX;
    if (n < least || n > most) {
      fail(std::string("its ") + key + " is no whole number from " + std::to_string(least) + " to " + std::to_string(most));
      return least;
    }
    return n;
  }
  std::string sha256(const char* key) {
    std::string value = json_string(entry_, key).value_or("");
    if (!is_sha256(value)) fail(std::string("its ") + key + " is not 64 hexadecimal digits");
    return value;
  }
  bool is_refinement() {
    const std::string set = json_string(entry_, "set").value_or("");
    if (set != "base" && set != "refine") fail("its set is neither base nor refine");
    return set == "refine";
  }
  /// A list, or an empty one after an error.
  const Json& list(const char* key) {
    const Json* value = json_find(entry_, key);
    if (value && value->is_array()) return *value;
    fail(std::string("its ") + key + " is no list");
    return empty_;
  }
  void check(bool holds, std::string_view why) {
    if (!holds) fail(std::string(why));
  }
  void fail(std::string why) {
    if (why_.empty()) why_ = std::move(why);
  }
  Status status() const {
    if (why_.empty()) return {};
    return err(Code::kModelCorrupt, {{"file", label_}, {"place", place_}, {"why", why_}});
  }

 private:
  const Json& entry_;
  const Json empty_ = Json::array();
  std::string place_;
  std::string_view label_;
  std::string why_;
};

class IndexReader {
 public:
  IndexReader(const Json& root, std::string_view label) : root_(root), label_(label) {}

  Result<FolderIndex> read() {
    SB_OK(each("shards", [&](const Json& entry, Fields& f) { shard(entry, f); }));
    SB_OK(each("components", [&](const Json& entry, Fields& f) { component(entry, f); }));
    SB_OK(check_tiles());
    SB_OK(each("matrices", [&](const Json& entry, Fields& f) { matrix(entry, f); }));
    SB_OK(each("give_back", [&](const Json& entry, Fields& f) { give_back(entry, f); }, /*of_objects=*/false));
    if (json_find(root_, "split")) SB_OK(each("split", [&](const Json&, Fields& f) { split(f); }));
    return std::move(index_);
  }

 private:
  template <class Read>
  Status each(const char* key, Read read, bool of_objects = true) {
    Fields all(root_, key, label_);
    const Json& list = all.list(key);
    SB_OK(all.status());
    for (size_t i = 0; i < list.size(); ++i) {
      Fields fields(of_objects ? list[i] : root_, std::string(key) + "[" + std::to_string(i) + "]", label_);
      read(list[i], fields);
      SB_OK(fields.status());
    }
    return {};
  }

  void shard(const Json&, Fields& f) {
    ShardEntry s;
    s.name = f.text("file");
    f.check(is_plain_name(s.name), "\"" + s.name + "\" is not the name of a file in this folder");
    f.check(shards_.emplace(s.name, index_.shards.size()).second, "the file " + s.name + " occurs twice");
    s.is_refinement = f.is_refinement();
    f.check(s.is_refinement || index_.shards.empty() || !index_.shards.back().is_refinement, "a base shard stands after a refinement's");
    s.n_bytes = f.number("bytes", 11, kLargestFile);
    s.head_bytes = f.number("head_bytes", 10, std::min(s.n_bytes - 1, 8 + kLongestSafetensorsHeader));
    s.head_sha256 = f.sha256("head_sha256");
    index_.shards.push_back(std::move(s));
  }

  void component(const Json& entry, Fields& f) {
    ComponentEntry c;
    c.name = f.text("name");
    c.is_refinement = f.is_refinement();
    c.shard = f.text("shard");
    c.sha256 = f.sha256("sha256");
    const Json& bytes = f.list("bytes");
    f.check(bytes.size() == 2, "its bytes are not a begin and an end");
    if (bytes.size() == 2) {
      c.begin = f.number(bytes[0], "begin", 0, kLargestFile);
      c.end = f.number(bytes[1], "end", 1, kLargestFile);
      f.check(c.begin < c.end, "its bytes run backwards");
    }
    const auto shard = shards_.find(c.shard);
    if (shard == shards_.end()) return f.fail("its shard \"" + c.shard + "\" is not in the list of shards");
    const ShardEntry& file = index_.shards[shard->second];
    f.check(c.is_refinement == file.is_refinement, "its shard is of the other set");
    f.check(c.end <= file.n_bytes, "its bytes end beyond its shard");
    for (const Json& need : f.list("needs")) {
      const std::string name = need.is_string() ? need.get<std::string>() : "";
      const auto known = components_.find(name);
      if (known == components_.end()) return f.fail("it needs \"" + name + "\", which does not stand before it");
      f.check(c.is_refinement || !index_.components[known->second].is_refinement, "a base component needs a refinement");
      f.check(std::ranges::find(c.needs, name) == c.needs.end(), "it needs " + name + " twice");
      c.needs.push_back(name);
    }
    f.check(components_.emplace(c.name, index_.components.size()).second, "the component " + c.name + " occurs twice");
    index_.components.push_back(std::move(c));
  }

  /// In load order the components fill every shard after its head, without gap or overlap.
  Status check_tiles() const {
    auto refuse = [&](const std::string& shard, std::string why) {
      return err(Code::kModelCorrupt, {{"file", label_}, {"place", "shard " + shard}, {"why", why}});
    };
    size_t next = 0;
    for (const ShardEntry& shard : index_.shards) {
      uint64_t at = shard.head_bytes;
      for (; next < index_.components.size() && index_.components[next].shard == shard.name; ++next) {
        const ComponentEntry& c = index_.components[next];
        if (c.begin != at)
          return refuse(shard.name, "component " + c.name + " begins at byte " + std::to_string(c.begin) + ", not " + std::to_string(at));
        at = c.end;
      }
      if (at != shard.n_bytes)
        return refuse(shard.name, "its components end at byte " + std::to_string(at) + " of " + std::to_string(shard.n_bytes));
    }
    if (next < index_.components.size())
      return refuse(index_.components[next].shard, "component " + index_.components[next].name + " is not in the order of the shards");
    return {};
  }

  void matrix(const Json& entry, Fields& f) {
    MatrixEntry m;
    m.name = f.text("name");
    m.format = f.text("format");
    m.refine = json_string(entry, "refine").value_or("");
    const bool is_rows8 = m.format == kRows8;
    f.check(is_rows8 || is_plane_format(m.format), "its format \"" + m.format + "\" is unknown");
    if (json_find(entry, "refine")) {
      f.check(!is_rows8 && is_plane_format(m.refine), "its refinement's format is unknown");
      n_refined_.emplace(m.name, 0);
    }
    // Else the refinement's arrays of "a" could be the base arrays of "a.refine".
    f.check(!m.name.ends_with(".refine"), "its name ends like a refinement's");
    f.check(matrices_.insert(m.name).second, "the matrix " + m.name + " occurs twice");
    const Json& shape = f.list("shape");
    f.check(shape.size() == 2, "its shape is not [N, K]");
    if (shape.size() == 2) {
      m.n_rows = int64_t(f.number(shape[0], "N", 1, kLongestSide));
      m.n_columns = int64_t(f.number(shape[1], "K", 1, kLongestSide));
    }
    f.check(!is_rows8 || m.n_columns % 32 == 0, "its K is no multiple of 32");
    int64_t n_left = m.n_rows;
    for (const Json& range : f.list("rows")) {
      if (!range.is_array() || range.size() != 2 || !range[0].is_string()) return f.fail("its rows are not made of a tensor and a number");
      const std::string tensor = range[0].get<std::string>();
      const int64_t n = int64_t(f.number(range[1], "rows", 1, kLongestSide));
      f.check(!tensor.empty() && tensors_.insert(tensor).second, "the tensor \"" + tensor + "\" occurs twice");
      f.check(n <= n_left, "its rows are more than N");
      n_left -= n;
      m.rows.emplace_back(tensor, n);
    }
    f.check(n_left == 0, "its rows do not sum to N");
    // They become a tensor as they are.
    f.check(!is_rows8 || m.rows.size() == 1, "rows8 holds one tensor");
    index_.matrices.push_back(std::move(m));
  }

  void give_back(const Json& entry, Fields& f) {
    const std::string name = entry.is_string() ? entry.get<std::string>() : "";
    const auto refined = n_refined_.find(name);
    if (refined == n_refined_.end()) return f.fail("\"" + name + "\" is no matrix with a refinement");
    f.check(refined->second++ == 0, "the matrix " + name + " occurs twice");
    index_.give_back.push_back(name);
  }

  void split(Fields& f) {
    SplitEntry s;
    s.name = f.text("name");
    f.check(!s.name.empty() && split_.insert(s.name).second, "the tensor \"" + s.name + "\" occurs twice");
    s.n_rows = int64_t(f.number("rows", 2, kLongestSide));
    s.n_pieces = int64_t(f.number("pieces", 2, kMostPieces));
    index_.split.push_back(std::move(s));
  }

  const Json& root_;
  std::string_view label_;
  FolderIndex index_;
  std::map<std::string, size_t, std::less<>> shards_, components_;
  std::set<std::string, std::less<>> matrices_, tensors_, split_;
  std::map<std::string, int, std::less<>> n_refined_;  // refined matrix → how often it stands in give_back
};

}  // namespace

uint64_t FolderIndex::shard_bytes(PlaneSets sets) const {
  uint64_t n = 0;
  for (const ShardEntry& shard : shards) n += sets == PlaneSets::kBase && shard.is_refinement ? 0 : shard.n_bytes;
  return n;
}

Result<FolderIndex> parse_folder_index(std::string_view text, std::string_view label) {
  SB_TRY(const Json root, json_parse(text, label));
  auto corrupt = [&](std::string_view place, std::string_view why) {
    return err(Code::kModelCorrupt, {{"file", label}, {"place", place}, {"why", why}});
  };
  if (json_string(root, "format") != kFormat) return corrupt("format", "it is not \"" + std::string(kFormat) + "\"");
  const std::optional<int64_t> version = json_int(root, "version");
  if (!version) return corrupt("version", "it is no number");
  // Before the sum: how a later version sums is its own affair.
  if (*version != kVersion) return err(Code::kVersionUnknown, {{"file", label}, {"version", *version}, {"known", kVersion}});
  const std::string_view body = text.substr(0, text.size() - std::min(text.size(), kSumBytes));
  const std::string_view sum = text.substr(body.size());
  if (!sum.starts_with(kSumBegin) || sum.substr(kSumBegin.size()) != sum_of(body) + std::string(kSumEnd))
    return err(Code::kHashMismatch, {{"file", label}, {"component", "the index"}});
  return IndexReader(root, label).read();
}

std::string with_index_sum(std::string text) {
  while (!text.empty() && text.back() != '}') text.pop_back();
  if (!text.empty()) text.pop_back();
  const std::string sum = sum_of(text);
  return text.append(kSumBegin).append(sum).append(kSumEnd);
}

std::string folder_index_json(const FolderIndex& index) {
  auto set = [](bool is_refinement) { return is_refinement ? "refine" : "base"; };
  OrderedJson root = {{"format", kFormat}, {"version", kVersion}};
  OrderedJson& shards = root["shards"] = OrderedJson::array();
  for (const ShardEntry& s : index.shards) {
    shards.push_back({{"file", s.name},
                      {"set", set(s.is_refinement)},
                      {"bytes", s.n_bytes},
                      {"head_bytes", s.head_bytes},
                      {"head_sha256", s.head_sha256}});
  }
  OrderedJson& components = root["components"] = OrderedJson::array();
  for (const ComponentEntry& c : index.components) {
    OrderedJson entry = {{"name", c.name}, {"set", set(c.is_refinement)}, {"shard", c.shard}};
    entry["bytes"] = std::vector<uint64_t>{c.begin, c.end};
    entry["sha256"] = c.sha256;
    entry["needs"] = c.needs;
    components.push_back(std::move(entry));
  }
  OrderedJson& matrices = root["matrices"] = OrderedJson::array();
  for (const MatrixEntry& m : index.matrices) {
    OrderedJson entry = {{"name", m.name}, {"format", m.format}};
    if (!m.refine.empty()) entry["refine"] = m.refine;
    entry["shape"] = std::vector<int64_t>{m.n_rows, m.n_columns};
    OrderedJson& rows = entry["rows"] = OrderedJson::array();
    for (const auto& [tensor, n] : m.rows) {
      OrderedJson range = OrderedJson::array();
      range.push_back(tensor);
      range.push_back(n);
      rows.push_back(std::move(range));
    }
    matrices.push_back(std::move(entry));
  }
  root["give_back"] = index.give_back;
  for (const SplitEntry& s : index.split) root["split"].push_back({{"name", s.name}, {"rows", s.n_rows}, {"pieces", s.n_pieces}});
  return with_index_sum(json_text(root));
}

bool is_plain_name(std::string_view name) {
  if (name.empty() || name.starts_with('/') || name.ends_with('/')) return false;
  for (unsigned char c : name) {
    if (c < 0x20 || c == 0x7F || c == '\\' || c == ':' || c == '?' || c == '#' || c == '%') return false;
  }
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('/', start), name.size());
    const std::string_view part = name.substr(start, end - start);
    if (part.empty() || part == "." || part == "..") return false;
    start = end + 1;
  }
  return true;
}

}  // namespace sb
