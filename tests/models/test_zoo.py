"""The zoo: published counts, shapes in every dimension, export, and errors that name what would fit."""

from __future__ import annotations

import doctest
import functools
import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel.errors import ConfigError, ShapeError
from convoxel.models.backbone import ACCURACY_PROTOCOL, Window, smallest_size
from convoxel.models.residual import drop_samples
from tools import zoo

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "published.json"
BACKBONES = models.names(task="classify")
# One of each family, and what makes it small.
FAMILIES: dict[str, dict[str, Any]] = {
    "alexnet": {}, "vgg11": {}, "googlenet": {}, "inception_v3": {}, "resnet50": {"depth": 0.3},
    "densenet121": {"depth": 0.1}, "mobilenet_v1": {}, "mobilenet_v2": {"depth": 0.5}, "mobilenet_v3_small": {},
    "efficientnet_b0": {"depth": 0.5},
}  # fmt: skip

CASES: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"levels": 2, "width": 4}),
    ("unet", {"levels": 0, "width": 4}),
    ("unet", {"levels": 1, "width": 4, "up": "resize", "norm": "instance", "activation": "leaky_relu"}),
    ("unet", {"levels": 1, "width": 4, "norm": "none", "padding": "none"}),
    ("course_vgg", {"width": 0.125}),
    ("resnet18", {"width": 0.125}),
]


DEEPER = [(name, options, dims) for name, options in CASES for dims in (1, 2, 3)]
DEEPER.append(("resnet50", {"width": 0.125}, 2))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name, options, dims", DEEPER)
def test_every_network_in_every_dimension(name: str, options: dict[str, Any], dims: int) -> None:
    torch.manual_seed(0)
    model = models.build(name, dims, in_channels=2, num_classes=3, **options)
    assert (model.dims, model.in_channels, model.num_classes) == (dims, 2, 3)
    x = torch.randn(2, 2, *(20, 24, 28)[:dims])
    y = model(x)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if models.entry(name).task == "classify":
        assert y.shape == (2, 3)
    else:
        lost = 16 if options.get("padding") == "none" else 0
        assert y.shape == (2, 3, *(size - lost for size in x.shape[2:]))
    assert 0.05 < y.std() < 20  # a sound start: neither vanishing nor exploding


@pytest.mark.parametrize("name, options, dims", DEEPER)
def test_export(name: str, options: dict[str, Any], dims: int) -> None:
    model = models.build(name, dims, in_channels=1, num_classes=2, **options).eval()
    x = torch.randn(1, 1, *(20,) * dims)
    exported = torch.export.export(model, (x,)).module()
    assert torch.equal(exported(x), model(x))


def test_export_with_open_sizes() -> None:
    model = models.unet(2, 1, 2, levels=1, width=4).eval()
    half = {axis: torch.export.Dim(f"half{axis}", min=2, max=64) for axis in (2, 3)}
    sizes = {0: torch.export.Dim("n", min=1, max=8), 2: 2 * half[2], 3: 2 * half[3]}
    exported = torch.export.export(model, (torch.randn(2, 1, 8, 8),), dynamic_shapes={"x": sizes}).module()
    x = torch.randn(3, 1, 12, 6)
    assert torch.allclose(exported(x), model(x), atol=1e-6)


def test_published_parameters_of_unet() -> None:
    with torch.device("meta"):
        assert count(models.unet(2, 1, 2, width=64, norm="none", padding="none")) == 31_030_658
        assert count(models.unet(2, 3, 2, width=64)) == 31_037_698
        assert count(models.unet(2, 1, 1, width=64)) == 31_036_481


def test_parameters_of_a_small_unet_by_hand() -> None:
    """levels=1, width=2, 3-D, 1 → 3 channels, batch norm (4 numbers for 2 channels, 8 for 4)."""
    encoder = 1 * 2 * 27 + 4 + 2 * 2 * 27 + 4
    bottom = 2 * 4 * 27 + 8 + 4 * 4 * 27 + 8
    up = 4 * 2 * 8 + 2
    decoder = 4 * 2 * 27 + 4 + 2 * 2 * 27 + 4
    head = 2 * 3 + 3
    assert count(models.unet(3, 1, 3, levels=1, width=2)) == encoder + bottom + up + decoder + head


def test_course_unet_doubles_from_32_to_512() -> None:
    with torch.device("meta"):
        net = models.unet(3, 1, 2)
    assert [block.conv2.out_channels for block in net.encoder] == [32, 64, 128, 256, 512]
    assert [up.kernel_size for up in net.up] == [(2, 2, 2)] * 4
    assert net.input_multiple == 16


