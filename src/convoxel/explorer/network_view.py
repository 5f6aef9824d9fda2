"""A network: its graph with shapes, its table, what it costs and takes, and what an edit or another network changes.

The figures are those of ``convoxel describe``, times and algorithms those of ``convoxel compile``, and the graph is
that of ``convoxel draw network``, of which the page opens and closes parts.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from convoxel.bench.network_error import measure_errors
from convoxel.bench.profile import profile_network
from convoxel.cli.parsing import parse_options, parse_shape
from convoxel.draw.letter import fit, text_width
from convoxel.draw.network_diagram import node_size, place
from convoxel.draw.network_difference import difference
from convoxel.draw.network_heat import error_heat
from convoxel.draw.network_outline import Node, Outline, Subject, outline, usual_depth
from convoxel.draw.quantity import count, percent
from convoxel.draw.quantity import sizes as say
from convoxel.draw.scene import Line
from convoxel.errors import ConfigError
from convoxel.explorer.opened_network import USUAL, OpenedNetwork, open_network
from convoxel.explorer.view import KeptPage, Pair, Query, View, page_name
from convoxel.inspect.describe import group_steps
from convoxel.inspect.table import COLUMNS, bytes_text
from convoxel.lookup import is_file, is_given

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject
    from convoxel.inspect import Row, Summary

_COLUMNS = ("layer", "operator", "output", "kernel", "params", "macs", "bytes", "field")
# Parts and arrows that a page still moves fluently, and that are placed within a second.
_MOST_NODES, _MOST_EDGES = 600, 1300


# ---- what the page shows ----------------------------------------------------------------------------------


def catalogue(session: Session, query: Query) -> JsonObject:
    """Return the networks that can be opened: those of the start, and those of the zoo with published figures."""
    from convoxel import models

    zoo = [{"name": name, "task": models.entry(name).task} for name in models.names()]
    return {"opened": session.networks, "zoo": zoo, "roots": session.entries()}


def describe(session: Session, query: Query) -> JsonObject:
    """Return the figures of a network: totals, a row for each layer, warnings, and the options that can be set."""
    found = open_network(session, query)
    summary = found.summary
    return {
        "net": found.word,
        "name": summary.name,
        "title": summary.title,
        "input": ",".join(map(str, found.named.shape)),
        "totals": [{"name": name, "text": text} for name, text in summary.totals()],
        "total": summary.to_dict()["total"],
        "columns": [{"name": name, "title": column.heading, "number": column.right, "help": column.meaning}
                    for name, column in COLUMNS.items() if name in _COLUMNS],
        "rows": [_row(row) for row in summary.folded()],
        "remarks": summary.remarks,
        "warnings": summary.warnings,
        "geometry": found.named.geometry,
        "controls": _controls(found),
        "copies": _copies(found),
        "measured": _measured(session, found),
        "errors": _errors(session, found),
    }  # fmt: skip


def _row(row: Row) -> JsonObject:
    """Return a row as texts to show, and as numbers to sort by."""
    values = {"params": row.params, "macs": row.macs, "bytes": row.activation_bytes, "field": _reach(row),
              "output": row.output_shape[1] if len(row.output_shape) > 1 else 0}  # fmt: skip
    return {"cells": {name: COLUMNS[name].cell(row) for name in _COLUMNS}, "values": values}


def _reach(row: Row) -> int | Fraction:
    return max(row.field.size) if row.field is not None and row.field.size else 0


def graph(session: Session, query: Query) -> JsonObject:
    """Return the graph: boxes with their places and figures, and the ways of the arrows.

    Besides the network, ``depth`` says how many parts of a module's path make a box, and ``open`` and ``close`` name
    modules that are shown in parts, or as one box, all the same.
    """
    found = open_network(session, query)
    depth = query.number("depth", usual_depth(found.subject), most=20)
    drawn = outline(found.subject, depth, query.texts("open"), query.texts("close"))
    return {**_drawn(session, found, drawn), "depth": depth, "deepest": _deepest(found.subject)}


def joint(session: Session, query: Query) -> JsonObject:
    """Return the graph of a network and another one, whose words begin with ``a.``, with what is new, changed or gone.

    Further words are those of :func:`graph`.
    """
    before, after = open_network(session, query.under("a.")), open_network(session, query)
    depth = query.number("depth", 0, 0, 20) or None
    found = difference(before.subject, after.subject, depth, query.texts("open"), query.texts("close"))
    drawn = _drawn(session, after, found.outline)
    for node, state, was in zip(drawn["nodes"], found.states, found.before, strict=True):
        node["state"] = state
        if state == "removed":  # another part may have its name
            node.update(name=f"{node['name']} (removed)", rows=[])
        if was:
            node["sees"] = fit(f"was {was}", node["width"] - 24, 10.5)
    for edge, state in zip(drawn["edges"], found.edges, strict=True):
        edge["state"] = state
    return {**drawn, "told": found.told()}


def _drawn(session: Session, found: OpenedNetwork, drawn: Outline) -> JsonObject:
    """Return the boxes and arrows of an outline."""
    if len(drawn.nodes) > _MOST_NODES or len(drawn.edges) > _MOST_EDGES:
        raise ConfigError(
            f"depth: {len(drawn.nodes)} parts and {len(drawn.edges)} arrows are too many to draw; up to {_MOST_NODES} "
            f"and {_MOST_EDGES} are. Close some parts, or give a smaller depth."
        )
    placed = place(drawn, found.subject.size)
    table, owners = found.summary.folded(), _row_numbers(found)
    measured, errors = _measured(session, found), _errors(session, found)
    nodes = [
        _node(node, centre, table, owners, measured) for node, centre in zip(drawn.nodes, placed.centres, strict=True)
    ]
    if errors is not None:
        heat = error_heat(errors["layers"])
        for box, node in zip(nodes, drawn.nodes, strict=True):
            box["values"]["error"] = heat.of(node)
    _add_heat(nodes)
    edges = [
        {"from": start, "to": end, "skip": number in placed.level,
         "points": next(shape.points for shape in arrow if isinstance(shape, Line) and not shape.closed)}
        for number, ((start, end), arrow) in enumerate(zip(drawn.edges, placed.edges(drawn), strict=True))
    ]  # fmt: skip
    return {
        "nodes": nodes, "edges": edges,
        "width": max(node["x"] + node["width"] for node in nodes), "left": min(node["x"] for node in nodes),
        "height": max(node["y"] + node["height"] for node in nodes), "top": min(node["y"] for node in nodes),
    }  # fmt: skip


def _deepest(subject: Subject) -> int:
    return max((step.name.partition(":")[0].count(".") + 1 for step in subject.record.steps), default=1)


def _row_numbers(found: OpenedNetwork) -> dict[str, int]:
    """Return for each step the number of its row in the table, where norms and activations are in their layer's row."""
    folded = [number for number, row in enumerate(found.summary.folded()) for _ in range(row.steps)]
    return {
        found.subject.record.steps[step].name: folded[number]
        for number, (_, steps) in enumerate(group_steps(found.subject.record))
        for step in steps
    }


