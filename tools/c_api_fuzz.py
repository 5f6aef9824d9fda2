"""Damaged files and senseless sequences of calls for the C interface; the engine must refuse each, or compute.

    python -m tools.c_api_fuzz [--files N] [--calls N] [--seed S] [--library PATH]

``tools/sanitize.sh`` runs it with the engine under AddressSanitizer and UndefinedBehaviourSanitizer, which end the
process at their first finding. Half of the files have bytes changed, cut out or added; the others have native plans in
which numbers, names and lists are changed, under a checksum that is right. Prints how many were refused.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import faulthandler
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.native.checksum import checksum
from tests.support.c_api import MOST_AXES, CError, Network, Tensor, library

_LIMIT_S = 60  # of one case; then all stacks are printed
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 256, 2**15, 2**19, 2**31, 2**31 - 1, 2**32, 2**46, 2**62, -(2**31), -(2**62))


class File:
    """A .cvx file in parts."""

    def __init__(self, content: bytes) -> None:
        length = struct.unpack("<Q", content[:8])[0]
        self.header: dict[str, Any] = json.loads(content[8 : 8 + length])
        self.data = content[8 + length :]
        self.native: Any = json.loads(self.header["__metadata__"]["native"])

    def signed(self, native: Any) -> bytes:
        """Return the file with other native plans and the checksum of these."""
        texts = {**self.header["__metadata__"], "native": json.dumps(native)}
        areas = [texts["program"].encode(), texts["native"].encode()]
        for name in sorted(self.header.keys() - {"__metadata__"}):
            entry = self.header[name]
            extents = "".join(f"{extent}," for extent in entry["shape"])
            begin, end = entry["data_offsets"]
            areas += [f"{name}\n{entry['dtype']}\n{extents}".encode(), self.data[begin:end]]
        texts["checksum"] = str(checksum([np.frombuffer(area, np.uint8) for area in areas]))
        text = json.dumps({**self.header, "__metadata__": texts}).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + self.data


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return every container within a value, with every key."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


def changed(native: Any, chance: random.Random) -> Any:
    """Return native plans with a few values changed."""
    native = copy.deepcopy(native)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = _places(native, [])
        container, key = chance.choice(places)
        other, where = chance.choice(places)
        value = container[key]
        kind = chance.randrange(8)
        if isinstance(value, bool):
            container[key] = not value
        elif isinstance(value, int) and kind < 6:
            near = (value + 1, value - 1, 2 * value, value // 2, -value)
            container[key] = chance.choice(_NUMBERS) if kind < 3 else chance.choice(near)
        elif isinstance(value, list) and value and kind < 4:
            if kind < 2:
                value.pop(chance.randrange(len(value)))
            else:
                value.insert(chance.randrange(len(value) + 1), copy.deepcopy(chance.choice(value)))
        elif kind == 7:
            container[key] = chance.choice((None, "", "auto", [], {}, 2**40, "reduce"))
        else:
            container[key] = copy.deepcopy(other[where])
    return native


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few changed, cut out or added."""
    changed = bytearray(content)
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(min(len(changed), chance.choice((9, header, len(changed)))) or 1)
        kind = chance.randrange(4)
        if kind < 2 and changed:
            changed[min(place, len(changed) - 1)] = chance.randrange(256)
        elif kind == 2:
            del changed[place : place + chance.choice((1, 8, len(changed)))]
        else:
            changed[place:place] = chance.randbytes(chance.choice((1, 8, 64)))
    return bytes(changed)


def files(count: int, seeds: list[bytes], chance: random.Random, api: ctypes.CDLL) -> tuple[int, int]:
    """Load and run damaged files; return how many were refused, and how many computed."""
    refused = computed = 0
    parted = [File(seed) for seed in seeds]
    for index in range(count):
        which = chance.randrange(len(seeds))
        if index % 2:
            content = damaged(seeds[which], chance)
        else:
            content = parted[which].signed(changed(parted[which].native, chance))
        faulthandler.dump_traceback_later(_LIMIT_S, exit=True)
        try:
            network = Network(content, api)
            shapes = [tuple(8 if n < 0 else n for n in shape) for _, shape in network.ports("input")]
            if all(np.prod(shape) < 1 << 20 for shape in (*shapes, *network.prepare(*shapes))):
                network(*(np.ones(shape, np.float32) for shape in shapes))
            computed += 1
        except CError:
            refused += 1
    return refused, computed


