"""Devices of PyTorch: which one a word means, whether it is here, what it is, and what to say of full memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from convoxel.errors import ConfigError, ConvoxelError
from convoxel.predict.device_word import check_device_word

# How the libraries under PyTorch say that memory is full; PyTorch's own error has a class.
_FULL = ("out of memory", "can't allocate memory", "cudnn_status_alloc_failed", "cublas_status_alloc_failed")
_GIB = 2**30


def choose_device(word: str = "auto") -> torch.device:
    """Return the device that a word names.

    Args:
        word: one of ``DEVICE_WORDS``; "auto" is a GPU of CUDA (or ROCm) where there is one, else Apple's, else the
            CPU (default "auto").

    Raises:
        ConfigError: the word is unknown, or this PyTorch finds no such device; the message says what it was built for.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    check_device_word(word)
    if word == "auto":
        word = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if word.startswith("cuda"):
        return _choose_gpu(word)
    if word == "mps" and not torch.backends.mps.is_available():
        why = "finds no GPU of Apple's" if torch.backends.mps.is_built() else "was built without it"
        raise ConfigError(f"device: got 'mps', but this PyTorch ({torch.__version__}) {why}. Use device=cpu or auto.")
    return torch.device(word)


def has_device(word: str) -> bool:
    """Return whether the device that ``word`` names is here."""
    try:
        choose_device(word)
    except ConfigError:
        return False
    return True


def _choose_gpu(word: str) -> torch.device:
    version, made_for = torch.__version__, torch.version.cuda or torch.version.hip
    if made_for is None:
        raise ConfigError(
            f"device: got {word!r}, but this PyTorch ({version}) was built for CPUs only. Install one with CUDA "
            "(https://pytorch.org/get-started names the command), or use device=cpu."
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ConfigError(
            f"device: got {word!r}, but this PyTorch ({version}, built for CUDA {made_for}) finds no GPU. Check that "
            "nvidia-smi shows one and that its driver is new enough, or use device=cpu."
        )
    index = int(word.partition(":")[2] or torch.cuda.current_device())
    if index >= count:
        names = ", ".join(f"cuda:{place} ({torch.cuda.get_device_name(place)})" for place in range(count))
        raise ConfigError(f"device: got {word!r}; expected one that is here: {names}.")
    return torch.device("cuda", index)


def describe_device(device: torch.device) -> str:
    """Return a device in words: "CPU", or its name with what it is and its memory.

    >>> describe_device(torch.device("cpu"))
    'CPU'
    """
    if device.type == "cpu":
        return "CPU"
    if device.type != "cuda":
        return f"{device} (GPU of this machine)"
    found = torch.cuda.get_device_properties(device)
    return f"{device} ({found.name}, {found.total_memory / _GIB:.0f} GiB)"


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device, or the machine, has no memory left for a tensor."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _FULL)


@contextlib.contextmanager
def explain_memory(device: torch.device, doing: Callable[[], str], mend: Callable[[], str]) -> Iterator[None]:
    """Say in words that memory is full: on which device, of how much, while doing what, and how to mend it.

    Args:
        device: where the tensors are.
        doing: returns what was computed: "train: a step of 4 patches of 64 × 64 × 64".
        mend: returns what to do, a sentence.

    Raises:
        ConvoxelError: memory was full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        held = ""
        if device.type == "cuda":
            held = f", of which this process holds {torch.cuda.memory_reserved(device) / _GIB:.1f} GiB"
        raise ConvoxelError(
            f"{doing()} needs more memory than {describe_device(device)} has{held}. {mend()}"
        ) from error
