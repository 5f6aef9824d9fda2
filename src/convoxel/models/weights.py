"""Weights from files: read without running code, and fitted to another number of channels, classes or axes.

Files are safetensors or PyTorch's, told apart by their first bytes. Nothing in the model changes until every
tensor of the file has a place. A file does not say on which images, or with which normalisation, it was trained; the
caller has to know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from torch import Tensor, nn

from convoxel.errors import CheckpointError, ConfigError, DataError, check_choice
from convoxel.files.manifest import BEST, GENERATIONS, find_pair, match_file, read_manifest
from convoxel.files.stream import check_inflation
from convoxel.models.backbone import Backbone
from convoxel.nn.conversion import inflate_kernel
from convoxel.nn.torch_layers import CONV, CONV_TRANSPOSE

_CONV = (*CONV, *CONV_TRANSPOSE)

# Where other tools put the tensors inside a file, and what they write before names.
_WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "model")
_BEFORE = re.compile(r"(?:(?:module|_orig_mod|model|net|network)\.){0,4}")
# Checkpoints of our own runs hold the optimiser too.
_OPTIMISER = "optimiser."
# Until 2017 PyTorch's DenseNets called their layers norm.1 and conv.2; the published files still do.
_OLD_NAMES = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
# nnU-Net's files name each tensor of the encoder and of a block twice. These are the second names, and the beginning of
# a name that is there if they are.
_SECOND_NAMES = ((re.compile(r"^decoder\.encoder\.(.*)$"), r"encoder.\1"),
                 (re.compile(r"^(.*)\.all_modules\.\d+\.\w+$"), r"\1.conv.weight"))  # fmt: skip
# Heads of coarser levels, which only training uses.
_COARSE_HEADS = "decoder.seg_layers."
_SHOWN = 3


@dataclass(frozen=True)
class WeightReport:
    """The report of :func:`load_weights`.

    Attributes:
        file: file that was read.
        loaded: number of tensors taken from it, adapted ones included.
        adapted: changes made to fit, in words.
        fresh: names in the model that keep the weights they had: heads of another number of classes, and
            what the file's network does not have.
        unused: names in the file that the model has no place for: heads, auxiliary classifiers.
    """

    file: str
    loaded: int
    adapted: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors from {self.file}"]
        for word, names in (("adapted", self.adapted), ("fresh", self.fresh), ("unused", self.unused)):
            if names:
                parts.append(f"{word}: {_listed(names)}")
        return "; ".join(parts)


def load_weights(
    model: nn.Module, path: str | os.PathLike[str], *, channels: str = "average", inflate: str = "average"
) -> WeightReport:
    """Return a report of the weights that ``model`` took over from a file.

    Names and shapes must agree, but for these. **Channels**: where the file's network has another number of
    input channels, kernels of its first layer are averaged, so that grey images give the same: with c channels
    in the file and n in the model each of the n gets their sum / n; one channel gets the sum. **Classes**: a
    head of another number of classes keeps its fresh weights. **Axes**: 2-D kernels become 3-D ones by
    repeating them k times along the new axis, divided by k (Carreira & Zisserman 2017, arXiv 1705.07750), so
    that a volume which is constant along it gives what its slices gave; or by standing in the middle of zeros.
    3-D or 2-D kernels lose an axis by the inverse. **Encoders**: a backbone's file fits the encoder of a dense
    network; decoder and head stay fresh.

    Args:
        model: a network of the zoo, or any module; changed in place, and not at all if an error is raised.
        path: a .safetensors file, a PyTorch checkpoint of tensors (a state dict, also inside a dict under
            "state_dict" or "model"; prefixes such as "module." are dropped), or the folder of a training run.
        channels: ``"average"``, or ``"repeat"``: more channels than in the file take the file's in turn, each
            divided by how often it is taken.
        inflate: ``"average"`` or ``"centre"``; transposed convolutions are always averaged, since each output
            pixel sees a part of the kernel only.

    Raises:
        ConfigError: an argument is out of range.
        DataError: the file is missing, broken, or holds something other than finite tensors.
        CheckpointError: names or shapes do not fit; they are listed.

    >>> import tempfile, safetensors.torch
    >>> from convoxel.models.registry import build
    >>> flat, deep = build("unet", 2, levels=1, width=4), build("unet", 3, num_classes=5, levels=1, width=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     safetensors.torch.save_file(flat.state_dict(), f"{folder}/flat.safetensors")
    ...     report = load_weights(deep, f"{folder}/flat.safetensors")
    >>> report.fresh, len(report.adapted)
    (('head.weight', 'head.bias'), 7)
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model is a {type(model).__name__}, but it must be a module. Give what build(…) returns.")
    check_choice("channels", channels, ("average", "repeat"))
    check_choice("inflate", inflate, ("average", "centre"))
    file, stored = _read_run(Path(path)) if _is_folder(path) else _read_file(path)
    part, prefix, stored = _match(model, stored)
    plan = _Plan(part, stored, channels, inflate)
    values = plan.place()
    plan.check(model, file)
    own = part.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        raise ConfigError("model lies on the meta device and has no memory for weights. Build it outside of it.")
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    others = [name for name in model.state_dict() if not name.startswith(prefix)] if prefix else []
    fresh = [prefix + name for name in plan.fresh] + others
    return WeightReport(str(file), len(values), tuple(plan.adapted), tuple(fresh), tuple(plan.unused))


def match_tensors(model: nn.Module, file: Path, content: object) -> dict[str, Tensor]:
    """Return the tensors of a file by the names that they have in ``model``, each in its shape.

    Args:
        model: network, which stays as it is and may lie on the meta device.
        file: file that is named in errors.
        content: names with tensors, as the file holds them.

    Raises:
        DataError: they are no finite tensors.
        CheckpointError: names or shapes do not fit; they are listed.
    """
    _, _, stored = _match(model, _check_tensors(file, content))
    plan = _Plan(model, stored, "average", "average")
    values = plan.place()
    plan.missing += plan.fresh
    plan.check(model, file)
    if plan.adapted:
        raise CheckpointError(
            f"weights: {file} does not fit {type(model).__name__}: {plan.adapted[0]}. Name another one."
        )
    return values


# ---- files -----------------------------------------------------------------------------------------------


def _is_folder(path: object) -> bool:
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"path is {path!r}, but it must name a file. Give the path as text.")
    with contextlib.suppress(OSError):  # a name that no file can have
        return Path(path).is_dir()
    return False


