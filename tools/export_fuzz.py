"""Exports of drawn modules, with open sizes, against ONNX Runtime and PyTorch on several input sizes.

Run by hand; wants onnxruntime and, for the newer exporter, onnxscript::

    .venv/bin/python -m tools.export_fuzz                                2 500 models by TorchScript, 500 by dynamo
    .venv/bin/python -m tools.export_fuzz --torchscript 100 --dynamo 0   fewer
    .venv/bin/python -m tools.export_fuzz --compiled 300                 and 300 by cx.compile, without a file
    .venv/bin/python -m tools.export_fuzz --results FILE                 keep results in FILE; go on with what is there
    .venv/bin/python -m tools.export_fuzz --only torchscript:17          one model, and why it failed

A model is ``exporter:seed``; the seed decides the module (``drawn_exports``) and the operator set. Its file is run on
the size that it was exported with and on others, where ONNX Runtime runs it. A result is right if it is ONNX Runtime's,
or PyTorch's where these two differ because of ONNX Runtime. What an exporter or ONNX Runtime refuses does not count.
The exit code is 1 if a result is wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import json
import logging
import os
import random
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

import convoxel as cx
from convoxel.errors import ConvoxelError
from convoxel.graph.load import from_onnx
from tools.drawn_exports import DrawnExport

__all__ = ["export", "run_model"]

Arrays = list[NDArray[Any]]
_SETS = {"torchscript": range(9, 21), "dynamo": range(18, 24)}
_LETTERS = "dhw"


def export(net: DrawnExport, exporter: str, opset: int) -> bytes:
    """Return an ONNX file of a module with open batch and spatial sizes."""
    spatial = {2 + axis: letter for axis, letter in enumerate(_LETTERS[-net.dims :])}
    if net.open_batch:
        spatial[0] = "n"
    file = io.BytesIO()
    how: dict[str, Any] = {"input_names": ["x"], "opset_version": opset}
    with _silence(), torch.no_grad():
        if exporter == "torchscript":
            torch.onnx.export(net, (net.inputs[0],), file, dynamo=False, dynamic_axes={"x": spatial}, **how)
            return file.getvalue()
        _keep_registry()
        axes = dict.fromkeys(spatial, torch.export.Dim.DYNAMIC)
        program = torch.onnx.export(net, (net.inputs[0],), dynamo=True, dynamic_shapes=(axes,), **how)
        assert program is not None
        return bytes(program.model_proto.SerializeToString())


@functools.cache
def _keep_registry() -> None:
    """Keep the newer exporter's table of operators, which it makes anew for every model, in a third of the time."""
    from torch.onnx._internal.exporter import _registration

    registry = _registration.ONNXRegistry
    registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))  # type: ignore[method-assign, assignment]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discard what exporters print, those written in C++ as well."""
    logging.disable(logging.WARNING)
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream, _ in kept:
            os.dup2(nowhere, stream)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)
        logging.disable(logging.NOTSET)


def _arrays(result: Any) -> Arrays:
    return [np.asarray(each) for each in (result if isinstance(result, tuple | list) else (result,))]


def _near(got: Arrays, want: Arrays) -> bool:
    """Return whether results are equal up to the rounding of small networks."""
    if [g.shape for g in got] != [w.shape for w in want]:
        return False
    scales = [max(1.0, float(np.abs(w).max(initial=0))) for w in want]
    return all(np.allclose(g, w, 1e-3, 2e-4 * s, equal_nan=True) for g, w, s in zip(got, want, scales, strict=True))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def run_model(name: str) -> dict[str, Any]:
    """Return what happened to a model: its status, its operator set, its layers, and the reason of a failure."""
    exporter, seed = name.split(":")
    net = DrawnExport(int(seed), exact=exporter != "torchscript")
    record: dict[str, Any] = {"model": name, "kinds": net.kinds}
    with torch.no_grad():
        wanted = [_arrays(net(x)) for x in net.inputs]
    if exporter == "compiled":
        return record | _run_compiled(net, wanted)
    opset = random.Random(name).choice(_SETS[exporter])
    record["opset"] = opset
    try:
        file = export(net, exporter, opset)
    except Exception as reason:  # exporters raise many kinds
        return record | {"status": "not exported", "reason": _said(reason)}
    return record | _run_file(net, file, wanted)


def _run_compiled(net: DrawnExport, wanted: list[Arrays]) -> dict[str, Any]:
    refused: dict[str, Any] | None = None
    try:
        program = cx.compile(net, net.inputs[0])
    except ConvoxelError as reason:
        return {"status": "refused", "reason": _said(reason)}
    for x, want in zip(net.inputs, wanted, strict=True):
        try:
            got = _arrays(program(x.numpy()))
        except ConvoxelError as reason:
            refused = {"status": "refused at a size", "reason": _said(reason), "size": list(x.shape)}
            continue
        if not _near(got, want):
            return {"status": "wrong", "size": list(x.shape), "reason": _difference(got, want)}
    return refused or {"status": "right"}


