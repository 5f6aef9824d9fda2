// Products of whole numbers of 8 bits, with sums that are exact: the contract, and the units that compute them.
//
// A quantised tensor holds levels q in [0, 255] that stand for (q - zero) * scale. It lies in memory as a tensor of
// floats of a quarter as many channels does: each word of 32 bits holds the levels of four channels, and the last word
// of a row holds what is left. Such a view counts words. What lies behind the last channel meets weights of zero.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "activation.h"
#include "element.h"

namespace convoxel {

// The levels of a tensor: q stands for (q - zero) * scale.
struct Levels {
  float scale = 1;
  int32_t zero = 0;
};

constexpr int64_t kWordBytes = 4;   // levels of a word
constexpr int64_t kMostLanes = 16;  // columns of a vector of any unit

// S[m, n] = start[n] + sum over taps t and channels k of A[t][m][k] * B[t, k, n], exact in 32 bits
// C[m, n] = activation(S[m, n] * scale[n] + bias[n] + residual[m][n]), or the level nearest to it; without a scale S
//
// B is packed in panels of `panel_vectors` vectors of columns (the last panel holds the rest, rounded up to whole
// vectors and filled with zeros). In a panel the order is tap, word, vector, and then the unit's own.
struct IntegerProduct {
  const uint8_t* const* a = nullptr;  // a[t * a_step + m] points at the levels of a row
  int64_t a_step = 0;
  int64_t a_offset = 0;  // added to every pointer of a: the first channel of a group
  int64_t rows = 0;
  int64_t taps = 0;     // may be 0: then S = start
  int64_t repeats = 1;  // taps follow one another so many times in B, with other weights: weights are sums of parts
  int64_t words = 0;    // of a row, for one group
  const uint8_t* b = nullptr;
  int64_t columns = 0;       // of the whole product
  int64_t column_begin = 0;  // this call computes [column_begin, column_end); both on panel boundaries
  int64_t column_end = 0;
  const int32_t* start = nullptr;  // `columns` numbers, as are the following
  const float* scale = nullptr;    // or null
  const float* bias = nullptr;     // or null
  Activation activation;
  float* const* c = nullptr;  // rows of floats, or of levels
  int64_t c_offset = 0;       // of column 0, in floats or levels
  bool levels = false;        // C holds levels
  Levels result;
  const float* const* residual = nullptr;  // rows of floats, or of levels; or null
  bool residual_levels = false;
  Levels residual_as;
};

// A depthwise product, where each channel has weights of its own, is an IntegerProduct with these differences:
// S[m, n] = start[n] + sum over taps t of A[t][m][n] * B[t][n]
// B holds numbers of 16 bits, those of taps 2t and 2t + 1 side by side; from one pair of taps to the next lie
// `words` words, and behind an odd last tap a number of zero. There are no repeats.

// Rows of floats that become levels, or the reverse.
struct LevelRows {
  float* dst = nullptr;
  const float* src = nullptr;
  int64_t dst_step = 0, src_step = 0;  // in words
  int64_t rows = 0;
  int64_t channels = 0;
  Levels levels;
};

struct IntegerUnit {
  const char* name;
  const char* summary;
  int vector_columns;  // of a vector
  int panel_vectors;
  int tile_rows;
  int weight_bytes;  // 1: B holds bytes; 2: numbers of 16 bits, channels 0 and 2 of a word before 1 and 3;
                     // 4: of 32 bits, channel after channel
  void (*product)(const IntegerProduct&);
  void (*depthwise)(const IntegerProduct&);
  void (*quantise)(const LevelRows&);    // level = nearest to src / scale + zero, halves to even; NaN gives zero
  void (*dequantise)(const LevelRows&);  // dst = (level - zero) * scale

  // Bytes of the weights of one word and one vector of columns.
  int64_t group_bytes() const { return vector_columns * kWordBytes * weight_bytes; }
  int panel_columns() const { return panel_vectors * vector_columns; }
};

// Null if this build lacks the unit. Whether the processor has it is for available_integer_units to say.
const IntegerUnit* vnni_integer_unit();
const IntegerUnit* avx512_integer_unit();
const IntegerUnit* avx_vnni_integer_unit();
const IntegerUnit* avx2_integer_unit();
const IntegerUnit* portable_integer_unit();
const IntegerUnit* amx_integer_unit();

// The units that this processor can run beside an instruction set, best first. All compute the same sums.
std::vector<const IntegerUnit*> available_integer_units(const std::string& instruction_set);
// The one called `name`, or the best if that is empty. Throws Mistake if there is none of this name.
const IntegerUnit& integer_unit(const std::string& instruction_set, const std::string& name);

}  // namespace convoxel
