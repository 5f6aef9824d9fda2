"""The processes that train one network together, as ``torchrun`` starts them; a single process is a group by itself.

A batch is shared out by samples, and its loss is that of the whole batch: the logits of all processes are gathered
before it is computed, so every term, Dice over a batch included, is what one process would compute. Gradients are
averaged by DistributedDataParallel. Small messages are JSON. The first process alone decides, writes and speaks.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from convoxel.data import Split
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.fault import brief
from convoxel.files.values import JsonObject
from convoxel.predict.device import choose_device
from convoxel.train.config import TrainConfig

# Reading and checking the data takes the first process longer than any step; who is gone is noticed at once.
_PATIENCE = datetime.timedelta(hours=2)
# What torchrun tells every process.
_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# How the libraries under PyTorch say that another process is gone, where the error has no class of its own.
_GONE = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "socket", "broken pipe")


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: number of this one, from 0.
        count: number of all.
        local: number of this one among those of its machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """True in the process that decides, writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """True where there are others."""
        return self.count > 1

    def __str__(self) -> str:
        return "1 process" if self.count == 1 else f"{self.count} processes"

    def describe(self, config: TrainConfig) -> str:
        """Return in words how the processes share a batch of a run."""
        if not self.several:
            return str(self)
        whole, own = config.batch_size, (config.batch_size or 1) // self.count
        norm = ", batch normalisation over the whole batch" if config.sync_batch_norm else ""
        return f"{self}, each with {own} of the {whole} samples of a batch{norm}"

    # ---- what each does

    def share(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration of this process's share of a batch.

        Raises:
            ConfigError: a batch cannot be shared out equally.
        """
        size = config.batch_size or 1
        if size % self.count:
            near = " or ".join(
                str(each) for each in (size // self.count * self.count, -(-size // self.count) * self.count) if each
            )
            raise ConfigError(
                f"batch_size: got {size}, but {self.count} processes share a batch; expected a multiple of "
                f"{self.count}. Set batch_size={near}."
            )
        return config if not self.several else config.model_copy(update={"batch_size": size // self.count})

    def place(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration with the GPU of this process, where the run computes on GPUs."""
        if not self.several or not (config.device or "").startswith("cuda"):
            return config
        return config.model_copy(update={"device": f"cuda:{self.local}"})

    def cases(self, split: Split) -> Split:
        """Return the cases of a part that this process validates: every ``count``-th."""
        return Split(split.entries[self.rank :: self.count], split.cache) if self.several else split

    # ---- messages

    def tell(self, message: JsonObject | None = None) -> JsonObject:
        """Return the message of the first process, to every one."""
        if not self.several:
            return message or {}
        data = json.dumps(message).encode() if self.first else b""
        size = torch.tensor([len(data)])
        distributed.broadcast(size, 0)
        held = (
            torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(int(size), dtype=torch.uint8)
        )
        distributed.broadcast(held, 0)
        found: JsonObject = json.loads(bytes(held.numpy()))
        return found

    def exchange(self, message: Any) -> list[Any]:
        """Return the messages of all processes, in their order."""
        if not self.several:
            return [message]
        data = json.dumps(message).encode()
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        distributed.all_gather(sizes, torch.tensor([len(data)]))
        held = torch.zeros(int(max(sizes)), dtype=torch.uint8)
        held[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = [torch.zeros_like(held) for _ in sizes]
        distributed.all_gather(rows, held)
        return [json.loads(bytes(row[: int(size)].numpy())) for row, size in zip(rows, sizes, strict=True)]

    def highest(self, *values: float) -> list[float]:
        """Return the largest of each value over all processes."""
        if not self.several:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return [float(value) for value in found]

    # ---- a step

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows of all processes, one after the other; gradients find their way back."""
        if not self.several:
            return rows
        found: torch.Tensor = _Gathered.apply(rows, self.rank, self.count)  # type: ignore[no-untyped-call]
        return found

    def holding_back(self, forward: object, more: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which gradients are not averaged, where ``more`` are added up before they are."""
        if more and isinstance(forward, nn.parallel.DistributedDataParallel):
            found: contextlib.AbstractContextManager[None] = forward.no_sync()
            return found
        return contextlib.nullcontext()

    def wrap(self, config: TrainConfig, model: nn.Module) -> nn.Module:
        """Return the network whose gradients are the mean over all processes; its weights stay those of ``model``."""
        if not self.several:
            return model
        if config.sync_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                    module.__class__ = SharedBatchNorm
        devices = [self.local] if (config.device or "").startswith("cuda") else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


#: A process that trains by itself.
ALONE = Processes()


class _Gathered(torch.autograd.Function):
    """Rows of all processes. Each computes the same loss of them, so a row's gradient is the sum of all of theirs."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, rank: int, count: int) -> torch.Tensor:
        """Return the rows of all processes."""
        ctx.place = rank * len(rows), len(rows)
        found = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count)]
        distributed.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient of this process's rows."""
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.narrow(0, *ctx.place), None, None


class _Total(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        """Return the gradient."""
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation by the statistics of the whole batch, whose samples lie in several processes.

    A module of PyTorch becomes one by its class alone: names in state dicts stay. Unlike PyTorch's own it also works on
    CPUs.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Take any number of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x normalised: by the batch in training, else by the running statistics."""
        if not self.training:
            return super().forward(x)
        axes, wide = (0, *range(2, x.dim())), (1, -1, *(1,) * (x.dim() - 2))
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        values = x.float()
        mean = _Total.apply(values.sum(axes)) / count  # type: ignore[no-untyped-call]
        centred = values - mean.view(wide)
        variance = _Total.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        self._follow(mean.detach(), variance.detach() * (count / max(1, count - 1)))
        found: torch.Tensor = centred * (variance + self.eps).rsqrt().view(wide)
        if self.affine:
            found = found * self.weight.view(wide) + self.bias.view(wide)
        return found.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Bring the running statistics nearer to a batch's."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


# Groups that have ended. They stay until the process ends: PyTorch's destructor of one joins its threads while it holds
# the interpreter's lock, for which a thread that drops the tensors of the last message may still wait.
_ENDED: list[object] = []


@contextlib.contextmanager
def open_processes(config: TrainConfig) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` has started; without it this process trains by itself.

    A process that ends is an error in all others.

    Raises:
        ConfigError: ``device`` names one GPU for several processes, or a machine has fewer GPUs than processes.
        ConvoxelError: the others do not answer.
    """
    count = int(os.environ.get("WORLD_SIZE", "1")) if all(name in os.environ for name in _TOLD) else 1
    if count <= 1:
        yield Processes()
        return
    processes = Processes(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0")))
    word = config.device or "auto"
    if word == "mps" or ":" in word:
        raise ConfigError(f"device: got {word!r}, but there are {count} processes; expected cpu, cuda or auto.")
    gpus = choose_device(word).type == "cuda"
    if gpus:
        torch.cuda.set_device(choose_device(f"cuda:{processes.local}"))
    with _told_of(Path(config.output), processes), warnings.catch_warnings():
        # Of 1-wide convolutions, whose layout has two names; nothing is copied for them.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # A store may outlive the processes, with their addresses in it: those that torchrun starts anew have their own.
        store, rank, _ = next(rendezvous("env://", timeout=_PATIENCE))
        own = PrefixStore(f"convoxel {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        distributed.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=_PATIENCE)
        try:
            yield processes
        finally:
            _ENDED.append(distributed.group.WORLD)
            distributed.destroy_process_group()


@contextlib.contextmanager
def _told_of(folder: Path, processes: Processes) -> Iterator[None]:
    """Raise ConvoxelError where another process is gone; it says how the run goes on."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not any(word in str(error).lower() for word in _GONE):
            raise
        raise ConvoxelError(
            f"train: another process of this run has ended or does not answer; noticed by process {processes.rank} of "
            f"{processes.count} ({brief(str(error).strip().partition(chr(10))[0])}). The last checkpoint in {folder} "
            "is intact: start all processes again with --resume-if-present."
        ) from error


def raise_faults(faults: Sequence[str | None]) -> None:
    """Raise ConvoxelError that names the processes which could not begin, if there are any."""
    told = [f"process {rank}: {words}" for rank, words in enumerate(faults) if words is not None]
    if told:
        raise ConvoxelError(f"train: of {len(faults)} processes not all could begin. {' '.join(told)}")
