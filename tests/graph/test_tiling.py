"""Programs on tiles: the joined results have the bits of the whole image's, and what cannot be cut is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import convoxel as cx
from convoxel.errors import ConfigError, ShapeError, UnsupportedError
from convoxel.graph.array_file import run_files
from convoxel.graph.run.tiling import TilePlan
from tools.drawn_networks import Function
from tools.tiling import compare, draw_case

Array = NDArray[np.float32]


def image(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def conv(dims: int, *sizes: int, **how: int) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = getattr(nn, f"Conv{dims}d")(*sizes, **how)
    return made


def is_equal(program: cx.Program, x: Array, tile: int | tuple[int, ...]) -> TilePlan:
    """Check the bits of all results; return how the image was cut."""
    whole, parts = program(x), program.tiled(x, tile=tile)
    whole, parts = (each if isinstance(each, tuple) else (each,) for each in (whole, parts))
    for a, b in zip(whole, parts, strict=True):
        assert a.shape == b.shape and a.tobytes() == b.tobytes()
    tiling = program.tiling(x, tile=tile)
    assert tiling.count > 1
    return tiling


@pytest.mark.parametrize("seed", [5, 6, 9, 11])
def test_drawn_networks_are_equal_bit_for_bit(seed: int) -> None:
    """``python -m tools.tiling`` draws more of them."""
    assert compare(draw_case(seed)).startswith("equal")


def test_halo_is_what_layers_read() -> None:
    """Three layers of reach 1, 2 and 1; at the ends of the image there is nothing to read."""
    net = nn.Sequential(
        conv(1, 1, 4, 3, padding=1), conv(1, 4, 4, 3, padding=2, dilation=2), conv(1, 4, 1, 3, padding=1)
    )
    x = image(1, 1, 100)
    tiling = is_equal(cx.compile(net, x, algorithm="direct"), x, 40)
    assert tiling.halo == ((4, 4),) and tiling.core == (32,) and tiling.counts == (4,) and tiling.tile == (40,)
    assert "4+4" in str(tiling) and "equal bit for bit" in str(tiling)


def test_tiles_of_winograd_lie_where_they_lie_in_the_whole() -> None:
    """Cores begin anywhere; what is computed begins at multiples of m, and the halo grows by as much."""
    net, x = nn.Sequential(conv(2, 16, 16, 3, padding=1), conv(2, 16, 16, 3, padding=1)), image(1, 16, 61, 83)
    for m in (2, 4, 6):
        program = cx.compile(net, x, algorithm=f"winograd({m})")
        tiling = is_equal(program, x, (37, 29))
        assert tiling.algorithms == {f"winograd({m})": 2}
        assert max(max(pair) for pair in tiling.halo) > 2


def test_layers_at_the_ends_of_the_image_see_their_own_padding() -> None:
    """Zeros inside a network are no zeros of the image: a bias makes something of them."""
    for padding in ("zeros", "reflect", "replicate", "circular"):
        layers = [nn.Conv2d(2, 8, 3, padding=1, padding_mode=padding), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
        torch.manual_seed(0)
        x = image(1, 2, 50, 41)
        program = cx.compile(nn.Sequential(*layers), x)
        if padding == "circular":  # the first row reads the last one
            with pytest.raises(ConfigError, match=r"tile.*50 x 41"):
                program.tiled(x, tile=20)
        else:
            is_equal(program, x, 24)


CUT = {
    "strides": lambda: nn.Sequential(conv(2, 2, 8, 5, stride=3, padding=2), conv(2, 8, 4, 2, stride=2)),
    "ceil": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "transposed": lambda: nn.Sequential(conv(2, 2, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 4, 3, 1, 1)),
    "nearest": lambda: nn.Upsample(scale_factor=1.7, mode="nearest"),
    "linear": lambda: nn.Upsample((97, 130), mode="bilinear"),
    "corners": lambda: nn.Upsample((97, 130), mode="bilinear", align_corners=True),
    "cubic": lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((13, 17)),
    "shuffle": lambda: nn.Sequential(conv(2, 2, 8, 3), nn.PixelShuffle(2)),
    "unshuffle": lambda: nn.Sequential(Function(lambda x: x[..., :60, :80]), nn.PixelUnshuffle(2)),
    "channels": lambda: nn.Sequential(conv(2, 2, 8, 3), nn.Softmax(1), Function(lambda x: x[:, 1:5])),
    "response": lambda: nn.Sequential(conv(2, 2, 8, 3), nn.LocalResponseNorm(5)),
    "position": lambda: Function(lambda x: x * torch.arange(83.0) + torch.arange(61.0)[:, None]),
    "crop": lambda: Function(lambda x: x[..., 5:-3, 7::2]),
    "exp": lambda: nn.Sequential(conv(2, 2, 3, 3), Function(lambda x: torch.sin(torch.exp(x)))),
    "labels": lambda: nn.Sequential(conv(2, 2, 5, 3, padding=1), Function(lambda x: x.argmax(1))),
    "layernorm": lambda: nn.Sequential(
        conv(2, 2, 8, 3), Function(lambda x: functional.layer_norm(x.movedim(1, -1), (8,)).movedim(-1, 1))
    ),
}


@pytest.mark.parametrize("name", CUT)
def test_operators_on_parts(name: str) -> None:
    x = image(2, 2, 61, 83)
    is_equal(cx.compile(CUT[name](), x), x, (30, 41))


def test_several_results_of_other_sizes() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv(2, 1, 8, 3, stride=2, padding=1), conv(2, 8, 8, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            fine = self.first(x)
            return x + 1, fine, self.second(fine)

    x = image(1, 1, 75, 94)
    is_equal(cx.compile(Pyramid(), x), x, 30)


@pytest.mark.parametrize("dims", [2, 3])
def test_u_nets(dims: int) -> None:
    """Skips, transposed convolutions and the algorithms of the whole image, or direct ones, whose halo is narrower."""
    options = {"in_channels": 1, "num_classes": 3, "levels": 2, "width": 8}
    net = cx.models.build("unet", dims=dims, **options).eval()
    x = image(1, 1, 52, 300) if dims == 2 else image(1, 1, 16, 20, 220)
    program = cx.compile(net, x)
    is_equal(program, x, (52, 240) if dims == 2 else (16, 20, 200))
    direct = is_equal(program.replace(algorithm="direct"), x, (52, 90) if dims == 2 else (16, 20, 80))
    assert direct.halo[-1] == (22, 22)


def test_blocks_of_a_mobile_network_keep_their_algorithms() -> None:
    net, x = cx.models.build("mobilenet_v2", dims=2, in_channels=3).eval().features[:6], image(1, 3, 64, 220)
    is_equal(cx.compile(net, x), x, (64, 130))


def test_fourier_transforms_are_replaced_by_direct_convolutions() -> None:
    """Their parts depend on the image's size; the tiling says which step and what the result is equal to."""
    net, x = nn.Sequential(conv(2, 16, 16, 31, padding=15, groups=16)), image(1, 16, 90, 90)
    program = cx.compile(net, x, algorithm="fft")
    tiling = program.tiling(x, tile=70)
    assert tiling.direct and tiling.direct in str(tiling) and "algorithm='direct'" in str(tiling)
    assert program.tiled(x, tile=70).tobytes() == program.replace(algorithm="direct")(x).tobytes()


