"""Pages of the reference: every public name with its signature, docstring and example."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tools.docs.docstring import has_example, render_docstring, render_signature, render_text
from tools.docs.page import PAGES, find_pages, read_blocks

__all__ = ["MODULES", "Name", "find_names", "names_without_example", "render_module"]

#: Modules with a page each, in the order of the navigation, with the title of the page.
MODULES = {
    "convoxel": "convoxel: compile, load, describe",
    "convoxel.arithmetic": "arithmetic: sizes, fields, costs",
    "convoxel.nn": "nn: layers",
    "convoxel.nn.functional": "nn.functional: functions",
    "convoxel.models": "models: the zoo",
    "convoxel.inspect": "inspect: analysis",
    "convoxel.draw": "draw: pictures",
    "convoxel.data": "data: images and labels",
    "convoxel.train": "train: runs",
    "convoxel.search": "search: scaling and search",
    "convoxel.report": "report: web pages of runs",
}
_MORE = {"convoxel": ("show",)}


@dataclass(frozen=True)
class Name:
    """A public name.

    Attributes:
        module: module that exports it.
        name: its name there.
        value: what it is.
    """

    module: str
    name: str
    value: Any

    @property
    def kind(self) -> str:
        """Return "module", "class", "function" or "value"."""
        if isinstance(self.value, ModuleType):
            return "module"
        if inspect.isclass(self.value):
            return "class"
        return "function" if callable(self.value) else "value"

    @property
    def anchor(self) -> str:
        """The anchor of its section."""
        return f"{self.module}.{self.name}"

    @property
    def network(self) -> bool:
        """Return whether it is a network of the zoo by its name."""
        return self.module == "convoxel.models" and self.name in importlib.import_module(self.module).names()


def find_names(module: str) -> list[Name]:
    """Return the public names of a module, in the order of its list."""
    home = importlib.import_module(module)
    listed = [*home.__all__, *_MORE.get(module, ())]
    return [Name(module, name, getattr(home, name)) for name in listed]


def names_without_example() -> list[str]:
    """Return the functions and classes of the reference that show no example of their own or of their package.

    A record that a function returns is shown by that function's example; a network of the zoo by that of ``build``.
    """
    found = []
    for module in MODULES:
        names = find_names(module)
        examples = "\n".join(inspect.getdoc(each.value) or "" for each in names)
        shown = shown_on_pages()
        for each in names:
            if each.kind in ("module", "value") or each.network or has_example(each.value) or _is_error(each.value):
                continue
            if inspect.isclass(each.value) and any(_holds(other.value, each.name) for other in names if other != each):
                continue
            if f"{each.name}(" not in examples and not shown.get(each.anchor):
                found.append(each.anchor)
    return found


@functools.cache
def shown_on_pages() -> dict[str, list[str]]:
    """Return the pages, by their names below ``docs``, whose blocks of Python use a public name of a module."""
    found: dict[str, list[str]] = {}
    for path in find_pages():
        code = "\n".join(block.code for block in read_blocks(path) if block.language == "python" and not block.not_run)
        for module in MODULES:
            short = module.rpartition(".")[2]
            prefix = {"convoxel": "cx", "functional": "F"}.get(short, rf"(?:cx\.)?{short}")
            used = set(re.findall(rf"\b{prefix}\.(\w+)", code))
            for line in re.findall(rf"^from {re.escape(module)} import ([^\n]+)", code, re.MULTILINE):
                used |= set(re.findall(r"\w+", line))
            for name in used:
                found.setdefault(f"{module}.{name}", []).append(path.relative_to(PAGES).as_posix())
    return found


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def _holds(value: Any, name: str) -> bool:
    """Return whether a function returns records of that name, or a class has an attribute that holds them."""
    if inspect.isclass(value):
        found = [*inspect.get_annotations(value).values(), *(base.__name__ for base in value.__bases__)]
        methods = [getattr(each, "fget", None) or getattr(each, "func", each) for each in vars(value).values()]
        found += [inspect.get_annotations(each).get("return") for each in methods if inspect.isfunction(each)]
    else:
        found = [inspect.get_annotations(value).get("return")] if inspect.isfunction(value) else []
    return any(re.search(rf"\b{name}\b", str(each)) for each in found)


def title_of(page: str) -> str:
    """Return the first heading of a page."""
    return (PAGES / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def page_of(module: str) -> str:
    """Return the file of a module's page below the folder of the reference."""
    return f"{module.removeprefix('convoxel.')}.md"


