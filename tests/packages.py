"""Networks that nobody here wrote: timm's, MONAI's and segmentation-models-pytorch's, compiled and compared.

Run by hand, with the packages installed::

    .venv/bin/python tests/packages.py                      everything, on small inputs
    .venv/bin/python tests/packages.py 'monai/*' '*resnet*'  some of it
    .venv/bin/python tests/packages.py --speed              on inputs of the usual sizes, timed beside PyTorch
    .venv/bin/python tests/packages.py --json FILE          add the figures to FILE, which may hold those of other runs

Weights are random and such that every layer matters: scales around 1, statistics as a training step leaves them.
A network is wrong if its error, at the example's size or at another, is outside the tolerance of
``convoxel.graph.verification``; refusing another size is not. Packages that are not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
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
from convoxel.bench.clock import interleave
from convoxel.errors import ShapeError
from convoxel.graph.verification import verify_program

Make = Callable[[], nn.Module]

# ---- what is compiled ------------------------------------------------------------------------------------

# One of each family and style; a number is the size of the input that the network needs at least.
TIMM = (
    "resnet18", "resnet50d", "resnext50_32x4d", "seresnet33ts", "ecaresnet26t", "gcresnet33ts", "skresnet18",
    "resnest14d", "res2net50_26w_4s", "resnetv2_50", "resnetaa50", "legacy_seresnet18", "wide_resnet50_2",
    "densenet121", "rdnet_tiny", "vgg11", "vgg11_bn", "inception_v3:128", "inception_v4:128",
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

LOOSE = 0.1  # a tolerance beyond which nothing is judged
LEAST = {"hovernet-2d": 256}
SMALL = {1: 96, 2: 96, 3: 32}
REAL = {1: 4096, 2: 224, 3: 64}


@dataclass(frozen=True)
class Case:
    """A network by name, how to build it, its input channels, and the smallest size of an axis."""

    name: str
    make: Make
    dims: int = 2
    channels: int = 3
    least: int = 1

    def shape(self, size: int, batch: int = 1) -> tuple[int, ...]:
        """The shape of an input whose axes have ``size`` or, where that is too little, the least that fits."""
        return (batch, self.channels, *(max(size, self.least),) * self.dims)


def cases() -> Iterator[Case]:
    """Every network of the packages that are installed."""
    declare_operators()
    if (timm := package("timm")) is not None:
        for entry in TIMM:
            name, _, least = entry.partition(":")
            yield Case(f"timm/{name}", functools.partial(timm.create_model, name), least=int(least or 1))
    if (monai := package("monai.networks.nets")) is not None:
        for name, (dims, kind, options) in MONAI.items():
            channels = options.get("in_channels", options.get("n_input_channels", 1))
            make = functools.partial(getattr(monai, kind), **options)
            yield Case(f"monai/{name}", make, dims, channels, LEAST.get(name, 1))
    if (smp := package("segmentation_models_pytorch")) is not None:
        for kind, encoders in SMP.items():
            for encoder in encoders:
                make = functools.partial(getattr(smp, kind), encoder, encoder_weights=None, classes=3)
                yield Case(f"smp/{kind.lower()}-{encoder}", make, least=128)


def declare_operators() -> None:
    """Declare what torchvision's import asks for and lacks where its compiled part belongs to another PyTorch."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")


