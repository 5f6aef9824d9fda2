"""Devices by their words, and networks moved to them; where no GPU is, PyTorch's answers about GPUs are replaced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convoxel.errors import ConfigError, ConvoxelError
from convoxel.predict.computation import Computation
from convoxel.predict.device import choose_device, describe_device, explain_memory
from convoxel.predict.torch_network import torch_call


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int, made_for: str | None = "13.0") -> None:
    """Let PyTorch say that it was built for CUDA and finds ``count`` GPUs."""
    monkeypatch.setattr(torch.version, "cuda", made_for)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("gpus", "word", "expected"),
    [(0, "auto", "cpu"), (2, "auto", "cuda:0"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1"), (2, "cpu", "cpu")],
)
def test_a_word_names_a_device(monkeypatch: pytest.MonkeyPatch, gpus: int, word: str, expected: str) -> None:
    pretend_gpus(monkeypatch, gpus)
    assert str(choose_device(word)) == expected


@pytest.mark.parametrize(
    ("gpus", "made_for", "word", "told"),
    [
        (0, None, "cuda", [torch.__version__, "built for CPUs only", "pytorch.org", "device=cpu"]),
        (0, "13.0", "cuda:0", ["built for CUDA 13.0", "finds no GPU", "nvidia-smi", "device=cpu"]),
        (2, "13.0", "cuda:2", ["'cuda:2'", "cuda:0 (Card 0)", "cuda:1 (Card 1)"]),
        (0, None, "mps", ["'mps'", torch.__version__, "device=cpu"]),
        (0, None, "gpu", ["'gpu'", "auto, cpu, cuda"]),
        (0, None, "cuda:x", ["'cuda:x'"]),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, gpus: int, made_for: str | None, word: str, told: list[str]
) -> None:
    pretend_gpus(monkeypatch, gpus, made_for)
    with pytest.raises(ConfigError) as caught:
        choose_device(word)
    assert all(words in str(caught.value) for words in ["device:", *told])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_networks_and_images_move_and_are_laid_out(dims: int, channels_last: bool) -> None:
    """The device without memory stands for a GPU."""
    way = Computation(torch.device("meta"), channels_last=channels_last)
    layer = getattr(nn, f"Conv{dims}d")(3, 4, 3)
    Computation().arrange(layer, dims)
    way.arrange(layer, dims)
    assert layer.weight.device.type == layer.bias.device.type == "meta"
    images = way.move(torch.zeros(2, 3, *[5] * dims))
    for tensor in (layer.weight, images):
        assert (tensor.stride(1) == 1) == (channels_last and dims > 1)


def test_layout_does_not_change_values() -> None:
    layer = nn.Conv2d(3, 4, 3)
    weights = layer.weight.detach().clone()
    for last in (True, False, True):
        Computation(channels_last=last).arrange(layer, 2)
        assert torch.equal(layer.weight, weights)


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_switches_of_a_gpu_hold_within_and_are_restored(
    monkeypatch: pytest.MonkeyPatch, precision: str, tf32: bool
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def switches() -> tuple[Any, ...]:
        cudnn = torch.backends.cudnn
        return (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, torch.get_float32_matmul_precision(),
                torch.are_deterministic_algorithms_enabled())  # fmt: skip

    before, word = switches(), "high" if tf32 else "highest"
    gpu = Computation(torch.device("cuda", 0), precision)
    with gpu.settings(repeated=True):
        assert switches() == (tf32, True, False, word, False)
    assert switches() == before
    with gpu.settings(deterministic=True, repeated=True):
        assert switches() == (tf32, False, True, word, True)
        with gpu.settings():  # of a prediction within the run
            assert switches() == (tf32, False, True, word, True)
        assert switches() == (tf32, False, True, word, True)
    assert switches() == before
    with Computation(precision=precision).settings(deterministic=True, repeated=True):
        assert switches() == before


def test_full_memory_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="Card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 79.5 * 2**30)
    gpu = torch.device("cuda", 0)
    assert describe_device(gpu) == "cuda:0 (Card, 80 GiB)"
    for error in (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDNN_STATUS_ALLOC_FAILED")):
        with pytest.raises(ConvoxelError) as caught, explain_memory(gpu, lambda: "a step", lambda: "Set less."):
            raise error
        expected = "a step needs more memory than cuda:0 (Card, 80 GiB) has, of which this process holds 79.5 GiB."
        assert str(caught.value) == expected + " Set less."
    with pytest.raises(RuntimeError, match="sizes differ"), explain_memory(gpu, str, str):
        raise RuntimeError("sizes differ")


def test_full_memory_of_a_prediction_names_its_input() -> None:
    class Huge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(2**50)

    with pytest.raises(ConvoxelError, match=r"predict: an input of 1 × 2 × 5 .* CPU .*engine='convoxel'"):
        torch_call(Huge())(np.zeros((1, 2, 5), np.float32))
