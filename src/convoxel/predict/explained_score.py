"""The number that an explanation explains: a class's logit, or a predicted value, as a network of its own.

Of an image that is classified it is the class's logit, of a regression the value in its own unit. Of a segmentation it
is the sum of the class's logits over voxels: one, those of a box, or those that are predicted as the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from convoxel.files.values import JsonObject

Where = Literal["image", "voxel", "box", "region"]


@dataclass(frozen=True)
class Target:
    """The number that is explained.

    Attributes:
        number: class number, or number of the predicted value.
        name: its name.
        where: "image" (classification, regression), "voxel", "box", or "region", the voxels predicted as the class.
        box: first and last voxel along each axis of the image's own grid, of a voxel or a box; else ().
        voxels: number of voxels on the network's grid over whose logits the score is the sum; 0 of a whole image.
        score: the number itself.
        share: probability of the class in the image or at the voxel; None elsewhere.
        unit: "logit", "logits" (a sum), or "value" (regression).
    """

    number: int
    name: str
    where: Where
    box: tuple[tuple[int, int], ...]
    voxels: int
    score: float
    share: float | None
    unit: str

    def __str__(self) -> str:
        """Return the target in words."""
        if self.unit == "value":
            return f"the value {self.name} = {self.score:.4g}"
        of = {
            "image": "",
            "voxel": f" at {', '.join(str(low) for low, _ in self.box)}",
            "box": f" in the box {', '.join(f'{low}:{high + 1}' for low, high in self.box)}",
            "region": f" over the {self.voxels} voxels predicted as it",
        }[self.where]
        share = "" if self.share is None else f", probability {self.share:.3f}"
        what = "the sum of the logits of" if self.where in ("box", "region") else "the logit of"
        return f"{what} {self.name}{of} ({self.score:.4g}{share})"

    def to_dict(self) -> JsonObject:
        """Return the entries, with the target in words."""
        return {**vars(self), "words": str(self)}


class Score(nn.Module):
    """A network that returns the target's score (n, 1) of a batch.

    Args:
        network: returns logits (n, classes) or (n, classes, *spatial).
        number: class number.
        voxels: (*spatial) bool, those over whose logits the score is the sum; None of a network that has none.
        scale: mean and standard deviation of the value's unit (default: the network's own).
        on_pass: called with the number of images of each forward pass.
    """

    def __init__(
        self,
        network: nn.Module,
        number: int,
        voxels: Tensor | None,
        scale: tuple[float, float] = (0.0, 1.0),
        on_pass: Callable[[int], None] = lambda count: None,
    ) -> None:
        super().__init__()
        self.network = network
        self.number, self.scale, self.on_pass = number, scale, on_pass
        self.register_buffer("voxels", voxels)
        self.voxels: Tensor | None

    def forward(self, images: Tensor) -> Tensor:
        """Return the score of each image, (n, 1)."""
        self.on_pass(len(images))
        logits = self.network(images)[:, self.number]
        if self.voxels is not None:
            found: Tensor = logits[:, self.voxels].sum(1, keepdim=True)
            return found
        mean, std = self.scale
        found = logits.reshape(len(images), 1) * std + mean
        return found


class Shifted(nn.Module):
    """A score less its own value: the same gradients at a score of 0.

    Grad-CAM++ multiplies its weights by exp(score), which overflows for sums of logits; a factor changes no map that is
    scaled afterwards.
    """

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, images: Tensor) -> Tensor:
        """Return 0 for each image, with the gradients of the score."""
        found = self.score(images)
        shifted: Tensor = found - found.detach()
        return shifted


@contextmanager
def layer_sizes(network: nn.Module, dims: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Note the spatial sizes of the layers' results in the forward pass of the block, in the order in which they end.

    Only layers are listed that run once and return one map (n, channels, *spatial) of more than one position.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            sizes.pop(name, None)
            if (
                calls[name] == 1
                and isinstance(output, Tensor)
                and output.dim() == dims + 2
                and output[0, 0].numel() > 1
            ):
                sizes[name] = tuple(output.shape[2:])

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
