"""Pictures of images, labels and training runs: overlays, curves, and the report of a run as one HTML page.

Read the files in this order: ``palette`` (colours) → ``slices`` (a volume's slice, the head upwards) →
``overlay`` (image, label, prediction, difference) → ``quantity``, ``markup``, ``style`` (numbers, HTML, the
style sheet) → ``chart`` (curves) → ``folder`` (what a run holds) → ``outcome``, ``example``, ``setting``
(the report's sections) → ``report``.

Nothing here trains, predicts or measures: a report shows the figures that the run folder holds. Neither
PyTorch nor a plotting library is imported.
"""

from convoxel.draw.chart import curves
from convoxel.draw.overlay import overlay, panels, png, save_overlay
from convoxel.draw.palette import CLASS_COLOURS, ERROR_COLOURS, class_colour
from convoxel.draw.report import write_report
from convoxel.draw.slices import PLANES, Slice, oriented_slice, plane_axis

__all__ = [
    "CLASS_COLOURS",
    "ERROR_COLOURS",
    "PLANES",
    "Slice",
    "class_colour",
    "curves",
    "oriented_slice",
    "overlay",
    "panels",
    "plane_axis",
    "png",
    "save_overlay",
    "write_report",
]
