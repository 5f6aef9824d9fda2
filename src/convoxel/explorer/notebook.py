"""The explorer's views in a notebook: ``show`` puts one into the output of a cell.

With anywidget the page lies in a frame of the cell and asks the kernel through the notebook's own connection, so that
no port is opened and kernels of other machines work as well (JupyterLab, VS Code, Colab). Without it, and in notebooks
that are read without a kernel, the cell shows what does not move: the network's table, or the layer's picture.
"""

from __future__ import annotations

import functools
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from convoxel.cli.parsing import parse_options, parse_shape
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.explorer.export import render_alone
from convoxel.explorer.layer_view import Bench
from convoxel.explorer.pages import SHARED, VIEWS, page_templates
from convoxel.explorer.session import Session
from convoxel.explorer.view import KeptPage, Picture, Query, View, plain
from convoxel.lookup import GivenNetwork, find_network, is_file, is_run

if TYPE_CHECKING:
    from torch import nn

    from convoxel.files.values import JsonObject

_HEIGHT = 720  # pixels
_MODULE = Path(__file__).parent / "static" / "library" / "notebook.js"


def show(
    subject: str | Path | nn.Module,
    *folders: str | Path,
    view: str | None = None,
    shape: str | Sequence[int] | None = None,
    **words: str | Sequence[str],
) -> Shown:
    """Return a view of the explorer that shows itself in a notebook.

    Args:
        subject: a network: a name of ``convoxel.models.names()``, the folder of a run, an ``.onnx`` or ``.cvx`` file;
            a PyTorch module, as it is now; or a layer, as ``convoxel size`` takes it, such as "k3s2p1", or as a module
            of PyTorch's convolutions and poolings.
        *folders: images, and folders of images, that the views may open.
        view: name of the view, as in the address of the explorer (default: "network", of a layer "layer").
        shape: shape (n, channels, *spatial) of the network's input, such as (1, 3, 224, 224); a module needs it
            (default: a usual one).
        **words: state of the view, as its address holds it, such as ``image="scan.nii.gz"``, ``layer="conv1"`` or
            ``set=["levels=3"]``.

    Raises:
        ConfigError: there is no such network, file, folder or view, or a module came without the shape of its input.

    >>> show("resnet18", shape="1,3,64,64").view.name
    'network'
    >>> from torch import nn
    >>> show(nn.Conv2d(3, 8, 5, stride=2)).state
    'kind=correlation&kernel=5x5&stride=2x2&padding=0x0&dilation=1x1&size=7x7&in=3&out=8&groups=1&bias=1'
    """
    sizes = shape if shape is None or isinstance(shape, str) else ",".join(map(str, shape))
    given: GivenNetwork | None = None
    layer = _layer_words(subject) if isinstance(subject, (str, Path)) else _module_words(subject)
    if isinstance(subject, (str, Path)) or layer:
        word = str(subject)
    else:
        given = _given(subject, sizes)
        word, sizes = given.word, None
    roots = [str(each) for each in folders]
    session = Session.of(roots if layer else [word, *roots])
    known = {each.name: each for each in VIEWS}
    name = view or ("layer" if layer else "network")
    if name not in known:
        raise ConfigError(f"view: got {name!r}; expected one of {', '.join(known)}.")
    named = word if layer or not (is_file(word) or is_run(word)) else str(Path(word).resolve())
    state = [*layer.items()] if layer else [("net", named)]
    state += [("shape", sizes)] if sizes and not layer else []
    for key, value in words.items():
        state += [(key, each) for each in ([value] if isinstance(value, str) else value)]
    return Shown(session, known[name], urlencode(state), word, given)


def _given(module: object, shape: str | None) -> GivenNetwork:
    """Return a module with a word of its own.

    Raises:
        ConfigError: it is none, or came without the shape of its input.
    """
    name = type(module).__name__
    if not hasattr(module, "state_dict"):
        raise ConfigError(
            f"subject: got a {name}; expected a PyTorch module, or the name or path of a network, or a layer."
        )
    known = parse_shape(shape)
    if known is None:
        raise ConfigError(f"shape: {name} needs the shape of its input. Give it: show(net, shape=(1, 3, 224, 224)).")
    return GivenNetwork.of(module, known)  # type: ignore[arg-type]


def _module_words(module: object) -> dict[str, str]:
    """Return the state of the arithmetic bench for a convolution or pooling of PyTorch; {} for another module."""
    found = re.fullmatch(r"(ConvTranspose|Conv|MaxPool|AvgPool)([123])d", type(module).__name__)
    if found is None or getattr(module, "padding_mode", "zeros") not in ("zeros", "reflect", "replicate", "circular"):
        return {}
    kind = {"ConvTranspose": "transposed", "Conv": "correlation", "MaxPool": "max_pool", "AvgPool": "average_pool"}
    layer: Any = module

    def each(name: str) -> str:
        value = getattr(layer, name)
        return "x".join(map(str, (value,) * int(found[2]) if isinstance(value, int) else value))

    padding = layer.padding if isinstance(layer.padding, str) else each("padding")
    words = {"kind": kind[found[1]], "kernel": each("kernel_size"), "stride": each("stride"),
             "padding": {"valid": "none"}.get(padding, padding)}  # fmt: skip
    words |= {"dilation": each("dilation")} if hasattr(layer, "dilation") else {}
    reach = zip(
        *(map(int, words.get(name, "").split("x")) for name in ("kernel", "dilation") if name in words), strict=True
    )
    least = 5 if found[2] == "3" else 7
    words["size"] = "x".join(str(max(least, 1 + math.prod([k - 1, *d]))) for k, *d in reach)
    if found[1].startswith("Conv"):
        words |= {"in": str(layer.in_channels), "out": str(layer.out_channels), "groups": str(layer.groups)}
        words |= {"bias": "0" if layer.bias is None else "1"}
        words |= {"output_padding": each("output_padding")} if found[1] == "ConvTranspose" else {}
        words |= {"border": layer.padding_mode} if layer.padding_mode != "zeros" else {}
    else:
        words |= {"ceil": "1"} if layer.ceil_mode else {}
        words |= {"count": "0"} if not getattr(layer, "count_include_pad", True) else {}
    return words


