"""Receptive fields against the support of the gradient.

All weights and inputs are positive, so nothing cancels and no rectifier is shut; max pooling, whose gradient
picks one input of its window, is replaced by average pooling, which sees the same window.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convoxel import models
from convoxel.arithmetic import Field
from convoxel.inspect.receptive_field import trace_fields
from convoxel.inspect.record import open_source
from convoxel.lookup import describe


def positive(net: nn.Module) -> nn.Module:
    """Return ``net`` with positive weights and average instead of max pooling, in eval mode and float64."""
    for child in list(net.modules()):
        for name, pool in list(child.named_children()):
            if type(pool).__name__.startswith("MaxPool"):
                average = getattr(nn, type(pool).__name__.replace("Max", "Avg"))
                setattr(child, name, average(pool.kernel_size, pool.stride, pool.padding))
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 0.2 + 0.1
    return net.double().eval()


def fields_of(net: nn.Module, shape: tuple[int, ...]) -> list[Field]:
    record = open_source(net).record([shape])
    seen = trace_fields(record)[0][record.outputs[0]]
    assert seen.is_clear
    return [seen.fields[axis] for axis in range(len(shape) - 2)]


def assert_support(
    net: nn.Module, shape: tuple[int, ...], positions: int = 4, fields: list[Field] | None = None
) -> None:
    """Compare field and gradient at ``positions`` successive places in the middle, on all axes at once."""
    fields = fields_of(net, shape) if fields is None else fields
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    y = net(x)
    for step in range(positions):
        place = [size // 2 + step for size in y.shape[2:]]
        (gradient,) = torch.autograd.grad(y[(0, 0, *place)], x, retain_graph=True)
        support = torch.nonzero(gradient[0].sum(0).abs() > 0)
        for axis, (field, position) in enumerate(zip(fields, place, strict=True)):
            seen = field.at(position)
            if len(support) == 0:
                assert any(f.at(p) is None for f, p in zip(fields, place, strict=True))
                continue
            assert seen is not None and seen[0] >= 0 and seen[1] < shape[2 + axis], "the test needs a larger image"
            assert (int(support[:, axis].min()), int(support[:, axis].max())) == seen


UNETS: list[tuple[int, tuple[int, ...], dict[str, Any]]] = [
    (1, (256,), {"levels": 3}),
    (1, (640,), {"levels": 4}),
    (1, (128,), {"levels": 2, "up": "resize"}),
    (1, (140,), {"levels": 2, "norm": "none", "padding": "none"}),
    (2, (112, 128), {"levels": 2}),
    (2, (48, 64), {"levels": 1, "up": "resize"}),
    (3, (40, 48, 44), {"levels": 1}),
    (3, (72, 72, 76), {"levels": 2}),
    (3, (36, 40, 40), {"levels": 1, "up": "resize"}),
]


@pytest.mark.parametrize("dims, size, options", UNETS)
def test_D2_unet(dims: int, size: tuple[int, ...], options: dict[str, Any]) -> None:
    net = positive(models.unet(dims, 1, 1, width=1, **options))
    assert_support(net, (1, 1, *size), positions=2 if dims == 3 else 9)


@pytest.mark.parametrize("dims, size", [(1, 256), (2, 120), (3, 44)])
def test_vgg_features(dims: int, size: int) -> None:
    features = models.course_vgg(dims, 1, 2, width=0.01).features
    stage = features[:] if dims == 1 else features[:20] if dims == 2 else features[:14]
    assert_support(positive(stage), (1, 1, *(size,) * dims), positions=2)


@pytest.mark.parametrize("dims, size, stages", [(1, 1024, 4), (2, 320, 3), (3, 72, 1)])
def test_resnet_features(dims: int, size: int, stages: int) -> None:
    net = models.resnet18(dims, 1, 2, width=0.01)
    features = nn.Sequential(*list(net.children())[: 4 + stages])
    assert_support(positive(features), (1, 1, *(size,) * dims), positions=2)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + x


class Dense(nn.Module):
    """Concatenates what two branches make of the same input, and mixes it again."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right, self.mix = left, right, nn.Conv1d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        length = min(left.shape[2], right.shape[2])
        return self.mix(torch.cat([left[:, :, :length], right.narrow(2, 0, length)], 1))


def conv(k: int, s: int, p: int, d: int) -> nn.Module:
    return nn.Conv1d(1, 1, k, s, p, d)


def transposed(k: int, s: int, p: int) -> nn.Module:
    return nn.ConvTranspose1d(1, 1, k, s, min(p, k - 1))


def same(k: int, d: int) -> nn.Module:
    return Residual(nn.Conv1d(1, 1, 2 * k + 1, padding=k * d, dilation=d))


def branches(k: int, d: int, p: int) -> nn.Module:
    return Dense(nn.Conv1d(1, 1, k, padding=p), nn.Sequential(nn.Conv1d(1, 1, 2, dilation=d), nn.ReLU()))


def resize(scale: int, mode: str) -> nn.Module:
    return nn.Upsample(scale_factor=scale, mode=mode)


small = st.integers(1, 3)
layers = st.one_of(
    st.builds(conv, st.integers(1, 4), small, st.integers(0, 2), small),
    st.builds(transposed, st.integers(1, 4), small, st.integers(0, 1)),
    st.builds(lambda k, s: nn.AvgPool1d(k, s), small, small),
    st.builds(lambda k, s: nn.MaxPool1d(k, s, ceil_mode=True), small, small),
    st.builds(same, small, small),
    st.builds(branches, small, small, st.integers(0, 2)),
    st.builds(resize, st.integers(2, 3), st.sampled_from(["nearest", "linear"])),
    st.builds(lambda a, b: nn.ConstantPad1d((a, b), 0.0), st.integers(-2, 3), st.integers(-2, 3)),
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(layers, min_size=1, max_size=4))
def test_D2_drawn_graphs(chain: list[nn.Module]) -> None:
    assert_support(positive(nn.Sequential(*chain)), (1, 1, 400), positions=7)


