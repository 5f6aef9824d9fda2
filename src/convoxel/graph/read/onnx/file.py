"""From a file to a model whose tensors are what they claim: sizes are checked before memory is asked for.

External data is read only from regular files inside the model's folder, or inside the folder of the file that the
model's name is a link to: caches keep a model and its data side by side under names of their own, and link to them.
Nothing here runs code from the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from convoxel.errors import GraphError, UnsupportedError
from convoxel.files.beside import open_beside
from convoxel.files.source import Content
from convoxel.files.values import Array

DOMAINS = ("", "ai.onnx")
HALF = ("float16", "bfloat16")

OLDEST_IR = 3  # the first that says which operator sets a model uses
OLDEST = 6  # the first operator set in which every operator of a CNN is what it is today
_LARGEST_FILE = 2**31  # a protocol buffer cannot be longer; weights beyond that are external data
_PACKED = {"int2": 4, "uint2": 4, "int4": 2, "uint4": 2, "float4_e2m1fn": 2}  # elements in a byte


def load_model(source: Path | Content) -> onnx.ModelProto:
    """Return the model in a file, or in its bytes.

    Raises ``GraphError`` if the file is no ONNX model, or of an operator set that we do not know.
    """
    path = source if isinstance(source, Path) else source.name
    try:
        size = source.stat().st_size if isinstance(source, Path) else len(source.data)
    except OSError as reason:
        raise GraphError(f"load: {path} cannot be read ({reason.strerror}); expected an .onnx file.") from None
    if (isinstance(source, Path) and not source.is_file()) or size >= _LARGEST_FILE:
        raise GraphError(f"load: {path} has {size} bytes; expected a file below 2 GiB. Keep weights as external data.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(source.read_bytes() if isinstance(source, Path) else source.data)
    except Exception as reason:  # protobuf raises kinds of its own, which differ between its versions
        raise GraphError(
            f"load: {path} is no ONNX model ({type(reason).__name__}); expected a file that onnx.save wrote."
        ) from None
    check_version(model, str(path))
    return model


def check_version(model: onnx.ModelProto, where: str) -> None:
    """Raise unless the model's operators are of a set that this program knows."""
    newest = onnx.defs.onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
    if not model.HasField("graph") or (not versions and not model.opset_import):
        raise GraphError(f"load: {where} holds no graph with an operator set; expected an ONNX model.")
    if not OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise GraphError(
            f"load: {where} has IR version {model.ir_version}; expected {OLDEST_IR} to {onnx.IR_VERSION}. "
            "Export it again, or install a newer onnx package."
        )
    for version in versions:
        if not OLDEST <= version <= newest:
            raise GraphError(
                f"load: {where} uses operator set {version}; expected {OLDEST} to {newest}. "
                "Convert it with onnx.version_converter, or install a newer onnx package."
            )


def dtype_name(elem_type: int) -> str:
    """Return NumPy's name of an ONNX element type."""
    if elem_type == onnx.TensorProto.STRING:
        raise UnsupportedError("tensors of texts are not supported")
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, TypeError, ValueError):
        raise GraphError(f"load: there is no element type {elem_type}; expected one of onnx.TensorProto") from None


def working_dtype(elem_type: int) -> str:
    """Return the type in which a network computes what it says to be of a type: float32 for half precision.

    Results are then nearer to the exact ones. Inputs and outputs keep the types that the model says.
    """
    dtype = dtype_name(elem_type)
    return "float32" if dtype in HALF else dtype


def tensor_array(tensor: onnx.TensorProto, model: Path | None) -> Array:
    """Return a tensor of the file ``model`` as an array, if it holds as many numbers as its shape claims."""
    dtype = dtype_name(tensor.data_type)
    shape = tuple(tensor.dims)
    where = f"load: tensor {tensor.name!r}"
    if any(size < 0 for size in shape):
        raise GraphError(f"{where} has shape {shape}; expected sizes of at least 0.")
    count = math.prod(shape)
    expected = -(-count // _PACKED[dtype]) if dtype in _PACKED else count * np.dtype(dtype).itemsize
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external(tensor, model, dtype, shape, expected)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != expected:
            raise GraphError(
                f"{where} claims {dtype}{list(shape)}, {expected} bytes, but holds {len(tensor.raw_data)}; "
                "the file is damaged. Export it again."
            )
    else:
        _check_typed(tensor, count, dtype, where)
    return np.array(onnx.numpy_helper.to_array(tensor))


def _check_typed(tensor: onnx.TensorProto, count: int, dtype: str, where: str) -> None:
    held = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
    needed = {count, -(-count // _PACKED[dtype])} if dtype in _PACKED else {count}
    if dtype.startswith("complex"):
        needed = {2 * count}
    if held not in needed:
        raise GraphError(
            f"{where} claims {dtype}{list(tensor.dims)}, {count} elements, but holds {held}; "
            "the file is damaged. Export it again."
        )


def _external(tensor: onnx.TensorProto, model: Path | None, dtype: str, shape: tuple[int, ...], expected: int) -> Array:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, where = entries.get("location", ""), f"load: external data of tensor {tensor.name!r}"
    if model is None:
        raise GraphError(f"{where} is in {location!r}, but the model did not come from a file. Give its path.")
    file = open_beside(model, location)
    if file is None:
        raise GraphError(
            f"{where} is {location!r}; expected a regular file inside the model's folder, without '..', and no "
            "link that leads out of it. Copy the file there."
        )
    with file:
        data = _part(file, entries, expected, f"{where} in {location!r} for {dtype}{list(shape)}")
    if np.dtype(dtype).kind not in "biufc":  # types that NumPy lacks, some of them several in a byte
        proto = onnx.TensorProto(data_type=tensor.data_type, dims=shape, raw_data=data)
        return np.array(onnx.numpy_helper.to_array(proto))
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)


def _part(file: BinaryIO, entries: Mapping[str, str], expected: int, where: str) -> bytes:
    """Return the bytes of a tensor, if the file holds as many as it claims."""
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", expected))
    except ValueError:
        raise GraphError(f"{where} has an offset or length that is no number. Export it again.") from None
    size = os.fstat(file.fileno()).st_size
    if offset < 0 or length != expected or offset + length > size:
        raise GraphError(
            f"{where}: claims bytes {offset} to {offset + length} of {size}, the tensor has {expected}; "
            "the file is damaged. Export it again."
        )
    file.seek(offset)
    return file.read(expected)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of another package says."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else "no message"
