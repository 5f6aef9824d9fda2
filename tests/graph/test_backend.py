"""``torch.compile(model, backend="convoxel")``: pieces, sizes, modes and weights that change."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from convoxel import native
from convoxel.graph import backend
from convoxel.graph.backend import convoxel_backend

# PyTorch's own, while it looks at tensors between two pieces.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        torch._dynamo.graph_break()
        return self.head(y.mean((2, 3)))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Return the number of programs made."""
    torch._dynamo.reset()
    counted = [0]
    make = backend._Runner._make

    def counting(*arguments: Any) -> Any:
        counted[0] += 1
        return make(*arguments)

    monkeypatch.setattr(backend._Runner, "_make", counting)
    yield counted
    torch._dynamo.reset()


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b.detach(), rtol=1e-4, atol=1e-5)


def test_graph_breaks_and_open_batches(made: list[int]) -> None:
    net = Net().eval()
    fast = torch.compile(net, backend=convoxel_backend)
    with torch.no_grad():
        for count in (2, 3, 5, 7):
            x = torch.randn(count, 3, 12, 10)
            close(fast(x), net(x))
    assert made == [4]  # two pieces, first for one batch, then for all


def test_weights_that_change_make_the_program_anew(made: list[int]) -> None:
    net = Net().eval()
    fast = torch.compile(net, backend=convoxel_backend)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        fast(x)
        net.head.weight.mul_(2)
        close(fast(x), net(x))
    net.train()
    net(x)  # PyTorch does not count this as a write to the running statistics
    net.eval()
    with torch.no_grad():
        close(fast(x), net(x))
    assert made == [4]


def test_training_stays_in_pytorch(made: list[int]) -> None:
    net = Net().train()
    fast = torch.compile(net, backend=convoxel_backend)
    x = torch.randn(4, 3, 8, 8)
    fast(x).sum().backward()
    assert net.head.weight.grad is not None and net.body[1].running_mean.abs().sum() > 0
    before = net.body[1].running_mean.clone()
    with torch.no_grad():
        fast(x)
    assert not torch.equal(before, net.body[1].running_mean)


def test_what_cannot_be_read_runs_in_pytorch_and_is_said(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.errors import GraphError

    def refuse(*arguments: Any) -> Any:
        raise GraphError("no")

    monkeypatch.setattr(backend, "read", refuse)
    net = nn.Conv2d(3, 4, 3).eval()
    fast = torch.compile(net, backend=convoxel_backend)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        with pytest.warns(UserWarning, match=r"torch.compile: a piece of the model runs in PyTorch: no"):
            close(fast(x), net(x))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            close(fast(x), net(x))


def test_options(made: list[int]) -> None:
    net = nn.Conv2d(3, 4, 3).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        close(torch.compile(net, backend=convoxel_backend, options={"threads": 1})(x), net(x))
        torch._dynamo.reset()
        with pytest.raises(Exception, match=r"options \['magic'\] are unknown; expected threads or frozen"):
            torch.compile(net, backend=convoxel_backend, options={"magic": 1})(x)
        with pytest.raises(Exception, match="threads is 0"):
            torch.compile(net, backend=convoxel_backend, options={"threads": 0})(x)


def test_every_call_reads_the_weights_unless_they_are_frozen(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    checksum = native.checksum

    def counting(arrays: Any, threads: int | None) -> int:
        read.append(sum(map(len, arrays)))
        return checksum(arrays, threads)

    monkeypatch.setattr(native, "checksum", counting)
    net, x = nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        fast = torch.compile(net, backend=convoxel_backend)
        for _ in range(3):
            fast(x)
        assert read == [4 * (4 * 3 * 9 + 4)] * 3 and made == [1]
        torch._dynamo.reset()
        frozen = torch.compile(net, backend=convoxel_backend, options={"frozen": True})
        before = frozen(x)
        net.weight.data.zero_()
        assert torch.equal(frozen(x), before) and len(read) == 3 and made == [2]


def test_weights_that_change_need_no_new_export(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    read, exports = backend.read, [0]

    def counting(*arguments: Any) -> Any:
        exports[0] += 1
        return read(*arguments)

    monkeypatch.setattr(backend, "read", counting)
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), torch.randn(1, 3, 8, 8)
    fast = torch.compile(net, backend=convoxel_backend)
    with torch.no_grad():
        close(fast(x), net(x))
        close(fast(x), net(x))
        net[0].weight.data.mul_(2)
        close(fast(x), net(x))
        close(fast(x), net(x))
        old = weakref.ref(net[0].weight.untyped_storage())
        net[0].weight.data = torch.randn(4, 3, 3, 3)
        net[1].running_var.mul_(3)
        close(fast(x), net(x))
    assert made == [3] and exports == [1]
    gc.collect()
    assert old() is None, "the first weights are kept"


def test_weights_that_keep_changing_make_no_programs(made: list[int]) -> None:
    net, x = nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 8, 8)
    fast = torch.compile(net, backend=convoxel_backend)
    counts = []
    with torch.no_grad():
        for change in (1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0):
            net.weight.data.mul_(1 + 0.1 * change)
            close(fast(x), net(x))
            counts.append(made[0])
    # A change makes one program at once. If that one served a single call, the next waits for weights that stay.
    assert counts == [1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5]


def test_results_of_one_tensor(made: list[int]) -> None:
    """Halves have memory of their own; parts that overlap are parts of what the program computes."""
    net, x = nn.Conv2d(3, 6, 3).eval(), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        first, second = torch.compile(lambda x: net(x).chunk(2, 1), backend=convoxel_backend)(x)
        assert first.untyped_storage()._cdata != second.untyped_storage()._cdata
        whole, part = torch.compile(lambda x: (y := net(x), y[:, 2:4]), backend=convoxel_backend)(x)
        assert whole.untyped_storage()._cdata == part.untyped_storage()._cdata
        part.zero_()
        assert not whole[:, 2:4].any() and whole[:, :2].all()
    assert made == [2]


def test_reasons_are_told_again_after_a_reset(made: list[int]) -> None:
    def run() -> None:
        with torch.no_grad(), pytest.warns(UserWarning, match=r"runs in PyTorch: .* is torch.float64"):
            torch.compile(nn.ReLU(), backend="convoxel")(torch.randn(2, 3, dtype=torch.float64))

    run()
    torch._dynamo.reset()
    run()
