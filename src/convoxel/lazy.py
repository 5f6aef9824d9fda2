"""Names of a package that are imported on first use (PEP 562), so that importing the package stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from convoxel.errors import MissingPackageError
from convoxel.face import explained, lacking
from convoxel.fork import forks_wait


def lazy_names(
    package: str, homes: Mapping[str, str], needs: str = "", *, early: bool | Collection[str] = False
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: the package's ``__name__``.
        homes: a module and the names in it, separated by spaces; names of the package itself are its modules.
        needs: beginning of a message for packages that are not installed, such as "Training needs"; they are those of
            the extra of the package's own name (default: the import's own error).
        early: whether functions compare their arguments before they run (default no), as in :func:`open_face`; or the
            names of those that do.
    """
    named = early if isinstance(early, Collection) else ()
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = home_of[name]
        try:
            with forks_wait():
                value = import_module(f"{home}.{name}") if home == package else getattr(import_module(home), name)
        except ModuleNotFoundError as error:
            if not needs and (advice := lacking(error)):
                raise MissingPackageError(f"{package}.{name}: {advice}") from error
            if not needs or error.name is None or error.name.startswith("convoxel"):
                raise
            extra = package.rpartition(".")[2]
            raise MissingPackageError(f"{needs} {error.name}: pip install 'convoxel[{extra}]'.") from error
        setattr(sys.modules[package], name, value)
        # Those of modules that came along, too: a function may return what nobody has asked for by its name.
        for other, home in home_of.items():
            if other == name or (home != package and other in vars(sys.modules.get(home, object))):
                value = vars(sys.modules[package]).get(other) or vars(sys.modules[home])[other]
                value = explained(value, package, early=early is True or other in named)
                setattr(sys.modules[package], other, value)
        return vars(sys.modules[package])[name]

    return load, lambda: sorted({*home_of, *vars(sys.modules[package])})


class LazyModule(ModuleType):
    """A module of another package that is imported when something of it is asked for.

    So a module whose functions need it only in part does without where it is not installed.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            with forks_wait():
                return getattr(import_module(self.__name__), name)
        except ModuleNotFoundError as error:
            raise MissingPackageError(lacking(error) or str(error)) from error