def _read_run(run: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the best checkpoint of a run (the last one before its first validation), proven whole by its manifest."""
    folder, problems = run / "checkpoints", list[str]()
    names = BEST if any(folder.glob("best*")) else GENERATIONS
    pair = find_pair(folder, names, problems)
    if pair is None and not problems:
        raise DataError(
            f"weights: {run} is a folder without checkpoints; expected a .safetensors or PyTorch file, or the "
            "folder of a training run. Name the file itself."
        )
    if pair is None:
        raise CheckpointError(
            f"weights: {folder} holds no whole checkpoint ({'; '.join(problems)}); expected one as it was written. "
            "Name another run."
        )
    file = folder / f"{pair.file}.safetensors"
    return file, _check_tensors(file, _tensors_of(file, lambda: load_tensors(pair.data)))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or PyTorch file by name.

    Raises:
        DataError: the file is missing, broken, or holds something other than finite tensors.
    """
    return _read_file(path)[1]


def _read_file(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Tensor]]:
    """Return a file of weights and its tensors by name; a manifest beside it must prove it."""
    file = Path(path)
    if not file.exists():
        raise DataError(
            f"weights: {file} does not exist; expected a .safetensors or PyTorch file, or the folder of a "
            "training run. Check the path."
        )
    try:
        with file.open("rb") as stream:
            first = stream.read(9)
    except OSError as error:
        raise DataError(f"weights: {file} cannot be read ({error.strerror or error}). Check its permissions.") from None
    # A safetensors file begins with the length of its JSON header, PyTorch's with a zip archive or a pickle.
    pickled = first[:2] == b"PK" or first[:1] == b"\x80"
    if not pickled and first[8:] != b"{":
        raise DataError(
            f"weights: {file} is neither a safetensors nor a PyTorch file; expected one of these. "
            "Save the weights with safetensors.torch.save_file(model.state_dict(), …)."
        )
    manifest = read_manifest(file.parent, file.stem, []) if file.suffix == ".safetensors" else None
    if manifest is not None and match_file(file.parent, manifest, file.stem, (), []) is None:
        raise CheckpointError(
            f"weights: {file} is damaged: the hash in {file.stem}.json beside it is another; expected the file "
            "as it was written. Name another one."
        )
    reader = ((lambda: _read_torch(file)), "PyTorch") if pickled else ((lambda: load_file(file)), "safetensors")
    return file, _check_tensors(file, _tensors_of(file, *reader))


