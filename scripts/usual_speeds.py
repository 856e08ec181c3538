"""Print the usual speeds of this kind of machine, as lines to paste into tlfast/commands/usual_speeds.py.

Measures in several turns, as `tlfast doctor --bench` does, and takes the best of each measure. Other programs on the machine should be stopped; each
turn shows how many cores they used. Afterwards run: scripts/docs reference
"""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

from tlfast.commands.doctor_bench import WORKLOAD
from tlfast.commands.usual_speeds import GPUS, UsualSpeed, scale_by_cores
from tlfast.core import processor
from tlfast.core.system import count_cores, hide_known_warnings
from tlfast.training.types import MEASURES, Speed


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/usual-speeds", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="number of turns (default: 5)")
    parser.add_argument("--seconds", type=float, default=WORKLOAD.seconds, help=f"seconds of a turn (default: {WORKLOAD.seconds:.0f})")
    options = parser.parse_args()
    if options.turns < 1:
        parser.error("--turns must be at least 1")
    hide_known_warnings()
    from tlfast.training.speed import measure_speeds  # imports fastai, which gives the warnings

    turns: list[list[Speed]] = []
    for number in range(options.turns):
        device, speeds = measure_speeds(replace(WORKLOAD, seconds=options.seconds))
        turns.append(speeds)
        taken = ", ".join(str(each.taken) for each in speeds)
        print(f"turn {number + 1}: {', '.join(f'{each.measure} {each.per_second:.1f}' for each in speeds)}; cores of other programs: {taken}", flush=True)
    for usual in best_speeds(turns, device.type):
        print(f'    UsualSpeed("{usual.measure}", "{usual.kind}", per_core={usual.per_core}, cores={usual.cores}, source="{usual.source}"),')
    return 0


def best_speeds(turns: list[list[Speed]], device: str) -> list[UsualSpeed]:
    """Return the best of each measure, for one core or for the whole GPU."""
    cores, kind, usual = count_cores(), processor.find_instruction_set(), []
    source = f"{name_processor()}, {date.today():%Y-%m-%d}"
    for speeds in zip(*turns, strict=True):
        best, measure = max(speeds, key=lambda each: each.per_second), MEASURES[speeds[0].measure]
        on_gpu = measure.on_device and device in GPUS
        used = cores if measure.all_cores and not on_gpu else 1
        usual.append(UsualSpeed(best.measure, device if on_gpu else kind, round(best.per_second / scale_by_cores(used), 1), used, source))
    return usual


def name_processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


if __name__ == "__main__":
    sys.exit(main())
