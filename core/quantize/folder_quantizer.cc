#include "quantize/folder_quantizer.h"

#include <algorithm>
#include <cstring>

#include "formats/decode.h"
#include "io/split_tensors.h"

namespace sb {
namespace {

constexpr uint64_t kHeadBytes = 1024;            // of a shard with one tensor, at most
constexpr size_t kWriteBytes = size_t(4) << 20;  // of one write of tensors that are copied

/// Formats that a mixed allocation chooses from.
const char* const kLayerChoices[] = {"coded2", "coded3", "coded4"};
const char* const kEmbeddingChoices[] = {"coded3", "coded4", "rows8"};

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& v) {
  return std::as_bytes(std::span(v));
}

/// Taps as the file has them: f32 [J, P].
std::vector<float> filter_of(const PlaneCode& code) {
  std::vector<float> out;
  for (int q = 0; q < code.n_taps; ++q)
    out.insert(out.end(), code.filter[size_t(q)].begin(), code.filter[size_t(q)].begin() + code.n_planes);
  return out;
}

/// Kept tensors: vectors in float32, matrices in float16.
const char* kept_type(const TensorView& view) { return view.shape.rank() < 2 ? "F32" : "F16"; }

uint64_t kept_bytes(const TensorView& view) { return uint64_t(view.shape.elements()) * (view.shape.rank() < 2 ? 4 : 2); }

/// A group as one matrix of planes.
MatrixEntry matrix_of(const GroupPlan& group, const std::string& format, const std::string& refine) {
  MatrixEntry entry{group.name, format, refine, group.rows(), group.n_columns, {}};
  for (size_t i = 0; i < group.tensors.size(); ++i) entry.rows.emplace_back(group.tensors[i], group.n_rows[i]);
  return entry;
}

}  // namespace

uint64_t group_bytes(const GroupPlan& group, const std::string& format) {
  const int64_t n = group.rows(), k = group.n_columns;
  if (format == "source") return uint64_t(n * k) * 2;
  if (format == kRows8) return uint64_t(n) * uint64_t(dtype_bytes(Dtype::kQ8_0, k));
  const PlaneCode& code = plane_format(format)->code;
  return plane_set_bytes(code.n_planes, n, k) + (plane_hadamard(k) ? uint64_t(plane_columns(k)) / 8 : 0) +
         uint64_t(code.n_taps * code.n_planes) * 4;
}

FolderQuantizer::FolderQuantizer(FolderSource source, Device& device, FolderOptions options)
    : source_(std::move(source)), device_(device), options_(std::move(options)) {
  if (options_.scratch) aside_.emplace(*options_.scratch);
}

Result<std::unique_ptr<FolderQuantizer>> FolderQuantizer::create(FolderSource source, Device& device, std::span<const int32_t> ids,
                                                                 std::span<const int32_t> prefix, FolderOptions options) {
  std::unique_ptr<FolderQuantizer> q(new FolderQuantizer(std::move(source), device, std::move(options)));
  if (q->options_.tune) q->tune_ids_.assign(ids.begin(), ids.end());
  if (const int64_t needed = 2 * (q->options_.context - int64_t(prefix.size())); q->options_.tune && int64_t(ids.size()) < needed) {
    return err(Code::kTextTooShort, {{"n_tokens", ids.size()}, {"needed", needed}});  // said before the quantiser's minutes, not after
  }
  if (q->options_.tune && q->options_.refine) {
    return err(
        Code::kOptionInvalid,
        {{"option", "tune"}, {"value", "on"}, {"expected", "off with refine: tuned for one set of planes, a base would be off with two"}});
  }
  if (q->options_.most_tokens > 0) ids = ids.first(std::min(ids.size(), size_t(q->options_.most_tokens)));
  q->ids_.assign(ids.begin(), ids.end());
  q->prefix_.assign(prefix.begin(), prefix.end());
  SB_TRY(q->plan_, plan_matrices(*q->source_.graph));
  for (const GroupPlan& group : q->plan_.groups) {
    const bool is_embedding = group.is_embedding || group.is_head;
    (is_embedding ? q->n_embedding_ : q->n_linear_) += group.n_weights();
    q->n_parameters_ += group.n_weights();
  }
  for (const KeptTensor& kept : q->plan_.kept) q->n_parameters_ += kept.view.shape.elements();
  SB_OK(q->choose_formats());
  return q;
}

