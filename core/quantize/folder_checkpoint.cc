// What a FolderQuantizer keeps to go on from, and how it does (quantize/checkpoint.h): its choices, sums and what the quantizer holds.
#include "quantize/checkpoint.h"
#include "quantize/folder_quantizer.h"

namespace sb {

uint64_t FolderQuantizer::source_sum() const {
  QuickSum sum;
  for (const auto& tensor : source_.weights->tensors()) {
    sum.add(tensor->name + tensor->shape.text() + dtype_name(tensor->dtype));
    sum.add(tensor->block.bytes());
  }
  for (const auto& [name, contents] : source_.texts) sum.add(name + contents);
  return sum.value();
}

uint64_t FolderQuantizer::options_sum() const {
  const FolderOptions& o = options_;
  QuickSum sum;
  sum.add(json_text(OrderedJson{{"bits", o.bits},
                                {"bpw", o.bpw},
                                {"bytes", o.n_bytes},
                                {"embedding", o.embedding},
                                {"refine", o.refine},
                                {"allocation", o.allocation},
                                {"context", o.context},
                                {"tune", o.tune},
                                {"tune_steps", o.tune_steps},
                                {"tune_rate", o.tune_rate},
                                {"seed", o.seed}}));
  sum.add(std::as_bytes(std::span(tune_ids_)));
  sum.add(std::as_bytes(std::span(ids_)));
  sum.add(std::as_bytes(std::span(prefix_)));
  return sum.value();
}

bool FolderQuantizer::checkpoint() {
  if (done_) return false;
  checkpoint_ = std::make_unique<CheckpointWriter>();
  CheckpointWriter& to = *checkpoint_;
  to.number(source_sum());
  to.number(options_sum());
  to.number(sensitivity_ ? 0 : 1);
  if (sensitivity_) {
    sensitivity_->save(to);
    return true;
  }
  to.number(formats_.by_name.size());
  for (const auto& [name, format] : formats_.by_name) {
    to.text(name);
    to.text(format);
  }
  to.number(losses_.size());
  for (const AllocationGroup& group : losses_) {
    to.text(group.name);
    to.number(group.options.size());
    for (const AllocationOption& option : group.options) {
      to.text(option.format);
      to.number(option.n_bytes);
      to.real(option.loss);
    }
  }
  to.number(refinements_.size());
  for (const RefinementValue& value : refinements_) {
    to.text(value.matrix);
    for (double v : {value.base_error, value.refined_error, value.power}) to.real(v);
    to.number(value.n_bytes);
  }
  to.real(proxy_sum_);
  to.number(uint64_t(n_proxies_));
  const std::vector<std::byte> sums = sums_->state();
  to.text({reinterpret_cast<const char*>(sums.data()), sums.size()});
  to.number(tunes_next_);
  quantizer_->save(to);
  to.number(tuner_ != nullptr);
  if (tuner_) tuner_->save(to);
  return true;
}

Status FolderQuantizer::resume(std::span<const std::byte> checkpoint) {
  CheckpointReader from(checkpoint);
  const uint64_t source = from.number(), options = from.number();
  SB_OK(from.status());
  if (source != source_sum()) return err(Code::kSourceChanged, {{"file", source_.weights->file()}});
  if (options != options_sum()) return err(Code::kCheckpointForeign);
  if (from.number() == 0) {
    if (!sensitivity_) return err(Code::kCheckpointForeign);
    return sensitivity_->restore(from);
  }
  for (size_t n = from.count(); n > 0; --n) {
    const std::string name = from.text();
    formats_.by_name[name] = from.text();
  }
  losses_.clear();
  for (size_t n = from.count(); n > 0; --n) {
    AllocationGroup& group = losses_.emplace_back(AllocationGroup{from.text(), {}});
    for (size_t m = from.count(); m > 0; --m) {
      AllocationOption& option = group.options.emplace_back(AllocationOption{from.text()});
      option.n_bytes = from.number();
      option.loss = from.real();
    }
  }
  for (size_t n = from.count(); n > 0; --n) {
    RefinementValue& value = refinements_.emplace_back(RefinementValue{from.text()});
    for (double* v : {&value.base_error, &value.refined_error, &value.power}) *v = from.real();
    value.n_bytes = from.number();
  }
  SB_OK(from.status());
  if (sensitivity_) {
    sensitivity_.reset();
    SB_OK(start_quantizing());
  }
  proxy_sum_ = from.real();
  n_proxies_ = int64_t(from.number());
  const std::string sums = from.text();
  if (!sums_->restore(std::as_bytes(std::span(sums)))) from.fail();
  tunes_next_ = from.number() != 0;
  SB_OK(quantizer_->restore(from));
  if (options_.tune) tuned_ = quantizer_->alive();
  if (from.number() != 0) {
    SB_OK(start_tuning());
    SB_OK(tuner_->restore(from));
  }
  return from.status();
}

}  // namespace sb
