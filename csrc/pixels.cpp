#include "pixels.h"

namespace convoxel {
namespace {

constexpr int64_t kBlockChannels = 256;  // as in product_algorithms.cpp

}  // namespace

PixelProduct::PixelProduct(const Algorithm& algorithm, const ConvProblem& problem, const Convolution& conv,
                           const MicrokernelSet& set, Activation activation, int threads, int64_t rows)
    : conv_(conv), set_(set), activation_(activation) {
  const int parts = bfloat_parts(algorithm);
  weights_ = &conv.packed(algorithm, problem, set, threads);
  if (parts > 0) unit_ = std::make_unique<BfloatPixels>(parts, conv, *weights_, set, activation, rows, problem);
}

void PixelProduct::run(const void* src, int64_t step, int64_t rows, bool padded, void** outputs,
                       const void* const* residuals, void* scratch) const {
  if (unit_) return unit_->run(src, step, rows, padded, outputs, residuals, scratch);
  const float* const first = static_cast<const float*>(src);
  Product product;
  product.a = &first;
  product.a_step = 1;
  product.a_row = step;
  product.rows = rows;
  product.taps = 1;
  product.channels = conv_.in_channels();
  product.b = weights_->data.get();
  product.columns = product.column_end = conv_.out_channels();
  product.c = reinterpret_cast<float* const*>(outputs);
  product.residual = reinterpret_cast<const float* const*>(residuals);
  product.bias = conv_.bias();
  product.activation = activation_;
  product.block_channels = kBlockChannels;
  set_.product(product);
}

}  // namespace convoxel
