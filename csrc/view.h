// Where a tensor lives: a buffer, an offset, a size and a stride per axis.
//
// Every tensor of the engine has five axes (n, d, h, w, c). An absent spatial axis has size 1. Channels are contiguous,
// so a *row* - the channels of one pixel - is one run of numbers, and all microkernels work on rows. With strides a
// concatenation (a channel slice of a wider tensor), a crop and a strided output cost nothing.
#pragma once

#include <array>
#include <cstdint>

#include "element.h"

namespace convoxel {

constexpr int kSpatialAxes = 3;

using Axes = std::array<int64_t, kSpatialAxes>;  // one number per spatial axis, (d, h, w)

struct View {
  int buffer = 0;        // 0 is the plan's arena, 1.. are the caller's buffers
  int64_t offset = 0;    // of element (0, 0, 0, 0, 0); offset and strides count elements
  int64_t batch = 1;     // n
  Axes size{1, 1, 1};    // d, h, w
  int64_t channels = 1;  // c
  int64_t batch_stride = 0;
  Axes stride{0, 0, 0};
  Element element = Element::kFloat32;

  // A view whose rows follow one another from the buffer's first element on.
  static View dense(int64_t batch, const Axes& size, int64_t channels) {
    View v;
    v.batch = batch;
    v.size = size;
    v.channels = channels;
    v.stride = {size[1] * size[2] * channels, size[2] * channels, channels};
    v.batch_stride = size[0] * v.stride[0];
    return v;
  }

  int64_t pixels() const { return size[0] * size[1] * size[2]; }
  int64_t rows() const { return batch * pixels(); }

  int64_t row_offset(int64_t n, int64_t d, int64_t h, int64_t w) const {
    return offset + n * batch_stride + d * stride[0] + h * stride[1] + w * stride[2];
  }

  // Whether the rows follow one another without a gap, so that the tensor is one run of rows() * channels numbers.
  bool is_dense() const {
    return (size[2] == 1 || stride[2] == channels) && (size[1] == 1 || stride[1] == size[2] * channels) &&
           (size[0] == 1 || stride[0] == size[1] * size[2] * channels) &&
           (batch == 1 || batch_stride == pixels() * channels);
  }

  // The first element that the view touches, and one past the last.
  int64_t first() const { return offset; }
  int64_t last() const {
    if (rows() == 0) return offset;
    return row_offset(batch - 1, size[0] - 1, size[1] - 1, size[2] - 1) + channels;
  }
};

}  // namespace convoxel