def calls(count: int, seeds: list[bytes], chance: random.Random, api: ctypes.CDLL) -> tuple[int, int]:
    """Call functions in any order with arguments that fit and that do not; return how many calls failed, and worked."""
    statuses = {True: 0, False: 0}
    room = np.zeros(1 << 16, np.float32)

    def tensor(names: list[str | None]) -> Tensor:
        found = Tensor()
        name = chance.choice(names)
        found.name = name.encode() if name else None
        found.data = chance.choice((None, room.ctypes.data, room.ctypes.data, room.ctypes.data))
        found.count = chance.choice((0, 1, room.size, room.size))
        found.axes = chance.choice((-1, 0, 3, 4, 4, 4, 5, 8, 9, 2**31 - 1))
        for axis in range(MOST_AXES):
            found.shape[axis] = chance.choice((1, 2, 2, 8, 8, 8, 0, -1, 2**62))
        if chance.random() < 0.5:
            found.axes = 4
            found.shape[:4] = [1, 2, 8, 8]
        return found

    for _ in range(count):
        faulthandler.dump_traceback_later(_LIMIT_S, exit=True)
        network = Network(chance.choice(seeds), api)
        inputs: list[str | None] = [None, "nobody", *(name for name, _ in network.ports("input"))]
        results: list[str | None] = [None, "nobody", *(name for name, _ in network.ports("result"))]
        for _ in range(chance.randrange(1, 12)):
            pointer = chance.choice((network.pointer,) * 9 + (None,))
            kind = chance.randrange(8)
            given = (Tensor * 3)(*(tensor(inputs) for _ in range(3)))
            wanted = (Tensor * 3)(*(tensor(results) for _ in range(3)))
            numbers = chance.choice((0, 1, 1, 1, 2, 3)), chance.choice((0, 1, 1, 2, 3))
            if kind < 4:
                call = api.convoxel_run if kind < 2 else api.convoxel_prepare
                status = call(pointer, given, numbers[0], wanted, numbers[1])
            elif kind == 4:
                status = api.convoxel_set_threads(pointer, chance.choice((0, 1, 2, 3, -1, 2**31 - 1, 1025)))
            elif kind == 5:
                describe = chance.choice((api.convoxel_input, api.convoxel_result))
                status = describe(pointer, chance.choice((0, 1, 2, 2**63)), chance.choice((given, None)))
            elif kind == 6:
                status = api.convoxel_load_bytes(b"x" * 40, 40, None)
            else:
                named = chance.choice((api.convoxel_input_name, api.convoxel_result_name))
                named(pointer, chance.choice((0, 1, 2**64 - 1)))
                api.convoxel_input_count(pointer), api.convoxel_result_count(pointer)
                status = len(api.convoxel_last_error()) * 0
            statuses[status == 0] += 1
    return statuses[False], statuses[True]


def seed_files() -> list[bytes]:
    """Return small programs that together have many kinds of steps."""
    import torch
    from torch import nn

    import convoxel as cx
    from tests.native.test_c_api import Resized, Skipped, noise, padded_as_tensorflow_does

    torch.manual_seed(0)
    x = noise(1, 2, 8, 8)
    mixed = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.PReLU(4),
        nn.ChannelShuffle(2), nn.MaxPool2d(2), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1),
    )  # fmt: skip
    whole = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3))
    programs: list[Any] = [cx.compile(net, x) for net in (Skipped(2), Resized(), mixed)]
    programs.append(cx.load(padded_as_tensorflow_does()))
    programs.append(cx.quantise(whole, [x], only_faster=False, max_loss=1))
    return [program.to_bytes() for program in programs]


def main() -> None:
    """Run as the module's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", help="a shared library (default: the engine's module)")
    parser.add_argument("--seeds", type=Path, help="a folder of .cvx files to begin with; made if it is not there")
    options = parser.parse_args()
    if options.seeds and options.seeds.is_dir():
        seeds = [path.read_bytes() for path in sorted(options.seeds.iterdir())]
    else:
        seeds = seed_files()
        if options.seeds:
            options.seeds.mkdir()
            for index, content in enumerate(seeds):
                (options.seeds / f"{index}.cvx").write_bytes(content)
    api, chance = library(options.library), random.Random(options.seed)
    refused, computed = files(options.files, seeds, chance, api)
    print(f"{options.files} files: {refused} refused, {computed} computed")
    failed, worked = calls(options.calls, seeds, chance, api)
    print(f"{options.calls} sequences: {failed} calls failed, {worked} worked")


if __name__ == "__main__":
    main()