SEES_ALL = {
    "squeeze": (lambda: Function(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()), "mean|reduce"),
    "instance": (lambda: nn.InstanceNorm2d(2), "normalise"),
    "group": (lambda: nn.GroupNorm(1, 2), "normalise"),
    "pool": (lambda: nn.AdaptiveAvgPool2d(1), "adaptive_average_pool"),
    "classes": (lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), "adaptive_max_pool"),
    "softmax": (lambda: nn.Softmax(3), "softmax"),
}


@pytest.mark.parametrize("name", SEES_ALL)
def test_steps_that_see_the_whole_image_are_named(name: str) -> None:
    make, operator = SEES_ALL[name]
    x = image(1, 2, 40, 40)
    program = cx.compile(nn.Sequential(conv(2, 2, 2, 3, padding=1), make()), x)
    with pytest.raises(UnsupportedError, match=rf"step \d+ '.+' \(({operator})\) sees the whole image along"):
        program.tiled(x, tile=20)


def test_an_axis_that_is_seen_whole_may_stay_whole() -> None:
    x = image(1, 2, 12, 90)
    program = cx.compile(nn.Sequential(conv(2, 2, 4, 3, padding=1), Function(lambda x: x - x.mean(2, keepdim=True))), x)
    is_equal(program, x, (12, 40))
    with pytest.raises(UnsupportedError, match="along h"):
        program.tiled(x, tile=(8, 40))


