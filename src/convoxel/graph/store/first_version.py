"""Operators as version 1 of the ``.cvx`` format named them."""

from __future__ import annotations

from convoxel.files.values import JsonObject

_NAMES = {
    "blank": "zeros",
    "dense": "linear",
    "lay": "swap_channels_space",
    "narrow": "slice",
    "pick_channels": "gather_channels",
    "global_max_pool": "adaptive_max_pool",
    "resample": "interpolate",
    "squeeze": "reshape",
}


def of_first_version(operator: str, given: JsonObject, rank: int) -> tuple[str, JsonObject]:
    """Return the present name and attributes of an operator of version 1 whose first result has ``rank`` axes."""
    bare = operator.removeprefix("array.")
    native = bare == operator
    if bare.startswith("reduce_"):
        return "reduce", {**given, "function": bare.removeprefix("reduce_")}
    if operator == "array.batch_norm":
        return "batch_norm_training", given
    if native and operator == "reduce":
        given.setdefault("keep", True)
    elif native and operator == "softmax":
        given.setdefault("axes", (1,))
    elif native and operator == "dense":
        given["flatten"] = True
    elif native and operator == "pad" and len(given["padding"]) == rank - 2:
        mode = {"zero": "constant"}.get(given["mode"], given["mode"])
        given.update(padding=((0, 0), (0, 0), *given["padding"]), mode=mode)
    elif native and operator == "interpolate" and len(given["size"]) == rank - 2:
        given.update(size=(0, 0, *given["size"]), scale=(None, None, *given["scale"]), region=((0.0, 1.0),) * rank)
    elif operator == "narrow":
        axis = given["axis"] % rank
        usual = {"starts": (0, "start"), "stops": (None, "stop"), "steps": (1, "step")}
        given = {
            key: tuple(given[ours] if i == axis else empty for i in range(rank)) for key, (empty, ours) in usual.items()
        }
    return _NAMES.get(bare, bare), given
