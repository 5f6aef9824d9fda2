"""The Open Inference Protocol: tensors in JSON and as bytes, what is asked for, and what is refused."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from convoxel.serve.protocol import MOST_JSON, read_request, unpack, write_answer
from convoxel.serve.tensor import TYPES, datatype, from_bytes, from_json, to_bytes
from convoxel.web.request import Refusal
from tests.support.server import double, tensor

X = np.array([[1.0, 2.0], [3.0, 4.5]], np.float32)


def binary(array: Any, kind: str = "FP32", size: int | None = None, **more: Any) -> tuple[bytes, str]:
    """A body with one binary tensor, and the length of its JSON."""
    data = array.tobytes()
    given = {"name": "x", "shape": list(array.shape), "datatype": kind, "parameters": {"binary_data_size": len(data)}}
    if size is not None:
        given["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [given], **more}).encode()
    return head + data, str(len(head))


def answered(content: dict[str, Any], **more: Any) -> tuple[dict[str, Any], bytes]:
    """JSON and bytes of an answer to a request in JSON."""
    model = double(**more)
    request = read_request(model, json.dumps(content).encode())
    body, headers = write_answer(model, request, model.compute(request.arrays, frozenset("y")), "1")
    length = int(headers.get("inference-header-content-length", len(body)))
    return json.loads(body[:length]), body[length:]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "BF16"])
def test_types_by_bytes_and_in_json(kind: str) -> None:
    values = np.array([0, 1, 1, 0, 1, 0]).astype(TYPES[kind]).reshape(1, 3, 2)
    assert datatype(str(values.dtype)) == kind
    found = from_bytes("x", kind, (1, 3, 2), memoryview(to_bytes(values)))
    assert found.dtype == values.dtype and np.array_equal(found, values)
    for data in (values.ravel().tolist(), values.tolist()):
        found = from_json("x", kind, (1, 3, 2), data)
        assert found.dtype == values.dtype and np.array_equal(found, values)


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    numbers = np.array([1.0, -2.5, 3.140625, np.inf, np.nan], np.float32)
    upper = (numbers.view(np.uint32) >> 16).astype("<u2")
    assert np.array_equal(from_bytes("x", "BF16", (5,), memoryview(upper.tobytes())), numbers, equal_nan=True)
    assert from_json("x", "BF16", (3,), [1.00390625, 1.01171875, -3.2]).tolist() == [1.0, 1.015625, -3.203125]


@pytest.mark.parametrize(
    ("kind", "array"),
    [("FP16", X.astype(np.float16)), ("UINT8", X.astype(np.uint8)), ("INT16", X.astype(np.int16)), ("FP32", X)],
)
def test_types_whose_numbers_the_model_holds_are_taken(kind: str, array: Any) -> None:
    (found,) = read_request(double(), *binary(array, kind)).arrays
    assert found.dtype == np.float32 and np.array_equal(found, array.astype(np.float32)) and found.flags.aligned


@pytest.mark.parametrize("kind", ["FP64", "INT32", "BYTES", "FP8", ""])
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(Refusal, match=r"datatype is .*expected FP32"):
        read_request(double(), json.dumps({"inputs": [tensor(X, kind=kind)]}).encode())


def test_answers_in_json_and_as_bytes() -> None:
    content, tail = answered({"id": "7", "inputs": [tensor(X)]})
    assert content == {
        "model_name": "double", "model_version": "1", "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 4.0, 6.0, 9.0]}],
    } and not tail  # fmt: skip
    for how in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
    ):
        content, tail = answered({"inputs": [tensor(X)], **how})
        assert content["outputs"][0]["parameters"] == {"binary_data_size": 16} and "data" not in content["outputs"][0]
        assert np.array_equal(np.frombuffer(tail, np.float32), (X + X).ravel())
    asked = {"name": "y", "parameters": {"binary_data": False}}
    content, tail = answered({"inputs": [tensor(X)], "outputs": [asked], "parameters": {"binary_data_output": True}})
    assert content["outputs"][0]["data"] == [2.0, 4.0, 6.0, 9.0] and not tail


def test_classes_are_named() -> None:
    asked: dict[str, Any] = {"name": "y", "parameters": {"classification": 2}}
    content, _ = answered({"inputs": [tensor(X)], "outputs": [asked]}, labels={"y": ("cat", "dog")})
    expected = ["4.000000:1:dog", "2.000000:0:cat", "9.000000:1:dog", "6.000000:0:cat"]
    assert content["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [2, 2], "data": expected}]
    asked["parameters"] = {"classification": 1, "binary_data": True}
    content, tail = answered({"inputs": [tensor(X)], "outputs": [asked]}, labels={})
    assert content["outputs"][0]["shape"] == [2, 1]
    assert tail == b"".join(struct.pack("<I", 10) + text for text in (b"4.000000:1", b"9.000000:1"))


def test_results_without_a_number_in_json_are_refused_there() -> None:
    content = {"inputs": [tensor(X)]}
    with pytest.raises(Refusal, match=r"output 'y' holds NaN or infinity.*binary_data"):
        answered(content, compute=lambda x: x * np.float32(np.nan))
    _, tail = answered(
        {**content, "parameters": {"binary_data_output": True}}, compute=lambda x: x * np.float32(np.nan)
    )
    assert np.isnan(np.frombuffer(tail, np.float32)).all()


def test_many_results_are_refused_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoxel.serve.tensor._MOST_IN_JSON", 3)
    with pytest.raises(Refusal, match=r"output 'y' has 4 numbers; expected at most 3 in JSON"):
        answered({"inputs": [tensor(X)]})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": []}, r"inputs is \[\]; expected a list"),
        ({"inputs": {"name": "x"}}, "inputs is .*expected a list"),
        ({"inputs": [tensor(X), tensor(X)]}, "input 'x' came twice"),
        ({"inputs": [tensor(X, name="z")]}, r"has no input 'z'; expected x"),
        ({"inputs": [tensor(X, shape=[2, 3])]}, r"shape is \[2, 3\]; expected \[-1, 2\]"),
        ({"inputs": [tensor(X, shape=[2, 2, 1])]}, r"shape is \[2, 2, 1\]; expected \[-1, 2\]"),
        ({"inputs": [tensor(X, shape=[10**12, 2])]}, "data holds 4 numbers; expected 2000000000000"),
        ({"inputs": [tensor(X, shape=[2**63, 2])]}, "shape is .*expected a list of sizes"),
        ({"inputs": [tensor(X, shape=[-1, 2])]}, "expected a list of sizes"),
        ({"inputs": [tensor(X, shape=[True, 2])]}, "expected a list of sizes"),
        ({"inputs": [tensor(X, shape="2,2")]}, "expected a list of sizes"),
        ({"inputs": [tensor(X, data=[1, 2, 3])]}, "data holds 3 numbers; expected 4"),
        ({"inputs": [tensor(X, data=[[1, 2], [3]])]}, r"lists of data have \[1, 2\] entries"),
        ({"inputs": [tensor(X, data=[[1], [2], [3], [4]])]}, r"lists of shape \[4, 1\]"),
        ({"inputs": [tensor(X, data=[1, 2, 3, "4"])]}, "data holds '4'; expected numbers for FP32"),
        ({"inputs": [tensor(X, data=[1, 2, 3, None])]}, "data holds None"),
        ({"inputs": [tensor(X, data=[1, 2, 3, True])]}, "data holds True"),
        ({"inputs": [tensor(X, data=[1, 2, 3, 10**400])]}, "numbers beyond FP32"),
        ({"inputs": [tensor(X, data=[1, 2, 3, 1e39])]}, "numbers beyond FP32"),
        ({"inputs": [tensor(X, data=None)]}, "data is None; expected a list"),
        ({"inputs": [tensor(X, kind="UINT8", data=[1, 2, 3, 256])]}, "numbers beyond UINT8; expected 0 to 255"),
        ({"inputs": [tensor(X, kind="UINT8", data=[1, 2, 3, 1.0])]}, "data holds 1.0; expected whole numbers"),
        ({"inputs": [tensor(X, kind="BOOL", data=[0, 1, 1, 0])]}, "data holds 0; expected true and false"),
        ({"inputs": [tensor(X, parameters=3)]}, "parameters is 3; expected an object"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": 4})]}, "0 bytes are left behind the JSON"),
        ({"inputs": [{"shape": [2, 2]}]}, "name is None; expected a text"),
        ({"id": 7}, "id is 7; expected a text"),
        ({"id": "x" * 5000}, "id is .*at most 1024 characters"),
        ({"parameters": []}, r"parameters is \[\]"),
        ({"parameters": {"timeout": "1"}}, "timeout is '1'; expected microseconds"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output is 1; expected true or false"),
        ({"outputs": [{"name": "z"}]}, "has no output 'z'; expected y"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y' came twice"),
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "classification is -1"),
    ],
)
def test_requests_that_do_not_fit_are_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        read_request(double(), json.dumps({"inputs": [tensor(X)], **change}).encode())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"inputs": NaN}', b'{"inputs": [], "inputs": []}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, 1]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1e999, 1]}]}',
        b'{"id": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_of_a_request_is_refused(text: bytes) -> None:
    with pytest.raises(Refusal, match=r"The body is|expected"):
        read_request(double(), text)


def test_sizes_of_binary_data_must_be_right() -> None:
    body, length = binary(X)
    for wrong, told in (
        (binary(X, size=12)[0], "12 bytes came; expected 16 for FP32 of shape"),
        (binary(X, size=20)[0], "20, and 16 bytes are left"),
        (binary(X, size=-1)[0], "binary_data_size is -1"),
        (body + b"x", "1 bytes follow the last input"),
        (body[:-1], "16, and 15 bytes are left"),
    ):
        with pytest.raises(Refusal, match=told):
            read_request(double(), wrong, str(wrong.index(b"}]}") + 3))
    for wrong_length in ("0", "-1", "x", "", "1e3", str(10**30), str(len(body) + 1), "٣"):
        with pytest.raises(Refusal, match="Inference-Header-Content-Length is"):
            read_request(double(), body, wrong_length)
    assert np.array_equal(read_request(double(), body, length).arrays[0], X)


def test_large_json_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refusal, match="as binary data") as caught:
        read_request(double(), b" " * (MOST_JSON + 1))
    assert caught.value.status == 413


def test_bodies_may_be_packed_and_unpack_to_no_more_than_the_limit() -> None:
    text = b"x" * 1000
    assert unpack(gzip.compress(text), "gzip", 1000) == unpack(zlib.compress(text), "deflate", 1000) == text
    assert unpack(text, "identity", 1000) == text
    for body, encoding, status in (
        (gzip.compress(b"x" * 10**6), "gzip", 413), (text, "gzip", 400), (gzip.compress(text)[:-1], "gzip", 400),
        (gzip.compress(text) + b"x", "gzip", 400), (text, "br", 415),
    ):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            unpack(body, encoding, 1000)
        assert caught.value.status == status


def test_microseconds_of_a_timeout() -> None:
    for given, expected in ((0, None), (2_500_000, 2.5)):
        content = {"inputs": [tensor(X)], "parameters": {"timeout": given}}
        assert read_request(double(), json.dumps(content).encode()).timeout_s == expected
