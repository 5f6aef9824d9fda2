"""Requests and answers of the Open Inference Protocol (KServe v2), with its extensions for binary data and classes.

A body is JSON; with the header ``Inference-Header-Content-Length`` the numbers of tensors may follow it as bytes, in
the order of the inputs. Whatever is wrong with a request becomes a ``Refusal`` that says what is expected, before
memory for its tensors is asked for.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoxel.files.fault import brief
from convoxel.files.values import Array, JsonObject
from convoxel.serve.model import ServedModel, TensorFacts
from convoxel.serve.tensor import TYPES, check_shape, from_bytes, from_json, to_bytes, to_json, widened
from convoxel.web.request import Refusal

#: The header that says how many bytes of a body are JSON, where others follow.
LENGTH = "inference-header-content-length"
#: The most bytes of JSON in a body: to parse more would hold up all other requests.
MOST_JSON = 16 * 2**20
_MOST_TEXT = 1024  # characters of an id
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for.

    Attributes:
        facts: the output.
        binary: whether its numbers are to follow the JSON as bytes.
        classes: number of the largest values to be named in place of the numbers; 0 for the numbers.
    """

    facts: TensorFacts
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """A request for results.

    Attributes:
        id: the client's own word for it; empty for none.
        arrays: the inputs, in the model's order.
        wanted: the outputs, in the order in which they are asked for.
        timeout_s: seconds that it may wait; None for no own limit.
    """

    id: str
    arrays: tuple[Array, ...]
    wanted: tuple[Wanted, ...]
    timeout_s: float | None = None


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """Return a body that came as ``gzip`` or ``deflate``.

    Raises:
        Refusal: it has another encoding, is damaged, or is larger than ``most`` bytes.
    """
    if encoding in ("", "identity"):
        return body
    windows = {"gzip": 31, "deflate": 15}
    if encoding not in windows:
        raise Refusal(415, f"Content-Encoding is {brief(encoding)}; expected gzip, deflate or none.")
    stream = zlib.decompressobj(windows[encoding])
    try:
        found = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(400, f"The body is no {encoding}: {error}.") from None
    if len(found) > most:
        raise Refusal(413, f"The body unpacks to more than {most} bytes, the most that is taken.")
    if not stream.eof or stream.unused_data:
        raise Refusal(400, f"The {encoding} stream of the body ends too early, or is followed by more bytes.")
    return found


def read_request(model: ServedModel, body: bytes, header_length: str | None = None) -> InferRequest:
    """Return the request in a body.

    Args:
        model: the model that is asked.
        body: JSON, and what follows it.
        header_length: value of the header ``Inference-Header-Content-Length``; None where there is none.

    Raises:
        Refusal: the body is no such request, or does not fit the model.
    """
    length = _header_length(header_length, len(body))
    content = parse_json(memoryview(body)[:length])
    parameters = _parameters(content, "the request")
    word = content.get("id", "")
    if not isinstance(word, str) or len(word) > _MOST_TEXT:
        raise Refusal(400, f"id is {brief(word)}; expected a text of at most {_MOST_TEXT} characters.")
    rest = memoryview(body)[length:]
    arrays: dict[str, Array] = {}
    for given in _objects(content, "inputs", required=True):
        facts = model.input(_text(given, "name", "inputs"))
        if facts.name in arrays:
            raise Refusal(400, f"input {facts.name!r} came twice; expected each input once.")
        array, rest = _input(facts, given, rest)
        arrays[facts.name] = array
    missing = [facts.name for facts in model.inputs if facts.name not in arrays]
    if missing:
        raise Refusal(400, f"inputs lacks {', '.join(missing)}; model {model.name!r} takes {_listed(model.inputs)}.")
    if len(rest):
        raise Refusal(
            400, f"{len(rest)} bytes follow the last input; expected the bytes that parameters.binary_data_size state."
        )
    ordered = tuple(arrays[facts.name] for facts in model.inputs)
    _check_images(model, ordered)
    return InferRequest(word, ordered, _wanted(model, content, parameters), _timeout(parameters))


def _header_length(text: str | None, size: int) -> int:
    if text is None:
        length = size
    elif text.isascii() and text.isdecimal() and 0 < int(text[:20]) <= size:
        length = int(text)
    else:
        raise Refusal(
            400,
            f"Inference-Header-Content-Length is {brief(text)}; expected the bytes of the JSON at the beginning of the "
            f"body, which has {size}.",
        )
    if length > MOST_JSON:
        raise Refusal(
            413,
            f"The JSON has {length} bytes; expected at most {MOST_JSON}. Send large tensors as binary data "
            "(Inference-Header-Content-Length).",
        )
    return length


