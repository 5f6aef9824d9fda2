"""Every number of the file of published figures is computed here; one that no rule computes fails.

The file is walked leaf by leaf. A rule is a pattern of paths and a function that returns what Convoxel says in the
file's own form, from the parts that the pattern names. ``TRAINED`` names what no arithmetic can give.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convoxel import models
from convoxel.arithmetic import conv_size, parse_chain, transposed_size
from convoxel.inspect import Summary
from convoxel.lookup import describe
from convoxel.models.efficientnet import VARIANTS
from tests.support.chains import SLIM

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "published.json"
TRAINED = {"nnunet_hippocampus_dice": "scores of trained networks on data, not of their arithmetic"}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a dict or a list of lists, with its path; notes are text about the others."""
    if isinstance(tree, list) and tree and isinstance(tree[0], list):
        tree = {str(place): each for place, each in enumerate(tree)}
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key != "note":
                yield from leaves(value, f"{path}/{key}" if path else key)
    else:
        yield path, tree


FIGURES = dict(leaves(json.loads(PUBLISHED.read_text(encoding="utf-8")))) if PUBLISHED.exists() else {}


# ---- networks that are not in the zoo ------------------------------------------------------------------------


class Unit(nn.Module):
    """Two 3-wide convolutions in 3-D and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(),
            nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm3d(outputs),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def build_r3d_18() -> nn.Module:
    """R3D-18 of Tran et al. 2018 (arXiv 1711.11248), Table 1; 400 classes."""
    channels = (64, 64, 128, 256, 512)
    units = [
        Unit(inputs if first else outputs, outputs, 2 if first and inputs != outputs else 1)
        for inputs, outputs in itertools.pairwise(channels)
        for first in (True, False)
    ]
    stem = [nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(64), nn.ReLU()]
    return nn.Sequential(*stem, *units, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, 400))


# ---- what the rules ask for ----------------------------------------------------------------------------------


@functools.cache
def counted(name: str) -> Summary:
    return describe(name)


@functools.cache
def video() -> Summary:
    with torch.device("meta"):
        return describe(build_r3d_18(), (1, 3, *FIGURES["video_3d/r3d_18/input"]))


def zoo_name(key: str) -> str:
    return "googlenet_5x5" if "5x5" in key else key.split()[0]


def parameters(name: str, *shape: Any, **options: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in models.build(name, *shape, **options).parameters())


def billions(macs: int) -> float:
    """As published: 10⁹, three decimals."""
    return round(macs / 1e9, 3)


def params_of(key: str) -> int:
    return parameters(zoo_name(key), auxiliary=True) if "with auxiliary" in key else counted(zoo_name(key)).params


def params_of_unet(key: str) -> int:
    if "Cicek" in key:
        net = models.unet_cicek(norm="none")
        return sum(p.numel() for p in net.parameters())
    if "Ronneberger" in key:
        return parameters("unet_ronneberger")
    inputs, outputs = map(int, re.findall(r"(\d+) to (\d+)", key)[0])
    return parameters("unet", 2, inputs, outputs, width=64)


def unet_at(key: str, sizes: str) -> int | str:
    """The output size for ``sizes``, in the form in which it is asked."""
    shape = [int(size) for size in sizes.split(",")]
    name, shape = ("unet_cicek", shape) if "Cicek" in key else ("unet_ronneberger", shape * 2)
    found = describe(name, (1, 3 if "Cicek" in key else 1, *shape)).output_shapes[0][2:]
    return ",".join(map(str, found)) if "," in sizes else found[0]


def valid_inputs(key: str) -> str:
    net = counted("unet_ronneberger")
    (start, _), (step, _) = net.sizes.smallest, net.sizes.step
    lost = net.input_shapes[0][2] - net.output_shapes[0][2]
    return f"{start} + {step} n, output = input - {lost}"


def chain_fields(text: str, layer: str) -> list[int]:
    """The fields behind those layers of a chain that begin with ``layer``."""
    graph = parse_chain(text)
    return [field.size for node, field in zip(graph.nodes, graph.fields(4000)[1:], strict=True)
            if str(node).startswith(layer)]  # fmt: skip


def alexnet_field(key: str, published: Any) -> int | str:
    """Behind a layer; with the stride where that is published."""
    kind, number = key[:-1], int(key[-1]) - 1
    operator = {"conv": "convolution", "pool": "max_pool"}[kind]
    row = [row for row in counted("alexnet").rows if row.operator == operator][number]
    assert row.field is not None
    return str(row.field) if isinstance(published, str) else row.field.size[0]


def worked_example(place: str) -> list[int]:
    i, k, s, p, _ = FIGURES[f"dumoulin_visin/examples (i,k,s,p)->o/{place}"]
    return [i, k, s, p, conv_size(i, k, s, p)]


def transposed_example(i: str, k: str, s: str, p: str, a: str) -> str:
    """The transposed convolution goes from what the convolution makes to what it takes."""
    numbers = int(k), int(s), int(p)
    made = conv_size(int(i), *numbers)
    assert transposed_size(made, *numbers, a=int(a or 0)) == int(i)
    return f"{made} -> {i}"


def dilated_example(*numbers: str) -> int:
    return conv_size(*map(int, numbers))


def transposed_macs(key: str) -> int:
    channels = re.search(r"(\d+)->(\d+)", key)
    dims, kernel, stride = (int(re.search(pattern, key)[1]) for pattern in (r"Transpose(\d)", r"k(\d)", r"s(\d)"))
    sizes = key.partition(" on ")[2].partition(" ")[0]
    size = [int(re.match(r"\d+", sizes)[0])] * dims
    inputs, outputs = map(int, channels.groups()) if channels else (int(re.search(r"d (\d+) k", key)[1]),) * 2
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    layer = kind(inputs, outputs, kernel, stride, bias=False, groups=1 if channels else inputs)
    return describe(layer, (1, inputs, *size)).macs


def scaling(variant: str) -> list[float]:
    row = VARIANTS[f"efficientnet_{variant}"]
    # B2 was trained at 260 for the paper; the weights that others publish, at 288.
    return [row.width, row.depth, 260 if variant == "b2" else row.published.size]


RULES: dict[str, Callable[..., Any]] = {
    r"models/([^/]+)/params": params_of,
    r"models/([^/]+)/gmacs": lambda key: billions(counted(zoo_name(key)).macs),
    r"models/([^/]+)/input": lambda key: counted(zoo_name(key)).input_shapes[0][-1],
    r"models/([^/]+)/field": lambda key: counted(zoo_name(key)).field.size[0],
    r"models/([^/]+)/stride": lambda key: counted(zoo_name(key)).field.stride[0],
    r"video_3d/r3d_18/params": lambda: video().params,
    r"video_3d/r3d_18/gmacs": lambda: billions(video().macs),
    r"video_3d/r3d_18/input": lambda: list(video().input_shapes[0][2:]),
    r"minimum_input/(\w+)": lambda name: counted(name).sizes.smallest[0],
    r"unet/([^/]+)/params": params_of_unet,
    r"unet/([^/]+)/sizes/([\d,]+)": unet_at,
    r"unet/([^/]+)/macs_at_572": lambda key: describe("unet_ronneberger", (1, 1, 572, 572)).macs,
    r"unet/([^/]+)/valid_inputs": valid_inputs,
    r"distill_receptive_fields/(\w+)": lambda name: parse_chain(SLIM[name]).field(4000).size,
    r"intermediate_fields/alexnet \(field/stride\)/(\w+)": lambda key: alexnet_field(key, FIGURES[
        f"intermediate_fields/alexnet (field/stride)/{key}"]),
    r"intermediate_fields/vgg16 pools": lambda: chain_fields(SLIM["vgg_16"], "pool"),
    r"intermediate_fields/mobilenet_v1 separable 1..13": lambda: chain_fields(SLIM["mobilenet_v1"], "k3")[1:],
    r"dumoulin_visin/examples \(i,k,s,p\)->o/(\d+)": worked_example,
    r"dumoulin_visin/transposed of \((\d),(\d),(\d),(\d)\)(?:, a=(\d))?": transposed_example,
    r"dumoulin_visin/dilated \((\d),(\d),(\d),(\d),d=(\d)\)": dilated_example,
    r"efficientnet_scaling [^/]*/(b\d)": scaling,
    r"transposed_conv_macs/(.+)": transposed_macs,
}  # fmt: skip


def compute(path: str) -> Any:
    """Return Convoxel's value of the figure at ``path``."""
    found = [(rule, match.groups()) for pattern, rule in RULES.items() if (match := re.fullmatch(pattern, path))]
    assert len(found) == 1, f"{len(found)} rules compute {path}; expected one"
    rule, parts = found[0]
    return rule(*parts)


@pytest.mark.skipif(not FIGURES, reason="the file of published figures is not on this machine")
@pytest.mark.parametrize("path", [path for path in FIGURES if path.partition("/")[0] not in TRAINED])
def test_published_figure(path: str) -> None:
    assert compute(path) == FIGURES[path]


def test_a_figure_without_a_rule_fails() -> None:
    with pytest.raises(AssertionError, match="0 rules compute models/resnet18/top1; expected one"):
        compute("models/resnet18/top1")


def test_rules_tell_figures_apart() -> None:
    """Without the file: some rules on what is published elsewhere too."""
    assert compute("minimum_input/googlenet") == 15 and compute("distill_receptive_fields/vgg_a") == 150
    assert compute("transposed_conv_macs/depthwise ConvTranspose2d 32 k3 s2 on 16x16") == 73_728
    assert compute("dumoulin_visin/transposed of (6,3,2,1), a=1") == "3 -> 6"
    assert compute("efficientnet_scaling (width, depth, resolution)/b2") == [1.1, 1.2, 260]
