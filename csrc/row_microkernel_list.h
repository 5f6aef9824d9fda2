// The microkernels over rows of channels of type T, in which tensors are stored: a row ROW_MICROKERNEL(result, name,
// arguments) for each, under its contract. They compute in float32; what they store is rounded to nearest, ties to
// even.
//
// An including file first defines ROW_MICROKERNEL as what it makes of a row: a member of RowMicrokernels
// (microkernels.h), or the values of that member for all types (microkernels-inl.h).
//
// Row i begins at dst + i * dst_step, and its source at src + i * src_step.

ROW_MICROKERNEL(void, depthwise, const Depthwise<T>&)
// points[p * point_step + c] = (B^T d B ...)[p] of the tile whose first input is at src, for every channel; stores
// whole vectors. scratch: 4 * points() vectors. Inputs outside of [begin, end) are not read and count as zero.
ROW_MICROKERNEL(void, winograd_input, const WinogradShape&, const WinogradTile&, const T* src, const int64_t* src_step,
                int64_t channels, float* points, int64_t point_step, float* scratch)
// The same rounded to bfloat16, on two or three axes; zeros follow up to point_step.
ROW_MICROKERNEL(void, winograd_rounded_input, const WinogradShape&, const WinogradTile&, const T* src,
                const int64_t* src_step, int64_t channels, Bfloat16* points, int64_t point_step, float* scratch)
// The m outputs per axis from their points, plus bias and residual, activated. Stores those before `end`.
ROW_MICROKERNEL(void, winograd_output, const WinogradShape&, const WinogradTile&, const float* points,
                int64_t point_step, int64_t channels, T* dst, const int64_t* dst_step, float* scratch)

// Row i = src row i
ROW_MICROKERNEL(void, copy, T* dst, int64_t dst_step, const T* src, int64_t src_step, int64_t rows, int64_t channels)
// Row i = src row i, as floats
ROW_MICROKERNEL(void, widen, float* dst, int64_t dst_step, const T* src, int64_t src_step, int64_t rows,
                int64_t channels)
// Row i = src row i, from floats
ROW_MICROKERNEL(void, narrow, T* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
                int64_t channels)
// Row i = max over taps t < count of the row at taps[t] + i * tap_step; NaN spreads, as in PyTorch. count >= 1.
ROW_MICROKERNEL(void, gather_max, T* dst, int64_t dst_step, const T* const* taps, int64_t tap_step, int64_t count,
                int64_t rows, int64_t channels)
// Row i = sum over taps t < count of weight[t] * the row at taps[t] + i * tap_step
ROW_MICROKERNEL(void, gather_sum, float* dst, int64_t dst_step, const T* const* taps, const float* weight,
                int64_t tap_step, int64_t count, int64_t rows, int64_t channels)
// Row i = sum over begin[i] <= t < begin[i + 1] of weight[t] * the row at src + index[t] * src_step
ROW_MICROKERNEL(void, blend_rows, T* dst, int64_t dst_step, const T* src, int64_t src_step, const int32_t* begin,
                const int32_t* index, const float* weight, int64_t rows, int64_t channels)
// The same from rows of sums
ROW_MICROKERNEL(void, blend_sums, T* dst, int64_t dst_step, const float* src, int64_t src_step, const int32_t* begin,
                const int32_t* index, const float* weight, int64_t rows, int64_t channels)
// Row i = activation(a[i] op b[i])
ROW_MICROKERNEL(void, combine, const CombineRows<T>&, Combine op, Activation act)
// Row i = activation(src row i * scale + shift)
ROW_MICROKERNEL(void, affine, T* dst, int64_t dst_step, const T* src, int64_t src_step, const float* scale,
                const float* shift, int64_t rows, int64_t channels, Activation act)
// total[c] += sum over rows r of (src[r * step + c] - centre[c]) ** power, power 1 or 2
ROW_MICROKERNEL(void, moment, double* total, const T* src, int64_t rows, int64_t step, int64_t channels,
                const float* centre, int power)
// best[c] = max of best[c] and src[r * step + c] over rows r; NaN spreads
ROW_MICROKERNEL(void, largest, float* best, const T* src, int64_t rows, int64_t step, int64_t channels)
// dst[i * dst_step] = mean, largest or sum of src row i
ROW_MICROKERNEL(void, reduce_channels, Reduce op, T* dst, int64_t dst_step, const T* src, int64_t src_step,
                int64_t rows, int64_t channels)
// Channel c of row i = channel index[c] of src row i
ROW_MICROKERNEL(void, permute_channels, T* dst, int64_t dst_step, const T* src, int64_t src_step, const int32_t* index,
                int64_t rows, int64_t channels)

#undef ROW_MICROKERNEL
