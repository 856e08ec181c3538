"""Choice of the device, and its memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from ..core import UsageError
from ..core.system import count_cores, tune_allocator

Network = TypeVar("Network", bound=nn.Module)

CONTIGUOUS_ON = ("mps",)  # device types without channels last: gradients of BatchNorm are wrong there, or fail (pytorch issue 175189)
# Without memory for its workspace cuDNN has no algorithm left, and cuBLAS and cuDNN cannot be initialized.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "unable to find an engine", "_STATUS_ALLOC_FAILED")
SHARE_OF_GPU = 0.25  # of a GPU's free memory that decoded images, or cached features, may occupy; training needs the rest


def pick_device(wanted: str) -> torch.device:
    """Return the device called `wanted`: auto (a GPU if there is one), cpu, cuda or mps.

    Tunes the memory allocator, and for a CPU sets the number of threads. Raises UsageError if torch has no such device.
    """
    tune_allocator()
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if wanted not in available:
        raise UsageError(f"--device '{wanted}' is not one of: auto, {', '.join(available)}")
    if not available[wanted]:
        raise UsageError(f"--device {wanted}: torch finds no such device", "Use --device auto; tlfast doctor lists the devices")
    if wanted == "cpu":
        torch.set_num_threads(count_cores())
    if wanted != "cuda":
        return torch.device(wanted)
    # Each process of a training has a GPU of its own.
    return torch.device(wanted, torch.cuda.current_device() if torch.distributed.is_initialized() else 0)


@contextmanager
def choose_algorithms(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Within the block, let a GPU use the fastest algorithms for the shapes of a network, or those that give the same result each time.

    cuDNN times its algorithms for each new shape. Where torch has no deterministic algorithm, it warns. A CPU is always deterministic.
    """
    if device.type == "cpu":
        yield
        return
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        cudnn = torch.backends.cudnn
        # `flags` disables cuDNN unless it is told otherwise.
        with cudnn.flags(enabled=cudnn.enabled, benchmark=not deterministic, deterministic=deterministic, allow_tf32=cudnn.allow_tf32):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch raised an error because memory is short: OutOfMemoryError on CUDA, a plain RuntimeError on other devices."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def image_format(device: torch.device) -> torch.memory_format:
    """Return the memory format of images, of activations and of the weights of convolutions on a device: channels last, except on MPS.

    Channels last is the faster format for convolutions; see docs/benchmarks.md, "Memory format".
    """
    return torch.contiguous_format if device.type in CONTIGUOUS_ON else torch.channels_last


def move_network(network: Network, device: torch.device) -> Network:
    """Move a network to a device, in the memory format of that device. Returns the network."""
    return network.to(device, memory_format=image_format(device))  # type: ignore[call-overload]  # torch declares no call with both


def copy_to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device. From a CPU to CUDA the copy is made from pinned memory, and the host does not wait for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and x.device.type == "cpu" else x.to(device)


def fits_on_gpu(nbytes: int, device: torch.device) -> bool:
    """Return whether data of `nbytes` bytes takes at most SHARE_OF_GPU of the free memory of a CUDA device; False for other devices."""
    if device.type != "cuda":
        return False
    release_device_memory(device)  # unused blocks in torch's cache are free too
    return nbytes <= SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its operations, so that a clock measures them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_device_memory(device: torch.device) -> None:
    """Return unused memory of a GPU from torch's cache to the driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def collect_garbage(device: torch.device) -> None:
    """Free the memory of a GPU that unused objects hold. Does nothing on a CPU.

    Loaders and Learners of fastai refer to themselves, so that only Python's garbage collector frees them, and it may not run for a whole training.
    """
    if device.type != "cpu":
        gc.collect()
        release_device_memory(device)


def run_by_halves(run: Callable[[torch.Tensor], np.ndarray[Any, Any]], x: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return `run(x)`, which maps a batch `[b, ...]` to b rows; if memory is too short, run the halves of the batch and join their rows."""
    try:
        return run(x)
    except RuntimeError as error:
        if len(x) == 1 or not is_out_of_memory(error):
            raise
    release_device_memory(x.device)
    return np.concatenate([run_by_halves(run, half) for half in x.chunk(2)])


def copy_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights and buffers in main memory, for `load_state_dict`."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
