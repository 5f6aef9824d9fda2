"""Explanations of run folders' networks: of one image file, by the methods of ``predict.explanation``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from convoxel.data.axes import check_axes
from convoxel.data.channel_files import read_channels
from convoxel.errors import ConfigError
from convoxel.files.fault import ErrorCollector
from convoxel.predict.case_files import find_images, list_inputs
from convoxel.predict.case_prediction import MapOptions, files_as_trained, read_case_header
from convoxel.predict.computation import Computation
from convoxel.predict.device import choose_device
from convoxel.predict.explanation import Cost, Explanation, Question, explain_sample
from convoxel.predict.explanation_method import METHODS
from convoxel.predict.inference import build_predictor
from convoxel.train.run_folder import load_members
from convoxel.train.run_list import Runs


def explain(
    runs: Runs,
    input: str | Path,
    methods: Sequence[str] = tuple(METHODS),
    *,
    target: str | None = None,
    layer: str | None = None,
    at: Sequence[int] | None = None,
    box: Sequence[Sequence[int]] | None = None,
    window: Sequence[int] | None = None,
    steps: int = 50,
    which: str = "best",
    device: str = "auto",
    axes: str | None = None,
    on_plan: Callable[[Sequence[Cost]], None] = lambda costs: None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Explanation:
    """Return maps of what a run's network looks at in an image, on the image's own grid.

    What is explained is one number: the logit of a class (classification), a value in its unit (regression), or of a
    segmentation the sum of a class's logits over voxels: one (``at``), those of a box (``box``), or all that are
    predicted as the class (neither). Methods:

    - ``"gradcam++"``: where features of a layer speak for it, 0 … 1 (Chattopadhay et al. 2018; MONAI).
    - ``"occlusion"``: by how much it drops when a window is covered by the mean intensity (Zeiler & Fergus 2014;
      captum). Below 0: it rises.
    - ``"integrated-gradients"``: each pixel's share in the difference from an image of mean intensity, channels added
      up (Sundararajan et al. 2017; captum). The shares of the network's input add up to it; ``facts`` says how well.
    - ``"field"``: mean over channels of |∂ unit / ∂ input| (Luo et al. 2016), beside the unit's exact receptive field.

    PyTorch computes in float32. Nothing is random: on the CPU equal calls give equal bits with the same number of
    threads. Of a large image that is segmented, memory is that of a tile: where the exact receptive field of the voxels
    allows it, only the part of the image that they read is computed, which changes nothing.

    Args:
        runs: folder that :func:`convoxel.train.fit` wrote; several folders, or one with all folds, are an ensemble,
            whose mean score is explained: maps are means over its members.
        input: image file, or a folder of DICOM slices; of files a channel, any of them, as of :func:`predict`.
        methods: some of the words above (default: all).
        target: name of the class or value (default: the likeliest class at the voxel or of the image; of a box or an
            image to segment the most frequent one but the background; of a regression the first value).
        layer: layer of "gradcam++", which runs once and returns one map, and of "field" (default: the last of the
            coarsest maps, which of a U-Net is its bottleneck; "field" of a segmentation shows an output voxel).
        at: voxel of the image as stored, an index for each axis. Of a segmentation it is explained; of others it is
            where "field" looks and slices pass.
        box: (first, stop) along each axis as stored, of a segmentation.
        window: size of the covered window in pixels; windows overlap by half (default: a sixteenth of a signal, an
            eighth of a picture's sides; a quarter of a volume's, overlapping by a quarter).
        steps: points of the integral of "integrated-gradients" (default 50).
        which: checkpoint, "best" or "last" (default "best").
        device: where PyTorch computes: "auto", "cpu", "cuda", "cuda:1" … or "mps" (default "auto").
        axes: what the axes of NumPy arrays mean, as of :func:`convoxel.train.predict`.
        on_plan: called with the work of each method before the first.
        on_progress: called with (images that passed the network, of how many, method).

    Returns:
        ``target``, ``maps`` (for each method ``values`` (*spatial) float32, ``unit``, ``signed``, ``facts``), ``unit``
        (both receptive fields), ``notes``; ``save_maps`` writes files, :func:`convoxel.draw.explanation` draws.

    Raises:
        ConfigError: a method, class, layer or device is unknown or does not fit the task; a voxel lies outside the
            image; the network predicts no voxel of the class.
        DataError: the image is missing, damaged, or does not fit the network.
        CheckpointError: ``runs`` are no runs.
    """
    check_axes(axes)
    list_inputs(Path(input))  # a missing one is reported before the network is loaded
    members = load_members(runs, which)
    run = next(iter(members.values()))
    if run.data.previous_values:
        raise ConfigError(
            "run: it sees the label map of a stage before; expected a network of its own. Explain that one."
        )
    images = find_images(Path(input), run.data, ErrorCollector())
    if len(images) != 1:
        raise ConfigError(f"input: {input} holds {len(images)} images; expected one. Give the file of one image.")
    spans = None if box is None else [(low, high) for low, high in box]
    question = Question(tuple(methods), target, layer, at, spans, window, steps)
    question.check(run)
    where = choose_device(device)
    predictor = build_predictor(run)
    files = files_as_trained(predictor, images[0].files)
    known = read_case_header(predictor, files, MapOptions(axes=axes)).axes or None
    sample = replace(read_channels(files, run.data.dims, run.data.channels, known), name=images[0].stem)
    run.data.warn_of_geometry([(str(files[0]), sample.stated_affine, sample.spacing_mm)])
    return explain_sample(members, sample, question, Computation(where), on_plan, on_progress)
