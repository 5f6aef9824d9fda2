"""Readers and data sets: every outside file enters Convoxel here, and is checked here.

Read the files in this order: ``image_header``; the formats ``nifti``, ``meta_image``, ``nrrd``, ``dicom_series``,
``picture``, ``tiff``, ``numpy_image``, ``zarr_image``, ``hdf5_image``, ``edf``, ``table_signal`` and their table
``image_format``; ``data_set`` (samples and splits), ``image_file`` (one file), ``label_file``; ``split`` and
``split_file``, ``collection`` (samples before they are split); the layouts ``segmentation``, ``classification``,
``npz_set``, ``frame_file``, ``label_table``, ``nnunet_raw``, ``decathlon``, ``course_volumes`` and their table
``layout``; ``bundled``; ``set_survey``; ``data_source`` (``load`` and ``check``); ``set_statistics``.
``image_output`` writes. ``geometry``, with ``resample``, brings images onto the grid that a network sees, and back.

Readers never reorient or resample; nothing is read through pickle.
"""

from convoxel.data.data_set import DataSet, Entry, Intensity, Sample, Split
from convoxel.data.data_source import check, guess_task, load
from convoxel.data.image_file import read_image
from convoxel.data.image_output import write_image, write_label
from convoxel.data.set_statistics import measure_set
from convoxel.face import open_face
from convoxel.files.fault import Problem

__all__ = [
    "DataSet",
    "Entry",
    "Intensity",
    "Problem",
    "Sample",
    "Split",
    "check",
    "guess_task",
    "load",
    "measure_set",
    "read_image",
    "write_image",
    "write_label",
]

open_face(__name__)
