// The microkernels of an instruction set: a row MICROKERNEL(result, name, arguments) for each, under its contract.
//
// An including file first defines MICROKERNEL as what it makes of a row: a member of MicrokernelSet (microkernels.h),
// or the value of that member (microkernels-inl.h).

MICROKERNEL(void, product, const Product&)
MICROKERNEL(void, outer_product, const OuterProduct&)
MICROKERNEL(void, fixed24_product, const Fixed24Product&)
MICROKERNEL(void, planar, const Planar&)

// dst[b, p, j] = sum over taps t of matrix[p * taps + t] * src[b, t, j] for b < before, p < points, j < after, a
// multiple of vector_floats: one axis of the points of Winograd's kernels. taps <= 7.
MICROKERNEL(void, kernel_points, double* dst, const double* src, const double* matrix, int64_t points, int64_t taps,
            int64_t before, int64_t after)
// points[p * point_step + c] = (A g ...)[p] of the tile of a gradient whose first number is at src, A the transpose of
// the output's matrix; otherwise as winograd_input (row_microkernel_list.h).
MICROKERNEL(void, winograd_gradient, const WinogradShape&, const WinogradTile&, const float* src,
            const int64_t* src_step, int64_t channels, float* points, int64_t point_step, float* scratch)

// dst[i * dst_step + j] = src[i * src_step + j] for i < rows, j < floats
MICROKERNEL(void, copy_rows, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t floats)
// dst[k * columns + j] = src[k * columns + j] * factors[k % channels] for k < rows, j < columns
MICROKERNEL(void, scale_rows, float* dst, const float* src, const float* factors, int64_t rows, int64_t channels,
            int64_t columns)
// From here on row i begins at dst + i * dst_step, and its source at src + i * src_step.

// Row i = e ** src row i / sum of e ** src row i, or its logarithm
MICROKERNEL(void, softmax, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t channels, bool log_of)
// Channel c of row i = x[c] / (bias + alpha / size * (sum of x[k]**2 over c - size / 2 <= k < c - size / 2 + size))
// ** beta. squares: scratch of channels + size - 1 + vector_floats.
MICROKERNEL(void, response_norm, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t channels, int64_t size, float alpha, float beta, float bias, float* squares)
// total[c] += sum over rows r of g[r * step + c]; product[c] += sum of g[r * step + c] * (src[r * step + c] -
// centre[c]), g through the gate
MICROKERNEL(void, gradient_moments, double* total, double* product, const float* g, const float* src, int64_t rows,
            int64_t step, int64_t channels, const float* centre, Gate gate)
// Row i of dst = g * scale + src * slope + shift; all three have rows `step` floats apart, scale and so on one number
// per channel; g through the gate
MICROKERNEL(void, add_affine, float* dst, int64_t step, const float* g, const float* src, const float* scale,
            const float* slope, const float* shift, int64_t rows, int64_t channels, Gate gate)
// dst[j * dst_step + i] = src[i * src_step + j] for i < rows, j < columns
MICROKERNEL(void, transpose, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t columns)
MICROKERNEL(void, fft_depthwise, const FftDepthwise&)
// Runs independent fused multiply-adds in registers, `rounds` times; returns the number of floating-point operations.
MICROKERNEL(double, fma_burst, int64_t rounds)

#undef MICROKERNEL
