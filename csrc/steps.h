// The steps of a plan other than convolution. Each is made with views that fit (Plan checks them); how their work is
// shared among the threads is in parts.h and fold.h.
#pragma once

#include "plan.h"

namespace convoxel {

std::unique_ptr<Step> make_max_pool(const KernelSet& set, View src, View dst, Axes kernel, Axes stride, Axes dilation,
                                    Axes padding_low);
std::unique_ptr<Step> make_resample(const KernelSet& set, View src, View dst, std::vector<ResampleAxis> axes);
std::unique_ptr<Step> make_reduce(const KernelSet& set, Reduce op, View src, View dst);
std::unique_ptr<Step> make_combine(const KernelSet& set, Combine op, View a, View b, View dst, Activation activation);
std::unique_ptr<Step> make_affine(const KernelSet& set, View src, View dst, std::vector<float> scale,
                                  std::vector<float> shift, Activation activation);
std::unique_ptr<Step> make_prelu(const KernelSet& set, View src, View dst, std::vector<float> slope);
std::unique_ptr<Step> make_normalise(const KernelSet& set, View src, View dst, int64_t groups,
                                     std::vector<float> weight, std::vector<float> bias, float eps,
                                     Activation activation);
std::unique_ptr<Step> make_softmax(const KernelSet& set, View src, View dst, bool log_of);
std::unique_ptr<Step> make_permute_channels(const KernelSet& set, View src, View dst, std::vector<int32_t> index);
std::unique_ptr<Step> make_response_norm(const KernelSet& set, View src, View dst, int64_t size, float alpha,
                                         float beta, float bias);
std::unique_ptr<Step> make_import(const KernelSet& set, int buffer, View dst);
std::unique_ptr<Step> make_export(const KernelSet& set, View src, int buffer);

}  // namespace convoxel
