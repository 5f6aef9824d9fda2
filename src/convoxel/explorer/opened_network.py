"""Networks that views look at, each read once: its record with receptive fields, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from convoxel.cli.parsing import parse_options, parse_shape
from convoxel.draw.network_outline import Subject
from convoxel.explorer.view import Query
from convoxel.inspect.describe import summarise_record
from convoxel.inspect.receptive_field import trace_fields
from convoxel.lookup import NamedNetwork, find_network

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.inspect import Summary

#: The network that is shown where none is named.
USUAL = "resnet18"


@dataclass(frozen=True)
class OpenedNetwork:
    """A network as it was read.

    Attributes:
        word: name or path.
        shape: shape that was asked for, in words.
        assigned: options that were set, as name=value.
        named: the network.
        subject: its record, for the graph.
        summary: its figures.
    """

    word: str
    shape: str
    assigned: tuple[str, ...]
    named: NamedNetwork
    subject: Subject
    summary: Summary


def network_words(session: Session, query: Query) -> tuple[str, str, tuple[str, ...]]:
    """Return the network's word, which may be read, its shape and its options."""
    word = query.text("net") or (session.networks[0] if session.networks else USUAL)
    return session.network(word), query.text("shape"), tuple(query.texts("set"))


def open_network(session: Session, query: Query) -> OpenedNetwork:
    """Return the network that the words of a page name: ``net``, ``shape`` and any number of ``set``."""
    word, shape, assigned = network_words(session, query)
    return session.keep(("network", word, shape, assigned), lambda: _read(word, shape, assigned))


def _read(word: str, shape: str, assigned: tuple[str, ...]) -> OpenedNetwork:
    known = parse_shape(shape or None)
    named = find_network(word, () if known is None else [known], parse_options(assigned))
    source = named.open()
    record = source.record(named.shapes)
    traced = trace_fields(record)
    summary = summarise_record(source, record, traced, named.name)
    return OpenedNetwork(word, shape, assigned, named, Subject(named.name, record, traced[0]), summary)
