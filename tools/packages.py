"""Networks of other packages, timm, MONAI and segmentation-models-pytorch, compiled and compared.

Run by hand, with the packages installed::

    .venv/bin/python -m tools.packages                      everything, on small inputs: correctness
    .venv/bin/python -m tools.packages 'monai/*' '*resnet*'  a part of it
    .venv/bin/python -m tools.packages --speed --sample     on inputs of the usual sizes: speed beside other engines
    .venv/bin/python -m tools.packages --json FILE          add the figures to FILE, which may have those of other runs

Weights are random and let every layer matter: scales around 1, statistics as after a training step.
A network is wrong if its error, at the example's size or at another, is outside the tolerance of
``verify``; a refusal of another size is not an error. Packages that are not installed are left out.

Speed is measured as by ``convoxel bench networks``: every engine in a process of its own, in turn. A network that
some engine cannot run is compared with the others. Figures are written after every network, and a network whose speed
FILE holds, measured with the same engines, precision, threads and rounds, is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import functools
import importlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# PyTorch's threads spin for 200 ms after each operator by default, on the processors that the next contender needs.
os.environ.setdefault("KMP_BLOCKTIME", "5")
import torch
from torch import nn

import convoxel as cx
from convoxel.bench.clock import write_json
from convoxel.bench.comparison import OURS, Comparison
from convoxel.bench.engine import ENGINES, PRECISIONS, choose_engines, ours
from convoxel.bench.network_bench import measure_network, missing_engines
from convoxel.bench.network_list import Network
from convoxel.bench.summary_table import geometric_means
from convoxel.errors import ShapeError
from convoxel.graph.verification import verify_program
from convoxel.native import default_threads

Make = Callable[[], nn.Module]

# ---- what is compiled ------------------------------------------------------------------------------------

# One of each family and style; a number is the size of the input that the network needs at least.
TIMM = (
    "resnet18", "resnet50d", "resnext50_32x4d", "seresnet33ts", "ecaresnet26t", "gcresnet33ts", "skresnet18",
    "resnest14d", "res2net50_26w_4s", "resnetv2_50", "resnetaa50", "legacy_seresnet18", "wide_resnet50_2",
    "densenet121", "rdnet_tiny", "vgg11:224", "vgg11_bn:224", "inception_v3:128", "inception_v4:128",
    "inception_resnet_v2:128", "inception_next_atto", "xception41", "legacy_xception", "dpn68b", "dla34",
    "dla46x_c", "hrnet_w18_small", "ese_vovnet19b_dw", "vovnet39a", "cspresnet50", "cspresnext50", "cspdarknet53",
    "darknet53", "cs3darknet_s", "regnetx_002", "regnety_002", "regnetz_b16", "efficientnet_b0",
    "efficientnet_lite0", "efficientnetv2_rw_t", "tf_efficientnet_b0", "mixnet_s", "mnasnet_100", "fbnetc_100",
    "fbnetv3_b", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "tf_mobilenetv3_large_100",
    "mobilenetv4_conv_small", "hardcorenas_a", "tinynet_e", "lcnet_050", "ghostnet_100",
    "ghostnetv2_100", "ghostnetv3_100", "rexnet_100", "repvgg_a0", "mobileone_s0", "repghostnet_050", "repvit_m0_9",
    "convnext_atto", "convnextv2_atto", "convmixer_1024_20_ks9_p14", "nf_resnet50", "nfnet_l0", "gernet_s",
    "selecsls42b", "tresnet_m", "nasnetalarge:128", "pnasnet5large:128", "edgenext_xx_small", "fasternet_t0",
    "starnet_s1", "hgnet_tiny", "hgnetv2_b0", "mambaout_femto", "poolformer_s12", "convformer_s18",
    "focalnet_tiny_srf", "efficientvit_b0", "shvit_s1", "csatv2",
)  # fmt: skip

SMP = {
    "Unet": ("resnet18", "mobilenet_v2", "efficientnet-b0", "timm-skresnet18"),
    "UnetPlusPlus": ("resnet18", "densenet121"),
    "FPN": ("resnet34", "se_resnext50_32x4d"),
    "PSPNet": ("resnet18", "vgg11_bn"),
    "DeepLabV3": ("resnet18", "tu-regnetx_002"),
    "DeepLabV3Plus": ("mobilenet_v2", "resnet18"),
    "Linknet": ("resnet18", "dpn68"),
    "MAnet": ("resnet18", "inceptionv4"),
    "PAN": ("resnet18", "timm-efficientnet-b0"),
    "UPerNet": ("resnet18", "mobileone_s0"),
}

UNET = {"in_channels": 1, "out_channels": 3}
NARROW = {"spatial_dims": 3, **UNET}
FLAT = {"spatial_dims": 2, **UNET}
LEVELS = {"channels": (8, 16, 32, 64), "strides": (2, 2, 2)}
KERNELS = {"kernel_size": (3, 3, 3, 3), "strides": (1, 2, 2, 2), "upsample_kernel_size": (2, 2, 2)}
CLASSIFIER = {"n_input_channels": 1, "num_classes": 4}

# Name: spatial axes, class of monai.networks.nets, its arguments.
MONAI: dict[str, tuple[int, str, dict[str, Any]]] = {
    "unet-2d": (2, "UNet", {**FLAT, **LEVELS, "num_res_units": 2}),
    "unet-3d": (3, "UNet", {**NARROW, **LEVELS, "num_res_units": 2}),
    "unet-plain-1d": (1, "UNet", {**FLAT, **LEVELS, "spatial_dims": 1}),
    "basicunet-2d": (2, "BasicUNet", {**FLAT, "features": (16, 16, 32, 64, 128, 16)}),
    "basicunet-3d": (3, "BasicUNet", {**NARROW, "features": (16, 16, 32, 64, 128, 16)}),
    "basicunetplusplus-2d": (2, "BasicUNetPlusPlus", {**FLAT, "features": (16, 16, 32, 64, 128, 16)}),
    "dynunet-2d": (2, "DynUNet", {**FLAT, **KERNELS}),
    "dynunet-3d": (3, "DynUNet", {**NARROW, **KERNELS, "filters": (16, 32, 64, 128)}),
    "dynunet-res-3d": (3, "DynUNet", {**NARROW, **KERNELS, "filters": (16, 32, 64, 128), "res_block": True}),
    "segresnet-2d": (2, "SegResNet", {**FLAT, "init_filters": 16}),
    "segresnet-3d": (3, "SegResNet", {**NARROW, "init_filters": 8}),
    "segresnetds-3d": (3, "SegResNetDS", {**NARROW, "init_filters": 8}),
    "vnet-2d": (2, "VNet", {**FLAT}),
    "vnet-3d": (3, "VNet", {**NARROW}),
    "attentionunet-2d": (2, "AttentionUnet", {**FLAT, **LEVELS}),
    "attentionunet-3d": (3, "AttentionUnet", {**NARROW, **LEVELS}),
    "densenet121-2d": (2, "DenseNet121", {**FLAT}),
    "densenet121-3d": (3, "DenseNet121", {**NARROW}),
    "resnet-3d": (3, "ResNet", {"block": "basic", "layers": (1, 1, 1, 1), "block_inplanes": (16, 32, 64, 128),
                                "spatial_dims": 3, **CLASSIFIER}),
    "resnet-1d": (1, "ResNet", {"block": "bottleneck", "layers": (1, 1, 1, 1), "block_inplanes": (16, 32, 64, 128),
                                "spatial_dims": 1, **CLASSIFIER}),
    "seresnet50-3d": (3, "SEResNet50", {"spatial_dims": 3, "in_channels": 1, "num_classes": 4}),
    "seresnext50-2d": (2, "SEResNext50", {"spatial_dims": 2, "in_channels": 1, "num_classes": 4}),
    "efficientnet-b0-2d": (2, "EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": False,
                                                 "spatial_dims": 2, "in_channels": 1, "num_classes": 4}),
    "efficientnet-b0-3d": (3, "EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": False,
                                                 "spatial_dims": 3, "in_channels": 1, "num_classes": 4}),
    "flexibleunet-2d": (2, "FlexibleUNet", {"in_channels": 1, "out_channels": 3, "backbone": "efficientnet-b0",
                                            "spatial_dims": 2}),
    "ahnet-2d": (2, "AHNet", {**FLAT, "layers": (3, 4, 6, 3), "psp_block_num": 0, "upsample_mode": "nearest"}),
    "ahnet-3d": (3, "AHNet", {**NARROW, "psp_block_num": 0, "upsample_mode": "nearest"}),
    "highresnet-2d": (2, "HighResNet", {**FLAT}),
    "highresnet-3d": (3, "HighResNet", {**NARROW}),
    "regunet-3d": (3, "RegUNet", {"spatial_dims": 3, "in_channels": 1, "num_channel_initial": 8, "depth": 2}),
    "autoencoder-2d": (2, "AutoEncoder", {**FLAT, "channels": (8, 16, 32), "strides": (2, 2, 2)}),
    "discriminator-2d": (2, "Discriminator", {"in_shape": (1, 96, 96), "channels": (8, 16, 32),
                                              "strides": (2, 2, 2), "num_res_units": 0}),
    "mednext-s-3d": (3, "MedNeXtS", {**NARROW}),
    "quicknat-2d": (2, "Quicknat", {"num_classes": 3, "num_channels": 1, "num_filters": 16}),
    "hovernet-2d": (2, "HoVerNet", {"mode": "fast", "in_channels": 3, "out_classes": 4, "decoder_padding": True}),
    "voxelmorph-unet-3d": (3, "VoxelMorphUNet", {"spatial_dims": 3, "in_channels": 2,
                                                 "unet_out_channels": 16, "channels": (16, 32, 32, 32, 32, 32),
                                                 "final_conv_channels": (16, 16)}),
    "patchdiscriminator-2d": (2, "PatchDiscriminator", {"spatial_dims": 2, "channels": 16, "in_channels": 1,
                                                        "num_layers_d": 3}),
}  # fmt: skip

# One of each family, so that measuring their speed takes a quarter of an hour on two processors.
SAMPLE = frozenset(
    f"{package}/{name}"
    for package, names in {
        "timm": "resnet18 resnext50_32x4d seresnet33ts skresnet18 resnest14d res2net50_26w_4s resnetv2_50 densenet121 "
        "vgg11_bn inception_v3 inception_next_atto xception41 dpn68b dla34 hrnet_w18_small ese_vovnet19b_dw "
        "cspresnet50 darknet53 regnetx_002 regnety_002 efficientnet_b0 efficientnetv2_rw_t mixnet_s mobilenetv2_100 "
        "mobilenetv3_small_100 mobilenetv4_conv_small lcnet_050 ghostnet_100 rexnet_100 repvgg_a0 mobileone_s0 "
        "repvit_m0_9 convnext_atto convmixer_1024_20_ks9_p14 gernet_s hgnetv2_b0 poolformer_s12 efficientvit_b0 "
        "mambaout_femto fasternet_t0",
        "monai": "unet-3d basicunet-3d dynunet-3d segresnet-3d attentionunet-2d densenet121-2d resnet-3d resnet-1d "
        "vnet-2d mednext-s-3d",
        "smp": "unet-resnet18 unetplusplus-resnet18 fpn-resnet34 pspnet-resnet18 deeplabv3plus-mobilenet_v2 "
        "linknet-resnet18 manet-resnet18 upernet-resnet18",
    }.items()
    for name in names.split()
)

LOOSE = 0.1  # a tolerance beyond which nothing is judged
LEAST = {"hovernet-2d": 256, "pspnet-resnet18": 192, "pspnet-vgg11_bn": 192, "upernet-resnet18": 192}
SMALL = {1: 96, 2: 96, 3: 32}
REAL = {1: 4096, 2: 224, 3: 64}


@dataclass(frozen=True)
class Case:
    """A network: its name, the function that builds it, its input channels, and the smallest size of an axis."""

    name: str
    make: Make
    dims: int = 2
    channels: int = 3
    least: int = 1

    def shape(self, size: int, batch: int = 1) -> tuple[int, ...]:
        """Return the shape of an input whose axes have ``size``, or the smallest size that fits if that is larger."""
        return (batch, self.channels, *(max(size, self.least),) * self.dims)


def cases() -> Iterator[Case]:
    """Return every network of the packages that are installed."""
    for listed in PACKAGES.values():
        yield from listed()


def timm_cases() -> Iterator[Case]:
    if (timm := package("timm")) is not None:
        for entry in TIMM:
            name, _, least = entry.partition(":")
            yield Case(f"timm/{name}", functools.partial(timm.create_model, name), least=int(least or 1))


def monai_cases() -> Iterator[Case]:
    if (monai := package("monai.networks.nets")) is not None:
        for name, (dims, kind, options) in MONAI.items():
            channels = options.get("in_channels", options.get("n_input_channels", 1))
            make = functools.partial(getattr(monai, kind), **options)
            yield Case(f"monai/{name}", make, dims, channels, LEAST.get(name, 1))


def smp_cases() -> Iterator[Case]:
    if (smp := package("segmentation_models_pytorch")) is not None:
        for kind, encoders in SMP.items():
            for encoder in encoders:
                make = functools.partial(getattr(smp, kind), encoder, encoder_weights=None, classes=3)
                name = f"{kind.lower()}-{encoder}"
                yield Case(f"smp/{name}", make, least=LEAST.get(name, 128))


PACKAGES: dict[str, Callable[[], Iterator[Case]]] = {"timm": timm_cases, "monai": monai_cases, "smp": smp_cases}


def declare_operators() -> None:
    """Declare operators that torchvision's import lacks if its compiled part belongs to another PyTorch."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")


