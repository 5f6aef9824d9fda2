"""Networks of MONAI by name, with plain arguments: those that bundles of other people define.

MONAI itself makes the module, so that weights fit by name; nothing else of a bundle is run. A name is one of a list,
and arguments are numbers, words and lists of them.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from convoxel.errors import ConfigError, UnsupportedError
from convoxel.files.fault import brief
from convoxel.models.backbone import Network

#: What stands before a name of MONAI's in configurations of runs.
PREFIX = "monai."
#: Classes of ``monai.networks.nets`` that may be named.
NETWORKS = ("AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNet", "UNETR", "VNet")
_ALIASES = {"Unet": "UNet", "BasicUnet": "BasicUNet", "Basicunet": "BasicUNet", "DynUnet": "DynUNet",
            "SegResnet": "SegResNet"}  # fmt: skip
_OLD_NAMES = {"dimensions": "spatial_dims"}
# Arguments that some versions ask for and others have dropped, without which the network is the same.
_DROPPED = ("img_size", "use_checkpoint")
_MOST_VALUES, _MOST_NUMBER, _MOST_DEPTH, _MOST_LETTERS = 1024, 1 << 14, 6, 64


def network_name(target: str) -> str | None:
    """Return the class that a bundle's ``_target_`` names, or None where it is none of ``NETWORKS``.

    >>> network_name("monai.networks.nets.UNet"), network_name("SegResNet"), network_name("os.system")
    ('UNet', 'SegResNet', None)
    """
    package, _, name = target.rpartition(".")
    if package and not f"{package}.".startswith("monai.networks.nets."):
        return None
    name = _ALIASES.get(name, name)
    return name if name in NETWORKS else None


def check_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network as its class takes them.

    Raises:
        ConfigError: one is unknown, or no plain value of reasonable size.
        UnsupportedError: MONAI is not installed.
    """
    known = inspect.signature(_find_class(name).__init__).parameters
    found = {_OLD_NAMES.get(key, key): value for key, value in arguments.items()}
    found = {key: value for key, value in found.items() if key in known or key not in _DROPPED}
    for key, value in found.items():
        if key not in known or key == "self":
            expected = ", ".join(word for word in known if word != "self")
            raise ConfigError(f"{name}: there is no argument {brief(key)}; expected some of {expected}.")
        if not _is_plain(value, [_MOST_VALUES]):
            raise ConfigError(
                f"{name}: {key} is {brief(value)}; expected numbers up to {_MOST_NUMBER}, words, or lists of them."
            )
    return found


def build_monai(name: str, arguments: Mapping[str, Any], *, dims: int, in_channels: int, num_classes: int) -> Network:
    """Return a network of MONAI with random weights.

    Args:
        name: one of ``NETWORKS``.
        arguments: arguments of its class.
        dims, in_channels, num_classes: what they must say.

    Raises:
        ConfigError: an argument is unknown or does not fit, or the class refuses them.
        UnsupportedError: MONAI is not installed.
    """
    found = check_arguments(name, arguments)
    parameters = inspect.signature(_find_class(name).__init__).parameters
    wanted = {"spatial_dims": dims, "in_channels": in_channels, "out_channels": num_classes}
    for key, value in wanted.items():
        default = parameters[key].default if key in parameters else value
        if found.get(key, default) != value:
            raise ConfigError(f"{name}: {key} is {found.get(key, default)}; expected {value}.")
    make = cast(Callable[..., nn.Module], _find_class(name))
    try:
        with _Numbers():
            return cast(Network, make(**found))
    except Exception as error:  # its classes raise many kinds
        told = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigError(f"{name}: MONAI does not build it ({type(error).__name__}: {told}).") from None


class _Numbers(TorchFunctionMode):
    """Sequences of numbers are computed, where a network lies on the meta device: its class reads them one by one."""

    def __torch_function__(
        self, func: Callable[..., object], types: Any, args: Sequence[object] = (), kwargs: Any = None
    ) -> object:
        given = dict(kwargs or {})
        if func in (torch.linspace, torch.arange):
            given.setdefault("device", "cpu")
        return func(*args, **given)


def _find_class(name: str) -> type[nn.Module]:
    if name not in NETWORKS:
        raise ConfigError(f"network: MONAI's {brief(name)} is not known; expected one of {', '.join(NETWORKS)}.")
    try:
        module = importlib.import_module("monai.networks.nets")
    except ImportError:
        raise UnsupportedError("network: MONAI is not installed. Get it: pip install 'convoxel[train]'.") from None
    return cast(type[nn.Module], getattr(module, name))


def _is_plain(value: object, left: list[int], depth: int = 0) -> bool:
    """Return whether a value is made of plain ones; ``left`` holds how many values it may still have."""
    left[0] -= 1
    if left[0] < 0 or depth > _MOST_DEPTH:
        return False
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= _MOST_NUMBER
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value) <= _MOST_LETTERS
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each, left, depth + 1) for key, each in value.items())
    return isinstance(value, list | tuple) and all(_is_plain(each, left, depth + 1) for each in value)
