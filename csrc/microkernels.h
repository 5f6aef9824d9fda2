// The contract between the engine and its microkernels, the innermost loops: one MicrokernelSet per instruction set.
//
// Invariant: microkernels allocate nothing, throw nothing and know no threads. They see rows (runs of channels) through
// pointers; their callers know which pixel a row belongs to, and the padding, strides and batches.
//
// Each set is the same source (microkernels-inl.h), compiled with other flags inside an anonymous namespace. So the
// linker can never take a function compiled for AVX-512 for the same one of a lesser set.
#pragma once

#include <cstdint>

#include "activation.h"
#include "element.h"

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
  int64_t a_row = 0;     // if not 0: the distance between rows, of which a[t * a_step] is the first and only pointer
  int64_t a_offset = 0;  // added to every pointer of a: the first channel of a group
  int64_t rows = 0;      // m
  int64_t taps = 0;      // may be 0: then C = activation(bias + residual)
  int64_t channels = 0;  // K
  const float* b = nullptr;
  const float* b_next = nullptr;  // what is multiplied after this: prefetched meanwhile
  int64_t columns = 0;            // of the whole product
  int64_t column_begin = 0;       // this call computes [column_begin, column_end); both on panel boundaries
  int64_t column_end = 0;
  float* const* c = nullptr;  // c[m] points at the row; column n is at c[m][c_offset + n]
  int64_t c_offset = 0;
  const float* const* residual = nullptr;  // like c, or null
  const float* bias = nullptr;             // `columns` floats, or null
  Activation activation;
  int64_t block_channels = 256;  // taps * channels that are multiplied before the next panel
};

// C[m, n] += sum over lines l and positions i of A[l][i * a_step + m] * B[l][i * b_step + n].
struct OuterProduct {
  const float* const* a = nullptr;  // a[l] + a_offset points at the rows' numbers of the line's first position
  const float* const* b = nullptr;  // b[l] + b_offset at the columns'
  int64_t a_offset = 0, b_offset = 0;
  int64_t lines = 0;
  int64_t count = 0;  // positions of a line
  int64_t a_step = 0, b_step = 0;
  float* c = nullptr;
  int64_t c_step = 0;  // from one row to the next
  int64_t rows = 0, columns = 0;
};

// C[m, k] = activation(sum over lines l and taps t of A[l][m * stride + taps[t]][k] * B[l, t, k] + bias[k] +
// residual[m][k]): one weight per tap and channel instead of a matrix.
//
//   positions of line l      | 0 | 1 | 2 | 3 | 4 | ...     an output reads `width` positions; its neighbour reads the
//   output 0, taps 0, 1, 2     x   x   x                    positions that lie `stride` further on
//   output 1                       x   x   x
template <class T>
struct Depthwise {
  const T* const* a = nullptr;      // a[l] points at the channels of position 0, which need not exist
  const int64_t* a_step = nullptr;  // numbers from one position of line l to the next
  int64_t begin = 0, end = 0;       // the positions that exist; the others are padding
  const T* zeros = nullptr;         // `channels` of them: what padding reads
  int64_t lines = 0;                // taps of the axes other than w
  const int64_t* taps = nullptr;
  int64_t width = 0;   // taps along w
  int64_t stride = 1;  // positions from one output to the next
  int64_t rows = 0;    // outputs
  int64_t channels = 0;
  const float* b = nullptr;  // b[(l * width + t) * b_step + k], channels padded to whole vectors
  int64_t b_step = 0;
  T* const* c = nullptr;
  const T* const* residual = nullptr;  // like c, or null
  const float* bias = nullptr;         // `channels` floats, or null
  Activation activation;
};

