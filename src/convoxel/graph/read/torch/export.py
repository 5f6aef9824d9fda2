"""From a module to PyTorch's own graph, with sizes left open.

``torch.export`` is asked to leave the batch and the spatial sizes open. It takes every size of 1 for a
constant, at the input and inside the network, so it is shown a larger example first: two images, and wide
enough that deep layers see more than one position. If the network refuses that, the example's own width is
tried; if its spatial sizes cannot be left open, only the batch is; and if not even that, it is exported with the
example's sizes, and its program then takes no others.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from convoxel.errors import GraphError, UnsupportedError
from convoxel.fork import forks_wait, renewed_lock
from convoxel.graph.ir.size import Extents, Size, compare, evaluate_shape, measure
from convoxel.graph.read.torch.pool1d import open_max_pool1d
from convoxel.graph.read.torch.results import open_records

_SPATIAL_LETTERS = "dhw"
_exporting = renewed_lock()  # what an export switches (warnings, modes) is global
_CHATTY = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
_LONGEST = 200  # operations; sizes of networks that can be left open have up to 75
_WIDE = 128  # six halvings leave 2 positions
_UNBOUNDED = 2**31


class NotOpen(Exception):
    """The sizes cannot be left open."""


@dataclass(frozen=True)
class Symbols:
    """PyTorch's names of open sizes (``s77``) and ours (``h``).

    ``multiples`` are input sizes such as ``2*s77``, where no input has the size ``s77`` itself: it is ``h // 2``.
    """

    names: dict[str, Size]
    multiples: dict[str, Size] = field(default_factory=dict)

    @property
    def guards(self) -> tuple[Size, ...]:
        """The conditions that multiples are."""
        factors = ((size, int(text.partition("*")[0])) for text, size in self.multiples.items())
        return tuple(compare("==", size % factor, 0) for size, factor in factors)

    def extent(self, size: Any) -> Any:
        """Return one axis length: a number, or an expression over our names."""
        if isinstance(size, int):
            return size
        if str(size) in self.multiples:
            return self.multiples[str(size)]
        try:
            expression = Size(str(size)).substituted(self.names)
        except GraphError as reason:
            raise NotOpen(str(reason)) from None
        return expression if expression.names() else expression.number({})

    def condition(self, expression: Any) -> Size:
        """Return a condition on sizes."""
        extent = self.extent(expression)
        return extent if isinstance(extent, Size) else Size(str(extent))

    def extents(self, shape: Sequence[Any]) -> Extents:
        """Return a shape."""
        return tuple(self.extent(size) for size in shape)


@dataclass(frozen=True)
class Exported:
    """PyTorch's program, its open sizes, and the conditions under which it and its sizes hold.

    ``written`` are the parameters and buffers that the model writes while it runs, ``assigned`` other attributes that
    held a number or tensor and get another one.
    """

    program: torch.export.ExportedProgram
    symbols: Symbols
    guards: tuple[Size, ...] = ()
    assumptions: tuple[Size, ...] = ()
    written: frozenset[str] = frozenset()
    assigned: frozenset[str] = frozenset()


def exports(model: torch.nn.Module, examples: Sequence[torch.Tensor]) -> Iterator[Exported]:
    """Yield ``model``, in evaluation mode, as exported by PyTorch: with open sizes where that can be, then
    fixed.

    Raises ``GraphError`` if the model does not run on the examples, or not in a way that PyTorch can record.
    """
    long: list[int] = []
    for wide, spatial in ((_WIDE, True), (1, True), (1, False)):
        if spatial and long:
            continue
        try:
            with _recording(model) as assigned, open_max_pool1d(), _short_sizes(long):
                exported = _export_open(model, _enlarged(examples, wide), examples, spatial)
        except Exception:  # PyTorch raises many kinds; the fixed export below says whether it matters
            continue
        yield _with_state(exported, assigned)
    try:
        with _recording(model) as assigned, open_max_pool1d():
            program = _functional(torch.export.export(model, tuple(examples)))
            fixed = _with_state(Exported(program, Symbols({})), assigned)
    except Exception as reason:
        shapes = ", ".join(str(tuple(example.shape)) for example in examples)
        raise GraphError(
            f"compile: the model cannot be read by torch.export with example_inputs {shapes}: "
            f"{type(reason).__name__}: {_first_line(reason)}. "
            "Give inputs that model(*example_inputs) accepts and a model without control flow on values."
        ) from reason
    yield fixed


def exported_by(program: torch.export.ExportedProgram) -> Exported:
    """Return what somebody exported, with the sizes that they left open, in the range that they asked for."""
    with _one_export(), _quiet():
        program = _functional(program)
    try:
        symbols = _name_symbols(program)
        guards, assumptions = _conditions(program, symbols) if symbols.names else ((), ())
    except NotOpen as reason:
        raise UnsupportedError(
            f"compile: {reason} in the exported model, which is no number, no size of its own and no multiple of one. "
            "Export it with other dynamic_shapes, or compile the module itself."
        ) from None
    bounds = []
    for symbol, span in program.range_constraints.items():
        size = symbols.names.get(str(symbol))
        # Below 2, and at numbers that no size reaches, the bound is PyTorch's own.
        if size and span.lower > 2:
            bounds.append(compare(">=", size, int(span.lower)))
        if size and span.upper < _UNBOUNDED:
            bounds.append(compare("<=", size, int(span.upper)))
    return _with_state(Exported(program, symbols, (*guards, *bounds), assumptions), _Assigned())


def _with_state(exported: Exported, assigned: _Assigned) -> Exported:
    """Return the export with what the model writes, by PyTorch's account and by ours.

    PyTorch misses buffers that are assigned in parts of the model.
    """
    signature = exported.program.graph_signature
    written = {*signature.buffers_to_mutate.values(), *getattr(signature, "parameters_to_mutate", {}).values()}
    attributes = frozenset(assigned.attributes)
    return dataclasses.replace(exported, written=frozenset(written | assigned.buffers), assigned=attributes)


def _enlarged(examples: Sequence[torch.Tensor], wide: int) -> list[torch.Tensor]:
    """Return tensors of at least two images and, if there is room, ``wide``; their values do not matter.

    A tensor of one axis, or none, has no batch and stays as it is.

    Axes are repeated a whole number of times, which keeps every divisibility; those of several inputs by the
    same number, which keeps their proportions. The memory is asked for but never touched.
    """
    widest = max((size for x in examples for size in x.shape[2:]), default=1)

    def repeated(size: int) -> int:
        return size if size < 2 else size * -(-wide // (size if len(examples) == 1 else widest))

    def shape(x: torch.Tensor) -> tuple[int, ...]:
        return (max(len(x), 2), *x.shape[1:2], *map(repeated, x.shape[2:])) if x.ndim > 1 else tuple(x.shape)

    return [torch.empty(shape(x), dtype=x.dtype) for x in examples]


def _export_open(
    model: torch.nn.Module, shown: Sequence[torch.Tensor], examples: Sequence[torch.Tensor], spatial: bool
) -> Exported:
    """Export with open batch, and ``spatial`` sizes, on the tensors ``shown``, such that it holds for the examples."""
    auto = torch.export.Dim.AUTO
    # Axis 1 holds channels, which weights fix.
    open_axes: list[Any] = [
        {axis: auto for axis in range(x.ndim) if x.ndim > 1 and (axis == 0 or (spatial and axis > 1))} for x in shown
    ]
    named = _named_parameters(model)
    dynamic = (*open_axes[:named], tuple(open_axes[named:])) if len(shown) > named else tuple(open_axes)
    program = _functional(torch.export.export(model, tuple(shown), dynamic_shapes=dynamic))
    symbols = _name_symbols(program)
    exported = Exported(program, symbols, *_conditions(program, symbols))
    _check_accepts(exported, examples)
    return exported


def _named_parameters(model: torch.nn.Module) -> int:
    """Return how many inputs ``forward`` names; PyTorch wants those of ``*inputs`` as one group."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    starred = [i for i, p in enumerate(parameters) if p.kind is inspect.Parameter.VAR_POSITIONAL]
    return starred[0] if starred else len(parameters)


