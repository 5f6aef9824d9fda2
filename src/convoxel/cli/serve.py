"""``convoxel serve``: networks behind the Open Inference Protocol, for programs in any language."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convoxel.cli.options import Json, Threads, Weights, Which
from convoxel.cli.screen import Screen, emit
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.serve.model import ServedModel

_TOKEN = "CONVOXEL_TOKEN"
_MOST_MIB = 2**16


def serve(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]NETWORK...",
            help="Names of `convoxel models`, runs, or .onnx or .cvx files; NAME is the name in addresses.",
        ),
    ],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0 answers to other machines, too.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes any free one (default: 8000, or any free one).", max=65535, min=0)
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"File with a secret that requests must bring (or the variable {_TOKEN})."),
    ] = None,
    precision: Annotated[
        Literal["float32", "high", "bfloat16", "int8"] | None,
        typer.Option(help="Digits of products, as of `convoxel compile` (default: that of the file, else float32)."),
    ] = None,
    threads: Threads = None,
    max_batch: Annotated[int, typer.Option(help="Most images that are computed together.")] = 8,
    max_delay_ms: Annotated[
        float, typer.Option(help="Time that a request waits for others to join, while the engine is idle.")
    ] = 0.0,
    max_queue: Annotated[int, typer.Option(help="Most requests that wait; further ones get status 429.")] = 256,
    max_body_mib: Annotated[float, typer.Option(help="Largest body of a request.")] = 64.0,
    timeout_s: Annotated[float, typer.Option(help="Time after which a waiting request is not computed.")] = 60.0,
    drain_s: Annotated[float, typer.Option(help="Time that requests have after SIGTERM.")] = 30.0,
    weights: Weights = None,
    which: Which = "best",
    json: Json = False,
) -> None:
    """Serve networks over HTTP, by the Open Inference Protocol (KServe v2) that Triton's clients speak.

    Tensors come in JSON or as bytes. Requests of equal shapes are computed together, and get the same bits as alone. A
    run takes images as they are stored, and normalises, tiles and cleans up by itself.

    SIGTERM or Ctrl-C ends it after the requests that are there; a second signal ends it at once. /metrics has figures
    for Prometheus.
    """
    from dataclasses import replace

    from convoxel.serve import serve as run
    from convoxel.serve.opening import OpeningOptions
    from convoxel.serve.queue import QueueRule
    from convoxel.serve.running import ServerOptions

    usual = ServerOptions()
    options = ServerOptions(
        host=host,
        port=port,
        token=_token(token_file),
        limits=replace(usual.limits, body_bytes=_bytes(max_body_mib)),
        rule=QueueRule(max_batch, max_delay_ms / 1e3, max_queue, timeout_s),
        drain_s=drain_s,
    )
    screen, aside = Screen(json), Screen(json=True)

    def say(address: str, models: Mapping[str, ServedModel]) -> None:
        if json:
            return emit({"address": address, "models": {name: str(model) for name, model in models.items()}})
        for name, model in models.items():
            joined = f", batches of up to {max_batch}" if model.joins and max_batch > 1 else ""
            screen.say(f"{address}/v2/models/{name}: {model}{joined}")
            for tensor, note in model.notes.items():
                aside.say(f"{name}: {tensor}: {note}.")
        if host not in ("127.0.0.1", "localhost", "::1") and not options.token:
            aside.say(
                f"note: whoever reaches {address} may use these models; --token-file or {_TOKEN} asks for a secret, "
                "and a proxy in front adds TLS."
            )
        aside.say("Ctrl-C or SIGTERM ends it after the requests that are there.")

    code = run(*networks, opening=OpeningOptions(threads, precision, weights, which), options=options, say=say)
    if code:
        raise typer.Exit(code)


def _bytes(mebibytes: float) -> int:
    if not 0 < mebibytes <= _MOST_MIB:
        raise ConfigError(f"max-body-mib: got {mebibytes:g}; expected a number above 0, and at most {_MOST_MIB}.")
    return max(1, int(mebibytes * 2**20))


def _token(path: Path | None) -> str:
    """Return the secret: that of the file, else that of the environment; "" for none."""
    if path is None:
        return os.environ.get(_TOKEN, "")
    from convoxel.files.stream import read_text

    text = read_text(path).strip()
    if not text:
        raise ConfigError(f"token-file: {path} is empty; expected a secret in one line.")
    return text
