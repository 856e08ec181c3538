"""How results are put into words: cells, lines and facts, as plain text; `render` puts them on the screen."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from ..core.metrics import EPOCH_METRICS, FIGURE_TITLES, METRICS
from ..core.settings import Settings, declared_settings
from ..data.types import DataSummary
from ..evaluation.types import Evaluation
from ..export.types import Export
from ..inference.types import PredictRow
from ..inference.writers import UNSURE, label_of
from ..training.types import DepthPlan, EpochRow, FeaturePass, Phase

if TYPE_CHECKING:
    from ..commands.train import TrainResult
    from ..evaluation.comparison import ArmDifference, ArmScore

EPOCH_COLUMNS = ("phase", "epoch", "train loss", "valid loss", *(METRICS[name].title for name in EPOCH_METRICS), "seconds")


def list_setting_rows() -> list[tuple[str, str, str]]:
    """Return (flag, default, meaning) of every setting, for the README's table."""
    rows = []
    for own in declared_settings().values():
        typed = f"--[no-]{own.flag[2:]}" if own.type is bool else own.flag
        meaning = own.help + (f" One of: {' '.join(own.choices)}." if own.choices else "")
        rows.append((typed, format_value(own.default) or "-", meaning))
    return rows


def format_result(result: TrainResult) -> dict[str, str]:
    """Return what is said at the end of a training."""
    e, settings = result.evaluation, Settings.from_dict(result.settings)
    averages = {f"{s.name} average": f"precision {s.precision:.4f}  recall {s.recall:.4f}  F1 {s.f1:.4f}" for s in (e.macro, e.weighted)}
    said = format_figures(e)
    phases = {}
    for phase in result.phases:
        if phase.features:
            phases[f"features for the {phase.name}"] = _format_pass(phase.features)
        phases[phase.name] = _format_phase(phase)
    return {
        "accuracy": f"{said['accuracy']} on {e.macro.support:,} {e.split} images",
        **averages,
        **{name: said[name] for name in ("calibration error", "sure answers")},
        "strategy": f"{settings.tuning} fine-tuning of {settings.arch} at {settings.size} px on {result.device}",
        "weights": result.weights,
        **phases,
        "seconds": f"{result.seconds:.1f}" + "".join(f" ({_format_predicted(choice, settings)})" for choice in result.plan if choice.chosen),
        "run": result.folder,
    }


def _format_predicted(choice: DepthPlan, settings: Settings) -> str:
    planned = "" if choice.epochs == settings.epochs else f" for {choice.epochs} epochs"
    return f"{choice.seconds:.1f} were predicted{planned}"


def format_figures(e: Evaluation) -> dict[str, str]:
    """Return every figure of an evaluation that is a single number, with its bootstrap interval where it has one."""
    c = e.calibration
    numbers = {name: e.figure(name) for name in FIGURE_TITLES}
    known = {FIGURE_TITLES[name]: format_interval(value, e.intervals.get(name)) for name, value in numbers.items() if value is not None}
    promised = [f"{float(accuracy):.0%} right on {p.coverage:.0%} of the images, from {p.threshold:.2f} on" for accuracy, p in c.promises.items()]
    return {
        **known,
        **{f"among the {k} likeliest": f"{share:.4f}" for k, share in e.top.items()},
        "calibration error": f"{c.error:.4f}, {c.error_before:.4f} before temperature {c.temperature:.3f}",
        "sure answers": "; ".join(promised) or "never 90% right, however sure",
    }


def describe_imbalance(summary: DataSummary) -> str:
    """Say how much larger the largest class of training images is than the smallest."""
    counts = summary.counts.get("train", {})
    if not counts or not min(counts.values()):
        return ""
    most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
    if counts[most] == counts[least]:
        return ""
    return f"{most} has {counts[most] / counts[least]:.1f} times the training images of {least}"


def arm_cells(arm: ArmScore) -> tuple[str, ...]:
    """Return an arm of a comparison as cells: name, accuracy, macro F1, their spread, and what it costs."""
    sd = "-" if arm.accuracy_sd is None else f"{arm.accuracy_sd:.4f}"
    scores = format_interval(arm.accuracy, arm.accuracy_interval), format_interval(arm.macro_f1, arm.macro_f1_interval)
    return (arm.name, *scores, sd, f"{arm.seconds:.1f}", f"{arm.parameters:,}", f"{arm.megabytes:.1f}", f"{arm.milliseconds:.1f}")


