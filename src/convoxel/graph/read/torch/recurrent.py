"""Rules of the recurrent layers."""

from __future__ import annotations

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
        names.append(call.reader.constant(array_of(weight).copy(), f"{call.name}.weight{index}", owner=weight))
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
