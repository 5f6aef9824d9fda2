"""One network, one record: modules, ONNX files and programs are described alike, and every operator has its rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from convoxel import models
from convoxel.arithmetic import SizeSet
from convoxel.graph.operators.table import OPERATORS
from convoxel.inspect.valid_sizes import ValidSizes
from tools.agreement import FUNCTIONS, Subject, compare, differing_sizes, drawn, functions, main, open_all

NETWORKS = (
    Subject("resnet18", lambda: models.build("resnet18", width=0.25), (1, 3, 64, 64)),
    Subject("mobilenet_v3_small", lambda: models.build("mobilenet_v3_small", width=0.5), (1, 3, 64, 64)),
    Subject("unet", lambda: models.unet(2, 1, 2, levels=2, width=4), (1, 1, 32, 32)),
    Subject("unet_resnet18", lambda: models.build("unet_resnet18", width=0.25), (1, 3, 64, 64)),
    Subject("unet_resize", lambda: models.unet(1, 1, 2, levels=2, width=4, up="resize"), (1, 1, 64)),
)
# Operators whose results read what their values decide, or positions in no regular way.
UNKNOWN = {
    "accumulate",
    "affine_grid",
    "columns_to_image",
    "deformable_convolution",
    "depthwise_block",
    "diagonal",
    "fill",
    "fractional_max_pool",
    "gather_points",
    "grid_sample",
    "image_to_columns",
    "index",
    "max_unpool",
    "range",
    "recurrent",
    "region_align",
    "resample",
    "scatter",
    "scatter_points",
    "scatter_reduce",
    "sizes",
    "take_along",
    "torch_call",
    "windows",
    "write",
    "write_slice",
    "zeros",
}


@pytest.mark.parametrize("subject", [*functions(), *drawn(21), *NETWORKS], ids=lambda subject: subject.name)
def test_the_three_sources_agree(subject: Subject) -> None:
    assert compare(subject) == []


def test_the_comparison_finds_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.agreement.FIGURES", ("name", "params"))  # a file is called after itself
    (line,) = compare(Subject("conv", lambda: nn.Conv1d(1, 1, 3), (1, 1, 8)))
    assert line.startswith("name: ") and "net.onnx" in line


def test_sizes_on_which_sources_disagree_are_run(tmp_path: Path) -> None:
    # PyTorch refuses to normalise a single position; a graph does not.
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.InstanceNorm2d(2))
    assert compare(Subject("norm", lambda: net, (1, 1, 8, 8))) == []
    sources = open_all(net, (1, 1, 8, 8), tmp_path)
    told = {name: ValidSizes((SizeSet(starts=(1,)),) * 2, (None, None)) for name in sources}
    told["program"] = ValidSizes((SizeSet(starts=(2,)),) * 2, (None, None))
    lines = differing_sizes(sources, told, (1, 1, 8, 8))
    assert lines == ["sizes: module says any, but 1 fails", "sizes: program says 2 and more, but 1 runs"]


def test_the_program_keeps_what_agreed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    results.write_text('{"roll": ["macs: other"]}')
    assert main(["roll", "--json", str(results)]) == 0  # judged again, since it differed
    assert json.loads(results.read_text()) == {"roll": []}
    results.write_text('{"roll": [], "glu": ["kept, not read"]}')
    assert main(["roll", "--json", str(results)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("roll")] == [["roll", "agrees"]] * 2
    assert len(lines) == 4  # the exporter is silent


def test_every_operator_says_what_it_reads() -> None:
    assert len(FUNCTIONS) >= 12
    default = OPERATORS["scatter"].reads
    silent = {name for name, row in OPERATORS.items() if row.reads is default}
    assert silent | {"depthwise_block", "torch_call"} == UNKNOWN
