// The contract between the engine and its kernels: one KernelSet per instruction set.
//
// Invariant: kernels allocate nothing, throw nothing and know no threads. They see rows (runs of channels) through
// pointers; which pixel a row belongs to, padding, strides and batches are their callers' business.
//
// Each set is the same source (kernels-inl.h) compiled with other flags inside an anonymous namespace, so that the
// linker can never merge a copy compiled for AVX-512 into the path of a machine without it.
#pragma once

#include <cstdint>

#include "activation.h"

namespace convoxel {

// C[m, n] = activation(sum over taps t and channels k of A[t][m][k] * B[t * K + k, n] + bias[n] + residual[m][n])
//
//        K channels               columns
//      +-----------+            +---------+            B is packed in panels of `vectors * V` columns (V floats a
//  m   | A[t][m]   |  t taps    | panel p |            vector); the last panel holds the rest, rounded up to whole
//      |  (a row)  |            | (t,k,n) |            vectors and filled with zeros. Inside a panel the order is
//      +-----------+            +---------+            tap, channel, column.
struct Product {
  const float* const* a = nullptr;  // a[t * a_step + m] points at K floats
  int64_t a_step = 0;
  int64_t a_row = 0;  // if not 0, rows lie this far apart and a[t * a_step] is the first: there are no other pointers
  int64_t a_offset = 0;  // added to every pointer of a: the first channel of a group
  int64_t rows = 0;      // m
  int64_t taps = 0;      // may be 0: then C = activation(bias + residual)
  int64_t channels = 0;  // K
  const float* b = nullptr;
  const float* b_next = nullptr;  // what will be multiplied after this: brought closer meanwhile
  int64_t columns = 0;            // of the whole product
  int64_t column_begin = 0;       // this call computes [column_begin, column_end); both on panel boundaries
  int64_t column_end = 0;
  float* const* c = nullptr;  // c[m] points at the row; column n is at c[m][c_offset + n]
  int64_t c_offset = 0;
  const float* const* residual = nullptr;  // like c, or null
  const float* bias = nullptr;             // `columns` floats, or null
  Activation activation;
  int64_t block_channels = 256;  // taps * channels that are multiplied before the next panel is taken
};

// C[m, k] = activation(sum over lines l and taps t of A[l][m * stride + taps[t]][k] * B[l, t, k] + bias[k] +
// residual[m][k]): one weight per tap and channel instead of a matrix.
//
//   positions of line l      | 0 | 1 | 2 | 3 | 4 | ...     an output reads `width` of them; its neighbour reads those
//   output 0, taps 0, 1, 2     x   x   x                    that lie `stride` further on
//   output 1                       x   x   x
struct Depthwise {
  const float* const* a = nullptr;  // a[l] points at the channels of position 0, which need not exist
  const int64_t* a_step = nullptr;  // floats from one position of line l to the next
  int64_t begin = 0, end = 0;       // the positions that exist; the others are padding
  const float* zeros = nullptr;     // `channels` of them: what padding reads
  int64_t lines = 0;                // taps of the axes other than w
  const int64_t* taps = nullptr;
  int64_t width = 0;   // taps along w
  int64_t stride = 1;  // positions from one output to the next
  int64_t rows = 0;    // outputs
  int64_t channels = 0;
  const float* b = nullptr;  // b[(l * width + t) * b_step + k], channels filled up to whole vectors
  int64_t b_step = 0;
  float* const* c = nullptr;
  const float* const* residual = nullptr;  // like c, or null
  const float* bias = nullptr;             // `channels` floats, or null
  Activation activation;
};

// F(m, r) along each axis; r = 1 (and m = 1) on an axis that is not transformed. The points of a tile are those of the
// three axes' products, the last axis fastest.
struct WinogradShape {
  int m[3] = {1, 1, 1};
  int r[3] = {1, 1, 1};
  int points() const { return (m[0] + r[0] - 1) * (m[1] + r[1] - 1) * (m[2] + r[2] - 1); }
};

// The part of a tile that lies in the image: of its (m + r - 1) inputs, or of its m outputs, per axis.
struct WinogradTile {
  int64_t begin[3] = {0, 0, 0};
  int64_t end[3] = {0, 0, 0};
  const float* bias = nullptr;      // outputs only, as in Product
  const float* residual = nullptr;  // at the tile's first output
  int64_t residual_step[3] = {0, 0, 0};
  Activation activation;
};

enum class Combine : int { kAdd, kMultiply };

struct KernelSet {
  const char* name;   // as in CONVOXEL_ISA
  int vector_floats;  // V
  int panel_vectors;  // columns of a full panel / V
  int tile_rows;      // rows of a full panel's register tile
  int registers;

  void (*product)(const Product&);

  void (*depthwise)(const Depthwise&);

  // dst[i * dst_step + j] = src[i * src_step + j] for i < rows, j < floats
  void (*copy_rows)(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t floats);
  // dst[k * columns + j] = src[k * columns + j] * factors[k % channels] for k < rows, j < columns
  void (*scale_rows)(float* dst, const float* src, const float* factors, int64_t rows, int64_t channels,
                     int64_t columns);
  // dst[c] = max over taps of rows[t][c]; NaN spreads, as in PyTorch. taps >= 1.
  void (*gather_max)(float* dst, const float* const* rows, int64_t taps, int64_t channels);
  // dst[c] = sum over taps of weight[t] * rows[t][c]
  void (*gather_sum)(float* dst, const float* const* rows, const float* weight, int64_t taps, int64_t channels);
  // dst[i] = activation(a[i] op b[i]); b_step 0 repeats b[0].
  void (*combine)(Combine op, float* dst, const float* a, const float* b, int b_step, int64_t count, Activation act);
  // dst[i] = activation(src[i] * scale[i] + shift[i])
  void (*affine)(float* dst, const float* src, const float* scale, const float* shift, int64_t count, Activation act);
  // total[c] += sum over rows r of (src[r * step + c] - centre[c]) ** power, power 1 or 2
  void (*moment)(double* total, const float* src, int64_t rows, int64_t step, int64_t channels, const float* centre,
                 int power);
  // dst[j * dst_step + i] = src[i * src_step + j] for i < rows, j < columns
  void (*transpose)(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t columns);
  // points[p * point_step + c] = (B^T d B ...)[p] of the tile whose first input is at src, for every channel; stores
  // whole vectors. scratch: 4 * points() vectors. Inputs outside of [begin, end) are not read and count as zero.
  void (*winograd_input)(const WinogradShape&, const WinogradTile&, const float* src, const int64_t* src_step,
                         int64_t channels, float* points, int64_t point_step, float* scratch);
  // The m outputs per axis from their points, plus bias and residual, activated; stores those before `end`.
  void (*winograd_output)(const WinogradShape&, const WinogradTile&, const float* points, int64_t point_step,
                          int64_t channels, float* dst, const int64_t* dst_step, float* scratch);
  // Independent fused multiply-adds in registers, `rounds` times; returns the number of floating-point operations.
  double (*fma_burst)(int64_t rounds);
};

// Null where this build or this processor lacks the set.
const KernelSet* portable_kernels();
const KernelSet* avx2_kernels();
const KernelSet* avx512_kernels();

struct KernelSetList {
  const KernelSet* sets[3];
  int count;
};

// The sets that this processor can run, best first.
KernelSetList available_kernels();

}  // namespace convoxel
