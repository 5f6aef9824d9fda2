"""The networks of nnU-Net: parameters as published, names, strides and kernels by axis, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convoxel import models
from convoxel.errors import ConfigError, ShapeError
from tools.zoo import agreeing

NAMES = tuple(models.nnunet.VARIANTS)
ANISOTROPIC: dict[str, Any] = {
    "levels": 3, "width": [4, 6, 8, 8], "kernels": [(1, 3, 3), 3, 3, 3], "strides": [(1, 2, 2), 2, (1, 2, 2)],
}  # fmt: skip


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name, dims, levels, parameters", [
    # Counted by dynamic-network-architectures 0.4.4 for nnU-Net's plans: 6 stages of a volume, 8 of a plane.
    ("plain_conv_unet", 3, 5, 31_196_399),
    ("plain_conv_unet", 2, 7, 46_326_581),
    ("residual_encoder_unet", 3, 5, 102_350_575),
    ("residual_encoder_unet", 2, 7, 140_019_061),
    ("generic_unet", 3, 5, 31_195_584),  # counted by nnunet 1.7.1
])  # fmt: skip
def test_counts_of_the_plans(name: str, dims: int, levels: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(models.build(name, dims, 1, 3, levels=levels, deep_supervision=levels - 1)) == parameters


def test_names_of_the_state_dict() -> None:
    plain = models.plain_conv_unet(2, levels=2, width=4, deep_supervision=1).state_dict()
    assert {"encoder.stages.1.0.convs.1.norm.weight", "decoder.stages.0.convs.0.conv.bias",
            "decoder.transpconvs.1.weight", "decoder.seg_layers.0.weight"} <= plain.keys()  # fmt: skip
    residual = models.residual_encoder_unet(2, levels=2, width=4).state_dict()
    assert {"encoder.stem.convs.0.conv.weight", "encoder.stages.1.blocks.2.conv2.norm.bias",
            "encoder.stages.1.blocks.0.skip.1.conv.weight"} <= residual.keys()  # fmt: skip
    assert "encoder.stages.1.blocks.0.skip.1.conv.bias" not in residual
    assert [name for name in residual if "seg_layers" in name] == [
        f"decoder.seg_layers.1.{end}" for end in ("weight", "bias")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_strides_and_kernels_by_axis(name: str) -> None:
    torch.manual_seed(0)
    net = models.build(name, 3, 2, 3, **ANISOTROPIC)
    assert (net.multiples, net.input_multiple) == ((2, 8, 8), 8)
    agreeing(net, (1, 2, 4, 16, 24), (2, 2, 6, 24, 16))
    with pytest.raises(ShapeError, match=r"multiples of \(2, 8, 8\)"):
        net(torch.zeros(1, 2, 3, 16, 16))
    with pytest.raises(ShapeError, match="leave one position"):
        net(torch.zeros(1, 2, 2, 8, 8))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_training_gives_logits_of_coarser_levels_and_reaches_every_weight(name: str, dims: int) -> None:
    torch.manual_seed(0)
    net = models.build(name, dims, 1, 2, levels=3, width=4, deep_supervision=2)
    x = torch.randn(2, 1, *(16,) * dims)
    found = net(x)
    assert [tuple(y.shape) for y in found] == [(2, 2, *(size,) * dims) for size in (16, 8, 4)]
    sum(y.square().mean() for y in found).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.eval()
    torch.testing.assert_close(net(x), found[0])


@pytest.mark.parametrize("options, match", [
    ({"levels": 0}, "levels is 0"),
    ({"levels": 2, "deep_supervision": 2}, "deep_supervision is 2, but levels=2 has 1"),
    ({"levels": 2, "kernels": 4}, "kernels holds 4.* Give 5"),
    ({"levels": 2, "blocks": [2, 2]}, "blocks has 2 entries"),
    ({"levels": 2, "decoder_blocks": [1]}, "decoder_blocks has 1 entries"),
    ({"levels": 2, "width": (4, 8)}, "width has 2 entries"),
    ({"levels": 2, "strides": [(2, 2), 2]}, r"strides holds \(2, 2\)"),
    ({"levels": 2, "norm": "layer"}, "norm is 'layer'"),
])  # fmt: skip
def test_refusals(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        models.plain_conv_unet(3, **options)
