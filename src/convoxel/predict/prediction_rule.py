"""Rules of prediction that belong to a run and stand in its configuration. Reading them needs no PyTorch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convoxel.predict.entries import Entries


class LargestComponent(Entries):
    """A clean-up of label maps after nnU-Net v1: of some values taken together, the largest component stays.

    Voxels that share a face are one component; of several that are largest, all stay.

    Args:
        values: values of label maps.
        least_mm3: size from which other components stay too (default: none do).
    """

    values: Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(min_length=1, max_length=255)]
    least_mm3: Annotated[float, Field(ge=0)] | None = None


class PredictionRule(Entries):
    """Rules of prediction that belong to a run; see ``convoxel.train.predict``.

    Args:
        mean: what is averaged over the members of an ensemble, "shares" of classes or "logits" (default "shares").
        tile_mean: what is averaged over mirrored copies and over tiles that overlap, "logits" or "shares"; these are
            interpolated on the way to the image's own grid, and averaged over members (default "logits").
        mirror: axes of the network's grid along which images are mirrored unless prediction is told otherwise (default
            none).
        tile: size of a tile, "auto" (the whole image, or as much as memory allows) or "patch", that of training
            (default "auto").
        blend: weights of a tile, "bell", a Gaussian around its middle, or "filter", those of nnU-Net: the answer of a
            Gaussian filter to its middle voxel, with tiles that lie at most a share of their size apart, rounded where
            they begin, and with sums in float16; "filter_float32" does the same with weights and sums in float32, as
            nnU-Net v1; "constant" and "gaussian" are those of MONAI, with tiles at equal distances but the last, which
            ends where the image does (default "bell").
        returned: what is interpolated where the image's own grid is another than the network's, "logits", "shares" of
            classes, or "labels", whose nearest one counts (default "logits").
        within: part of the image, on the network's grid, that is predicted, "all", or "positive", the box around what
            is above zero once it is normalised; beyond it nothing is found (default "all").
        padding: what tiles hold beyond an image that is smaller, "constant", zeros or air, or "replicate", the voxels
            at its border (default "constant").
        previous: folder, seen from the run's own, of the runs whose label map the network sees too, a channel for each
            value: the stage before in a cascade (default none).
        previous_map: how that label map comes onto the network's grid, "cut" as the image, or "squeezed": all of it, as
            nnU-Net v1 does even where the image is cut (default "cut").
        largest: clean-ups of each label map, one after the other (default none).
    """

    mean: Literal["shares", "logits"] = "shares"
    tile_mean: Literal["logits", "shares"] = "logits"
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    tile: Literal["auto", "patch"] = "auto"
    blend: Literal["bell", "filter", "filter_float32", "constant", "gaussian"] = "bell"
    returned: Literal["logits", "shares", "labels"] = "logits"
    within: Literal["all", "positive"] = "all"
    padding: Literal["constant", "replicate"] = "constant"
    previous: str | None = None
    previous_map: Literal["cut", "squeezed"] = "cut"
    largest: tuple[LargestComponent, ...] = ()

    @model_validator(mode="after")
    def _check_means(self) -> PredictionRule:
        if self.tile_mean == "shares" and (self.mean, self.returned) != ("shares", "logits"):
            raise ValueError(
                "tile_mean is 'shares', and nothing is left of logits; expected mean 'shares' and no other 'returned'"
            )
        return self
