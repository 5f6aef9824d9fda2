"""Descriptions of the arguments that mean the same everywhere, said once and added to what ``help`` shows.

A docstring describes the arguments that are its own; the others come from these tables, with the defaults of the
signature, so that no text contradicts it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

_WINDOW = {
    "kernel_size": "size of the kernel, an int or one for each axis",
    "stride": "distance of windows, an int or one for each axis",
    "stride=None": "distance of windows, an int or one for each axis (default: ``kernel_size``)",
    "dilation": "distance of kernel elements, an int or one for each axis",
    "groups": "number of groups of channels",
}

#: Arguments of layers.
LAYERS = _WINDOW | {
    "dims": "number of spatial axes, 1, 2 or 3",
    "in_channels": "number of channels of the input",
    "out_channels": "number of channels of the output",
    "channels": "number of channels of the input",
    "rank=None": "channels between the parts (default: ``out_channels``)",
    "padding": "as for :func:`convoxel.nn.Conv`",
    "bias": "whether each output channel has a bias",
    "ceil_mode": "whether the last window may reach beyond the end",
    "Raises": "ConfigError: an argument is unknown or out of range.",
}

#: Arguments of functions of tensors.
FUNCTIONS = _WINDOW | {
    "x": "``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``",
    "bias=None": "``(o,)``",
    "padding": "as for :func:`correlate`",
    "padding_mode": "values outside of x, as for :func:`correlate`",
    "ceil": "whether the last window may reach beyond the end",
    "dims=None": "number of spatial axes (default: all axes of x but two)",
    "Raises": "ShapeError: axes, channels or sizes do not fit. ConfigError: an argument is unknown or out of range.",
}

#: Arguments of networks.
NETWORKS = {
    "dims": "number of spatial axes, 1, 2 or 3",
    "in_channels": "number of channels of the input",
    "num_classes": "number of classes, which is the number of logits",
    "width": "factor on all channel counts, which are rounded to multiples of 8",
    "depth": "factor on the number of blocks of each stage, rounded up",
    "activation": "name of the activation, a key of ``convoxel.nn.ACTIVATIONS``",
    "norm": "name of the normalisation, a key of ``convoxel.nn.NORMS``",
    "dropout": "probability with which training drops a value of the classifier",
    "dropout=None": "probability with which training drops a value of the classifier (default: as published)",
    "levels": "number of poolings",
    "dilation": "distance of kernel elements in every padded convolution wider than 1; sizes stay",
    "padding": "values outside of the image: zeros, reflect, replicate or circular",
    "dropout_where": "layers whose input is dropped out: all with weights but the first, conv, or the last",
    "features_only": "build no head and return the feature maps at strides 2, 4, 8, 16 and 32",
    "Raises": "ConfigError: an argument is out of range. The module raises ShapeError for an input that does not fit.",
}


def complete_docstring(thing: Callable[..., Any], texts: Mapping[str, str]) -> None:
    """Add to the section ``Args:`` of a function or class the arguments of its signature that it leaves out.

    Args:
        thing: function or class; without a section ``Args:`` its docstring stays.
        texts: description of each shared argument, by its name, or by ``name=default`` where the text says the default;
            ``"Raises"``: section of that name for docstrings that lack both it and a shared argument.

    >>> def area(size, dims=2):
    ...     '''Return the area.
    ...
    ...     Args:
    ...         size: edge.
    ...     '''
    >>> complete_docstring(area, {"dims": "number of axes"})
    >>> area.__doc__.splitlines()[-1]
    '    dims: number of axes (default 2).'
    """
    head, mark, rest = inspect.cleandoc(thing.__doc__ or "").partition("\nArgs:\n")
    if not mark:  # also with python -OO, which keeps no docstrings
        return
    section, _, after = rest.partition("\n\n")
    own: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", section):
        own.update((name.strip("* "), entry) for name in entry.partition(":")[0].split(","))
    wanted = []
    for name, parameter in inspect.signature(thing).parameters.items():
        default, given = parameter.default, parameter.default is not parameter.empty
        if name in own:
            wanted.append(own[name])
        elif given and f"{name}={default}" in texts:
            wanted.append(f"    {name}: {texts[f'{name}={default}']}.")
        elif name in texts:
            end = f" (default ``{default!r}``)" if isinstance(default, str) else f" (default {default})"
            wanted.append(f"    {name}: {texts[name]}{end if given else ''}.")
    if "Raises" in texts and "Raises:\n" not in after and not set(wanted) <= set(own.values()):
        after = after.replace(">>> ", f"Raises:\n    {texts['Raises']}\n\n>>> ", 1)
    lines = dict.fromkeys([*wanted, *own.values()])  # an entry may describe several arguments
    thing.__doc__ = "\n".join([head, "Args:", *lines, *(["", after] if after else [])])