def _tensors_of(file: Path, read: Callable[[], object], kind: str = "safetensors") -> object:
    try:
        return read()
    except DataError:
        raise
    except Exception as error:  # either reader raises many kinds
        raise DataError(
            f"weights: {file} is not a whole {kind} file ({_short(error)}); expected one that can be read to its "
            "end. Download or save it again."
        ) from None


def _read_torch(file: Path) -> object:
    content = read_checkpoint(file)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content


def read_torch_file(path: Path) -> object:
    """Return what a file of PyTorch holds, as of :func:`read_checkpoint`.

    Raises:
        DataError: it is missing, broken, or holds other objects.
    """
    if not path.is_file():
        raise DataError(f"weights: {path} does not exist; expected a PyTorch file. Check the path.")
    return _tensors_of(path, lambda: read_checkpoint(path), "PyTorch")


class _Ignored:
    """A stand-in for numbers of NumPy in checkpoints of training, such as a loss: nothing of them is kept."""

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# The names by which NumPy's versions pickle a number, and its type.
_NUMBERS = [
    (_Ignored, f"{package}.{name}")
    for package, names in {
        "numpy": ("dtype",),
        "numpy.core.multiarray": ("scalar",),
        "numpy._core.multiarray": ("scalar",),
        "numpy.dtypes": ("Float64DType", "Float32DType", "Int64DType", "Int32DType", "BoolDType"),
        "_codecs": ("encode",),
    }.items()
    for name in names
]


def read_checkpoint(file: Path) -> object:
    """Return what a file of PyTorch holds: tensors, texts, numbers, and lists and dictionaries of these.

    Nothing else is built and no code runs. Numbers of NumPy, as training writes them beside the weights, are dropped.

    Raises:
        DataError: the file holds other objects, or unpacks to far more than it is.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:  # PyTorch stores tensors as they are, and inflates what is compressed
            check_inflation(file, file.stat().st_size, sum(member.file_size for member in archive.infolist()))
    try:
        with torch.serialization.safe_globals(_NUMBERS):  # type: ignore[arg-type]  # pairs, as PyTorch documents them
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "Weights only load failed" in str(error) or "weights_only" in str(error):
            raise DataError(
                f"weights: {file} holds Python objects, which only running its code could rebuild; expected tensors "
                "alone. Save model.state_dict() where it was made, best with safetensors."
            ) from None
        raise


def _check_tensors(file: Path, content: object) -> dict[str, Tensor]:
    """Return ``content`` if it is a mapping from names to finite tensors."""
    if not isinstance(content, Mapping):
        raise DataError(
            f"weights: {file} holds a {type(content).__name__}; expected names with tensors. Save model.state_dict()."
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_quantized or value.is_complex():
            kind = "a quantised or complex tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise DataError(
                f"weights: {file} holds {kind} under {name!r}; expected real tensors only. Save model.state_dict()."
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(
                f"weights: {name} in {file} holds NaN or infinity; expected numbers. "
                "Its training went wrong: take an earlier checkpoint."
            )
    if not content:
        raise DataError(f"weights: {file} holds no tensor; expected those of a network. Save model.state_dict().")
    return dict(content)


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0][:120].rstrip(".") if lines else "") or type(error).__name__


# ---- names -----------------------------------------------------------------------------------------------


def _match(model: nn.Module, stored: dict[str, Tensor]) -> tuple[nn.Module, str, dict[str, Tensor]]:
    """Return the part of ``model`` that the file is of, its name before the dot, and the tensors by its names.

    The part is the model, or its encoder, whichever has more names in common with the file.
    """
    encoder = getattr(model, "encoder", None)
    parts: list[tuple[nn.Module, str]] = [(model, "")]
    if isinstance(encoder, Backbone):
        parts.append((encoder, "encoder."))
    best: tuple[int, nn.Module, str, dict[str, Tensor]] | None = None
    for part, prefix in parts:
        names = set(part.state_dict())
        renamed = _rename(stored, names)
        shared = len(names & renamed.keys())
        if best is None or shared > best[0]:
            best = (shared, part, prefix, renamed)
    assert best is not None
    return best[1:]


def _rename(stored: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """Return the file's tensors without what other tools write before their names."""
    kept = {name: value for name, value in stored.items() if not name.startswith(_OPTIMISER)}
    before = max(_beginnings(kept), key=lambda start: (sum(start + name in kept for name in names), -len(start)))
    kept = {name.removeprefix(before): value for name, value in kept.items()}
    kept = {name: value for name, value in kept.items() if name in names or not _is_second_name(name, kept)}
    return {name if name in names else _OLD_NAMES.sub(r"\1\2", name): value for name, value in kept.items()}


