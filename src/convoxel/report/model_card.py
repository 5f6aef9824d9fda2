"""The model card of a run, in Markdown: what a network is for, what it has seen, how good it is and where that ends.

Everything comes from the run's own records (Mitchell et al. 2019, doi:10.1145/3287560.3287596, say what belongs on a
card). What they do not tell, such as a licence or who the patients were, stands as a question for the author. The head
is that of model hubs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from convoxel.draw.figure import Figure
from convoxel.draw.quantity import count, listed, number, sizes
from convoxel.files.atomic import write_bytes
from convoxel.report import results
from convoxel.report.page import commands, opening, versions
from convoxel.report.run_contents import RunFolder, mapping, read_run

_TAGS = {"segment": "image-segmentation", "classify": "image-classification", "regress": "image-regression"}
_ASKED = "Not recorded; to be filled in."


def write_card(run_dir: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write the model card of a run, whole or not at all, and return its path.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        path: the file (default: ``card.md`` in the run folder).

    Raises:
        CheckpointError: the folder does not exist or holds no run.
        DataError: the card cannot be written (no space, no permission).
    """
    folder = Path(run_dir)
    target = folder / "card.md" if path is None else Path(path)
    return write_bytes(target, render_card(read_run(folder)).encode("utf-8", "replace"))


def render_card(run: RunFolder) -> str:
    """Return the model card of a run as Markdown.

    Args:
        run: what :func:`convoxel.report.read_run` returned.
    """
    return "\n\n".join(_parts(run)) + "\n"


def _parts(run: RunFolder) -> Iterator[str]:
    dims = run.data.get("dims")
    tags = [_TAGS[run.task], *([f"{dims}d"] if dims in (1, 2, 3) else []), str(run.config.get("model") or "")]
    yield (
        "---\nlibrary_name: convoxel\ntags:\n" + "\n".join(f"  - {_word(tag)}" for tag in filter(None, tags)) + "\n---"
    )
    yield f"# {_plain(run.path.resolve().name)}"
    yield _plain(opening(run))
    if not run.finished:
        yield "**This run has not finished its training.**"
    yield from _use(run)
    yield from _data(run)
    yield from _figures(run)
    yield from _network(run)
    yield "## Training"
    rows = [
        (name.replace("_", " "), str(words))
        for name, words in run.plan.items()
        if name not in ("task", "data", "parts")
    ]
    yield _table(("choice", ""), rows) if rows else _ASKED
    made = [(name, version) for name, version in versions(run) if "fingerprint" not in name]
    if made:
        yield "## Made with"
        yield _table(("package", "version"), made)


def _use(run: RunFolder) -> Iterator[str]:
    yield "## Use"
    yield _plain(
        f"The network takes images of {run.data.get('dims', 'unknown')} axes and {run.data.get('channels', 'unknown')} "
        f"channel(s). {run.plan.get('geometry', '')}".strip()
    )
    name, text = commands(run)[0]
    text = text.replace(str(run.path.resolve()), run.path.resolve().name)  # where the run lies says nothing to others
    yield f"{name}:\n\n```sh\n{text}\n```"
    yield f"Who it is meant for, and for whom it is not: {_ASKED.lower()}"


def _data(run: RunFolder) -> Iterator[str]:
    yield "## Data"
    parts = mapping(run.data.get("parts"))
    rows = [("name", str(run.data.get("data_name") or "unnamed"))]
    rows += [(f"images, {part}", str(images)) for part, images in parts.items()]
    rows += [("parts", str(run.plan["parts"]))] if "parts" in run.plan else []
    rows += [("classes", listed(run.classes))] if run.classes else []
    if fingerprint := str(run.data.get("fingerprint") or ""):
        rows.append(("fingerprint", fingerprint))
    rows += [("source and licence of the images", _ASKED), ("who or what was imaged, and how", _ASKED)]
    yield _table(("", ""), rows)


def _figures(run: RunFolder) -> Iterator[str]:
    yield "## Figures"
    measured = run.evaluation.get("count")
    if run.elsewhere:
        yield _plain(f"Measured on {measured} images of {run.elsewhere}.")
    elif run.evaluation:
        yield (
            f"Measured on the {measured} images that the run held out. They chose the checkpoint, so that figures on "
            "images which the run has never seen may be lower."
        )
    for sheet in (results.class_table(run), (results.figure_table(run) or (None,))[0]):
        if sheet is not None:
            yield f"### {_plain(sheet.caption)}"
            yield _sheet(sheet)
    if not run.evaluation:
        yield "The run has not been evaluated yet."
    if run.warnings:
        yield "What training warned of:"
        yield "\n".join(f"- {_plain(text)}" for text in run.warnings)


def _network(run: RunFolder) -> Iterator[str]:
    total = mapping(run.network.get("total"))
    if not total:
        return
    yield "## Network"
    field = total.get("field")
    rows = [
        ("network", str(run.config.get("model") or run.network.get("name"))),
        ("parameters", f"{number(total.get('params')) or 0:,.0f}"),
        ("multiply–adds", count(number(total.get("macs")) or 0.0)),
        ("receptive field", "whole image" if all(_flags(total.get("whole"))) else sizes(field)),
    ]
    yield _table(("", ""), rows)


def _flags(whole: object) -> list[bool]:
    return [bool(each) for each in whole] if isinstance(whole, list) and whole else [False]


def _sheet(sheet: results.Sheet) -> str:
    """Return a table of the report without the columns that hold pictures."""
    kept = [place for place in range(len(sheet.head)) if not any(isinstance(row[place], Figure) for row in sheet.rows)]
    return _table(_words(sheet.head, kept), [_words(row, kept) for row in sheet.rows])


def _words(line: Sequence[object], kept: Sequence[int]) -> list[str]:
    return [str(line[place]) for place in kept]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell if cell == '---' else _plain(cell) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return text in which nothing is taken for Markdown or HTML; line ends become spaces."""
    return re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", " ".join(text.split()))


def _word(text: str) -> str:
    """Return text as a word of YAML."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "none"
