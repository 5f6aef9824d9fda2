"""From a graph to an ONNX model, which other engines run.

``call`` holds the table of rules; ``spatial``, ``normalisation``, ``numeric`` and ``tensors`` fill it, as in the reader
of ONNX; ``sizes`` computes open sizes. The graph is the one that runs, after all passes: what they have folded into
weights stays there, and fused steps become several nodes. Layers of whole numbers are written as layers of floats
between ``QuantizeLinear`` and ``DequantizeLinear``. Absent on purpose: weights beyond 2 GiB (external data), and how
exactly an engine is to multiply.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from convoxel import __version__
from convoxel.errors import UnsupportedError
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.pytree import Structure, name_leaves
from convoxel.graph.ir.size import Size
from convoxel.graph.write.onnx import normalisation, numeric, spatial, tensors
from convoxel.graph.write.onnx.call import RULES, Call, Writer, onnx_type
from convoxel.graph.write.onnx.sizes import NotExpressible

__all__ = ["build_model", "normalisation", "numeric", "spatial", "tensors"]

_LARGEST_BYTES = 2**31 - 2**26  # of weights: a protocol buffer ends at 2 GiB, and nodes take some of it


def build_model(graph: Graph, structure: Structure, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Return a graph as an ONNX model of the oldest operator set that has its operators, 18 or later.

    Args:
        graph: after all passes.
        structure: nesting of the results, whose keys name the outputs.
        metadata: texts by name that the model keeps in ``metadata_props`` (default none).

    Raises:
        UnsupportedError: ONNX cannot say what some nodes do, which the message lists; or the weights are too large.
    """
    held = sum(array.nbytes for array in graph.constants.values())
    if held > _LARGEST_BYTES:
        raise UnsupportedError(
            f"to_onnx: the weights take {held / 2**30:.2f} GiB; expected less than 2 GiB, the most that a file of "
            "ONNX can hold. Save the program as .cvx."
        )
    writer = Writer(graph)
    try:
        _check_conditions(writer)
    except NotExpressible as reason:
        raise UnsupportedError(f"to_onnx: the conditions on input sizes cannot be written: {reason}.") from None
    _write_nodes(writer)
    outputs = _outputs(writer, structure)
    inputs = [helper.make_tensor_value_info(v.name, onnx_type(v.dtype), _dims(v)) for v in graph.inputs]
    name = graph.name or "network"
    made = helper.make_graph(writer.nodes, name, inputs, outputs, list(writer.constants.values()))
    opsets = [helper.make_opsetid("", writer.opset)]
    model = helper.make_model(
        made,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="convoxel",
        producer_version=__version__,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def _write_nodes(writer: Writer) -> None:
    """Write all nodes; raise ``UnsupportedError`` listing those that ONNX cannot say."""
    refused = []
    for node in writer.graph.nodes:
        try:
            if node.operator not in RULES:
                label = node.attributes.get("label")
                raise NotExpressible(f"runs in PyTorch: {label}" if label else "")
            made = RULES[node.operator](Call(writer, node))
        except NotExpressible as reason:
            why = f": {reason}" if str(reason) else ""
            refused.append(f"{node.name} ({node.operator}{why})")
            made = [""] * len(node.outputs)  # so that what follows is looked at, too
        names = [made] if isinstance(made, str) else list(made)
        for value, name in zip(node.outputs, names, strict=False):
            writer.names[value.name] = name
    if refused:
        listed = "; ".join(refused)
        raise UnsupportedError(
            f"to_onnx: {len(refused)} node(s) have no counterpart in ONNX: {listed}. Leave them out of the model, or "
            "save the program as .cvx."
        )


def _check_conditions(writer: Writer) -> None:
    """Let the model refuse sizes that the network was not read for: a first reshape then asks for a wrong shape.

    What is assumed of sizes matters where they are computed: operators of the model find the shapes of their results.
    """
    conditions = (*writer.graph.guards, *(writer.graph.assumptions if writer.graph.computes_sizes else ()))
    if not conditions:
        return
    answers = [writer.sizes.scalar(condition) for condition in dict.fromkeys(conditions)]

    def add(operator: str, *inputs: str, **how: int) -> str:
        return writer.add(operator, inputs, "conditions", **how)[0]

    held = answers[0] if len(answers) == 1 else add("Min", *answers)
    first = writer.graph.inputs[0]
    one = writer.constant(np.ones(1, np.int64), "conditions/one")
    batch = add("Add", add("Shape", first.name, start=0, end=1), add("Sub", one, held))
    shape = add("Concat", batch, add("Shape", first.name, start=1), axis=0)
    writer.names[first.name] = add("Reshape", first.name, shape, allowzero=1)


def _outputs(writer: Writer, structure: Structure) -> list[onnx.ValueInfoProto]:
    """Return the outputs, which get names of their own: those of the results' keys, or numbers."""
    found, wanted = [], dict(name_leaves(structure))
    made = {name for node in writer.nodes for name in node.output}
    renamed: dict[str, str] = {}
    for index, result in enumerate(writer.graph.outputs):
        name = writer.unique(wanted.get(index) or f"output_{index}")
        old = writer.tensor(result)
        if old in made and old not in renamed:
            renamed[old] = name
        else:  # an input, a constant, or an output once more
            writer.nodes.append(helper.make_node("Identity", [renamed.get(old, old)], [name], name=name))
        value = writer.graph.values.get(result)
        if value is None:
            array = writer.graph.constants[result]
            value = Value(result, tuple(array.shape), str(array.dtype))
        found.append(helper.make_tensor_value_info(name, onnx_type(value.dtype), _dims(value)))
    for node in writer.nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
    return found


def _dims(value: Value) -> list[int | str]:
    """Return a shape as ONNX names it: an open size by its expression."""
    return [extent.text if isinstance(extent, Size) else int(extent) for extent in value.shape]
