// Steps that convert between the caller's channels-first buffers and views, which are channels last.
#include "partition.h"

namespace convoxel {
namespace {

// The address of the part's pixels of channel 0 in the dense channels-first buffer that corresponds to the view.
float* first_channel(const RunContext& context, int buffer, const View& view, const Part& part) {
  return context.buffers[buffer] + part.line.n * view.channels * view.pixels() +
         (part.line.d * view.size[1] + part.line.h) * view.size[2] + part.w_begin;
}

}  // namespace

void Plan::import_channels_first(int buffer, View dst) {
  write(dst, "dst");
  use_dense(buffer, dst, "import", false);
  join_lines({&dst});
  add({"import", by_parts(dst, [=, &set = set_](const RunContext& context, const Part& part) {
         set.transpose(part.of(dst, context), dst.stride[2], first_channel(context, buffer, dst, part), dst.pixels(),
                       dst.channels, part.width());
       })});
}

void Plan::export_channels_first(View src, int buffer) {
  read(src, "src");
  use_dense(buffer, src, "export", true);
  join_lines({&src});
  add({"export", by_parts(src, [=, &set = set_](const RunContext& context, const Part& part) {
         set.transpose(first_channel(context, buffer, src, part), src.pixels(), part.of(src, context), src.stride[2],
                       part.width(), src.channels);
       })});
}

}  // namespace convoxel