// C[n][m] = activation(sum over lines l, channels k and taps t of A[l][k][m + t * dilation] * B[n, l, k, t] + bias[n] +
// residual[n][m]): planes of pixels instead of rows of channels. Whole vectors of pixels are read and written.
struct Planar {
  static constexpr int64_t kGroup = 4;  // outputs that are computed together, at most
  // The size of the group that begins at output `first`: groups of equal size, 5 become 3 + 2.
  static constexpr int64_t group(int64_t outputs, int64_t first) {
    const int64_t left = outputs - first, groups = (left + kGroup - 1) / kGroup;
    return (left + groups - 1) / groups;
  }
  const float* const* a = nullptr;  // a[l] points at what output 0 reads of plane 0
  const int64_t* a_step = nullptr;  // floats from one plane of line l to the next
  int64_t lines = 0;                // taps of the axes other than w
  int64_t channels = 0;
  int64_t width = 0;  // taps along w
  int64_t dilation = 1;
  const float* b = nullptr;  // by group of outputs, line, channel, tap, output
  float* c = nullptr;
  int64_t c_step = 0;  // floats from one plane to the next, also of the residual
  int64_t outputs = 0;
  int64_t pixels = 0;
  const float* residual = nullptr;  // like c, or null
  const float* bias = nullptr;      // `outputs` floats, or null
  Activation activation;
};

// C[m, n] = activation(scale[n] * sum over taps t and channels k of A[t][m][k] * B[t, k, n] + bias[n] + residual[m][n])
// for a few rows, where B holds whole numbers of 24 bits. B is packed in panels of two vectors of columns; the last
// panel holds the rest, padded with zeros to whole vectors. A panel begins with its scales. Then follow, tap after tap,
// for each group of four channels (padded with zeros) and each vector of columns, three vectors of words. Bits 31 .. 8
// of word i are the number of channel i; the lowest byte is one of the three bytes of the fourth channel's number, the
// highest in word 0. The scales belong to numbers times 2**8, as they stand in a word, so inputs beyond 2**96 may give
// infinity.
struct Fixed24Product {
  static constexpr int64_t kGroup = 4, kWords = 3;  // channels, and the words that hold their weights
  static constexpr int kPanelVectors = 2;
  static constexpr int kPlaces = 30;  // binary places of a word, so that sums stay in the range of what they sum up
  const float* const* a = nullptr;    // a[t * a_step + m] points at K floats
  int64_t a_step = 0;
  int64_t rows = 0;
  int64_t taps = 0;
  int64_t channels = 0;  // K
  const float* b = nullptr;
  int64_t columns = 0;       // of the whole product
  int64_t column_begin = 0;  // this call computes [column_begin, column_end); both on panel boundaries
  int64_t column_end = 0;
  float* const* c = nullptr;
  const float* const* residual = nullptr;  // like c, or null
  const float* bias = nullptr;             // `columns` floats, or null
  Activation activation;
};

// F(m, r) along each axis; r = 1 (and m = 1) on an axis that is not transformed. The points of a tile are the products
// of the three axes' points, the last axis fastest.
struct WinogradShape {
  int m[3] = {1, 1, 1};
  int r[3] = {1, 1, 1};
  int points() const { return (m[0] + r[0] - 1) * (m[1] + r[1] - 1) * (m[2] + r[2] - 1); }
};

// The part of a tile that lies in the image: of its (m + r - 1) inputs, or of its m outputs, per axis.
struct WinogradTile {
  int64_t begin[3] = {0, 0, 0};
  int64_t end[3] = {0, 0, 0};
  const float* bias = nullptr;     // outputs only, as in Product
  const void* residual = nullptr;  // at the tile's first output
  int64_t residual_step[3] = {0, 0, 0};
  Activation activation;
};

// a op b. Python uses the names, in the same order. prelu: a where a >= 0, a * b elsewhere.
enum class Combine : int { kAdd, kSubtract, kMultiply, kDivide, kMaximum, kMinimum, kPrelu };
constexpr const char* kCombineNames[] = {"add", "subtract", "multiply", "divide", "maximum", "minimum"};
constexpr int kCombineCount = 6;  // that can be asked for by name: prelu's b is no view