Status FolderQuantizer::choose_formats() {
  const FolderOptions& o = options_;
  imports_ = find_imports(plan_);
  formats_.embedding = o.embedding.empty() ? "coded4" : o.embedding;
  if (o.refine) {
    // Base and refinement are of one format: the code of 2 bits, or planes by their name.
    formats_.refine = o.bits == "2" ? "coded2" : o.bits;
    if (!plane_format(formats_.refine)) {
      return err(Code::kOptionInvalid,
                 {{"option", "bits"}, {"value", o.bits}, {"expected", "2 or the name of planes (plain2) with refine"}});
    }
    if (!o.allocation.empty()) {
      return err(Code::kOptionInvalid, {{"option", "refine"}, {"value", "on"}, {"expected", "off with an allocation"}});
    }
  }
  if (!o.allocation.empty()) {
    SB_TRY(const Json chosen, json_parse(o.allocation, "allocation"));
    const Json* formats = json_find(chosen, "formats");
    for (const auto& entry : (formats ? *formats : chosen).items()) {
      const bool known = std::any_of(plan_.groups.begin(), plan_.groups.end(), [&](const GroupPlan& g) { return g.name == entry.key(); });
      if (!known || !entry.value().is_string()) {
        return err(Code::kOptionInvalid,
                   {{"option", "allocation"}, {"value", entry.key()}, {"expected", "groups of this model and the names of formats"}});
      }
      formats_.by_name[entry.key()] = entry.value().get<std::string>();
      // Asked for by name, a group that fits its levels becomes something else.
      if (formats_.by_name[entry.key()] != kImportFormat) imports_.erase(entry.key());
    }
    return start_quantizing();
  }
  if (o.bits != "mixed") {
    // A number of bits is coded; any other name is a format.
    formats_.linears = o.bits.size() == 1 ? "coded" + o.bits : o.bits;
    return start_quantizing();
  }
  // Before anything is measured: can the budget be met at all?
  uint64_t least = kept_total();
  for (const GroupPlan& group : plan_.groups) least += bytes_as(group, choices_of(group).front());
  if (budget() < least) return below(least);
  QuantizerOptions q;
  q.context = o.context;
  q.seed = o.seed;
  q.n_threads = o.n_threads;
  q.aside = aside_ ? &*aside_ : nullptr;
  for (const auto& [name, imported] : imports_) q.formats.by_name[name] = "source";
  q.pace = &pace_;
  SB_TRY(sensitivity_, Sensitivity::create(*source_.graph, device_, ids_, prefix_, q));
  // And what comes after it, in formats that are not known yet.
  Quantizer::expect(plan_, q, windows_of(ids_, o.context, prefix_).size(), pace_);
  return {};
}

uint64_t FolderQuantizer::budget() const {
  return options_.n_bytes ? options_.n_bytes : uint64_t(options_.bpw * double(n_parameters_) / 8);
}

uint64_t FolderQuantizer::kept_total() const {
  uint64_t total = 0;
  for (const KeptTensor& kept : plan_.kept) total += kept_bytes(kept.view);
  return total;
}

std::vector<std::string> FolderQuantizer::choices_of(const GroupPlan& group) const {
  if (imports_.contains(group.name)) return {kImportFormat};
  if (!group.is_embedding && !group.is_head) return {std::begin(kLayerChoices), std::end(kLayerChoices)};
  if (!options_.embedding.empty()) return {options_.embedding};
  std::vector<std::string> choices(std::begin(kEmbeddingChoices), std::end(kEmbeddingChoices));
  if (group.n_columns % 32) std::erase(choices, kRows8);
  return choices;
}

