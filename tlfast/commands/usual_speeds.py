"""Usual speeds by kind of machine, to which `tlfast doctor --bench` compares. This is the one place of these figures.

Only measured figures are in the table. `scripts/usual-speeds` measures in several turns and prints the lines to paste here; then run
`scripts/docs reference`, which writes docs/reference/speeds.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_CORES = 16  # more cores than these are not expected to be faster: this was not measured
FAR_BELOW = 0.5  # share of the usual speed, below which a reason is sought
KINDS = {
    "AVX2": "processor with AVX2",
    "AVX-512": "processor with AVX-512",
    "AMX": "processor with AMX",
    "ARM": "ARM processor",
    "Apple": "Apple processor",
    "cuda": "NVIDIA GPU",
    "mps": "Apple GPU",
}
GPUS = ("cuda", "mps")  # kinds that do not have cores of a processor
OTHER = "another processor"


@dataclass(frozen=True)
class UsualSpeed:
    """What one measure gives on one kind of machine.

    Attributes:
        measure: a name of `MEASURES` of `training/types.py`.
        kind: a key of `KINDS`.
        per_core: images per second of one core; of the whole device for a GPU.
        cores: number of cores that were used to measure it; 1 for a GPU.
        source: machine, day, and how it was measured.
    """

    measure: str
    kind: str
    per_core: float
    cores: int
    source: str


USUAL_SPEEDS: tuple[UsualSpeed, ...] = (
    UsualSpeed("decode_one", "AVX2", per_core=582.2, cores=1, source="AMD EPYC, 2026-11-29"),
    UsualSpeed("decode_all", "AVX2", per_core=632.2, cores=2, source="AMD EPYC, 2026-11-29"),
    UsualSpeed("loader", "AVX2", per_core=782.0, cores=2, source="AMD EPYC, 2026-11-29"),
    UsualSpeed("forward", "AVX2", per_core=258.8, cores=2, source="AMD EPYC, 2026-11-29"),
    UsualSpeed("step", "AVX2", per_core=58.1, cores=2, source="AMD EPYC, 2026-11-29"),
)


def find_usual(measure: str, kind: str, cores: int) -> float | None:
    """Return the usual images per second of a measure on `cores` cores; None if this kind of machine was not measured.

    For a measure with one thread, and for a GPU, `cores` is 1.
    """
    found = next((usual for usual in USUAL_SPEEDS if (usual.measure, usual.kind) == (measure, kind)), None)
    return round(found.per_core * scale_by_cores(cores), 1) if found else None


def scale_by_cores(cores: int) -> float:
    """Return the expected speed of a number of cores as a multiple of that of one: its square root, up to MAX_CORES cores.

    Two cores train 1.3 to 1.4 times as fast as one; see docs/benchmarks.md, "Busy machine".

    >>> scale_by_cores(4), scale_by_cores(64)
    (2.0, 4.0)
    """
    return math.sqrt(min(cores, MAX_CORES))
