"""The commands of ``convoxel``, how errors leave it, and its exit codes."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
import traceback
import warnings
from typing import Annotated, Any

import typer

from convoxel import __version__
from convoxel.cli import (
    bench,
    compare,
    compile,
    data,
    demo,
    describe,
    draw,
    evaluate,
    explain,
    explore,
    exporting,
    importing,
    info,
    models,
    plan,
    predict,
    quantise,
    run,
    scale,
    search,
    separate,
    serve,
    size,
    train,
)
from convoxel.cli.open_command import OpenCommand, UsageError
from convoxel.cli.options import command
from convoxel.errors import ConvoxelError
from convoxel.face import lacking
from convoxel.files.fault import shown

# The base of the exceptions of typer's parser, wherever this version of typer keeps the parser.
_ParserError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="convoxel",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: convoxel demo",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"convoxel {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error arose (anywhere in the line).")
    ] = False,
) -> None:
    """Convolutional networks in 1-D, 2-D and 3-D: train on your images, run at the full speed of your CPU."""


for _function, _name, _example in (
    (demo.demo, "demo", "demo --output demo"),
    (plan.plan, "plan", "plan segment --data hippocampus --minutes 20 --output plan.yaml"),
    (train.train, "train", "train segment --data hippocampus --minutes 20 --output run"),
    (evaluate.evaluate, "evaluate", "evaluate run --data hippocampus"),
    (predict.predict, "predict", "predict run --input scans --output labels"),
    (explain.explain, "explain", "explain run --input scan.nii.gz --method gradcam++,field --output why.png"),
    (separate.separate, "separate", "separate run --max-error 0.05 --output smaller"),
    (models.models, "models", "models --task segment"),
    (describe.describe, "describe", "describe unet --shape 1,1,64,64,64 --set levels=2"),
    (scale.scale, "scale", "scale mobilenet_v2 --width 0.1,0.25,0.5 --set stem=small --data digits --plot scale.png"),
    (search.search, "search", "search unet --max-parameters 1M --max-macs 2G --min-field 64 --plot front.png"),
    (compile.compile_network, "compile", "compile resnet18 --shape 1,3,224,224"),
    (quantise.quantise, "quantise", "quantise run --data hippocampus --max-loss 0.005"),
    (exporting.export, "export", "export unet --shape 1,1,128,128 --output unet.onnx"),
    (run.run_program, "run", "run net.cvx --input x.npy --output y.npy"),
    (serve.serve, "serve", "serve net.cvx --precision bfloat16 --max-batch 16"),
    (explore.explore, "explore", "explore resnet18 runs --port 8321"),
    (info.info, "info", "info --json"),
):
    command(app, f"convoxel {_example}", _name, OpenCommand if _name in ("plan", "train") else None)(_function)
for _name, _group in {
    "size": size,
    "compare": compare,
    "data": data,
    "draw": draw,
    "bench": bench,
    "import": importing,
}.items():
    app.add_typer(_group.app, name=_name)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but Ctrl-C twice leaves it as an exception.

    Args:
        arguments: the words after ``convoxel`` (default: those of the process).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None and "OMP_WAIT_POLICY" not in os.environ:
        # PyTorch's threads wait for work by spinning, on the cores where the engine's threads compute the next layer of
        # a training step; with this they sleep sooner. It counts from the import of PyTorch on.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    words, show = _without_traceback(given)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no × still gets the table.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = _run(words)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            return _quiet()
        except Exception as error:
            if show:
                traceback.print_exc()
            return _report(error)


def _open_streams() -> None:
    """Open what the caller has closed (``>&-``): Python has no stream then, and the next file would take its number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))


def _run(words: list[str]) -> int:
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(words, prog_name="convoxel", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as request:
        # Only a closed pipe ends here: typer and rich turn it into an exit of their own.
        return _quiet() if request.code == 1 else int(request.code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return 130  # who pressed Ctrl-C needs no telling


def _without_traceback(words: list[str]) -> tuple[list[str], bool]:
    """Return the words without ``--traceback``, which may stand anywhere, and whether it was there."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--traceback"]
    return kept + words[end:], len(kept) < end


def _report(error: Exception) -> int:
    """Print one line about an error on stderr and return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        return 2
    line = _line_about(error)
    name = type(error).__name__
    what = f"{name}: {error}" if str(error) else name
    _print_line(line or f"this is a bug in Convoxel: {what} (add --traceback to see where, and report it).")
    return 2 if line else 1


def _line_about(error: Exception) -> str | None:
    """Return what went wrong and how to mend it; None for an error that is no mistake of the user."""
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "convoxel"
        return f"{_explain(error, context)} See `{path} --help`."
    if isinstance(error, _ParserError):
        return str(error.format_message())
    if isinstance(error, ConvoxelError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (advice := lacking(error)):
        return advice
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of pathlib before Python 3.13
        return f"{error}. Give a path whose links lead to a file or a folder."
    if isinstance(error, MemoryError):
        return "memory is used up; give a smaller patch, batch or width, or close other programs."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the output"
        return f"{where} cannot be written: {error.strerror}. Free some space or write elsewhere."
    if isinstance(error, OSError) and error.strerror:  # a disk that fails, a folder without rights, …
        where = error.filename or "a file"
        return f"{shown(where)} cannot be read or written: {error.strerror}. Check the path, its rights and the disk."
    return None


def _explain(error: Any, context: Any) -> str:
    """Return the parser's message, with the nearest name where one is near."""
    message = str(error.format_message()).replace("Value error, ", "").strip()
    if type(error).__name__ == "NoSuchOption":
        wrong = str(error.option_name)
        known = [word for item in context.command.params for word in item.opts] if context is not None else []
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        message = f"no such option: {wrong}" + (f"; did you mean {near[0]}?" if near else ".")
    message = message[:1].lower() + message[1:]
    return message if message.endswith((".", "?")) else f"{message}."


def _print_line(text: str) -> None:
    with contextlib.suppress(OSError):  # where nothing can be printed, the exit code tells
        print("convoxel: " + " ".join(text.split()), file=sys.stderr, flush=True)


def _show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning in one line; announcements of other packages to developers are left out."""
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        _print_line(f"note: {message}")


def _quiet() -> int:
    """Return the exit code for a closed pipe, and keep Python's own shutdown from complaining."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
    except (OSError, ValueError):  # a stream without a file, as in tests
        pass
    return 141
