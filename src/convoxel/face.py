"""The public face: an argument of a kind that a function cannot take is named.

A public function runs as it is written. When it fails with an error that is none of Convoxel's, its arguments are
compared with their annotations, and a ConfigError names the first that does not fit. If all fit, and PyTorch, NumPy or
Python's operators refuse their values, the error gets the call's context. Assertions stay as they are, since they are
bugs, and so does what functions and modules of the caller's raise. A truth value is compared before: a text would be
taken for true without any failure.

Classes, which keep what they get, and the functions of packages that are open ``early`` compare before, and get
numbers and truth values as Python's own, which never overflow and which every binding takes. Functions within Convoxel
call each other without all this. Neither do methods of layers, which recordings follow, nor calls of programs, which
must be quick: they compare only when they fail.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType
from typing import Any

from convoxel.annotation import argument_types, expected, fits, is_plain, settled
from convoxel.errors import ConfigError, ConvoxelError, DataError, MissingPackageError, ShapeError, UnsupportedError
from convoxel.files.fault import brief

__all__ = ["explained", "lacking", "open_face"]

_Function = Callable[..., Any]
# What PyTorch and NumPy raise for values that they cannot take; other subclasses steer recordings and exports.
_KINDS: dict[type[Exception], type[ConvoxelError]] = {
    RuntimeError: ShapeError,
    ValueError: ShapeError,
    OverflowError: ConfigError,
    NotImplementedError: UnsupportedError,
    # Of names that no file can have, and of files and folders in each other's place.
    **dict.fromkeys((OSError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError), DataError),
}
# What Python's own operators raise for values that they cannot take, and for mistakes of ours: both are told.
_EITHER = (
    TypeError, AttributeError, IndexError, KeyError, ZeroDivisionError, RecursionError, UnicodeEncodeError,
    UnicodeDecodeError, BufferError,
)  # fmt: skip
# What the engine, PyTorch and NumPy say of types and axes that they do not take: no mistakes of ours.
_SAID: dict[type[Exception], tuple[re.Pattern[str], type[ConvoxelError]]] = {
    TypeError: (
        re.compile(
            r"incompatible function arg|invalid combination of arg|argument '\w+' .*(must be|failed to unpack) "
            r"|can't convert (.* tensor to numpy|np.ndarray)|numpy boolean|ufunc '\w+' (not supported|did not contain)"
            r"|array of real numbers"
        ),
        ConfigError,
    ),
    IndexError: (re.compile(r"Dimension out of range|Dimension specified as|too many indices for"), ShapeError),
}
# The packages of extras, by the names that are imported, and an extra that brings each.
_EXTRAS = {
    "torch": "torch",
    "onnx": "onnx",
    "PIL": "train",
    "monai": "train",
    "nibabel": "train",
    "resvg_py": "train",
    "scipy": "train",
    "yaml": "train",
    "h11": "explore",
    "jinja2": "explore",
    "starlette": "explore",
    "uvicorn": "explore",
}
_ALSO = ("__init__", "__new__", "__call__")  # besides the methods with public names


def open_face(package: str, *, early: bool = False, plainly: bool = False) -> None:
    """Let the names that a package lists in ``__all__`` explain their failures; lazy ones do when they are loaded.

    Args:
        package: name of the package.
        early: whether functions and methods compare their arguments before they run.
        plainly: whether what they take must be numbers and texts that PyTorch and the engine can take, too.
    """
    names = vars(sys.modules[package])
    for name in names["__all__"]:
        if name in names:
            names[name] = explained(names[name], package, early=early, plainly=plainly)


def explained(value: Any, package: str, *, early: bool = False, plainly: bool = False) -> Any:
    """Return a function that explains its failures, or a class whose methods do, by changing them in place.

    Args:
        value: public function or class; other values, and those of other packages, are returned as they are.
        package: name of the package that makes the function public, where pickle is to find it.
        early: whether the function, or the methods, compare their arguments before they run.
        plainly: whether what they take must be numbers and texts that PyTorch and the engine can take, too, as in
            layers.
    """
    if inspect.isclass(value):
        for owner in value.__mro__:
            if _is_ours(owner) and "_explains" not in vars(owner):
                _explain_methods(owner, early=early, plainly=plainly)
    elif isinstance(value, FunctionType) and _is_ours(value) and not hasattr(value, "_explains"):
        home = value.__module__
        value = _checked(value, home, plainly=plainly) if early else _explained(value, home)
        value.__module__, value.__qualname__, value._explains = package, value.__name__, True
    return value


def _is_ours(value: Any) -> bool:
    return str(value.__module__).startswith("convoxel")


def _explain_methods(owner: type, *, early: bool, plainly: bool) -> None:
    keeps, layer = dataclasses.is_dataclass(owner) or hasattr(owner, "_fields"), hasattr(owner, "forward")
    for name, member in list(vars(owner).items()):
        kind: Any = staticmethod if name == "__new__" else None
        function: Any = member
        if isinstance(member, (classmethod, staticmethod)):
            kind, function = type(member), member.__func__
        own = isinstance(function, FunctionType) or type(function).__name__ == "nb_method"  # written here, or bound
        if not own or (name.startswith("_") and name not in _ALSO):
            continue
        makes = name in ("__init__", "__new__") or (keeps and kind is classmethod)
        if isinstance(function, FunctionType) and (makes or (early and not layer and name != "__call__")):
            changed = _checked(function, owner.__module__, plainly=plainly or layer)
        else:
            changed = _explained(function, owner.__module__)
        setattr(owner, name, kind(changed) if kind else changed)
    owner._explains = True  # type: ignore[attr-defined]


def _explained(function: _Function, module: str) -> _Function:
    truths = _truths(function)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        for place, name in truths:
            value = arguments[place] if place < len(arguments) else named.get(name, True)
            if type(value) is not bool and not fits(value, hint := argument_types(function, module).get(name, Any)):
                raise _refusal(function, _bound(function, arguments, named), name, value, hint)
        try:
            return function(*arguments, **named)
        except ConvoxelError:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and (advice := lacking(error)):
                raise MissingPackageError(f"{function.__name__}: {advice}") from error
            bound = _bound(function, arguments, named)
            try:
                explanation = _misfit(function, module, bound, plainly=True) or _context(function, bound, error)
            except (MemoryError, SystemError):  # where memory has run out, there may be none to look at annotations
                explanation = ShapeError(f"{function.__name__}: there is not enough memory.")
            if explanation is None:
                raise
            raise explanation from error

    return call


def _truths(function: _Function) -> tuple[tuple[int, str], ...]:
    """Return place and name of the parameters that are truth values; those that are given by name alone come last."""
    code = getattr(function, "__code__", None)
    if code is None:  # a binding, which compares by itself
        return ()
    names, hints = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], function.__annotations__
    return tuple(
        (place if place < code.co_argcount else sys.maxsize, name)
        for place, name in enumerate(names)
        if "bool" in str(hints.get(name))
    )


def lacking(error: ModuleNotFoundError) -> str:
    """Return which package of an extra is missing and how to get it; "" for any other module.

    >>> lacking(ModuleNotFoundError(name="PIL"))
    "this needs PIL, which is not installed. Get it: pip install 'convoxel[train]'."
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return ""
    return f"this needs {package}, which is not installed. Get it: pip install 'convoxel[{_EXTRAS[package]}]'."


