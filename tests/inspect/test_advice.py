"""Advice to designers: each sentence for a network that deserves it, and silence for one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from convoxel import models
from convoxel.lookup import describe
from convoxel.native import calibration


def told(net: nn.Module, shape: tuple[int, ...], word: str, **options: object) -> list[str]:
    return [sentence for sentence in describe(net, shape, **options).warnings if word in sentence]


def test_a_field_smaller_than_the_image() -> None:
    conv = nn.Conv2d(8, 8, 3)
    assert told(conv, (1, 8, 32, 32), "judged by") == [
        "an output sees 3×3 of 32×32: larger objects are judged by their parts"
    ]
    assert told(conv, (1, 8, 3, 3), "sees") == []
    pooled = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1))
    assert told(pooled, (1, 8, 32, 32), "last feature map") == [
        "the last feature map sees 3×3 of 32×32; only global steps (pooling, fully-connected layers, norms) see more"
    ]


def test_a_field_smaller_than_the_object() -> None:
    conv = nn.Conv2d(1, 1, 5)
    (sentence,) = told(conv, (1, 1, 32, 32), "object", object_size=(4, 6))
    assert sentence.startswith("the receptive field 5×5 is smaller than the object 4×6: no position")
    assert told(conv, (1, 1, 32, 32), "object", object_size=5) == []


def test_layers_that_see_nothing_new() -> None:
    net = nn.Sequential(*[nn.Conv1d(1, 1, 3, padding=1) for _ in range(6)])
    (sentence,) = told(net, (1, 1, 7), "no new context")
    assert sentence.startswith("3 of 6 convolutions wider than 1 find no new context at 7, from 3 on")
    assert told(net, (1, 1, 64), "no new context") == []


@pytest.mark.parametrize("kernel, stride, dilation, counts", [
    (3, 2, 1, "1 to 2"), (1, 2, 1, "0 to 1"), (5, 3, 1, "1 to 2"), (3, 2, 2, "0 to 3"),
    (2, 2, 1, ""), (4, 2, 1, ""), (3, 1, 1, ""), (2, 2, 3, ""),
])  # fmt: skip
def test_uneven_overlap(kernel: int, stride: int, dilation: int, counts: str) -> None:
    layer = nn.ConvTranspose1d(1, 1, kernel, stride, dilation=dilation)
    sentences = told(nn.Sequential(layer), (1, 1, 16), "checkerboard")
    assert len(sentences) == bool(counts)
    if counts:
        assert sentences[0] == (
            f"0: kernel {kernel} at stride {stride} writes positions {counts} times an axis, "
            "which shows as a checkerboard; let the stride divide the kernel"
        )


def test_borders_that_are_not_read() -> None:
    assert told(nn.Sequential(nn.MaxPool2d(2)), (1, 1, 9, 8), "never reads") == [
        "0 never reads the last position of 9×8"
    ]
    two = nn.Sequential(nn.MaxPool1d(3), nn.MaxPool1d(2))
    assert told(two, (1, 1, 11), "never reads") == ["0 never reads the last 2 positions of 11 (and 1 more like it)"]
    assert told(nn.Sequential(nn.MaxPool1d(2, ceil_mode=True)), (1, 1, 9), "never reads") == []
    assert told(nn.Sequential(nn.Conv1d(1, 1, 3, 2, 1)), (1, 1, 8), "never reads") == []  # what is left is padding
    assert told(nn.Sequential(nn.Conv1d(1, 1, 1, 2)), (1, 1, 8), "never reads") == []  # gaps are the stride's sense


def test_sizes_that_fail() -> None:
    """Where branches meet, and where a linear layer ends a network; not where the network pads by itself."""
    unet = models.unet(2, 1, 2, levels=2, width=2).eval()
    assert told(unet, (1, 1, 32, 32), "fails at") == [
        "an input of 33 along axis 0 fails at cat:2: branches of sizes 33, 32 cannot be joined; "
        "what works: multiples of 4"
    ]
    flat = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Flatten(), nn.Linear(30, 2))
    assert told(flat, (1, 1, 32), "fails at") == [
        "an input of 33 along axis 0 fails at 2: exact30 takes the size 30 only, but got 31; what works: 32 alone"
    ]
    assert told(models.unet(2, 1, 2, levels=2, width=2, sizes="pad").eval(), (1, 1, 32, 32), "fails at") == []
    assert told(nn.Conv1d(1, 1, 3), (1, 1, 32), "fails at") == []


def test_layers_bound_by_memory() -> None:
    depthwise = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 256, 1))
    assert told(depthwise, (1, 64, 32, 32), "memory") == [
        "0 is bound by memory (below the 14 FLOPs a byte of this machine): 3.4 % of the MACs, 28 % of the bytes"
    ]
    assert told(nn.Conv2d(64, 64, 3), (1, 64, 32, 32), "memory") == []


def test_a_machine_that_was_calibrated_says_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arithmetic is faster against its memory: more layers wait for bytes."""
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    net = nn.Sequential(nn.Conv2d(64, 64, 1))
    assert told(net, (1, 64, 32, 32), "memory") == []
    key = calibration._key()
    (tmp_path / calibration.CALIBRATION_FILE).write_text(
        json.dumps({key: {"rates": [1.0, 4.0], "spread": [0.0, 0.1], "measured_s": 0}})
    )
    (sentence,) = told(net, (1, 64, 32, 32), "memory")
    assert sentence.startswith("0 is bound by memory (below the 57 FLOPs a byte of this machine): 100 % of the MACs")


def test_warnings_are_printed_and_in_the_dict() -> None:
    summary = describe(nn.ConvTranspose1d(1, 1, 3, 2), (1, 1, 16))
    assert "note: " + summary.warnings[-1][:40] in str(summary)
    assert list(summary.warnings) == summary.to_dict()["warnings"]
    assert summary.warnings[-1] in summary._repr_html_()