@functools.cache
def package(name: str) -> Any:
    """Return a package, or None if it is not installed."""
    declare_operators()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed and left out.")
        return None


# ---- how it is judged ------------------------------------------------------------------------------------


@dataclass
class Row:
    """The outcome; ``state`` is ok, fallback (parts run in PyTorch), unclear, wrong, refused or absent."""

    name: str
    state: str = "ok"
    reason: str = ""
    shape: tuple[int, ...] = ()
    l2_error: float = 0.0
    tolerance: float = 0.0
    other_size: str = ""
    foreign: list[str] = field(default_factory=list)
    arrays: list[str] = field(default_factory=list)
    compile_s: float = 0.0

    def __str__(self) -> str:
        notes = [f"PyTorch: {', '.join(self.foreign)}"] if self.foreign else []
        notes += [f"NumPy: {', '.join(self.arrays)}"] if self.arrays else []
        notes += [self.reason] if self.reason else []
        error = f"{self.l2_error:.1e} of {self.tolerance:.1e}"
        return (
            f"{self.state:<9}{self.name:<38}{error:<22}{self.other_size:<8}{self.compile_s:5.1f} s  {' | '.join(notes)}"
        )


def settle(model: nn.Module, case: Case) -> nn.Module:
    """Give a network weights that let every layer matter, and batch statistics of its own, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.uniform_(-0.1, 0.1, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.reset_running_stats()
                module.momentum = None  # the mean of all batches
        model.train()
        with contextlib.suppress(RuntimeError, ValueError):  # some take no batch, or have layers that only evaluate
            model(torch.randn(case.shape(SMALL[case.dims], batch=4), generator=generator))
    return model.eval()


def judge(case: Case) -> Row:
    """Build, compile and compare one network."""
    row = Row(case.name)
    try:
        model = settle(case.make(), case)
    except Exception as error:  # of another package, of any kind
        return Row(case.name, "absent", first_line(error))
    row.shape = case.shape(SMALL[case.dims])
    x = torch.randn(row.shape, generator=torch.Generator().manual_seed(1))
    try:
        begun = time.perf_counter()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            program = cx.compile(model, x)
        row.compile_s = time.perf_counter() - begun
        nodes = program.graph.nodes
        row.foreign = sorted({node["label"] for node in nodes if node.operator == "torch_call"})
        row.arrays = sorted({node.operator for node in nodes if not node.native and node.operator != "torch_call"})
        found = verify_program(program, model, [x])
        row.l2_error, row.tolerance = found.l2_error, found.tolerance
        row.state = "wrong" if not found.passed else "fallback" if row.foreign else "ok"
        if found.passed and found.tolerance > LOOSE:
            row.state, row.reason = "unclear", "float32 itself is that far off with these weights"
        row.other_size = other_size(program, model, case)
        row.state = "wrong" if row.other_size.startswith("WRONG") else row.state
    except Exception as error:  # a matrix shows every failure, of whatever kind
        return Row(case.name, "refused", f"{type(error).__name__}: {first_line(error)}", row.shape)
    return row


def other_size(program: Any, model: nn.Module, case: Case) -> str:
    """Compute two larger inputs as well; return "ok", "fixed" where they are refused, or "WRONG"."""
    size = SMALL[case.dims]
    x = torch.randn(case.shape(max(size, case.least) + size // 3 // 32 * 32 + 32, batch=2))
    try:
        found = verify_program(program, model, [x])
    except ShapeError:  # is a ValueError, too
        return "fixed"
    except (RuntimeError, ValueError):  # PyTorch does not take this size either
        return "–"
    return "ok" if found.passed else f"WRONG {found.l2_error:.0e}"


def first_line(error: BaseException) -> str:
    """Return the message in one line."""
    return " ".join(str(error).split())[:240]


# ---- how fast it is --------------------------------------------------------------------------------------


def build(name: str) -> nn.Module:
    """Return the network, with the same weights every time; the engines' processes call this by name."""
    listed = PACKAGES[name.partition("/")[0]]()
    case = next(case for case in listed if case.name == name)
    return settle(case.make(), case)


