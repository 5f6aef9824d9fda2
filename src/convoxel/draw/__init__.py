"""Pictures: of layers and networks before they run, of images and labels, of training runs and measurements.

A picture is a figure: shapes that are written as SVG, PNG, GIF or a web page. Read the files in this order:
``theme`` (colours of roles, light and dark) → ``scene``, ``letter`` (what figures are made of) → ``svg``,
``pixels`` (written as SVG, painted) → ``figure`` → ``caption`` (headings and legends), ``chart`` (axes), ``bars``.

Of layers: ``scan`` (which inputs an output reads) → ``sliding_kernel``, ``layer_matrix``, ``overlap_grid``,
``gallery``; ``board`` (grids of numbers) → ``sampling_picture``, ``linearity_picture``, ``deformable_picture``,
``separable_picture``, ``shift_picture``; ``dynamic_picture``, ``channel_blocks`` (kernels in space),
``feature_picture`` (photographs, neurons). Of networks:
``network_outline`` (a network as nodes) → ``layered_layout``, ``network_diagram``, ``field_picture``, ``field_funnel``,
``memory_chart``. Of measurements: ``pareto_chart``, ``comparison_chart``, ``scaling_chart``, ``sharing_chart``,
``upsampling_chart``, ``training_curves``. Of images: ``volume_slice`` (the head upwards) → ``image_overlay`` (image,
label, prediction, difference), ``contact_sheet`` (many samples), ``explanation_picture`` (maps over an image).
``quantity`` writes numbers.

Nothing here trains, predicts or measures: pictures show what they are given. PyTorch is imported only where a figure is
made of a module.
"""

from convoxel.draw.channel_blocks import channels
from convoxel.draw.contact_sheet import contact_sheet, save_contact_sheet
from convoxel.draw.deformable_picture import deform
from convoxel.draw.dynamic_picture import dynamic
from convoxel.draw.explanation_picture import explanation
from convoxel.draw.feature_picture import feature_maps, features, neurons
from convoxel.draw.field_funnel import connections, funnel, funnel_of_chain
from convoxel.draw.field_picture import field
from convoxel.draw.figure import Figure, beside
from convoxel.draw.gallery import gallery, gallery_names, save_gallery
from convoxel.draw.image_overlay import overlay, panels, png, save_overlay
from convoxel.draw.layer_matrix import matrix
from convoxel.draw.linearity_picture import linearity, resize_matrix
from convoxel.draw.memory_chart import memory
from convoxel.draw.network_diagram import block, network
from convoxel.draw.overlap_grid import overlap
from convoxel.draw.pareto_chart import Entry, pareto
from convoxel.draw.prior_picture import layout, prior
from convoxel.draw.sampling_picture import pool, resize, shuffle, unpool
from convoxel.draw.separable_picture import max_norm, separable
from convoxel.draw.sharing_chart import sharing
from convoxel.draw.shift_picture import shifts, translation
from convoxel.draw.sliding_kernel import conv
from convoxel.draw.theme import CLASS_COLOURS, ERROR_COLOURS, class_colour
from convoxel.draw.training_curves import curves
from convoxel.draw.upsampling_chart import upsampling
from convoxel.draw.volume_slice import PLANES, Slice, oriented_slice, plane_axis
from convoxel.face import open_face

__all__ = [
    "CLASS_COLOURS",
    "ERROR_COLOURS",
    "PLANES",
    "Entry",
    "Figure",
    "Slice",
    "beside",
    "block",
    "channels",
    "class_colour",
    "connections",
    "contact_sheet",
    "conv",
    "curves",
    "deform",
    "dynamic",
    "explanation",
    "feature_maps",
    "features",
    "field",
    "funnel",
    "funnel_of_chain",
    "gallery",
    "gallery_names",
    "layout",
    "linearity",
    "matrix",
    "max_norm",
    "memory",
    "network",
    "neurons",
    "oriented_slice",
    "overlap",
    "overlay",
    "panels",
    "pareto",
    "plane_axis",
    "png",
    "pool",
    "prior",
    "resize",
    "resize_matrix",
    "save_contact_sheet",
    "save_gallery",
    "save_overlay",
    "separable",
    "sharing",
    "shifts",
    "shuffle",
    "translation",
    "unpool",
    "upsampling",
]

open_face(__name__, early=True)