Status FolderQuantizer::below(uint64_t minimum) const {
  return err(Code::kBudgetTooSmall,
             {{"budget", budget()}, {"minimum", minimum}, {"bpw", std::to_string(8.0 * double(minimum) / double(n_parameters_))}});
}

Status FolderQuantizer::allocate_formats() {
  for (const GroupPlan& group : plan_.groups) {
    AllocationGroup& choices = losses_.emplace_back(AllocationGroup{group.name, {}});
    for (const std::string& format : choices_of(group)) {
      choices.options.push_back({format, bytes_as(group, format), sensitivity_->loss(group.name, format)});
    }
  }
  uint64_t minimum = 0;
  const uint64_t fixed = kept_total();
  const std::vector<size_t> choice = allocate(losses_, budget() - std::min(budget(), fixed), &minimum);
  if (choice.empty()) return below(minimum + fixed);
  for (size_t g = 0; g < losses_.size(); ++g) formats_.by_name[losses_[g].name] = losses_[g].options[choice[g]].format;
  return {};
}

Status FolderQuantizer::start_quantizing() {
  for (const auto& [name, imported] : imports_) formats_.by_name[name] = "source";
  QuantizerOptions q;
  q.formats = formats_;
  q.context = options_.context;
  q.seed = options_.seed;
  q.n_threads = options_.n_threads;
  q.aside = aside_ ? &*aside_ : nullptr;
  q.pace = &pace_;
  pace_.drop_rest();
  q.keeps_finished = options_.tune;
  SB_TRY(quantizer_, Quantizer::create(*source_.graph, device_, ids_, prefix_, q));
  return lay_out();
}

uint64_t FolderQuantizer::bytes_as(const GroupPlan& group, const std::string& format) const {
  const auto imported = imports_.find(group.name);
  return imported == imports_.end() ? group_bytes(group, format) : import_bytes(group, imported->second);
}

Status FolderQuantizer::add_tensor(const std::string& name, const char* type, Shape shape, const std::string& component,
                                   bool is_refinement) {
  const FolderTensor tensor{name, type, shape, component, is_refinement};
  SB_TRY(const uint64_t n_bytes, stored_bytes(tensor));
  if (n_bytes + kHeadBytes <= options_.shard_bytes || shape.rank() < 2 || shape[0] < 2) {
    tensor_numbers_[name] = tensors_.size();
    tensors_.push_back(tensor);
    return {};
  }
  const int64_t n_rows = shape[0], most = std::max(int64_t(1), int64_t(options_.shard_bytes / 4 / (n_bytes / uint64_t(n_rows))));
  const int64_t n_pieces = (n_rows + most - 1) / most;
  for (int64_t i = 0; i < n_pieces; ++i) {
    Shape rows = shape;
    rows[0] = n_rows * (i + 1) / n_pieces - n_rows * i / n_pieces;
    SB_OK(add_tensor(piece_name(name, i), type, rows, component, is_refinement));
  }
  split_.push_back({name, n_rows, n_pieces});
  return {};
}

Status FolderQuantizer::lay_out_import(const GroupPlan& group, const ImportedGroup& imported, const std::string& component) {
  const int64_t n = plane_rows(group.rows()), k = plane_columns(group.n_columns);
  SB_OK(add_tensor(group.name + ".planes", "U32", {n, 2, k / 32}, component));
  SB_OK(add_tensor(group.name + ".sv", imported.has_half_scales ? "F16" : "F32", {n}, component));
  SB_OK(add_tensor(group.name + ".filter", "F32", {1, 2}, component));
  matrices_.push_back(matrix_of(group, kImportFormat, ""));
  return {};
}

