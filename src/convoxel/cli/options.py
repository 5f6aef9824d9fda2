"""The registration of commands, and the arguments and options that several share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from typer.core import TyperCommand

from convoxel.errors import ConfigError

_Function = TypeVar("_Function", bound=Callable[..., object])


def command(
    app: typer.Typer, example: str, name: str | None = None, kind: type[TyperCommand] | None = None
) -> Callable[[_Function], _Function]:
    """Register a function as a command of ``app`` whose help shows an example.

    Paragraphs of the docstring become single lines, so that the terminal breaks them and not the source.
    """

    def register(function: _Function) -> _Function:
        paragraphs = [" ".join(text.split()) for text in (function.__doc__ or "").split("\n\n")]
        app.command(name=name, cls=kind, help="\n\n".join(paragraphs), epilog=f"Example: {example}")(function)
        return function

    return register


Task = Literal["segment", "classify", "regress"]
Network = Annotated[
    str, typer.Argument(metavar="NETWORK", help="Name of `convoxel models`, folder of a run, or .onnx or .cvx file.")
]
Algorithm = Annotated[str, typer.Option(help="Algorithm of every convolution; `convoxel info` lists them.")]
Precision = Annotated[
    Literal["float32", "high", "bfloat16"],
    typer.Option(
        help="Digits of products: float32 (24 binary digits), high (16) or bfloat16 (8) where that is faster."
    ),
]
RunPrecision = Annotated[
    Literal["float32", "high", "bfloat16", "int8"],
    typer.Option(
        "--precision",
        help="Digits of products: float32, high (16 binary digits), bfloat16 (8), or int8 after `convoxel quantise`.",
    ),
]
SavedPrecision = Annotated[
    Literal["float32", "high", "bfloat16"] | None,
    typer.Option("--precision", help="The same of a saved program (default: what it was saved with)."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")]
Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN…", help="Folder of a trained run; several, or one with all folds: ensemble."),
]
Mirror = Annotated[
    str | None,
    typer.Option(
        metavar="WORD|AXES",
        help="Average over mirrored copies: none, auto (as in training), all, or axes such as lr or 0,2.",
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="P|CLASS=P,…|best",
        help="Several classes an image: least probability of a class (default: 0.5); best: of validation's largest F1.",
    ),
]
KeepLargest = Annotated[
    str | None,
    typer.Option(
        metavar="all|foreground|CLASS,…",
        help="Keep the largest connected component of each class, of all together, or of these classes.",
    ),
]
MinVolume = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Remove smaller components: 0.5ml, 100mm3, 20mm2, 30 (voxels), or liver=2ml,tumour=5."
    ),
]
FillHoles = Annotated[bool, typer.Option("--fill-holes", help="Fill background that classes enclose.")]
Shape = Annotated[str | None, typer.Option(help="Input shape, such as 1,3,224,224 (default: a usual one).")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=2; may be repeated."),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE|RUN", help="Weights of a network of the zoo: .safetensors, .pth, or a run's."),
]
Data = Annotated[
    str | None, typer.Option(metavar="DIR|NAME", help="Labelled images to train on, as `convoxel data` names them.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of each training, with --data.")]
Storage = Annotated[
    str | None,
    typer.Option(metavar="WHERE", help="Where machines share the trials: journal:FILE, sqlite:///FILE or a data base."),
]
StudyName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the study there (default: made of all settings).")
]
TrialRuns = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Keep the runs, where interrupted ones go on.")
]
ResampleLabels = Annotated[
    bool, typer.Option("--resample-labels", help="Bring labels of another grid onto that of their image.")
]
Engine = Annotated[Literal["convoxel", "torch"], typer.Option(help="Engine that computes the network.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="WORD", help="Where PyTorch computes: auto (a GPU where there is one), cpu, cuda, cuda:1, mps."
    ),
]
Which = Annotated[Literal["best", "last"], typer.Option(help="Checkpoint of the run.")]
Axes = Annotated[
    str | None,
    typer.Option(metavar="LETTERS", help="What the axes of NumPy arrays mean, such as CHW, HWC, DHW or NHWC."),
]
Rate = Annotated[
    float | None,
    typer.Option(metavar="HZ", help="Resample recordings (EDF, BDF), whose channels may differ, to one rate."),
]
Regions = Annotated[
    str | None,
    typer.Option(metavar="NAME=V+V,…", help="Classes that overlap, as unions of label values: tumour=1+2,core=2."),
]
IgnoreLabel = Annotated[
    int | None, typer.Option(metavar="VALUE", help="Label value of voxels that count nowhere (default: none).")
]
TrainingTask = Annotated[str | None, typer.Argument(metavar="segment|classify|regress", help="Task of the network.")]
TrainingEpochs = Annotated[int | None, typer.Option(help="Number of epochs, instead of --minutes.")]
Assigned = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting as name=value; may be repeated.")
]
ConfigFile = Annotated[
    Path | None, typer.Option(metavar="FILE.yaml", help="Configuration file; other options override it.")
]
Threads = Annotated[int | None, typer.Option(help="Number of CPU threads (default: all).")]
Tile = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Most pixels of a tile along each axis, such as 256 or 64,256,256.")
]
Timed = Annotated[bool, typer.Option("--time/--no-time", help="Measure the time of a run on our engine.")]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw a figure into this .svg, .png or .html file too.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def check_figure(name: str, path: Path | None, endings: Sequence[str] = (".svg", ".png", ".html")) -> None:
    """Refuse a file that could not be written, by default a figure, before anything is computed for it.

    Raises:
        ConfigError: its ending is none of these, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix.lower() not in endings:
        listed = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise ConfigError(f"{name}: {path.name!r} ends in {path.suffix!r}; expected {listed}.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{name}: the folder of {path} does not exist. Create it first, or give another --{name}.")
