#include "converted_run.h"

#include "partition.h"

namespace convoxel {
namespace {

// A chunk converts about this many numbers, whole lines of them.
int64_t lines_together(const View& v) {
  return std::max<int64_t>(1, kPartFloats / std::max<int64_t>(1, v.size[2] * v.channels));
}
int64_t chunks_of(const View& v) { return ceil_div(line_count(v), lines_together(v)); }

// Calls convert(offset in the view, offset in the dense one, step of the view's rows) for each line of a chunk.
template <class Convert>
void for_lines(int64_t chunk, const View& view, const View& dense, const Convert& convert) {
  const int64_t together = lines_together(dense);
  const int64_t end = std::min(line_count(dense), (chunk + 1) * together);
  for (int64_t i = chunk * together; i < end; ++i) {
    const Line line = line_at(dense, i);
    convert(at(view, line, 0), at(dense, line, 0), view.stride[2]);
  }
}

int64_t shared_of(const View& v, bool wanted) {
  return wanted ? round_up(v.rows() * v.channels * static_cast<int64_t>(sizeof(float)), kAlignBytes) : 0;
}

}  // namespace

ConvertedRun::ConvertedRun(std::unique_ptr<ConvRun> inner, const ConvProblem& p, const MicrokernelSet& set)
    : inner_(std::move(inner)),
      set_(set),
      src_(View::dense(p.batch, p.in_size, p.in_channels)),
      residual_(View::dense(p.batch, p.out_size, p.out_channels)),
      dst_(residual_),
      src_bytes_(shared_of(src_, p.in_element == Element::kBfloat16)),
      residual_bytes_(shared_of(residual_, p.residual_element == Element::kBfloat16)),
      dst_bytes_(shared_of(dst_, p.out_element == Element::kBfloat16)) {
  before_ = src_bytes_ + residual_bytes_ > 0 ? 1 : 0;
  after_ = dst_bytes_ > 0 ? 1 : 0;
}

int64_t ConvertedRun::chunks(int stage) const {
  if (stage < before_) {
    return (src_bytes_ > 0 ? chunks_of(src_) : 0) + (residual_bytes_ > 0 ? chunks_of(residual_) : 0);
  }
  return stage < before_ + inner_->stages() ? inner_->chunks(stage - before_) : chunks_of(dst_);
}

void ConvertedRun::run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const {
  char* const shared = static_cast<char*>(scratch.shared);
  float* const src = reinterpret_cast<float*>(shared);
  float* const residual = reinterpret_cast<float*>(shared + src_bytes_);
  float* const dst = reinterpret_cast<float*>(shared + src_bytes_ + residual_bytes_);
  const auto widen = [&](int64_t number, const Bfloat16* from, const View& view, const View& dense, float* to) {
    for_lines(number, view, dense, [&](int64_t there, int64_t here, int64_t step) {
      set_.bfloats.widen(to + here, dense.channels, from + there, step, dense.size[2], dense.channels);
    });
  };
  if (stage < before_) {
    const int64_t first = src_bytes_ > 0 ? chunks_of(src_) : 0;
    return chunk < first ? widen(chunk, p.source<Bfloat16>(), *p.src_view, src_, src)
                         : widen(chunk - first, p.added<Bfloat16>(), *p.residual_view, residual_, residual);
  }
  if (stage < before_ + inner_->stages()) {
    ConvPointers own = p;
    const auto replace = [](int64_t bytes, auto& pointer, const View*& view, float* data, const View& dense) {
      if (bytes == 0) return;
      pointer = data;
      view = &dense;
    };
    replace(src_bytes_, own.src, own.src_view, src, src_);
    replace(residual_bytes_, own.residual, own.residual_view, residual, residual_);
    replace(dst_bytes_, own.dst, own.dst_view, dst, dst_);
    scratch.shared = shared + src_bytes_ + residual_bytes_ + dst_bytes_;
    return inner_->run(stage - before_, chunk, own, scratch);
  }
  for_lines(chunk, *p.dst_view, dst_, [&](int64_t there, int64_t here, int64_t step) {
    set_.bfloats.narrow(p.result<Bfloat16>() + there, step, dst + here, dst_.channels, dst_.size[2], dst_.channels);
  });
}

std::unique_ptr<ConvRun> plan_run(const Algorithm& algorithm, const ConvSetup& setup) {
  if (!algorithm.converts(setup.problem)) return algorithm.plan(setup);
  ConvSetup inner = setup;
  inner.problem.in_element = inner.problem.out_element = Element::kFloat32;
  inner.problem.residual_element.reset();
  return std::make_unique<ConvertedRun>(algorithm.plan(inner), setup.problem, setup.set);
}

}  // namespace convoxel
