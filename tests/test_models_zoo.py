"""The zoo: published counts, shapes in every dimension, export, and errors that name what would fit."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest
import torch

from convoxel import models
from convoxel.errors import ConfigError, ShapeError

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


@pytest.mark.parametrize("name, params", [
    ("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032),
    ("resnet101", 44_549_160), ("resnet152", 60_192_808),
])  # fmt: skip
def test_published_parameters_of_resnet(name: str, params: int) -> None:
    with torch.device("meta"):
        assert count(models.build(name)) == params


def test_state_dict_names_are_torchvisions() -> None:
    with torch.device("meta"):
        names = models.resnet18().state_dict()
    block = (
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
    )
    assert list(names)[:6] == list(block)
    assert {
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.bias",
        "fc.bias",
    } <= set(names)
    assert names["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert len(names) == 122 and "layer1.0.downsample.0.weight" not in names


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
            with pytest.raises(RuntimeError):
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
    ({"name": "zzz"}, r"no model 'zzz'\. Known models: course_vgg"),
    ({"name": "unet", "level": 3}, "no option 'level'; did you mean 'levels'"),
    ({"name": "resnet18", "levels": 3}, r"no option 'levels'.*Its options: width"),
    ({"name": "unet", "dims": 4}, "dims is 4"),
    ({"name": "unet", "levels": -1}, "levels is -1, but it must be a whole number of at least 0"),
    ({"name": "unet", "width": 0.5}, "width is 0.5"),
    ({"name": "unet", "up": "nearest"}, "up is 'nearest', but it can be 'transposed' or 'resize'"),
    ({"name": "unet", "padding": "valid"}, "padding is 'valid', but it can be 'same' or 'none'"),
    ({"name": "unet", "norm": "group"}, "norm is 'group'"),
    ({"name": "unet", "activation": "prelu"}, "activation is 'prelu'"),
    ({"name": "unet", "num_classes": 0}, "num_classes is 0"),
    ({"name": "resnet18", "in_channels": 0}, "in_channels is 0"),
    ({"name": "course_vgg", "width": 0}, "width is 0, but this network takes a factor above 0"),
])  # fmt: skip
def test_mistakes_are_named(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        models.build(**arguments)


def test_names() -> None:
    assert "unet" in models.names("segment") and "resnet18" in models.names("classify")
    assert set(models.names()) == {*models.names("segment"), *models.names("classify")}
    with pytest.raises(ConfigError, match="task is 'detect'"):
        models.names("detect")


@pytest.mark.parametrize("module", ["", ".network", ".registry", ".resnet", ".unet", ".vgg"])
def test_documented_examples(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"convoxel.models{module}")).failed == 0
