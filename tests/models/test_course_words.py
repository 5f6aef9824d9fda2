"""Tasks of the course as words, over the whole zoo: each changes every network, or says why it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel.errors import ConfigError
from convoxel.models.alteration import alter
from convoxel.nn import restore_separated

SMALL: dict[str, Any] = {"in_channels": 1, "num_classes": 3}
# One network of each kind: the others of its family are the same code with other numbers.
KINDS = ("alexnet", "vgg11", "googlenet", "inception_v3", "resnet18", "resnet50", "densenet121", "mobilenet_v1",
         "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "unet", "unet_ronneberger", "unet_cicek",
         "plain_conv_unet", "residual_encoder_unet", "generic_unet", "course_vgg", "unet_resnet18",
         "unet_efficientnet_b0")  # fmt: skip
# Words of the tasks I2 to I5 and I9; what a word cannot change is refused, and for these reasons alone.
WORDS: dict[str, dict[str, Any]] = {
    "dilated kernels": {"dilation": 3},
    "no shortcuts": {"block": "plain"},
    "shortcuts": {"block": "residual"},
    "reflected": {"padding": "reflect"},
    "periodic": {"padding": "circular"},
    "instance normalisation": {"norm": "instance"},
    "group normalisation": {"norm": "group"},
    "no normalisation": {"norm": "none"},
    "dropout in all layers": {"dropout": 0.4, "dropout_where": "all"},
    "dropout in the last layer": {"dropout": 0.4, "dropout_where": "last"},
}
UNPADDED = {"unet_ronneberger", "unet_cicek"}
RESIDUAL = {"resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "residual_encoder_unet",
            "unet_resnet18", "unet_efficientnet_b0"}  # fmt: skip
REFUSED = {
    "dilated kernels": UNPADDED, "reflected": UNPADDED, "periodic": UNPADDED, "shortcuts": {"unet_cicek"},
}  # fmt: skip
SAME = {  # it is so already
    "no shortcuts": set(KINDS) - RESIDUAL,
    "shortcuts": RESIDUAL,
    "instance normalisation": {"plain_conv_unet", "residual_encoder_unet", "generic_unet"},
    "no normalisation": {"alexnet", "vgg11", "unet_ronneberger"},
}


def structure(network: nn.Module) -> list[str]:
    """Everything that a word may change: layers with their settings, hooks and shortcuts."""
    return [
        f"{name} {type(layer).__name__} {'' if list(layer.children()) else layer} {len(layer._forward_pre_hooks)} "
        f"{len(layer._forward_hooks)} {getattr(layer, 'has_shortcut', '')}"
        for name, layer in network.named_modules()
    ]


def meta(name: str, dims: int, **options: Any) -> models.Network:
    with torch.device("meta"):
        return build_meta(name, dims, **options)


def build_meta(name: str, dims: int, **options: Any) -> models.Network:
    known = models.entry(name).options
    width = 8 if isinstance(known["width"], int) else 0.25
    small = {"levels": 2} if "levels" in known else {}
    return models.build(name, dims, **SMALL, width=width, **small, **options)


@pytest.mark.parametrize("name", KINDS)
def test_every_word_of_the_course_changes_every_network_or_says_why_not(name: str) -> None:
    before = structure(meta(name, 2))
    for word, options in WORDS.items():
        if name in REFUSED.get(word, ()):
            with pytest.raises(ConfigError, match=f"^(model '{name}'|{'|'.join(options)})"):
                meta(name, 2, **options)
            continue
        same = structure(meta(name, 2, **options)) == before
        assert same == (name in SAME.get(word, ())), f"{word}: {'ignored' if same else 'changed'}"


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("options", WORDS.values(), ids=list(WORDS))
def test_the_words_hold_in_every_number_of_axes(dims: int, options: dict[str, Any]) -> None:
    for name in ("mobilenet_v2", "vgg11_bn", "plain_conv_unet"):
        flat, other = (structure(meta(name, each, **options)) for each in (2, dims))
        assert len(flat) == len(other)
        assert [line.split()[-1] for line in flat] == [line.split()[-1] for line in other]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_shortcuts_are_added_and_taken_away(dims: int) -> None:
    x = torch.randn(1, 4, *(6,) * dims, generator=torch.Generator().manual_seed(0))
    layer = getattr(nn, f"Conv{dims}d")(4, 4, 3, padding=1)
    plain = layer(x)
    alter(layer, block="residual")
    torch.testing.assert_close(layer(x), plain + x)
    with pytest.raises(ConfigError, match="block: got 'residual', but no convolution"):
        alter(getattr(nn, f"Conv{dims}d")(4, 5, 3, padding=1), block="residual")
    with pytest.raises(ConfigError, match="block is 'dense', but it can be 'plain' or 'residual'"):
        alter(layer, block="dense")
    for name in ("mobilenet_v2", "residual_encoder_unet", "unet_resnet18"):
        net, bare = build_meta(name, dims).eval(), build_meta(name, dims, block="plain").eval()
        assert bare.load_state_dict(net.state_dict(), strict=False).missing_keys == []
        image = torch.randn(1, 1, *(32,) * dims)
        assert net(image).shape == bare(image).shape and not torch.equal(net(image), bare(image))


def test_a_separated_convolution_keeps_its_shortcut() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
    alter(net, block="residual")
    factors = [{"shape": (4, 4, 3, 1), "axes": (0,), "groups": 1}, {"shape": (4, 4, 1, 3), "axes": (1,), "groups": 1}]
    parts = restore_separated(net, [{"name": "0", "factors": factors}])
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(parts(x), parts[0][1](parts[0][0](x)) + x)
    program = cx.compile(parts, x)
    torch.testing.assert_close(program(x), parts(x), rtol=1e-4, atol=1e-5)
