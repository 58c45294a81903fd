#include "io/safetensors.h"

#include <cstring>

#include "base/json.h"

namespace sb {
namespace {

struct StoredType {
  std::string_view name;
  Dtype dtype;
  bool is_i64;
};
constexpr StoredType kStoredTypes[] = {
    {"F32", Dtype::kF32, false}, {"F16", Dtype::kF16, false}, {"BF16", Dtype::kBF16, false}, {"I32", Dtype::kI32, false},
    {"I64", Dtype::kI32, true},  {"U32", Dtype::kI32, false}, {"U8", Dtype::kU8, false},     {"I8", Dtype::kU8, false},
};

std::unexpected<Error> corrupt(std::string_view file, std::string_view place, std::string_view why) {
  return err(Code::kModelCorrupt, {{"file", file}, {"place", place}, {"why", why}});
}

/// The header as JSON; a tensor name that occurs twice is an error, where a plain parse would keep the last one.
Result<Json> parse_header(std::string_view text, std::string_view file) {
  std::string twice;
  SB_TRY(Json header, json_parse(text, "The header of " + std::string(file), &twice));
  if (!header.is_object()) return corrupt(file, "byte 8", "its header is no JSON object");
  if (!twice.empty()) return corrupt(file, "tensor " + twice, "the name occurs twice");
  return header;
}

Result<TensorPlace> tensor_place(const std::string& name, const Json& entry, uint64_t data, std::string_view file) {
  auto refuse = [&](std::string_view why) { return corrupt(file, "tensor " + name, why); };
  TensorPlace place;
  place.name = name;
  const std::optional<std::string> type = json_string(entry, "dtype");
  if (!type) return refuse("it has no dtype");
  const StoredType* stored = nullptr;
  for (const StoredType& row : kStoredTypes) {
    if (row.name == *type) stored = &row;
  }
  if (!stored) {
    std::string known;
    for (const StoredType& row : kStoredTypes) known.append(known.empty() ? "" : ", ").append(row.name);
    return err(Code::kDtypeUnknown, {{"tensor", name}, {"file", file}, {"dtype", *type}, {"known", known}});
  }
  place.dtype = stored->dtype;
  place.is_i64 = stored->is_i64;

  const Json* shape = json_find(entry, "shape");
  if (!shape || !shape->is_array()) return refuse("it has no shape");
  if (shape->size() > size_t(Shape::kMaxRank)) return refuse(std::to_string(shape->size()) + " dimensions are more than 4");
  for (const Json& d : *shape) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > uint64_t(INT64_MAX)) return refuse("its shape is not made of whole numbers");
    place.shape.push(int64_t(d.get<uint64_t>()));
  }
  const Result<uint64_t> n_bytes = dense_bytes(place.dtype, place.shape);
  if (!n_bytes || *n_bytes > uint64_t(INT64_MAX) / 2) return refuse("its shape is too large");
  place.n_bytes = place.is_i64 ? *n_bytes * 2 : *n_bytes;

  const Json* offsets = json_find(entry, "data_offsets");
  if (!offsets || !offsets->is_array() || offsets->size() != 2) return refuse("it has no data_offsets");
  uint64_t bounds[2];
  for (size_t i = 0; i < 2; ++i) {
    if (!(*offsets)[i].is_number_unsigned()) return refuse("its data_offsets are not whole numbers");
    bounds[i] = (*offsets)[i].get<uint64_t>();
    if (bounds[i] > uint64_t(INT64_MAX) - data) return refuse("its data_offsets are beyond any file");
  }
  if (bounds[0] > bounds[1]) return refuse("its data_offsets run backwards");
  if (bounds[1] - bounds[0] != place.n_bytes) {
    return refuse("shape " + place.shape.text() + " needs " + std::to_string(place.n_bytes) + " bytes, but its data_offsets span " +
                  std::to_string(bounds[1] - bounds[0]));
  }
  place.offset = data + bounds[0];
  return place;
}

}  // namespace