void FolderQuantizer::write_import(const GroupPlan& group, const ImportedGroup& imported) {
  const ImportedArrays arrays = import_arrays(group, imported);
  write_tensor(group.name + ".planes", bytes_of(arrays.words));
  write_tensor(group.name + ".sv", bytes_of(arrays.row_scale));
  write_tensor(group.name + ".filter", bytes_of(filter_of(levels_code(imported.levels))));
}

Status FolderQuantizer::lay_out() {
  auto add_set = [&](const std::string& name, const PlaneCode& code, int64_t n, int64_t k, const std::string& component,
                     bool is_refinement) -> Status {
    SB_OK(add_tensor(name + ".planes", "U32", {n, code.n_planes, k / 32}, component, is_refinement));
    SB_OK(add_tensor(name + ".sv", "F16", {n}, component, is_refinement));
    SB_OK(add_tensor(name + ".c", "F16", {k}, component, is_refinement));
    SB_OK(add_tensor(name + ".filter", "F32", {code.n_taps, code.n_planes}, component, is_refinement));
    return {};
  };
  for (int64_t layer = -1; layer <= plan_.n_layers; ++layer) {
    const std::string component = component_of(layer, plan_.n_layers);
    // In the order of their writes: what the quantizer finishes, then what it leaves alone.
    std::vector<const GroupPlan*> groups;
    for (const bool is_left : {false, true}) {
      for (const GroupPlan& group : plan_.groups) {
        if (group.layer == layer && (formats_.of(group) == "source") == is_left) groups.push_back(&group);
      }
    }
    for (const GroupPlan* each : groups) {
      const GroupPlan& group = *each;
      const std::string& format = formats_.of(group);
      const bool is_embedding = group.is_embedding || group.is_head;
      const auto imported = imports_.find(group.name);
      uint64_t bytes = bytes_as(group, format);
      if (imported != imports_.end()) {
        SB_OK(lay_out_import(group, imported->second, component));
      } else if (format == "source") {
        for (size_t i = 0; i < group.tensors.size(); ++i)
          SB_OK(add_tensor(group.tensors[i], "F16", {group.n_rows[i], group.n_columns}, component));
      } else if (format == kRows8) {
        // Rows of blocks share nothing: each tensor is a matrix of its own.
        for (size_t i = 0; i < group.tensors.size(); ++i) {
          const std::string& tensor = group.tensors[i];
          SB_OK(add_tensor(tensor + ".rows8", "U8", {group.n_rows[i], dtype_bytes(Dtype::kQ8_0, group.n_columns)}, component));
          matrices_.push_back({tensor, format, "", group.n_rows[i], group.n_columns, {{tensor, group.n_rows[i]}}});
        }
      } else {
        const int64_t n = plane_rows(group.rows()), k = plane_columns(group.n_columns);
        const std::string refine = is_embedding ? "" : formats_.refine;
        SB_OK(add_set(group.name, plane_format(format)->code, n, k, component, false));
        if (plane_hadamard(group.n_columns)) SB_OK(add_tensor(group.name + ".su", "U32", {k / 32}, component));
        if (!refine.empty()) {
          SB_OK(add_set(group.name + ".refine", plane_format(refine)->code, n, k, component, true));
          const PlaneCode& code = plane_format(refine)->code;
          bytes += plane_set_bytes(code.n_planes, group.rows(), group.n_columns) + uint64_t(code.n_taps * code.n_planes) * 4;
        }
        matrices_.push_back(matrix_of(group, format, refine));
      }
      weight_bytes_ += bytes;
      (is_embedding ? embedding_bytes_ : linear_bytes_) += bytes;
    }
    for (const KeptTensor& kept : plan_.kept) {
      if (kept.layer != layer) continue;
      SB_OK(add_tensor(kept.name, kept_type(kept.view), kept.view.shape, component));
      weight_bytes_ += kept_bytes(kept.view);
    }
    // Llama 3's rope divisors: read by the family when it opens, part of no plan.
    if (layer < 0) {
      if (const WeightTensor* divisors = source_.weights->find("rope_freqs.weight"))
        SB_OK(add_tensor(divisors->name, "F32", divisors->shape, component));
    }
  }
  SB_TRY(FolderLayout layout, FolderLayout::plan(std::move(tensors_), options_.shard_bytes));
  layout_ = std::make_unique<FolderLayout>(std::move(layout));
  sums_ = std::make_unique<FolderSums>(*layout_);
  for (const FolderLayout::Shard& shard : layout_->shards()) {
    const auto head = std::as_bytes(std::span(shard.head));
    writes_.push_back({shard.name, 0, {head.begin(), head.end()}});
  }
  return {};
}

