"""Kinds of layers that have a kernel, and the axes of a kernel that belong to one output unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from convoxel.errors import ConfigError
from convoxel.nn.locally_connected import LocallyConnected
from convoxel.nn.torch_layers import CONV, CONV_TRANSPOSE

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": CONV,
    "conv_transpose": CONV_TRANSPOSE,
    "linear": (nn.Linear,),
    "local": (LocallyConnected,),
}


class Kernel(NamedTuple):
    """A layer's kernel, in a view that separates output units.

    Attributes:
        name: name of the layer in its model.
        kind: a key of ``KINDS``.
        layer: the layer.
        view: view of ``layer.weight``; writing into it changes the layer.
        axes: axes of ``view`` that hold the weights of one output unit.
    """

    name: str
    kind: str
    layer: nn.Module
    view: Tensor
    axes: tuple[int, ...]


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return ``kinds`` if each is a key of ``KINDS``.

    Raises:
        ConfigError: one is not, or a single word was given where a list is expected.

    >>> check_kinds(["conv", "linear"])
    ('conv', 'linear')
    """
    found = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in found:
        if kind not in KINDS:
            raise ConfigError(f"kinds has {kind!r}, but layers with kernels are {', '.join(map(repr, KINDS))}.")
    return found


def kernels(model: nn.Module, kinds: Iterable[str] = tuple(KINDS)) -> Iterator[Kernel]:
    """Yield the kernels of ``model`` that are of the given kinds, in the order of its modules.

    PyTorch keeps a convolution's kernel as (out, in / groups, *size) and a transposed one's as
    (in, out / groups, *size), where group g has the g-th block of inputs. Both are seen as
    (groups, units, …): the first axis is split, which is a view in any memory layout, and for the transposed
    kernel two axes trade places.

    >>> [kernel.view.shape for kernel in kernels(nn.ConvTranspose1d(4, 6, 3, groups=2))]
    [torch.Size([2, 3, 2, 3])]
    """
    wanted = check_kinds(kinds)
    for name, layer in model.named_modules():
        for kind in wanted:
            if isinstance(layer, KINDS[kind]):
                yield _see(name, kind, layer)
                break


def _see(name: str, kind: str, layer: nn.Module) -> Kernel:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, LocallyConnected):
        first = 2 + layer.dims  # (out, in, *positions, *kernel): each position has units of its own
        return Kernel(name, kind, layer, weight, (1, *range(first, weight.dim())))
    if not isinstance(layer, (*CONV, *CONV_TRANSPOSE)):
        return Kernel(name, kind, layer, weight, (1,))
    view: Tensor = weight.unflatten(0, (layer.groups, -1))
    if kind == "conv_transpose":
        view = view.transpose(1, 2)
    return Kernel(name, kind, layer, view, tuple(range(2, view.dim())))