@dataclass(frozen=True)
class Settings:
    """Settings of the measurement of speed; figures of other settings are not comparable."""

    engines: list[str]
    precision: str
    threads: int
    rounds: int

    def measure(self, case: Case) -> dict[str, Any]:
        """Return the figures of a network as JSON values; memory and readiness of PyTorch include the package."""
        size = case.shape(REAL[case.dims])[2:]
        network = Network(case.name, "tools.packages:build", case.channels, size, {"name": case.name}, tolerance=LOOSE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            [found] = measure_network(
                network, 1, self.threads, precisions=[self.precision], engines=self.engines, rounds=self.rounds
            )
        return {**found.to_dict(), "settings": asdict(self)}


class Kept(Comparison):
    """A comparison whose figures come from a file."""

    def __init__(self, speed: dict[str, Any]) -> None:
        self.name, self.times, self.failed = speed["network"], speed["times"], speed["failed"]
        self.peers = tuple(name for name in self.times if name != OURS)

    def __str__(self) -> str:
        if self.ratio is None or self.best_peer is None:
            return f"{self.name:<38}no comparison"
        times = "  ".join(f"{name} {1e3 * self.times[name]['median_s']:.4g}" for name in (OURS, *self.peers))
        return f"{self.name:<38}{self.ratio:5.2f}x{'!' if self.ratio < 1 else ' '} {self.best_peer:<12} {times} ms"


def measure_all(chosen: list[Case], settings: Settings, path: Path | None) -> int:
    """Measure the networks that are not in the file yet; print the outcome of each and a summary."""
    known = read(path)
    comparisons: list[Kept] = []
    unmeasured = 0
    for number, case in enumerate(chosen, 1):
        head, begun = f"{number:>3}/{len(chosen)}  ", time.perf_counter()
        speed = known.get(case.name, {}).get("speed")
        measured = speed is None or speed["settings"] != asdict(settings)
        if measured:
            try:
                speed = settings.measure(case)
            except KeyboardInterrupt:
                unmeasured += 1
                print(f"{head}{case.name:<38}interrupted", flush=True)
                break
            except Exception as error:  # of another package, or of ours, of any kind
                unmeasured += 1
                print(f"{head}{case.name:<38}not measured: {type(error).__name__}: {first_line(error)}", flush=True)
                continue
        comparisons.append(Kept(speed))
        note = f"{time.perf_counter() - begun:.0f} s" if measured else "from the file"
        print(f"{head}{comparisons[-1]}  ({note})", flush=True)
        for name, reason in comparisons[-1].failed.items():
            print(f"{'':>9}{name} failed: {reason}", flush=True)
        if OURS not in speed["times"]:
            unmeasured += 1
        elif measured and path is not None:
            keep({"name": case.name, "speed": speed}, path)
    summarise(comparisons)
    return 1 if unmeasured else 0


def summarise(comparisons: list[Kept]) -> None:
    """Print geometric means by package and the smallest ratios."""
    groups = [(group, each) for each in comparisons for group in ("all", each.name.partition("/")[0])]
    print(f"\n{'speed by the best peer':<26}{'geometric mean':>15}{'smallest':>10}{'networks':>10}")
    for mean in geometric_means(groups):
        print(f"{mean.name:<26}{mean.ratio:14.2f}x{mean.smallest:9.2f}x{mean.count:>10}")
    compared = sorted((each for each in comparisons if each.ratio is not None), key=lambda each: each.ratio or 0.0)
    print("\nsmallest ratios")
    for each in compared[:5]:
        print(f"{each.ratio:8.2f}x  {each.name} ({each.best_peer})")


# ---- the command -----------------------------------------------------------------------------------------


def read(path: Path | None) -> dict[str, dict[str, Any]]:
    """Return the figures of a file by network; none without a file."""
    if path is None or not path.exists():
        return {}
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def keep(row: dict[str, Any], path: Path) -> None:
    """Add figures of a network to the file, which is replaced atomically."""
    rows = read(path)
    rows[row["name"]] = {**rows.get(row["name"], {}), **row}
    partial = path.with_name(f"{path.name}.partial")
    write_json(list(rows.values()), partial)
    partial.replace(path)


def check(chosen: list[Case], path: Path | None) -> int:
    """Compile and compare the networks, and print the outcome of each."""
    states: list[str] = []
    for case in chosen:
        row = judge(case)
        states.append(row.state)
        print(row, flush=True)
        if path is not None:
            keep(asdict(row), path)
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return 1 if {"wrong", "refused"} & set(states) else 0


def parse_peers(text: str) -> list[str]:
    """Parse names of other engines, separated by commas."""
    names, known = text.split(","), [name for name in ENGINES if not name.startswith(OURS)]
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"got {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    return names


def find_engines(precision: str, peers: list[str] | None) -> list[str]:
    """Return ours and the peers; by default those that the bench takes, and PyTorch in its own memory format."""
    usual = [name for name in (*choose_engines([precision]), "pytorch") if name != ours(precision)]
    return choose_engines([precision], usual if peers is None else peers)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="names such as 'timm/resnet*'")
    parser.add_argument("--sample", action="store_true", help="only one network of each family")
    parser.add_argument("--list", action="store_true", help="print the names and exit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to which the figures are added")
    parser.add_argument("--speed", action="store_true", help="measure speed on inputs of the usual sizes")
    parser.add_argument("--peers", type=parse_peers, metavar="A,B", help="with --speed (default: the fast ones)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="with --speed: precision of our engine (default float32)",
    )
    parser.add_argument(
        "--threads", type=int, default=default_threads(), help="with --speed: threads of every engine (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="with --speed: turns of every engine (default 7)")
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error(f"got --rounds {options.rounds} and --threads {options.threads}; expected 1 or more of each")
    try:
        read(options.json)
    except (OSError, ValueError, TypeError, KeyError):
        parser.error(f"{options.json}: does not hold figures that --json wrote; name another file")
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"{options.json}: there is no folder {options.json.parent}; make it first")
    logging.getLogger("torch").setLevel(logging.ERROR)  # the solver of sizes reports what it cannot simplify
    chosen = [case for case in cases() if any(fnmatch.fnmatch(case.name, p) for p in options.patterns)]
    chosen = [case for case in chosen if case.name in SAMPLE or not options.sample]
    if not chosen:
        parser.error(f"no network is called {' or '.join(options.patterns)}; --list shows the names")
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if not options.speed:
        return check(chosen, options.json)
    engines = find_engines(options.precision, options.peers)
    if absent := missing_engines(engines):
        print(f"Without {', '.join(absent)}, which are not installed.")
    return measure_all(chosen, Settings(engines, options.precision, options.threads, options.rounds), options.json)


if __name__ == "__main__":
    sys.exit(main())
