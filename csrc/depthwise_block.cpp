// A depthwise convolution and its 1x1 neighbours as one step. The tensor between them is the widest of a network of
// such blocks, and reading and writing it takes longer than the arithmetic.
//
//   banded   A thread expands the lines that a band of outputs needs. They lie in its own memory and stay in its L2.
//            Then it continues as in `blocked`. Lines that two bands need are computed twice.
//   blocked  A thread computes a block of the depthwise outputs into its own memory and projects them at once. An
//            expansion runs before that, through memory that all threads share.
//   staged   The convolutions run one after another through shared memory. This serves few outputs, where blocks would
//            leave the projection with too few rows for each panel of weights.
#include "depthwise_block.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "converted_run.h"
#include "depthwise.h"
#include "machine.h"
#include "mistake.h"
#include "pixels.h"

namespace convoxel {
namespace {

constexpr int64_t kMostRows = 96;      // of a block, as in product_algorithms.cpp
constexpr int64_t kLeastRows = 24;     // two register tiles for each panel
constexpr int64_t kExpandRows = 128;   // expanded at a time: their parts and results stay in L1 and L2
constexpr double kMostRepeated = 1.4;  // lines that all bands expand, over lines of the image

template <class T = float>
int64_t bytes_of(int64_t numbers) {
  return numbers * static_cast<int64_t>(sizeof(T));
}

// A band: outputs along the outermost axis that are computed together, and the inputs that they read.
struct Band {
  int axis = 1;
  int64_t lines = 0;  // of outputs; 0 if there are no bands
  int64_t count = 0;  // of all outputs
  int64_t size = 0;   // of all inputs
  int64_t step = 1, low = 0, high = 0;

  explicit Band(const ConvProblem& p) {
    const TapPhase phase = plan_phases(p.window, p.out_size).front();
    axis = p.out_size[0] > 1 || p.in_size[0] > 1 ? 0 : 1;
    const AxisPhase& along = phase.axis[axis];
    count = along.count;
    size = p.in_size[static_cast<size_t>(axis)];
    step = along.in_step;
    low = along.offset.front();
    high = along.offset.back();
  }
  int64_t span(int64_t outputs) const { return std::min(size, (outputs - 1) * step + high - low + 1); }
  int64_t bands() const { return ceil_div(count, lines); }
};

// The algorithm of each convolution, or null where there is none.
struct Chosen {
  const Algorithm* expand = nullptr;
  const Algorithm* depthwise = nullptr;
  const Algorithm* project = nullptr;
};

// T: the type of what lies between the convolutions.
template <class T>
class BlockedRun final : public ConvRun {
 public:
  // rows: outputs of a block. band: its `lines` are 0 if the block has no expansion, or a run before this one makes it.
  BlockedRun(const Chosen& chosen, const DepthwiseBlock& block, const MicrokernelSet& set, int threads, int64_t rows,
             const Band& band)
      : problem_(block.depthwise.problem),
        rows_(rows),
        band_(band),
        lines_({problem_, *block.depthwise.conv, packed(block.depthwise, set, threads), set, block.depthwise.activation,
                threads}),
        phase_(lines_.phases().front()) {
    const auto product = [&](const Algorithm& algorithm, const BlockPart& part, int64_t most) {
      return std::make_unique<PixelProduct>(algorithm, part.problem, *part.conv, set, part.activation, threads, most);
    };
    if (block.project) {
      project_ = product(*chosen.project, *block.project, rows);
      pitch_ = kPadded ? round_up(problem_.out_channels, MatrixUnit::kElements) : problem_.out_channels;
    }
    if (band.lines == 0) return;
    expand_ = product(*chosen.expand, *block.expand, kExpandRows);
    expanded_ = View::dense(1, problem_.in_size, problem_.in_channels);
    expanded_.batch_stride = 0;  // the lines of all images use the same memory
  }

