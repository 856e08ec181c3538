"""Devices: out-of-memory errors, and waiting for a GPU."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from tests.helpers.fake_gpu import fake_gpu
from tlfast.core.errors import UsageError
from tlfast.models import device

OUT_OF_MEMORY = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cuDNN": RuntimeError("CUDA error: out of memory"),
    "cuDNN without a workspace": RuntimeError("FIND was unable to find an engine to execute this computation"),
    "cuDNN at its start": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuBLAS at its start": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)."),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_errors_of_missing_memory_are_known(error):
    assert device.is_out_of_memory(error)


def test_other_errors_are_not_out_of_memory():
    assert not device.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not device.is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_is_waited_for_and_its_cache_is_emptied(kind, monkeypatch):
    done = []
    for module in (torch.cuda, torch.mps):
        monkeypatch.setattr(module, "synchronize", lambda *device, module=module: done.append((module, "synchronize")))
        monkeypatch.setattr(module, "empty_cache", lambda module=module: done.append((module, "empty_cache")))
    device.synchronize(torch.device(kind))
    device.release_device_memory(torch.device(kind))
    module = getattr(torch, kind)
    assert done == [(module, "synchronize"), (module, "empty_cache")]
    device.synchronize(torch.device("cpu"))
    device.release_device_memory(torch.device("cpu"))
    assert len(done) == 2


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.mark.parametrize(("kind", "freed"), [("cuda", True), ("cpu", False)])
def test_objects_that_refer_to_themselves_are_freed_for_a_gpu(kind, freed):
    gc.disable()
    try:
        unused = weakref.ref(Cycle())
        device.collect_garbage(torch.device(kind))
        assert (unused() is None) == freed
    finally:
        gc.enable()


def test_unused_blocks_of_the_cache_count_as_free(monkeypatch):
    free = [40]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 100))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(free.pop() + 40))
    assert device.fits_on_gpu(20, torch.device("cuda"))
    assert not device.fits_on_gpu(20, torch.device("mps"))


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpu_uses_cudnn(deterministic, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.backends.cudnn.allow_tf32
    with device.choose_algorithms(torch.device("cuda"), deterministic):
        cudnn = torch.backends.cudnn
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, not deterministic, deterministic, before)


def test_only_memory_of_the_host_is_pinned():
    with fake_gpu() as gpu:
        x = torch.zeros(3, device=gpu)
        assert device.copy_to_device(x, gpu).device == gpu


def test_another_word_is_refused():
    with pytest.raises(UsageError, match="--device 'cuda:0' is not one of: auto, cpu, cuda, mps"):
        device.pick_device("cuda:0")


def test_a_batch_that_is_too_large_is_divided():
    sizes = []

    def short(x):
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x.mean(dim=(2, 3)).numpy()

    x = torch.rand(10, 3, 8, 8)
    found = device.run_by_halves(short, x)
    assert sizes == [10, 5, 3, 2, 5, 3, 2] and torch.allclose(torch.from_numpy(found), x.mean(dim=(2, 3)))
    with pytest.raises(torch.OutOfMemoryError):
        device.run_by_halves(lambda x: short(x.repeat(9, 1, 1, 1)), x)
