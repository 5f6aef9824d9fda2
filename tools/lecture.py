"""The lecture that Convoxel implements, row by row, with the functions and the tests of each row.

``python -m tools.lecture`` writes ``docs/lecture.md`` from the table below and from the names of tests: a test called
``test_A3_…`` belongs to row A3. ``test_lecture_table.py`` checks that the file is up to date and its
entries exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from convoxel.explorer.lecture_steps import STEPS, Step

__all__ = ["FILE", "PAGES", "ROWS", "SECTIONS", "Row", "find_tests", "render"]

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "lecture.md"

SECTIONS = {
    "A": "Convolution and cross-correlation",
    "B": "Intuition, measured",
    "C": "Sampling",
    "D": "Anatomy of a layer",
    "E": "Convolution arithmetic",
    "F": "Applied architectures",
    "G": "The two exercises",
    "H": "Beyond the lecture",
    "I": "The course's own tutorials and tasks",
}

# The section of the documentation that explains each row.
_PAGES = {
    "lecture/convolution.md": {
        "convolution-and-cross-correlation": "A1 A2 A5", "a-convolution-is-a-matrix": "A3 A4",
    },
    "lecture/intuition.md": {
        "equivariance": "B1", "shared-weights": "B2 B3", "an-infinitely-strong-prior": "B4",
        "fully-connected-layers-are-convolutions": "B5",
    },
    "lecture/sampling.md": {
        "pooling": "C1", "strides-and-anti-aliasing": "C2", "interpolation": "C3 C4", "un-pooling": "C5",
        "transposed-convolution": "C6", "ways-of-up-sampling-side-by-side": "C7",
    },
    "lecture/anatomy.md": {
        "layouts": "D1", "receptive-fields": "D2 D3", "kernel-shapes": "D4 D5",
        "kernels-that-move-kernels-that-change": "D6", "constraints": "D7", "padding": "D8",
        "separable-kernels": "D9 D10 D12",
    },
    "how-to/smaller.md": {"": "D11"}, "how-to/scale-search.md": {"": "D13 D14"},
    "lecture/arithmetic.md": {
        "sizes-forwards": "E1", "backwards": "E2 H4", "costs": "E3", "tiles-that-give-exactly-the-whole": "H2",
        "branches-that-fit": "H3",
    },
    "lecture/architectures.md": {"one-definition-three-numbers-of-axes": "F1"},
    "lecture/exercises.md": {
        "1-classify-images-with-another-network": "G1", "2-segment-volumes-with-one-level-more-or-fewer": "G2",
    },
    "how-it-works/engine.md": {"": "H1"}, "how-to/large-images.md": {"": "H5"}, "how-to/resume.md": {"": "H6"},
    "lecture/tasks.md": {
        "i1-validate-while-training": "I1", "i2-dilated-kernels": "I2",
        "i3-with-and-without-residual-connections": "I3",
        "i4-kinds-of-padding": "I4", "i5-weight-of-the-l2-norm-normalisation": "I5", "i6-optimiser": "I6",
        "i7-depth-and-width": "I7", "i8-random-affine-warps": "I8", "i9-dropout": "I9",
    },
}  # fmt: skip
PAGES = {
    row: f"{page}#{anchor}".rstrip("#")
    for page, anchors in _PAGES.items() for anchor, rows in anchors.items() for row in rows.split()
}  # fmt: skip

# Pictures of steps that measure first, by the function that draws what was measured.
_PICTURES = {"layer_shifts": "shifts", "photograph": "features", "scales": "pareto"}
_MODULES = ("arithmetic", "nn", "models", "inspect", "draw", "data", "train", "search")
_RUNS = "curves | convoxel compare runs/* --output compare.svg | /runs"


class Row(NamedTuple):
    """A row of the lecture.

    ``what`` holds names in ``convoxel`` (``nn.functional.convolve``) and commands (``convoxel draw conv``); ``tests``
    holds tests whose names do not begin with the row; ``missing`` names parts that do not exist yet; ``shown`` holds a
    picture, a command and the address of a live view, where no step of the lecture shows the row.
    """

    id: str
    capability: str
    what: str
    tests: str = ""
    missing: str = ""
    shown: str = ""

    @property
    def steps(self) -> list[Step]:
        """The steps of the explorer's lecture that show it."""
        return [step for step in STEPS if self.id in step.rows.split()]

    def pictures(self) -> list[tuple[str, str, str]]:
        """Return pictures in ``convoxel.draw``, the commands that draw them, and the addresses where they are live."""
        found = [(_PICTURES.get(step.picture, step.picture), step.command(), f"/lecture?step={step.name}")
                 for step in self.steps]  # fmt: skip
        if self.shown:
            picture, command, address = self.shown.split(" | ")
            found.append((picture, command, address))
        return found


