"""Web pages about what was done: the report of a training run.

Read the files in this order: ``run_contents`` (what a run holds) → ``results``, ``sample_panels`` (what the page
shows) → ``page``, which fills the jinja2 templates in ``templates``; ``model_card`` says the same in Markdown. Pictures
are figures of ``draw``.
"""

from convoxel.face import open_face
from convoxel.report.model_card import render_card, write_card
from convoxel.report.page import render_report, write_report
from convoxel.report.run_contents import RunFolder, read_run

__all__ = ["RunFolder", "read_run", "render_card", "render_report", "write_card", "write_report"]

open_face(__name__)