def _run_file(net: DrawnExport, file: bytes, wanted: list[Arrays]) -> dict[str, Any]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(file, options)
        peers: list[Arrays | None] = []
        for x in net.inputs:
            try:
                peers.append(_arrays(session.run(None, {session.get_inputs()[0].name: x.numpy()})))
            except Exception:  # onnxruntime raises kinds of its own
                if not peers:
                    raise
                peers.append(None)
    except Exception as reason:
        return {"status": "not run by ONNX Runtime", "reason": _said(reason)}
    try:
        program = from_onnx(onnx.load_from_string(file))
    except ConvoxelError as reason:
        return {"status": "refused", "reason": _said(reason)}
    found: dict[str, Any] = {"status": "right", "sizes": 0}
    for x, want, peer in zip(net.inputs, wanted, peers, strict=True):
        if peer is None:
            continue
        try:
            got = _arrays(program(x.numpy()))
        except ConvoxelError as reason:
            return {"status": "refused at a size", "reason": _said(reason), "size": list(x.shape)}
        found["sizes"] += 1
        if _near(got, peer):
            continue
        if not _near(got, want):
            both = "" if _near(peer, want) else " (they differ from each other)"
            reason = f"ONNX Runtime: {_difference(got, peer)}; PyTorch: {_difference(got, want)}{both}"
            return {"status": "wrong", "size": list(x.shape), "reason": reason}
        found["status"] = "right, ONNX Runtime differs"
        found["reason"] = f"{list(x.shape)}: {_difference(got, peer)}"
    return found


def _difference(got: Arrays, want: Arrays) -> str:
    for g, w in zip(got, want, strict=True):
        if g.shape != w.shape:
            return f"shape {g.shape}, not {w.shape}"
    return f"off by {max(float(np.abs(g - w).max(initial=0)) for g, w in zip(got, want, strict=True)):.3g}"


# ---- many ------------------------------------------------------------------------------------------------------


def _read(results: Path | None) -> dict[str, dict[str, Any]]:
    """Return the results so far; a line that a kill cut off is none."""
    found: dict[str, dict[str, Any]] = {}
    for line in results.read_text().splitlines() if results is not None and results.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            begun_again = record["status"] == "begun" and found.get(record["model"], {}).get("status") == "begun"
            found[record["model"]] = {**record, "status": "killed"} if begun_again else record
    return found


def _append(results: Path | None, record: dict[str, Any]) -> None:
    """Add a line by one write."""
    if results is not None:
        results.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, f"\n{json.dumps(record)}\n".encode())
        os.close(descriptor)


def _report(found: dict[str, dict[str, Any]]) -> int:
    """Print a line for each exporter and every failure; return how many are wrong."""
    wrong = 0
    for exporter in ("torchscript", "dynamo", "compiled"):
        records = [record for name, record in found.items() if name.startswith(f"{exporter}:")]
        counts = collections.Counter(record["status"] for record in records)
        if not records:
            continue
        for record in records:
            if record["status"] in ("wrong", "refused", "refused at a size", "failed", "killed"):
                print(f"{record['status']:18}{record['model']} {record.get('reason', '')}")
        left_out = {"not exported", "not run by ONNX Runtime", "begun"}
        ran = sum(count for status, count in counts.items() if status not in left_out)
        bad = sum(counts[status] for status in ("wrong", "failed", "killed"))
        refused = counts["refused"] + counts["refused at a size"]
        more = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if status != "right")
        print(f"{exporter}: {ran} models, {bad} wrong, {refused} refused ({100 * refused / max(ran, 1):.1f} %); {more}")
        wrong += bad
    return wrong


def main() -> int:
    """Run models until there are as many as asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools.export_fuzz", description="exports against ONNX Runtime and PyTorch")
    parser.add_argument("--torchscript", type=int, default=2500, help="models by the TorchScript exporter")
    parser.add_argument("--dynamo", type=int, default=500, help="models by the newer exporter")
    parser.add_argument("--compiled", type=int, default=0, help="models by cx.compile, without a file")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="results are appended to FILE; what is there stays"
    )
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="models such as torchscript:17")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {} if given.only else _read(given.results)
    left_out = ("not exported", "not run by ONNX Runtime")
    for exporter in ("torchscript", "dynamo", "compiled"):
        names = given.only or (f"{exporter}:{seed}" for seed in range(given.first, sys.maxsize))
        ran = sum(r["status"] not in left_out for n, r in found.items() if n.startswith(f"{exporter}:"))
        for name in names:
            if not name.startswith(exporter) or (name in found and found[name]["status"] != "begun"):
                continue
            if not given.only and ran >= getattr(given, exporter):
                break
            _append(given.results, {"model": name, "status": "begun"})
            try:
                found[name] = run_model(name)
            except Exception as reason:  # a mistake of ours is a failure of this model
                found[name] = {"model": name, "status": "failed", "reason": _said(reason)}
                if given.only:
                    traceback.print_exc()
            torch._dynamo.reset()
            ran += found[name]["status"] not in left_out
            _append(given.results, found[name])
            if given.only:
                print(json.dumps(found[name]))
    return 1 if _report(found) else 0


if __name__ == "__main__":
    sys.exit(main())
