// Steps whose outputs depend on the inputs at the same place alone.
#include "partition.h"

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

}  // namespace

void Plan::combine(std::string op, View a, View b, View dst, std::string activation, Slope slope) {
  read(a, "a");
  read(b, "b");
  write(dst, "dst");
  require_broadcast(a, dst, "a");
  require_broadcast(b, dst, "b");
  const int kind = find_name(kCombineNames, op);
  a = broadcast(a, dst);
  b = broadcast(b, dst);
  join_lines({&a, &b, &dst});
  const int64_t c = dst.channels;
  CombineRows shape;
  shape.a_single = a.channels < c;
  shape.b_single = b.channels < c;
  shape.a_step = a.stride[2];
  shape.b_step = b.stride[2];
  shape.dst_step = dst.stride[2];
  const bool dense = a.stride[2] == c && b.stride[2] == c && dst.stride[2] == c && a.channels == c && b.channels == c;
  add({kCombineNames[kind], by_parts(dst, [=, &set = set_, act = activation_of(activation, slope)](
                                              const RunContext& context, const Part& part) {
         CombineRows rows = shape;
         rows.dst = part.of(dst, context);
         rows.a = part.of(a, context);
         rows.b = part.of(b, context);
         rows.rows = dense ? 1 : part.width();
         rows.channels = dense ? part.width() * c : c;
         set.combine(rows, static_cast<Combine>(kind), act);
       })});
}

void Plan::prelu(View src, View dst, std::vector<float> slope) {
  use_alike(src, dst);
  require(static_cast<int64_t>(slope.size()) == src.channels, "slope needs one number per channel of " + show(src));
  join_lines({&src, &dst});
  add({"prelu", by_parts(dst, [=, &set = set_, slope = std::move(slope)](const RunContext& context, const Part& part) {
         CombineRows rows;
         rows.dst = part.of(dst, context);
         rows.a = part.of(src, context);
         rows.b = slope.data();
         rows.dst_step = dst.stride[2];
         rows.a_step = src.stride[2];
         rows.rows = part.width();
         rows.channels = dst.channels;
         set.combine(rows, Combine::kPrelu, {});
       })});
}

void Plan::affine(View src, View dst, std::vector<float> scale, std::vector<float> shift, std::string activation,
                  Slope slope) {
  use_alike(src, dst);
  require(static_cast<int64_t>(scale.size()) == src.channels && static_cast<int64_t>(shift.size()) == src.channels,
          "scale and shift need one number per channel of " + show(src));
  join_lines({&src, &dst});
  add({"affine", by_parts(dst, [=, &set = set_, scale = std::move(scale), shift = std::move(shift),
                                act = activation_of(activation, slope)](const RunContext& context, const Part& part) {
         set.affine(part.of(dst, context), dst.stride[2], part.of(src, context), src.stride[2], scale.data(),
                    shift.data(), part.width(), dst.channels, act);
       })});
}

}  // namespace convoxel