def difference_cells(d: ArmDifference) -> tuple[str, ...]:
    """Return a difference of two arms as cells, in points."""
    gains = [
        f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        for value, (low, high) in ((d.accuracy, d.accuracy_interval), (d.macro_f1, d.macro_f1_interval))
    ]
    return (f"{d.first} - {d.second}", *gains, f"{d.p:.2g}", f"{d.p_corrected:.2g}", "yes" if d.shown else "no")


def format_interval(value: float, interval: tuple[float, float] | None) -> str:
    """Return a figure and its interval, if it has one."""
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})" if interval else f"{value:.4f}"


def _format_phase(phase: Phase) -> str:
    """One line on a phase; features are counted apart from the images that they were made of."""
    source = "finder" if phase.curve else "given"
    rates = f"{phase.lr:.1e}" if phase.lr == phase.lowest_lr else f"{phase.lowest_lr:.1e} to {phase.lr:.1e}"
    kept = f"best epoch {phase.best_epoch} of {len(phase.epochs)}" if phase.best_epoch else f"no epoch of {len(phase.epochs)} beat what was there"
    what = "features" if phase.features and phase.name == "head" else "images"
    amp = "" if phase.precision == "off" else f"  {phase.precision}"
    return f"rate {rates} ({source})  {kept}  {phase.images_per_second:,.0f} {what}/s{amp}  {phase.seconds:.1f} s"


def choice_cells(choice: DepthPlan) -> tuple[str, ...]:
    """Return a depth that could be trained as cells; a star marks the one that is."""
    costs = (f"{choice.images_per_second:,.0f}", _format_gigabytes(choice.gigabytes), str(choice.views), str(choice.epochs or "-"))
    return ("*" if choice.chosen else "", choice.depth, choice.trains, *costs, f"{choice.seconds:,.0f}" if choice.epochs else "too long")


def _format_gigabytes(count: float) -> str:
    return f"{count:.2f}" if count >= 0.1 or not count else f"{max(count, 0.001):.1g}"


def _format_pass(cost: FeaturePass) -> str:
    made = f"{cost.images:,} images  {cost.images / cost.seconds:,.0f} images/s  {cost.seconds:.1f} s" if cost.images else ""
    kept = f"{cost.kept:,} images kept from an earlier run" if cost.kept else ""
    return "  ".join(filter(None, (made, kept)))


def export_cells(export: Export) -> tuple[str, ...]:
    """Return a smaller form of a network as cells, beside what it was made of."""
    e = export
    sizes = (e.file, f"{e.megabytes:.1f}", f"{e.share_of_size:.1%}")
    return (*sizes, f"{e.accuracy:.4f}", f"{e.accuracy_before:.4f}", f"{e.images_per_second:,.0f}", f"{e.images_per_second_before:,.0f}", f"{e.images:,}")


def format_likely(row: PredictRow, top: int | None, least: float) -> str:
    """Return a row's likeliest classes with their probabilities, or why there are none."""
    if row.prediction is None:
        return row.error
    likely = "  ".join(f"{name} {probability:.1%}" for name, probability in islice(row.prediction.probabilities.items(), top or 1))
    return f"{UNSURE} ({likely})" if label_of(row, least) == UNSURE else likely


def format_epochs(row: EpochRow, headed: bool) -> list[str]:
    """Return the line of an epoch, and before it the names of the columns if they have not been shown."""
    rows = [_epoch_cells(row)] if headed else [EPOCH_COLUMNS, _epoch_cells(row)]
    return ["  ".join(f"{cell:>{max(10, len(title))}}" for cell, title in zip(cells, EPOCH_COLUMNS, strict=True)) for cells in rows]


def _epoch_cells(row: EpochRow) -> tuple[str, ...]:
    return (
        row.phase,
        str(row.epoch),
        f"{row.train_loss:.4f}",
        f"{row.valid_loss:.4f}",
        *(f"{getattr(row, name):.4f}" for name in EPOCH_METRICS),
        f"{row.seconds:.1f}",
    )


def format_value(value: Any) -> str:
    """Return a value as one line of text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "  ".join(f"{name} {format_value(inner)}" for name, inner in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def format_confused(counts: dict[str, int], listed: int = 5) -> str:
    """Name the first of some counts, and say how many others there are."""
    parts = [f"{name} ({count:,})" for name, count in list(counts.items())[:listed]]
    return ", ".join(parts) + (f" and {len(counts) - listed} more" if len(counts) > listed else "")
