"""The nesting of a model's results, from PyTorch's description of it.

PyTorch takes apart what it knows: tuples, lists, dictionaries, named tuples, and types that somebody registered, such
as those of the transformers library. Data classes that nobody registered are taken apart here.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree

from convoxel.graph.ir.pytree import Branch, Fixed, Structure

_DICTIONARIES = ("dict", "OrderedDict", "defaultdict")


class _Record:
    """A data class taken apart: PyTorch knows this type."""

    def __init__(self, kind: type, names: Sequence[str], values: Sequence[Any]) -> None:
        self.kind, self.names, self.values = kind, tuple(names), list(values)

    def closed(self) -> Any:
        """Return an instance of the data class, without a call of its ``__init__``."""
        made: Any = object.__new__(self.kind)
        for name, value in zip(self.names, self.values, strict=True):
            object.__setattr__(made, name, value)
        return made


pytree.register_pytree_node(
    _Record,
    lambda record: (record.values, (record.kind, record.names)),
    lambda values, context: _Record(context[0], context[1], list(values)),
    serialized_type_name="convoxel.Record",
)


def opened(results: Any) -> Any:
    """Return results with every data class that PyTorch does not know as one that it knows."""
    if (
        dataclasses.is_dataclass(results)
        and not isinstance(results, type)
        and type(results) not in pytree.SUPPORTED_NODES
    ):
        names = [field.name for field in dataclasses.fields(results)]
        return _Record(type(results), names, [opened(getattr(results, name)) for name in names])
    if isinstance(results, dict) and type(results) in (dict, OrderedDict):
        return type(results)((key, opened(value)) for key, value in results.items())
    if isinstance(results, list | tuple) and type(results) in (list, tuple):
        return type(results)(map(opened, results))
    if isinstance(results, tuple) and hasattr(results, "_fields"):
        return type(results)(*map(opened, results))
    return results


@contextmanager
def open_records(model: torch.nn.Module) -> Iterator[None]:
    """Let the model return its data classes taken apart."""
    hook = model.register_forward_hook(lambda module, inputs, results: opened(results))
    try:
        yield
    finally:
        hook.remove()


def structure_of(spec: Any, leaves: Iterator[Structure]) -> Structure:
    """Return PyTorch's description of nested results in our terms."""
    kind = spec.type
    if kind is None or spec.is_leaf():
        return next(leaves)
    if kind is type(None):
        return Fixed(None)
    children = tuple(structure_of(child, leaves) for child in spec.children())
    name = kind.__name__
    if name in _DICTIONARIES:
        keys = spec.context[1] if name == "defaultdict" else spec.context
        return Branch("dict", children, tuple(keys), make=None if name == "dict" else _maker(spec))
    if name in ("tuple", "list"):
        return Branch(name, children)
    if kind is torch.Size:
        return Branch("tuple", children, make=torch.Size)
    if kind is _Record:
        made, names = spec.context
        return _record(made.__name__, names, children, lambda values: _Record(made, names, values).closed())
    named = kind if name != "namedtuple" else spec.context
    names, absent = _field_names(spec)
    nothing = (Fixed(None),) * len(absent)
    return _record(named.__name__, (*names, *absent), (*children, *nothing), _maker(spec))


def _maker(spec: Any) -> Any:
    """Return the function that makes the model's own type of its children."""
    make = pytree.SUPPORTED_NODES[spec.type].unflatten_fn
    return lambda values: make(values[: spec.num_children], spec.context)


def _field_names(spec: Any) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of the children of a type that somebody registered, as far as PyTorch can tell them, and of
    fields that are None."""
    context = spec.context

    def are_names(names: object) -> bool:
        return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)

    pair = isinstance(context, list | tuple) and len(context) == 2 and all(map(are_names, context))
    if pair and len(context[0]) == spec.num_children:  # of torch.export.register_dataclass
        return context[0], context[1]
    candidates: list[Any] = [getattr(context, "_fields", None), context, getattr(spec.type, "__match_args__", None)]
    for names in candidates:
        if are_names(names) and len(names) == spec.num_children:
            return names, ()
    return (), ()


def _record(name: str, names: Sequence[str], children: tuple[Structure, ...], make: Any) -> Branch:
    """Return a record, or a tuple where the fields have no names that a named tuple could have."""
    try:
        return Branch("record", children, tuple(names), name, make)
    except ValueError:
        return Branch("tuple", children, make=make)
