// Steps that compute among the channels of each pixel.
#include "parts.h"
#include "steps.h"

namespace convoxel {
namespace {

// run(step, dst, dst_step, src, src_step, rows, worker's scratch memory) for each part.
template <class Kernel>
class ChannelwiseStep final : public Step {
 public:
  ChannelwiseStep(const char* op, View src, View dst, int64_t scratch_floats, Kernel kernel)
      : op_(op),
        src_(src),
        dst_(dst),
        scratch_bytes_(scratch_floats * static_cast<int64_t>(sizeof(float))),
        kernel_(std::move(kernel)),
        parts_((join_lines({&src_, &dst_}), dst_)) {}

  const char* op() const override { return op_; }
  int64_t workspace_bytes() const override { return scratch_bytes_; }

  void run(const RunContext& context) const override {
    parts_.each(context, [&](const Part& part) {
      kernel_(context.at(dst_) + at(dst_, part.line, part.w_begin), dst_.stride[2],
              context.at(src_) + at(src_, part.line, part.w_begin), src_.stride[2], part.width(),
              static_cast<float*>(context.worker_space(part.worker)));
    });
  }

 private:
  const char* op_;
  View src_, dst_;
  int64_t scratch_bytes_;
  Kernel kernel_;
  Parts parts_;
};

template <class Kernel>
std::unique_ptr<Step> channelwise(const char* op, View src, View dst, int64_t scratch_floats, Kernel kernel) {
  return std::make_unique<ChannelwiseStep<Kernel>>(op, src, dst, scratch_floats, std::move(kernel));
}

}  // namespace

std::unique_ptr<Step> make_softmax(const KernelSet& set, View src, View dst, bool log_of) {
  return channelwise(log_of ? "log_softmax" : "softmax", src, dst, 0,
                     [&set, log_of, channels = src.channels](float* to, int64_t to_step, const float* from,
                                                             int64_t from_step, int64_t rows, float*) {
                       set.softmax(to, to_step, from, from_step, rows, channels, log_of);
                     });
}

std::unique_ptr<Step> make_permute_channels(const KernelSet& set, View src, View dst, std::vector<int32_t> index) {
  return channelwise("permute_channels", src, dst, 0,
                     [&set, index = std::move(index)](float* to, int64_t to_step, const float* from, int64_t from_step,
                                                      int64_t rows, float*) {
                       set.permute_channels(to, to_step, from, from_step, index.data(), rows,
                                            static_cast<int64_t>(index.size()));
                     });
}

std::unique_ptr<Step> make_response_norm(const KernelSet& set, View src, View dst, int64_t size, float alpha,
                                         float beta, float bias) {
  const int64_t channels = src.channels;
  return channelwise(
      "local_response_norm", src, dst, channels + size - 1 + set.vector_floats,
      [=, &set](float* to, int64_t to_step, const float* from, int64_t from_step, int64_t rows, float* squares) {
        set.response_norm(to, to_step, from, from_step, rows, channels, size, alpha, beta, bias, squares);
      });
}

}  // namespace convoxel
