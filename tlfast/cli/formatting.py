"""Results as plain text: table cells, lines, and pairs of name and value. `console` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core import Settings
from ..core.errors import list_some
from ..core.metrics import EPOCH_METRICS, FIGURE_TITLES, METRICS, format_threshold
from ..core.settings import declared_settings
from ..inference import PredictRow
from ..inference.writers import UNSURE, label_of

if TYPE_CHECKING:  # not imported at run time: `predict` must start fast
    from ..commands.archs import ArchsResult
    from ..commands.doctor_bench import BenchResult, SpeedRow
    from ..commands.train import DryRun, TrainResult
    from ..data import DataSummary
    from ..evaluation import Evaluation
    from ..evaluation.comparison import ArmDifference, ArmScore
    from ..evaluation.types import Calibration
    from ..export import Export
    from ..training import DepthPlan, EpochRow, FeaturePass, Phase

ARCH_COLUMNS = ("backbone", "parameters", "stages", "pretrained at (px)", "weights", "licence")
SPEED_COLUMNS = ("measure", "images/s", "usual", "ratio", "remark")
EPOCH_COLUMNS = ("phase", "epoch", "train loss", "valid loss", *(METRICS[name].title for name in EPOCH_METRICS), "seconds")


def list_setting_rows() -> list[tuple[str, str, str]]:
    """Return (flag, default, help text) of every setting, for the table of the documentation."""
    rows = []
    for declaration in declared_settings().values():
        flag = f"--[no-]{declaration.flag[2:]}" if declaration.type is bool else declaration.flag
        choices = f" One of: {' '.join(declaration.choices)}." if declaration.choices else ""
        rows.append((flag, format_value(declaration.default) or "-", declaration.help + choices))
    return rows


def format_result(result: TrainResult) -> dict[str, str]:
    """Return the summary of a finished training by name."""
    evaluation, settings = result.evaluation, Settings.from_dict(result.settings)
    averages = {f"{s.name} average": f"precision {s.precision:.4f}  recall {s.recall:.4f}  F1 {s.f1:.4f}" for s in (evaluation.macro, evaluation.weighted)}
    figures = format_figures(evaluation)
    phases = {}
    for phase in result.phases:
        if phase.features:
            phases[f"features for the {phase.name}"] = _format_pass(phase.features)
        phases[phase.name] = _format_phase(phase)
    return {
        "accuracy": f"{figures['accuracy']} on {evaluation.macro.support:,} {evaluation.split} images",
        **{name: figures[name] for name in (OVER_GROUPS,) if name in figures},
        **averages,
        **{name: figures[name] for name in ("calibration error", "selective accuracy")},
        "strategy": f"{settings.strategy_label} fine-tuning of {settings.arch} at {settings.size} px on {result.device}",
        "weights": result.weights,
        **phases,
        "seconds": f"{result.seconds:.1f}" + "".join(f" ({_format_predicted(choice, settings)})" for choice in result.plan if choice.chosen),
        "run": result.folder,
    }


def _format_predicted(choice: DepthPlan, settings: Settings) -> str:
    epochs = "" if choice.epochs == settings.epochs else f" for {choice.epochs} epochs"
    return f"predicted: {choice.seconds:.1f}{epochs}"


OVER_GROUPS = "accuracy over groups"


def format_figures(evaluation: Evaluation) -> dict[str, str]:
    """Return every single-number metric of an evaluation by title, with its bootstrap interval if it has one."""
    calibration = evaluation.calibration
    values = {name: evaluation.figure(name) for name in FIGURE_TITLES}
    figures = {FIGURE_TITLES[name]: format_interval(value, evaluation.intervals.get(name)) for name, value in values.items() if value is not None}
    selective = [
        f"{float(accuracy):.0%} on {point.coverage:.0%} of the images (probability at least {format_threshold(point.threshold)})"
        for accuracy, point in calibration.thresholds.items()
    ]
    interval, groups = evaluation.group_intervals.get("accuracy"), {}
    if evaluation.groups:
        groups[OVER_GROUPS] = (
            f"{interval[0]:.4f} to {interval[1]:.4f} ({evaluation.groups:,} groups)" if interval else f"{evaluation.groups} groups are too few"
        )
    return {
        **figures,
        **groups,
        **{f"top-{k} accuracy": f"{share:.4f}" for k, share in evaluation.top.items()},
        "calibration error": _describe_calibration(calibration),
        "selective accuracy": "; ".join(selective) or "no threshold with 90% accuracy on at least 20 images",
    }


def _describe_calibration(calibration: Calibration) -> str:
    if calibration.rejected:
        return f"{calibration.error:.4f} at temperature 1; the fitted temperature of {calibration.rejected:.3f} does not improve held-out images"
    return f"{calibration.error:.4f} at temperature {calibration.temperature:.3f}, {calibration.error_before:.4f} at temperature 1"


def format_model(plan: DryRun) -> dict[str, str]:
    """Return weights, device and numbers of parameters of a planned training by name."""
    parameters = {"parameters": f"{plan.parameters:,}", "trained parameters": f"{plan.trained_parameters:,}"}
    return {"weights": plan.weights, "device": plan.device, **parameters}


def format_summary(summary: DataSummary) -> dict[str, str]:
    """Return imbalance, groups, sizes and modes of images by name, without those that are empty."""
    facts = {
        "imbalance": describe_imbalance(summary),
        "groups": f"{summary.groups:,}" if summary.groups else "",
        "sizes": format_counts(summary.sizes),
        "modes": format_counts(summary.modes),
    }
    return {name: value for name, value in facts.items() if value}


def describe_bench(result: BenchResult) -> str:
    """Return the title of the table of speeds: machine and workload."""
    return f"speed on {result.device}, {result.cores} cores{f' with {result.processor}' if result.processor else ''}: {result.workload}"


def speed_cells(row: SpeedRow) -> tuple[str, ...]:
    """Return a measured speed as cells: those of SPEED_COLUMNS."""
    name = f"{row.title} ({row.precision})" if row.precision else row.title
    usual, ratio = ("-" if row.usual is None else f"{row.usual:,.0f}"), ("-" if row.ratio is None else f"{row.ratio:.2f}")
    return (name, f"{row.images_per_second:,.0f}", usual, ratio, row.remark)


def describe_imbalance(summary: DataSummary) -> str:
    """Describe the ratio of the largest to the smallest class of training images; "" if they are equal or one is empty."""
    counts = summary.counts.get("train", {})
    if not counts or not min(counts.values()):
        return ""
    most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
    if counts[most] == counts[least]:
        return ""
    return f"{most} has {counts[most] / counts[least]:.1f} times the training images of {least}"


def arm_cells(arm: ArmScore) -> tuple[str, ...]:
    """Return an arm of a comparison as cells: name, accuracy, macro F1, standard deviation, seconds, parameters, MB, ms per image."""
    sd = "-" if arm.accuracy_sd is None else f"{arm.accuracy_sd:.4f}"
    scores = format_interval(arm.accuracy, arm.accuracy_interval), format_interval(arm.macro_f1, arm.macro_f1_interval)
    return (arm.name, *scores, sd, f"{arm.seconds:.1f}", f"{arm.parameters:,}", f"{arm.megabytes:.1f}", f"{arm.milliseconds:.1f}")


def difference_cells(d: ArmDifference) -> tuple[str, ...]:
    """Return the difference of two arms as cells, in percentage points, with p-values."""
    gains = _format_points(d.accuracy, d.accuracy_interval), _format_points(d.macro_f1, d.macro_f1_interval)
    return (f"{d.first} - {d.second}", *gains, f"{d.p:.2g}", f"{d.p_corrected:.2g}", "yes" if d.shown else "no")


def _format_points(difference: float, interval: tuple[float, float] | None) -> str:
    """Return a difference in percentage points and its interval, if it has one."""
    points = f"{100 * difference:+.1f}"
    return f"{points} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else points


def format_interval(value: float, interval: tuple[float, float] | None) -> str:
    """Return a metric and its interval, if it has one.

    >>> format_interval(0.5, (0.25, 0.75))
    '0.5000 (0.2500 to 0.7500)'
    """
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})" if interval else f"{value:.4f}"


def _format_phase(phase: Phase) -> str:
    """Describe a phase in one line. With cached features, the speed is in features per second."""
    source = phase.curve.source if phase.curve else "given"
    rates = f"{phase.lr:.1e}" if phase.lr == phase.lowest_lr else f"{phase.lowest_lr:.1e} to {phase.lr:.1e}"
    kept = f"epoch {phase.kept_epoch} of {len(phase.epochs)}" if phase.kept_epoch else f"no improvement in {len(phase.epochs)} epochs"
    items = "features" if phase.features and phase.name == "head" else "images"
    amp = "" if phase.precision == "off" else f"  {phase.precision}"
    return f"rate {rates} ({source})  {kept}  {phase.images_per_second:,.0f} {items}/s{amp}  {phase.seconds:.1f} s"


def choice_cells(choice: DepthPlan) -> tuple[str, ...]:
    """Return the plan of a depth as cells; a star marks the chosen one."""
    costs = (f"{choice.images_per_second:,.0f}", _format_gigabytes(choice.gigabytes), str(choice.views), str(choice.epochs or "-"))
    return ("*" if choice.chosen else "", choice.depth, choice.trains, *costs, f"{choice.seconds:,.0f}" if choice.epochs else "too long")


def arch_rows(result: ArchsResult) -> list[tuple[str, ...]]:
    """Return the cells of backbones: those of ARCH_COLUMNS."""
    return [(b.arch, f"{b.parameters / 1e6:.1f} M" if b.parameters else "?", str(b.stages or "-"), str(b.size), b.weights, b.licence) for b in result.backbones]


def _format_gigabytes(count: float) -> str:
    return f"{count:.2f}" if count >= 0.1 or not count else f"{max(count, 0.001):.1g}"


def _format_pass(cost: FeaturePass) -> str:
    computed = f"{cost.images:,} images  {cost.images / cost.seconds:,.0f} images/s  {cost.seconds:.1f} s" if cost.images else ""
    cached = f"{cost.kept:,} images from the cache" if cost.kept else ""
    return "  ".join(filter(None, (computed, cached)))


def export_cells(export: Export) -> tuple[str, ...]:
    """Return a smaller network as cells: file, MB, relative size, then accuracy and images/s with those of model.onnx, and number of images."""
    accuracies = (f"{export.accuracy:.4f}", f"{export.accuracy_before:.4f}")
    speeds = (f"{export.images_per_second:,.0f}", f"{export.images_per_second_before:,.0f}")
    return (export.file, f"{export.megabytes:.1f}", f"{export.share_of_size:.1%}", *accuracies, *speeds, f"{export.images:,}")


def format_top_classes(row: PredictRow, top: int | None, min_probability: float) -> str:
    """Return the `top` most probable classes with their probabilities, or the error of the row."""
    if row.prediction is None:
        return row.error
    classes = "  ".join(f"{name} {probability:.1%}" for name, probability in list(row.prediction.probabilities.items())[: top or 1])
    return f"{UNSURE} ({classes})" if label_of(row, min_probability) == UNSURE else classes


def format_epochs(row: EpochRow, headed: bool) -> list[str]:
    """Return the line of an epoch, after a line with the names of the columns unless `headed`."""
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
    """Return a value as one line of text.

    >>> format_value({"on": True, "sizes": [64, 80]})
    'on yes  sizes 64, 80'
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "  ".join(f"{name} {format_value(inner)}" for name, inner in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def format_counts(counts: dict[str, int], listed: int = 5) -> str:
    """Return the first counts with their names, and the number of the others.

    >>> format_counts({"RGB": 3, "L": 1}, listed=1)
    'RGB (3) and 1 more'
    """
    return list_some([f"{name} ({count:,})" for name, count in counts.items()], listed)


def shorten_rows(rows: Sequence[Sequence[Any]], most: int) -> Sequence[Sequence[Any]]:
    """Return the first rows of a table, and a row with the number of the others.

    >>> shorten_rows([("ant", "3"), ("bee", "2"), ("cat", "1")], 1)
    [('ant', '3'), ('2 more', '...')]
    """
    return rows if len(rows) <= most else [*rows[:most], (f"{len(rows) - most:,} more", *["..."] * (len(rows[0]) - 1))]
