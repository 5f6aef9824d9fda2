// Convolutions of every kind: what a layer is, and the table of algorithms that can run it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "buffer.h"
#include "fork_mutex.h"
#include "microkernels.h"
#include "view.h"

namespace convoxel {

// A layer's window. Padding at the high end is not stored: the output's size decides how far the window goes.
struct Window {
  Axes kernel{1, 1, 1};
  Axes stride{1, 1, 1};
  Axes dilation{1, 1, 1};
  Axes padding_low{0, 0, 0};  // may be negative: a crop
  int64_t groups = 1;
  bool transposed = false;
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// A window and the channels that it maps.
struct Layer {
  Window window;
  int64_t in_channels = 1;
  int64_t out_channels = 1;
};

// The layer of a weight of this shape: (out, in / groups, d, h, w), or transposed (in, out / groups, d, h, w). Throws
// Mistake if the numbers do not fit one another.
Layer layer_of(const std::array<int64_t, 5>& weight, const Axes& stride, const Axes& padding_low, const Axes& dilation,
               int64_t groups, bool transposed);
// Throws Mistake unless a bias of so many numbers has one for each output channel.
void require_bias(const Layer& layer, int64_t count);

// The problem that an algorithm is chosen for: a window, and the sizes of input and output.
struct ConvProblem {
  Window window;
  int64_t batch = 1;
  Axes in_size{1, 1, 1};
  Axes out_size{1, 1, 1};
  int64_t in_channels = 1;
  int64_t out_channels = 1;
  bool gated = false;     // the input is multiplied by a vector of channels, one for each image (squeeze-excite)
  bool in_cache = false;  // input and output stay in the thread's cache, so moving them is free
  Element in_element = Element::kFloat32, out_element = Element::kFloat32;
  std::optional<Element> residual_element = {};
  double macs() const;  // multiply-adds that meet a weight, padding included
  bool is_float32() const;
};

// A phase along one axis: output out_begin + q * out_step, q in [0, count), reads the input at q * in_step + offset[t],
// times tap index[t] of the kernel. A convolution has one phase. A transposed convolution of stride s has s of them,
// each an ordinary convolution of stride 1 with its share of the taps.
struct AxisPhase {
  int64_t count = 0;
  int64_t out_begin = 0;
  int64_t out_step = 1;
  int64_t in_step = 1;
  std::vector<int64_t> index;
  std::vector<int64_t> offset;
};

struct TapPhase {
  AxisPhase axis[kSpatialAxes];
  int64_t taps() const;
  int64_t pixels() const { return axis[0].count * axis[1].count * axis[2].count; }
};

// All phases of a window over outputs of this size. The taps of a phase do not depend on the size.
std::vector<TapPhase> plan_phases(const Window& window, const Axes& out_size);

// Weights in the order in which one algorithm reads them.
struct PackedWeights {
  FloatBuffer data;
  std::vector<int64_t> phase_offset;  // where each phase's weights begin; groups follow one another within a phase
  std::vector<int64_t> group_step;    // floats per group, of each phase
  int64_t size = 0;
};

// Weights as they lie in memory. Steps are in floats and may be negative.
struct Kernels {
  const float* first = nullptr;
  int64_t group = 0, out = 0, in = 0, tap = 0;
  const float& at(int64_t k, int64_t c, int64_t t) const { return first[k * out + c * in + t * tap]; }
  // Copies a tap's weights of channels [c_begin, c_end) and of columns [begin, end), a vector at most, by channel,
  // column. `step` floats lie between channels. Zeros fill the vector.
  void copy_columns(const MicrokernelSet& set, int64_t t, int64_t c_begin, int64_t c_end, int64_t begin, int64_t end,
                    float* out, int64_t step) const;

  // Those of a dense array of this window; see Convolution.
  static Kernels dense(const float* first, const Window& window, int64_t in_channels, int64_t out_channels);
};

struct ConvPointers {
  const void* src;  // element 0 of the source view; views say of which type
  void* dst;
  const void* residual;  // or null
  const View* src_view;
  const View* dst_view;
  const View* residual_view;
  const float* gate = nullptr;  // the first image's, or null
  int64_t gate_step = 0;        // from one image's to the next one's

  template <class T = float>
  const T* source() const {
    return static_cast<const T*>(src);
  }
  template <class T = float>
  T* result() const {
    return static_cast<T*>(dst);
  }
  template <class T = float>
  const T* added() const {
    return static_cast<const T*>(residual);
  }
};

// Scratch memory of one run: a part for each worker, and a part that all workers of the run share.
struct ConvScratch {
  void* own = nullptr;
  void* shared = nullptr;
};

// One convolution with all decisions made; an algorithm's `plan` makes it. Its stages run one after another, the chunks
// of a stage in any order and on any worker.
class ConvRun {
 public:
  virtual ~ConvRun() = default;
  virtual int stages() const { return 1; }
  virtual int64_t chunks(int stage) const = 0;
  virtual int64_t own_bytes() const = 0;  // per worker
  virtual int64_t shared_bytes() const { return 0; }
  virtual void run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const = 0;
};

class Convolution;

// What an algorithm makes a run from.
struct ConvSetup {
  ConvProblem problem;
  const Convolution& conv;
  const PackedWeights& weights;
  const MicrokernelSet& set;
  Activation activation;
  int threads;
};

// The run of one convolution, which keeps what it was made from.
class AlgorithmRun : public ConvRun {
 protected:
  explicit AlgorithmRun(const ConvSetup& setup)
      : problem_(setup.problem),
        conv_(setup.conv),
        weights_(setup.weights),
        set_(setup.set),
        activation_(setup.activation) {}

