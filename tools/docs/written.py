"""A page with what its blocks printed and drew."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import indent

from tools.docs.page import PAGES, Block, split_page
from tools.docs.session import Outcome, Session

__all__ = ["run_page", "write_page"]

_FOLDED = 24  # more printed lines than these are folded
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^):]+)\)")


def run_page(path: Path, scratch: Path) -> list[str | tuple[Block, Outcome | None]]:
    """Run the blocks of a page in order and return its parts; a block that does not run has no outcome.

    Raises:
        BlockError: a block ended otherwise than the page says.
    """
    name = path.relative_to(PAGES).as_posix() if path.is_relative_to(PAGES) else path.name
    parts: list[str | tuple[Block, Outcome | None]] = []
    with Session(name, scratch / re.sub(r"\W", "-", name.removesuffix(".md"))) as session:
        for part in split_page(path.read_text(encoding="utf-8")):
            if isinstance(part, str):
                parts.append(part)
            else:
                parts.append((part, None if part.not_run else session.run(part)))
        folder = session.folder
    return [_with_pictures(part, path, folder) if isinstance(part, str) else part for part in parts]


def _with_pictures(text: str, path: Path, folder: Path) -> str:
    """Return text whose pictures, if the page's own code wrote them, are named by where they lie."""

    def place(match: re.Match[str]) -> str:
        file = folder / match[2]
        beside = (path.parent / match[2]).exists()
        return match[0] if beside or not file.is_file() else f"![{match[1]}]({file})"

    return _PICTURE.sub(place, text)


def write_page(path: Path, parts: list[str | tuple[Block, Outcome | None]], target: Path, scratch: Path) -> None:
    """Write a page with the output of its blocks under ``target``; pictures come beside it."""
    name = path.relative_to(PAGES)
    folder = scratch / re.sub(r"\W", "-", name.as_posix().removesuffix(".md"))
    page = target / name
    page.parent.mkdir(parents=True, exist_ok=True)

    def keep(file: Path) -> str:
        kept = page.parent / "pictures" / f"{name.stem}-{file.name.lstrip('.')}"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, kept)
        return kept.relative_to(page.parent).as_posix()

    lines = []
    for part in parts:
        if isinstance(part, str):
            lines.append(
                _PICTURE.sub(lambda m: f"![{m[1]}]({keep(Path(m[2]))})" if m[2].startswith("/") else m[0], part)
            )
            continue
        block, found = part
        lines.append(block.fence)
        if found is None:
            lines.append(f"\n*Not run while this page was made: {block.not_run}.*\n")
            continue
        if found.text:
            shown = found.text.split("\n")
            if block.first is not None and len(shown) > block.first:
                shown = [*shown[: block.first], "…"]
            fence = "```{ .text .printed }\n" + "\n".join(shown) + "\n```\n"
            if len(shown) > _FOLDED and block.first is None:
                fence = f'??? quote "{len(shown)} lines printed"\n\n{indent(fence, "    ")}'
            lines.append(f"\n{fence}")
        for file, text in found.pictures:
            lines.append(f"\n![{_plain(text)}]({keep(folder / file)})\n")
    page.write_text("".join(lines), encoding="utf-8")


def _plain(text: str) -> str:
    return re.sub(r"[\[\]\n]+", " ", text).strip()
