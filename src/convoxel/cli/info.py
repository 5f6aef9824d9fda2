"""``convoxel info``: this CPU, how the engine was built for it, and what it can do."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Annotated, Any

import typer

from convoxel.cli.screen import console, emit, say, table

__all__ = ["info"]

_PACKAGES = ("numpy", "torch", "monai")


def info(
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show the CPU, its instruction sets, how the engine was built, and the algorithms it has.

    The ceiling is measured: multiply-adds in registers, which no kernel can surpass on this machine.
    """
    from convoxel.native import algorithms, build_info, measure_ceiling

    build: dict[str, Any] = build_info()
    count = build["threads"] if threads is None else threads
    ceiling = {str(number): measure_ceiling(number) for number in sorted({1, count})}
    packages = {name: _version(name) for name in _PACKAGES}
    facts = {
        **build,
        "threads": count,
        "python": platform.python_version(),
        "packages": packages,
        "ceiling_flops": ceiling,
        "algorithms": algorithms(),
    }
    if json:
        emit(facts)
        return
    screen = console()
    sets = ", ".join(row["name"] for row in build["instruction_sets"])
    rates = ", ".join(
        f"{value / 1e9:.0f} GFLOP/s on {number} thread{'' if number == '1' else 's'}"
        for number, value in ceiling.items()
    )
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in packages.items())
    for what, text in (
        ("Convoxel", f"{build['version']}, built with {build['compiler']}"),
        ("Processor", f"{build['processor']}, {count} thread{'' if count == 1 else 's'} used"),
        ("Instructions", f"{build['instruction_set']} in use; this processor offers {sets}"),
        ("Ceiling", f"{rates} (float32 multiply-adds in registers, measured now)"),
        ("Python", f"{facts['python']}, {versions}"),
    ):
        say(screen, f"{what:<14}{text}")
    say(screen)
    found = algorithms()
    names = list(found[0])
    screen.print(table("|".join(names), [tuple(row[name] for name in names) for row in found]))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