def test_course_vgg_is_the_courses() -> None:
    with torch.device("meta"):
        net = models.course_vgg(2, 3, 10)
    kinds = [
        layer.out_channels if isinstance(layer, torch.nn.Conv2d) else "p"
        for layer in net.features
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.MaxPool2d))
    ]
    assert kinds == [64, 64, "p", 128, 128, "p", 256, 256, 256, "p", 512, 512, 512]
    assert all(layer.bias is None for layer in net.features if isinstance(layer, torch.nn.Conv2d))


def test_unpadded_unet_of_the_paper() -> None:
    net = models.unet(2, 1, 2, width=2, norm="none", padding="none").eval()
    assert (net.input_minimum, net.input_multiple) == (188, 16)
    assert net.nearest_sizes(572) == (572,) and net.nearest_sizes(570) == (556, 572)
    assert net.nearest_sizes(100) == (188,)
    assert net(torch.zeros(1, 1, 188, 204)).shape == (1, 2, 4, 20)
    with pytest.raises(ShapeError, match=r"188 \+ 16 n .* height 190 → 188 or 204"):
        net(torch.zeros(1, 1, 190, 188))


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_unpadded_sizes_are_exactly_those_that_work(levels: int) -> None:
    net = models.unet(1, 1, 1, levels=levels, width=1, norm="none", padding="none").eval()
    lost = net.input_minimum - net(torch.zeros(1, 1, net.input_minimum)).shape[2]
    for size in range(1, 70):
        if net.nearest_sizes(size) == (size,):
            assert net(torch.zeros(1, 1, size)).shape[2] == size - lost
        elif size < net.input_minimum and size % net.input_multiple == net.input_minimum % net.input_multiple:
            with pytest.raises(ShapeError):
                net.compute(torch.zeros(1, 1, size))


