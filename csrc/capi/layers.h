// The convolutions that a file lists, of floats and of whole numbers.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../convolution.h"
#include "../quantised_convolution.h"
#include "json.h"
#include "tensor_file.h"

namespace convoxel::capi {

// A list of convolutions of one kind; null where the file's layer is of the other kind.
template <class Kind>
struct LayersOf {
  std::vector<std::shared_ptr<const Kind>> listed;
  // Those whose padding follows from open sizes, for as long as a plan holds them.
  std::map<std::pair<size_t, Axes>, std::weak_ptr<const Kind>> padded;
};

// One thread at a time may ask.
class Layers {
 public:
  // file, listed: outlive this. Throws Mistake if a layer makes no sense.
  Layers(const TensorFile& file, const Json& listed);

  // The convolution with its own padding, or with this one. Throws Mistake if there is none of this kind.
  template <class Kind>
  std::shared_ptr<const Kind> find(size_t index, const std::optional<Axes>& padding);

 private:
  void make(const Json& layer, const Axes& padding, std::shared_ptr<const Convolution>* floats,
            std::shared_ptr<const QuantisedConvolution>* whole) const;
  LayersOf<Convolution>& all(const Convolution*) { return floats_; }
  LayersOf<QuantisedConvolution>& all(const QuantisedConvolution*) { return whole_; }

  const TensorFile& file_;
  const Json& listed_;
  LayersOf<Convolution> floats_;
  LayersOf<QuantisedConvolution> whole_;
};

}  // namespace convoxel::capi