void FolderQuantizer::write_tensor(const std::string& name, std::span<const std::byte> bytes) {
  if (const auto whole = tensor_numbers_.find(name); whole != tensor_numbers_.end()) return write_piece(whole->second, bytes);
  const auto split = std::ranges::find(split_, name, &SplitEntry::name);
  for (int64_t i = 0; i < split->n_pieces; ++i) {
    const size_t number = tensor_numbers_.at(piece_name(name, i)), n = size_t(layout_->place(number).n_bytes);
    write_piece(number, bytes.first(n));
    bytes = bytes.subspan(n);
  }
  SB_ASSERT(bytes.empty());
}

void FolderQuantizer::write_piece(size_t number, std::span<const std::byte> bytes) {
  const FolderLayout::Place& place = layout_->place(number);
  SB_ASSERT(bytes.size() == place.n_bytes);
  sums_->add(number, bytes);
  for (size_t at = 0; at < bytes.size(); at += kWriteBytes) {
    const auto part = bytes.subspan(at, std::min(kWriteBytes, bytes.size() - at));
    writes_.push_back({layout_->shards()[place.shard].name, place.offset + at, {part.begin(), part.end()}});
  }
}

Status FolderQuantizer::write_group(const FinishedGroup& group) {
  auto write_set = [&](const std::string& name, const EncodedSet& set) {
    write_tensor(name + ".planes", bytes_of(set.words));
    write_tensor(name + ".sv", bytes_of(set.row_scale));
    write_tensor(name + ".c", bytes_of(set.column_scale));
    write_tensor(name + ".filter", bytes_of(filter_of(set.code)));
  };
  if (group.format == kRows8) {
    const auto plan = std::ranges::find(plan_.groups, group.name, &GroupPlan::name);
    std::span<const std::byte> rows = group.rows8;
    for (size_t i = 0; i < plan->tensors.size(); ++i) {
      const size_t n_bytes = size_t(plan->n_rows[i] * dtype_bytes(Dtype::kQ8_0, plan->n_columns));
      write_tensor(plan->tensors[i] + ".rows8", rows.first(n_bytes));
      rows = rows.subspan(n_bytes);
    }
    return {};
  }
  write_set(group.name, group.base);
  if (!group.signs.empty()) write_tensor(group.name + ".su", bytes_of(group.signs));
  if (!group.refine.empty()) {
    write_set(group.name + ".refine", group.refinement);
    refinements_.push_back({group.name, group.base.error, group.refinement.error, group.base.power, group.refinement.n_bytes()});
  }
  proxy_sum_ += group.base.power > 0 ? group.base.error / group.base.power : 0;
  ++n_proxies_;
  return {};
}

