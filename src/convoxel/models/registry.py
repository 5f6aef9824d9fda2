"""The names of the networks, and the function that builds one by name.

A family of variants is one more line of ``_ENTRIES`` (its builder and its ``VARIANTS``); a network by itself is
one more row.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from convoxel.errors import ConfigError, check_choice
from convoxel.files.values import JsonObject, Options
from convoxel.models import alexnet, densenet, efficientnet, googlenet, inception, mobilenet, nnunet, resnet, vgg
from convoxel.models.alteration import PADDINGS, UNALTERED, alter
from convoxel.models.backbone import ACCURACY_PROTOCOL, Network, Published
from convoxel.models.unet import UNet, unet_cicek, unet_ronneberger
from convoxel.models.unet_backbone import BACKBONES, build_dense_unet
from convoxel.nn.documentation import NETWORKS, complete_docstring


class Entry(NamedTuple):
    """One network of the zoo.

    Attributes:
        build: function of ``(dims, in_channels, num_classes, **options)``.
        task: ``"classify"`` or ``"segment"``.
        size: usual spatial size along each axis for 1, 2 and 3 ``dims``; the default of ``describe``.
        paper: paper that describes the network.
        published: figures of the published network, where they are recorded.
    """

    build: Callable[..., Network]
    task: str
    size: tuple[int, int, int]
    paper: str
    published: Published | None = None

    @property
    def options(self) -> JsonObject:
        """The options of the network beside dims, in_channels and num_classes, with their defaults."""
        own = self.own_options
        return {**own, **{name: value for name, value in UNALTERED.items() if name not in own}}

    @property
    def own_options(self) -> JsonObject:
        """Those of them that ``build`` takes; the others are alike for every network (``alteration``)."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def default(self, name: str) -> int:
        """Return the default of ``in_channels`` or ``num_classes``."""
        value: int = inspect.signature(self.build).parameters[name].default
        return value


class Info(NamedTuple):
    """Figures of a network that is not built: as published, in 2-D; None where nothing is recorded.

    Attributes:
        name: name for ``build``.
        task: ``"classify"`` or ``"segment"``.
        params: parameters.
        macs: multiply-accumulates for one input.
        field: receptive field of the last feature map, in pixels.
        shape: the input (channels, height, width) that ``macs`` is for.
        top1: ImageNet validation accuracy in percent; all networks are measured by one protocol.
        source: that protocol, with the size of the crop; empty without ``top1``.
        paper: paper that describes the network.
        options: options of ``build`` beside dims, in_channels and num_classes, with their defaults.
    """

    name: str
    task: str
    params: int | None
    macs: int | None
    field: int | None
    shape: tuple[int, int, int]
    top1: float | None
    source: str
    paper: str
    options: JsonObject


def _family(make: Callable[..., Network], variants: Options, paper: str, *, volume: int = 64) -> dict[str, Entry]:
    """Return the rows of a family; ``make`` takes a key of ``variants``; ``volume`` is the usual size of volumes."""
    rows = {}
    for name, variant in variants.items():
        known = variant.published
        sizes = (known.size, known.size, volume)
        rows[name] = Entry(functools.partial(make, name), "classify", sizes, known.paper or paper, known)
    return rows


_UNET = "Ronneberger et al. 2015, arXiv 1505.04597; Çiçek et al. 2016, arXiv 1606.06650"

_ENTRIES: dict[str, Entry] = {
    **_family(alexnet.AlexNet, alexnet.VARIANTS, "Krizhevsky et al. 2012; Krizhevsky 2014, arXiv 1404.5997"),
    **_family(vgg.VGG, vgg.VARIANTS, "Simonyan & Zisserman 2015, arXiv 1409.1556"),
    **_family(googlenet.GoogLeNet, googlenet.VARIANTS, "Szegedy et al. 2015, arXiv 1409.4842"),
    **_family(inception.InceptionV3, inception.VARIANTS, "Szegedy et al. 2016, arXiv 1512.00567", volume=96),
    **_family(resnet.ResNet, resnet.VARIANTS, "He et al. 2016, arXiv 1512.03385"),
    **_family(densenet.DenseNet, densenet.VARIANTS, "Huang et al. 2017, arXiv 1608.06993"),
    **_family(mobilenet.MobileNet, mobilenet.VARIANTS, "Howard et al. 2019, arXiv 1905.02244"),
    **_family(efficientnet.EfficientNet, efficientnet.VARIANTS, "Tan & Le 2019, arXiv 1905.11946"),
    "unet": Entry(functools.partial(UNet), "segment", (256, 256, 64), _UNET),
    # Sizes of the papers' figures: 572 pixels, and in volumes the longest axis.
    "unet_ronneberger": Entry(unet_ronneberger, "segment", (572, 572, 188), _UNET),
    "unet_cicek": Entry(unet_cicek, "segment", (132, 132, 132), _UNET),
}
_NNUNET = "Isensee et al. 2021, arXiv 1904.08128; Isensee et al. 2024, arXiv 2404.09556"
_ENTRIES.update({
    name: Entry(functools.partial(nnunet.NnUNet, name), "segment", (256, 256, 64), _NNUNET) for name in nnunet.VARIANTS
})  # fmt: skip
# The network of the course has fewer options than its family and 10 classes.
_ENTRIES["course_vgg"] = _ENTRIES["course_vgg"]._replace(build=vgg.course_vgg)


