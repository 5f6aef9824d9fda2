"""The public face: calls that work, from the examples of docstrings, and the arguments that may be changed in them.

What has no example in its docstring, since it needs files or runs, has one here.
"""

from __future__ import annotations

import ast
import copy
import doctest
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PACKAGES = (
    "convoxel", "convoxel.arithmetic", "convoxel.data", "convoxel.draw", "convoxel.inspect", "convoxel.models",
    "convoxel.native", "convoxel.nn", "convoxel.nn.functional", "convoxel.report", "convoxel.search", "convoxel.train",
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """Statements that work, the module in whose names they run, and the package whose names are public."""

    name: str
    module: str
    package: str
    source: str

    def names(self) -> dict[str, Any]:
        """Return the names in which the statements run; public ones are those that users see."""
        package = importlib.import_module(self.package)
        public = {name: getattr(package, name) for name in package.__all__}
        names = {**vars(importlib.import_module(self.module)), "__name__": "example"}
        names.update({name: value for name, value in public.items() if name in names or self.module == self.package})
        exec("import numpy as np, torch, convoxel as cx\nfrom torch import nn as torch_nn", names)
        return names


@dataclass(frozen=True)
class Site:
    """An argument of a call in a statement.

    Attributes:
        call: number of the call within its statement, in the order of ``ast.walk``.
        argument: number of a positional argument, or the name of another, which may be one that is not given yet.
        name: name of the parameter.
        function: qualified name of the function that is called.
        value: the right value, None where a default stands.
    """

    call: int
    argument: int | str
    name: str
    function: str
    value: Any = None


def examples(more: Mapping[str, str]) -> list[Example]:
    """Return the examples of the public face and ``more`` of them, source by name."""
    found: dict[str, Example] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.isroutine(value) and not inspect.isclass(value):  # a network of the zoo is its class
                continue
            owned = [("", value)]
            if inspect.isclass(value) and value.__module__.startswith("convoxel"):
                owned += [(f".{key}", member) for key, member in vars(value).items() if not key.startswith("_")]
            for part, member in owned:
                source = _source(member)
                home = getattr(inspect.unwrap(member), "__module__", None) or value.__module__
                key = f"{home}.{getattr(member, '__qualname__', name + part)}"
                if source and key not in found:
                    found[key] = Example(key, home, package, source)
    return [*found.values(), *(Example(name, "convoxel", "convoxel", source) for name, source in more.items())]


def _source(value: object) -> str:
    text = inspect.getdoc(value) if callable(value) or isinstance(value, (property, classmethod, staticmethod)) else ""
    if ">>> " not in (text or ""):
        return ""
    return "".join(e.source for e in doctest.DocTestParser().get_examples(text or "") if e.exc_msg is None)


def sites(statement: ast.stmt, names: dict[str, Any]) -> Iterator[Site]:
    """Yield the arguments of calls of ours in a statement, which runs in ``names``."""
    for number, call in enumerate(_calls(statement)):
        try:
            function = _value(call.func, names)
            parameters = _parameters(function)
        except Exception:  # a name of a comprehension, or a function without a signature
            continue
        if not _is_public(function) or any(isinstance(a, ast.Starred) for a in call.args):
            continue
        called = getattr(function, "__qualname__", type(function).__name__)
        given = {keyword.arg for keyword in call.keywords}
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
        for index, argument in enumerate(call.args):
            name = places[min(index, len(places) - 1)].name if places else str(index)
            yield Site(number, index, name, called, _tried(argument, names))
        taken = {p.name for p in places[: len(call.args)]}
        for keyword in call.keywords:
            if keyword.arg is not None:
                yield Site(number, keyword.arg, keyword.arg, called, _tried(keyword.value, names))
        for parameter in parameters:
            if parameter.name not in given | taken and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                yield Site(number, parameter.name, parameter.name, called)


def changed(statement: ast.stmt, site: Site) -> ast.stmt:
    """Return the statement with the name ``odd`` in place of the argument."""
    other = copy.deepcopy(statement)
    call = list(_calls(other))[site.call]
    odd = ast.Name("odd", ast.Load())
    if isinstance(site.argument, int):
        call.args[site.argument] = odd
    else:
        call.keywords = [k for k in call.keywords if k.arg != site.argument] + [ast.keyword(site.argument, odd)]
    return ast.fix_missing_locations(other)


def run(statement: ast.stmt, names: dict[str, Any]) -> None:
    """Run a statement."""
    exec(compile(ast.Module([statement], []), "example", "exec"), names)


def _calls(statement: ast.stmt) -> Iterator[ast.Call]:
    return (node for node in ast.walk(statement) if isinstance(node, ast.Call))


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "example", "eval"), names)


def _tried(node: ast.expr, names: dict[str, Any]) -> Any:
    try:
        return _value(node, names)
    except Exception:
        return None


def _parameters(function: Any) -> list[inspect.Parameter]:
    target = getattr(function, "forward", function) if not inspect.isclass(function) else function
    return list(inspect.signature(target).parameters.values())


def _is_public(function: Any) -> bool:
    """Return True for functions, methods, classes and layers of the face, which says what is wrong with arguments."""
    if inspect.isclass(function):
        return "_explains" in vars(function)
    inner = getattr(function, "__func__", function)
    return hasattr(inner, "_explains" if inspect.isfunction(function) else "__wrapped__") or (
        not inspect.isroutine(function) and "_explains" in vars(type(function))
    )
