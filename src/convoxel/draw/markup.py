"""HTML and SVG text in which everything that came from outside is escaped, because nothing else can be written.

``tag`` escapes every child and attribute that is not itself the result of ``tag``. There is no way to mark
a string as safe by accident: only this module and the style sheet make ``Markup``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Child", "Markup", "join", "table", "tag"]

_VOID = frozenset({"img", "input", "meta", "br"})


class Markup(str):
    """Text that is already HTML or SVG."""

    __slots__ = ()


Child = str | float | None


def join(children: Iterable[Child], between: str = "") -> Markup:
    """Return the children one after the other, escaped unless they are Markup; None is left out.

    >>> join(["a < b", tag("b", "bold")], ", ")
    'a &lt; b, <b>bold</b>'
    """
    return Markup(escape(between).join(_text(child) for child in children if child is not None))


def tag(element: str, /, *children: Child, **attributes: object) -> Markup:
    """Return an element; attributes that are None or False are left out, ``class_`` and ``data_x`` are respelled.

    >>> tag("p", "1 < 2", class_="note", title='a "quoted" word')
    '<p class="note" title="a &quot;quoted&quot; word">1 &lt; 2</p>'
    """
    words = [element]
    for key, value in attributes.items():
        spelled = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(spelled)
        elif value is not None and value is not False:
            words.append(f'{spelled}="{escape(_number(value), quote=True)}"')
    opening = " ".join(words)
    if element in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(children)}</{element}>")


def table(
    head: Sequence[Child], rows: Iterable[Sequence[Child]], *, numbers: Iterable[int] = (), caption: str, **options: str
) -> Markup:
    """Return a table in a box that scrolls by itself; ``numbers`` are the columns set to the right.

    Args:
        head: the columns' headings.
        rows: one sequence of cells a row; the first cell is the row's heading.
        numbers: indices of the columns of numbers.
        caption: read out by screen readers, and the name of the scrolling region.
        options: attributes of the box.
    """
    right = frozenset(numbers)

    def kind(column: int) -> str | None:
        return "number" if column in right else None

    top = tag("tr", *(tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(head)))
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, class_=kind(i)) if i else tag("th", cell, scope="row", class_=kind(i))
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    grid = tag("table", tag("caption", caption, class_="unseen"), tag("thead", top), tag("tbody", *body))
    options.setdefault("class_", "scroll")
    return tag("div", grid, role="region", aria_label=caption, tabindex="0", **options)


def _text(child: Child) -> str:
    return child if isinstance(child, Markup) else escape(_number(child), quote=False)


def _number(value: object) -> str:
    """Coordinates with two decimals are finer than any screen, and keep the page small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