ROWS = (
    Row("A1", "Discrete convolution of sequences", "nn.functional.convolve"),
    Row("A2", "Convolution and cross-correlation, named apart", "nn.functional.convolve nn.functional.correlate"),
    Row("A3", "Convolution written as a matrix", "nn.functional.convolution_matrix draw.matrix"),
    Row("A4", "The matrix of any layer and its structure",
        "nn.functional.convolution_matrix nn.functional.transposed_matrix nn.functional.toeplitz_structure"),
    Row("A5", "A kernel sliding over an image, animated", "draw.conv | convoxel draw conv"),
    Row("B1", "Equivariance and invariance under shifts", "inspect.equivariance"),
    Row("B2", "Parameter sharing and what it buys",
        "arithmetic.conv_matrix nn.LocallyConnected train.study_sharing draw.sharing | convoxel compare sharing"),
    Row("B3", "Sparse weights", "arithmetic.conv_matrix train.study_sharing | convoxel compare sharing"),
    Row("B4", "Convolution as an infinitely strong prior",
        "nn.functional.project_to_convolution train.study_sharing draw.sharing | convoxel compare sharing"),
    Row("B5", "Fully connected as convolution", "nn.linear_to_conv nn.conv_to_linear nn.fully_convolutional"),
    Row("C1", "Max and average pooling",
        "nn.functional.max_pool nn.functional.average_pool nn.functional.adaptive_max_pool "
        "nn.functional.adaptive_average_pool nn.functional.global_max_pool nn.functional.global_average_pool "
        "nn.MaxPool nn.AvgPool"),
    Row("C2", "Down-sampling with and without anti-aliasing", "nn.functional.blur_pool nn.BlurPool"),
    Row("C3", "Interpolation up and down", "nn.functional.resize nn.Resize"),
    Row("C4", "Is interpolation linear?", "nn.functional.resize_matrix inspect.linearity"),
    Row("C5", "Un-pooling", "nn.functional.unpool nn.Unpool"),
    Row("C6", "Transposed convolution",
        "nn.functional.conv_transpose nn.functional.transposed_matrix nn.ConvTranspose"),
    Row("C7", "Ways of up-sampling side by side",
        "inspect.upsampling inspect.checkerboard nn.upsamplers nn.Upsample draw.upsampling draw.overlap "
        "| convoxel compare upsampling"),
    Row("D1", "Tensor layouts by name", "nn.change_layout"),
    Row("D2", "Receptive fields of any graph", "describe arithmetic.Field draw.field | convoxel describe"),
    Row("D3", "Effective receptive fields", "inspect.effective_field draw.field"),
    Row("D4", "Kernel shapes, stacks, bottlenecks",
        "nn.Conv arithmetic.conv_params arithmetic.compose arithmetic.solve_depth"),
    Row("D5", "2.5-D kernels, slice stacks, inflation", "nn.InflatedConv nn.SliceStack nn.inflate"),
    Row("D6", "Kernels that move or change with the input",
        "nn.functional.deform_conv nn.functional.dynamic_conv nn.DeformConv nn.DynamicConv"),
    Row("D7", "Constraints of kernels",
        "nn.MaxNorm nn.UnitNorm nn.NonNegative nn.constrain nn.l2_penalty nn.decay_groups"),
    Row("D8", "Padding of every kind", "nn.functional.pad nn.Conv arithmetic.resolve_padding | convoxel draw conv"),
    Row("D9", "Separable kernels", "nn.functional.separable nn.SeparableConv"),
    Row("D10", "Rank by singular values", "inspect.separability"),
    Row("D11", "A trained network with separable layers", "nn.separate | convoxel separate"),
    Row("D12", "Depthwise-separable convolution", "nn.functional.depthwise_separable nn.DepthwiseSeparableConv"),
    Row("D13", "Model scaling",
        "search.scales search.compound train.study_scaling draw.scaling_chart.scaling | convoxel scale",
        "test_narrow_mobilenets_cost_what_their_paper_says test_published_figures"),
    Row("D14", "Architecture search under budgets", "search.find search.Budget draw.pareto | convoxel search"),
    Row("E1", "Sizes of all layers", "arithmetic.conv_sizes arithmetic.pool_sizes arithmetic.transposed_sizes "
        "| convoxel size", "test_conv_size_counts_windows "
        "test_transposed_size_counts_what_is_spread"),
    Row("E2", "Inverse problems", "arithmetic.solve_inputs arithmetic.solve_windows arithmetic.solve_depth "
        "| convoxel size", "test_inputs_of_drawn_networks "
        "test_u_net_of_ronneberger"),
    Row("E3", "Costs", "describe arithmetic.conv_macs arithmetic.transposed_macs arithmetic.peak_bytes "
        "| convoxel describe", "test_published_figures "
        "test_macs_count_products"),
    Row("F1", "Nets of the lecture in 1-D, 2-D and 3-D", "models.build models.load_weights | convoxel models",
        "test_every_network_in_every_dimension test_names_and_shapes"),
    Row("G1", "Classification with another network", "train.fit train.evaluate | convoxel train, convoxel compare",
        "test_runs_show_their_quality"),
    Row("G2", "Segmentation with another number of levels", "models.unet | convoxel compare networks",
        "test_levels_are_varied_by_one_word"),
    Row("H1", "One engine for all of them", "compile load | convoxel compile, convoxel bench networks",
        "test_profile_and_memory"),
    Row("H2", "Exact fields, alignment and tiles", "arithmetic.solve_tile arithmetic.solve_alignment",
        "test_alignment_is_complete"),
    Row("H3", "What PyTorch and Keras lack", "nn.functional.convolution_matrix nn.Conv nn.AvgPool nn.DeformConv",
        "test_layers_train_and_compile"),
    Row("H4", "Valid sizes before a net fails", "describe | convoxel size",
        "test_borderless_sizes_are_exactly_those_that_work"),
    Row("H5", "Volumes larger than memory", "train.sliding_window train.predict | convoxel predict",
        "test_a_single_tile_gives_the_networks_own_numbers"),
    Row("H6", "Training that survives", "train.fit | convoxel train", "test_killed_run_is_bit_equal", shown=_RUNS),
    Row("I1", "Validation, metrics and curves",
        "train.fit train.evaluate draw.curves | convoxel train, convoxel compare",
        "test_every_metric_is_shown_with_its_interval_and_unit test_interrupted_validation_is_repeated", shown=_RUNS),
    Row("I2", "Dilated kernels", "models.build nn.Conv | convoxel train",
        "test_dilation_keeps_sizes_and_widens_the_field"),
    Row("I3", "With and without residual connections", "models.build | convoxel train",
        "test_plain_residual_networks_have_no_shortcuts"),
    Row("I4", "Kinds of padding", "nn.functional.pad models.build | convoxel train",
        "test_padding_inside_is_padding_outside"),
    Row("I5", "Weight of the L2 norm, normalisation", "nn.l2_penalty nn.decay_groups models.build | convoxel train",
        "test_any_norm_and_activation test_D7_soft_penalty_is_chosen_for_each_kind"),
    Row("I6", "Optimiser", "train.fit | convoxel train",
        "test_the_state_moves_between_optimisers_of_devices", shown=_RUNS),
    Row("I7", "Depth and width", "models.build | convoxel compare networks", "test_levels_are_varied_by_one_word"),
    Row("I8", "Random affine warps", "train.fit | convoxel train",
        "test_augmentation_is_reproducible_and_keeps_values_valid", shown=_RUNS),
    Row("I9", "Dropout", "models.build | convoxel train", "test_dropout_is_where_it_is_asked_for", shown=_RUNS),
)  # fmt: skip


