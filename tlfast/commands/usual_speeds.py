"""Usual speeds by kind of machine, to which `tlfast doctor --bench` compares. This is the one place of these figures.

Only measured figures are in the table. `scripts/usual-speeds` measures in several turns and prints the lines to paste here; then run
`scripts/docs reference`, which writes docs/reference/speeds.md.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_CORES = 8  # more cores than these are not expected to be faster: this was not measured
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
        measure: a name of `MEASURES` of `training/speed.py`.
        kind: a key of `KINDS`.
        per_core: images per second of a core; of the whole device for a GPU.
        cores: number of cores of the machine on which it was measured.
        source: machine, day and state of the machine.
    """

    measure: str
    kind: str
    per_core: float
    cores: int
    source: str


USUAL_SPEEDS: tuple[UsualSpeed, ...] = ()


def find_usual(measure: str, kind: str, cores: int) -> float | None:
    """Return the usual images per second of a measure on `cores` cores; None if this kind of machine was not measured.

    It is proportional to the number of cores up to MOST_CORES. For a measure with one thread, and for a GPU, `cores` is 1.
    """
    found = next((usual for usual in USUAL_SPEEDS if (usual.measure, usual.kind) == (measure, kind)), None)
    return found.per_core * min(cores, MOST_CORES) if found else None
