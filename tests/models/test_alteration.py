"""Dilation, padding and dropout of whole networks: values, sizes, fields, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel.errors import ConfigError
from convoxel.models.alteration import alter

pytestmark = pytest.mark.smoke

CLASSIFIERS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "googlenet", "densenet121", "vgg11", "course_vgg")
SMALL: dict[str, Any] = {"in_channels": 1, "num_classes": 3}


def build(name: str, dims: int = 2, **options: Any) -> models.Network:
    width = 4 if name in ("unet", "plain_conv_unet") else 0.125
    return models.build(name, dims, **SMALL, width=width, **options)


def images(dims: int, size: int = 64) -> torch.Tensor:
    return torch.randn(2, 1, *(size,) * dims, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "unet", "mobilenet_v2"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dilation_keeps_sizes_and_widens_the_field(name: str, dims: int) -> None:
    plain, wide = build(name, dims), build(name, dims, dilation=2)
    assert list(plain.state_dict()) == list(wide.state_dict())
    shape = (1, 1, *(32,) * dims)
    before, after = cx.describe(plain, shape), cx.describe(wide, shape)
    assert [row.output_shape for row in before.rows] == [row.output_shape for row in after.rows]
    assert before.params == after.params and before.field is not None and after.field is not None
    assert min(after.field.size) > 1.7 * max(before.field.size)


def test_dilation_by_name_changes_those_layers() -> None:
    net = build("unet", levels=2, dilation={"encoder": {"*": 2}, "encoder.2.*": 4})
    rates = {name: layer.dilation for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    assert rates["encoder.0.conv1"] == (2, 2) and rates["encoder.2.conv2"] == (4, 4)
    assert rates["decoder.0.conv1"] == (1, 1) and rates["head"] == (1, 1)


def test_a_dilated_convolution_computes_as_pytorch() -> None:
    layer = nn.Conv2d(1, 2, (3, 5), stride=(2, 1), padding=(1, 2))
    wanted = nn.Conv2d(1, 2, (3, 5), stride=(2, 1), padding=(3, 6), dilation=3, padding_mode="reflect")
    wanted.load_state_dict(layer.state_dict())
    alter(layer, dilation=3, padding="reflect")
    x = images(2, 17)
    torch.testing.assert_close(layer(x), wanted(x))


@pytest.mark.parametrize("name", [*CLASSIFIERS, "unet", "unet_resnet18", "plain_conv_unet"])
def test_every_network_takes_every_word(name: str) -> None:
    size = 224 if name == "vgg11" else 64
    options = {"padding": "replicate", "dropout": 0.3, "dropout_where": "all"}
    net = build(name, **options)
    x = images(2, size)
    with torch.no_grad():
        first, again = net.train()(x), net(x)
        assert not torch.equal(first[0] if isinstance(first, (list, tuple)) else first,
                               again[0] if isinstance(again, (list, tuple)) else again)  # fmt: skip
        assert torch.equal(net.eval()(x), net(x))
        plain = build(name)
        plain.load_state_dict(net.state_dict())
        assert not torch.equal(plain.eval()(x), net(x))  # the border differs


@pytest.mark.parametrize(("where", "count"), [("last", 1), ("conv", 4), ("all", 6)])
def test_dropout_is_where_it_is_asked_for(where: str, count: int) -> None:
    layers = [nn.Conv1d(1, 4, 3), *(nn.Conv1d(4, 4, 3) for _ in range(4)), nn.Flatten(), nn.LazyLinear(4)]
    net = nn.Sequential(*layers, nn.Linear(4, 2))
    net(torch.zeros(1, 1, 16))
    seen: list[bool] = []
    alter(net, dropout=0.999, dropout_where=where)
    for layer in net:  # hooks run in the order of their registration
        if isinstance(layer, (nn.Conv1d, nn.Linear)):
            layer.register_forward_pre_hook(lambda _, given: seen.append(bool((given[0] == 0).all())))
            nn.init.ones_(layer.weight)
    torch.manual_seed(0)
    net.train()(torch.ones(1, 1, 16))
    assert len(seen) == 7 and not seen[0]
    dropped = [place for place, layer in enumerate(net) if len(layer._forward_pre_hooks) > 1]
    assert len(dropped) == count and (where != "last" or dropped == [7])


def test_own_dropout_of_a_network_is_that_of_its_last_layer() -> None:
    last, everywhere = build("vgg11", dropout=0.25), build("vgg11", dropout=0.25, dropout_where="conv")
    rates = [[m.p for m in net.modules() if isinstance(m, nn.Dropout)] for net in (last, everywhere)]
    hooks = [sum(bool(m._forward_pre_hooks) for m in net.modules()) for net in (last, everywhere)]
    assert rates == [[0.25, 0.25], [0.0, 0.0]] and hooks[0] == 0 < hooks[1]


def test_altered_networks_copy_and_compile() -> None:
    net = build("unet", levels=1, dilation=2, padding="circular", dropout=0.5, dropout_where="all").eval()
    x = images(2, 16)
    with torch.no_grad():
        wanted = net(x)
        assert torch.equal(copy.deepcopy(net)(x), wanted)
        torch.testing.assert_close(cx.compile(net, x)(x), wanted, rtol=1e-4, atol=1e-5)


def test_plain_residual_networks_have_no_shortcuts() -> None:
    net = build("resnet50", block="plain")
    assert not any("downsample" in name for name in net.state_dict())
    assert net.eval()(images(2)).shape == (2, 3)
    assert cx.describe(net, (1, 1, 64, 64)).params < cx.describe(build("resnet50"), (1, 1, 64, 64)).params


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dilation": 0}, "dilation is 0, but it must be a whole number of at least 1"),
        ({"dilation": 2.5}, "dilation"),
        ({"dilation": {"encodr.*": 2}}, r"dilation: 'encodr.\*' fits nothing in .*; expected patterns such as encoder"),
        ({"padding": "mirror"}, "padding"),
        ({"dropout": 1.0}, "dropout: got 1.0; expected a probability"),
        ({"dropout": True}, "dropout: got True"),
        ({"dropout_where": "first"}, "dropout_where"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build("unet", **options)
