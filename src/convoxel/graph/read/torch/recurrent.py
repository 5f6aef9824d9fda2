"""Rules of the recurrent layers."""

from __future__ import annotations

import torch

from convoxel.graph.ir.graph import Value
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, array_of, rule
from convoxel.graph.read.torch.indexing import named


@rule(*(f"aten.{kind}.input" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")))
def _recurrent(call: Call) -> Result:
    x, states = call.tensor("input"), call["hx"]
    if call["train"] and call["dropout"]:
        raise NotNative("dropout while training")
    state, *cell = states if isinstance(states, list | tuple) else [states]
    names = [x.name, named(call, state, "state", x.dtype)]
    names.append(named(call, cell[0], "cell", x.dtype) if cell else "")
    for index, weight in enumerate(call["params"]):
        if isinstance(weight, Value):
            raise NotNative("weights that the network computes")
        names.append(_weight(call, weight, index))
    ways, count = 2 if call["bidirectional"] else 1, len(call["params"])
    bias = bool(call["has_biases"])
    return call.add_all(
        "recurrent",
        *names,
        kind=call.function,
        batch_first=bool(call["batch_first"]),
        bidirectional=ways == 2,
        bias=bias,
        projected=count == call["num_layers"] * ways * (3 + 2 * bias),
    )


@rule("aten.lstm_cell.default", *(f"aten.{kind}_cell.default" for kind in ("gru", "rnn_tanh", "rnn_relu")))
def _cell(call: Call) -> Result:
    """One step: a sequence of that length."""
    x, states = call.tensor("input"), call["hx"]
    weights = [call[key] for key in ("w_ih", "w_hh", "b_ih", "b_hh")]
    if any(isinstance(weight, Value) for weight in weights) or len(x.shape) != 2:
        raise NotNative("weights that the network computes, or a single sample")
    names = [call.reshaped(x, (1, *x.shape)).name]
    for index, state in enumerate(states if isinstance(states, list | tuple) else [states]):
        lifted, name = (1, *state.shape), named(call, state, f"state{index}", x.dtype)
        names.append(call.add("reshape", name, result=lifted, dtype=x.dtype, shape=lifted).name)
    hidden, kind = lifted, call.function.removesuffix("_cell")
    names += [""] * (3 - len(names))
    names += [_weight(call, weight, index) for index, weight in enumerate(weights) if weight is not None]
    how = {"batch_first": False, "bidirectional": False, "bias": weights[2] is not None, "projected": False}
    count = 3 if kind == "lstm" else 2
    types = ("float32",) * count
    made = call.reader.add("recurrent", call.name, names, (hidden,) * count, types, kind=kind, **how)
    results = [call.reshaped(value, shape) for value, shape in zip(made[1:], call.shapes, strict=True)]
    return results if len(results) > 1 else results[0]


def _weight(call: Call, weight: torch.Tensor, index: int) -> str:
    return call.reader.constant(array_of(weight), f"{call.name}.weight{index}", owner=weight)
