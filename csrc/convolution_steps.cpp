// Steps that run one convolution, or several as a block.
#include "depthwise_block.h"
#include "plan.h"
#include "threads.h"

namespace convoxel {
namespace {

// padding_low: in place of the convolution's own, for a part of an image that has other padding than the whole.
ConvProblem problem_of(const Convolution& conv, const View& src, const View& dst, bool gated,
                       const std::optional<Axes>& padding_low = {}) {
  require(src.batch == dst.batch, "src and dst differ in batch: " + show(src) + " and " + show(dst));
  require(src.channels == conv.in_channels() && dst.channels == conv.out_channels(),
          "the convolution maps " + std::to_string(conv.in_channels()) + " to " + std::to_string(conv.out_channels()) +
              " channels, not " + show(src) + " to " + show(dst));
  ConvProblem problem{conv.window(), src.batch, src.size, dst.size, src.channels, dst.channels, gated};
  problem.in_element = src.element;
  problem.out_element = dst.element;
  if (padding_low) problem.window.padding_low = *padding_low;
  if (!problem.window.transposed) return problem;
  // The taps of a phase, and so the packed weights, follow from the padding modulo the stride.
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int64_t moved = problem.window.padding_low[i] - conv.window().padding_low[i];
    require(moved % problem.window.stride[i] == 0,
            "padding_low of a transposed convolution must differ from its own "
            "by a multiple of the stride");
  }
  return problem;
}

// The text of the problem for one image, which decides the algorithm: equal images get equal bits.
std::string text_of_one_image(const Convolution& conv, const View& src, const View& dst, const std::string& activation,
                              bool residual, bool gated) {
  const auto shape = [](const View& v) {
    return std::array<int64_t, 5>{1, v.size[0], v.size[1], v.size[2], v.channels};
  };
  return problem_text(conv.window(), shape(src), shape(dst), activation, residual, gated, src.element, dst.element);
}

// kept: the convolutions whose weights the run reads.
Step convolution_step(const char* op, const char* algorithm, double macs, std::unique_ptr<ConvRun> made,
                      std::vector<std::shared_ptr<const Convolution>> kept, const View& src, const View& dst,
                      const std::optional<View>& residual, const std::optional<View>& gate) {
  Step step;
  step.op = op;
  step.workspace_bytes = made->own_bytes();
  step.shared_bytes = made->shared_bytes();
  step.algorithm = algorithm;
  step.macs = macs;
  step.run = [run = std::shared_ptr<const ConvRun>(std::move(made)), kept = std::move(kept), src, dst, residual,
              gate](const RunContext& context) {
    const ConvPointers p{context.address(src),
                         context.address(dst),
                         residual ? context.address(*residual) : nullptr,
                         &src,
                         &dst,
                         residual ? &*residual : nullptr,
                         gate ? context.at(*gate) : nullptr,
                         gate ? gate->batch_stride : 0};
    for (int stage = 0; stage < run->stages(); ++stage) {
      parallel_for(context.threads, run->chunks(stage), [&](int64_t chunk, int worker) {
        run->run(stage, chunk, p, {context.worker_space(worker), context.shared});
      });
    }
  };
  return step;
}

}  // namespace

std::vector<Candidate> Plan::candidates(const Convolution& conv, const View& src, const View& dst,
                                        const std::string& algorithm, bool gated) const {
  return rank_algorithms(family(algorithm), problem_of(conv, src, dst, gated), set_);
}

void Plan::convolve(std::shared_ptr<const Convolution> conv, View src, View dst, std::optional<View> residual,
                    std::string activation, Slope slope, std::string algorithm, std::optional<View> gate,
                    std::optional<Axes> padding_low, std::string chosen) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  if (gate) {
    read(*gate, "gate");
    require(gate->batch == src.batch && gate->pixels() == 1 && gate->channels == src.channels,
            "gate " + show(*gate) + " is not one vector of channels for each image of src " + show(src));
  }
  ConvProblem problem = problem_of(*conv, src, dst, gate.has_value(), padding_low);
  if (residual) {
    read(*residual, "residual", Takes::kFloats);
    require_same_shape(dst, *residual, "dst and residual");
    problem.residual_element = residual->element;
  }
  std::string text = text_of_one_image(*conv, src, dst, activation, residual.has_value(), gate.has_value());
  if (chosen.empty()) chosen = chosen_for(text);
  const Algorithm& best = choose_algorithm(family(algorithm), chosen, problem, set_);
  const PackedWeights& weights = conv->packed(best, problem, set_, threads_);
  auto run = plan_run(best, {problem, *conv, weights, set_, activation_of(activation, slope), threads_});
  const char* op = conv->window().transposed ? "conv_transpose" : "conv";
  Step step = convolution_step(op, best.name, problem.macs(), std::move(run), {conv}, src, dst, residual, gate);
  step.problems.push_back(std::move(text));
  add(std::move(step));
}

void Plan::convolve_block(std::vector<std::shared_ptr<const Convolution>> convs, size_t depthwise, View src, View dst,
                          std::optional<View> residual, std::vector<std::pair<std::string, Slope>> activations,
                          std::string algorithm, std::optional<Axes> padding_low, std::vector<std::string> parts) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  if (residual) {
    read(*residual, "residual", Takes::kFloats);
    require_same_shape(dst, *residual, "dst and residual");
  }
  if (activations.empty()) activations.assign(convs.size(), {"none", {}});
  require(convs.size() == activations.size() && depthwise < convs.size() && convs.size() <= 3 && depthwise <= 1 &&
              convs.size() - depthwise <= 2,
          "a depthwise block has one activation for each convolution, one of them in front and behind at most");
  require(parts.empty() || parts.size() == convs.size(), "parts names one algorithm for each convolution");
  // Up to the depthwise convolution tensors have src's size, after it dst's.
  View before = src, after = dst;
  double macs = 0;
  std::vector<std::string> problems;
  const auto part = [&](size_t i) {
    const View from = i <= depthwise ? before : after;
    View to = i < depthwise ? src : dst;
    to.channels = convs[i]->out_channels();
    before = after = to;
    const auto& [kind, slope] = activations[i];
    problems.push_back(text_of_one_image(*convs[i], from, to, "none", false, false) + " in a block");
    const BlockPart made{convs[i], problem_of(*convs[i], from, to, false, i == depthwise ? padding_low : std::nullopt),
                         activation_of(kind, slope), parts.empty() ? chosen_for(problems.back()) : parts[i]};
    macs += made.problem.macs();
    return made;
  };
  DepthwiseBlock block;
  if (depthwise > 0) block.expand = part(0);
  block.depthwise = part(depthwise);
  if (depthwise + 1 < convs.size()) block.project = part(depthwise + 1);
  require(after.channels == dst.channels, "dst " + show(dst) + " has not the channels of the last convolution");
  if (residual) (block.project ? *block.project : block.depthwise).problem.residual_element = residual->element;
  BlockPlan planned = plan_block(family(algorithm), block, set_, threads_);
  Step step = convolution_step("depthwise_block", planned.algorithm, macs, std::move(planned.run), std::move(convs),
                               src, dst, residual, {});
  step.parts = std::move(planned.parts);
  step.problems = std::move(problems);
  add(std::move(step));
}

}  // namespace convoxel