  int64_t chunks(int) const override { return expand_ ? problem_.batch * band_.bands() : ceil_div(pixels(), rows_); }
  int64_t own_bytes() const override { return table_bytes() + band_bytes() + block_bytes() + parts_bytes(); }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    Scratch own = place(scratch.own);
    if (!expand_) {
      const int64_t begin = chunk * rows_;
      return run_block(begin, std::min(rows_, pixels() - begin), p.source<T>(), *p.src_view, {}, p, own);
    }
    const int64_t n = chunk / band_.bands(), first = chunk % band_.bands() * band_.lines;
    const int64_t last = std::min(first + band_.lines, band_.count);
    const int64_t in_first = std::clamp<int64_t>(first * band_.step + band_.low, 0, band_.size);
    const int64_t in_last = std::clamp<int64_t>((last - 1) * band_.step + band_.high + 1, in_first, band_.size);
    expand(n, in_first, in_last, p, own);
    Axes origin{};
    origin[static_cast<size_t>(band_.axis)] = in_first;
    const int64_t line = ceil_div(pixels(), problem_.batch * band_.count);  // outputs of a line
    const int64_t begin = (n * band_.count + first) * line, end = (n * band_.count + last) * line;
    for (int64_t m = begin; m < end; m += rows_) {
      run_block(m, std::min(rows_, end - m), own.band, expanded_, origin, p, own);
    }
  }

 private:
  // Rows of bfloat16 are padded to whole steps of a unit, which then reads them where they lie.
  static constexpr bool kPadded = kElementOf<T> == Element::kBfloat16;

  struct Scratch {
    T** between;  // rows of the depthwise convolution's results
    void** outputs;
    const void** residuals;
    void* lines;
    T* band;   // the expanded lines
    T* block;  // results of the depthwise convolution, if a projection follows
    void* parts;
  };

  static const PackedWeights& packed(const BlockPart& part, const MicrokernelSet& set, int threads) {
    return part.conv->packed(algorithm_called("depthwise"), part.problem, set, threads);
  }
  int64_t pixels() const { return problem_.batch * problem_.out_size[0] * problem_.out_size[1] * problem_.out_size[2]; }
  int64_t table_rows() const { return round_up(std::max(rows_, expand_ ? kExpandRows : 0), MatrixUnit::kRows); }
  int64_t table_bytes() const {
    return round_up(3 * table_rows() * static_cast<int64_t>(sizeof(void*)) + lines_.scratch_bytes(), kAlignBytes);
  }
  int64_t line_numbers() const { return expanded_.stride[static_cast<size_t>(band_.axis)]; }
  int64_t band_bytes() const {
    return expand_ ? round_up(bytes_of<T>(band_.span(band_.lines) * line_numbers()), kAlignBytes) : 0;
  }
  int64_t block_bytes() const {
    return project_ ? round_up(bytes_of<T>(round_up(rows_, MatrixUnit::kRows) * pitch_), kAlignBytes) : 0;
  }
  int64_t parts_bytes() const {
    return std::max(expand_ ? expand_->scratch_bytes() : 0, project_ ? project_->scratch_bytes() : 0);
  }
  Scratch place(void* own) const {
    char* const at = static_cast<char*>(own);
    Scratch s;
    s.outputs = static_cast<void**>(own);
    s.between = reinterpret_cast<T**>(s.outputs + table_rows());
    s.residuals = const_cast<const void**>(s.outputs + 2 * table_rows());
    s.lines = s.residuals + table_rows();
    s.band = reinterpret_cast<T*>(at + table_bytes());
    s.block = reinterpret_cast<T*>(at + table_bytes() + band_bytes());
    s.parts = at + table_bytes() + band_bytes() + block_bytes();
    return s;
  }

  // Expands lines [first, last) of image n, or slices of a volume.
  void expand(int64_t n, int64_t first, int64_t last, const ConvPointers& p, const Scratch& own) const {
    const View& view = *p.src_view;
    const int64_t width = view.size[2], height = band_.axis == 0 ? view.size[1] : 1;
    const bool dense = view.stride[1] == width * view.stride[2] &&
                       (band_.axis == 1 || view.stride[0] == view.size[1] * view.stride[1]);
    const int64_t bytes = element_bytes(view.element);
    const char* const src =
        p.source<char>() + (n * view.batch_stride + first * view.stride[static_cast<size_t>(band_.axis)]) * bytes;
    const int64_t rows = (last - first) * height * width, run = dense ? rows : width;
    for (int64_t begin = 0; begin < rows; begin += run) {
      const int64_t line = begin / width;
      const char* const from = src + (band_.axis == 0 ? line / height * view.stride[0] + line % height * view.stride[1]
                                                      : line * view.stride[1]) *
                                         bytes;
      for (int64_t i = 0; i < run; i += kExpandRows) {
        const int64_t some = std::min(kExpandRows, run - i);
        for (int64_t j = 0; j < some; ++j) own.outputs[j] = own.band + (begin + i + j) * expanded_.channels;
        expand_->run(from + i * view.stride[2] * bytes, view.stride[2], some, false, own.outputs, nullptr, own.parts);
      }
    }
  }

