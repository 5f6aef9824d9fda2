"""The documentation keeps its word: its code runs, its links lead somewhere, and the reference shows every name."""

from __future__ import annotations

import ast
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_docs import README, cli, unknown_words
from tools.docs.benchmark_page import FOLDER, ratios, render_benchmarks
from tools.docs.command_page import find_commands, render_command
from tools.docs.page import PAGES, ROOT, Block, find_pages, read_blocks, split_page
from tools.docs.reference import MODULES, names_without_example, render_module
from tools.docs.session import BlockError, Session
from tools.docs.written import run_page, write_page

NAMES = [path.relative_to(PAGES).as_posix() for path in find_pages()]
BLOCKS = [(name, block) for name in NAMES for block in read_blocks(PAGES / name)]


def test_nearly_every_block_of_code_is_run_and_the_others_say_why() -> None:
    left = [(name, block) for name, block in BLOCKS if block.not_run]
    assert len(left) <= 0.05 * len(BLOCKS), [f"{name}:{block.line}" for name, block in left]
    assert [block.not_run for _, block in left if len(block.not_run.split()) < 4] == []


def test_blocks_of_python_parse_and_commands_exist() -> None:
    command = cli()
    wrong = {}
    for name, block in BLOCKS:
        if block.language == "python":
            ast.parse(block.code, f"{name}:{block.line}")
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = line.split()
            if words[:1] == ["convoxel"] and block.exit != 2 and (unknown := unknown_words(command, words[1:])):
                wrong[f"{name}:{block.line}"] = unknown
    assert wrong == {}


