"""Pages of the command line: one for each command, from what its help says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer.main

from convoxel.cli.application import app

__all__ = ["find_commands", "render_command"]


def find_commands() -> dict[str, Any]:
    """Return every command by its name; groups hold theirs in ``commands``."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def render_command(name: str, command: Any) -> str:
    """Return the page of a command as Markdown."""
    return "\n\n".join(_sections(f"convoxel {name}", command, 1)) + "\n"


def _sections(path: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {path}"
    yield _prose(command.help or "")
    if getattr(command, "commands", None):
        for name, inner in sorted(command.commands.items()):
            yield from _sections(f"{path} {name}", inner, level + 1)
        return
    epilog = (command.epilog or "").removeprefix("Example: ")
    if epilog:
        yield f"```sh\n{epilog}\n```"
    arguments = [p for p in command.params if p.param_type_name == "argument" and not p.hidden]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    if arguments:
        rows = [f"| `{p.metavar or p.name.upper()}` | {_cell(getattr(p, 'help', '') or '')} |" for p in arguments]
        yield "\n".join(["| argument | |", "|---|---|", *rows])
    rows = [
        f"| {_names(p)} | {_cell(getattr(p, 'help', '') or '')}{_default(p)} |" for p in options if p.name != "help"
    ]
    if rows:
        yield "\n".join(["| option | |", "|---|---|", *rows])


def _names(parameter: Any) -> str:
    words = [*parameter.opts, *parameter.secondary_opts]
    if parameter.is_flag:
        return "<br>".join(f"`{word}`" for word in words)
    value = parameter.metavar or _kind(parameter)
    return "<br>".join(f"`{word} {value}`" for word in words)  # a bar within code separates no cells


def _kind(parameter: Any) -> str:
    """Return what stands for the value of an option: its words, or its type."""
    if hasattr(parameter, "type_descriptor"):  # typer 0.26 and newer
        annotation = parameter.type_descriptor.annotation
        inner = [each for each in get_args(annotation) if each is not type(None)] or [annotation]
        if get_origin(inner[0]) is Literal:
            inner = list(get_args(inner[0]))
        name = inner[0].__name__ if isinstance(inner[0], type) else ""
        choices = inner if all(isinstance(each, str) for each in inner) else ()
    else:
        name, choices = parameter.type.name.partition(" ")[0], getattr(parameter.type, "choices", ())
    if choices:
        return "|".join(map(str, choices))
    return {"int": "N", "integer": "N", "float": "X", "Path": "PATH", "path": "PATH"}.get(name, "TEXT")


def _default(parameter: Any) -> str:
    default = parameter.default
    if (
        parameter.is_flag
        or default is None
        or callable(default)
        or default in ((), [], "")
        or "Sentinel" in repr(default)
    ):
        return ""
    if "default:" in (getattr(parameter, "help", "") or ""):
        return ""
    return f" Default: `{default}`."


def _prose(text: str) -> str:
    return "\n\n".join(_escape(part) for part in re.split(r"\n\s*\n", text.replace("\f", "")))


def _escape(text: str) -> str:
    pieces = re.split(r"(`[^`]*`)", " ".join(text.replace("\b", "").split()))
    return "".join(p if p.startswith("`") else re.sub(r"([*_\[\]<])", r"\\\1", p) for p in pieces)


def _cell(text: str) -> str:
    return re.sub(r"\|(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\|", _escape(text))
