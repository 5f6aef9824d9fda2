"""Rules of the house that a reader could break without noticing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import convoxel

SOURCE = Path(convoxel.__file__).parent

# Each layer may import those before it (and itself).
LAYERS = [
    ["errors"],
    ["arithmetic"],
    ["native", "reference"],
    ["graph"],
    ["inspect"],
    ["nn"],
    ["models"],
    ["search", "data"],
    ["train"],
    ["draw"],
    ["bench"],
    ["explorer", "cli"],
]
# Beyond the order: who must not know whom, or which package.
FORBIDDEN = {
    "arithmetic": {"numpy", "torch"},
    "native": {"torch", "onnx"},
    "nn": {"convoxel.graph", "convoxel.native"},
    "models": {"convoxel.graph", "convoxel.native"},
}


def imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "convoxel" else [module]
            found += [(node.lineno, name) for name in names]
    return found


@pytest.mark.smoke
def test_imports_go_up_the_layers_only() -> None:
    rank = {name: i for i, names in enumerate(LAYERS) for name in names}
    errors = {"__version__", *(n for n in convoxel.__all__ if n.endswith("Error"))}
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        assert layer in rank, f"{path} belongs to no layer"
        for line, name in imports(path):
            parts = name.split(".")
            where = f"{path.relative_to(SOURCE)}:{line} imports {name}"
            ours = parts[0] == "convoxel" and len(parts) > 1 and parts[1] not in errors
            if ours and rank.get(parts[1], 99) > rank[layer]:
                wrong.append(where)
            if any(name == f or name.startswith(f + ".") for f in FORBIDDEN.get(layer, ())):
                wrong.append(where)
            if path.relative_to(SOURCE).as_posix() == "graph/program.py" and parts[0] == "torch":
                wrong.append(where)
    assert wrong == []


@pytest.mark.smoke
def test_import_is_light() -> None:
    code = (
        "import sys, convoxel; "
        "heavy = {'torch', 'onnx', 'numpy', 'monai', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'import convoxel brought {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_are_documented() -> None:
    assert list(convoxel.__all__) == sorted(convoxel.__all__)
    assert len(convoxel.__all__) <= 25
    for name in convoxel.__all__:
        assert getattr(convoxel, name).__doc__, f"convoxel.{name} has no docstring"
    assert set(convoxel.__all__) <= set(dir(convoxel))
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        convoxel.magic  # noqa: B018


@pytest.mark.smoke
def test_no_file_can_run_code() -> None:
    """No pickle in any form, whether called or imported."""
    banned = ("pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle")
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for line, name in imports(path):
            if name.split(".")[0] in banned:
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {name}")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            # The one reader of PyTorch's files takes tensors alone.
            tensors = path.name == "weights.py" and call == "torch.load" and keywords.get("weights_only") == "True"
            if call in ("torch.load", "torch.export.load", "torch.save", "eval", "exec") and not tensors:
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} calls {call}")
            if keywords.get("allow_pickle") == "True" or keywords.get("weights_only") == "False":
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} unpickles")
    assert wrong == []


def test_package_parts_are_named_by_one_noun() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "base", "manager", "v2", "old", "new"}
    wrong = [p for p in SOURCE.rglob("*.py") if vague & set(p.stem.split("_"))]
    assert wrong == []


def modules_with_examples() -> list[str]:
    paths = [p for p in sorted(SOURCE.rglob("*.py")) if ">>> " in p.read_text()]
    names = [".".join(p.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for p in paths]
    return [name for name in names if "._" not in name]


@pytest.mark.parametrize("module", modules_with_examples())
def test_docstring_examples_run(module: str) -> None:
    import doctest
    import importlib

    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0 and result.attempted > 0