def _checked(function: _Function, module: str, *, plainly: bool = False) -> _Function:
    """Return the function with a check of its arguments before, unless it is called within Convoxel."""
    explaining = _explained(function, module)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if _caller(sys._getframe(1)).startswith("convoxel."):
            return function(*arguments, **named)
        bound = _bound(function, arguments, named)
        if (explanation := _misfit(function, module, bound)) is not None:
            raise explanation
        if bound is not None:
            _settle(function, bound, argument_types(function, module))
            arguments, named = bound.args, bound.kwargs
        result = explaining(*arguments, **named)
        # Last, so that checks of its own have the word: a layer would keep what PyTorch refuses in its first run.
        if plainly and (explanation := _misfit(function, module, bound, plainly=True)) is not None:
            raise explanation
        return result

    return call


def _caller(frame: FrameType) -> str:
    """Return the module that calls; a copy with changes (``replace``) is made by whoever asks for it."""
    module = str(frame.f_globals.get("__name__", ""))
    while frame.f_back is not None and (
        module == "dataclasses" or (module.startswith("convoxel.") and frame.f_code.co_name == "replace")
    ):
        frame = frame.f_back
        while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
            frame = frame.f_back
        module = str(frame.f_globals.get("__name__", ""))
    return module


def _settle(function: _Function, bound: inspect.BoundArguments, hints: dict[str, Any]) -> None:
    for name, value in bound.arguments.items():
        kind, hint = bound.signature.parameters[name].kind, hints.get(name, Any)
        try:
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(settled(entry, hint) for entry in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: settled(entry, hint) for key, entry in value.items()}
            else:
                bound.arguments[name] = settled(value, hint)
        except ConfigError as error:
            raise ConfigError(f"{_name(function, bound)}: {name}: {error}") from None


