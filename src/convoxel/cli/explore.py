"""``convoxel explore``: the local page that shows layers, networks and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.screen import Screen
from convoxel.errors import ConfigError


def explore(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NET|RUN|FILE|FOLDER]...",
            help="Networks of `convoxel models`, runs, .onnx or .cvx files, and folders that may be looked through.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes any free one (default: 8321, or any free one).", max=65535, min=0)
    ] = None,
    readonly: Annotated[bool, typer.Option("--readonly", help="Start, measure and write nothing.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write pages as files into this new folder instead; they need no server."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="With --export: bring Python along (12 MiB, by npm), so that sliders are live on a server."
        ),
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Open a local page: convolution arithmetic, and networks with the numbers of the command line.

    The page answers at 127.0.0.1 alone, and only to whoever has the address that is printed. It reads no files but
    those that are named here. Through ssh: `ssh -L 8321:localhost:8321 HOST`. Ctrl-C ends it.
    """
    if live and export is None:
        raise ConfigError("live: given without export; pages that are served here are live. Leave --live out.")
    if export is not None:
        from convoxel.explorer.export import export as write

        screen = Screen()
        pages = write(export, *networks or (), live=live, say=lambda title: screen.say(f"{title} …", "dim"))
        size = sum(page.stat().st_size for page in pages)
        screen.say(f"Wrote {len(pages)} pages ({size / 2**20:.1f} MiB); open {pages[0]}")
        return
    from convoxel.explorer.serving import explore as serve

    def say(address: str) -> None:
        Screen().say(address)
        Screen(json=True).say("Ctrl-C ends the explorer.")

    serve(*networks or (), port=port, readonly=readonly, browser=browser, say=say)