def parse_json(text: memoryview) -> JsonObject:
    """Return the JSON object in a text.

    Raises:
        Refusal: it is none.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON; send such numbers as binary data")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name comes twice in an object")
        return found

    try:
        content = json.loads(bytes(text).decode(), parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # of which errors of UTF-8 are a kind
        reason = " ".join(str(error).split())[:200]
        raise Refusal(400, f"The body is no JSON: {reason}.") from None
    if not isinstance(content, dict):
        raise Refusal(400, f"The body is {brief(content)}; expected a JSON object with inputs.")
    return content


def _objects(content: JsonObject, name: str, required: bool = False) -> list[JsonObject]:
    found = content.get(name, [])
    good = isinstance(found, list) and all(isinstance(each, dict) for each in found)
    if not good or (required and not found):
        raise Refusal(400, f"{name} is {brief(found)}; expected a list of objects with name, shape, datatype and data.")
    return list(found)


def _text(content: JsonObject, name: str, where: str) -> str:
    found = content.get(name)
    if not isinstance(found, str):
        raise Refusal(400, f"{where}: {name} is {brief(found)}; expected a text.")
    return found


def _parameters(content: JsonObject, where: str) -> JsonObject:
    found = content.get("parameters", {})
    if not isinstance(found, dict):
        raise Refusal(400, f"{where}: parameters is {brief(found)}; expected an object.")
    return found


def _input(facts: TensorFacts, given: JsonObject, rest: memoryview) -> tuple[Array, memoryview]:
    """Return an input, and the bytes behind it."""
    name, kind = facts.name, _text(given, "datatype", f"input {facts.name!r}")
    if kind not in TYPES:
        raise Refusal(400, f"input {name!r}: datatype is {brief(kind)}; expected {facts.datatype}.")
    shape = check_shape(name, given.get("shape"))
    facts.check(kind, shape)
    size = _parameters(given, f"input {name!r}").get("binary_data_size")
    if size is None:
        array = from_json(name, kind, shape, given.get("data"))
    else:
        if type(size) is not int or not 0 <= size <= len(rest) or "data" in given:
            raise Refusal(
                400,
                f"input {name!r}: binary_data_size is {brief(size)}, and {len(rest)} bytes are left behind the JSON; "
                "expected the size of the tensor in bytes, no data in the JSON, and the header "
                "Inference-Header-Content-Length.",
            )
        array, rest = from_bytes(name, kind, shape, rest[:size]), rest[size:]
    return widened(array, facts.datatype), rest


def _listed(tensors: Iterable[TensorFacts]) -> str:
    return ", ".join(map(str, tensors))


def _check_images(model: ServedModel, arrays: tuple[Array, ...]) -> None:
    """Refuse inputs with different numbers of images."""
    counts = {array.shape[0] for array in arrays} if model.joins else set()
    if len(counts) > 1:
        raise Refusal(400, f"inputs have {sorted(counts)} images along their first axes; expected equal numbers.")


def _wanted(model: ServedModel, content: JsonObject, parameters: JsonObject) -> tuple[Wanted, ...]:
    """Return the outputs that are asked for: all of them where none is named."""
    usual = _flag(parameters, "binary_data_output", "the request", False)
    given = _objects(content, "outputs")
    if not given:
        return tuple(Wanted(facts, usual) for facts in model.outputs)
    found: dict[str, Wanted] = {}
    for each in given:
        facts = model.output(_text(each, "name", "outputs"))
        where = f"output {facts.name!r}"
        own = _parameters(each, where)
        classes = own.get("classification", 0)
        if type(classes) is not int or not 0 <= classes <= _MOST_CLASSES:
            raise Refusal(
                400, f"{where}: classification is {brief(classes)}; expected at most {_MOST_CLASSES} classes."
            )
        if facts.name in found:
            raise Refusal(400, f"{where} came twice; expected each output once.")
        found[facts.name] = Wanted(facts, _flag(own, "binary_data", where, usual), classes)
    return tuple(found.values())


def _flag(parameters: JsonObject, name: str, where: str, usual: bool) -> bool:
    found = parameters.get(name, usual)
    if not isinstance(found, bool):
        raise Refusal(400, f"{where}: {name} is {brief(found)}; expected true or false.")
    return found


def _timeout(parameters: JsonObject) -> float | None:
    """Return the seconds of the parameter ``timeout``, which counts microseconds; 0 stands for none, as elsewhere."""
    found = parameters.get("timeout", 0)
    if type(found) is not int or found < 0:
        raise Refusal(400, f"timeout is {brief(found)}; expected microseconds.")
    return found / 1e6 if found else None


def write_answer(
    model: ServedModel, request: InferRequest, results: Mapping[str, Array], version: str
) -> tuple[bytes, dict[str, str]]:
    """Return the body of an answer, and its headers.

    Raises:
        Refusal: results that JSON has no numbers for are asked for in JSON.
    """
    outputs: list[JsonObject] = []
    tail: list[bytes] = []
    for wanted in request.wanted:
        name, array = wanted.facts.name, results[wanted.facts.name]
        described: dict[str, Any] = {"name": name, "datatype": wanted.facts.datatype, "shape": list(array.shape)}
        if wanted.classes:
            texts = _classes(array, wanted.classes, model.labels.get(name, ()))
            described |= {"datatype": "BYTES", "shape": [len(texts), len(texts[0]) if texts else 0]}
            flat = [text for row in texts for text in row]
            packed = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in flat)
        else:
            flat, packed = [], b""
        if wanted.binary:
            part = packed if wanted.classes else to_bytes(array)
            tail.append(part)
            described["parameters"] = {"binary_data_size": len(part)}
        else:
            described["data"] = flat if wanted.classes else to_json(name, array)
        outputs.append(described)
    content: dict[str, Any] = {"model_name": model.name, "model_version": version, "outputs": outputs}
    if request.id:
        content["id"] = request.id
    head = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    if not any(wanted.binary for wanted in request.wanted):
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return b"".join([head, *tail]), headers


def _classes(array: Array, count: int, labels: Any) -> list[list[str]]:
    """Return the largest values of each image as texts: value, number and, where it has one, name of the class."""
    rows = array.reshape(len(array), math.prod(array.shape[1:])) if array.ndim else array.reshape(1, 1)
    found = []
    for row in rows:
        best = np.argsort(-row.astype(np.float64), kind="stable")[:count]
        named = [f":{labels[index]}" if index < len(labels) else "" for index in best]
        found.append([f"{row[index]:f}:{index}{name}" for index, name in zip(best, named, strict=True)])
    return found