def find_tests() -> dict[str, list[str]]:
    """Return row → its tests, as ``file::name``, by their names and by the table; the file of unknown tests is "?"."""
    found: dict[str, list[str]] = {row.id: [] for row in ROWS}
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        where = path.relative_to(ROOT / "tests").with_suffix("").as_posix()
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            files.setdefault(name, []).append(where)
            row = re.match(r"test_([A-I]\d+)_", name)
            if row is not None:
                found.setdefault(row[1], []).append(f"{where}::{name}")
    for entry in ROWS:
        found[entry.id] += [f"{file}::{name}" for name in entry.tests.split() for file in files.get(name, ["?"])]
    return found


def render() -> str:
    """Return the text of ``docs/lecture.md``."""
    tests = find_tests()
    lines = [
        "# The lecture, row by row",
        "",
        "Written by `python -m tools.lecture` from names of tests and steps of the explorer's lecture. The number of a",
        "row leads to the section that explains it, a name to its reference. Names are in `convoxel`, pictures in",
        "`convoxel.draw`, tests in `tests/`; live views are pages of `convoxel explore`.",
    ]
    for letter, title in SECTIONS.items():
        heads = ("row", "what", "function or command", "picture", "its command", "live view", "tests")
        lines += ["", f"## {letter}. {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in ROWS:
            if row.id[0] != letter:
                continue
            names, _, commands = row.what.partition(" | ")
            words = [*names.split(), *filter(None, commands.split(", "))]
            gap = f" Missing: {row.missing}." if row.missing else ""
            shown = [_code(list(dict.fromkeys(column))) for column in zip(*row.pictures(), strict=True)]
            what = row.capability if row.capability.endswith("?") else f"{row.capability}."
            linked = f"[{row.id}]({PAGES[row.id]})"
            cells = (linked, what + gap, _linked(words), *shown, _code(tests[row.id]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _linked(words: list[str]) -> str:
    """Return names and commands as links into the reference."""
    return "<br>".join(f"[`{word}`]({_address(word)})" for word in words)


def _address(word: str) -> str:
    if word.startswith("convoxel "):
        _, command, *rest = word.split()
        return f"commands/{command}.md" + (f"#convoxel-{command}-{rest[0]}" if rest else "")
    module, _, name = word.rpartition(".")
    page = module if module.partition(".")[0] in _MODULES else "convoxel"
    if page.startswith("draw."):  # a file of the package that is named in full
        return "reference/draw.md"
    home = f"convoxel.{module}" if module else "convoxel"
    return f"reference/{page}.md#{home}.{name}".lower()


def _code(words: list[str]) -> str:
    return "<br>".join(f"`{word}`" for word in words).replace("|", "\\|") or "–"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {sum(map(len, find_tests().values()))} tests of {len(ROWS)} rows")
