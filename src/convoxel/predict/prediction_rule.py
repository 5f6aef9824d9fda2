"""Rules of prediction that belong to a run and stand in its configuration. Reading them needs no PyTorch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from convoxel.predict.entries import Entries


class PredictionRule(Entries):
    """Rules of prediction that belong to a run; see ``convoxel.train.predict``.

    Args:
        mean: what is averaged over the members of an ensemble, "shares" of classes or "logits" (default "shares").
        mirror: axes of the network's grid along which images are mirrored unless prediction is told otherwise (default
            none).
        tile: size of a tile, "auto" (the whole image, or as much as memory allows) or "patch", that of training
            (default "auto").
        blend: weights of a tile, "bell", a Gaussian around its middle, or "filter", those of nnU-Net: the answer of a
            Gaussian filter to its middle voxel, with tiles that lie at most a share of their size apart, rounded where
            they begin, and with sums of logits in float16; "constant" and "gaussian" are those of MONAI, with tiles at
            equal distances but the last, which ends where the image does (default "bell").
        returned: what is interpolated where the image's own grid is another than the network's, "logits", "shares" of
            classes, or "labels", whose nearest one counts (default "logits").
        within: part of the image, on the network's grid, that is predicted, "all", or "positive", the box around what
            is above zero once it is normalised; beyond it nothing is found (default "all").
        padding: what tiles hold beyond an image that is smaller, "constant", zeros or air, or "replicate", the voxels
            at its border (default "constant").
        previous: folder, seen from the run's own, of the runs whose label map the network sees too, a channel for each
            value: the stage before in a cascade (default none).
    """

    mean: Literal["shares", "logits"] = "shares"
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    tile: Literal["auto", "patch"] = "auto"
    blend: Literal["bell", "filter", "constant", "gaussian"] = "bell"
    returned: Literal["logits", "shares", "labels"] = "logits"
    within: Literal["all", "positive"] = "all"
    padding: Literal["constant", "replicate"] = "constant"
    previous: str | None = None
