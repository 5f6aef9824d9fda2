"""A command that takes every entry of a training configuration as an option: a setting is one word and one value.

``--weight-decay 1e-3`` stands for ``--set weight_decay=1e-3``, ``--augment.rotate 15`` for ``--set augment.rotate=15``,
and ``--dilation 2``, an option of networks, for ``--set model_options.dilation=2``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand

#: The error of typer's parser about a wrong line, wherever this version of typer keeps the parser.
UsageError: Any = typer.BadParameter.__mro__[1]


class OpenCommand(TyperCommand):
    """A command whose undeclared options become assignments: ``--NAME VALUE`` is ``--set NAME=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args``; an option that is neither declared nor an entry raises the parser's error."""
        declared = {word: parameter for parameter in self.params for word in parameter.opts}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*_assign(iter(args[:end]), declared, ctx), *args[end:]])


def _assign(words: Iterator[str], declared: dict[str, Any], ctx: Any) -> Iterator[str]:
    for word in words:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name == "--help":
            yield word
        elif name in declared:
            yield word
            if not equals and not getattr(declared[name], "is_flag", False):
                yield from _next(words)
        else:
            entry, is_flag = find_entry(name, declared, ctx)
            if not equals:
                value = "true" if is_flag else next(_next(words), "")
            if not value or (not equals and value.startswith("--")):
                raise UsageError(f"{name} needs a value.", ctx=ctx)
            yield "--set"
            yield f"{entry}={value}"


def _next(words: Iterator[str]) -> Iterator[str]:
    """Yield the next word, if there is one."""
    for word in words:
        yield word
        return


def find_entry(name: str, declared: Iterable[str], ctx: Any) -> tuple[str, bool]:
    """Return the entry of a configuration that an option names, and whether it is true or false.

    Raises:
        UsageError: it names none; the message shows the nearest of these and of the ``declared`` options.
    """
    from convoxel.train.config import TrainConfig

    entry = name[2:].replace("-", "_")
    first = entry.partition(".")[0]
    fields = TrainConfig.model_fields
    if first in fields:
        return entry, fields[first].annotation is bool
    from convoxel import models

    options = {option for network in models.names() for option in models.entry(network).options}
    if first in options:
        return f"model_options.{entry}", False
    known = [*declared, *("--" + each.replace("_", "-") for each in (*fields, *options))]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise UsageError(f"no such option: {name}" + (f"; did you mean {near[0]}?" if near else "."), ctx=ctx)