def test_sizes_of_tiles() -> None:
    x = image(1, 1, 64, 64)
    program = cx.compile(conv(2, 1, 2, 9, padding=4), x, algorithm="direct")
    for wrong in (0, -3, True, 2.5, (8, 8, 8), "8", (8, None)):
        with pytest.raises(ConfigError, match="tile"):
            program.tiled(x, tile=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="9 x 9"):
        program.tiled(x, tile=8)
    is_equal(program, x, 9)
    assert program.tiling(x).count == 1 and program.tiling(x, tile=10**9).count == 1
    with pytest.raises(ShapeError, match="channels"):
        program.tiled(image(1, 2, 64, 64), tile=20)


def test_least_tile_names_both_kinds_of_algorithms() -> None:
    x = image(1, 16, 90, 90)
    program = cx.compile(nn.Sequential(conv(2, 16, 16, 3, padding=1)), x, algorithm="winograd(6)")
    with pytest.raises(
        ConfigError, match="8 x 8 where Winograd's tiles stay in place, and 3 x 3 with algorithm='direct'"
    ):
        program.tiled(x, tile=2)
    is_equal(program, x, 8)


def test_tiles_that_choose_their_algorithms_are_equal_up_to_rounding() -> None:
    x = image(1, 16, 90, 90)
    program = cx.compile(nn.Sequential(conv(2, 16, 16, 3, padding=1)), x, algorithm="winograd")
    found = program.tiled(x, tile=40, exact=False)
    np.testing.assert_allclose(found, program(x), atol=1e-4)
    assert program.tiling(x, tile=40, exact=False).halo == ((1, 1), (1, 1))


def test_files_are_read_and_written_by_tiles(tmp_path: Path) -> None:
    """A mapped image comes by tiles of the asked size; results go where they are told."""
    x = image(1, 1, 80, 80)
    np.save(tmp_path / "x.npy", x)
    program = cx.compile(conv(2, 1, 2, 3, padding=1), x)
    read: list[int] = []

    class Source:
        shape, dtype = x.shape, x.dtype

        def __getitem__(self, place: tuple[slice, ...]) -> Array:
            read.append(x[place].size)
            return x[place]

    out = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, (1, 2, 80, 80))
    done: list[tuple[int, int]] = []
    program.tiled(Source(), tile=30, out=out, on_progress=lambda *each: done.append(each))
    assert np.array_equal(out, program(x)) and max(read) <= 900 and done[-1] == (len(done), len(done)) == (9, 9)
    assert np.array_equal(program.tiled(np.load(tmp_path / "x.npy", mmap_mode="r"), tile=30), out)
    assert isinstance(program.tiled(torch.from_numpy(x), tile=30), Tensor)
    for wrong in (np.empty((1, 2, 80, 79), np.float32), np.empty((1, 2, 80, 80)), [out, out]):
        with pytest.raises(ConfigError, match="out"):
            program.tiled(x, tile=30, out=wrong)