@pytest.mark.parametrize("shape, match", [
    ((1, 1, 39, 40), r"UNet: x has spatial size \(39, 40\).*multiple of 4.*height 39 → 36 or 40\.$"),
    ((1, 1, 2, 41), r"height 2 → 4; width 41 → 40 or 44"),
    ((1, 3, 40, 40), r"x has 3 channels, but in_channels=1.*build with in_channels=3"),
    ((1, 40, 40), r"x has 3 axes \(1, 40, 40\), but dims=2 needs 4: \(n, in_channels, height, width\)"),
])  # fmt: skip
def test_unet_says_what_fits(shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        models.unet(2, 1, 2, levels=2, width=2)(torch.zeros(shape))


def test_vgg_says_what_fits() -> None:
    with pytest.raises(ShapeError, match=r"every size must be at least 8.*depth 7 → 8"):
        models.course_vgg(3, 1, 2, width=0.1)(torch.zeros(1, 1, 7, 8, 9))


@pytest.mark.parametrize("arguments, match", [
    ({"name": "unett"}, "no model 'unett'; did you mean 'unet'"),
    ({"name": "ResNet-18"}, "did you mean 'resnet18'"),
    ({"name": "zzz"}, r"no model 'zzz'\. models\.names\(\) lists all"),
    ({"name": "unet", "level": 3}, "no option 'level'; did you mean 'levels'"),
    ({"name": "resnet18", "levels": 3}, r"no option 'levels'.*Its options: width"),
    ({"name": "unet", "dims": 4}, "dims is 4"),
    ({"name": "unet", "levels": -1}, "levels is -1, but it must be a whole number of at least 0"),
    ({"name": "unet", "width": 0.5}, "width is 0.5"),
    ({"name": "unet", "up": "cubic"}, "up is 'cubic', but it can be 'transposed', 'linear', 'nearest'"),
    ({"name": "unet", "padding": "valid"}, "padding is 'valid', but it can be 'same' or 'none'"),
    ({"name": "unet", "norm": "layer"}, "norm is 'layer'"),
    ({"name": "unet", "activation": "prelu"}, "activation is 'prelu'"),
    ({"name": "unet", "num_classes": 0}, "num_classes is 0"),
    ({"name": "resnet18", "in_channels": 0}, "in_channels is 0"),
    ({"name": "course_vgg", "width": 0}, "width is 0, but this network takes a factor above 0"),
    ({"name": "resnet18", "depth": -1}, "depth is -1, but this network takes a factor above 0"),
    ({"name": "resnet50", "form": "v2"}, r"form is 'v2', but it can be 'v1\.5' or 'v1'"),
    ({"name": "vgg16", "grid": 0}, "grid is 0, but it must be a whole number of at least 1"),
    ({"name": "alexnet", "depth": 2.0}, "'alexnet' has no option 'depth'"),
])  # fmt: skip
def test_mistakes_are_named(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        models.build(**arguments)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_names_its_stems(name: str) -> None:
    with pytest.raises(ConfigError, match="stem is 'tiny', but it can be 'image' or 'small'"):
        models.build(name, stem="tiny")


def test_names() -> None:
    assert "unet" in models.names(task="segment") and "resnet18" in models.names(task="classify")
    assert set(models.names()) == {*models.names(task="segment"), *models.names(task="classify")}
    assert models.names("vgg1?") == ("vgg11", "vgg13", "vgg16", "vgg19")
    assert models.names("resnet*", "classify")[0] == "resnet18" and models.names("resnet*", "segment") == ()
    with pytest.raises(ConfigError, match="task is 'detect'"):
        models.names(task="detect")


def test_every_name_is_a_function() -> None:
    assert set(models.names()) <= set(dir(models)) and set(models.names()) <= set(models.__all__)
    assert all(getattr(models, name).__name__ == name for name in models.names())
    assert models.resnet50.__doc__.startswith("resnet50: A residual network")
    net = models.vgg11_bn(1, 2, 3, width=0.125)
    assert isinstance(net, models.VGG) and (net.dims, net.in_channels, net.num_classes) == (1, 2, 3)


def test_info_of_what_is_not_recorded() -> None:
    found = models.info("unet_resnet18")
    assert (found.params, found.macs, found.field, found.top1, found.source) == (None, None, None, None, "")
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        models.info("resnet_18")


@functools.cache
def counted(name: str) -> Any:
    with torch.device("meta"):
        model = models.build(name)
    return cx.describe(model, (1, *models.info(name).shape))


@pytest.mark.parametrize("name", BACKBONES)
def test_recorded_figures_are_true(name: str) -> None:
    info, summary = models.info(name), counted(name)
    assert (info.params, info.macs, (info.field,) * 2) == (summary.params, summary.macs, summary.field.size)
    assert (info.top1 is None) == (info.source == "") and (info.top1 or 60) > 55


def test_accuracies_of_the_zoo_are_of_one_protocol() -> None:
    """Ten crops of a paper beside one crop of another would compare protocols, not networks."""
    found = [models.info(name) for name in models.names(task="classify")]
    measured = [row for row in found if row.top1 is not None]
    assert len(measured) == len(found) - 3  # course_vgg, googlenet_5x5 and mobilenet_v1 have no such weights
    assert {row.source.rpartition(" of ")[0] for row in measured} == {ACCURACY_PROTOCOL}
    assert all(row.source.endswith(f" of {row.shape[1]} × {row.shape[2]}") for row in measured)
    assert models.info("resnet50").top1 == 76.13 and models.info("mobilenet_v1").top1 is None


def reference() -> dict[str, Any]:
    return json.loads(PUBLISHED.read_text())["models"] if PUBLISHED.exists() else {}


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the file of published figures is not on this machine")
@pytest.mark.parametrize("key", reference())
def test_published_figures(key: str) -> None:
    row = reference()[key]
    name = "googlenet_5x5" if "5x5" in key else key.split()[0]
    summary = counted(name)
    if "auxiliary head)" in key:
        with torch.device("meta"):
            assert count(models.build(name, auxiliary=True)) == row["params"]
    elif "params" in row:
        assert summary.params == row["params"]
    if "gmacs" in row:
        assert models.info(name).shape[1:] == (row["input"],) * 2
        # Within 0.1 %, or as near as the three decimals that are published can say.
        assert summary.macs == pytest.approx(row["gmacs"] * 1e9, rel=1e-3, abs=5e5)
    assert summary.field.size == (row["field"],) * 2
    assert row.get("stride", 32) == counted(name).field.stride[0] == models.build(name, width=0.01).feature_strides[-1]


@pytest.mark.parametrize("name, billions", [("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3)])
def test_first_form_of_resnet_costs_what_its_paper_says(name: str, billions: float) -> None:
    """He et al. 2016, Table 1; the form v1.5 costs 6 % more."""
    with torch.device("meta"):
        model = models.build(name, form="v1")
    assert cx.describe(model, (1, 3, 224, 224)).macs / 1e9 == pytest.approx(billions, abs=0.1)
    assert count(model) == models.info(name).params


@pytest.mark.parametrize("width, millions, params", [(0.75, 325, 2.6), (0.5, 149, 1.3), (0.25, 41, 0.5)])
def test_narrow_mobilenets_cost_what_their_paper_says(width: float, millions: int, params: float) -> None:
    """Howard et al. 2017, Table 6."""
    with torch.device("meta"):
        model = models.mobilenet_v1(width=width)
    summary = cx.describe(model, (1, 3, 224, 224))
    assert round(summary.macs / 1e6) == millions and round(summary.params / 1e6, 1) == params


@pytest.mark.parametrize("stem", ["image", "small"])
@pytest.mark.parametrize("name", FAMILIES)
def test_feature_maps(name: str, stem: str) -> None:
    """They have the channels and strides that the network says, and no head is built."""
    with torch.device("meta"):
        net = models.build(name, width=0.125, features_only=True, stem=stem, **FAMILIES[name])
        maps = net(torch.empty(1, 3, 192, 160))
    assert tuple(x.shape[1] for x in maps) == net.feature_channels
    assert list(net.feature_strides) == sorted(set(net.feature_strides)) and len(maps) == len(net.feature_strides)
    lost = 4 if name in ("inception_v3", "alexnet") else 1  # pixels that layers without padding cost
    for x, stride in zip(maps, net.feature_strides, strict=True):
        assert all(
            size / stride - lost <= got <= size / stride + 1 for got, size in zip(x.shape[2:], (192, 160), strict=True)
        )
    assert not any(isinstance(layer, nn.Linear) for layer in net.modules())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dims", [1, 3])
def test_feature_maps_are_alike_for_all_dims(name: str, dims: int) -> None:
    with torch.device("meta"):
        nets = [models.build(name, axes, width=0.25, features_only=True) for axes in (2, dims)]
    assert nets[0].feature_channels == nets[1].feature_channels
    assert nets[0].feature_strides == nets[1].feature_strides


def test_last_feature_map_leads_to_the_logits() -> None:
    net = zoo.build("googlenet", 2).eval()
    x = zoo.image(net, 32)
    with torch.no_grad():
        assert torch.equal(net(x), net.classify(net.features(x)[-1]))


@pytest.mark.parametrize("stem", ["image", "small"])
@pytest.mark.parametrize("name", FAMILIES)
def test_smallest_size_is_the_smallest_that_works(name: str, stem: str) -> None:
    with torch.device("meta"):
        net = models.build(name, 1, width=0.125, stem=stem).eval()
        size = net.input_minimum
        assert net(torch.empty(1, 3, size)).shape == (1, 1000)
        if size > 1:
            with pytest.raises(ShapeError, match="Given x"):  # PyTorch, without our check
                net.compute(torch.empty(1, 3, size - 1))


def test_smallest_size_against_counting() -> None:
    for window in (Window(3, 2), Window(3, 2, ceil=True), Window(5, 3, 1), Window(2, 2, ceil=True), Window(7, 4, 3)):
        pool = nn.MaxPool1d(window.kernel, window.stride, window.padding, ceil_mode=window.ceil)
        for outputs in range(1, 6):
            size = smallest_size([window], outputs)
            assert pool(torch.zeros(1, 1, size)).shape[2] >= outputs
            if size > 1:
                try:
                    assert pool(torch.zeros(1, 1, size - 1)).shape[2] < outputs
                except RuntimeError:
                    assert outputs == 1


@pytest.mark.parametrize("name, message", [
    ("alexnet", r"AlexNet: x has spatial size \(62, 70\), but every size must be at least 63.*height 62 → 63"),
    ("inception_v3", r"InceptionV3: .*at least 75.*height 62 → 75; width 70 → 75"),
])  # fmt: skip
def test_networks_without_padding_say_what_fits(name: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        zoo.build(name, 2)(torch.zeros(1, zoo.CHANNELS, 62, 70))


def test_auxiliary_heads() -> None:
    net = zoo.build("googlenet", 1, auxiliary=True)
    logits = net(torch.randn(2, zoo.CHANNELS, 64))
    assert [tuple(y.shape) for y in logits] == [(2, 3)] * 3
    sum(y.sum() for y in logits).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.eval()(torch.randn(2, zoo.CHANNELS, 15)).shape == (2, 3)


def test_auxiliary_head_of_inception_needs_more_room() -> None:
    net = zoo.build("inception_v3", 1, auxiliary=True)
    assert (net.input_minimum, net.eval().input_minimum) == (299, 75)
    logits = net.train()(torch.randn(2, zoo.CHANNELS, net.input_minimum))
    assert [tuple(y.shape) for y in logits] == [(2, 3)] * 2
    with pytest.raises(ShapeError, match="at least 299"):
        net(torch.randn(2, zoo.CHANNELS, 298))


def test_left_out_blocks() -> None:
    torch.manual_seed(0)
    kept = drop_samples(torch.ones(4000, 1, 1), 0.25)
    assert kept.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    net = zoo.build("efficientnet_b0", 1)
    drops = [block.drop for stage in list(net.features)[1:-1] for block in stage]
    assert drops[0] == 0 and drops == sorted(drops) and drops[-1] == pytest.approx(0.2 * 15 / 16)


def deviation(layer: Any) -> float:
    return layer.weight.detach().std().item()


def test_starts_are_those_of_the_papers() -> None:
    torch.manual_seed(0)
    residual = models.resnet18()
    assert deviation(residual.layer3[0].conv1) == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)  # fan-out
    dense = models.densenet121()
    assert deviation(dense.features.denseblock1.denselayer3.conv2) == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    alex = models.alexnet(width=0.5)
    assert (deviation(alex.features[3]), deviation(alex.classifier[1])) == pytest.approx((0.01, 0.01), rel=0.02)
    biases = [layer.bias.detach().mean().item() for layer in alex.features if isinstance(layer, nn.Conv2d)]
    assert (
        biases == [0, 1, 0, 1, 1] and bool((alex.classifier[4].bias == 1).all()) and not alex.classifier[6].bias.any()
    )
    stacked = models.vgg11(width=0.25)
    assert deviation(stacked.features[8]) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)  # fan-in
    scaled = models.efficientnet_b0(num_classes=400)
    assert deviation(scaled.classifier[1]) == pytest.approx(1 / math.sqrt(3 * 400), rel=0.02)
    assert scaled.classifier[1].weight.abs().max() <= 1 / 20
    mobile = models.mobilenet_v2(width=0.5)
    assert deviation(mobile.classifier[1]) == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("norm, activation", [("none", "relu"), ("instance", "gelu")])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_norm_and_activation(name: str, norm: str, activation: str) -> None:
    """Gradients exist, so nothing that is still needed was written over; names of kernels stay."""
    net = zoo.build(name, 1, norm=norm, activation=activation, stem="small", **FAMILIES[name])
    usual = zoo.build(name, 1, stem="small", **FAMILIES[name])
    net(torch.randn(2, zoo.CHANNELS, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    if name not in ("alexnet", "vgg11"):  # the only ones without a norm, whose layers are numbered
        assert {k for k, p in net.named_parameters() if p.dim() > 1} == {
            k for k, p in usual.named_parameters() if p.dim() > 1
        }
    used = {type(layer).__name__.lower() for layer in net.modules()}
    assert activation in used and not any("batch" in word for word in used)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dims", [1, 3])
def test_sample_of_the_matrix(name: str, dims: int) -> None:
    """``tools/zoo.py`` runs every name through all checks; here volumes are small."""
    options = {**FAMILIES[name], "stem": "small" if dims == 3 else "image"}
    zoo.check_train(name, dims, **options)
    zoo.check_refuse(name, dims, **options)


@pytest.mark.parametrize("name, dims", [("mobilenet_v3_small", 2), ("resnext50_32x4d", 1)])
def test_sample_of_exports(name: str, dims: int) -> None:
    zoo.check_export(name, dims)


@pytest.mark.parametrize("name, dims", [("alexnet", 3), ("mobilenet_v2", 1)])
def test_sample_of_programs(name: str, dims: int) -> None:
    zoo.check_compile(name, dims)


def test_the_checks_can_fail() -> None:
    x = torch.ones(1, 4)
    zoo.check_close(x, x.clone())
    for wrong in (x * 1.001, x.masked_fill(torch.tensor([True, False, False, False]), math.nan), x[:, :3]):
        with pytest.raises(AssertionError):
            zoo.check_close(wrong, x)
    with pytest.raises(ValueError):
        zoo.check_close([x, x], [x])


@pytest.mark.parametrize("module", sorted(path.stem for path in Path(models.__file__).parent.glob("*.py")))
def test_documented_examples(module: str) -> None:
    name = "convoxel.models" + ("" if module == "__init__" else f".{module}")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_a_u_net_over_a_densenet_keeps_its_sizes_open() -> None:
    """Its skips and what meets them are equal in size by arithmetic that PyTorch's graphs cannot follow."""
    assert zoo.check_export("unet_densenet121", 1) == "96, 96 px"
    assert zoo.check_compile("unet_densenet121", 1) == "all native"