Status FolderQuantizer::write_kept(int64_t layer) {
  auto write_floats = [&](const std::string& name, const TensorView& view, bool half) {
    std::vector<std::byte> bytes;
    const int64_t rows = view.shape.rank() < 2 ? 1 : view.shape.rows(), columns = view.shape[-1];
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      decode_row(view, r, row.data(), columns);
      const size_t at = bytes.size();
      bytes.resize(at + size_t(columns) * (half ? 2 : 4));
      for (int64_t i = 0; i < columns; ++i) {
        if (half) {
          const uint16_t h = float_to_half(row[size_t(i)]);
          std::memcpy(bytes.data() + at + size_t(i) * 2, &h, 2);
        } else {
          std::memcpy(bytes.data() + at + size_t(i) * 4, &row[size_t(i)], 4);
        }
      }
    }
    write_tensor(name, bytes);
  };
  auto tuned = [&](const KeptTensor& kept) -> const std::vector<float>* {
    if (!tuner_) return nullptr;
    auto found = tuner_->vectors().find(kept.name);
    return found == tuner_->vectors().end() ? nullptr : &found->second.value;
  };
  for (const GroupPlan& group : plan_.groups) {
    if (group.layer != layer || formats_.of(group) != "source") continue;
    if (const auto imported = imports_.find(group.name); imported != imports_.end()) {
      write_import(group, imported->second);
      continue;
    }
    for (size_t i = 0; i < group.tensors.size(); ++i) write_floats(group.tensors[i], group.views[i], true);
  }
  for (const KeptTensor& kept : plan_.kept) {
    if (kept.layer != layer) continue;
    if (const std::vector<float>* vector = tuned(kept)) {
      write_tensor(kept.name, bytes_of(*vector));
    } else {
      write_floats(kept.name, kept.view, kept.view.shape.rank() >= 2);
    }
  }
  if (layer < 0) {
    if (const WeightTensor* divisors = source_.weights->find("rope_freqs.weight")) write_floats(divisors->name, divisors->view(), false);
  }
  return {};
}

Status FolderQuantizer::write_finished() {
  for (std::shared_ptr<FinishedGroup>& group : quantizer_->take_finished()) {
    SB_OK(write_group(*group));
    if (options_.tune) tuned_.push_back(std::move(group));
  }
  return {};
}

Status FolderQuantizer::start_tuning() {
  SB_TRY(tuner_, Tuner::create(*source_.graph, device_, plan_, tuned_, quantizer_->substitutes(), tune_ids_, prefix_,
                               {.context = options_.context,
                                .n_steps = options_.tune_steps,
                                .rate = options_.tune_rate,
                                .n_calibrated = int64_t(ids_.size()),
                                .seed = options_.seed,
                                .n_threads = options_.n_threads}));
  return {};
}

/// Everything once more, in the folder's order, with the scales that came out: a component's sum needs all of its bytes.
Status FolderQuantizer::write_tuned() {
  sums_ = std::make_unique<FolderSums>(*layout_);
  proxy_sum_ = 0;
  n_proxies_ = 0;
  for (int64_t layer = -1; layer <= plan_.n_layers; ++layer) {
    for (const GroupPlan& group : plan_.groups) {
      for (const std::shared_ptr<FinishedGroup>& made : tuned_) {
        if (group.layer == layer && made->name == group.name) SB_OK(write_group(*made));
      }
    }
    SB_OK(write_kept(layer));
  }
  return {};
}

Result<bool> FolderQuantizer::step() {
  if (done_) return false;
  SB_ASSERT(!checkpoint_);  // it sees what this changes
  if (sensitivity_) {
    SB_TRY(const bool more, sensitivity_->step());
    if (more) return true;
    SB_OK(allocate_formats());
    sensitivity_.reset();
    SB_OK(start_quantizing());
    return true;
  }
  if (tunes_next_ && !tuner_) {
    SB_OK(start_tuning());
    return true;
  }
  if (tuner_) {
    SB_TRY(const bool more, tuner_->step());
    if (more) return true;
    SB_OK(write_tuned());
    SB_OK(close());
    return false;
  }
  SB_TRY(const bool more, quantizer_->step());
  SB_OK(write_finished());
  // The layer whose groups are out; a tied embedding comes with the head, so the first component is closed last.
  if (quantizer_->begins_layer() && quantizer_->layer() > 0 && quantizer_->layer() <= plan_.n_layers)
    SB_OK(write_kept(quantizer_->layer() - 1));
  if (more) return true;
  SB_OK(write_kept(-1));
  SB_OK(write_kept(plan_.n_layers));
  if (options_.tune) {
    tunes_next_ = true;
    return true;
  }
  SB_OK(close());
  return false;
}