@functools.cache
def package(name: str) -> Any:
    """A module, or None if it is not installed."""
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
    """What was found; ``state`` is ok, fallback (some of it runs in PyTorch), unclear, wrong, refused or absent."""

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
    ms: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        times = "  ".join(f"{name} {value:.1f}" for name, value in self.ms.items())
        peers = [value for name, value in self.ms.items() if name != "convoxel"]
        ratio = f" {min(peers) / self.ms['convoxel']:.2f}x" if peers else ""
        notes = [f"PyTorch: {', '.join(self.foreign)}"] if self.foreign else []
        notes += [f"NumPy: {', '.join(self.arrays)}"] if self.arrays else []
        notes += [self.reason] if self.reason else []
        error = f"{self.l2_error:.1e} of {self.tolerance:.1e}"
        return (
            f"{self.state:<9}{self.name:<38}{error:<22}{self.other_size:<8}{self.compile_s:5.1f} s  {times}{ratio}"
            f"  {' | '.join(notes)}"
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


def judge(case: Case, speed: bool, rounds: int) -> Row:
    """Build, compile and compare one network."""
    row = Row(case.name)
    try:
        model = settle(case.make(), case)
    except Exception as error:  # of another package, of any kind
        return Row(case.name, "absent", first_line(error))
    row.shape = case.shape((REAL if speed else SMALL)[case.dims])
    x = torch.randn(row.shape, generator=torch.Generator().manual_seed(1))
    try:
        begun = time.perf_counter()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            program = cx.compile(model, x)
        row.compile_s = time.perf_counter() - begun
        nodes = program.graph.nodes
        row.foreign = sorted({node["label"] for node in nodes if node.operator == "foreign"})
        row.arrays = sorted({node.operator.removeprefix("array.") for node in nodes if "array." in node.operator})
        found = verify_program(program, model, [x])
        row.l2_error, row.tolerance = found.l2_error, found.tolerance
        row.state = "wrong" if not found.passed else "fallback" if row.foreign else "ok"
        if found.passed and found.tolerance > LOOSE:
            row.state, row.reason = "unclear", "float32 itself is that far off with these weights"
        if not speed:
            row.other_size = other_size(program, model, case)
            row.state = "wrong" if row.other_size.startswith("WRONG") else row.state
    except Exception as error:  # a matrix shows every failure, of whatever kind
        return Row(case.name, "refused", f"{type(error).__name__}: {first_line(error)}", row.shape)
    row.ms = timed(program, model, x, rounds) if rounds else {}
    return row


def other_size(program: Any, model: nn.Module, case: Case) -> str:
    """Whether two larger inputs are computed as well: "ok", "fixed" where they are refused, "WRONG"."""
    size = SMALL[case.dims]
    x = torch.randn(case.shape(max(size, case.least) + size // 3 // 32 * 32 + 32, batch=2))
    try:
        found = verify_program(program, model, [x])
    except ShapeError:  # is a ValueError, too
        return "fixed"
    except (RuntimeError, ValueError):  # PyTorch does not take this size either
        return "–"
    return "ok" if found.passed else f"WRONG {found.l2_error:.0e}"


def timed(program: Any, model: nn.Module, x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of our program and of PyTorch with channels first and last, in turn."""
    formats: dict[int, Any] = {4: torch.channels_last, 5: torch.channels_last_3d}
    runs: dict[str, Callable[[], Any]] = {"convoxel": lambda: program(x), "pytorch": lambda: model(x)}
    if x.ndim in formats:
        last = copy.deepcopy(model).to(memory_format=formats[x.ndim])
        laid_out = x.contiguous(memory_format=formats[x.ndim])
        runs["pytorch-cl"] = lambda: last(laid_out)
    with torch.inference_mode():
        times = interleave(runs, rounds)
    return {name: 1e3 * time["median_s"] for name, time in times.items()}


def first_line(error: BaseException) -> str:
    """The message in one line."""
    return " ".join(str(error).split())[:240]


def keep(rows: list[Row], path: Path) -> None:
    """Write the rows into the file, beside those of other networks that it holds."""
    kept = {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    kept.update((row.name, asdict(row)) for row in rows)
    path.write_text(json.dumps(list(kept.values()), indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="names such as 'timm/resnet*'")
    parser.add_argument("--speed", action="store_true", help="inputs of the usual sizes")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each contender, 0 for none (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to a file")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)  # the solver of sizes reports what it cannot simplify
    chosen = [case for case in cases() if any(fnmatch.fnmatch(case.name, p) for p in options.patterns)]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    rows: list[Row] = []
    for case in chosen:
        rows.append(judge(case, options.speed, options.rounds))
        print(rows[-1], flush=True)
        if options.json is not None:
            keep(rows[-1:], options.json)
    states = [row.state for row in rows]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return 1 if {"wrong", "refused"} & set(states) else 0


if __name__ == "__main__":
    sys.exit(main())