// Rows i of dst = a[i] op b[i]. A step of 0 repeats a row; a single number stands for all channels.
template <class T>
struct CombineRows {
  T* dst = nullptr;
  const T* a = nullptr;
  const T* b = nullptr;
  int64_t dst_step = 0, a_step = 0, b_step = 0;
  bool a_single = false, b_single = false;
  int64_t rows = 0;
  int64_t channels = 0;
};

enum class Reduce : int { kMean, kMax, kSum };
constexpr const char* kReduceNames[] = {"mean", "max", "sum"};
constexpr int kReduceCount = 3;

// The discrete Fourier transform of n numbers, n a product of radices. Passes run in place, in this order. Afterwards
// the number of frequency k stands at the place whose digits, in these radices, are those of k reversed.
struct FftAxis {
  static constexpr int kMostPasses = 4;
  int n = 1;
  int passes = 0;
  int radix[kMostPasses] = {};
  // For each pass but the last: (re, im) of exp(-2 pi i j q / (radix * span)), q in [1, radix) for each j in [0, span).
  // span is the product of the radices that follow.
  const float* twiddles[kMostPasses] = {};
};

// A depthwise convolution of one vector of channels over one tile of shape.axis[0..2].n inputs, through its spectrum.
// Lines along w are transformed in pairs, as the real and imaginary parts of the same numbers. Then follow the planes
// (d, h) of each frequency k along w, from the numbers at k and at -k.
struct FftShape {
  FftAxis axis[3];
  const int32_t* columns = nullptr;  // the places of k and -k along w, the same twice where k = -k
  int64_t planes = 0;                // pairs of columns
  int64_t plane() const { return static_cast<int64_t>(axis[0].n) * axis[1].n; }
  int64_t row() const { return axis[2].n | 1; }  // numbers from one line to the next: not a power of two
  int64_t pairs() const { return (axis[1].n + 1) / 2; }
  int64_t scratch_vectors() const { return 2 * (axis[0].n * pairs() * row() + plane()); }
};

struct FftDepthwise {
  const FftShape* shape = nullptr;
  const float* src = nullptr;  // the tile's first input, which need not exist
  int64_t src_step[3] = {0, 0, 0};
  int64_t begin[3] = {0, 0, 0};  // the inputs that exist; the others are not read and count as zero
  int64_t end[3] = {0, 0, 0};
  const float* spectrum = nullptr;  // of the kernel: planes * plane() pairs of vectors (re, im), 1 / 2n folded in
  float* dst = nullptr;             // the tile's first output
  int64_t dst_step[3] = {0, 0, 0};
  int64_t outputs[3] = {0, 0, 0};   // outputs of the tile that are stored
  const float* bias = nullptr;      // of these channels, or null
  const float* residual = nullptr;  // at the tile's first output, or null
  int64_t residual_step[3] = {0, 0, 0};
  Activation activation;
  int64_t lanes = 0;         // channels, at most a vector of them
  float* scratch = nullptr;  // shape->scratch_vectors() vectors
};

// C[row, n] = activation(sum over steps s and elements e < 32 of A[row][s][e] * B[s, e, n] + bias[n] +
// residual[row][n]) on a matrix unit, whose tiles are `tile_rows` rows of A (or 16 columns of B) times 32 elements.
//
// The unit multiplies bfloat16, of 8 binary digits, exactly, and adds in float32. So a float is a sum of parts, each
// the bfloat16 nearest to the remainder that the parts before it leave:
//   3 parts hold all 24 digits. Six of the nine products of two such sums count; the rest is below 2**-26 of the whole.
//   1 part leaves 2**-9 of the number.
//   2 parts leave 2**-18 of the number. Three of the four products count; the fourth is as small as that remainder.
struct BfloatProduct {
  int parts = 3;
  const uint16_t* a = nullptr;     // element 0 of the first parts
  int64_t a_part = 0;              // from one part to the next; all distances count elements
  int64_t a_row = 0;               // from one row of a tile to the next
  int64_t tile_rows = 16;          // a number that the unit takes
  const int64_t* tiles = nullptr;  // where the first row of each tile lies
  int64_t tile_count = 0;
  const int64_t* steps = nullptr;  // where the 32 elements of each step lie in a row
  int64_t step_count = 0;          // may be 0: then C = activation(bias + residual)
  int64_t run = 1;                 // steps of a run; the last step of each has `last` elements, an even number, or more
  int64_t last = 32;               // that are multiplied by weights of zero
  const uint16_t* b = nullptr;  // strips of 32 columns; in a strip: step, part, tile of 16 columns, pair of elements,
                                // column, element. The last strip may have one tile.
  int64_t columns = 0;          // of the whole product
  int64_t column_begin = 0;     // this call computes [column_begin, column_end); both on strips' boundaries
  int64_t column_end = 0;
  void* const* c =
      nullptr;  // column n of a row is at c[tile_rows * tile + row][c_offset + n]; null if it is not wanted
  int64_t c_offset = 0;
  const void* const* residual = nullptr;  // like c, or null
  Element c_element = Element::kFloat32, residual_element = Element::kFloat32;
  const float* bias = nullptr;  // `columns` floats, or null
  Activation activation;
};