def _user_inputs(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    wanted = list(program.graph_signature.user_inputs)
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return [nodes[name] for name in wanted if name in nodes]  # others are constants, such as None


def _name_symbols(program: torch.export.ExportedProgram) -> Symbols:
    """Name the open sizes after their axis: n, d, h, w; with a number from the second input on."""
    names: dict[str, Size] = {}
    multiples: dict[str, Size] = {}
    others: dict[str, Size] = {}
    for index, node in enumerate(_user_inputs(program)):
        shape = node.meta["val"].shape
        for size, letter in zip(map(str, shape), _axis_letters(len(shape)), strict=True):
            ours = Size(letter if index == 0 else f"{letter}{index + 1}")
            # Others are numbers, or such as twice the size of another input.
            (names if size.isidentifier() else others).setdefault(size, ours)
    for other, ours in others.items():
        factor, _, base = other.partition("*")
        if factor.isdecimal() and base.isidentifier() and base not in names:
            names[base], multiples[other] = ours // int(factor), ours
        elif not Size(other).names() <= names.keys():
            raise NotOpen(f"an input size is {other}")
    return Symbols(names, multiples)


def _axis_letters(rank: int) -> list[str]:
    spatial = rank - 2
    if 0 <= spatial <= len(_SPATIAL_LETTERS):
        return ["n", "c", *_SPATIAL_LETTERS[len(_SPATIAL_LETTERS) - spatial :]]
    return [f"a{axis}" for axis in range(rank)]


def _conditions(program: torch.export.ExportedProgram, symbols: Symbols) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """Return the conditions on input sizes under which PyTorch recorded this very graph: guards, assumptions.

    Guards come from Python code, the user's and that of PyTorch's layers: another size may take another
    branch. Assumptions are what PyTorch noted while it computed an operator's output size; the shape rules
    decide that anew for every size, so they matter only where the network computes with sizes. PyTorch's conditions
    "≠ 1" and "≠ 0", noted of every open size, and those about strides are left out; the user's ``h % 2 != 0`` is not.
    """
    inputs = [node.meta["val"] for node in _user_inputs(program)]
    environments = [x.fake_mode.shape_env for x in inputs if getattr(x, "fake_mode", None)]
    if not environments or environments[0] is None:
        raise NotOpen("PyTorch kept no conditions")
    guards: dict[Size, None] = {}
    assumptions: dict[Size, None] = {}
    for guard in environments[0].guards:
        module = _torch_module(guard)
        condition = symbols.condition(guard.expr.xreplace(environments[0].replacements))
        harmless = module == "_prims_common" or (module and _is_harmless(condition))
        if not condition.names() or harmless:
            continue
        # Rules for output sizes live in private modules: _meta_registrations, _refs, _subclasses, …
        (assumptions if module.startswith(("_", "fx")) else guards).setdefault(condition)
    return (*guards, *symbols.guards), tuple(assumptions)


def _torch_module(guard: Any) -> str:
    """Return the module below ``torch`` whose code noted the condition; "" if it was other code."""
    frame = getattr(getattr(guard, "sloc", None), "framework_loc", None)
    path = Path(getattr(frame, "filename", ""))
    package = Path(torch.__file__).parent
    return Path(path.relative_to(package).parts[0]).stem if path.is_relative_to(package) else ""


def _is_harmless(condition: Size) -> bool:
    tree = ast.parse(condition.text, mode="eval").body
    if not isinstance(tree, ast.Compare) or not isinstance(tree.ops[0], ast.NotEq):
        return False
    return any(isinstance(side, ast.Constant) and side.value in (0, 1) for side in (tree.left, *tree.comparators))


def _check_accepts(exported: Exported, examples: Sequence[torch.Tensor]) -> None:
    """Raise unless the examples themselves are among the inputs for which the export holds."""
    nodes = _user_inputs(exported.program)
    extents = [exported.symbols.extents(node.meta["val"].shape) for node in nodes]
    sizes = measure(extents, [tuple(example.shape) for example in examples])
    for row, example in zip(extents, examples, strict=True):
        if evaluate_shape(row, sizes) != tuple(example.shape):
            raise NotOpen(f"the example {tuple(example.shape)} is not {row}")
    for guard in exported.guards:
        if not guard.value(sizes):
            raise NotOpen(f"the example does not meet {guard}")


def _functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return ``program`` free of writes whose effect reaches beyond their own result.

    ``relu_(x)`` where x is used nowhere through another view is as good as ``relu(x)``; the rest is left to
    PyTorch's functionalisation, which changes other operators too.
    """
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        if _updates_statistics(node) or (_mutates(node) and not _is_simple_write(node)):
            with _quiet():
                return program.run_decompositions({})
    return program


def _updates_statistics(node: torch.fx.Node) -> bool:
    """Return True for a normalisation in training mode, whose schema says nothing of what it writes."""
    place = {"aten.batch_norm.default": 5, "aten.instance_norm.default": 5}.get(str(node.target))
    return place is not None and node.args[3] is not None and bool(node.args[place])


def _schema(node: torch.fx.Node) -> Any:
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _mutates(node: torch.fx.Node) -> bool:
    schema = _schema(node)
    return schema is not None and schema.is_mutable


def _may_alias(node: torch.fx.Node) -> bool:
    """Return True if the node's result may be (a view of) its operand."""
    schema = _schema(node)
    if schema is None:
        return node.op == "call_function" and "getitem" in str(node.target)
    return any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)


