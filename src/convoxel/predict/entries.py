"""Records of a configuration, checked in whichever way they are made; all mistakes are told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from convoxel.errors import ConfigError
from convoxel.files.fault import brief

_Record = TypeVar("_Record", bound="Entries")


class Entries(BaseModel):
    """Base of these records: frozen, finite, and without entries that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    def __init__(self, /, **entries: Any) -> None:
        with _told(type(self)):
            super().__init__(**entries)

    # Records within others are checked with them, so that their mistakes say where they stand.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls: type[_Record], obj: Any, **how: Any) -> _Record:
        """Return the record of a mapping."""
        with _told(cls):
            return super().model_validate(obj, **how)

    @classmethod
    def model_validate_json(cls: type[_Record], json_data: str | bytes | bytearray, **how: Any) -> _Record:
        """Return the record in a JSON text."""
        with _told(cls):
            return super().model_validate_json(json_data, **how)

    @classmethod
    def model_validate_strings(cls: type[_Record], obj: Any, **how: Any) -> _Record:
        """Return the record of a mapping whose values are texts."""
        with _told(cls):
            return super().model_validate_strings(obj, **how)

    def model_copy(self: _Record, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> _Record:
        """Return the record with some entries changed, which are checked as well."""
        if not update:
            return super().model_copy(deep=deep)
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**kept, **update})

    def __setattr__(self, name: str, value: object) -> None:
        with _told(type(self)):
            super().__setattr__(name, value)


@contextmanager
def _told(model: type[BaseModel]) -> Iterator[None]:
    """Raise ConfigError with every mistake for pydantic's error."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError("config: " + "; ".join(_explain(model, item) for item in error.errors())) from None


def _explain(model: type[BaseModel], item: ErrorDetails) -> str:
    """Return one mistake as `name: what came; what is expected`."""
    name = ".".join(str(part) for part in item["loc"])
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        # Names of a group begin with it: constraints.max_norm.
        group = name.rpartition(".")[0]
        fields = _group(model, group).model_fields
        known = [f"{group}.{inner}" if group else inner for inner in fields]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "names: " + ", ".join(known)
        return f"there is no entry {name!r}; {hint}"
    if kind == "missing":
        return f"{name} is missing; give {name}=…"
    reason = item["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if kind == "literal_error":
        words = [str(word) for word in get_args(_plain_type(model, name))]
        near = difflib.get_close_matches(str(given), words, n=1)
        reason += f"; did you mean {near[0]!r}?" if near else ""
    return f"{name}={brief(given)}: {reason}" if name else reason


def _group(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the record that an entry holds; the whole one for an entry of another kind."""
    field = model.model_fields.get(name)
    inner = None if field is None else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model


def _plain_type(model: type[BaseModel], name: str) -> object:
    """Return the type of an entry, or of those of its parts that are words, without ``| None``."""
    first, _, rest = name.partition(".")
    inner = _group(model, first)
    declared = inner.model_fields[first if inner is model else rest.partition(".")[0]].annotation
    return next((each for each in get_args(declared) if get_origin(each) is Literal), declared)
