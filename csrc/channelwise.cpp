// Steps that compute among the channels of each pixel.
#include "partition.h"

namespace convoxel {

void Plan::softmax(View src, View dst, bool log) {
  use_alike(src, dst);
  join_lines({&src, &dst});
  add({log ? "log_softmax" : "softmax", by_parts(dst, [=, &set = set_](const RunContext& context, const Part& part) {
         set.softmax(part.of(dst, context), dst.stride[2], part.of(src, context), src.stride[2], part.width(),
                     src.channels, log);
       })});
}

void Plan::permute_channels(View src, View dst, std::vector<int32_t> index) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  require_same_element(src, dst, "src and dst");
  require(src.batch == dst.batch && src.size == dst.size,
          "src " + show(src) + " and dst " + show(dst) + " differ in more than channels");
  require(static_cast<int64_t>(index.size()) == dst.channels, "index needs one number per channel of dst " + show(dst));
  for (const int32_t i : index) {
    require(i >= 0 && i < src.channels, "src " + show(src) + " has no channel " + std::to_string(i));
  }
  join_lines({&src, &dst});
  with_element(src.element, [&](auto number) {
    using T = decltype(number);
    add({"permute_channels", by_parts(dst, [=, &set = set_](const RunContext& context, const Part& part) {
           set.rows<T>().permute_channels(part.of<T>(dst, context), dst.stride[2], part.of<T>(src, context),
                                          src.stride[2], index.data(), part.width(), dst.channels);
         })});
  });
}

void Plan::local_response_norm(View src, View dst, int64_t size, float alpha, float beta, float bias) {
  use_alike(src, dst);
  require(size >= 1, "size must be at least 1");
  require(alpha >= 0 && bias > 0, "alpha must not be negative, and bias must be positive");
  join_lines({&src, &dst});
  const int64_t channels = src.channels, squares = channels + size - 1 + set_.vector_floats;
  add({"local_response_norm",
       by_parts(dst,
                [=, &set = set_](const RunContext& context, const Part& part) {
                  set.response_norm(part.of(dst, context), dst.stride[2], part.of(src, context), src.stride[2],
                                    part.width(), channels, size, alpha, beta, bias,
                                    static_cast<float*>(context.worker_space(part.worker)));
                }),
       squares * static_cast<int64_t>(sizeof(float))});
}

}  // namespace convoxel