def test_weights_are_packed_once_for_all_tiles() -> None:
    """Tiles at the ends of the image have other padding, but the same weights."""
    x = image(1, 32, 96, 96)
    program = cx.compile(nn.Sequential(conv(2, 32, 32, 3, padding=1)), x)
    program(x)
    before = dict(program._packed_weights._made)
    bytes_before = sum(each.packed_bytes for each in before.values())
    program.tiled(x, tile=40)
    assert program._packed_weights._made == before
    assert sum(each.packed_bytes for each in before.values()) == bytes_before


def test_what_runs_in_pytorch_is_named() -> None:
    x = image(1, 2, 40, 40)
    with pytest.warns(UserWarning):
        program = cx.compile(nn.Sequential(conv(2, 2, 2, 3), Function(lambda x: torch.special.i0(x))), x)
    with pytest.raises(UnsupportedError, match=r"step \d+ '.+' \(.*i0.*\) cannot run on tiles"):
        program.tiled(x, tile=20)


def test_arrays_in_files_run_by_tiles(tmp_path: Path) -> None:
    """The files are those of a run at once, whole or not there at all."""
    x = image(1, 2, 60, 70)
    program = cx.compile(conv(2, 2, 3, 3, padding=1), x)
    program.save(tmp_path / "net.cvx")
    np.save(tmp_path / "x.npy", x)
    paths = [tmp_path / "x.npy"]
    once = run_files(tmp_path / "net.cvx", paths, [tmp_path / "once.npy"])
    parts = run_files(tmp_path / "net.cvx", paths, [tmp_path / "parts.npy"], tile=30)
    assert not once.tiling and "equal bit for bit" in parts.tiling and once.shapes == parts.shapes
    assert (np.load(tmp_path / "once.npy") == np.load(tmp_path / "parts.npy")).all()
    with pytest.raises(ConfigError, match="2 files are named"):
        run_files(tmp_path / "net.cvx", paths, [tmp_path / "a.npy", tmp_path / "b.npy"], tile=30)
    with pytest.raises(ConfigError, match="tile is 2 x 2"):
        run_files(tmp_path / "net.cvx", paths, [tmp_path / "a.npy"], tile=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.cvx", "once.npy", "parts.npy", "x.npy"]


def test_an_image_larger_than_memory_is_planned_and_read_by_tiles() -> None:
    """160 GB that nobody has: planning takes none of them, and a tile reads no more than its size."""
    read: list[int] = []

    class Source:
        shape, dtype = (1, 1, 200_000, 200_000), np.dtype(np.float32)

        def __getitem__(self, place: tuple[slice, ...]) -> Array:
            sizes = [each.stop - each.start for each in place]
            read.append(int(np.prod(sizes)))
            return image(*sizes)

    net = nn.Sequential(conv(2, 1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 2, 2))
    source = Source()
    tiling = cx.compile(net, image(1, 1, 64, 64)).tiling(source, tile=128)
    ((place, numbers),) = next(tiling.parts(lambda _, part: source[part]))
    assert tiling.shapes == [(1, 1, 200_000, 200_000)] and tiling.count > 2_000_000
    assert numbers.shape == tuple(len(range(*part.indices(200_000))) for part in place) and max(read) <= 128 * 128


def test_networks_of_several_inputs_and_named_results() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse, self.last = (
                conv(2, 1, 8, 3, padding=1),
                conv(2, 2, 8, 3, stride=2),
                conv(2, 8, 3, 3),
            )

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            side = self.coarse(y)
            fine = torch.relu(self.fine(x))
            return {"out": self.last(fine + functional.interpolate(side, size=fine.shape[2:])), "side": side}

    x, y = image(1, 1, 64, 80), image(1, 2, 128, 160)
    program = cx.compile(Two(), x, y)
    whole, parts = program(x, y), program.tiled(x, y, tile=30)
    assert list(parts) == ["out", "side"] and program.tiling(x, y, tile=30).count > 1
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(ShapeError, match="1 inputs came, expected 2"):
        program.tiled(x, tile=30)