def _node(
    node: Node, centre: tuple[float, float], table: Sequence[Row], owners: dict[str, int], measured: JsonObject | None
) -> JsonObject:
    width, height = node_size(node)
    rows = sorted({owners[step.name] for step in node.steps if step.name in owners})
    times = measured["rows"] if measured else {}
    path = node.name.partition(":")[0]
    shape = say(node.shape[1:]) if len(node.shape) > 1 else say(node.shape)
    params = f"{count(node.params)} params" if node.params else ""
    sees = node.sees() or ("" if node.kind == "input" else "field not known")
    room = width - 26 if node.joins else width - 24
    inner = {step.name.partition(":")[0] for step in node.steps}
    return {
        "name": node.name, "path": path, "what": node.what(), "kind": node.kind, "joins": node.joins,
        "shape": shape, "sees": fit(sees, room - text_width(params, 10.5) - 8, 10.5), "params": params, "rows": rows,
        "label": _label(node.name, room - text_width(shape, 11) - 30), "says": fit(node.what(), room, 10.5),
        "opens": any(name != path and name.startswith(f"{path}.") for name in inner),
        "x": centre[0] - width / 2, "y": centre[1] - height / 2, "width": width, "height": height,
        "values": {
            "params": node.params,
            "macs": sum(table[row].macs for row in rows),
            "bytes": sum(table[row].activation_bytes for row in rows),
            "time": sum(times.get(row, {"time_s": 0.0})["time_s"] for row in rows) if measured else None,
            "error": None,
        },
    }  # fmt: skip


