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

// Two rows as one of pairs, and the reverse: the halves of   a0 b0 a1 b1 ...
struct FirstPairs {
  static constexpr int at(int i) { return i / 2 + i % 2 * kV; }
};
struct SecondPairs {
  static constexpr int at(int i) { return kV / 2 + i / 2 + i % 2 * kV; }
};
struct Evens {
  static constexpr int at(int i) { return 2 * i; }
};
struct Odds {
  static constexpr int at(int i) { return 2 * i + 1; }
};

// Interleaves kRows rows of kV floats to kV pixels of kRows channels without gaps. For powers of two, rows that lie
// half of all rows apart are paired, and then the first and second halves of the pairs likewise.
template <int kRows>
CVX_INLINE void interleave(Vec* row) {
  if constexpr (kRows == 3) {
    Vec in[kRows] = {row[0], row[1], row[2]}, out[kRows];
    weave<kRows, Weave>(in, out);
    each<kRows>([&](auto i) CVX_LAMBDA { row[i.value] = out[i.value]; });
  } else if constexpr (kRows > 1) {
    constexpr int kHalf = kRows / 2;
    each<kHalf>([&](auto i) CVX_LAMBDA {
      const Vec a = row[i.value], b = row[i.value + kHalf];
      row[i.value] = shuffle<FirstPairs>(a, b);
      row[i.value + kHalf] = shuffle<SecondPairs>(a, b);
    });
    interleave<kHalf>(row);
    interleave<kHalf>(row + kHalf);
  }
}
template <int kRows>
CVX_INLINE void separate(Vec* row) {
  if constexpr (kRows == 3) {
    Vec in[kRows] = {row[0], row[1], row[2]}, out[kRows];
    weave<kRows, Unweave>(in, out);
    each<kRows>([&](auto i) CVX_LAMBDA { row[i.value] = out[i.value]; });
  } else if constexpr (kRows > 1) {
    constexpr int kHalf = kRows / 2;
    separate<kHalf>(row);
    separate<kHalf>(row + kHalf);
    each<kHalf>([&](auto i) CVX_LAMBDA {
      const Vec a = row[i.value], b = row[i.value + kHalf];
      row[i.value] = shuffle<Evens>(a, b);
      row[i.value + kHalf] = shuffle<Odds>(a, b);
    });
  }
}

// Interleaves kRows long rows to pixels of kRows channels, or the reverse; returns the number of columns done. Where
// pixels lie further apart, as in a part of a wider tensor, they are moved one by one.
template <int kRows>
int64_t weave_rows(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t columns) {
  int64_t j = 0;
  for (; j + kV <= columns; j += kV) {
    Vec row[kRows];
    each<kRows>([&](auto i) CVX_LAMBDA { row[i.value] = load(src + i.value * src_step + j); });
    interleave<kRows>(row);
    if (dst_step == kRows) {
      each<kRows>([&](auto i) CVX_LAMBDA { store(dst + j * kRows + i.value * kV, row[i.value]); });
      continue;
    }
    float pixels[kRows * kV];
    each<kRows>([&](auto i) CVX_LAMBDA { store(pixels + i.value * kV, row[i.value]); });
    for (int i = 0; i < kV; ++i) __builtin_memcpy(dst + (j + i) * dst_step, pixels + i * kRows, kRows * sizeof(float));
  }
  return j;
}
template <int kRows>
int64_t unweave_rows(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows) {
  int64_t i = 0;
  for (; i + kV <= rows; i += kV) {
    Vec row[kRows];
    if (src_step == kRows) {
      each<kRows>([&](auto k) CVX_LAMBDA { row[k.value] = load(src + i * kRows + k.value * kV); });
    } else {
      float pixels[kRows * kV];
      for (int k = 0; k < kV; ++k) {
        __builtin_memcpy(pixels + k * kRows, src + (i + k) * src_step, kRows * sizeof(float));
      }
      each<kRows>([&](auto k) CVX_LAMBDA { row[k.value] = load(pixels + k.value * kV); });
    }
    separate<kRows>(row);
    each<kRows>([&](auto k) CVX_LAMBDA { store(dst + k.value * dst_step + i, row[k.value]); });
  }
  return i;
}

// Calls f(Index<kRows>()) for a number of channels that rows are woven for: those of pictures and of narrow layers.
template <class F>
CVX_INLINE int64_t with_few(int64_t channels, const F& f) {
  if (channels == 2) return f(Index<2>());
  if (channels == 3) return f(Index<3>());
  if (channels == 4) return f(Index<4>());
  if constexpr (kV >= 8) {
    if (channels == 8) return f(Index<8>());
  }
  return 0;
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
  // Whole squares are transposed as such.
  const int64_t first_column =
      rows < kV
          ? with_few(
                rows, [&](auto n) CVX_LAMBDA { return weave_rows<n.value>(dst, dst_step, src, src_step, columns); })
          : 0;
  const int64_t first_row =
      first_column == 0 && columns < kV
          ? with_few(
                columns, [&](auto n) CVX_LAMBDA { return unweave_rows<n.value>(dst, dst_step, src, src_step, rows); })
          : 0;
  for (int64_t j = first_column; j < columns; j += kV) {
    const int64_t width = columns - j < kV ? columns - j : kV;
    for (int64_t i = first_row; i < rows; i += kV) {
      const int64_t height = rows - i < kV ? rows - i : kV;
      transpose_part(dst + j * dst_step + i, dst_step, src + i * src_step + j, src_step, height, width);
    }
  }
}
