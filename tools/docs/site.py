"""All pages of the documentation, written into ``build/docs-source``, with the configuration of MkDocs beside them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tools.docs.benchmark_page import render_benchmarks
from tools.docs.command_page import find_commands, render_command
from tools.docs.page import PAGES, ROOT, find_pages
from tools.docs.reference import MODULES, page_of, render_module
from tools.docs.session import BlockError
from tools.docs.written import run_page, write_page

__all__ = ["SOURCE", "write_site"]

SOURCE = ROOT / "build" / "docs-source"
SCRATCH = ROOT / "build" / "docs-scratch"
_SETTINGS = PAGES / "mkdocs.yml"


def write_site(names: Sequence[str] = (), jobs: int = 2) -> None:
    """Write the pages, those by hand with what their blocks printed and drew.

    Args:
        names: parts of the names of pages to run; the others are written without output (default: all run).
        jobs: number of pages that run at once.

    Raises:
        BlockError: a block ended otherwise than its page says.
    """
    for folder in (SOURCE, SCRATCH):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for path in PAGES.rglob("*"):
        if path.is_file() and path.suffix in (".svg", ".png", ".css", ".js"):
            target = SOURCE / path.relative_to(PAGES)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    pages = find_pages()
    wanted = [path for path in pages if not names or any(name in str(path) for name in names)]
    for path in set(pages) - set(wanted):
        (SOURCE / path.relative_to(PAGES)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, SOURCE / path.relative_to(PAGES))
    with ThreadPoolExecutor(jobs) as pool:
        failed = [error for error in pool.map(_write, wanted) if error is not None]
    if failed:
        raise BlockError("\n".join(map(str, failed)))
    _write_made()


def _write(path: Path) -> BlockError | None:
    begun = time.perf_counter()
    try:
        write_page(path, run_page(path, SCRATCH), SOURCE, SCRATCH)
    except BlockError as error:
        return error
    print(f"{path.relative_to(PAGES)}: {time.perf_counter() - begun:.1f} s", flush=True)
    return None


def _write_made() -> None:
    """Write the pages that are made of docstrings, commands and measurements, and the navigation."""
    reference, commands = SOURCE / "reference", SOURCE / "commands"
    reference.mkdir(exist_ok=True)
    commands.mkdir(exist_ok=True)
    for module in MODULES:
        (reference / page_of(module)).write_text(render_module(module), encoding="utf-8")
    found = find_commands()
    for name, command in found.items():
        (commands / f"{name}.md").write_text(render_command(name, command), encoding="utf-8")
    (SOURCE / "benchmarks.md").write_text(render_benchmarks(), encoding="utf-8")
    settings = yaml.safe_load(_SETTINGS.read_text(encoding="utf-8"))
    made = {
        "MODULES": [{title: f"reference/{page_of(module)}"} for module, title in MODULES.items()],
        "COMMANDS": [{f"convoxel {name}": f"commands/{name}.md"} for name in sorted(found)],
    }
    settings["nav"] = _with_made(settings["nav"], made)
    settings |= {"docs_dir": str(SOURCE), "site_dir": str(ROOT / "build" / "docs")}
    (ROOT / "build" / "mkdocs.yml").write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))


def _with_made(entries: Any, made: dict[str, Any]) -> Any:
    if isinstance(entries, str):
        return made.get(entries, entries)
    if isinstance(entries, dict):
        return {title: _with_made(entry, made) for title, entry in entries.items()}
    flat: list[Any] = []
    for entry in entries:
        below = _with_made(entry, made)
        flat += below if isinstance(entry, str) and isinstance(below, list) else [below]
    return flat
