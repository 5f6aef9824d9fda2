// Steps whose outputs depend on the inputs at the same place.
#include "parts.h"
#include "steps.h"

namespace convoxel {
namespace {

// The view with its axes of size 1 repeated to the size of `wide`: their strides become 0.
View broadcast(View v, const View& wide) {
  if (v.batch == 1) v.batch_stride = 0;
  v.batch = wide.batch;
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (v.size[i] == 1) v.stride[i] = 0;
  }
  v.size = wide.size;
  return v;
}

class CombineStep final : public Step {
 public:
  CombineStep(const KernelSet& set, Combine op, View a, View b, View dst, Activation activation)
      : set_(set),
        op_(op),
        a_(broadcast(a, dst)),
        b_(broadcast(b, dst)),
        dst_(dst),
        activation_(activation),
        parts_((join_lines({&a_, &b_, &dst_}), dst_)) {
    rows_.a_single = a.channels < dst.channels;
    rows_.b_single = b.channels < dst.channels;
    rows_.a_step = a_.stride[2];
    rows_.b_step = b_.stride[2];
    rows_.dst_step = dst_.stride[2];
    const int64_t c = dst.channels;
    dense_ = a_.stride[2] == c && b_.stride[2] == c && dst_.stride[2] == c && a.channels == c && b.channels == c;
  }

  const char* op() const override { return kCombineNames[static_cast<int>(op_)]; }

  void run(const RunContext& context) const override {
    parts_.each(context, [&](const Part& part) {
      CombineRows rows = rows_;
      rows.dst = context.at(dst_) + at(dst_, part.line, part.w_begin);
      rows.a = context.at(a_) + at(a_, part.line, part.w_begin);
      rows.b = context.at(b_) + at(b_, part.line, part.w_begin);
      rows.rows = dense_ ? 1 : part.width();
      rows.channels = dense_ ? part.width() * dst_.channels : dst_.channels;
      set_.combine(rows, op_, activation_);
    });
  }

 private:
  const KernelSet& set_;
  Combine op_;
  View a_, b_, dst_;
  Activation activation_;
  Parts parts_;
  CombineRows rows_;
  bool dense_;
};

// a where a >= 0, a * slope elsewhere, one slope per channel.
class PreluStep final : public Step {
 public:
  PreluStep(const KernelSet& set, View src, View dst, std::vector<float> slope)
      : set_(set), src_(src), dst_(dst), slope_(std::move(slope)), parts_((join_lines({&src_, &dst_}), dst_)) {}

  const char* op() const override { return "prelu"; }

  void run(const RunContext& context) const override {
    parts_.each(context, [&](const Part& part) {
      CombineRows rows;
      rows.dst = context.at(dst_) + at(dst_, part.line, part.w_begin);
      rows.a = context.at(src_) + at(src_, part.line, part.w_begin);
      rows.b = slope_.data();
      rows.dst_step = dst_.stride[2];
      rows.a_step = src_.stride[2];
      rows.rows = part.width();
      rows.channels = dst_.channels;
      set_.combine(rows, Combine::kPrelu, {});
    });
  }

 private:
  const KernelSet& set_;
  View src_, dst_;
  std::vector<float> slope_;
  Parts parts_;
};

class AffineStep final : public Step {
 public:
  AffineStep(const KernelSet& set, View src, View dst, std::vector<float> scale, std::vector<float> shift,
             Activation activation)
      : set_(set),
        src_(src),
        dst_(dst),
        scale_(std::move(scale)),
        shift_(std::move(shift)),
        activation_(activation),
        parts_((join_lines({&src_, &dst_}), dst_)) {}

  const char* op() const override { return "affine"; }

  void run(const RunContext& context) const override {
    parts_.each(context, [&](const Part& part) {
      set_.affine(context.at(dst_) + at(dst_, part.line, part.w_begin), dst_.stride[2],
                  context.at(src_) + at(src_, part.line, part.w_begin), src_.stride[2], scale_.data(), shift_.data(),
                  part.width(), dst_.channels, activation_);
    });
  }

 private:
  const KernelSet& set_;
  View src_, dst_;
  std::vector<float> scale_, shift_;
  Activation activation_;
  Parts parts_;
};

}  // namespace

std::unique_ptr<Step> make_combine(const KernelSet& set, Combine op, View a, View b, View dst, Activation activation) {
  return std::make_unique<CombineStep>(set, op, a, b, dst, activation);
}
std::unique_ptr<Step> make_prelu(const KernelSet& set, View src, View dst, std::vector<float> slope) {
  return std::make_unique<PreluStep>(set, src, dst, std::move(slope));
}
std::unique_ptr<Step> make_affine(const KernelSet& set, View src, View dst, std::vector<float> scale,
                                  std::vector<float> shift, Activation activation) {
  return std::make_unique<AffineStep>(set, src, dst, std::move(scale), std::move(shift), activation);
}

}  // namespace convoxel
