"""A docstring as Markdown: its text, its arguments as a table, its examples as code."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["has_example", "render_docstring", "render_signature", "render_text"]

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_SECTION = re.compile(rf"^({'|'.join(_SECTIONS)}):$")
_ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)$", re.DOTALL)
_RAISED = re.compile(r"(?:^|(?<=\. ))(\w*(?:Error|Interrupt|Exit)): ")
_CODE = re.compile(r"``(.+?)``|:\w+:`~?([^`]+)`", re.DOTALL)
# The order in which to read the files of a package is for developers.
_DEVELOPERS = re.compile(
    r"(?:^|(?<=[.\n] ))(?:Read (?:in|the)|Of layers: |Nothing here |Invariant|The names below|A picture is a figure)",
    re.MULTILINE,
)

Link = Callable[[str], str]


def render_docstring(documented: Any, link: Link) -> str:
    """Return the docstring of a function or class as Markdown.

    Args:
        documented: the function or class.
        link: gives the Markdown of a name that a docstring refers to.
    """
    return "\n\n".join(_blocks(inspect.getdoc(documented) or "", link))


def render_text(documented: Any, link: Link) -> str:
    """Return the docstring of a module as Markdown, up to what is for developers alone."""
    text = inspect.getdoc(documented) or ""
    match = _DEVELOPERS.search(text)
    examples = "\n\n" + text[text.index(">>> ") :] if ">>> " in text else ""
    return "\n\n".join(
        _blocks((text[: match.start()] if match else text.partition(">>> ")[0]).rstrip() + examples, link)
    )


def has_example(documented: Any) -> bool:
    """Return whether a docstring holds an example."""
    return ">>> " in (inspect.getdoc(documented) or "")


def render_signature(name: str, documented: Any) -> str:
    """Return the signature of a function or class as Python; "" where it has none."""
    try:
        signature = inspect.signature(documented)
    except (TypeError, ValueError):
        return ""
    kept = [p.replace(annotation=p.empty) if p.annotation is p.empty else p for p in signature.parameters.values()]
    shown = [_parameter(p) for p in kept if p.name != "self"]
    marked = _with_markers([p for p in kept if p.name != "self"], shown)
    back = signature.return_annotation
    arrow = "" if back is signature.empty or inspect.isclass(documented) else f" -> {_annotation(back)}"
    line = f"{name}({', '.join(marked)}){arrow}"
    if len(line) > 88:
        line = f"{name}(\n" + "".join(f"    {each},\n" for each in marked) + f"){arrow}"
    return f"```python\n{line}\n```"


def _with_markers(parameters: list[inspect.Parameter], shown: list[str]) -> list[str]:
    marked, bare = [], False
    for parameter, text in zip(parameters, shown, strict=True):
        if parameter.kind is parameter.VAR_POSITIONAL:
            bare = True
        if parameter.kind is parameter.KEYWORD_ONLY and not bare:
            marked.append("*")
            bare = True
        marked.append(text)
    return marked


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    annotation = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{annotation}"
    default = repr(parameter.default)
    if " object at 0x" in default or default.startswith("<") or len(default) > 40:
        default = "…"
    return f"{stars}{parameter.name}{annotation}{' = ' if annotation else '='}{default}"


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(
        r"\b(?:typing|collections\.abc|convoxel(?:\.\w+)+|torch\.nn\.modules(?:\.\w+)*|torch|pathlib|numpy)\.(?=\w)",
        "",
        text,
    )


def _blocks(text: str, link: Link) -> Iterator[str]:
    lines, section, held = text.split("\n"), "", []
    for part in _paragraphs(lines):
        match = _SECTION.match(part[0])
        if match:
            yield _section(match[1], part[1:], link)
        elif part[0].startswith(">>> "):
            yield "```pycon\n" + "\n".join(part) + "\n```"
        elif part[0].startswith(" "):
            yield "```text\n" + "\n".join(inspect.cleandoc("\n".join(part)).split("\n")) + "\n```"
        else:
            yield _prose(" ".join(part).removesuffix("::"), link)
    del section, held


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Yield groups of lines: sections with all that is indented under them, examples, and paragraphs."""
    held: list[str] = []
    for line in lines:
        in_section = bool(held) and _SECTION.match(held[0]) is not None
        starts = _SECTION.match(line) or (line.startswith(">>> ") and held and not held[0].startswith(">>> "))
        ends = not line.strip() and not in_section
        leaves = in_section and line.strip() and not line.startswith(" ")
        if held and (starts or ends or leaves):
            yield held
            held = []
        if line.strip() or held:
            held.append(line)
    if held:
        yield held


def _section(name: str, lines: list[str], link: Link) -> str:
    body = inspect.cleandoc("\n" + "\n".join(lines))
    if name in ("Args", "Attributes"):
        items = _items(body)
        if items:
            title = "argument" if name == "Args" else "attribute"
            rows = [f"| `{item}` | {_cell(_prose(text, link))} |" for item, text in items]
            return "\n".join([f"| {title} | |", "|---|---|", *rows])
    if name == "Raises":
        found = _RAISED.split(" ".join(body.split()))
        pairs = list(zip(found[1::2], found[2::2], strict=True))
        if pairs and not found[0].strip():
            return "**Raises**\n\n" + "\n".join(
                f"- {link(error)}: {_prose(text.strip(), link)}" for error, text in pairs
            )
    return f"**{name}** {_prose(' '.join(body.split()), link)}"


def _items(body: str) -> list[tuple[str, str]]:
    items: list[tuple[str, str]] = []
    for line in body.split("\n"):
        match = None if line.startswith(" ") else _ITEM.match(line)
        if match:
            items.append((match[1], match[2]))
        elif items:
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
        else:
            return []
    return items


def _prose(text: str, link: Link) -> str:
    """Return text with its code and references marked as in Markdown, and nothing else taken for a mark."""
    parts, end = [], 0
    for match in _CODE.finditer(text):
        parts.append(_plain(text[end : match.start()]))
        parts.append(f"`{' '.join(match[1].split())}`" if match[1] else link(match[2]))
        end = match.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    return re.sub(r"([*_\[\]|\\])", r"\\\1", html.escape(text, quote=False)) if "`" not in text else text


def _cell(text: str) -> str:
    return (
        re.sub(r"(?<!\\)\|", "&#124;", " ".join(text.split()))
        if "`" not in text
        else re.sub(r"(?<!\\)\|", "\\|", " ".join(text.split()))
    )