def _layer_words(subject: str | Path) -> dict[str, str]:
    """Return the state of the arithmetic bench for a layer as ``convoxel size`` takes it; {} for another word."""
    found = re.fullmatch(r"(k|pool|t)(\d+)(?:s(\d+))?(?:p(\w+?))??(?:d(\d+))?", str(subject))
    if found is None:
        return {}
    kind, kernel, stride, padding, dilation = found.groups()
    kinds = {"k": "correlation", "pool": "max_pool", "t": "transposed"}
    given = {"kind": kinds[kind], "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return {name: text for name, text in given.items() if text}


@dataclass(frozen=True)
class Shown:
    """A view in a notebook.

    Attributes:
        session: networks and folders that the view may open.
        view: the view that is shown first.
        state: its state, as the query of an address.
        word: the network or layer.
        given: the module, where one was given.
    """

    session: Session = field(repr=False)
    view: View
    state: str
    word: str
    given: GivenNetwork | None = field(default=None, repr=False)

    def page(self, name: str | None = None) -> str:
        """Return the page of a view (default: the one that is shown first), which stands alone."""
        pages = [KeptPage(each.name, each.title, self.state, ()) for each in VIEWS]
        view, page = next(
            (view, page) for view, page in zip(VIEWS, pages, strict=True) if page.name == (name or self.view.name)
        )
        return render_alone(page_templates(), self.session, view, page, pages, caller="asked")

    def answer(self, name: str, pairs: Sequence[Sequence[str]], changes: bool = False) -> tuple[JsonObject, bytes]:
        """Return what a page gets for a question: its answer or an error, and the bytes of a picture.

        Args:
            name: "VIEW/FUNCTION".
            pairs: words of the question, with their texts.
            changes: whether the function changes, starts or measures something (default no).
        """
        of, _, function = name.partition("/")
        view = next((each for each in (*VIEWS, *SHARED) if each.name == of), None)
        known = {} if view is None else view.actions if changes else view.answers
        if function not in known:
            return {"error": f"There is no function {name!r}."}, b""
        try:
            query = Query(tuple((str(key), str(value)) for key, value in pairs))
            found = known[function](self.session, query)
        except ConvoxelError as error:
            return {"error": str(error), "kind": type(error).__name__}, b""
        return ({}, found.content) if isinstance(found, Picture) else ({"answer": plain(found)}, b"")

    def _repr_html_(self) -> str:
        """Return what a notebook shows without a kernel: the network's picture and its table."""
        return still_html(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """Return the live view where anywidget is installed, and the still one beside it."""
        still = {"text/html": self._repr_html_(), "text/plain": repr(self)}
        if find_spec("anywidget") is None:
            return still
        bundle = _widget(self)._repr_mimebundle_()
        data, more = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**still, **(data or {})}, more


def still_html(shown: Shown) -> str:
    """Return a picture and a table of what is shown, as HTML without scripts."""
    from convoxel import draw

    state = dict(parse_qsl(shown.state))
    try:
        if shown.view.name == "layer":
            bench = Bench.of(Query(tuple(parse_qsl(shown.state))))
            tracks = bench.scan.tracks
            window = bench.scan.size, bench.scan.kernel, [t.s for t in tracks], list(bench.given), [t.d for t in tracks]
            if bench.is_pool:
                kind = bench.kind.removesuffix("_pool")
                figure = draw.pool(*window, kind=kind, ceil=bench.ceil, count_include_pad=bench.count_padding)
            else:
                added, border = [t.a for t in tracks], tracks[0].border
                figure = draw.conv(*window, kind=bench.kind, output_padding=added, border=border)
            return f"<div>{figure.svg()}</div>"
        shapes = [shape] if (shape := parse_shape(state.get("shape"))) else []
        options = parse_options(value for name, value in parse_qsl(shown.state) if name == "set")
        summary = find_network(state["net"], shapes, options).describe()
        return f"<div>{summary._repr_html_()}</div>"
    except (ConvoxelError, ValueError) as error:
        return f"<p>{html.escape(str(error))}</p>"


@functools.cache
def _widget_class() -> Any:
    anywidget: Any = import_module("anywidget")
    traitlets: Any = import_module("traitlets")

    class ExplorerWidget(anywidget.AnyWidget):  # type: ignore[misc]
        """A frame that holds a page of the explorer."""

        _esm = _MODULE.read_text()
        page = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int(_HEIGHT).tag(sync=True)

    return ExplorerWidget


def _widget(shown: Shown) -> Any:
    """Return a widget whose page asks ``shown``."""
    widget = _widget_class()(page=shown.page())

    def hear(widget: Any, message: Any, buffers: Any) -> None:
        if "open" in message:
            widget.page = shown.page(str(message["open"]))
            return
        asked = message["ask"]
        answer, content = shown.answer(str(asked["name"]), asked["pairs"], bool(asked["changes"]))
        widget.send({"id": asked["id"], **answer}, [content] if content else [])

    widget.on_msg(hear)
    return widget