Result<uint64_t> safetensors_head_bytes(std::span<const std::byte> first, uint64_t file_size, std::string_view file) {
  auto not_a_model = [&](std::string_view why) { return err(Code::kNotAModel, {{"file", file}, {"why", why}}); };
  if (file_size == 0) return not_a_model("it is empty");
  if (file_size < 8 || first.size() < 8) return err(Code::kModelTruncated, {{"file", file}, {"size", file_size}, {"needed", 8}});
  uint64_t n = 0;
  std::memcpy(&n, first.data(), sizeof n);
  if (n < 2 || n > kLongestSafetensorsHeader) {
    const std::string_view why = foreign_file({reinterpret_cast<const char*>(first.data()), first.size()});
    return not_a_model(why.empty() ? "it does not begin with the length of a safetensors header" : why);
  }
  if (8 + n > file_size) return err(Code::kModelTruncated, {{"file", file}, {"size", file_size}, {"needed", 8 + n}});
  return 8 + n;
}

Result<std::vector<TensorPlace>> safetensors_parse_head(std::span<const std::byte> head, uint64_t file_size, std::string_view file) {
  SB_TRY(const uint64_t data, safetensors_head_bytes(head, file_size, file));
  SB_ASSERT(head.size() >= data);
  SB_TRY(const Json header, parse_header({reinterpret_cast<const char*>(head.data()) + 8, size_t(data - 8)}, file));
  std::vector<TensorPlace> places;
  for (auto entry = header.begin(); entry != header.end(); ++entry) {
    if (entry.key() == "__metadata__") continue;
    SB_TRY(TensorPlace place, tensor_place(entry.key(), entry.value(), data, file));
    places.push_back(std::move(place));
  }
  SB_OK(settle_tensor_places(places, file_size, file));
  return places;
}

Result<WeightStore> safetensors_read(std::span<const std::byte> bytes, std::string_view file) {
  SB_TRY(const uint64_t n_head, safetensors_head_bytes(bytes.first(std::min<size_t>(bytes.size(), 8)), bytes.size(), file));
  SB_TRY(const std::vector<TensorPlace> places, safetensors_parse_head(bytes.first(size_t(n_head)), bytes.size(), file));
  WeightStore store{std::string(file), Container::kFolder};
  for (const TensorPlace& place : places) {
    const std::span<const std::byte> from = place.n_bytes ? bytes.subspan(size_t(place.offset), size_t(place.n_bytes)) : bytes.first(0);
    SB_TRY(Block block, stored_block(place, from, file));
    SB_OK(store.add({place.name, std::string(file), place.dtype, place.shape, std::move(block)}));
  }
  return store;
}

std::string safetensors_head(std::span<const SafetensorsPlan> tensors) {
  OrderedJson header = OrderedJson::object();
  uint64_t offset = 0;
  for (const SafetensorsPlan& tensor : tensors) {
    OrderedJson shape = OrderedJson::array();
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.shape[i]);
    header[std::string(tensor.name)] = {{"dtype", tensor.type}, {"shape", shape}, {"data_offsets", {offset, offset + tensor.n_bytes}}};
    offset += tensor.n_bytes;
  }
  std::string text = json_text(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t n_header = text.size();
  return std::string(reinterpret_cast<const char*>(&n_header), sizeof n_header) + text;
}

std::vector<std::byte> write_safetensors(std::span<const SafetensorsEntry> entries) {
  std::vector<SafetensorsPlan> plans;
  uint64_t n_data = 0;
  for (const SafetensorsEntry& entry : entries) {
    SB_ASSERT(dense_bytes(entry.dtype, entry.shape).value_or(UINT64_MAX) == entry.bytes.size());
    plans.push_back({entry.name, dtype_name(entry.dtype), entry.shape, entry.bytes.size()});
    n_data += entry.bytes.size();
  }
  const std::string head = safetensors_head(plans);
  std::vector<std::byte> out(head.size() + n_data);
  std::memcpy(out.data(), head.data(), head.size());
  std::byte* to = out.data() + head.size();
  for (const SafetensorsEntry& entry : entries) {
    if (!entry.bytes.empty()) std::memcpy(to, entry.bytes.data(), entry.bytes.size());
    to += entry.bytes.size();
  }
  return out;
}

}  // namespace sb
