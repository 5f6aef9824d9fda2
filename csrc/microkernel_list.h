// The microkernels of an instruction set: a row MICROKERNEL(result, name, arguments) for each, under its contract.
//
// An including file first defines MICROKERNEL as what it makes of a row: a member of MicrokernelSet (microkernels.h),
// or the value of that member (microkernels-inl.h).

MICROKERNEL(void, product, const Product&)
MICROKERNEL(void, fixed24_product, const Fixed24Product&)
MICROKERNEL(void, depthwise, const Depthwise&)
MICROKERNEL(void, planar, const Planar&)

// dst[i * dst_step + j] = src[i * src_step + j] for i < rows, j < floats
MICROKERNEL(void, copy_rows, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t floats)
// dst[k * columns + j] = src[k * columns + j] * factors[k % channels] for k < rows, j < columns
MICROKERNEL(void, scale_rows, float* dst, const float* src, const float* factors, int64_t rows, int64_t channels,
            int64_t columns)
// From here on row i begins at dst + i * dst_step, and its source at src + i * src_step.

// Row i = max over taps t < count of the row at taps[t] + i * tap_step; NaN spreads, as in PyTorch. count >= 1.
MICROKERNEL(void, gather_max, float* dst, int64_t dst_step, const float* const* taps, int64_t tap_step, int64_t count,
            int64_t rows, int64_t channels)
// Row i = sum over taps t < count of weight[t] * the row at taps[t] + i * tap_step
MICROKERNEL(void, gather_sum, float* dst, int64_t dst_step, const float* const* taps, const float* weight,
            int64_t tap_step, int64_t count, int64_t rows, int64_t channels)
// Row i = sum over begin[i] <= t < begin[i + 1] of weight[t] * the row at src + index[t] * src_step
MICROKERNEL(void, blend_rows, float* dst, int64_t dst_step, const float* src, int64_t src_step, const int32_t* begin,
            const int32_t* index, const float* weight, int64_t rows, int64_t channels)
// Row i = activation(a[i] op b[i])
MICROKERNEL(void, combine, const CombineRows&, Combine op, Activation act)
// Row i = activation(src row i * scale + shift)
MICROKERNEL(void, affine, float* dst, int64_t dst_step, const float* src, int64_t src_step, const float* scale,
            const float* shift, int64_t rows, int64_t channels, Activation act)
// total[c] += sum over rows r of (src[r * step + c] - centre[c]) ** power, power 1 or 2
MICROKERNEL(void, moment, double* total, const float* src, int64_t rows, int64_t step, int64_t channels,
            const float* centre, int power)
// best[c] = max of best[c] and src[r * step + c] over rows r; NaN spreads
MICROKERNEL(void, largest, float* best, const float* src, int64_t rows, int64_t step, int64_t channels)
// dst[i * dst_step] = mean, largest or sum of src row i
MICROKERNEL(void, reduce_channels, Reduce op, float* dst, int64_t dst_step, const float* src, int64_t src_step,
            int64_t rows, int64_t channels)
// Row i = e ** src row i / sum of e ** src row i, or its logarithm
MICROKERNEL(void, softmax, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t channels, bool log_of)
// Channel c of row i = channel index[c] of src row i
MICROKERNEL(void, permute_channels, float* dst, int64_t dst_step, const float* src, int64_t src_step,
            const int32_t* index, int64_t rows, int64_t channels)
// Channel c of row i = x[c] / (bias + alpha / size * (sum of x[k]**2 over c - size / 2 <= k < c - size / 2 + size))
// ** beta. squares: scratch of channels + size - 1 + vector_floats.
MICROKERNEL(void, response_norm, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t channels, int64_t size, float alpha, float beta, float bias, float* squares)
// dst[j * dst_step + i] = src[i * src_step + j] for i < rows, j < columns
MICROKERNEL(void, transpose, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t columns)
// points[p * point_step + c] = (B^T d B ...)[p] of the tile whose first input is at src, for every channel; stores
// whole vectors. scratch: 4 * points() vectors. Inputs outside of [begin, end) are not read and count as zero.
MICROKERNEL(void, winograd_input, const WinogradShape&, const WinogradTile&, const float* src, const int64_t* src_step,
            int64_t channels, float* points, int64_t point_step, float* scratch)
// The m outputs per axis from their points, plus bias and residual, activated. Stores those before `end`.
MICROKERNEL(void, winograd_output, const WinogradShape&, const WinogradTile&, const float* points, int64_t point_step,
            int64_t channels, float* dst, const int64_t* dst_step, float* scratch)
MICROKERNEL(void, fft_depthwise, const FftDepthwise&)
// Runs independent fused multiply-adds in registers, `rounds` times; returns the number of floating-point operations.
MICROKERNEL(double, fma_burst, int64_t rounds)

#undef MICROKERNEL
