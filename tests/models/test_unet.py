"""U-Nets: the papers' counts and sizes, every option against its meaning, export, the engine, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convoxel import models
from convoxel.errors import ConfigError, ShapeError
from convoxel.models.stage import crop, pad, trim
from convoxel.models.unet_backbone import BACKBONES, DenseUNet
from tools.zoo import agreeing

OPTIONS: list[dict[str, Any]] = [
    {},
    {"blocks": 2},
    {"blocks": (1, 2, 3)},
    {"block": "residual"},
    {"block": "residual", "blocks": 2, "norm": "none"},
    {"up": "linear"},
    {"up": "nearest"},
    {"up": "shuffle"},
    {"norm": "instance", "activation": "leaky_relu"},
    {"norm": "group"},
    {"norm": "none"},
    {"width": (4, 6, 7)},
    {"sizes": "pad"},
    {"sizes": "pad", "deep_supervision": 1},
    {"deep_supervision": 1, "activation": "elu"},
]
BORDERLESS: list[dict[str, Any]] = [{"padding": "none"}, {"padding": "none", "block": "residual", "up": "linear"}]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small(dims: int, options: dict[str, Any]) -> models.UNet:
    torch.manual_seed(0)
    return models.UNet(dims, 2, 3, **{"levels": 2, "width": 4, **options})


# ---- the papers' networks --------------------------------------------------------------------------------


def test_published_counts() -> None:
    with torch.device("meta"):
        assert count(models.unet_ronneberger()) == 31_030_658
        assert count(models.unet(2, 3, 2, width=64)) == 31_037_698
        assert count(models.unet(2, 1, 1, width=64)) == 31_036_481
        cicek = models.unet_cicek()
        assert count(models.unet_cicek(norm="none")) == 19_069_955
    layers = [layer for layer in cicek.modules() if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d))]
    assert sum(count(layer) for layer in layers) == 19_069_955


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert models.unet_ronneberger()(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        assert models.unet_cicek()(torch.empty(1, 3, 132, 132, 116)).shape == (1, 3, 44, 44, 28)


def test_recorded_figures_are_those_of_the_shared_reference(shared_data: Path) -> None:
    published = json.loads((shared_data.parent / "reference" / "published.json").read_text(encoding="utf-8"))["unet"]
    assert {row["params"] for row in published.values()} == {31_030_658, 31_037_698, 31_036_481, 19_069_955}


def test_cicek_doubles_before_pooling_and_keeps_up_convolutions() -> None:
    with torch.device("meta"):
        net = models.unet_cicek()
    pairs = [(stage.conv1.out_channels, stage.conv2.out_channels) for stage in net.encoder]
    assert pairs == [(32, 64), (64, 128), (128, 256), (256, 512)]
    assert [(up.in_channels, up.out_channels, up.bias) for up in net.up] == [
        (128, 128, None),
        (256, 256, None),
        (512, 512, None),
    ]
    assert all(stage.conv1.bias is not None and stage.norm1 is not None for stage in net.encoder)


@pytest.mark.parametrize("dims, name", [(1, "unet_ronneberger"), (2, "unet_cicek"), (3, "unet_ronneberger")])
def test_papers_networks_in_every_dimension(dims: int, name: str) -> None:
    net = models.build(name, dims, in_channels=1, num_classes=2, levels=1, width=4)
    least = net.input_minimum
    shape = (2, 1, *(least + 2 * axis for axis in range(dims)))
    logits = net(torch.randn(shape))
    logits.square().mean().backward()
    assert logits.shape == (2, 2, *(size - least + logits.shape[2] for size in shape[2:]))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    if dims == 1:
        agreeing(net, shape)


# ---- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims, options", [
    *((1, options) for options in OPTIONS), *zip((3, 2) * 8, OPTIONS, strict=False),
])  # fmt: skip
def test_every_option_trains(dims: int, options: dict[str, Any]) -> None:
    net = small(dims, options)
    x = torch.randn(2, 2, *(8, 12, 8)[:dims])
    found = net(x)
    maps = found if options.get("deep_supervision") else [found]
    assert [tuple(logits.shape[2:]) for logits in maps] == [
        tuple(size // 2**level for size in x.shape[2:]) for level in range(len(maps))
    ]
    assert len(maps) == 1 + options.get("deep_supervision", 0)
    assert 0.05 < maps[0].std() < 20
    sum(logits.square().mean() for logits in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert isinstance(net.eval()(x), torch.Tensor)


@pytest.mark.parametrize("dims, options", [
    (1, {"blocks": (1, 2, 3)}), (2, {"block": "residual", "blocks": 2}), (3, {"block": "residual", "norm": "none"}),
    (1, {"up": "linear"}), (3, {"up": "nearest"}), (2, {"up": "shuffle"}), (3, {"norm": "instance"}),
    (2, {"norm": "group", "activation": "leaky_relu"}), (3, {"sizes": "pad"}), (1, {"sizes": "pad"}),
    (2, {**BORDERLESS[1], "levels": 1}),
])  # fmt: skip
def test_engine_agrees(dims: int, options: dict[str, Any]) -> None:
    net = small(dims, options).eval()
    size = 44 if options.get("padding") == "none" else 8
    shapes = [(1, 2, *(size,) * dims), (2, 2, *(size + 4, size, size + 8)[:dims])]
    if options.get("sizes") == "pad":
        shapes.append((1, 2, *(17, 13, 6)[:dims]))
    agreeing(net, *shapes)


def test_padded_export_is_one_graph_for_all_sizes() -> None:
    net = small(2, {"sizes": "pad"}).eval()
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(net, (torch.randn(2, 2, 19, 22),), dynamic_shapes={"x": sizes}).module()
    for shape in ((1, 2, 5, 7), (3, 2, 16, 16), (2, 2, 33, 6)):
        x = torch.randn(shape)
        assert torch.allclose(exported(x), net(x), atol=1e-6)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_padding_inside_is_padding_outside(dims: int) -> None:
    inside, outside = small(dims, {"sizes": "pad"}).eval(), small(dims, {}).eval()
    outside.load_state_dict(inside.state_dict())
    sizes = (5, 8, 11)[:dims]
    x = torch.randn(1, 2, *sizes)
    whole = (8, 8, 12)[:dims]
    padded = nn.functional.pad(x, [n for s, w in zip(sizes[::-1], whole[::-1], strict=True) for n in (0, w - s)])
    region = (..., *(slice(size) for size in sizes))
    assert torch.equal(inside(x), outside(padded)[region])
    fitting = torch.randn(1, 2, *whole)
    assert torch.equal(inside(fitting), outside(fitting))


def test_deep_supervision_of_padded_sizes_rounds_up() -> None:
    net = models.unet(2, levels=3, width=4, sizes="pad", deep_supervision=2)
    assert [tuple(logits.shape[2:]) for logits in net(torch.randn(2, 1, 13, 7))] == [(13, 7), (7, 4), (4, 2)]


def test_strides_and_kernels_of_their_own_per_axis() -> None:
    """nnU-Net's plan for thick slices: the first pooling and kernel leave the depth alone."""
    net = small(3, {"strides": [(1, 2, 2), 2], "kernels": [(1, 3, 3), 3, 3]})
    assert net.multiples == (2, 4, 4) and net.input_multiple == 4
    assert [stage.conv1.kernel_size for stage in net.encoder] == [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [up.stride for up in net.up] == [(1, 2, 2), (2, 2, 2)]
    assert net(torch.randn(1, 2, 6, 8, 12)).shape == (1, 3, 6, 8, 12)
    with pytest.raises(ShapeError, match=r"multiples of \(2, 4, 4\).*depth 7 → 6 or 8; height 10 → 8 or 12\."):
        net(torch.randn(1, 2, 7, 10, 12))
    agreeing(net, (1, 2, 6, 8, 12), (2, 2, 2, 16, 4))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_uneven_strides_in_every_dimension(dims: int) -> None:
    net = small(dims, {"strides": (3, 2), "kernels": (5, 3, 1), "up": "nearest"})
    assert net(torch.randn(2, 2, *(6, 12, 6)[:dims])).shape == (2, 3, *(6, 12, 6)[:dims])
    agreeing(net, (1, 2, *(12, 6, 12)[:dims]))


@pytest.mark.parametrize("levels, blocks, kernels", [(1, 1, 3), (2, 2, 3), (2, 1, (5, 3, 1)), (3, 1, 2)])
def test_borderless_sizes_are_exactly_those_that_work(levels: int, blocks: int, kernels: Any) -> None:
    net = models.unet(1, 1, 1, levels=levels, width=1, norm="none", padding="none", blocks=blocks, kernels=kernels)
    lost = net.input_minimum - net(torch.zeros(1, 1, net.input_minimum)).shape[2]
    for size in range(1, net.input_minimum + 40):
        if net.nearest_sizes(size) == (size,):
            assert net(torch.zeros(1, 1, size)).shape[2] == size - lost
        else:
            with pytest.raises(ShapeError, match=rf"width {size} → "):
                net(torch.zeros(1, 1, size))


def test_names_in_state_dicts_stay() -> None:
    """Checkpoints of earlier runs load: the names of a plain padded U-Net are these."""
    stage = ["conv1.weight", *(f"norm1.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
             "norm1.num_batches_tracked"]  # fmt: skip
    stage += [name.replace("1.", "2.") for name in stage]
    expected = [f"encoder.{level}.{name}" for level in (0, 1) for name in stage]
    expected += ["up.0.weight", "up.0.bias", *(f"decoder.0.{name}" for name in stage), "head.weight", "head.bias"]
    assert list(models.unet(2, levels=1, width=4).state_dict()) == expected
    resized = models.unet(2, levels=1, width=4, up="resize", norm="none").state_dict()
    assert {"up.0.conv.weight", "encoder.0.conv1.bias"} <= set(resized)
    assert list(resized) == list(models.unet(2, levels=1, width=4, up="linear", norm="none").state_dict())


def test_pad_crop_trim() -> None:
    x = torch.randn(1, 1, 5, 6)
    assert pad(x, (4, 3)).shape == (1, 1, 8, 6) and torch.equal(crop(pad(x, (4, 3)), (5, 6)), x)
    assert pad(x, (5, 3)) is x
    assert torch.equal(trim(x, (0, 2)), x[:, :, :, 2:4]) and trim(x, (0, 0)) is x


# ---- dense prediction on backbones -----------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_dense_networks_have_names(name: str) -> None:
    assert f"unet_{name}" in models.names(task="segment")
    torch.manual_seed(0)
    net = models.build(f"unet_{name}", 2, in_channels=1, num_classes=3, width=0.125, depth=0.5)
    logits = net(torch.randn(2, 1, 33, 50))
    logits.square().mean().backward()
    assert logits.shape == (2, 3, 33, 50) and 0.01 < logits.std() < 50
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("dims, name, options", [
    (1, "unet_resnet50", {}), (3, "unet_resnet18", {"stem": "small", "norm": "group"}),
    (1, "unet_efficientnet_b0", {"up": "nearest"}),
])  # fmt: skip
def test_dense_networks_export_and_agree(dims: int, name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = models.build(name, dims, in_channels=1, num_classes=2, width=0.125, depth=0.1, **options)
    agreeing(net, (1, 1, *(33, 20, 40)[:dims]), (2, 1, *(64, 32, 17)[:dims]))


def test_small_stem_has_a_skip_at_full_resolution() -> None:
    with torch.device("meta"):
        large, small = (models.build("unet_resnet18", width=0.25, stem=stem) for stem in ("image", "small"))
    assert (len(large.up), len(small.up)) == (5, 3)
    assert (large.decoder[0].conv1.in_channels, small.decoder[0].conv1.in_channels) == (8, 8 + 16)


def test_any_backbone_by_hand() -> None:
    encoder = models.build("vgg11", 1, in_channels=2, width=0.125, features_only=True)
    net = DenseUNet(encoder, 4, width=4, sizes="check")
    size = encoder.feature_strides[-1]
    assert net.input_multiple == size
    assert net(torch.zeros(1, 2, 2 * size)).shape == (1, 4, 2 * size)
    with pytest.raises(ShapeError, match=rf"DenseUNet: x has spatial size .* multiple of {size}"):
        net(torch.zeros(1, 2, size + 1))


@pytest.mark.parametrize("make, match", [
    (lambda: DenseUNet(models.build("resnet18", width=0.125), 2),
     "encoder is a ResNet with a head, but .* features_only=True"),
    (lambda: DenseUNet(nn.Conv2d(1, 1, 1), 2), "encoder is Conv2d.*, but it must be a Network"),
    (lambda: models.build("unet_resnet18", width=0.125, sizes="grow"), "sizes is 'grow'"),
    (lambda: models.build("unet_resnet18", width=0.125, up="cubic"), "up is 'cubic'"),
    (lambda: models.build("unet_resnet18", levels=2), "no option 'levels'.*Its options: width, depth"),
    (lambda: DenseUNet(models.build("alexnet", 2, width=0.125, features_only=True), 2)(torch.zeros(1, 3, 128, 128)),
     r"DenseUNet: AlexNet returns a feature map of \(\d+, \d+\) where .* loses borders.*such as resnet18"),
])  # fmt: skip
def test_dense_networks_name_mistakes(make: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()


# ---- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, match", [
    ({"levels": 2, "strides": [2, 2, 2]}, "strides has 3 entries, but levels=2 needs 2: one a pooling"),
    ({"levels": 2, "kernels": [3, 3]}, "kernels has 2 entries, but levels=2 needs 3: one a level and one for the b"),
    ({"levels": 17}, "levels is 17, but it can be at most 16"),
    ({"levels": 2, "width": [4, 8]}, "width has 2 entries, but levels=2 needs 3"),
    ({"levels": 1, "blocks": [1, 1, 1]}, "blocks has 3 entries, but levels=1 needs 2"),
    ({"levels": 1, "strides": [(2, 2, 2)]}, r"strides holds \(2, 2, 2\), but dims=2 needs 2 numbers"),
    ({"kernels": 4}, "kernels holds 4, but padding='same' needs odd sizes. Give 5"),
    ({"strides": 0}, "strides is 0, but it must be a whole number of at least 1"),
    ({"blocks": 0}, "blocks is 0"),
    ({"width": True}, "width is True"),
    ({"block": "dense"}, "block is 'dense', but it can be 'plain' or 'residual'"),
    ({"sizes": "grow"}, "sizes is 'grow', but it can be 'check' or 'pad'"),
    ({"levels": 2, "deep_supervision": 2}, "deep_supervision is 2, but levels=2 has 1 coarser levels"),
    ({"deep_supervision": -1}, "deep_supervision is -1"),
    ({"padding": "none", "sizes": "pad"}, "padding is 'none', but sizes works with padding='same' only"),
    ({"padding": "none", "deep_supervision": 1}, "padding is 'none', but deep_supervision is given"),
    ({"padding": "none", "up": "shuffle"}, "padding is 'none', but up works"),
])  # fmt: skip
def test_mistakes_are_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        models.build("unet", **options)


def test_widen_is_checked() -> None:
    with pytest.raises(ConfigError, match="widen is 'never', but it can be 'after' or 'before'"):
        models.UNet(2, 1, 2, widen="never")


def test_one_position_has_no_variance() -> None:
    one = torch.zeros(1, 1, 4, 4)
    instance = models.unet(2, levels=2, width=4, norm="instance").eval()
    with pytest.raises(ShapeError, match=r"levels=2 leave one position, and norm='instance' .* fewer levels"):
        instance(one)
    batch = models.unet(2, levels=2, width=4)
    with pytest.raises(ShapeError, match=r"norm='batch' needs two .* or a larger batch"):
        batch.train()(one)
    assert batch.eval()(one).shape == (1, 2, 4, 4) and batch.train()(one.expand(2, 1, 4, 4)).shape == (2, 2, 4, 4)
    assert models.unet(2, levels=2, width=4, norm="group")(one).shape == (1, 2, 4, 4)