  const ConvProblem problem_;
  const Convolution& conv_;
  const PackedWeights& weights_;
  const MicrokernelSet& set_;
  const Activation activation_;
};

template <class Run>
std::unique_ptr<ConvRun> make_run(const ConvSetup& setup) {
  return std::make_unique<Run>(setup);
}

struct Algorithm {
  const char* name;
  const char* summary;                                        // one line: how it works, and for which problems
  bool exact;                                                 // on small integers, as a direct sum is
  std::string (*unsupported)(const ConvProblem&);             // the reason, or ""
  double (*cost)(const ConvProblem&, const MicrokernelSet&);  // in the units of cost.h
  PackedWeights (*pack)(const Convolution&, const ConvProblem&, const MicrokernelSet&, int threads);
  std::unique_ptr<ConvRun> (*plan)(const ConvSetup&);
  bool gates = false;  // runs gated problems, too
  // Names the properties of the problem that the packed weights depend on; null if there are none.
  std::string (*packing)(const ConvProblem&, const MicrokernelSet&) = nullptr;
  bool needs_matrix_unit = false;
  int digits = 24;  // binary digits of the numbers it multiplies: float32's 24, or fewer
  // Whether it reads and writes the tensors as they are stored; null if it knows float32 alone. Else they are
  // converted.
  bool (*stores)(const ConvProblem&) = nullptr;
  // Numbers of a kernel's transform; null if it packs the weights as they are.
  int64_t (*packed_numbers)(const ConvProblem&) = nullptr;
  bool converts(const ConvProblem& p) const { return !p.is_float32() && (stores == nullptr || !stores(p)); }
};

const std::vector<Algorithm>& algorithms();
const Algorithm& algorithm_called(const std::string& name);  // the name must be in the table
std::vector<Algorithm> product_algorithms();
std::vector<Algorithm> fixed24_algorithms();
std::vector<Algorithm> planar_algorithms();
std::vector<Algorithm> depthwise_algorithms();
std::vector<Algorithm> winograd_algorithms();
std::vector<Algorithm> fft_algorithms();
std::vector<Algorithm> bfloat_algorithms();

// A problem by name: everything that the choice of an algorithm depends on, in tables, files and the tuning cache.
// Shapes are (n, d, h, w, c).
std::string problem_text(const Window& window, const std::array<int64_t, 5>& in_shape,
                         const std::array<int64_t, 5>& out_shape, const std::string& activation, bool residual,
                         bool gated, Element in_element, Element out_element);

struct Candidate {
  const Algorithm* algorithm;
  double cost;
};

// What a caller allows. A name is that of one algorithm, a family ("direct", "winograd") or "auto" (all). It may carry
// the kernel, as in "winograd(4,3)". An algorithm that multiplies numbers of fewer binary digits is not allowed.
// Weights that serve one run, as in training, are packed in its time.
struct Family {
  std::string name = "auto";
  int digits = 24;
  bool once = false;
};

// The allowed algorithms that support the problem, cheapest first. Throws Mistake with the reason if there is none.
//
// Invariant: the order follows from the window, the sizes of one image, and the instruction set. It depends neither on
// the machine that runs nor on threads nor, unless the weights serve once, on the batch: equal images get equal bits.
std::vector<Candidate> rank_algorithms(const Family& family, const ConvProblem& problem, const MicrokernelSet& set);

// The algorithm called `chosen` where it is allowed and supports the problem, else the cheapest one.
const Algorithm& choose_algorithm(const Family& family, const std::string& chosen, const ConvProblem& problem,
                                  const MicrokernelSet& set);

// The run of an algorithm; where it knows float32 alone, with conversions before and after it.
std::unique_ptr<ConvRun> plan_run(const Algorithm& algorithm, const ConvSetup& setup);

// A layer: window, weights and bias. Immutable. It packs its weights once for each algorithm (and packing) that asks.
class Convolution {
 public:
  // weight: (out_channels, in_channels / groups, kernel), or transposed (in_channels, out_channels / groups, kernel),
  // without gaps unless kernels say where it lies. It is kept, not copied, since weights take most of a network's
  // memory. If it lies in a file, its pages are released as they are packed; the system reads them again if another
  // algorithm asks.
  Convolution(Window window, int64_t in_channels, int64_t out_channels, std::shared_ptr<const float> weight,
              const float* bias, bool from_file = false, std::optional<Kernels> kernels = {});
  Convolution(const Convolution&) = delete;
  Convolution& operator=(const Convolution&) = delete;

  const Window& window() const { return window_; }
  int64_t in_channels() const { return in_channels_; }
  int64_t out_channels() const { return out_channels_; }
  const float* bias() const { return bias_.get(); }
  const float* zeros() const { return zeros_.get(); }  // in_channels of them: what padding reads
  // The weights of a group, by output channel of the group, input channel of the group, and tap.
  Kernels kernels(int64_t group) const {
    Kernels found = kernels_;
    found.first += group * kernels_.group;
    return found;
  }
  // Releases the file's pages with the weights of output channels [begin, end), which have been packed.
  void give_back(int64_t begin, int64_t end) const;

  const PackedWeights& packed(const Algorithm& algorithm, const ConvProblem& problem, const MicrokernelSet& set,
                              int threads) const;
  int64_t packed_bytes() const;

 private:
  Window window_;
  int64_t in_channels_;
  int64_t out_channels_;
  std::shared_ptr<const float> weight_;
  Kernels kernels_;
  bool from_file_;
  FloatBuffer bias_;
  FloatBuffer zeros_;
  mutable ForkMutex mutex_;
  mutable std::map<std::string, std::unique_ptr<PackedWeights>> packed_;
};

}  // namespace convoxel