def _label(name: str, room: float) -> str:
    """Return as many of the last parts of a path as there is room for: they tell neighbours apart."""
    parts = name.split(".")
    texts = [".".join(parts), *("…" + ".".join(parts[first:]) for first in range(1, len(parts)))]
    return next(
        (text for text in texts if text_width(text, 12.5, bold=True) <= room), fit(texts[-1], room, 12.5, bold=True)
    )


_SHOWN: dict[str, Callable[[Any], str]] = {
    "params": count,
    "macs": count,
    "bytes": bytes_text,
    "time": lambda value: f"{1e3 * value:.3g} ms",
    "error": lambda value: f"{value:.2g}",
}


def _add_heat(nodes: list[JsonObject]) -> None:
    """Add to each box its share of the largest and, in words, of all, by each figure."""
    for name, shown in _SHOWN.items():
        values = [node["values"][name] or 0 for node in nodes]
        most, total = max(values) or 1, sum(values) or 1
        for node, value in zip(nodes, values, strict=True):
            node.setdefault("heat", {})[name] = value / most
            share = f" ({percent(value / total)})" if name != "error" else ""  # errors do not add up
            node.setdefault("shown", {})[name] = f"{shown(value)}{share}" if value else ""


# ---- measured times ---------------------------------------------------------------------------------------


def measure(session: Session, query: Query) -> JsonObject:
    """Compile the network, run it on random input, and return the time and the algorithm of every step.

    Raises:
        ConfigError: another measurement is under way, which this one would disturb.
    """
    found = open_network(session, query)
    if not session.measuring.acquire(blocking=False):
        raise ConfigError("measure: another network is being measured. Wait until that is done.")
    try:
        profile = profile_network(found.word, found.named.shape, parse_options(found.assigned))
    finally:
        session.measuring.release()
    names = {row.name: number for number, row in enumerate(found.summary.folded())}
    rows: dict[int, JsonObject] = {}
    for step in profile.steps:
        number = names.get(step["name"], names.get(step["name"].partition(":")[0]))
        if number is not None:
            row = rows.setdefault(number, {"time_s": 0.0, "algorithm": "", "gflops": 0.0})
            row["time_s"] += step["time_s"]
            if step["algorithm"]:
                row.update(algorithm=step["algorithm"], gflops=step["gflops"])
    for row in rows.values():
        row["shown"] = f"{1e3 * row['time_s']:.3f}"
    result = {
        "rows": rows,
        "steps": profile.steps,
        "time_s": profile.time_s,
        "text": f"{1e3 * profile.time_s:.1f} ms a run on this machine, {profile.flops / 1e9:.0f} GFLOP/s; "
        f"compiled in {profile.compile_s:.1f} s; one run after a first one",
    }
    session.times[_key(found)] = result
    return result


def errors(session: Session, query: Query) -> JsonObject:
    """Compute the network in float32 and in float64, and return the relative error of every layer.

    Raises:
        ConfigError: another measurement is under way.
    """
    found = open_network(session, query)
    if not session.measuring.acquire(blocking=False):
        raise ConfigError("errors: another network is being measured. Wait until that is done.")
    key = _progress_key(found)
    try:
        layers = measure_errors(
            found.word, found.named.shape, parse_options(found.assigned),
            on_progress=lambda done, count: session.progress.update({key: done / count}),
        )  # fmt: skip
    finally:
        session.measuring.release()
        session.progress.pop(key, None)
    owners = _row_numbers(found)
    largest = max(layers, key=lambda name: layers[name])
    result = {
        "layers": layers,
        "rows": {owners[name]: f"{value:.2g}" for name, value in layers.items()},
        "numbers": {owners[name]: value for name, value in layers.items()},
        "text": f"Errors of float32 relative to float64, random input: up to {layers[largest]:.2g}, in {largest}",
    }
    session.times["error", _key(found)] = result
    return result