def addresses(page: str) -> list[str]:
    """The addresses of links and pictures outside of code."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def heading_ids(page: str) -> set[str]:
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in
            re.findall(r"^#+ (.+)$", page, re.MULTILINE)}  # fmt: skip


def made_pages() -> set[str]:
    """The pages that the build adds to those by hand."""
    made = {f"reference/{module.removeprefix('convoxel.')}.md" for module in MODULES}
    return made | {f"commands/{name}.md" for name in find_commands()} | {"benchmarks.md"}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page, made, wrong = (PAGES / name).read_text(encoding="utf-8"), made_pages(), []
    written = {word for _, block in BLOCKS if _ == name for word in block.code.split()}
    for link in addresses(page):
        file, _, anchor = link.partition("#")
        target = (PAGES / name).parent / file if file else PAGES / name
        below = target.resolve().relative_to(PAGES).as_posix() if file else name
        if below in made or any(word.startswith(link.removesuffix(Path(link).suffix)) for word in written):
            continue  # another page of the site, or a picture that a block writes
        if not target.exists() or (anchor and anchor not in heading_ids(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_in_the_navigation_once() -> None:
    listed: list[str] = []

    def visit(entry: Any) -> None:
        for each in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []:
            visit(each)
        if isinstance(entry, str) and entry.endswith(".md"):
            listed.append(entry)

    visit(yaml.safe_load((PAGES / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted([*NAMES, "benchmarks.md"])


def test_every_public_name_is_shown_with_an_example() -> None:
    assert names_without_example() == []


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_shows_every_name(module: str) -> None:
    page = render_module(module, {})
    for name in __import__(module, fromlist=["x"]).__all__:
        assert re.search(rf"^## {name} |`{name}`", page, re.MULTILINE), name


def test_every_command_has_a_page_with_its_options() -> None:
    for name, command in find_commands().items():
        page = render_command(name, command)
        assert page.startswith(f"# convoxel {name}\n")
        assert "```sh\nconvoxel " in page, f"{name} shows no example"
    page = render_command("predict", find_commands()["predict"])
    assert "`--input PATH`" in page and "| `--engine convoxel|torch` |" in page


def test_the_readme_is_short_and_says_what_was_measured() -> None:
    assert len(README.splitlines()) <= 150
    found = json.loads((FOLDER / "networks.json").read_text(encoding="utf-8"))
    names = [row["network"] for row in found["rows"]]
    for ours, peers in (
        ("convoxel", ("pytorch-cl", "onnxruntime", "openvino")),
        ("convoxel-bfloat16", ("pytorch-bf16", "openvino-installed")),
    ):
        figures = ratios(found, ours, peers)
        for figure in (
            statistics.geometric_mean(figures),
            figures[names.index("unet3d")],
            figures[names.index("resnet50")],
        ):
            assert f"{figure:.2f}×" in README
    assert "{" not in re.sub(r"```.*?```", "", render_benchmarks(), flags=re.DOTALL)


@pytest.mark.parametrize("name", ["lecture/convolution.md", "how-it-works/winograd.md", "reference/index.md"])
def test_a_page_runs(name: str, tmp_path: Path) -> None:
    """A sample; `make docs` runs all of them."""
    parts = run_page(PAGES / name, tmp_path / "scratch")
    write_page(PAGES / name, parts, tmp_path / "site", tmp_path / "scratch")
    page = (tmp_path / "site" / name).read_text(encoding="utf-8")
    assert page.count("```{ .text .printed }") >= 2
    for link in addresses(page):
        if link.startswith("pictures/"):
            assert (tmp_path / "site" / name).parent.joinpath(link).stat().st_size > 300


def test_a_block_that_ends_otherwise_is_told(tmp_path: Path) -> None:
    with Session("page.md", tmp_path / "page") as session:
        assert session.run(Block("python", "x = 20\nx + 1\n", 1)).text == "21"
        with pytest.raises(BlockError, match=r"page.md:2: ended in ZeroDivisionError, expected none"):
            session.run(Block("python", "x / 0\n", 2))
        with pytest.raises(BlockError, match=r"page.md:3: ended in no error, expected ValueError"):
            session.run(Block("python", "x\n", 3, raises="ValueError"))
        with pytest.raises(BlockError, match=r"page.md:4: exit code 2, expected 0"):
            session.run(Block("sh", "convoxel size output\n", 4))
        assert session.run(Block("sh", "echo $((x + 1))\nconvoxel --version\n", 5)).text.startswith("1\nconvoxel ")


def test_expectations_are_read() -> None:
    text = "a\n```python raises: KeyError\n{}[1]\n```\nb\n```text\nc\n```\n```sh not-run: it waits\nd\n```\n"
    text = "a\n```python raises: KeyError\n{}[1]\n```\nb\n```text\nc\n```\n```sh not-run: it waits\nd\n```\n"
    parts = list(split_page(text))
    assert parts[1] == Block("python", "{}[1]\n", 2, raises="KeyError")
    assert parts[3] == Block("sh", "d\n", 9, not_run="it waits")
    with pytest.raises(ValueError, match="line 1: 'fast' after the fence"):
        list(split_page("```python fast\n1\n```\n"))


SMALL = {
    "classification": {"resnet": {"model": "resnet18", "model_options": {"width": 0.125}}},
    "segmentation": {"one": {"model": "unet", "batch_size": 2, "model_options": {"levels": 1, "width": 2}}},
}


@pytest.mark.parametrize("exercise", SMALL)
def test_notebooks_run(exercise: str, tmp_path: Path) -> None:
    book = json.loads((ROOT / "examples" / f"exercise_{exercise}.ipynb").read_text(encoding="utf-8"))
    cells = [("settings" in cell["metadata"].get("tags", ()), "".join(cell["source"]) + "\n") for cell in book["cells"]
             if cell["cell_type"] == "code"]  # fmt: skip
    assert sum(settings for settings, _ in cells) == 1
    small = f"EPOCHS = 1\nNETWORKS = {SMALL[exercise]}\n"
    with Session(exercise, tmp_path / exercise) as session:
        found = [session.run(Block("python", code + small * settings, number))
                 for number, (settings, code) in enumerate(cells)]  # fmt: skip
    assert "parameters" in "".join(outcome.text for outcome in found)
    assert found[-1].pictures