def test_axes_differ() -> None:
    net = nn.Sequential(nn.Conv3d(1, 1, (1, 3, 5), padding=(0, 1, 2)), nn.MaxPool3d((1, 2, 2)), nn.Conv3d(1, 1, 3))
    summary = describe(net, (1, 1, 16, 24, 32))
    assert summary.field is not None
    assert summary.field.size == (3, 8, 10) and summary.field.stride == (1, 2, 2)
    assert str(summary.field) == "3×8×10/1×2×2"
    assert_support(positive(net), (1, 1, 16, 24, 32), positions=1)


def test_D2_squeeze_and_excite_is_local_and_whole() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))

    summary = describe(Squeeze(), (1, 1, 12, 12))
    assert summary.field is not None
    assert summary.field.size == (3, 3) and summary.field.whole == (True, True)
    assert summary.rows[0].field is not None and summary.rows[0].field.whole == (False, False)


def test_normalisation_over_the_image_sees_it_whole() -> None:
    for norm, whole in ((nn.InstanceNorm1d(2), True), (nn.GroupNorm(1, 2), True), (nn.BatchNorm1d(2), False)):
        summary = describe(nn.Sequential(nn.Conv1d(1, 2, 3), norm), (1, 1, 12))
        assert summary.field is not None and summary.field.whole == (whole,)


def test_D2_fully_connected_sees_the_whole_image() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 5))
    rows = describe(net, (1, 1, 8, 8)).rows
    assert rows[1].field is not None and rows[1].field.whole == (False, False)
    assert rows[2].field is not None and rows[2].field.whole == (True, True)
    assert rows[2].field.size == (3, 3)


def test_axes_are_followed_through_permutations_and_views() -> None:
    class LastNorm(nn.Module):
        """Normalises channels only, with the channels moved to the end, and shuffles them."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = nn.Conv2d(1, 4, 3), nn.LayerNorm(4), nn.Conv2d(4, 1, (1, 3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return self.second(x)

    summary = describe(LastNorm(), (1, 1, 12, 12))
    assert summary.field is not None
    assert summary.field.size == (3, 5) and summary.field.whole == (False, False)


class Nails(nn.Module):
    """Un-pools by 2: zeros beside every position, on an axis of their own, which is then merged with the image's."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x.unsqueeze(-1), (0, 1)).flatten(-2)


def test_an_axis_merged_with_other_values_is_not_known() -> None:
    """Neither its stride nor what a later kernel sees are those of the image axis: 1/2, not 1, behind the zeros."""
    for net in (Nails(), nn.Sequential(Nails(), nn.Conv1d(1, 1, 3))):
        summary = describe(net, (1, 1, 12))
        assert summary.field is None
        (remark,) = summary.remarks
        assert "an image axis is merged with other values; the receptive field is not known from here on" in remark


def test_the_axis_of_features_is_known_and_no_axis_of_the_image() -> None:
    class Features(nn.Module):
        """Channels and positions in one row: a fully-connected layer sees all, a kernel over them something else."""

        def __init__(self, last: nn.Module) -> None:
            super().__init__()
            self.first, self.last = nn.Conv1d(1, 2, 3), last

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).flatten(1))

    dense = describe(Features(nn.Linear(20, 3)), (1, 1, 12)).field
    assert dense is not None and dense.size == (3,) and dense.whole == (True,)
    kernel = nn.Sequential(nn.Unflatten(1, (1, 20)), nn.Conv1d(1, 1, 3))
    assert describe(Features(kernel), (1, 1, 12)).field is None


def test_D2_misaligned_branches_are_named() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 1:] + x[:, :, :-1]

    (remark,) = describe(Shifted(), (1, 1, 12)).remarks
    assert remark == "add: joins branches whose centres lie 1 apart along axis 0"


def test_drifting_branches_are_named_and_still_exact() -> None:
    class Drift(nn.Module):
        """A resize to the skip's size, as many decoders do it: 7 → 3 → 7 is no factor of 2."""

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.avg_pool1d(x, 2)
            return x + nn.functional.interpolate(y, size=x.shape[2], mode="nearest")

    net = Drift().double()
    (remark,) = describe(net, (1, 1, 7)).remarks
    assert "different strides 6/7, 1 along axis 0; they drift apart" in remark
    (field,) = fields_of(net, (1, 1, 7))
    x = torch.rand(1, 1, 7, dtype=torch.float64, requires_grad=True)
    y = net(x)
    for position in range(7):
        (gradient,) = torch.autograd.grad(y[0, 0, position], x, retain_graph=True)
        support = torch.nonzero(gradient[0, 0])[:, 0]
        assert field.at(position) == (int(support.min()), int(support.max()))


def test_what_is_not_known_is_said() -> None:
    class Roll(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.roll(x, 1, 2).relu()

    summary = describe(Roll(), (1, 1, 12))
    assert summary.field is None
    assert summary.remarks == ("roll: a roll along an image axis; the receptive field is not known from here on",)
    assert "receptive field" in str(summary) and "not known" in str(summary)
    assert summary.to_dict()["total"]["field"] == []


@pytest.mark.parametrize("wrong", [Field.window(3, offset=1), Field.window(2), Field.window(3, stride=2)])
def test_the_checker_rejects_a_wrong_field(wrong: Field) -> None:
    net = positive(nn.Sequential(nn.Conv1d(1, 1, 3)))
    with pytest.raises(AssertionError):
        assert_support(net, (1, 1, 40), fields=[wrong])
