// The steps of a plan: a row STEP(name, (parameters), documentation, Python arguments...) for each.
//
// An including file first defines STEP as what it makes of a row: a member function of Plan (plan.h), or its binding
// (bindings.cpp), which adds the argument `name`. The functions check the views and add what runs.

STEP(convolve,
     (std::shared_ptr<const Convolution> convolution, View src, View dst, std::optional<View> residual,
      std::string activation, Slope slope, std::string algorithm, std::optional<View> gate,
      std::optional<Axes> padding_low, std::string chosen),
     "dst = activation(convolution(src * gate) + bias + residual).\n\n"
     "gate: (n, 1, 1, 1, c), one factor for each image and channel of src (squeeze-and-excite).\n"
     "padding_low: in place of the convolution's own, for a part of an image.\n"
     "chosen: the algorithm of the family `algorithm` that runs if it can (default: the cheapest).",
     "convolution"_a, "src"_a, "dst"_a, "residual"_a = nb::none(), "activation"_a = "none", "slope"_a = 0.0,
     "algorithm"_a = "auto", "gate"_a = nb::none(), "padding_low"_a = nb::none(), "chosen"_a = "")
STEP(convolve_block,
     (std::vector<std::shared_ptr<const Convolution>> convolutions, size_t depthwise, View src, View dst,
      std::optional<View> residual, std::vector<std::pair<std::string, Slope>> activations, std::string algorithm,
      std::optional<Axes> padding_low, std::vector<std::string> parts),
     "dst = src through convolutions one after another, plus residual, without memory for what lies between.\n\n"
     "convolutions: one is depthwise; at most one lies in front of it and one behind, 1x1, stride 1, no groups.\n"
     "depthwise: the index of that one.\n"
     "activations: one for each convolution, or none at all; the last one is applied after the residual is added.\n"
     "algorithm: \"auto\"; \"banded\" (each thread expands the lines that a band of outputs needs, and goes on with "
     "them);\n\"blocked\" (each thread projects what it has just computed; an expansion comes before); \"staged\" (one "
     "after the\nother); or the name of an algorithm that runs all of them, one after the other.\n"
     "padding_low: in place of the depthwise convolution's own, for a part of an image.\n"
     "parts: the algorithm of each convolution that runs if it can (default: the cheapest ones); `steps` names those "
     "that run.",
     "convolutions"_a, "depthwise"_a, "src"_a, "dst"_a, "residual"_a = nb::none(), "activations"_a = nb::make_tuple(),
     "algorithm"_a = "auto", "padding_low"_a = nb::none(), "parts"_a = nb::make_tuple())
STEP(
    weight_gradient,
    (View src, View gradient, View dst, Axes stride, Axes dilation, Axes padding_low, std::string algorithm),
    "The gradient of a convolution's weights: dst[k, t, c] = sum over positions o of gradient[o, k] * "
    "src[o * stride + t * dilation - padding_low, c].\n\n"
    "gradient: of the convolution's result. dst: (out_channels, kd, kh, kw, in_channels). One group.\n"
    "algorithm: \"outer\" (sums of outer products, exact on small whole numbers), \"winograd(4)\" (kernels of 3 and 1, "
    "no stride) or \"auto\", which follows from the sizes.",
    "src"_a, "gradient"_a, "dst"_a, "stride"_a = nb::make_tuple(1, 1, 1), "dilation"_a = nb::make_tuple(1, 1, 1),
    "padding_low"_a = nb::make_tuple(0, 0, 0), "algorithm"_a = "auto")
STEP(convolve_quantised,
     (std::shared_ptr<const QuantisedConvolution> convolution, View src, View dst, std::optional<View> residual,
      std::string activation, Slope slope, std::optional<Levels> result, std::optional<Levels> residual_levels,
      std::optional<Axes> padding_low, std::string unit),
     "dst = activation(convolution(src) + bias + residual), where src holds levels, four in a float.\n\n"
     "result, residual_levels: (scale, zero) if dst or residual hold levels, too; level q is (q - zero) * scale.\n"
     "padding_low: in place of the convolution's own, for a part of an image.\n"
     "unit: one of ``integer_units`` (default: the best); all compute the same sums.",
     "convolution"_a, "src"_a, "dst"_a, "residual"_a = nb::none(), "activation"_a = "none", "slope"_a = 0.0,
     "result"_a = nb::none(), "residual_levels"_a = nb::none(), "padding_low"_a = nb::none(), "unit"_a = "")
STEP(quantise, (View src, View dst, Levels levels),
     "dst = the level nearest to src / scale + zero, halves to even, four in a float; levels is (scale, zero).",
     "src"_a, "dst"_a, "levels"_a)
STEP(dequantise, (View src, View dst, Levels levels),
     "dst = (src - zero) * scale of levels, four in a float; levels is (scale, zero).", "src"_a, "dst"_a, "levels"_a)
STEP(max_pool_levels, (View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding_low),
     "Largest level of each window, four in a float; positions outside of src do not count.", "src"_a, "dst"_a,
     "kernel"_a, "stride"_a, "dilation"_a = nb::make_tuple(1, 1, 1), "padding_low"_a = nb::make_tuple(0, 0, 0))