  // Computes outputs [begin, begin + rows) of the list of all. src: the depthwise convolution's input from position
  // `origin` on.
  void run_block(int64_t begin, int64_t rows, const T* src, const View& view, const Axes& origin, const ConvPointers& p,
                 const Scratch& own) const {
    place(*p.dst_view, p.dst, begin, rows, own.outputs);
    const bool adds = p.residual != nullptr;
    if (adds) place(*p.residual_view, p.residual, begin, rows, own.residuals);
    T** results = reinterpret_cast<T**>(own.outputs);
    if (project_) {
      for (int64_t m = 0; m < rows; ++m) {
        own.between[m] = own.block + m * pitch_;
        std::fill(own.between[m] + problem_.out_channels, own.between[m] + pitch_, T{});
      }
      results = own.between;
    }
    const T* const* const residuals = adds && !project_ ? reinterpret_cast<const T* const*>(own.residuals) : nullptr;
    for_runs(phase_, begin, rows, [&](int64_t m, int64_t, int64_t, int64_t, int64_t, int64_t length) {
      for (int64_t i = 0; i < length; i += DepthwiseLines::kMostOutputs) {
        const int64_t some = std::min(DepthwiseLines::kMostOutputs, length - i);
        lines_.run(0, begin + m + i, some, src, view, origin, results + m + i,
                   residuals != nullptr ? residuals + m + i : nullptr, own.lines);
      }
    });
    if (!project_) return;
    project_->run(own.block, pitch_, rows, kPadded, own.outputs, adds ? own.residuals : nullptr, own.parts);
  }

  // table[m] = row begin + m of the output (or residual).
  template <class Void>
  void place(const View& view, Void* base, int64_t begin, int64_t rows, Void** table) const {
    with_element(view.element, [&](auto number) {
      using Row = std::conditional_t<std::is_const_v<Void>, const decltype(number), decltype(number)>;
      fill_outputs(phase_, view, static_cast<Row*>(base), begin, rows, reinterpret_cast<Row**>(table));
    });
  }

  ConvProblem problem_;  // the depthwise convolution's
  int64_t rows_;         // of a block
  int64_t pitch_ = 0;    // numbers from one row of the depthwise convolution's results to the next
  Band band_;
  DepthwiseLines lines_;
  TapPhase phase_;
  View expanded_;  // the whole expanded image, of which a band is in memory
  std::unique_ptr<PixelProduct> expand_, project_;
};

// Several runs in sequence. Each reads from shared memory what the run before it wrote there.
class Sequence final : public ConvRun {
 public:
  // problem: the one that `run` solves.
  void add(std::unique_ptr<ConvRun> run, const ConvProblem& problem) {
    runs_.push_back(std::move(run));
    outs_.push_back(View::dense(problem.batch, problem.out_size, problem.out_channels));
    outs_.back().element = problem.out_element;
  }

  int stages() const override {
    int sum = 0;
    for (const auto& run : runs_) sum += run->stages();
    return sum;
  }
  int64_t chunks(int stage) const override { return runs_[find(&stage)]->chunks(stage); }
  int64_t own_bytes() const override {
    int64_t most = 0;
    for (const auto& run : runs_) most = std::max(most, run->own_bytes());
    return most;
  }
  int64_t shared_bytes() const override {
    int64_t most = 0;
    for (const auto& run : runs_) most = std::max(most, run->shared_bytes());
    return between(runs_.size() - 1) + most;
  }

  void run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    const size_t i = find(&stage);
    char* const shared = static_cast<char*>(scratch.shared);
    ConvPointers own = p;
    if (i > 0) {
      own.src = shared + between(i - 1);
      own.src_view = &outs_[i - 1];
    }
    if (i + 1 < runs_.size()) {
      own.dst = shared + between(i);
      own.dst_view = &outs_[i];
      own.residual = nullptr;
    }
    scratch.shared = shared + between(runs_.size() - 1);
    runs_[i]->run(stage, chunk, own, scratch);
  }

