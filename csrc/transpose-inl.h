// Transposes between rows of channels (channels last) and rows of pixels (channels first).

// Exchanges float i of row j with float j of row i. Each stage exchanges the halves of blocks of 2 * kHalf, between
// rows that lie kHalf apart:   a0 a1 | b0 b1   ->   a0 b0 | a1 b1
template <int kHalf>
struct FirstHalves {
  static constexpr int at(int i) { return (i & kHalf) == 0 ? i : kV + i - kHalf; }
};
template <int kHalf>
struct SecondHalves {
  static constexpr int at(int i) { return (i & kHalf) == 0 ? i + kHalf : kV + i; }
};

template <int kHalf = kV / 2>
CVX_INLINE void transpose_square(Vec (&row)[kV]) {
  each<kV>([&](auto i) CVX_LAMBDA {
    if constexpr ((i.value & kHalf) == 0) {
      const Vec a = row[i.value], b = row[i.value + kHalf];
      row[i.value] = shuffle<FirstHalves<kHalf>>(a, b);
      row[i.value + kHalf] = shuffle<SecondHalves<kHalf>>(a, b);
    }
  });
  if constexpr (kHalf > 1) transpose_square<kHalf / 2>(row);
}

// Transposes up to kV x kV floats.
CVX_INLINE void transpose_part(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
                               int64_t columns) {
  Vec row[kV];
  each<kV>([&](auto i) CVX_LAMBDA {
    const float* p = src + i.value * src_step;
    row[i.value] = i.value >= rows ? Vec{} : columns == kV ? load(p) : load_part(p, columns);
  });
  transpose_square(row);
  each<kV>([&](auto j) CVX_LAMBDA {
    float* p = dst + j.value * dst_step;
    if (j.value >= columns) return;
    if (rows == kV) {
      store(p, row[j.value]);
    } else {
      store_part(p, row[j.value], rows);
    }
  });
}

// Interleaves kRows rows of kV floats to kV pixels of kRows channels without gaps: float f of the result is row f %
// kRows, column f / kRows.
template <int kRows, int kOut, int kRow>
struct Weave {
  static constexpr int at(int i) {
    const int f = kOut * kV + i;
    if (kRow == 1) return f % kRows == 1 ? kV + f / kRows : f / kRows;
    return f % kRows == kRow ? kV + f / kRows : i;
  }
};
// The reverse: float i of row kRow is float i * kRows + kRow of the kRows vectors that hold the pixels.
template <int kRows, int kRow, int kIn>
struct Unweave {
  static constexpr int at(int i) {
    const int f = i * kRows + kRow;
    if (kIn == 1) return f / kV == 1 ? kV + f % kV : f % kV;
    return f / kV == kIn ? kV + f % kV : i;
  }
};

template <int kRows, template <int, int, int> class Pattern>
CVX_INLINE void weave(const Vec (&in)[kRows], Vec (&out)[kRows]) {
  each<kRows>([&](auto o) CVX_LAMBDA {
    Vec v = in[0];
    each<kRows - 1>([&](auto i) CVX_LAMBDA { v = shuffle<Pattern<kRows, o.value, i.value + 1>>(v, in[i.value + 1]); });
    out[o.value] = v;
  });
}

// Interleaves kRows long rows to pixels of kRows channels without gaps, or the reverse; returns the number of columns
// done.
template <int kRows>
int64_t weave_rows(float* dst, const float* src, int64_t src_step, int64_t columns) {
  int64_t j = 0;
  for (; j + kV <= columns; j += kV) {
    Vec in[kRows], out[kRows];
    each<kRows>([&](auto i) CVX_LAMBDA { in[i.value] = load(src + i.value * src_step + j); });
    weave<kRows, Weave>(in, out);
    each<kRows>([&](auto i) CVX_LAMBDA { store(dst + j * kRows + i.value * kV, out[i.value]); });
  }
  return j;
}
template <int kRows>
int64_t unweave_rows(float* dst, int64_t dst_step, const float* src, int64_t rows) {
  int64_t i = 0;
  for (; i + kV <= rows; i += kV) {
    Vec in[kRows], out[kRows];
    each<kRows>([&](auto k) CVX_LAMBDA { in[k.value] = load(src + i * kRows + k.value * kV); });
    weave<kRows, Unweave>(in, out);
    each<kRows>([&](auto k) CVX_LAMBDA { store(dst + k.value * dst_step + i, out[k.value]); });
  }
  return i;
}

void copy_rows(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t floats) {
  join_rows(&rows, &floats, dst_step, src_step);
  for (int64_t i = 0; i < rows; ++i) {
    for_blocks(floats, [&](auto n, int64_t j, int64_t lanes) CVX_LAMBDA {
      store_block<n.value>(dst + i * dst_step + j, load_block<n.value>(src + i * src_step + j, lanes), lanes);
    });
  }
}

void transpose(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t columns) {
  if (rows == 1 && dst_step == 1) return copy_rows(dst, columns, src, columns, 1, columns);
  if (columns == 1 && src_step == 1) return copy_rows(dst, rows, src, rows, 1, rows);
  // A picture has few channels.
  int64_t first_row = 0, first_column = 0;
  if (dst_step == rows && rows <= 4) {
    first_column = rows == 2   ? weave_rows<2>(dst, src, src_step, columns)
                   : rows == 3 ? weave_rows<3>(dst, src, src_step, columns)
                               : weave_rows<4>(dst, src, src_step, columns);
  } else if (src_step == columns && columns <= 4) {
    first_row = columns == 2   ? unweave_rows<2>(dst, dst_step, src, rows)
                : columns == 3 ? unweave_rows<3>(dst, dst_step, src, rows)
                               : unweave_rows<4>(dst, dst_step, src, rows);
  }
  for (int64_t j = first_column; j < columns; j += kV) {
    const int64_t width = columns - j < kV ? columns - j : kV;
    for (int64_t i = first_row; i < rows; i += kV) {
      const int64_t height = rows - i < kV ? rows - i : kV;
      transpose_part(dst + j * dst_step + i, dst_step, src + i * src_step + j, src_step, height, width);
    }
  }
}