def _bound(function: _Function, arguments: Any, named: Any) -> inspect.BoundArguments | None:
    """Return the arguments by name, None where some are missing or too many, for which Python has words of its own."""
    try:
        return _signature(function).bind(*arguments, **named)
    except (TypeError, ValueError):  # ValueError: a binding, which has no signature
        return None


@functools.lru_cache(maxsize=1024)
def _signature(function: _Function) -> inspect.Signature:
    return inspect.signature(function)


def _misfit(
    function: _Function, module: str, bound: inspect.BoundArguments | None, *, plainly: bool = False
) -> ConfigError | None:
    """Return what is wrong with the arguments, None if they fit or cannot be judged.

    Args:
        function, module: the function, and the module that its annotations belong to.
        bound: its arguments.
        plainly: whether numbers and texts must be such as PyTorch and the engine can take.
    """
    hints = argument_types(function, module)
    for name, value in _values(bound) if bound else ():
        if name not in hints:
            continue
        if not fits(value, hints[name]):
            return _refusal(function, bound, name, value, hints[name])
        if plainly and not is_plain(value):
            return ConfigError(
                f"{_name(function, bound)}: {name} is {brief(value)}, which is too large or no plain text."
            )
    return None


def _refusal(
    function: _Function, bound: inspect.BoundArguments | None, name: str, value: object, hint: Any
) -> ConfigError:
    return ConfigError(f"{_name(function, bound)}: {name} is {brief(value)}, but it must be {expected(hint)}.")


def _context(function: _Function, bound: inspect.BoundArguments | None, error: Exception) -> ConvoxelError | None:
    """Return what Python or another package says of the arguments with the name of the call and its arguments."""
    said = " ".join(str(error).split()) or "there is not enough memory"
    kind = ShapeError if isinstance(error, MemoryError) else _KINDS.get(type(error))
    if kind is None:
        kind = next((one for of, (told, one) in _SAID.items() if isinstance(error, of) and told.search(said)), None)
    name, more = _name(function, bound), ""
    if kind is None and bound and (type(error) in _EITHER or type(error).__module__.startswith("numpy")):
        kind, said = ConfigError, f"{type(error).__name__}: {said}"
        more = f" Compare them with help({name}); if it allows them, please report this."
    if kind is None or _raised_by_caller(error):
        return None
    values = [(key, value) for key, value in _values(bound) if key != "self"] if bound else []
    given = f" Given {', '.join(f'{key}={_shown(value)}' for key, value in values)}." if values else ""
    return kind(f"{name}: {said[:300].rstrip('.')}.{given}{more}")


def _raised_by_caller(error: Exception) -> bool:
    """Return True for an error that comes from a function or module of the caller's, which we called back."""
    trace = error.__traceback__
    while trace is not None:
        name, place = trace.tb_frame.f_code.co_name, trace.tb_frame.f_code.co_filename
        converts = name.startswith("__") and name != "__call__"  # such as __bool__ of an argument
        if not converts and not _is_library(str(trace.tb_frame.f_globals.get("__name__", "")), place):
            return True
        trace = trace.tb_next
    return False


@functools.lru_cache(maxsize=1024)
def _is_library(module: str, place: str) -> bool:
    """Return True for code of Convoxel, of Python or of an installed package; compiled code lies in no ``place``."""
    package = module.partition(".")[0]
    home = getattr(sys.modules.get(package), "__file__", None) or ""
    installed = any("-packages" in path for path in (place, home))
    return package in ("", "convoxel") or package in sys.stdlib_module_names or installed


def _shown(value: Any) -> str:
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        return brief(value, 40) if shape is None or dtype is None else f"{tuple(shape)} {dtype}"
    except Exception:  # whatever the object raises, such as a tensor of nested ones
        return f"a {type(value).__name__}"


def _name(function: _Function, bound: inspect.BoundArguments | None) -> str:
    """Return the name of a call, as a caller knows it: of a constructor, or of a layer that runs, that of the class."""
    name = function.__name__
    owner = type(bound.arguments["self"]).__name__ if bound and "self" in bound.arguments else ""
    if name in (*_ALSO, "forward"):
        return owner or function.__qualname__.rpartition(".")[0]
    return f"{owner}.{name}" if owner else function.__qualname__


def _values(bound: inspect.BoundArguments) -> Iterator[tuple[str, Any]]:
    """Yield the arguments by name, those of ``*args`` and ``**kwargs`` one after the other."""
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((name, entry) for entry in value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from ((name, entry) for entry in value.values())
        else:
            yield name, value