def _index() -> dict[str, str]:
    """Return the address of every public name, by its full name and by its last part."""
    addresses: dict[str, str] = {}
    for module in reversed(MODULES):
        for each in find_names(module):
            if each.kind == "module":
                continue
            address = f"{page_of(module)}#{each.anchor.lower()}"
            addresses[each.anchor] = addresses[each.name] = address
    return addresses


def make_link(addresses: dict[str, str]) -> Any:
    """Return a function that writes a name as Markdown, as a link where the reference has it."""

    def link(name: str) -> str:
        address = addresses.get(name) or addresses.get(name.rpartition(".")[2])
        return f"[`{name}`]({address})" if address else f"`{name}`"

    return link


def render_module(module: str, addresses: dict[str, str] | None = None) -> str:
    """Return the page of a module as Markdown."""
    addresses = _index() if addresses is None else addresses
    link, home = make_link(addresses), importlib.import_module(module)
    lines = [f"# {module}", render_text(home, link)]
    names = find_names(module)
    if module == "convoxel":
        lines.append("```python\nimport convoxel as cx\n```")
    networks = [each for each in names if each.network]
    for each in sorted(names, key=lambda each: each.name.lower()):
        if each.kind == "module":
            name = f"convoxel.{each.name}" if module == "convoxel" else each.anchor
            lines.append(f"- [`{each.name}`]({page_of(name)})" if name in MODULES else f"- `{each.name}`")
    for each in sorted(names, key=lambda each: each.name.lower()):
        if each.kind != "module" and not each.network:
            lines += _entry(each, link)
    if networks:
        lines += _networks(networks)
    return "\n\n".join(filter(None, lines)) + "\n"


def _entry(each: Name, link: Any) -> Iterator[str]:
    yield f"## {each.name} {{ #{each.anchor.lower()} }}"
    if each.kind == "value":
        text = repr(tuple(each.value) if isinstance(each.value, (dict, set, frozenset)) else each.value)
        yield f"```python\n{each.name} = {text if len(text) < 400 else text[:400] + ' …'}\n```"
        return
    yield render_signature(each.name, each.value)
    yield render_docstring(each.value, link)
    pages = shown_on_pages().get(each.anchor, [])
    if pages:
        yield "Used on: " + ", ".join(f"[{title_of(page)}](../{page})" for page in pages) + "."
    if each.kind == "class":
        for name, member in sorted(vars(each.value).items()):
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            function = member.fget if isinstance(member, property) else function
            if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__ or name == "forward":
                continue
            yield f"### {each.name}.{name} {{ #{each.anchor.lower()}.{name.lower()} }}"
            if not isinstance(member, property):
                yield render_signature(name, function)
            yield render_docstring(function, link)


def _networks(networks: list[Name]) -> Iterator[str]:
    models = importlib.import_module("convoxel.models")
    yield "## Networks by name"
    yield (
        "Each name is a function, and a word for [`build`](#convoxel.models.build) and for every command: "
        '`cx.models.resnet50(3)` is `cx.models.build("resnet50", dims=3)`.'
    )
    rows = ["| network | task | |", "|---|---|---|"]
    for each in networks:
        info = models.entry(each.name)
        text = (inspect.getdoc(each.value) or "").split("\n")[0]
        rows.append(f'| <a id="{each.anchor.lower()}"></a>`{each.name}` | {getattr(info, "task", "")} | {text} |')
    yield "\n".join(rows)