Status FolderQuantizer::close() {
  SB_ASSERT(sums_->is_complete());
  FolderIndex index = sums_->index();
  index.matrices = matrices_;
  index.give_back = give_back_order(refinements_);
  index.split = split_;
  const std::string text = folder_index_json(index);
  auto write_text = [&](const std::string& file, const std::string& contents) {
    const auto bytes = std::as_bytes(std::span(contents));
    writes_.push_back({file, 0, {bytes.begin(), bytes.end()}});
  };
  for (const auto& [name, contents] : source_.texts) write_text(name, contents);
  write_text(kFolderIndexFile, text);
  done_ = true;
  return {};
}

bool FolderQuantizer::next_write(FolderWrite& out) {
  if (writes_.empty()) {
    if (!checkpoint_) return false;
    out.file = kCheckpointFile;
    out.offset = checkpoint_->offset();
    out.bytes = checkpoint_->next(kWriteBytes);
    if (!out.bytes.empty()) return true;
    checkpoint_.reset();
    return false;
  }
  out = std::move(writes_.front());
  writes_.pop_front();
  return true;
}

std::string FolderQuantizer::progress_json() const {
  OrderedJson j;
  j["phase"] = done_ ? "done" : sensitivity_ ? "sensitivity" : tunes_next_ ? "tune" : "quantize";
  j["fraction"] = done_ ? 1.0 : tuner_ ? tuner_->progress() : tunes_next_ ? 0.0 : pace_.fraction();
  if (!done_ && !tunes_next_ && pace_.ms_left() >= 0) j["seconds_left"] = pace_.ms_left() / 1000;
  return json_text(j);
}

std::string FolderQuantizer::report_json() const {
  OrderedJson j;
  j["n_parameters"] = n_parameters_;
  j["weight_bytes"] = weight_bytes_;
  j["bpw"] = 8.0 * double(weight_bytes_) / double(std::max<int64_t>(1, n_parameters_));
  j["bpw_linears"] = 8.0 * double(linear_bytes_) / double(std::max<int64_t>(1, n_linear_));
  j["bpw_embedding"] = 8.0 * double(embedding_bytes_) / double(std::max<int64_t>(1, n_embedding_));
  j["mean_proxy"] = n_proxies_ ? proxy_sum_ / double(n_proxies_) : 0.0;
  j["calibration_tokens"] = ids_.size();
  OrderedJson& formats = j["formats"] = OrderedJson::object();
  for (const GroupPlan& group : plan_.groups) {
    formats[group.name] = imports_.contains(group.name) ? kImportFormat : formats_.of(group);
    if (imports_.contains(group.name)) continue;
    if (!formats_.refine.empty() && !group.is_embedding && !group.is_head) formats[group.name] = formats_.of(group) + "+" + formats_.refine;
  }
  if (tuner_) {
    const TuneReport& r = tuner_->report();
    j["tuning"] = {{"steps", r.n_steps},
                   {"kl_before", r.kl_before},
                   {"kl_after", r.kl_after},
                   {"tokens", r.n_tokens},
                   {"held_out_tokens", r.n_held_out}};
    for (const auto& [steps, kl] : r.measured) j["tuning"]["measured"].push_back({{"steps", steps}, {"kl", kl}});
  }
  for (const auto& [name, imported] : imports_) j["imported"][name] = levels_name(imported.levels);
  if (!losses_.empty()) {
    OrderedJson& sensitivity = j["sensitivity"] = OrderedJson::object();
    for (const AllocationGroup& group : losses_) {
      for (const AllocationOption& option : group.options) sensitivity[group.name][option.format] = option.loss;
    }
  }
  return json_text(j);
}

}  // namespace sb
