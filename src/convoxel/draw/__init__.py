"""Pictures: of layers and networks before they run, of images and labels, of training runs and their report.

Pictures of layers and networks are figures: shapes that are written as SVG, PNG, GIF or a web page. Read the
files in this order: ``palette``, ``theme`` (colours of roles, light and dark) → ``shape``, ``letter`` (what figures
are made of) → ``vector``, ``raster`` (the two ways to write them) → ``figure``, ``legend``, ``tick`` → ``scan`` (which
inputs an output reads), ``conv``, ``matrix``, ``overlap`` → ``outline`` (a network as nodes), ``layout``,
``network``, ``field``, ``funnel``, ``memory`` → ``pareto``, ``comparison`` → ``panel``, ``upsampling``, ``sharing``.

Pictures of runs: ``slices`` (a volume's slice, the head upwards) → ``overlay`` (image, label, prediction,
difference) → ``quantity``, ``markup``, ``style`` (numbers, HTML, the style sheet) → ``chart`` (curves) → ``folder``
(what a run holds) → ``outcome``, ``example``, ``setting`` (the report's sections) → ``report``.

Nothing here trains, predicts or measures: pictures show what they are given. No plotting library is imported,
and PyTorch only where a figure is made of a module.
"""

from convoxel.draw.field_funnel import funnel, funnel_of_chain
from convoxel.draw.field_picture import field
from convoxel.draw.figure import Figure, beside
from convoxel.draw.image_overlay import overlay, panels, png, save_overlay
from convoxel.draw.layer_matrix import matrix
from convoxel.draw.memory_chart import memory
from convoxel.draw.network_diagram import network
from convoxel.draw.overlap_grid import overlap
from convoxel.draw.palette import CLASS_COLOURS, ERROR_COLOURS, class_colour
from convoxel.draw.pareto_chart import Entry, pareto
from convoxel.draw.report import write_report
from convoxel.draw.sharing_chart import sharing
from convoxel.draw.sliding_kernel import conv
from convoxel.draw.training_curves import curves
from convoxel.draw.upsampling_chart import upsampling
from convoxel.draw.volume_slice import PLANES, Slice, oriented_slice, plane_axis

__all__ = [
    "CLASS_COLOURS",
    "ERROR_COLOURS",
    "PLANES",
    "Entry",
    "Figure",
    "Slice",
    "beside",
    "class_colour",
    "conv",
    "curves",
    "field",
    "funnel",
    "funnel_of_chain",
    "matrix",
    "memory",
    "network",
    "oriented_slice",
    "overlap",
    "overlay",
    "panels",
    "pareto",
    "plane_axis",
    "png",
    "save_overlay",
    "sharing",
    "upsampling",
    "write_report",
]
