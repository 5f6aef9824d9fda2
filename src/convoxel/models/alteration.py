"""Changes of a whole network by one word or number, alike for every network of the zoo.

Dilation, values of the padding, dropout and shortcuts belong to no family: they change layers that a network has, in
place. No module is added, so names in state dicts stay, and weights fit before and after; a shortcut that is taken away
takes its own weights along.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional

from convoxel.arithmetic.argument import whole
from convoxel.errors import ConfigError, check_choice
from convoxel.files.fault import brief
from convoxel.files.values import join_names

#: Values outside of the image; every network is built with zeros.
PADDINGS = ("zeros", "reflect", "replicate", "circular")
#: Layers whose input is dropped out: all that have weights, convolutions, or the last layer alone.
DROPOUTS = ("last", "conv", "all")
#: Shortcuts: none, or as many as there can be.
BLOCKS = ("plain", "residual")
#: The options with the values that change nothing.
UNALTERED: dict[str, Any] = {
    "dilation": 1, "padding": "zeros", "dropout": 0.0, "dropout_where": "last", "block": None,
}  # fmt: skip

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_DROP_CHANNELS = {3: functional.dropout1d, 4: functional.dropout2d, 5: functional.dropout3d}
# Heads that answer in training only.
_ASIDE = ("extra_heads", "aux")
_MOST = 64

_T = TypeVar("_T")


def find_named(values: Mapping[str, _T], name: str, otherwise: _T) -> _T:
    """Return the value whose pattern fits ``name``; of several the longest pattern holds, of none ``otherwise``.

    >>> find_named({"*": 1, "encoder.*": 2}, "encoder.0.conv1", 0)
    2
    """
    fitting = [pattern for pattern in values if fnmatchcase(name, pattern)]
    return values[max(fitting, key=lambda pattern: (len(pattern), pattern))] if fitting else otherwise


def check_patterns(word: str, values: Mapping[str, object], names: list[str], where: str) -> None:
    """Raise ConfigError if one of the patterns fits none of ``names``; the message shows what they begin with."""
    for pattern in values:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = ", ".join(dict.fromkeys(name.partition(".")[0] + ".*" for name in names))
            raise ConfigError(f"{word}: {brief(pattern)} fits nothing in {where}; expected patterns such as {near}.")


def alter(
    network: nn.Module,
    *,
    dilation: int | Mapping[str, int] = 1,
    padding: str = "zeros",
    dropout: float = 0.0,
    dropout_where: str = "last",
    block: str | None = None,
) -> None:
    """Change the layers of ``network`` in place.

    Args:
        network: network whose layers change.
        dilation: distance of kernel elements in every padded convolution wider than 1, whose padding grows so that
            sizes stay (Yu and Koltun 2016, arXiv 1511.07122); or by patterns of layer names, such as
            ``{"encoder.3.*": 2}``, of which the longest that fits holds (default 1).
        padding: values outside of the image: ``"zeros"``, ``"reflect"`` (without the border), ``"replicate"`` or
            ``"circular"`` (default ``"zeros"``).
        dropout: probability with which training drops a value in the input of a linear layer, or a channel in that of
            a convolution (Srivastava et al. 2014; Tompson et al. 2015, arXiv 1411.4280) (default 0).
        dropout_where: ``"all"`` layers with weights but the first, all ``"conv"`` but the first, or the ``"last"``
            (default ``"last"``).
        block: ``"plain"`` takes the shortcuts of inverted and other residual blocks away; ``"residual"`` adds its input
            to every convolution that keeps channels and size, in a network without shortcuts (He et al. 2016, arXiv
            1512.03385) (default: as published).

    Raises:
        ConfigError: a value is out of range, a pattern fits nothing, or no layer can change so.

    >>> net = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Conv1d(2, 2, 1))
    >>> alter(net, dilation=4, padding="replicate")
    >>> net[0]
    Conv1d(1, 2, kernel_size=(3,), stride=(1,), padding=(4,), dilation=(4,), padding_mode=replicate)
    """
    check_choice("padding", padding, PADDINGS)
    check_choice("dropout_where", dropout_where, DROPOUTS)
    _dilate(network, dilation)
    if padding != "zeros":
        padded = [module for module in network.modules() if isinstance(module, _CONVS) and _is_padded(module)]
        if not padded:
            raise ConfigError(
                f"padding: got {padding!r}, but {type(network).__name__} pads none of its convolutions. Leave it out, "
                "or take a network that does."
            )
        for module in padded:
            module.padding_mode = padding  # type: ignore[assignment]  # one of PADDINGS
    if block is not None:
        _change_shortcuts(network, check_choice("block", block, BLOCKS))
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout: got {brief(dropout)}; expected a probability from 0 to below 1.")
    if dropout:
        _drop(network, float(dropout), dropout_where)


def _dilate(network: nn.Module, dilation: int | Mapping[str, int]) -> None:
    wide = {name: module for name, module in network.named_modules()
            if isinstance(module, _CONVS) and _is_padded(module) and max(module.kernel_size) > 1}  # fmt: skip
    stated = join_names(dilation) if isinstance(dilation, Mapping) else {"*": dilation}
    checked = {pattern: whole("dilation", value, least=1, most=_MOST) for pattern, value in stated.items()}
    if all(value == 1 for value in checked.values()):
        return
    check_patterns("dilation", checked, list(wide), f"the padded convolutions of this {type(network).__name__}")
    for name, module in wide.items():
        rate = find_named(checked, name, 1)
        pads = []
        for size, pad in zip(module.kernel_size, _sides(module), strict=True):
            grown = (rate - 1) * (size - 1)
            if grown % 2:
                raise ConfigError(
                    f"dilation: got {rate}, but the kernel of {name} has {size} elements, and padding at both sides "
                    "cannot keep the size. Give an odd dilation."
                )
            pads.append(pad + grown // 2)
        module.dilation, module.padding = (rate,) * len(pads), tuple(pads)
        module._reversed_padding_repeated_twice = [pad for pad in reversed(pads) for _ in range(2)]


@runtime_checkable
class _Block(Protocol):
    """A residual block that can become a plain one."""

    @property
    def has_shortcut(self) -> bool: ...

    def drop_shortcut(self) -> None: ...


def _change_shortcuts(network: nn.Module, block: str) -> None:
    shortcuts = [module for module in network.modules() if isinstance(module, _Block) and module.has_shortcut]
    if block == "plain":
        for module in shortcuts:
            module.drop_shortcut()
        return
    if shortcuts:
        return  # it is residual as published
    kept = [conv for conv in network.modules() if isinstance(conv, _CONVS) and _keeps_shape(conv)]
    if not kept:
        raise ConfigError(
            f"block: got 'residual', but no convolution of this {type(network).__name__} keeps channels and size, so "
            "none can be added to its input. Leave it out, or take another network."
        )
    for conv in kept:
        conv.register_forward_hook(_add_input)


def _add_input(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + given[0]


def _keeps_shape(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    wide = zip(module.kernel_size, module.dilation, _sides(module), strict=True)
    kept = max(module.stride) == 1 and module.in_channels == module.out_channels
    return kept and all(2 * pad == rate * (size - 1) for size, rate, pad in wide)


def _sides(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[int, ...]:
    """Return the padding at each side of each axis; of a padding in words, as no network here has it, none."""
    return () if isinstance(module.padding, str) else tuple(module.padding)


def _is_padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    return any(_sides(module))


def _drop(network: nn.Module, rate: float, where: str) -> None:
    layers = [(name, module) for name, module in network.named_modules()
              if isinstance(module, (*_CONVS, *_TRANSPOSED, nn.Linear))
              and not any(part in name for part in _ASIDE)]  # fmt: skip
    chosen = [module for _, module in layers[1:] if where != "conv" or not isinstance(module, nn.Linear)]
    for module in chosen[-1:] if where == "last" else chosen:
        module.register_forward_pre_hook(functools.partial(_drop_input, rate))


def _drop_input(rate: float, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Return the input with values or channels dropped; a network that predicts keeps its own."""
    if not module.training:
        return None
    x, *rest = given
    drop = functional.dropout if isinstance(module, nn.Linear) else _DROP_CHANNELS[x.dim()]
    return drop(x, rate, True), *rest
