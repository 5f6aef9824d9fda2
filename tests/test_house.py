"""Rules of the house that a reader could break without noticing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import convoxel

SOURCE = Path(convoxel.__file__).parent

# Each layer may import those before it, and itself; layers of one line do not know each other. A module that no line
# names belongs to the longest prefix that one does.
LAYERS = [
    ["errors"],
    ["fork"],
    ["files"],
    ["annotation"],
    ["face"],
    ["lazy"],
    ["arithmetic"],
    ["native", "reference"],
    ["graph.ir"],
    ["graph.operators"],
    ["graph.read"],
    ["graph.passes"],
    ["graph.write"],
    ["graph.store"],
    ["graph.run"],
    ["graph"],
    ["inspect"],
    ["nn"],
    ["models"],
    ["data"],
    ["predict"],
    ["train"],
    ["search"],
    ["lookup"],
    ["interchange"],
    ["draw"],
    ["report"],
    ["bench"],
    ["demonstration"],
    ["cli.parsing"],
    ["web"],
    ["explorer", "serve"],
    ["cli"],
    ["__init__", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Beyond the order: who must not know whom, or which package.
FORBIDDEN = {
    "arithmetic": ("numpy", "torch"),
    "native": ("torch", "onnx"),
    "nn": ("convoxel.graph", "convoxel.native"),
    "models": ("convoxel.graph", "convoxel.native"),
    "graph.run": ("torch", "onnx"),
    "cli": ("numpy", "torch"),  # commands parse, call the library and print
}


def module_name(path: Path) -> str:
    """The dotted name below the package: "graph.ir.size"."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
NAMES = {*MODULES, "native._core"}  # the engine, which is no file of Python


def layer_of(module: str) -> str:
    """The longest prefix of a module's name that is a layer."""
    parts = module.split(".")
    return next((p for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in RANK), "")


def imports(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, wherever, by statement or by name; of ours the modules that names come from."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [(node.lineno, text) for text in constant_prefixes(node)]
    return found


def constant_prefixes(call: ast.Call) -> list[str]:
    """The names, or the constant beginnings of names, that ``import_module`` gets."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.JoinedStr):
        first = first.values[0]
    return [first.value.rstrip(".")] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []


def our_module(name: str) -> str:
    """The module of ours that an imported name belongs to, "" if it is none of ours."""
    parts = name.split(".")
    if parts[0] != "convoxel" or len(parts) == 1:
        return ""
    inner = parts[1:]
    return next((m for n in range(len(inner), 0, -1) if (m := ".".join(inner[:n])) in NAMES), "errors")


def against_the_order() -> set[tuple[str, str]]:
    """Pairs of modules, the first of which imports the second against the order."""
    wrong = set()
    for module, path in MODULES.items():
        layer = layer_of(module)
        assert layer, f"{path} belongs to no layer"
        for _, name in imports(path):
            other = our_module(name)
            if other and layer_of(other) != layer and RANK[layer_of(other)] >= RANK[layer]:
                wrong.add((module, other))
            elif any(name == f or name.startswith(f + ".") for f in FORBIDDEN.get(layer, ())):
                wrong.add((module, name))
    return wrong


@pytest.mark.smoke
def test_imports_go_up_the_layers_only() -> None:
    wrong = against_the_order()
    assert sorted(wrong) == []


@pytest.mark.smoke
def test_no_circle_of_imports() -> None:
    """Also not one of imports inside functions, or for types alone."""
    edges = {
        module: {o for _, name in imports(path) if (o := our_module(name)) in MODULES and o != module}
        for module, path in MODULES.items()
    }
    state: dict[str, int] = {}

    def visit(module: str, way: list[str]) -> None:
        state[module] = 1
        for other in sorted(edges[module]):
            if state.get(other) == 1:
                raise AssertionError(" → ".join([*way[way.index(other) :], other]))
            if other not in state:
                visit(other, [*way, other])
        state[module] = 2

    for module in edges:
        if module not in state:
            visit(module, [module])


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


WRITERS = {"write_text", "write_bytes", "savefig", "save_file", "tofile", "to_filename", "imwrite", "mkstemp"}
OPENERS = {"open", "ZipFile", "GzipFile", "TarFile", "File"}
# Who may write by itself, and why.
OWN_FILES = {"train.run_record": "TensorBoard reads events while they are added"}


def writes_a_file(call: ast.Call) -> bool:
    """True if a call opens or writes a file by its path; functions of ``files`` are called by their bare names."""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if method in WRITERS or ast.unparse(call.func) == "json.dump":
        return True
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Name) and first.id in ("buffer", "file", "stream"):
        return False
    if re.fullmatch(r"np\.save(z|z_compressed|txt)?", ast.unparse(call.func)):
        return True
    texts = [*call.args[:2], *(k.value for k in call.keywords if k.arg == "mode")]
    modes = [t.value for t in texts if isinstance(t, ast.Constant) and isinstance(t.value, str)]
    opens = ast.unparse(call.func).split(".")[-1] in OPENERS
    return opens and any(re.fullmatch(r"[wax][bt+]*|r[bt]*\+[bt]*", mode) for mode in modes)


@pytest.mark.smoke
def test_files_are_written_in_one_place() -> None:
    wrong = {
        module: f"{path.relative_to(SOURCE)}:{node.lineno} {ast.unparse(node)[:60]}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and layer_of(module) != "files" and writes_a_file(node)
    }
    assert [where for module, where in wrong.items() if module not in OWN_FILES] == [], "use convoxel.files.atomic"
    assert set(OWN_FILES) <= set(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path.write_text('a')", True),
        ("write_text(path, 'a')", False),
        ("open(path, 'w')", True),
        ("path.open('xb')", True),
        ("path.open('r+b')", True),
        ("open(path)", False),
        ("path.open('rb')", False),
        ("zipfile.ZipFile(path, 'w')", True),
        ("zipfile.ZipFile(buffer, 'w')", False),
        ("gzip.open(path, mode='at')", True),
        ("np.savez(path, a=a)", True),
        ("np.save(file, a)", False),
        ("Image.open(path, 'r')", False),
    ],
)
def test_the_check_of_writers_knows_them(text: str, expected: bool) -> None:
    (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    assert writes_a_file(call) == expected


def test_package_parts_are_named_by_one_noun() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "base", "manager", "v2", "old", "new"}
    wrong = [p for p in SOURCE.rglob("*.py") if vague & set(p.stem.split("_"))]
    assert wrong == []


def test_no_file_name_occurs_in_more_than_two_packages() -> None:
    """Stack traces and searches then name one place."""
    packages: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        packages.setdefault(path.stem, set()).add(path.relative_to(SOURCE).parts[0])
    assert {stem for stem, places in packages.items() if len(places) > 2} <= {"__init__"}


def questions(text: str) -> list[str]:
    """Return the docstrings of a file's ``text`` that open with a question word."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    return [doc for doc in docs if re.match(r"(What|How|Whether)\b", doc)]


@pytest.mark.smoke
def test_no_docstring_opens_with_a_question_word() -> None:
    """They open with a noun phrase or an imperative."""
    root = SOURCE.parents[1]
    files = [path for folder in ("src", "tests", "tools") for path in sorted((root / folder).rglob("*.py"))]
    assert [f"{path.relative_to(root)}: {doc[:60]}" for path in files for doc in questions(path.read_text())] == []
    assert questions('def f():\n    """Whether it is."""') and not questions('"""Howitzers: a list."""')


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
