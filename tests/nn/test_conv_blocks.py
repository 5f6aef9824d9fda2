"""Every layer in 1-D, 2-D and 3-D: against its definition, backwards, exported, and through the engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import nn as cnn
from convoxel.arithmetic.window import conv_size, resolve_padding
from convoxel.errors import ConfigError, ShapeError

DIMS = (1, 2, 3)
SIZES = (7, 9, 8)

Make = Callable[[int], nn.Module]

LAYERS: dict[str, Make] = {
    "strided same": lambda d: cnn.Conv(d, 4, 6, 3, stride=2, padding="same"),
    "same, stride above kernel": lambda d: cnn.Conv(d, 4, 6, 2, stride=3, padding="same"),
    "causal": lambda d: cnn.Conv(d, 4, 6, 3, padding="causal", dilation=2),
    "asymmetric": lambda d: cnn.Conv(d, 4, 6, 2, padding=((1, 0),) * d, groups=2),
    "full": lambda d: cnn.Conv(d, 4, 6, 3, padding="full", padding_mode="replicate"),
    "reflect": lambda d: cnn.Conv(d, 4, 6, 3, padding=1, padding_mode="reflect"),
    "circular": lambda d: cnn.Conv(d, 4, 6, 3, padding=1, padding_mode="circular"),
    "transposed": lambda d: cnn.ConvTranspose(d, 4, 6, 3, stride=2, padding=((1, 0),) * d, output_padding=1),
    "separable": lambda d: cnn.SeparableConv(d, 4, 6, 3, padding="same", stride=2, rank=5),
    "depthwise separable": lambda d: cnn.DepthwiseSeparableConv(d, 4, 6, 3, padding="half", stride=2),
    "squeeze": lambda d: cnn.SqueezeExcite(d, 4),
    "max": lambda d: cnn.MaxPool(d, 3, stride=2, padding=((1, 0),) * d),
    "average dilated": lambda d: cnn.AvgPool(d, 2, stride=1, dilation=2),
    "average uncounted": lambda d: cnn.AvgPool(d, 3, stride=2, padding=((1, 0),) * d, count_include_pad=False),
    "blur": lambda d: cnn.BlurPool(d, 4),
    "bed of nails": lambda d: cnn.Unpool(d, 2, mode="fixed"),
    "nearest": lambda d: cnn.Unpool(d, 2, mode="nearest"),
    "resize": lambda d: cnn.Resize(d, 1.5),
    "up transposed": lambda d: cnn.Upsample(d, 4, 3, 2, "transposed"),
    "up resize": lambda d: cnn.Upsample(d, 4, 3, 2, "resize"),
    "up unpool": lambda d: cnn.Upsample(d, 4, 3, 2, "unpool"),
    "up shuffle": lambda d: cnn.Upsample(d, 4, 3, 2, "shuffle"),
    "local": lambda d: cnn.LocallyConnected(d, 4, 3, SIZES[:d], 3, padding=1),
}
VOLUMES: dict[str, Callable[[], nn.Module]] = {
    "inflated": lambda: cnn.InflatedConv(4, 6, 3, padding="same", stride=2, activation="relu"),
    "slices": lambda: cnn.SliceStack(cnn.Conv(2, 12, 2, 3, padding=1)),
}
CASES = [(name, dims) for name in LAYERS for dims in DIMS] + [(name, 3) for name in VOLUMES]


@pytest.mark.parametrize("name, dims", CASES)
def test_layers_train_and_compile(name: str, dims: int) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](dims) if name in LAYERS else VOLUMES[name]()
    x = torch.randn(2, 4, *SIZES[:dims], requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    assert bool(torch.isfinite(x.grad).all()) and x.grad.abs().max() > 0
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in layer.parameters())
    program = cx.compile(layer, x)  # a warning that a part runs in PyTorch would be an error
    found = program(x.detach().numpy())
    assert found.shape == tuple(y.shape)
    scale = float(y.detach().abs().max())
    assert np.allclose(found, y.detach().numpy(), rtol=0, atol=2e-5 * scale) and np.isfinite(found).all()
    if name != "local":  # another size through the same program
        other = torch.randn(1, 4, *(size + 3 for size in SIZES[:dims]))
        assert np.allclose(program(other.numpy()), layer(other).detach().numpy(), rtol=0, atol=1e-4 * scale)


# ---- D8: padding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("padding", ["none", "half", "full", "same", "causal", 1, "pairs"])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (2, 2, 1), (3, 3, 2), (1, 2, 1)])
def test_D8_every_padding_is_that_of_the_arithmetic(
    dims: int, padding: Any, kernel: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    size = SIZES[:dims]
    given = ((2, -1),) * dims if padding == "pairs" else padding
    layer = cnn.Conv(dims, 2, 3, kernel, stride=stride, padding=given, dilation=dilation)
    pairs = resolve_padding(given, (kernel,) * dims, stride, dilation, size)
    x = torch.randn(1, 2, *size)
    padded = nn.functional.pad(x, [side for pair in reversed(pairs) for side in pair])
    function = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[dims - 1]
    expected = function(padded, layer.weight, layer.bias, stride, 0, dilation)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert layer(x).shape[2:] == tuple(
        conv_size(i, kernel, stride, p, dilation) for i, p in zip(size, pairs, strict=True)
    )
    if padding == "same":
        assert layer(x).shape[2:] == tuple(-(-i // stride) for i in size)


@pytest.mark.parametrize("dims", DIMS)
def test_weights_of_torch_load(dims: int) -> None:
    theirs = cnn.conv(dims, 2, 3, 3, padding=1), cnn.conv_transpose(dims, 2, 3, 3, stride=2, padding=1)
    ours = cnn.Conv(dims, 2, 3, 3, padding="half"), cnn.ConvTranspose(dims, 2, 3, 3, stride=2, padding="half")
    x = torch.randn(1, 2, *SIZES[:dims])
    for one, other in zip(theirs, ours, strict=True):
        other.load_state_dict(one.state_dict())
        assert isinstance(other, type(one)) and torch.equal(other(x), one(x))
    assert type(ours[0]) is (cnn.Conv1d, cnn.Conv2d, cnn.Conv3d)[dims - 1]
    assert "padding='same'" in repr(cnn.Conv(dims, 1, 1, 3, stride=2, padding="same"))
    assert "((1, 0)" in repr(cnn.Conv(dims, 1, 1, 3, padding=((1, 0),) * dims))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("padding", [((1, 0),), ((0, 2),), ((1, 1),)])
def test_C6_transposed_with_asymmetric_padding_is_the_adjoint(dims: int, padding: Any) -> None:
    torch.manual_seed(0)
    given = padding * dims
    down = cnn.Conv(dims, 3, 2, 3, stride=2, padding=given, bias=False).double()
    up = cnn.ConvTranspose(dims, 2, 3, 3, stride=2, padding=given, bias=False).double()
    up.load_state_dict(down.state_dict())
    x = torch.randn(1, 3, *SIZES[:dims], dtype=torch.float64)
    y = torch.randn_like(down(x))
    back = up(y, x.shape[2:])
    assert back.shape == x.shape
    assert float((down(x) * y).sum().detach()) == pytest.approx(float((x * back).sum().detach()), rel=1e-10)
    with pytest.raises(ShapeError, match=r"ConvTranspose: output_size is .* can give .* Give sizes among these"):
        up(y, tuple(size + 9 for size in x.shape[2:]))


# ---- D4: kernel shapes -----------------------------------------------------------------------------------


def field_of(net: nn.Module, dims: int, channels: int) -> tuple[int, ...]:
    """The receptive field, by the support of the gradient of the middle output."""
    x = torch.rand(1, channels, *(15,) * dims, requires_grad=True)
    y = net(x)
    y[(0, 0, *(size // 2 for size in y.shape[2:]))].backward()
    places = x.grad[0].abs().sum(0).nonzero()
    return tuple((places.max(0).values - places.min(0).values + 1).tolist())


@pytest.mark.parametrize("dims", DIMS)
def test_D4_two_kernels_of_3_see_what_one_of_5_does_and_cost_less(dims: int) -> None:
    torch.manual_seed(0)
    channels = 3
    stack = nn.Sequential(*[cnn.Conv(dims, channels, channels, 3, bias=False) for _ in range(2)])
    large = cnn.Conv(dims, channels, channels, 5, bias=False)
    assert field_of(stack, dims, channels) == field_of(large, dims, channels) == (5,) * dims
    counts = [sum(p.numel() for p in net.parameters()) for net in (stack, large)]
    assert counts == [2 * 3**dims * channels**2, 5**dims * channels**2]  # 2-D: 18 C² and 25 C²
    for net, size in ((stack, "k3 k3"), (large, "k5")):
        shape = (1, channels, *(15,) * dims)
        described = cx.describe(net, shape)
        assert described.field.size == (5,) * dims and described.params in counts, size


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("kernel, dilation", [(1, 1), (2, 1), (4, 1), (3, 2), (2, 3), ("uneven", 1)])
def test_D4_kernels_of_any_shape(dims: int, kernel: Any, dilation: int) -> None:
    torch.manual_seed(0)
    sizes = (1, 4, 3)[:dims] if kernel == "uneven" else (kernel,) * dims
    layer = cnn.Conv(dims, 2, 2, sizes, dilation=dilation)
    assert field_of(layer, dims, 2) == tuple(dilation * (k - 1) + 1 for k in sizes)
    assert cx.describe(layer, (1, 2, *(15,) * dims)).field.size == field_of(layer, dims, 2)


@pytest.mark.parametrize("dims", DIMS)
def test_D4_bottleneck_projects_channels_down_and_up(dims: int) -> None:
    torch.manual_seed(0)
    wide, narrow = 16, 4
    block = nn.Sequential(cnn.Conv(dims, wide, narrow, 1), cnn.Conv(dims, narrow, narrow, 3, padding="same"),
                          cnn.Conv(dims, narrow, wide, 1))  # fmt: skip
    plain = cnn.Conv(dims, wide, wide, 3, padding="same")
    x = torch.randn(1, wide, *SIZES[:dims])
    assert block(x).shape == plain(x).shape == x.shape
    assert field_of(block, dims, wide) == (3,) * dims
    small, large = (sum(p.numel() for p in net.parameters() if p.dim() > 1) for net in (block, plain))
    assert small == 2 * wide * narrow + 3**dims * narrow**2 and large == 3**dims * wide**2 and small < large
    # A 1×1 convolution is one matrix for all positions.
    mixed = torch.einsum("oc,nc...->no...", block[0].weight.flatten(1), x) + block[0].bias.view(-1, *(1,) * dims)
    assert torch.allclose(block[0](x), mixed, atol=1e-5)


# ---- D5, D9, D12: blocks ---------------------------------------------------------------------------------


def test_D9_separable_layer_is_the_product_of_its_parts() -> None:
    torch.manual_seed(0)
    for dims in (2, 3):
        layer = cnn.SeparableConv(dims, 1, 1, 3, padding=1, bias=False)
        vectors = [part.weight.flatten() for part in layer]
        kernel = vectors[0]
        for vector in vectors[1:]:
            kernel = kernel[..., None] * vector
        x = torch.randn(1, 1, *SIZES[:dims])
        function = (nn.functional.conv2d, nn.functional.conv3d)[dims - 2]
        assert torch.allclose(layer(x), function(x, kernel[None, None], padding=1), atol=1e-6)
        assert sum(p.numel() for p in layer.parameters()) == 3 * dims < 3**dims


def test_separable_parts_carry_their_axes() -> None:
    layer = cnn.SeparableConv(
        3, 2, 4, (1, 3, 5), stride=(2, 1, 3), padding=((0, 0), (1, 0), (2, 2)), dilation=(1, 2, 1)
    )
    assert [part.kernel_size for part in layer] == [(1, 3, 1), (1, 1, 5)]
    assert [part.stride for part in layer] == [(2, 1, 1), (1, 1, 3)], "an axis without a part is strided by the first"
    assert layer[0].bias is None and layer[1].bias is not None
    assert len(cnn.SeparableConv(2, 1, 1, 1)) == 1


@pytest.mark.parametrize("channels, kernel, expected", [((3, 5), 3, (135, 42)), ((64, 128), 5, (204_800, 9_792))])
def test_D12_parameters_of_depthwise_separable(channels: Any, kernel: int, expected: tuple[int, int]) -> None:
    plain = cnn.Conv(2, *channels, kernel, bias=False)
    split = cnn.DepthwiseSeparableConv(2, *channels, kernel, bias=False)
    assert tuple(sum(p.numel() for p in layer.parameters()) for layer in (plain, split)) == expected
    assert sorted(split.state_dict()) == ["depthwise.weight", "pointwise.weight"]


def test_D5_two_and_a_half_dimensions() -> None:
    torch.manual_seed(0)
    layer = cnn.InflatedConv(2, 4, 3, depth_size=5, padding="same", rank=3)
    assert [tuple(p.shape) for p in layer.parameters()] == [(3, 2, 1, 3, 3), (4, 3, 5, 1, 1), (4,)]
    x = torch.randn(1, 2, 6, 7, 8)
    assert layer(x).shape == (1, 4, 6, 7, 8)
    flat = cnn.Conv(2, 6, 4, 3, padding=1)
    stack = cnn.SliceStack(flat, reach=1)
    padded = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    for z in range(6):
        slices = torch.cat([padded[:, :, z + step] for step in range(3)], dim=1)
        assert torch.allclose(stack(x)[:, :, z], flat(slices), atol=1e-6)


def test_squeeze_excite_has_the_names_of_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision.ops.misc", exc_type=(ImportError, RuntimeError))
    theirs = torchvision.SqueezeExcitation(8, 2)
    ours = cnn.SqueezeExcite(2, 8)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 5, 6)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_B2_parameters_of_shared_local_and_full_weights() -> None:
    """A 3×3 image and a 2×2 kernel: 4, 16 and 36 weights."""
    shared = cnn.Conv(2, 1, 1, 2, bias=False)
    local = cnn.LocallyConnected(2, 1, 1, 3, 2, bias=False)
    full = nn.Linear(9, 4, bias=False)
    assert [sum(p.numel() for p in layer.parameters()) for layer in (shared, local, full)] == [4, 16, 36]


@pytest.mark.parametrize("dims", DIMS)
def test_B2_local_with_equal_kernels_is_a_convolution(dims: int) -> None:
    torch.manual_seed(0)
    conv = cnn.Conv(dims, 2, 3, 3, stride=2, padding=1)
    local = cnn.LocallyConnected(dims, 2, 3, SIZES[:dims], 3, stride=2, padding=1)
    with torch.no_grad():
        positions = (slice(None), slice(None), *(None,) * dims)
        local.weight.copy_(conv.weight[positions].expand_as(local.weight))
        local.bias.copy_(conv.bias.view(-1, *(1,) * dims).expand_as(local.bias))
    x = torch.randn(2, 2, *SIZES[:dims])
    assert torch.allclose(local(x), conv(x), atol=1e-5)
    with pytest.raises(ShapeError, match=r"LocallyConnected: x is .* but the layer was made for"):
        local(x[..., :-1])


# ---- C1, C2, C5, C7: sampling ----------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("padding, dilation", [(0, 1), (1, 1), ("pairs", 1), ("pairs", 2), (0, 2)])
def test_C1_poolings_against_a_loop(dims: int, padding: Any, dilation: int) -> None:
    torch.manual_seed(0)
    size, pairs = SIZES[:dims], ((1, 0),) * dims if padding == "pairs" else ((padding, padding),) * dims
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    window: dict[str, Any] = {"stride": 2, "padding": pairs, "dilation": dilation}
    found = {
        "max": cnn.MaxPool(dims, 3, **window)(x),
        "mean": cnn.AvgPool(dims, 3, **window)(x),
        "inside": cnn.AvgPool(dims, 3, count_include_pad=False, **window)(x),
    }
    shape = tuple(conv_size(i, 3, 2, p, dilation) for i, p in zip(size, pairs, strict=True))
    for place in np.ndindex(*shape):
        values = []
        for offset in np.ndindex(*(3,) * dims):
            at = [2 * p - pair[0] + dilation * o for p, pair, o in zip(place, pairs, offset, strict=True)]
            if all(0 <= a < i for a, i in zip(at, size, strict=True)):
                values.append(float(x[(0, 0, *at)]))
        expected = {"max": max(values), "mean": sum(values) / 3**dims, "inside": sum(values) / len(values)}
        for name, value in expected.items():
            assert float(found[name][(0, 0, *place)]) == pytest.approx(value, abs=1e-12), (name, place)
    assert all(tuple(value.shape[2:]) == shape for value in found.values())


def test_C2_blur_pooling_lowers_the_error_of_shifts() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 1, 32, 32)
    plain, blurred = nn.MaxPool2d(2), nn.Sequential(nn.MaxPool2d(2, 1, 1), cnn.BlurPool(2, 1, padding_mode="circular"))

    def drift(layer: nn.Module) -> float:
        """Return the change of the mean over 4×4 cells caused by a shift by one pixel."""
        means = [nn.functional.avg_pool2d(layer(x.roll(step, 3))[..., 2:14, 2:14], 4) for step in (0, 1)]
        return float((means[0] - means[1]).norm() / means[0].std() / math.sqrt(means[0].numel()))

    assert drift(blurred) < 0.9 * drift(plain)
    assert not cnn.BlurPool(3, 2).state_dict()
    assert torch.allclose(cnn.BlurPool(2, 1, 5).weight.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("dims", DIMS)
def test_C5_unpooling_round_trips(dims: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, *(8,) * dims)
    y, places = cnn.MaxPool(dims, 2, return_indices=True)(x)
    for layer, arguments in ((cnn.Unpool(dims, 2), (places,)), (cnn.Unpool(dims, 2, mode="fixed"), ()),
                             (cnn.Unpool(dims, 2, mode="nearest"), ())):  # fmt: skip
        up = layer(y, *arguments)
        assert up.shape == x.shape and torch.equal(cnn.MaxPool(dims, 2)(up), y)
    theirs = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)[dims - 1](2)
    assert torch.equal(cnn.Unpool(dims, 2)(y, places), theirs(y, places))
    corner = cnn.Unpool(dims, 2, mode="fixed")(y)
    assert torch.equal(corner[(..., *(slice(None, None, 2),) * dims)], y)
    assert int((corner != 0).sum()) == int((y != 0).sum())
    average = cnn.Unpool(dims, 2, mode="average")(y)
    assert torch.allclose(average.flatten(2).sum(2), y.flatten(2).sum(2), atol=1e-4)


@pytest.mark.parametrize("dims", DIMS)
def test_C7_overlap_is_even_where_the_stride_divides_the_kernel(dims: int) -> None:
    x = torch.ones(1, 1, *(6,) * dims)

    def overlaps(kernel: int) -> int:
        layer = cnn.Upsample(dims, 1, 1, 2, "transposed", kernel_size=kernel, bias=False)
        nn.init.ones_(layer[0].weight)
        inner = layer(x)[(..., *(slice(4, 8),) * dims)]
        assert layer(x).shape[2:] == (12,) * dims
        return len(inner.unique())

    assert overlaps(4) == 1 < overlaps(3)


@pytest.mark.parametrize("dims", DIMS)
def test_pixel_shuffle(dims: int) -> None:
    factors = (2, 3, 2)[:dims]
    x = torch.randn(2, 3 * math.prod(factors), *SIZES[:dims])
    y = cnn.PixelShuffle(dims, factors)(x)
    assert y.shape == (2, 3, *(size * factor for size, factor in zip(SIZES, factors, strict=False)))
    for offset in np.ndindex(*factors):
        number = int(np.ravel_multi_index(offset, factors))
        part = y[(..., *(slice(o, None, f) for o, f in zip(offset, factors, strict=True)))]
        assert torch.equal(part, x[:, number :: math.prod(factors)])
    if dims == 2:
        assert torch.equal(cnn.PixelShuffle(2, 2)(x[:, :12]), nn.PixelShuffle(2)(x[:, :12]))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("modulated", [True, False])
def test_D6_deformable_layer_starts_plain_and_learns_to_move(dims: int, modulated: bool) -> None:
    torch.manual_seed(0)
    layer = cnn.DeformConv(dims, 2, 3, 3, padding=1, stride=2, modulated=modulated)
    plain = cnn.conv(dims, 2, 3, 3, padding=1, stride=2)
    missing, extra = plain.load_state_dict(layer.state_dict(), strict=False)
    assert not missing and all(name.startswith(("offset", "mask")) for name in extra)
    x = torch.randn(1, 2, *SIZES[:dims])
    assert torch.allclose(layer(x), plain(x), atol=1e-5)
    layer(x).square().sum().backward()
    assert layer.offset.weight.grad.abs().max() > 0 and layer.weight.grad.abs().max() > 0
    with torch.no_grad():  # one pixel further along the last axis, by the offsets' constants
        layer.offset.bias.view(-1, dims)[:, -1] = 1.0
        moved = plain(torch.nn.functional.pad(x, (-1, 1)))
        assert torch.allclose(layer(x)[..., 1:-1], moved[..., 1:-1], atol=1e-5)


@pytest.mark.parametrize("dims", DIMS)
def test_D6_dynamic_layer_mixes_its_kernels(dims: int) -> None:
    torch.manual_seed(0)
    layer = cnn.DynamicConv(dims, 4, 6, 3, experts=3, padding=1, stride=2, groups=2)
    x = torch.randn(3, 4, *SIZES[:dims])
    plain = cnn.conv(dims, 4, 6, 3, padding=1, stride=2, groups=2)
    with torch.no_grad():
        plain.weight.copy_(layer.weight.mean(0))
        plain.bias.copy_(layer.bias.mean(0))
    assert torch.allclose(layer(x), plain(x), atol=1e-5), "it starts with the mean of its kernels"
    with torch.no_grad():
        layer.router.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
        plain.weight.copy_(layer.weight[1])
        plain.bias.copy_(layer.bias[1])
    assert torch.allclose(layer(x), plain(x), atol=1e-5)
    with torch.no_grad():
        layer.router.bias.zero_()
        nn.init.normal_(layer.router.weight)
    together, alone = layer(x), torch.cat([layer(one) for one in x.split(1)])
    assert torch.allclose(together, alone, atol=1e-5), "each sample has its own kernel"
    together.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    assert "experts=3" in repr(layer)
    program = cx.compile(layer.eval(), x)
    assert np.allclose(program(x.numpy()), layer(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("dims", DIMS)
def test_C3_resize_modes(dims: int) -> None:
    x = torch.randn(1, 2, *SIZES[:dims])
    for mode in cnn.Resize.MODES:
        layer = cnn.Resize(dims, 2, mode=mode)
        assert layer(x).shape[2:] == tuple(2 * size for size in SIZES[:dims])
        expected = cnn.functional.resize(x, scale=2, mode=mode, dims=dims)
        assert torch.allclose(layer(x), expected, atol=1e-5), mode
    assert cnn.Resize(dims, size=4, antialias=True)(x).shape[2:] == (4,) * dims


@pytest.mark.parametrize("call, error, match", [
    (lambda: cnn.Conv(4, 1, 1, 3), ConfigError, "dims is 4"),
    (lambda: cnn.Conv(2, 1, 1, 3, padding="equal"), ConfigError, "padding"),
    (lambda: cnn.Conv(2, 1, 1, 3, padding_mode="zero"), ConfigError, "padding_mode is 'zero', but it can be 'zeros'"),
    (lambda: cnn.ConvTranspose(2, 1, 1, 3, padding="same"), ConfigError, "padding is 'same', which does not say"),
    (lambda: cnn.ConvTranspose(1, 1, 1, 3, padding=((-1, 0),)), ConfigError, "this layer only crops: give at least 0"),
    (lambda: cnn.MaxPool(2, 3, padding="same"), ConfigError, "a pooling with a stride cannot have"),
    (lambda: cnn.MaxPool(1, 3, padding=((-1, 0),)), ConfigError, "a pooling pads by at least 0"),
    (lambda: cnn.AvgPool(2, 3, padding=3), ConfigError, "AvgPool: padding .* nothing but padding"),
    (lambda: cnn.BlurPool(2, 1, 0), ConfigError, "kernel_size is 0"),
    (lambda: cnn.BlurPool(2, 1, padding_mode="same"), ConfigError, "padding_mode is 'same'"),
    (lambda: cnn.Unpool(2, 2, mode="mean"), ConfigError, "mode is 'mean', but it can be 'indices', 'fixed'"),
    (lambda: cnn.Unpool(2, 3, stride=2, mode="nearest"), ConfigError, "'nearest' needs the kernel's"),
    (lambda: cnn.Unpool(2, 2)(torch.zeros(1, 1, 2, 2)), ShapeError, "unpool: indices are None"),
    (lambda: cnn.Resize(2, 2, mode="lanczos"), ConfigError, "mode is 'lanczos', but it can be 'nearest'"),
    (lambda: cnn.Resize(2), ConfigError, "give one of scale and size"),
    (lambda: cnn.Resize(2, (2.0,)), ConfigError, "needs one factor above 0, or 2"),
    (lambda: cnn.PixelShuffle(2, 2)(torch.zeros(1, 3, 2, 2)), ShapeError, "x has 3 channels, .* 4 does not divide"),
    (lambda: cnn.Upsample(2, 1, 1, 2, "deconv"), ConfigError, "kind is 'deconv', but it can be 'transposed'"),
    (lambda: cnn.Upsample(2, 1, 1, 2, "resize", kernel_size=2), ConfigError, "needs odd sizes"),
    (lambda: cnn.Upsample(2, 1, 1, 3, "transposed", kernel_size=2), ConfigError, "would leave holes"),
    (lambda: cnn.DynamicConv(2, 1, 1, 3, experts=0), ConfigError, "experts is 0 and temperature 1.0; expected"),
    (lambda: cnn.SqueezeExcite(2, 4, gate="tanh"), ConfigError, "gate is 'tanh', but it can be 'sigmoid'"),
    (lambda: cnn.SliceStack(nn.Identity(), -1), ConfigError, "reach is -1"),
    (lambda: cnn.SliceStack(nn.Identity())(torch.zeros(1, 1, 2, 2)), ShapeError, "SliceStack: x has 4 axes"),
])  # fmt: skip
def test_refusals(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_norms_by_word() -> None:
    assert isinstance(cnn.Norm("none", 2, 4), nn.Identity) and isinstance(cnn.Norm("batch", 3, 4), nn.BatchNorm3d)
