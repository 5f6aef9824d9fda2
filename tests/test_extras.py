"""Extras are exactly what the source imports, and every package has its reason in CONTRIBUTING.md."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.test_docs import CONTRIBUTING, section
from tests.test_house import MODULES, SOURCE, imports
from tools.requirements import extras, requirements

# Each extra, and the modules of ours (with all below them) that it is for; a module may need several.
USERS = {
    "torch": [
        "graph",
        "inspect",
        "nn",
        "models",
        "predict",
        "train",
        "lookup",
        "interchange",
        "face",
        "search",
        "draw",
        "bench",
        "demonstration",
        "explorer",
        "serve",
    ],
    "onnx": ["graph.load", "graph.read.onnx", "graph.write.onnx", "interchange"],
    "train": [
        "nn",
        "data",
        "models",
        "predict",
        "train",
        "draw",
        "report",
        "demonstration",
        "explorer",
        "files.yaml_text",
    ],
    "formats": ["data"],
    "explore": ["explorer", "web"],
    "serve": ["serve", "web"],
    "notebook": ["explorer.notebook"],
    "cluster": ["predict.ray_workers"],
    "search": ["search.study"],
    "track": ["train.tracking"],
    "bench": ["bench", "draw.figure", "draw.pixels"],
}
# Name in an import statement, where it is not that of the distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "pydantic_core": "pydantic",
    "resvg_py": "resvg-py",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
# Packages whose data files are read without importing them, and the module that does.
LOCATED = {"nilearn": "data.bundled", "sklearn": "data.bundled"}

# Packages that no source imports, and the one that loads them where they are installed.
EXAMPLES = sorted((SOURCE.parents[1] / "examples").glob("*.py"))  # an extra is for them too
PLUGINS = {"pylibjpeg": "pydicom", "pylibjpeg-libjpeg": "pydicom", "pylibjpeg-openjpeg": "pydicom"}


def distribution(name: str) -> str:
    """The distribution that an imported name belongs to."""
    top = name.split(".")[0]
    return DISTRIBUTIONS.get(top, top)


def names(listed: str) -> set[str]:
    """The distributions of one list of pyproject.toml, without versions."""
    return {re.split(r"[<>=\[;]", requirement)[0] for requirement in requirements(listed)}


def foreign_imports(module: str) -> set[str]:
    """The distributions beyond the core that a module of ours imports or whose files it reads."""
    tops = {name.split(".")[0] for _, name in imports(MODULES[module])}
    tops |= {name for name, place in LOCATED.items() if place == module}
    outside = tops - set(sys.stdlib_module_names) - {"convoxel"}
    return {distribution(name) for name in outside} - names("dependencies")


def below(module: str, prefixes: list[str]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("extra", USERS)
def test_an_extra_holds_only_what_its_modules_import(extra: str) -> None:
    wanted = {name for module in MODULES if below(module, USERS[extra]) for name in foreign_imports(module)}
    wanted |= {name for name, loader in PLUGINS.items() if loader in wanted}
    wanted |= {distribution(name) for path in EXAMPLES for _, name in imports(path)}
    assert sorted(names(extra) - wanted) == [], f"{extra}: nothing imports these"


def test_every_import_is_brought_by_an_extra_of_its_module() -> None:
    wrong = []
    for module in MODULES:
        brought = {name for extra, users in USERS.items() if below(module, users) for name in names(extra)}
        wrong += [f"{module} imports {name}" for name in sorted(foreign_imports(module) - brought)]
    assert wrong == []


def test_located_packages_are_those_that_are_named() -> None:
    for name, module in LOCATED.items():
        assert f'"{name}"' in MODULES[module].read_text(encoding="utf-8")


def test_every_package_has_a_reason() -> None:
    """The table of CONTRIBUTING.md names each package with the extras that list it."""
    listed = {(name, extra) for extra in extras() if extra != "all" for name in names(extra)}
    listed |= {(name, "core") for name in names("dependencies")}
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section(CONTRIBUTING, "Dependencies"), re.MULTILINE)
    told = {
        (name, place)
        for packages, places in rows[1:]
        for name in packages.split(", ")
        for place in re.findall(r"`(\w+)`", places) or [places.strip()]
    }
    assert sorted(each for each in told if each[1] in (*extras(), "core")) == sorted(listed)
    assert set(extras()) == {*USERS, "all", "dev", "docs"}


CORE = """
import sys
sys.modules.update(dict.fromkeys(("PIL", "torch", "onnx", "resvg_py", "jinja2"), None))
import numpy as np
import convoxel as cx
assert "<svg" in cx.draw.conv(5, kernel=3).svg()
for use in (
    lambda: cx.draw.overlay(np.zeros((4, 4)), np.zeros((4, 4), np.uint8)), lambda: cx.models, lambda: cx.compile(None),
    lambda: cx.draw.conv(5, kernel=3).picture(),
):
    try:
        use()
    except (cx.UnsupportedError, cx.ConfigError) as error:
        print(error)
try:
    from convoxel import nn
except ImportError:  # as where the package itself is missing
    pass
"""


def test_the_core_does_without_extras_and_names_them() -> None:
    done = subprocess.run([sys.executable, "-c", CORE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [re.findall(r"pip install 'convoxel\[(\w+)\]'", line) for line in done.stdout.splitlines()]
    assert found == [["train"], ["torch"], ["torch"], ["train"]], done.stdout