def _keeps_memory(node: torch.fx.Node) -> bool:
    """Return True if the result is where the first operand lies: relu_(x), or dropout in evaluation mode."""
    return _mutates(node) or (node.op == "call_function" and "dropout" in str(node.target))


def names_of_memory(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Return the nodes whose results lie where that of ``node`` does."""
    while _keeps_memory(node):
        node = node.args[0]  # type: ignore[assignment]
    found = [node]
    for name in found:  # which grows meanwhile
        found += [user for user in name.users if _keeps_memory(user) and user.args[0] is name]
    return found


def _is_simple_write(node: torch.fx.Node) -> bool:
    """Return True if the node writes to its first operand alone, fresh memory that no view shows."""
    writes = [argument.alias_info is not None and argument.alias_info.is_write for argument in _schema(node).arguments]
    if not writes[0] or any(writes[1:]):
        return False
    target: Any = node.args[0]
    while _keeps_memory(target):  # relu_(add_(x)): the memory is x's
        if any(_may_alias(user) for user in target.users):
            return False
        target = target.args[0]
    fresh = target.op == "call_function" and not _may_alias(target)
    return fresh and not any(_may_alias(user) for user in target.users)


@contextmanager
def _one_export() -> Iterator[None]:
    """Let other exports, recordings by ``torch.compile``, and forks wait until the block has ended.

    An export replaces methods of ``torch.nn.Module``, which a recording in another thread would read.
    """
    from torch._dynamo.convert_frame import compile_lock

    with compile_lock, _exporting, forks_wait():
        yield


@contextmanager
def _recording(model: torch.nn.Module) -> Iterator[_Assigned]:
    """Let the model be recorded as it evaluates, and give the names of what it assigns."""
    with _one_export(), _evaluating(model), open_records(model), _quiet(), torch.no_grad(), _noting(model) as assigned:
        yield assigned


@dataclass(frozen=True)
class _Assigned:
    """Names of what the model assigns while it runs: buffers, and other attributes that held a number or tensor."""

    buffers: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


@contextmanager
def _noting(model: torch.nn.Module) -> Iterator[_Assigned]:
    """Note what the model assigns, and take it back afterwards: while it is recorded, tensors have no numbers."""
    paths = {id(module): f"{path}." if path else "" for path, module in model.named_modules()}
    found = _Assigned()
    kept = {id(module): ({**module.__dict__}, {**module._buffers}) for module in model.modules()}
    touched: set[int] = set()
    thread = threading.get_ident()
    original = torch.nn.Module.__setattr__

    def noting(module: torch.nn.Module, name: str, value: Any) -> None:
        path = paths.get(id(module))
        if path is not None and threading.get_ident() == thread:
            touched.add(id(module))
            attributes, buffers = module.__dict__, module._buffers
            old = attributes.get(name)
            numbers = all(isinstance(x, int | float) for x in (old, value)) and old != value
            if isinstance(buffers.get(name), torch.Tensor) and isinstance(value, torch.Tensor):
                found.buffers.add(path + name)
            elif numbers or (isinstance(old, torch.Tensor) and isinstance(value, torch.Tensor)):
                found.attributes.add(path + name)
        original(module, name, value)

    torch.nn.Module.__setattr__ = noting  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        torch.nn.Module.__setattr__ = original  # type: ignore[method-assign]
        for module in model.modules():
            if id(module) in touched:
                attributes, buffers = kept[id(module)]
                for name in module.__dict__.keys() - attributes.keys():
                    del module.__dict__[name]
                module.__dict__.update(attributes)
                module._buffers.update(buffers)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and every module back to its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _short_sizes(found: list[int]) -> Iterator[None]:
    """Raise ``NotOpen`` once PyTorch compares sizes that have become long; their lengths are added to ``found``.

    Padding that is computed from the size, with a maximum for each axis ("same" padding of strided convolutions),
    makes every layer's size several times as long as the last one's; PyTorch would be busy with them for minutes.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # takes a quarter of a second

    # Not around what notes a condition: a frame of ours there would look as if a network had asked (_torch_module).
    original = ShapeEnv.simplify

    def bounded(self: Any, expression: Any, *arguments: Any, **options: Any) -> Any:
        length = expression.count_ops() if hasattr(expression, "count_ops") else 0
        if length > _LONGEST:
            found.append(length)
            raise NotOpen(f"a size of {length} operations")
        return original(self, expression, *arguments, **options)

    ShapeEnv.simplify = bounded  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ShapeEnv.simplify = original  # type: ignore[method-assign]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's warnings about itself, and its log of attempts that failed, from the user."""

    def silent(record: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in _CHATTY]
    for logger in loggers:
        logger.addFilter(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(silent)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else "no message"
