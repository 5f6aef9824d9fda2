// Between the channels-first buffers of the caller and views, which are channels last.
#include "parts.h"
#include "steps.h"

namespace convoxel {
namespace {

class ImportStep final : public Step {
 public:
  ImportStep(const KernelSet& set, int buffer, View dst)
      : set_(set), buffer_(buffer), dst_(dst), parts_((join_lines({&dst_}), dst_)) {}
  const char* op() const override { return "import"; }

  void run(const RunContext& context) const override {
    const int64_t pixels = dst_.pixels();
    parts_.each(context, [&](const Part& part) {
      const Line& line = part.line;
      const float* src = context.buffers[buffer_] + line.n * dst_.channels * pixels +
                         (line.d * dst_.size[1] + line.h) * dst_.size[2] + part.w_begin;
      set_.transpose(context.at(dst_) + at(dst_, line, part.w_begin), dst_.stride[2], src, pixels, dst_.channels,
                     part.width());
    });
  }

 private:
  const KernelSet& set_;
  int buffer_;
  View dst_;
  Parts parts_;
};

class ExportStep final : public Step {
 public:
  ExportStep(const KernelSet& set, View src, int buffer)
      : set_(set), src_(src), buffer_(buffer), parts_((join_lines({&src_}), src_)) {}
  const char* op() const override { return "export"; }

  void run(const RunContext& context) const override {
    const int64_t pixels = src_.pixels();
    parts_.each(context, [&](const Part& part) {
      const Line& line = part.line;
      float* dst = context.buffers[buffer_] + line.n * src_.channels * pixels +
                   (line.d * src_.size[1] + line.h) * src_.size[2] + part.w_begin;
      set_.transpose(dst, pixels, context.at(src_) + at(src_, line, part.w_begin), src_.stride[2], part.width(),
                     src_.channels);
    });
  }

 private:
  const KernelSet& set_;
  View src_;
  int buffer_;
  Parts parts_;
};

}  // namespace

std::unique_ptr<Step> make_import(const KernelSet& set, int buffer, View dst) {
  return std::make_unique<ImportStep>(set, buffer, dst);
}
std::unique_ptr<Step> make_export(const KernelSet& set, View src, int buffer) {
  return std::make_unique<ExportStep>(set, src, buffer);
}

}  // namespace convoxel
