"""ONNX's own node tests through the whole pipeline: read, rewritten, planned, run.

Imported by ``tests/graph/test_onnx.py``, which runs a sample. As a program (``python -m tools.onnx_nodes [WORD]``) it
runs all cases of the scope and prints those that passed, were wrong, or were refused, with the reason. ``--fixed``
makes weights and other operands constants of the model, as exporters do, so that the native steps are used.
``--models`` runs the models of the package instead: the small ones that PyTorch exported and the nine real networks,
whose weights are constants. ``onnx_nodes.txt`` lists the cases that may be refused, with the reason; the program fails
if anything is wrong, if another case is refused, or if a listed case is right.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

EXCLUSIONS = Path(__file__).with_suffix(".txt")
SCOPE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "onnx_scope.json"


def cases() -> dict[str, Any]:
    """Every node case of the installed onnx package by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return {case.name: case for case in load_model_tests(kind="node")}


def scope() -> list[str]:
    """Return the names of the cases that test the operators of CNNs."""
    groups = json.loads(SCOPE.read_text())
    return [name for group in groups.values() for names in group.values() for name in names]


def exclusions() -> dict[str, str]:
    """Return the cases that may be refused, with the reason."""
    lines = [line for line in EXCLUSIONS.read_text().splitlines() if line and not line.startswith("#")]
    return dict(map(str.strip, line.split(":", 1)) for line in lines)  # type: ignore[arg-type, misc]


def judged(name: str, kind: str, detail: str, excluded: dict[str, str]) -> tuple[str, str]:
    """Return the outcome of a case and its description."""
    if name in excluded and kind == "refused":
        return "excluded", excluded[name]
    if name in excluded and kind == "right":
        return "stale", f"is right, but {EXCLUSIONS.name} lists it"
    return kind, detail


def fixed(model: Any, inputs: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return the model with all inputs but the first as initialisers, and the inputs that remain."""
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for info, array in zip(list(changed.graph.input)[1:], inputs[1:], strict=True):
        changed.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), info.name))
        changed.graph.input.remove(info)
    return changed, list(inputs[:1])


def run(case: Any, constant: bool = False) -> str:
    """Return "" if the case is right, else the difference; raise the exception of a refusal."""
    from convoxel.graph.load import from_onnx

    for given, wanted_results in case.data_sets:
        inputs, expected = ([_array(x) for x in row] for row in (given, wanted_results))
        model, arrays = fixed(case.model, inputs) if constant else (case.model, list(inputs))
        program = from_onnx(model)
        results = program(*(np.asarray(x) for x in arrays))
        results = results if isinstance(results, tuple) else (results,)
        for number, (result, wanted) in enumerate(zip(results, expected, strict=True)):
            wrong = differs(result, np.asarray(wanted), case.rtol, case.atol)
            if wrong:
                return f"result {number}: {wrong}"
    return ""


def _array(x: Any) -> Any:
    """Return a tensor as an array; types that NumPy lacks come as ONNX's own tensors."""
    import onnx

    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def differs(result: Any, wanted: Any, rtol: float, atol: float) -> str:
    """Return the difference of a result in type, shape or value from the expected one, or ""."""
    if result.dtype != wanted.dtype or result.shape != wanted.shape:
        return f"{result.dtype}{list(result.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
    if wanted.dtype.kind in "biu":
        return "" if np.array_equal(result, wanted) else "other whole numbers"
    a, b = result.astype(np.float64), wanted.astype(np.float64)
    if np.allclose(a, b, rtol, atol, equal_nan=True):
        return ""
    return f"differs by {np.max(np.abs(a - b)) if a.size else 0:.3g}"


def outcomes(names: Sequence[str], constant: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (name, kind, detail) of every case."""
    from convoxel.errors import ConvoxelError

    known = cases()
    for name in names:
        if name not in known:
            yield name, "absent", "not in this onnx package"
            continue
        case = known[name]
        if constant and not case.data_sets[0][0]:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                wrong = run(case, constant)
        except ConvoxelError as reason:
            yield name, "refused", str(reason)
        except Exception as reason:
            yield name, "error", f"{type(reason).__name__}: {reason}"
        else:
            yield name, "wrong" if wrong else "right", wrong


def exported() -> Iterator[tuple[str, str, str]]:
    """Yield (name, kind, detail) of every model that PyTorch exported and every real one in the onnx package."""
    from onnx.backend.test.loader import load_model_tests

    from convoxel.errors import ConvoxelError

    for kind in ("pytorch-converted", "pytorch-operator", "real"):
        for case in load_model_tests(kind=kind):
            try:
                wrong = _real(case) if case.model_dir is None else _stored_case(case)
            except ConvoxelError as reason:
                yield case.name, "refused", str(reason)
            else:
                yield case.name, "wrong" if wrong else "right", wrong


def _stored_case(case: Any) -> str:
    from convoxel.graph.load import load

    folder, wrong = Path(case.model_dir), ""
    program = load(folder / "model.onnx")
    for data in sorted(folder.glob("test_data_set_*")):
        results = program(*_stored(data, "input"))
        results = results if isinstance(results, tuple) else (results,)
        for result, wanted in zip(results, _stored(data, "output"), strict=True):
            wrong = wrong or differs(result, wanted, case.rtol, max(case.atol, 1e-6))
    return wrong


def _real(case: Any) -> str:
    """Return a network whose weights are all one number; ONNX's runner gives it inputs that rise from 0 to 1."""
    import onnx

    from convoxel.graph.load import load

    path = Path(onnx.__file__).parents[1] / case.url
    program = load(path)
    (value,) = program.graph.inputs  # type: ignore[union-attr]
    count = np.prod(value.shape)
    x = (np.arange(count).reshape(value.shape) / count).astype(np.float32)
    wanted = onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return differs(program(x), onnx.numpy_helper.to_array(wanted), case.rtol, case.atol)


def _stored(folder: Path, word: str) -> list[Any]:
    import onnx

    return [
        onnx.numpy_helper.to_array(onnx.TensorProto.FromString((folder / f"{word}_{number}.pb").read_bytes()))
        for number in range(len(list(folder.glob(f"{word}_*.pb"))))
    ]


def main() -> int:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    names = [name for name in (scope() if SCOPE.is_file() else cases()) if all(word in name for word in words)]
    counts: Counter[str] = Counter()
    rows = exported() if "--models" in sys.argv else outcomes(names, "--fixed" in sys.argv)
    excluded = exclusions()
    for name, kind, detail in rows:
        kind, detail = judged(name, kind, detail, excluded)
        counts[kind] += 1
        if kind != "right":
            print(f"{kind:8} {name}: {detail[:230]}")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())), f"of {sum(counts.values())}")
    return 0 if set(counts) <= {"right", "excluded", "absent"} else 1


if __name__ == "__main__":
    sys.exit(main())
