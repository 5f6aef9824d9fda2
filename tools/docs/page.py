"""A page of the documentation as text and blocks of code.

The first word after the fence is the language; words after it say what is expected:

    ```python                      runs in the page's own Python; the value of a last expression is shown
    ```python raises: ShapeError   must end in that error, whose message is shown
    ```sh exit: 2                  must end with that exit code
    ```sh first: 12                shows that many lines of what it prints
    ```sh not-run: REASON          does not run, and REASON says why
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LANGUAGES", "PAGES", "ROOT", "Block", "find_pages", "read_blocks", "split_page"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs"
LANGUAGES = ("python", "sh")
_FENCE = re.compile(r"^```([\w-]*)[ \t]*([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_EXPECTATIONS = ("raises", "exit", "first", "not-run")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: "python" or "sh".
        code: its lines.
        line: number of its first line on the page.
        raises: name of the error in which it must end; "" for none.
        exit: exit code with which it must end.
        first: number of printed lines that are shown (default: all).
        not_run: reason why it does not run; "" where it does.
    """

    language: str
    code: str
    line: int
    raises: str = ""
    exit: int = 0
    first: int | None = None
    not_run: str = ""

    @property
    def fence(self) -> str:
        """The block as Markdown, without what is expected of it."""
        return f"```{self.language}\n{self.code}```\n"


def split_page(text: str) -> Iterator[str | Block]:
    """Yield the parts of a page: text, and blocks of code of the languages that run.

    Raises:
        ValueError: what a block expects is unknown, or it does not run and gives no reason.
    """
    end = 0
    for match in _FENCE.finditer(text):
        language, words, code = match.groups()
        if language not in LANGUAGES:
            continue
        yield text[end : match.start()]
        yield _read_block(language, words, code, text.count("\n", 0, match.start()) + 1)
        end = match.end() + 1
    yield text[end:]


def _read_block(language: str, words: str, code: str, line: int) -> Block:
    name, _, value = (part.strip() for part in words.partition(":"))
    if not name:
        return Block(language, code, line)
    if name not in _EXPECTATIONS or not value:
        raise ValueError(f"line {line}: {words!r} after the fence; expected one of {_EXPECTATIONS} with a value")
    if name == "raises":
        return Block(language, code, line, raises=value)
    if name == "exit":
        return Block(language, code, line, exit=int(value))
    if name == "first":
        return Block(language, code, line, first=int(value))
    return Block(language, code, line, not_run=value)


def read_blocks(path: Path) -> list[Block]:
    """Return the blocks of code of a page."""
    return [part for part in split_page(path.read_text(encoding="utf-8")) if isinstance(part, Block)]


def find_pages() -> list[Path]:
    """Return the pages that are written by hand."""
    return sorted(PAGES.rglob("*.md"))