 private:
  // The run that a stage belongs to. *stage becomes the stage of that run.
  size_t find(int* stage) const {
    size_t i = 0;
    for (; *stage >= runs_[i]->stages(); ++i) *stage -= runs_[i]->stages();
    return i;
  }
  // The offset of run i's output in shared memory.
  int64_t between(size_t i) const {
    int64_t at = 0;
    for (size_t j = 0; j < i; ++j)
      at += round_up(outs_[j].rows() * outs_[j].channels * element_bytes(outs_[j].element), kAlignBytes);
    return at;
  }

  std::vector<std::unique_ptr<ConvRun>> runs_;
  std::vector<View> outs_;
};

bool is_pointwise(const BlockPart& part) {
  const Window& w = part.conv->window();
  return w.taps() == 1 && w.groups == 1 && !w.transposed && w.stride == Axes{1, 1, 1} && w.padding_low == Axes{0, 0, 0};
}

std::string why_no_block(const DepthwiseBlock& block) {
  const Convolution& middle = *block.depthwise.conv;
  const int64_t groups = middle.window().groups;
  if (groups != middle.in_channels() || groups != middle.out_channels() || middle.window().transposed) {
    return "the convolution in the middle is not depthwise";
  }
  if ((block.expand && !is_pointwise(*block.expand)) || (block.project && !is_pointwise(*block.project))) {
    return "its neighbour is not 1x1 of stride 1 without padding and groups";
  }
  return block.expand || block.project ? "" : "the depthwise convolution has no neighbour";
}

// The bands that are expected to be fastest, among those whose inputs take up half of L2. There are none where bands do
// not pay: where each thread's share of the expanded image stays in its cache anyway.
Band bands_of(const DepthwiseBlock& block, int threads, bool forced) {
  const ConvProblem& p = block.depthwise.problem;
  Band best(p);
  const int64_t line = p.in_size[2] * p.in_channels * (best.axis == 0 ? p.in_size[1] : 1);
  if (!forced && bytes_of(best.size * line) / threads < l2_bytes() / 4) return best;
  int64_t least = INT64_MAX;
  for (int64_t lines = 1; lines <= best.count; ++lines) {
    const int64_t span = best.span(lines), bands = ceil_div(best.count, lines);
    if (lines > 1 && bytes_of(span * line) > l2_bytes() / 2) break;
    const bool repeats = static_cast<double>(bands * span) > kMostRepeated * static_cast<double>(best.size);
    if (!forced && (repeats || bytes_of(span * line) > l2_bytes() / 2)) continue;
    const int64_t time = ceil_div(p.batch * bands, threads) * (span + lines * best.step);
    if (time > least) continue;
    least = time;
    best.lines = lines;
  }
  if (!forced && best.lines > 0 && p.batch * best.bands() < threads) best.lines = 0;
  return best;
}

// Decides how what lies between the convolutions is stored, and returns whether that is bfloat16: where both 1x1
// convolutions multiply nothing else, or a tensor of it takes the place of one that is not there. They would round what
// lies between anyway. In float32, the block reads and writes float32 as well; conversions are the caller's.
bool set_between(const Chosen& chosen, DepthwiseBlock* block) {
  const auto narrow = [](const Algorithm* algorithm, const std::optional<BlockPart>& part, Element element) {
    return part ? bfloat_parts(*algorithm) == 1 : element == Element::kBfloat16;
  };
  ConvProblem& middle = block->depthwise.problem;
  ConvProblem& first = block->expand ? block->expand->problem : middle;
  ConvProblem& last = block->project ? block->project->problem : middle;
  const bool all = narrow(chosen.expand, block->expand, first.in_element) &&
                   narrow(chosen.project, block->project, last.out_element) &&
                   (block->project || last.residual_element.value_or(last.out_element) == last.out_element);
  const Element between = all ? Element::kBfloat16 : Element::kFloat32;
  if (!all) {
    first.in_element = last.out_element = between;
    last.residual_element.reset();
  }
  if (block->expand) first.out_element = middle.in_element = between;
  if (block->project) last.in_element = middle.out_element = between;
  return all;
}