// Weights that are multiplied next: with each step, so many lines of them come into L2.
struct Prefetch {
  const uint16_t* from = nullptr;
  int64_t lines = 0;
};

// Splits rows of floats into parts; numbers of bfloat16, for which one part is enough, are copied.
struct BfloatRows {
  int parts = 3;
  uint16_t* dst = nullptr;  // part p of number j of row i goes to dst[p * dst_part + i * dst_step + j]
  int64_t dst_part = 0;
  int64_t dst_step = 0;
  const void* src = nullptr;  // row i begins src_step elements after the row before it
  int64_t src_step = 0;
  Element src_element = Element::kFloat32;
  const float* factors = nullptr;  // number j of each row is first multiplied by factors[j]; or null
  int64_t rows = 0;
  int64_t channels = 0;  // of a row
};

// The microkernels of a processor with such a unit, or with an instruction that multiplies pairs of bfloat16.
struct MatrixUnit {
  static constexpr int64_t kRows = 16;      // of a tile, at most; columns of a tile
  static constexpr int64_t kElements = 32;  // of a step
  static constexpr int64_t kColumns = 32;   // of a strip
  bool tiles;                               // whether it has matrix registers, which multiply far faster
  int64_t least_rows, most_rows;            // of a tile
  void (*split)(BfloatRows);
  void (*product)(const BfloatProduct&);
};

// Multiplies a gradient by slope where x * scale + shift is not positive; scale and shift have a number per channel.
struct Gate {
  const float *scale, *shift;
  float slope;
};

template <class T>
struct RowMicrokernels {
#define ROW_MICROKERNEL(result, name, ...) result (*name)(__VA_ARGS__);
#include "row_microkernel_list.h"
};

struct MicrokernelSet {
  const char* name;   // as in CONVOXEL_ISA
  int vector_floats;  // V
  int panel_vectors;  // columns of a full panel / V
  int tile_rows;      // rows of a full panel's register tile
  int registers;

#define MICROKERNEL(result, name, ...) result (*name)(__VA_ARGS__);
#include "microkernel_list.h"

  RowMicrokernels<float> floats;
  RowMicrokernels<Bfloat16> bfloats;
  template <class T>
  const RowMicrokernels<T>& rows() const {
    if constexpr (kElementOf<T> == Element::kBfloat16) {
      return bfloats;
    } else {
      return floats;
    }
  }

  const MatrixUnit* matrix_unit = nullptr;  // or null: most processors have none
};

// Null if this build or this processor lacks the set.
const MicrokernelSet* portable_microkernels();
const MicrokernelSet* avx2_microkernels();
const MicrokernelSet* avx512_microkernels();
const MicrokernelSet* avx512_bf16_microkernels();
const MatrixUnit* amx_unit();

struct MicrokernelSetList {
  const MicrokernelSet* sets[5];
  int count;
};

// The sets that this processor can run, best first.
MicrokernelSetList available_microkernels();

}  // namespace convoxel
