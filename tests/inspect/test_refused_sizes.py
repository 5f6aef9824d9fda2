"""Networks that refuse a shape: the message names near shapes that work, and these do work."""

from __future__ import annotations

import ast
import re

import pytest
import torch
from torch import Tensor, nn

from convoxel import ShapeError, compile, describe
from convoxel.arithmetic.size_search import explain_refusal


class Joined(nn.Module):
    """Half the size and back again, beside the input."""

    def __init__(self, dims: int, adds: bool = False) -> None:
        super().__init__()
        conv, up = ((nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d), (nn.Conv3d, nn.ConvTranspose3d))[
            dims - 1
        ]
        self.down, self.up, self.adds = conv(3, 4, 2, stride=2), up(4, 3, 2, stride=2), adds

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.down(x))
        return x + y if self.adds else torch.cat((x, y), 1)


class Patches(nn.Module):
    """Windows of 7 positions a side."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, c, h // 7, 7, w // 7, 7).amax((3, 5))


class Asserting(nn.Module):
    """A patch embedding that takes one size."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 16, stride=16)

    def forward(self, x: Tensor) -> Tensor:
        assert tuple(x.shape[2:]) == (96, 128), f"this size is not (96, 128): {tuple(x.shape[2:])}"
        return self.embed(x).flatten(2)  # type: ignore[no-any-return]


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 6, 32, 64)


HEAD = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 12 * 12, 10))
LAYER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


@pytest.mark.parametrize("net, shape, names", [
    (Joined(1), (1, 3, 33), [(1, 3, 34), (1, 3, 32)]),
    (Joined(2), (1, 3, 33, 32), [(1, 3, 34, 32), (1, 3, 32, 32)]),
    (Joined(2, adds=True), (2, 3, 33, 33), [(2, 3, 34, 34), (2, 3, 32, 32)]),
    (Joined(3), (1, 3, 9, 8, 8), [(1, 3, 10, 8, 8), (1, 3, 8, 8, 8)]),
    (Joined(2), (1, 1, 32, 32), [(1, 3, 32, 32)]),
    (Joined(2), (1, 1, 31, 32), [(1, 3, 32, 32), (1, 3, 30, 32)]),
    (Patches(), (1, 1, 56, 60), [(1, 1, 56, 63), (1, 1, 56, 56)]),
    (Asserting(), (1, 3, 100, 120), [(1, 3, 96, 128)]),
    (Fixed(), (1, 6, 30, 60), [(1, 6, 32, 64)]),
    (HEAD, (1, 1, 64, 64), [(1, 1, 29, 29)]),
    (HEAD, (28, 28), []),
    (nn.BatchNorm2d(3), (3, 8, 8), [(1, 3, 8, 8)]),
    (LAYER, (1, 5, 9), [(1, 5, 8)]),
    (nn.Conv1d(3, 3, 3), (1, 3, 2), [(1, 3, 3)]),
])  # fmt: skip
@pytest.mark.parametrize("ask", ["describe", "compile"])
def test_refusals_name_near_shapes_that_work(
    ask: str, net: nn.Module, shape: tuple[int, ...], names: list[tuple[int, ...]]
) -> None:
    net.eval()
    refusal = ShapeError if names else Exception
    with pytest.raises(refusal) as caught:
        describe(net, shape) if ask == "describe" else compile(net, torch.zeros(shape))
    told = str(caught.value).split("; ", 1)[-1]
    if "fit: " in str(caught.value):  # of a program that leaves sizes open
        sizes = re.findall(r"[dhw] = (\d+)", str(caught.value))
        found = [(*shape[:2], *map(int, sizes[i : i + len(shape) - 2])) for i in range(0, len(sizes), len(shape) - 2)]
    else:
        at = re.search("nearest shapes|It takes|first axis", str(caught.value))
        told = str(caught.value)[at.start() :] if at else ""
        found = [ast.literal_eval(text) for text in re.findall(r"\(\d+(?:, \d+)+\)", told)]
    assert set(names) <= set(found)
    for named in found:
        with torch.no_grad():
            net(torch.zeros(named))


def test_the_search_is_bounded() -> None:
    asked: list[object] = []
    assert explain_refusal(lambda shapes: bool(asked.append(shapes)), [(1, 3, 40, 40)], 50) == ""
    assert len(asked) == len(set(map(str, asked))) == 50
