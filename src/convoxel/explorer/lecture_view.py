"""The lecture: a guided path, one idea after the other, each as a picture that can be changed.

What is shown is data (``lecture_steps``); pictures are those of ``convoxel.draw``, and every number in them is made by
Python. The page draws the figures' shapes and moves from frame to frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from convoxel.explorer.lecture_steps import STEPS, Step, find_step, sections
from convoxel.explorer.scene_data import scene_data
from convoxel.explorer.view import KeptPage, Pair, Query, View

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject


def path(session: Session, query: Query) -> JsonObject:
    """Return the steps by section: names and titles."""
    return {
        "sections": [
            {"title": title, "steps": [{"name": step.name, "title": step.title} for step in steps]}
            for title, steps in sections().items()
        ]
    }


def step(session: Session, query: Query) -> JsonObject:
    """Return one step: its words, its controls, its picture, and the commands to copy.

    Raises:
        ConfigError: there is no such step, or a control got what it does not take.
        ConvoxelError: the arguments do not fit each other.
    """
    usual = find_step(query.text("step"))
    given = {control.name: query.text(control.name) for control in usual.controls}
    chosen = usual.changed(given)
    key = ("lecture", usual.name, *given.values())
    number = STEPS.index(usual)
    return {
        "name": usual.name, "number": number + 1, "count": len(STEPS), "section": usual.section, "title": usual.title,
        "text": usual.text, "rows": usual.rows.split(), "controls": _controls(usual, chosen),
        "before": STEPS[number - 1].name if number else "",
        "after": STEPS[number + 1].name if number + 1 < len(STEPS) else "",
        "picture": session.keep(key, lambda: scene_data(chosen.draw())), "link": chosen.link(),
        "copies": [
            {"name": "Picture (command)", "text": chosen.command()},
            {"name": "Python", "text": chosen.python()},
        ],
    }  # fmt: skip


def _controls(usual: Step, chosen: Step) -> list[JsonObject]:
    return [
        {"name": control.name, "label": control.label, "least": control.least, "most": control.most,
         "words": list(control.words), "value": control.text(chosen.args.get(control.name)),
         "usual": control.text(usual.args.get(control.name))}
        for control in usual.controls
    ]  # fmt: skip


def keep_pages(session: Session) -> Iterator[KeptPage]:
    """Yield the lecture as one page: every step as it opens, and with each of its controls at every place."""
    questions: list[tuple[str, Sequence[Pair]]] = [("lecture/path", []), ("lecture/step", [])]
    for usual in STEPS:
        base = ("step", usual.name)
        questions.append(("lecture/step", [base]))
        for control in usual.controls:
            values = control.words or tuple(map(str, range(control.least, control.most + 1)))
            questions += [("lecture/step", [base, (control.name, value)]) for value in values]
    # What a step links to is there only where the explorer runs.
    yield KeptPage(
        "lecture", "Lecture", "", questions, {"lecture/step": lambda query: {**step(session, query), "link": ""}}
    )


VIEW = View(
    "lecture",
    "Lecture",
    "A guided path through convolutional networks, one live picture for each idea.",
    {"path": path, "step": step},
    kept=keep_pages,
)
