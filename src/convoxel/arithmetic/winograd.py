"""Winograd's minimal filtering F(m, r): m outputs of an r-tap correlation by m + r − 1 multiplications.

    y = Aᵀ [ (G g) ⊙ (Bᵀ d) ],    d: m + r − 1 inputs, g: r taps, y: m outputs

(Winograd 1980; Lavin & Gray 2016, arXiv 1509.09308.) The matrices follow from Toom and Cook's multiplication of
polynomials by evaluation at m + r − 2 points and at infinity, transposed. They are exact fractions. The build
of the engine writes them as a C++ table with this file, so that no coefficient is typed.

In more than one dimension the transforms apply axis by axis, each axis with its own m and r.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from convoxel.errors import ConfigError

Matrix = tuple[tuple[Fraction, ...], ...]

TILES = (2, 4, 6)  # m
KERNELS = (2, 3, 5, 7)  # r

# Finite points by their number. Every set is symmetric: ±p share their even and odd parts, which halves the work of a
# transform. 0, ±5/8, ±3/2 err less than half as much as the usual 0, ±1, ±2 (measured in F(4, 3)).
_POINTS: dict[int, tuple[Fraction, ...]] = {
    2: (Fraction(1), Fraction(-1)),
    3: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
    5: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
    6: tuple(s * p for p in (Fraction(1, 2), Fraction(1), Fraction(2)) for s in (1, -1)),
    7: (Fraction(0), *(s * p for p in (Fraction(1, 2), Fraction(1), Fraction(2)) for s in (1, -1))),
    9: (Fraction(0), *(s * p for p in (Fraction(1, 2), Fraction(1), Fraction(2), Fraction(3, 4)) for s in (1, -1))),
}

TABLED = tuple((m, r) for m in TILES for r in KERNELS if m + r - 2 in _POINTS)  # F(6, 7) has no good points


class Winograd(NamedTuple):
    """The matrices of F(m, r): output ``(m, a)``, kernel ``(a, r)``, input ``(a, a)`` with a = m + r − 1."""

    m: int
    r: int
    points: tuple[Fraction, ...]
    output: Matrix  # Aᵀ
    kernel: Matrix  # G
    input: Matrix  # Bᵀ


def _times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """polynomial · (x − root), coefficients from the constant up."""
    shifted = [Fraction(0), *polynomial]
    return [s - root * p for s, p in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def winograd(m: int, r: int) -> Winograd:
    """Return the matrices of F(m, r). The rows of the input's matrix are monic, which saves a multiplication each.

    With finite points p_j and N_j = Π_{k≠j} (p_j − p_k): Aᵀ[i][j] = p_jⁱ, G[j][i] = p_jⁱ / N_j, and row j of Bᵀ
    holds the coefficients of Π_{k≠j} (x − p_k). The point at infinity takes the last coefficient of g and of y, and
    Π_k (x − p_k).

    Args:
        m: outputs, one of ``TILES``.
        r: taps, one of ``KERNELS``.

    Raises:
        ConfigError: m or r is another number, or both are so large that no points are good enough.

    >>> f = winograd(2, 3)
    >>> [[int(v) for v in row] for row in f.output]
    [[1, 1, 1, 0], [0, 1, -1, 1]]
    >>> [str(v) for v in f.kernel[1]], [str(v) for v in f.input[1]]
    (['1/2', '1/2', '1/2'], ['0', '1', '1', '0'])
    """
    if (m, r) not in TABLED:
        raise ConfigError(f"F({m}, {r}) is not tabled; m is one of {TILES} and r one of {KERNELS}, but not F(6, 7).")
    points = _POINTS[m + r - 2]
    kernel: list[list[Fraction]] = []
    inputs: list[list[Fraction]] = []
    for j, p in enumerate(points):
        others = [q for k, q in enumerate(points) if k != j]
        norm = Fraction(1)
        row = [Fraction(1)]
        for q in others:
            norm *= p - q
            row = _times(row, q)
        kernel.append([p**i / norm for i in range(r)])
        inputs.append([*row, Fraction(0)])
    all_points = [Fraction(1)]
    for q in points:
        all_points = _times(all_points, q)
    kernel.append([Fraction(0)] * (r - 1) + [Fraction(1)])
    inputs.append(all_points)
    output = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    return Winograd(m, r, points, _freeze(output), _freeze(kernel), _freeze(inputs))


def _freeze(rows: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)


def error_factor(f: Winograd) -> float:
    """Return κ = maxᵢ √Σⱼ (|Aᵀ|ᵢⱼ ‖Gⱼ‖ ‖Bᵀⱼ‖)²: how much one axis multiplies the rounding error of direct sums."""
    norm = [
        float(sum(v * v for v in g)) ** 0.5 * float(sum(v * v for v in b)) ** 0.5
        for g, b in zip(f.kernel, f.input, strict=True)
    ]
    return max(sum((abs(float(a)) * n) ** 2 for a, n in zip(row, norm, strict=True)) ** 0.5 for row in f.output)


def tiles_of(algorithm: str) -> tuple[int, ...] | None:
    """Return the m along (d, h, w) of an algorithm of the engine, or None if it is not one of Winograd's.

    >>> tiles_of("winograd(4)"), tiles_of("winograd_bf16(2x4x4)"), tiles_of("indirect")
    ((4, 4, 4), (2, 4, 4), None)
    """
    found = re.fullmatch(r"winograd(?:_bf16)?\(([\dx]+)\)", algorithm)
    if found is None:
        return None
    sizes = tuple(map(int, found[1].split("x")))
    return sizes * 3 if len(sizes) == 1 else sizes


def cpp_table() -> str:
    """Return the C++ table of all F(m, r), for the engine's build."""
    lines = [
        "// Written by convoxel/arithmetic/winograd.py at build time: the matrices of F(m, r), from exact fractions.",
        "// Included inside a namespace. WINOGRAD_PAIRS(PAIR) is PAIR(m, r) for each of them.",
        "",
        f"#define WINOGRAD_PAIRS(PAIR) {' '.join(f'PAIR({m}, {r})' for m, r in TABLED)}",
        "",
        "template <int M, int R>",
        "struct WinogradTable;",
    ]
    for m, r in TABLED:
        f = winograd(m, r)
        a = m + r - 1
        lines += ["", "template <>", f"struct WinogradTable<{m}, {r}> {{"]
        for name, matrix, kind in (("kOutput", f.output, "float"), ("kInput", f.input, "float")):
            lines.append(f"  static constexpr {kind} {name}[{len(matrix)}][{a}] = {_cpp(matrix)};")
        lines.append(f"  static constexpr double kKernel[{a}][{r}] = {_cpp(f.kernel)};")
        lines.append("};")
    return "\n".join(lines) + "\n"


def _cpp(matrix: Matrix) -> str:
    def number(v: Fraction) -> str:
        return f"{v.numerator}." if v.denominator == 1 else f"{v.numerator}. / {v.denominator}."

    return "{" + ", ".join("{" + ", ".join(number(v) for v in row) + "}" for row in matrix) + "}"