def _beginnings(stored: Iterable[str]) -> list[str]:
    """Return what other tools may have written before the names of a file, nothing first."""
    found = {""}
    for name in stored:
        match = _BEFORE.match(name)
        assert match is not None  # it matches nothing too
        found.update(match[0][: end.end()] for end in re.finditer(r"\.", match[0]))
    return sorted(found, key=lambda start: (len(start), start))


def _is_second_name(name: str, stored: Mapping[str, Tensor]) -> bool:
    """Return True for a name under which the file holds a tensor a second time."""
    return any(pattern.match(name) and pattern.sub(first, name) in stored for pattern, first in _SECOND_NAMES)


# ---- shapes ----------------------------------------------------------------------------------------------


class _Plan:
    """The place of each tensor of the file and its change to fit, and the tensors that do not fit."""

    def __init__(self, part: nn.Module, stored: Mapping[str, Tensor], channels: str, inflate: str) -> None:
        self.part, self.stored = part, stored
        self.channels, self.inflate = channels, inflate
        self.layers = dict(part.named_modules(remove_duplicate=False))
        convolutions = [name for name, layer in self.layers.items() if isinstance(layer, _CONV)]
        first = stored.get(f"{convolutions[0]}.weight") if convolutions else None
        # Of the file's network: spatial axes and input channels, read off its first convolution.
        self.dims = None if first is None or first.ndim < 3 else first.ndim - 2
        self.inputs = None if first is None or first.ndim < 3 else first.shape[1]
        self.adapted: list[str] = []
        self.fresh: list[str] = []
        self.unused: list[str] = []
        self.missing: list[str] = []
        self.extra: list[str] = []
        self.wrong: list[str] = []

    def place(self) -> dict[str, Tensor]:
        """Return the new value of each of the part's tensors that gets one."""
        values = {}
        own = self.part.state_dict()
        for name, target in own.items():
            value = self.stored.get(name)
            if value is None:
                if not name.endswith("num_batches_tracked"):  # files older than PyTorch 0.4.1 have none
                    (self.fresh if _is_auxiliary(name) else self.missing).append(name)
                continue
            fitted, changes = self.fit(name, value, target)
            if fitted.shape == target.shape and fitted.is_floating_point() == target.is_floating_point():
                values[name] = fitted
                if changes:
                    self.adapted.append(f"{name} ({', '.join(changes)})")
            elif self.is_head(name) and fitted.shape[1:] == target.shape[1:]:
                self.fresh.append(name)
            else:
                self.wrong.append(f"{name}: file {_spoken(value, target)}, model {_spoken(target, value)}")
        children = {name for name, _ in self.part.named_children()}
        headless = isinstance(self.part, Backbone) and self.part.features_only
        for name in sorted(self.stored.keys() - own.keys()):
            left_out = name.split(".")[0] not in children and (headless or _is_auxiliary(name))
            left_out |= name.startswith(_COARSE_HEADS) and any(own_name.startswith(_COARSE_HEADS) for own_name in own)
            (self.unused if left_out else self.extra).append(name)
        return values

    def check(self, model: nn.Module, file: Path) -> None:
        """Raise CheckpointError unless every tensor has its place."""
        if self.missing or self.extra or self.wrong:
            raise CheckpointError(_explain_mismatch(model, file, self))

    def is_head(self, name: str) -> bool:
        """Return True if ``name`` belongs to a layer with one output for each class."""
        layer = self.layers[name.rpartition(".")[0]]
        classes = getattr(self.part, "num_classes", None)
        if isinstance(layer, nn.Linear):
            return layer.out_features == classes
        return isinstance(layer, _CONV) and layer.out_channels == classes and set(layer.kernel_size) == {1}

    def fit(self, name: str, value: Tensor, target: Tensor) -> tuple[Tensor, list[str]]:
        """Return ``value`` brought as near to the shape of ``target`` as the rules go, and what was done."""
        layer, _, kind = name.rpartition(".")
        module = self.layers[layer]
        changes: list[str] = []
        if kind != "weight" or not isinstance(module, (*_CONV, nn.Linear)) or value.shape == target.shape:
            return value, changes
        if isinstance(module, nn.Linear):
            return self._fit_linear(value, target)
        if value.ndim != target.ndim and min(value.ndim, target.ndim) >= 3:
            strides = module.stride if isinstance(module, CONV_TRANSPOSE) else None
            changes.append(f"{value.ndim - 2}-D → {target.ndim - 2}-D")
            value = inflate_kernel(value, tuple(target.shape[2:]), self.inflate, strides)
        inputs = getattr(self.part, "in_channels", target.shape[1])
        if value.shape[1] == self.inputs != target.shape[1] == inputs and value.ndim == target.ndim:
            changes.append(f"{value.shape[1]} → {inputs} channels")
            value = _change_channels(value, inputs, self.channels)
        return value, changes

    def _fit_linear(self, value: Tensor, target: Tensor) -> tuple[Tensor, list[str]]:
        """Inflate a linear layer over a flattened grid as the convolution of the grid's size that it is."""
        dims: int | None = getattr(self.part, "dims", None)
        if value.ndim != 2 or dims is None or self.dims in (None, dims) or value.shape[1] == target.shape[1]:
            return value, []
        assert self.dims is not None
        more, fewer = max(value.shape[1], target.shape[1]), min(value.shape[1], target.shape[1])
        side = round((more / fewer) ** (1 / abs(dims - self.dims)))
        if fewer * side ** abs(dims - self.dims) != more or value.shape[1] % side**self.dims:
            return value, []
        grid = value.reshape(value.shape[0], -1, *(side,) * self.dims)
        grid = inflate_kernel(grid, (side,) * dims, self.inflate, None)
        return grid.flatten(1), [f"{self.dims}-D → {dims}-D over a grid of {side}"]


