#include "layers.h"

#include <string>

#include "argument.h"

namespace convoxel::capi {
namespace {

constexpr int64_t kMostLayer = int64_t{1} << 31;  // of a number of a convolution's window

Axes axes_of(const Json& layer, const char* name) {
  Axes found;
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] = bounded(layer[name].list(found.size())[i].integer(), -kMostLayer, kMostLayer);
  }
  return found;
}

}  // namespace

Layers::Layers(const TensorFile& file, const Json& listed) : file_(file), listed_(listed) {
  for (const Json& layer : listed.list()) {
    floats_.listed.emplace_back();
    whole_.listed.emplace_back();
    make(layer, axes_of(layer, "padding_low"), &floats_.listed.back(), &whole_.listed.back());
  }
}

template <class Kind>
std::shared_ptr<const Kind> Layers::find(size_t index, const std::optional<Axes>& padding) {
  LayersOf<Kind>& layers = all(static_cast<const Kind*>(nullptr));
  require_content(index < layers.listed.size() && layers.listed[index] != nullptr,
                  "a step refers to no convolution of its kind");
  const std::shared_ptr<const Kind>& own = layers.listed[index];
  if (!padding || *padding == own->window().padding_low) return own;
  std::weak_ptr<const Kind>& kept = layers.padded[{index, *padding}];
  std::shared_ptr<const Kind> found = kept.lock();
  if (found == nullptr) {
    std::shared_ptr<const Convolution> floats;
    std::shared_ptr<const QuantisedConvolution> whole;
    make(listed_.list()[index], *padding, &floats, &whole);
    if constexpr (std::is_same_v<Kind, Convolution>) {
      found = std::move(floats);
    } else {
      found = std::move(whole);
    }
    kept = found;
  }
  return found;
}

template std::shared_ptr<const Convolution> Layers::find(size_t, const std::optional<Axes>&);
template std::shared_ptr<const QuantisedConvolution> Layers::find(size_t, const std::optional<Axes>&);

void Layers::make(const Json& layer, const Axes& padding, std::shared_ptr<const Convolution>* floats,
                  std::shared_ptr<const QuantisedConvolution>* whole) const {
  const auto floats_of = [&](const Json& name) { return numbers_of<float>(file_, name, "F32"); };
  const std::string& name = layer["weight"].text();
  const StoredTensor& weight = file_.tensor(name);
  std::array<int64_t, 5> shape;
  int64_t count = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    shape[i] = bounded(layer["shape"].list(shape.size())[i].integer(), 1, kMostExtent);
    const bool overflows = __builtin_mul_overflow(count, shape[i], &count);
    bounded(overflows ? INT64_MAX : count, 0, kMostNumbers);
  }
  require_content(count == weight.count(), "a weight has another size than its layer");
  const Layer made = layer_of(shape, axes_of(layer, "stride"), padding, axes_of(layer, "dilation"),
                              layer["groups"].integer(), layer["transposed"].truth());
  std::vector<float> bias;
  if (!layer["bias"].is_null()) bias = floats_of(layer["bias"]);
  const Json* zero = layer.find("zero");
  if (zero == nullptr) {
    if (!bias.empty()) require_bias(made, static_cast<int64_t>(bias.size()));
    const float* data = reinterpret_cast<const float*>(file_.tensor(name, "F32").data);
    *floats = std::make_shared<const Convolution>(made.window, made.in_channels, made.out_channels,
                                                  std::shared_ptr<const float>(file_.memory(), data),
                                                  bias.empty() ? nullptr : bias.data(), file_.memory()->is_mapped());
  } else {
    *whole = std::make_shared<const QuantisedConvolution>(
        made.window, made.in_channels, made.out_channels, numbers_of<int16_t>(file_, layer["weight"], "I16"),
        floats_of(layer["scale"]), std::move(bias), static_cast<int32_t>(bounded(zero->integer(), 0, 255)));
  }
}

}  // namespace convoxel::capi