def _dense(name: str) -> Entry:
    """Return the row of a U-Net whose encoder is the network called ``name``."""
    encoder = _ENTRIES[name]
    named = functools.partial(build_dense_unet, encoder.build)
    return Entry(named, "segment", (256, 256, 64), f"{_UNET.partition(';')[0]}; {encoder.paper}")


_ENTRIES.update({f"unet_{name}": _dense(name) for name in BACKBONES})

for _build in {row.build.func if isinstance(row.build, functools.partial) else row.build for row in _ENTRIES.values()}:
    complete_docstring(_build, NETWORKS)
for _name, _row in _ENTRIES.items():
    if isinstance(_row.build, functools.partial):  # help(models.resnet50) shows the family's text, not partial's
        _row.build.__dict__.update(__name__=_name, __doc__=f"{_name}: {_row.build.func.__doc__}")


def names(pattern: str = "*", task: str | None = None) -> tuple[str, ...]:
    """Return the names that ``build`` knows.

    Args:
        pattern: pattern of the names, where ``*`` stands for anything and ``?`` for one character (default ``"*"``).
        task: ``"classify"`` or ``"segment"`` (default: both).

    Raises:
        ConfigError: ``task`` is not known.

    >>> names("resnet?0")
    ('resnet50',)
    """
    tasks = sorted({row.task for row in _ENTRIES.values()})
    if task is not None:
        check_choice("task", task, tasks)
    return tuple(name for name, row in _ENTRIES.items() if task in (None, row.task) and fnmatchcase(name, pattern))


def info(name: str) -> Info:
    """Return the recorded figures of the network called ``name``.

    Raises:
        ConfigError: no network has this name; the message names the nearest one.

    >>> found = info("resnet50")
    >>> found.params, found.macs, found.field, found.shape, found.top1
    (25557032, 4089184256, 427, (3, 224, 224), 76.13)
    """
    row = entry(name)
    known = row.published
    size = row.size[1]
    return Info(
        name,
        row.task,
        known and known.params,
        known and known.macs,
        known and known.field,
        (row.default("in_channels"), size, size),
        known and known.top1,
        f"{ACCURACY_PROTOCOL} of {size} × {size}" if known and known.top1 else "",
        row.paper,
        row.options,
    )


def entry(name: str) -> Entry:
    """Return the zoo's row for ``name``.

    Raises:
        ConfigError: no network has this name; the message names the nearest one.

    >>> entry("unet").task
    'segment'
    """
    if name not in _ENTRIES:
        raise ConfigError(
            f"there is no model {name!r}{_nearest(name, _ENTRIES)} models.names() lists all {len(_ENTRIES)}."
        )
    return _ENTRIES[name]


def build(
    name: str, dims: int = 2, in_channels: int | None = None, num_classes: int | None = None, **options: Any
) -> Network:
    """Return the network called ``name`` with fresh weights.

    Args:
        name: one of ``names()``.
        dims: number of spatial axes, 1, 2 or 3.
        in_channels: number of channels of the input (default: as published).
        num_classes: number of classes (default: as published).
        **options: the network's own, such as ``width`` or, for ``"unet"``, ``levels``; see
            ``entry(name).options``. Every network takes ``dilation``, ``padding``, ``dropout``, ``dropout_where`` and
            ``block``, as :func:`convoxel.models.alteration.alter` describes them; where a network has its own
            ``dropout``, that is the one of the last layer, and a U-Net's ``padding`` may also be ``"none"``.

    Returns:
        A module from ``(n, in_channels, *spatial)`` to logits, with the attributes ``dims, in_channels,
        num_classes, input_multiple``.

    Raises:
        ConfigError: a name or option is not known (the message names the nearest), or a value is out of
            range.

    >>> build("resnet18", dims=3, in_channels=1, num_classes=2, width=0.25).dims
    3
    """
    row = entry(name)
    known = row.options
    for option in options:
        if option not in known:
            raise ConfigError(
                f"model {name!r} has no option {option!r}{_nearest(option, known)} Its options: {', '.join(known)}."
            )
    given = {"in_channels": in_channels, "num_classes": num_classes}
    own, altered = _divide(row.own_options, options)
    network = row.build(dims, **{key: value for key, value in given.items() if value is not None}, **own)
    alter(network, **altered)
    return network


def _divide(known: JsonObject, options: JsonObject) -> tuple[JsonObject, JsonObject]:
    """Return the options that a network's own builder takes, and those that alter what it built."""
    own = {name: value for name, value in options.items() if name in known}
    altered = {name: value for name, value in options.items() if name in UNALTERED and name not in known}
    if own.get("padding") in PADDINGS:  # a U-Net's own say whether there is padding at all
        altered["padding"] = own.pop("padding")
    if "dropout" in known and options.get("dropout_where", "last") != "last":
        altered["dropout"] = own.pop("dropout", known["dropout"] or 0.0)
        own["dropout"] = 0.0
    return own, altered


def _nearest(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name).lower().replace("-", "").replace("_", ""), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
