// The microkernels of an instruction set: a row MICROKERNEL(result, name, arguments) for each, under its contract.
//
// An including file first defines MICROKERNEL as what it makes of a row: a member of MicrokernelSet (microkernels.h),
// or the value of that member (microkernels-inl.h).

MICROKERNEL(void, product, const Product&)
MICROKERNEL(void, fixed24_product, const Fixed24Product&)
MICROKERNEL(void, planar, const Planar&)

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
// dst[j * dst_step + i] = src[i * src_step + j] for i < rows, j < columns
MICROKERNEL(void, transpose, float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows,
            int64_t columns)
MICROKERNEL(void, fft_depthwise, const FftDepthwise&)
// Runs independent fused multiply-adds in registers, `rounds` times; returns the number of floating-point operations.
MICROKERNEL(double, fma_burst, int64_t rounds)

#undef MICROKERNEL