def progress(session: Session, query: Query) -> JsonObject:
    """Return the share of the layers that are compared; None where nothing is under way."""
    return {"share": session.progress.get(_progress_key(open_network(session, query)))}


def _progress_key(found: OpenedNetwork) -> str:
    return f"errors of {_key(found)}"


def _errors(session: Session, found: OpenedNetwork) -> JsonObject | None:
    return session.times.get(("error", _key(found)))


def _key(found: OpenedNetwork) -> tuple[object, ...]:
    return found.word, found.shape, found.assigned


def _measured(session: Session, found: OpenedNetwork) -> JsonObject | None:
    return session.times.get(_key(found))


# ---- what an edit changes ---------------------------------------------------------------------------------


def compare(session: Session, query: Query) -> JsonObject:
    """Return what is different in a network beside another, whose words begin with ``a.``."""
    before, after = open_network(session, query.under("a.")), open_network(session, query)
    totals = []
    for (name, text), (_, other), (first, second) in zip(
        before.summary.totals(), after.summary.totals(), _figures(before.summary, after.summary), strict=False
    ):
        change = "" if text == other else _change(first, second)
        totals.append({"name": name, "before": text, "after": other, "change": change, "same": text == other})
    old, new = ({row.name: row for row in each.summary.folded()} for each in (before, after))
    rows = {
        name: "new" if name not in old else "changed"
        for name, row in new.items()
        if name not in old or _described(old[name]) != _described(row)
    }
    return {
        "names": [before.summary.title, after.summary.title], "totals": totals, "rows": rows,
        "gone": [name for name in old if name not in new], "same": not rows and old.keys() == new.keys(),
    }  # fmt: skip


def _described(row: Row) -> list[str]:
    return [COLUMNS[name].cell(row) for name in _COLUMNS[1:]]


def _figures(before: Summary, after: Summary) -> list[tuple[float | None, float | None]]:
    """Return the numbers behind the totals, in their order; None where there is no single one."""

    def of(summary: Summary) -> list[float | None]:
        field = summary.field
        reach = float(max(field.size)) if field is not None and field.size else None
        return [summary.params, summary.macs, summary.activation_bytes, summary.training_bytes, reach, None]

    return list(zip(of(before), of(after), strict=True))


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None or before == after:
        return "changed"
    if not before:
        return f"+{count(after)}"
    factor = after / before
    if 0.5 < factor < 2:
        return f"{100 * (factor - 1):+.1f} %".replace("-", "−")
    return f"×{factor:.3g}"


# ---- options and copies -----------------------------------------------------------------------------------


def _controls(found: OpenedNetwork) -> list[JsonObject]:
    """Return the options of a network of the zoo, with their values; networks of files and runs have none."""
    from convoxel import models, nn
    from convoxel.models.alteration import DROPOUTS, PADDINGS
    from convoxel.nn.documentation import NETWORKS

    if is_file(found.word) or found.word not in models.names():
        return []
    entry = models.entry(found.word)
    shape = found.named.shape
    given = parse_options(found.assigned)
    defaults: JsonObject = {
        "dims": 2, "in_channels": entry.default("in_channels"), "num_classes": entry.default("num_classes"),
        **entry.options,
    }  # fmt: skip
    now = {**defaults, "dims": len(shape) - 2, "in_channels": shape[1], **given}
    choices: dict[str, Sequence[str]] = {
        "norm": list(nn.NORMS), "activation": list(nn.ACTIVATIONS), "dropout_where": DROPOUTS, "padding": PADDINGS,
    }  # fmt: skip
    if "padding" in entry.own_options:
        choices["padding"] = ("same", "none", *PADDINGS[1:])
    controls = []
    for name, default in defaults.items():
        kind = "switch" if isinstance(default, bool) else "text"
        low, high, step = _RANGES.get(name, (0, 0, 0))
        if name == "width" and isinstance(default, int):  # channels of the first level, not a factor
            low, high, step = 4, 128, 4
        controls.append(
            {
                "name": name, "kind": "choice" if name in choices else kind, "default": _written(default),
                "value": _written(now[name]), "choices": choices.get(name, []), "help": NETWORKS.get(name, ""),
                "range": [low, max(high, default), step] if high else [],
            }
        )  # fmt: skip
    return controls


