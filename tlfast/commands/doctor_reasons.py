"""Reasons why a machine is slower than its kind, for `tlfast doctor --bench`: the state of the machine while it was measured, and what follows."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core import processor, system

# Limits from which a state is a reason.
TAKEN, STOLEN = 0.2, 0.1  # share of the cores used by other programs; share of the time taken by other virtual machines
SCALING = 0.6  # all cores decode less than this times their number (at most MAX_SCALED) as fast as one
MAX_SCALED = 4
SLOW_CLOCK, SLOW_DISK = 0.6, 20.0  # share of the highest frequency; MB/s of writing
BUSY_GPU, LOW_POWER = 0.2, 0.8  # share of the time in which a GPU is used by others; share of its default power limit
WRITTEN = 8 << 20  # bytes, to time the disk
GPU_FIELDS = ("utilization.gpu", "mig.mode.current", "power.limit", "power.default_limit")
INSTRUCTION_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
TORCH_NAMES = {"AVX512": "AVX-512", "AVX2": "AVX2", "DEFAULT": "", "NO AVX": ""}


@dataclass(frozen=True)
class Gpu:
    """State of an NVIDIA GPU before the measurement.

    Attributes:
        busy: share of the time in which other programs used it.
        mig: whether it is divided by MIG.
        power: power limit as a share of the default one; None if it is unknown.
    """

    busy: float
    mig: bool
    power: float | None


@dataclass(frozen=True)
class Conditions:
    """State of a machine around its measurement. None: unknown.

    Attributes:
        cores: cores available to the process.
        threads: threads of torch.
        thread_limits: environment variables that limit threads.
        quota: cores that a control group allows.
        load: load average of the minute before.
        taken: cores that other programs used during the measurement, on average.
        stolen: share of the time that other virtual machines took.
        scaling: speed of decoding with all cores divided by that with one thread.
        frequency: highest share of the highest frequency that was seen.
        instructions: instruction set of the processor; "" if it is old or unknown.
        torch_instructions: instruction set that torch uses; "" for none of AVX2 and later.
        instruction_limits: environment variables that limit the instruction set.
        math_libraries: math libraries of torch.
        debug_allocators: variables that switch on an allocator for finding errors.
        disk: MB/s of writing to the temporary folder.
        gpu: state of the GPU, if it is the device.
    """

    cores: int
    threads: int
    thread_limits: Mapping[str, str]
    quota: float | None
    load: float
    taken: float | None
    stolen: float | None
    scaling: float
    frequency: float | None
    instructions: str
    torch_instructions: str
    instruction_limits: Sequence[str]
    math_libraries: Sequence[str]
    debug_allocators: Sequence[str]
    disk: float
    gpu: Gpu | None = None


@dataclass(frozen=True)
class Reason:
    """A state that makes a machine slow, with its remedy. It concerns measures on the processor ("cpu"), on the GPU ("gpu") or on files ("disk")."""

    text: str
    concerns: tuple[str, ...]


def find_reasons(found: Conditions) -> list[Reason]:
    """Return the states that make a machine slow, the likeliest first."""
    return [reason for wrong, reason in (*_check_limits(found), *_check_sharing(found), *_check_builds(found), *_check_gpu(found.gpu)) if wrong]


def _check_limits(found: Conditions) -> list[tuple[bool, Reason]]:
    quota, limits = found.quota or float("inf"), ", ".join(f"{name}={value}" for name, value in found.thread_limits.items())
    return [
        (quota < found.cores, Reason(f"a control group allows {quota:.3g} of {found.cores} cores: raise the CPU limit of the container", ("cpu",))),
        (
            found.threads < found.cores,
            Reason(f"torch uses {found.threads} of {found.cores} cores" + (f": unset {limits}" if limits else ""), ("cpu",)),
        ),
        (
            bool(found.debug_allocators),
            Reason(f"a debug allocator is on: unset {', '.join(found.debug_allocators)}", ("cpu", "disk")),
        ),
    ]


def _check_sharing(found: Conditions) -> list[tuple[bool, Reason]]:
    stolen, clock = found.stolen or 0.0, found.frequency
    if found.taken is None:
        busy, used = found.load > found.cores / 2, f"use the cores (load average {found.load})"
    else:  # it contains what other virtual machines took
        taken = found.taken - stolen * found.cores
        busy, used = taken >= TAKEN * found.cores, f"used {taken:.1f} of {found.cores} cores"
    explained = busy or stolen >= STOLEN or (found.quota or found.cores) < found.cores
    scaled = found.scaling < SCALING * min(found.cores, found.threads, MAX_SCALED) and not explained
    return [
        (stolen >= STOLEN, Reason(f"the host of this virtual machine gave {stolen:.0%} of the time to others: use another host", ("cpu",))),
        (busy, Reason(f"other programs {used}: stop them for full speed", ("cpu",))),
        (clock is not None and clock < SLOW_CLOCK, Reason(f"the cores run at {clock or 0:.0%} of their highest frequency: switch off power saving", ("cpu",))),
        (
            scaled,
            Reason(f"all {found.cores} cores decode only {found.scaling:.1f} times as fast as one: they are shared, or threads of the same core", ("cpu",)),
        ),
    ]


def _check_builds(found: Conditions) -> list[tuple[bool, Reason]]:
    limits = ", ".join(found.instruction_limits)
    return [
        (bool(limits), Reason(f"the instruction set is limited: unset {limits}", ("cpu",))),
        (
            found.torch_instructions == "" and found.instructions not in ("ARM", "Apple") and not limits,
            Reason("torch uses no AVX2: the processor has none, or this build of torch cannot use it", ("cpu",)),
        ),
        (
            not found.math_libraries,
            Reason("torch has neither MKL nor oneDNN: install a build of torch with them", ("cpu",)),
        ),
        (found.disk < SLOW_DISK, Reason(f"the temporary folder takes {found.disk:.1f} MB/s: set TMPDIR to a folder on a faster disk", ("disk",))),
    ]


def _check_gpu(gpu: Gpu | None) -> list[tuple[bool, Reason]]:
    if gpu is None:
        return []
    power = 1.0 if gpu.power is None else gpu.power
    return [
        (gpu.busy >= BUSY_GPU, Reason(f"other programs used the GPU for {gpu.busy:.0%} of the time: see nvidia-smi", ("gpu",))),
        (gpu.mig, Reason("the GPU is divided by MIG: this is a part of it", ("gpu",))),
        (power < LOW_POWER, Reason(f"the power limit of the GPU is {power:.0%} of its default: see nvidia-smi -q -d POWER", ("gpu",))),
    ]


def inspect_gpu(device: Any) -> Gpu | None:
    """Return the state of an NVIDIA GPU by nvidia-smi; None for other devices, and if it does not answer."""
    if device.type != "cuda":
        return None
    import torch

    identity = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    chosen = [f"--id=GPU-{identity}"] if identity else []
    try:
        command = ["nvidia-smi", *chosen, f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        text = ""
    found = parse_gpu(text)
    if "MIG" in torch.cuda.get_device_name(device):  # nvidia-smi answers for the whole GPU, if at all
        return replace(found or Gpu(0.0, True, None), mig=True)
    return found


def parse_gpu(text: str) -> Gpu | None:
    """Return the state of a GPU from a line of nvidia-smi with GPU_FIELDS; None if it has other fields.

    >>> parse_gpu("35, Disabled, 300.00, 400.00")
    Gpu(busy=0.35, mig=False, power=0.75)
    """
    fields = [field.strip() for field in (text.splitlines() or [""])[0].split(",")]
    if len(fields) != len(GPU_FIELDS):
        return None
    busy, limit, default = (_to_number(fields[i]) for i in (0, 2, 3))
    return Gpu((busy or 0.0) / 100, fields[1] == "Enabled", limit / default if limit and default else None)


def _to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # such as [N/A]
        return None


def inspect_torch() -> dict[str, Any]:
    """Return the fields of `Conditions` that torch knows."""
    import torch

    libraries = {"MKL": torch.backends.mkl, "oneDNN": torch.backends.mkldnn}
    return {
        "threads": torch.get_num_threads(),
        "torch_instructions": TORCH_NAMES.get(torch.backends.cpu.get_cpu_capability(), "other"),
        "math_libraries": [name for name, library in libraries.items() if library.is_available()],
    }


def time_disk(folder: str | None = None) -> float:
    """Return the MB/s of writing a file to the temporary folder, down to the disk."""
    data = os.urandom(WRITTEN)
    with tempfile.TemporaryDirectory(prefix="tlfast-speed-", dir=folder) as name:
        started = time.perf_counter()
        with open(Path(name) / "written", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return WRITTEN / 1e6 / (time.perf_counter() - started)


def inspect_limits(names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `Conditions` that do not change during a measurement. `names` are environment variables that limit threads."""
    return {
        "cores": system.count_cores(),
        "thread_limits": {name: os.environ[name] for name in names if name in os.environ},
        "instruction_limits": [name for name in INSTRUCTION_LIMITS if os.environ.get(name)],
        "quota": processor.read_quota(),
        "debug_allocators": processor.find_debug_allocators(),
        "disk": round(time_disk(), 1),
    }
