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
  read(a, "a", Takes::kFloats);
  read(b, "b", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  require_broadcast(a, dst, "a");
  require_broadcast(b, dst, "b");
  require_same_element(a, dst, "a and dst");
  require_same_element(b, dst, "b and dst");
  const int kind = find_name(kCombineNames, op);
  a = broadcast(a, dst);
  b = broadcast(b, dst);
  join_lines({&a, &b, &dst});
  const int64_t c = dst.channels;
  const bool dense = a.stride[2] == c && b.stride[2] == c && dst.stride[2] == c && a.channels == c && b.channels == c;
  with_element(dst.element, [&](auto number) {
    using T = decltype(number);
    CombineRows<T> shape;
    shape.a_single = a.channels < c;
    shape.b_single = b.channels < c;
    shape.a_step = a.stride[2];
    shape.b_step = b.stride[2];
    shape.dst_step = dst.stride[2];
    add({kCombineNames[kind], by_parts(dst, [=, &set = set_, act = activation_of(activation, slope)](
                                                const RunContext& context, const Part& part) {
           CombineRows<T> rows = shape;
           rows.dst = part.of<T>(dst, context);
           rows.a = part.of<T>(a, context);
           rows.b = part.of<T>(b, context);
           rows.rows = dense ? 1 : part.width();
           rows.channels = dense ? part.width() * c : c;
           set.rows<T>().combine(rows, static_cast<Combine>(kind), act);
         })});
  });
}

void Plan::convert(View src, View dst) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  require_same_shape(src, dst, "src and dst");
  join_lines({&src, &dst});
  with_element(src.element, [&](auto from) {
    with_element(dst.element, [&](auto to) {
      using In = decltype(from);
      using Out = decltype(to);
      add({"convert", by_parts(dst, [=, &set = set_](const RunContext& context, const Part& part) {
             const In* const in = part.of<In>(src, context);
             Out* const out = part.of<Out>(dst, context);
             const int64_t rows = part.width(), channels = dst.channels;
             if constexpr (kElementOf<In> == Element::kFloat32) {
               set.rows<Out>().narrow(out, dst.stride[2], in, src.stride[2], rows, channels);
             } else if constexpr (kElementOf<Out> == Element::kFloat32) {
               set.rows<In>().widen(out, dst.stride[2], in, src.stride[2], rows, channels);
             } else {
               set.rows<In>().copy(out, dst.stride[2], in, src.stride[2], rows, channels);
             }
           })});
    });
  });
}

void Plan::prelu(View src, View dst, std::vector<float> slope) {
  use_alike(src, dst);
  require(static_cast<int64_t>(slope.size()) == src.channels, "slope needs one number per channel of " + show(src));
  join_lines({&src, &dst});
  add({"prelu", by_parts(dst, [=, &set = set_, slope = std::move(slope)](const RunContext& context, const Part& part) {
         CombineRows<float> rows;
         rows.dst = part.of(dst, context);
         rows.a = part.of(src, context);
         rows.b = slope.data();
         rows.dst_step = dst.stride[2];
         rows.a_step = src.stride[2];
         rows.rows = part.width();
         rows.channels = dst.channels;
         set.floats.combine(rows, Combine::kPrelu, {});
       })});
}

void Plan::affine(View src, View dst, std::vector<float> scale, std::vector<float> shift, std::string activation,
                  Slope slope) {
  use_alike(src, dst, Takes::kFloats);
  require(static_cast<int64_t>(scale.size()) == src.channels && static_cast<int64_t>(shift.size()) == src.channels,
          "scale and shift need one number per channel of " + show(src));
  join_lines({&src, &dst});
  with_element(dst.element, [&](auto number) {
    using T = decltype(number);
    add({"affine", by_parts(dst, [=, &set = set_, act = activation_of(activation, slope)](const RunContext& context,
                                                                                          const Part& part) {
           set.rows<T>().affine(part.of<T>(dst, context), dst.stride[2], part.of<T>(src, context), src.stride[2],
                                scale.data(), shift.data(), part.width(), dst.channels, act);
         })});
  });
}

}  // namespace convoxel