_RANGES = {
    "dims": (1, 3, 1), "levels": (1, 6, 1), "width": (0.25, 2, 0.25), "depth": (0.5, 3, 0.25),
    "in_channels": (1, 16, 1), "num_classes": (1, 20, 1), "blocks": (1, 4, 1), "kernels": (1, 7, 2),
}  # fmt: skip


def _written(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return str(value)


def _copies(found: OpenedNetwork) -> list[JsonObject]:
    """Return the same as commands and as Python."""
    if is_given(found.word):
        python = f"import convoxel as cx\n\nsummary = cx.describe(net, {found.named.shape})\nprint(summary)"
        return [{"name": "Python", "text": python}]
    given = f" --shape {found.shape}" if found.shape else ""
    given += "".join(f" --set {shlex.quote(each)}" for each in found.assigned)
    word = shlex.quote(found.word)
    shape = f", {parse_shape(found.shape)}" if found.shape else ""
    options = "".join(f", {name}={value!r}" for name, value in parse_options(found.assigned).items())
    python = f"import convoxel as cx\n\nsummary = cx.describe({found.word!r}{shape}{options})\nprint(summary)"
    return [
        {"name": "Table (command)", "text": f"convoxel describe {word}{given}"},
        {"name": "Python", "text": python},
        {"name": "Picture (command)", "text": f"convoxel draw network {word}{given} --svg network.svg"},
        {"name": "Times (command)", "text": f"convoxel compile {word}{given}"},
        {"name": "Errors (command)", "text": f"convoxel draw network {word}{given} --heat error --svg errors.svg"},
    ]


# ---- pages as files -----------------------------------------------------------------------------------------


def _only(word: str, query: Query) -> JsonObject:
    return {"opened": [word], "zoo": [], "roots": []}


def keep_pages(session: Session) -> Iterator[KeptPage]:
    """Yield a page for each network that was named: its graph at every depth, and with other numbers of levels."""
    for word in session.networks or (USUAL,):
        found = open_network(session, Query((("net", word),)))
        base = [("net", word)]
        states = [base]
        levels = next((each for each in _controls(found) if each["name"] == "levels"), None)
        if levels is not None:
            states += [[*base, ("set", f"levels={count}")] for count in range(1, 7) if str(count) != levels["value"]]
        questions: list[tuple[str, Sequence[Pair]]] = [("network/catalogue", [])]
        for state in states:
            questions += [("network/describe", state), ("network/graph", state)]
            questions.append(("network/compare", [*state, *((f"a.{name}", value) for name, value in base)]))
        depths = range(1, _deepest(found.subject) + 1)
        questions += [("network/graph", [*base, ("depth", str(depth))]) for depth in depths]
        yield KeptPage(
            page_name("network", word), found.summary.name, f"net={quote(word)}", questions,
            {"network/catalogue": partial(_only, word)},
        )  # fmt: skip


VIEW = View(
    "network",
    "Network",
    "The graph of a network, its layers with costs and fields, and what an edit changes.",
    {
        "catalogue": catalogue,
        "describe": describe,
        "graph": graph,
        "compare": compare,
        "joint": joint,
        "progress": progress,
    },
    {"measure": measure, "errors": errors},
    keep_pages,
)