def _change_channels(value: Tensor, inputs: int, channels: str) -> Tensor:
    """Return a first layer's kernels for ``inputs`` channels; equal values in all channels give the same."""
    count = value.shape[1]
    if channels == "repeat" and inputs > count:
        turn = torch.arange(inputs) % count
        often = torch.bincount(turn)[turn].reshape(1, -1, *(1,) * (value.ndim - 2))
        return value[:, turn] / often
    return value.sum(1, keepdim=True).expand(-1, inputs, *value.shape[2:]) / inputs


def _is_auxiliary(name: str) -> bool:
    """Return True if the tensor belongs to a classifier that only training uses."""
    return name.lower().startswith("aux")


def _explain_mismatch(model: nn.Module, file: Path, plan: _Plan) -> str:
    parts = []
    for names, one, many in (
        (plan.missing, "tensor of the model is not in the file", "tensors of the model are not in the file"),
        (plan.extra, "tensor of the file is not in the model", "tensors of the file are not in the model"),
        (plan.wrong, "shape differs", "shapes differ"),
    ):
        if names:
            parts.append(f"{len(names)} {one if len(names) == 1 else many} ({_listed(names)})")
    near = difflib.get_close_matches(plan.missing[0], plan.extra, n=_SHOWN, cutoff=0.4) if plan.missing else []
    if near:
        parts.append(f"nearest to {plan.missing[0]}: {_listed(near)}")
    return (
        f"weights: {file} does not fit {type(model).__name__}: {'; '.join(parts)}. "
        "Build the model with the name and options (width, depth, levels, norm, …) that the file was saved with."
    )


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f", … and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _spoken(tensor: Tensor, other: Tensor) -> str:
    kind = "" if tensor.is_floating_point() == other.is_floating_point() else f" {str(tensor.dtype).split('.')[-1]}"
    return f"{tuple(tensor.shape)}{kind}"