STEP(copy, (View src, View dst), "dst = src, bit by bit.", "src"_a, "dst"_a)
STEP(max_pool, (View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding_low),
     "Largest value of each window; positions outside of src do not count.", "src"_a, "dst"_a, "kernel"_a, "stride"_a,
     "dilation"_a = nb::make_tuple(1, 1, 1), "padding_low"_a = nb::make_tuple(0, 0, 0))
STEP(resample, (View src, View dst, std::vector<AxisTable> axes),
     "dst[o] = sum of weight * src[index] over the taps of three axes, each (index, weight) of shape (out, taps), or\n"
     "(words, numbers, fractions), a rule for them.\n\n"
     "An index of -1 is no tap. Average pooling, adaptive pooling and every linear resize are of this form.",
     "src"_a, "dst"_a, "axes"_a)
STEP(combine, (std::string op, View a, View b, View dst, std::string activation, Slope slope),
     "dst = activation(a op b); axes of size 1 of a and b are repeated.\n\n"
     "op: \"add\", \"subtract\", \"multiply\", \"divide\", \"maximum\" or \"minimum\".",
     "op"_a, "a"_a, "b"_a, "dst"_a, "activation"_a = "none", "slope"_a = 0.0)
STEP(reduce, (std::string op, View src, View dst),
     "Mean, max or sum (op) over every axis along which dst has size 1: space, channels or both.", "op"_a, "src"_a,
     "dst"_a)
STEP(softmax, (View src, View dst, bool log), "Softmax over the channels of each pixel, or its logarithm.", "src"_a,
     "dst"_a, "log"_a = false)
STEP(permute_channels, (View src, View dst, std::vector<int32_t> index), "Channel c of dst = channel index[c] of src.",
     "src"_a, "dst"_a, "index"_a)
STEP(local_response_norm, (View src, View dst, int64_t size, float alpha, float beta, float bias),
     "dst = src / (bias + alpha * m) ** beta, m the mean of src**2 over size channels, as in PyTorch.\n\n"
     "The window of channel c begins at c - size // 2; channels that do not exist count as 0.",
     "src"_a, "dst"_a, "size"_a, "alpha"_a = 1e-4, "beta"_a = 0.75, "bias"_a = 1.0)
STEP(prelu, (View src, View dst, std::vector<float> slope),
     "dst = src where that is not negative, src * slope elsewhere; one slope per channel.", "src"_a, "dst"_a, "slope"_a)
STEP(affine,
     (View src, View dst, std::vector<float> scale, std::vector<float> shift, std::string activation, Slope slope),
     "dst = activation(src * scale + shift), one scale and shift per channel.", "src"_a, "dst"_a, "scale"_a, "shift"_a,
     "activation"_a = "none", "slope"_a = 0.0)
STEP(convert, (View src, View dst), "Copy a view into another one, whose numbers may be stored otherwise.", "src"_a,
     "dst"_a)
STEP(normalise,
     (View src, View dst, int64_t groups, std::vector<float> weight, std::vector<float> bias, float eps,
      std::string activation, Slope slope),
     "Each sample minus its mean, over its standard deviation, per group of channels; then * weight + bias.\n\n"
     "groups = channels is instance normalisation, 1 is layer normalisation over channels and space.",
     "src"_a, "dst"_a, "groups"_a, "weight"_a, "bias"_a, "eps"_a, "activation"_a = "none", "slope"_a = 0.0)
STEP(statistics, (View src, View dst, float eps),
     "The statistics of each sample and channel over space: mean, what its rounding took away, 1 / sqrt(variance + "
     "eps).\n\ndst: (n, 1, 1, 1, 3 * channels), the means first.",
     "src"_a, "dst"_a, "eps"_a)
STEP(normalise_by, (View src, View statistics, View dst, std::vector<float> weight, std::vector<float> bias),
     "dst = (src - mean) / deviation * weight + bias, by what ``statistics`` has found.", "src"_a, "statistics"_a,
     "dst"_a, "weight"_a, "bias"_a)
STEP(normalise_gradient,
     (View src, View gradient, View statistics, View dst, View sums, std::vector<float> weight, std::vector<float> bias,
      float slope),
     "The gradients of ``normalise_by``, of statistics of src, with respect to src (dst), and to weight and bias "
     "(sums,\nof shape (1, 1, 1, 1, 2 * channels)). gradient is that of a result whose numbers that are not positive "
     "were\nmultiplied by slope: 0 behind a ReLU, 1 without an activation.",
     "src"_a, "gradient"_a, "statistics"_a, "dst"_a, "sums"_a, "weight"_a, "bias"_a, "slope"_a)
STEP(import_channels_first, (int buffer, View dst), "Copy a dense (n, c, d, h, w) buffer into a view.", "buffer"_a,
     "dst"_a)
STEP(export_channels_first, (View src, int buffer), "Copy a view into a dense (n, c, d, h, w) buffer.", "src"_a,
     "buffer"_a)

#undef STEP
