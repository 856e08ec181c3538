"""`tlfast doctor --bench`: the speed of this machine beside what its kind usually gives, and the likeliest reasons where it is far below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..core import Event, OnEvent, ignore_event, processor, system
from ..training.types import MEASURES, Measure, Speed, Workload
from .doctor_reasons import Conditions, Reason, find_reasons, inspect_gpu, inspect_limits, inspect_torch
from .usual_speeds import FAR_BELOW, GPUS, KINDS, OTHER, find_usual

WORKLOAD = Workload()
NO_REASON = "no reason found; repeat the measurement"
LOADER_BOUND = "slower than the training steps, which wait for it: use more cores, or --augment light"


@dataclass(frozen=True)
class SpeedRow:
    """One line of the table of speeds.

    Attributes:
        measure, title: name of the measure, in Python and in the table.
        images_per_second: measured speed.
        usual: usual speed of this kind of machine; None if it was not measured.
        ratio: measured speed divided by the usual one.
        remark: the likeliest reason if the ratio is below FAR_BELOW, or that there is no usual speed; "" otherwise.
        precision: number format of a network; "" for measures without one.
        repetitions: number of timed repetitions.
        cores_taken: cores that other programs used meanwhile; None if it is unknown.
    """

    measure: str
    title: str
    images_per_second: float
    usual: float | None
    ratio: float | None
    remark: str
    precision: str
    repetitions: int
    cores_taken: float | None


@dataclass(frozen=True)
class BenchResult:
    """Result of `tlfast doctor --bench`.

    Attributes:
        processor: kind of the processor, a key of `KINDS`; "" if it is none of them.
        cores: cores available to this process.
        device: device that a training uses: cpu, cuda or mps.
        workload: what was computed: network, size, batch.
        speeds: the table.
        conditions: state of the machine during the measurement.
        reasons: what makes this machine slow, the likeliest first. It is listed also where no usual speed is known.
    """

    processor: str
    cores: int
    device: str
    workload: str
    speeds: list[SpeedRow]
    conditions: Conditions
    reasons: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


def run_bench(thread_names: Sequence[str] = (), on_event: OnEvent = ignore_event) -> BenchResult:
    """Measure this machine for about a minute and compare it with its kind. Nothing is left on the disk.

    The device is the one that `--device auto` chooses. `thread_names` are environment variables that limit threads.

    >>> run_bench().speeds[0].images_per_second  # doctest: +SKIP
    """
    from ..models import pick_device
    from ..training.speed import measure_speeds

    load, before, limits = system.load_average(), processor.read_ticks(), inspect_limits(thread_names)
    gpu = inspect_gpu(pick_device("auto"))  # before the measurement, which uses it
    frequencies: list[float | None] = []

    def watch(event: Event) -> None:  # between two repetitions, as an idle core lowers its frequency
        frequencies.append(processor.read_frequency())
        on_event(event)

    device, speeds = measure_speeds(WORKLOAD, watch)
    known = [each.taken for each in speeds if each.taken is not None]
    per_second = {each.measure: each.per_second for each in speeds}
    conditions = Conditions(
        **limits,
        **inspect_torch(),
        load=load,
        taken=round(sum(known) / len(known), 2) if known else None,
        stolen=_share_stolen(before, processor.read_ticks()),
        scaling=round(per_second["decode_all"] / per_second["decode_one"], 2),
        frequency=max((share for share in frequencies if share is not None), default=None),
        instructions=processor.find_instruction_set(),
        gpu=gpu,
    )
    return judge_speeds(speeds, conditions, device.type, str(WORKLOAD))


def _share_stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Return the share of the time that other virtual machines took between two values of `read_ticks`."""
    if before is None or after is None or after[0] <= before[0]:
        return None
    return round((after[1] - before[1]) / (after[0] - before[0]), 3)


def judge_speeds(speeds: Sequence[Speed], conditions: Conditions, device: str, workload: str) -> BenchResult:
    """Compare speeds with the usual ones, and find the likeliest reason for each that is far below."""
    kind = conditions.instructions or conditions.torch_instructions
    reasons = find_reasons(conditions)
    rows = [_compare(each, MEASURES[each.measure], device if MEASURES[each.measure].on_device and device != "cpu" else kind, conditions) for each in speeds]
    rows = [_explain(row, MEASURES[row.measure], device, reasons) for row in rows]
    texts = [reason.text for reason in reasons]
    if device != "cpu" and _find(rows, "loader").images_per_second < _find(rows, "step").images_per_second:
        rows = [replace(row, remark=LOADER_BOUND) if row.measure == "loader" else row for row in rows]
        texts.append(f"the training loader is {LOADER_BOUND}")
    return BenchResult(kind, conditions.cores, device, workload, rows, conditions, texts)


def _find(rows: Sequence[SpeedRow], measure: str) -> SpeedRow:
    return next(row for row in rows if row.measure == measure)


def _compare(speed: Speed, measure: Measure, kind: str, conditions: Conditions) -> SpeedRow:
    """Return the line of a speed on a kind of machine, with a remark only if there is no usual speed."""
    scales = measure.all_cores and kind not in GPUS
    usual = find_usual(speed.measure, kind, conditions.cores if scales else 1)
    remark = "" if usual else f"not measured yet: {KINDS.get(kind, OTHER)}"
    ratio = round(speed.per_second / usual, 2) if usual else None
    return SpeedRow(speed.measure, measure.title, round(speed.per_second, 1), usual, ratio, remark, speed.precision, speed.repetitions, speed.taken)


def _explain(row: SpeedRow, measure: Measure, device: str, reasons: Sequence[Reason]) -> SpeedRow:
    """Return the line with the likeliest reason as its remark, if it is far below the usual speed."""
    if row.ratio is None or row.ratio >= FAR_BELOW:
        return row
    parts = ("gpu", "cpu") if measure.on_device and device != "cpu" else ("cpu",) if measure.on_device else ("cpu", "disk")
    likely = [reason.text for part in parts for reason in reasons if part in reason.concerns]
    return replace(row, remark=likely[0] if likely else NO_REASON)
