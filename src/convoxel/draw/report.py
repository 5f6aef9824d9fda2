"""The report of a training run: one HTML page that needs nothing but itself.

No script, no font, no picture is fetched from anywhere; the page's own security policy forbids it. What
the run folder does not hold yet is named as missing, so that the report of an interrupted run is as honest
as that of a finished one.
"""

from __future__ import annotations

import os
from pathlib import Path

from convoxel.draw.example import show_examples
from convoxel.draw.folder import RunFolder, read_run
from convoxel.draw.markup import Child, Markup, join, tag
from convoxel.draw.outcome import show_classes, show_confusion, show_curves, show_headline
from convoxel.draw.quantity import duration, number, percent
from convoxel.draw.setting import resume_command, show_commands, show_config, show_network
from convoxel.draw.style import PAGE_STYLE

__all__ = ["render_report", "write_report"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all, and return its path.

    The page shows headline figures, curves, example predictions, figures of each class, confusion, the
    network's table, the configuration and the commands to go on with. It works for runs that are
    unfinished, interrupted or partly damaged and says what is missing.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.

    Raises:
        CheckpointError: the folder does not exist or holds no run.
        DataError: the report cannot be written (no space, no permission).
    """
    from convoxel.files.atomic import write_bytes

    folder = Path(run_dir)
    return write_bytes(folder / "report.html", render_report(read_run(folder)).encode("utf-8", "replace"))


def render_report(run: RunFolder) -> str:
    """Return the page as text."""
    sections: list[tuple[str, str, Markup]] = [
        ("training", "Training", show_curves(run)),
        ("examples", "Examples", show_examples(run)),
        ("classes", "Classes", show_classes(run)),
        ("confusion", "Confusion", show_confusion(run)),
        ("network", "Network", show_network(run)),
        ("configuration", "Configuration", show_config(run)),
        ("use", "Use this run", show_commands(run)),
    ]
    sections = [item for item in sections if item[2]]
    name = run.path.resolve().name or "run"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name} · Convoxel report"),
        tag("style", Markup(PAGE_STYLE)),
    )
    top = tag(
        "header",
        tag("p", "Convoxel training report", class_="eyebrow"),
        tag("h1", name),
        tag("p", _lead(run), class_="lead"),
        _notices(run),
        show_headline(run),
        tag("nav", *(tag("a", words, href=f"#{anchor}") for anchor, words, _ in sections), aria_label="Sections"),
    )
    main = tag("main", *(tag("section", content, id=anchor) for anchor, _, content in sections))
    page = tag("html", head, tag("body", top, main, _footer(run)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _lead(run: RunFolder) -> str:
    dims = run.data.get("dims")
    model = str(run.config.get("model") or run.network.get("name") or "network")
    spoken = {"unet": "U-Net", "course_vgg": "VGG", "resnet18": "ResNet-18"}.get(model, model)
    verb = "classifies the images" if run.task == "classify" else "segments the images"
    data = str(run.data.get("data_name") or run.config.get("data") or "an unnamed data set")
    words = f"A {f'{dims}-D ' if dims in (1, 2, 3) else ''}{spoken} that {verb} of {data}"
    names = run.classes
    if 0 < len(names) <= 12:
        words += f" into {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else ""
    elif names:
        words += f" into {len(names)} classes"
    return f"{words}."


def _notices(run: RunFolder) -> Markup:
    """Return what the reader must know before trusting the figures: unfinished, outdated, damaged."""
    lines: list[Child] = []
    if not run.finished:
        lines.append(_unfinished(run))
        lines.append(tag("p", "Go on with it: ", tag("code", resume_command(run))))
    evaluated, best = number(run.evaluation.get("step")), number(run.best_row.get("step"))
    if evaluated is not None and best is not None and evaluated != best:
        lines.append(
            tag("p", f"The closing figures, examples and network are of step {evaluated:g}; training has since reached "
                     f"a better checkpoint at step {best:g}.")
        )  # fmt: skip
    lines += [tag("p", problem) for problem in run.problems]
    return tag("div", *lines, class_="note", role="note") if lines else Markup("")


def _unfinished(run: RunFolder) -> Markup:
    step = number(run.last.get("step"))
    if step is None and run.metrics:
        step = number(run.metrics[-1].get("step"))
    words = "This run has not finished"
    if step:
        words += (
            f": its last checkpoint is of step {step:g}" if run.last else f": its last validation is of step {step:g}"
        )
        if run.fraction is not None and run.fraction < 1:
            words += f", {percent(run.fraction)} of the way"
    else:
        words += ": no training step has been recorded"
    missing = [] if run.evaluation else ["the closing evaluation"]
    missing += [] if run.examples else ["the example predictions"]
    missing += [] if run.network.get("rows") else ["the network's table"]
    if missing:
        told = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
        words += f". Still missing: {told}"
    return tag("p", tag("b", f"{words}."))


def _footer(run: RunFolder) -> Markup:
    parts: list[Child] = [f"Run folder: {run.path.resolve()}"]
    if run.written is not None:
        parts.append(f"figures of {run.written:%Y-%m-%d %H:%M}")
    elapsed = number(run.last.get("elapsed_s"))
    if elapsed:
        parts.append(f"trained for {duration(elapsed)}")
    return tag("footer", join(parts, " · "))