std::unique_ptr<ConvRun> blocked_run(bool narrow, const Chosen& chosen, const DepthwiseBlock& block,
                                     const MicrokernelSet& set, int threads, int64_t rows, const Band& band) {
  if (narrow) return std::make_unique<BlockedRun<Bfloat16>>(chosen, block, set, threads, rows, band);
  return std::make_unique<BlockedRun<float>>(chosen, block, set, threads, rows, band);
}

}  // namespace

BlockPlan plan_block(const Family& family, const DepthwiseBlock& given, const MicrokernelSet& set, int threads) {
  DepthwiseBlock block = given;
  const std::string reason = why_no_block(block);
  require(reason.empty(), reason);
  const bool banded = family.name == "banded", blocked = family.name == "blocked", staged = family.name == "staged";
  const bool free = family.name == "auto" || family.name == "direct";
  require(!banded || block.expand, "banded: there is no 1x1 convolution in front");
  require(!blocked || block.project, "blocked: there is no 1x1 convolution behind");

  // First what each convolution runs by. The tensors between them stay in a thread's cache.
  const Family parts{banded || blocked || staged ? "auto" : family.name, family.digits};
  BlockPlan plan;
  const auto choose = [&](const BlockPart& part) {
    ConvProblem inside = part.problem;
    inside.in_cache = true;
    const Algorithm& algorithm = choose_algorithm(parts, part.chosen, inside, set);
    plan.parts.push_back(algorithm.name);
    return &algorithm;
  };
  Chosen chosen;
  if (block.expand) chosen.expand = choose(*block.expand);
  chosen.depthwise = choose(block.depthwise);
  if (block.project) chosen.project = choose(*block.project);
  ConvProblem whole = (block.project ? *block.project : block.depthwise).problem;
  const ConvProblem& first = (block.expand ? *block.expand : block.depthwise).problem;
  whole.in_size = first.in_size;
  whole.in_channels = first.in_channels;
  whole.in_element = first.in_element;
  const bool narrow = set_between(chosen, &block);
  const auto finished = [&](const char* algorithm, std::unique_ptr<ConvRun> run) {
    plan.algorithm = algorithm;
    plan.run =
        narrow || whole.is_float32() ? std::move(run) : std::make_unique<ConvertedRun>(std::move(run), whole, set);
    return std::move(plan);
  };
  // A band or a block multiplies pixels by "pointwise" or on a matrix unit; any other algorithm needs stages.
  const auto in_block = [](const Algorithm* algorithm) {
    return algorithm == nullptr || algorithm->needs_matrix_unit || algorithm == &algorithm_called("pointwise");
  };
  const bool both = chosen.depthwise == &algorithm_called("depthwise") && in_block(chosen.project);
  const bool all = both && in_block(chosen.expand);

  const ConvProblem& problem = block.depthwise.problem;
  const int64_t pixels = problem.batch * problem.out_size[0] * problem.out_size[1] * problem.out_size[2];
  // The numbers of a block take up a quarter of L2. All blocks have about the same height; each thread gets two or
  // more.
  const int64_t fits = l2_bytes() / 4 / bytes_of(problem.out_channels);
  const int64_t most = std::clamp<int64_t>(fits, 1, kMostRows);
  const int64_t blocks = std::max<int64_t>(threads > 1 ? 2 * threads : 1, ceil_div(pixels, most));
  const int64_t rows = std::max<int64_t>(1, ceil_div(pixels, blocks));
  if (block.expand && all && (banded || free)) {
    const Band band = bands_of(block, threads, banded);
    if (band.lines > 0) {
      return finished("banded", blocked_run(narrow, chosen, block, set, threads, most, band));
    }
  }
  auto sequence = std::make_unique<Sequence>();
  const auto add = [&](const Algorithm& algorithm, const BlockPart& part) {
    const PackedWeights& weights = part.conv->packed(algorithm, part.problem, set, threads);
    sequence->add(plan_run(algorithm, {part.problem, *part.conv, weights, set, part.activation, threads}),
                  part.problem);
  };
  if (block.expand) add(*chosen.expand, *block.expand);
  if (block.project && both && (blocked || (free && rows >= kLeastRows))) {
    Band none(problem);
    sequence->add(blocked_run(narrow, chosen, block, set, threads, rows, none), block.project->problem);
    return finished("blocked", std::move(sequence));
  }
  add(*chosen.depthwise, block.depthwise);
  if (block.project) add(*chosen.project, *block.project);
  return finished("staged", std::move(sequence));
}

}  // namespace convoxel
