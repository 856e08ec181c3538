"""Everything that is put on the screen: results and tables to stdout, progress and remarks to stderr. The only importer of rich."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as Bar
from rich.table import Table
from rich.text import Text

from .errors import TlfastError
from .recording import UNSURE, as_dict, label
from .results import (
    ArmDifference,
    ArmScore,
    CompareResult,
    DataReport,
    DataSummary,
    EpochRow,
    EvaluateResult,
    Evaluation,
    Event,
    Export,
    ExportResult,
    InterpretResult,
    OnEvent,
    Pass,
    Phase,
    Plan,
    PredictRow,
    ReportResult,
    Tally,
    TrainResult,
)
from .settings import Settings, Task, declared, types

EPOCH_COLUMNS = ("phase", "epoch", "train loss", "valid loss", "accuracy", "macro F1", "seconds")
FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation",
    "log_loss": "log loss",
    "brier": "Brier score",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
}
LISTED = 40  # images; of more the counts are shown
PLAIN_WIDTH = 200  # columns when the output is piped: a terminal's width is not known there


class Screen:
    """Where a command's words go. `quiet` leaves the results only; `as_json` makes them JSON."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.out = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, soft_wrap=False)
        self.err = Console(stderr=True, highlight=False)
        self.quiet, self.as_json = quiet, as_json

    @property
    def live(self) -> bool:
        """Whether someone watches: bars and rows as they come are for a terminal."""
        return self.err.is_terminal and not self.quiet

    @contextmanager
    def progress(self) -> Iterator[OnEvent]:
        """Give a listener for events, which draws bars, rows of the table of epochs and remarks on stderr."""
        if not self.live:
            yield _Lines(self)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as bars:
            yield _Bars(self, bars)

    def emit(self, value: Any, draw: Any, *arguments: Any) -> None:
        """Print `value` as JSON, or call `draw(*arguments)`."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, indent=1))
        else:
            draw(*arguments)

    def error(self, error: TlfastError) -> None:
        if self.as_json:
            print(json.dumps({"error": error.message, "hint": error.hint}, ensure_ascii=False))
        self.err.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            self.err.print(f"  {escape(error.hint)}", soft_wrap=True)

    def _remark(self, event: Event) -> None:
        if event.note:
            self.err.print(f"[yellow]{escape(event.phase)}:[/] {escape(event.note)}", soft_wrap=True)

    # Results

    def train_result(self, result: TrainResult) -> None:
        self.emit(result.to_dict(), self._train_result, result)

    def _train_result(self, result: TrainResult) -> None:
        self._facts(f"{result.run}", _closing(result))
        if result.data.unreadable:
            self.out.print(f"unreadable images that were skipped: {len(result.data.unreadable)}; run.json names them")

    def plan(self, plan: Plan) -> None:
        self.emit(plan.to_dict(), self._plan, plan)

    def _plan(self, plan: Plan) -> None:
        self._facts("settings", {name: _shown(value) for name, value in plan.settings.items()})
        self._data_summary(plan.data)
        parameters = {"weights": plan.weights, "device": plan.device, "parameters": f"{plan.parameters:,}", "of which train": f"{plan.trained_parameters:,}"}
        self._facts("model", parameters)

    def interpret_result(self, result: InterpretResult) -> None:
        self.emit(result.to_dict(), self._interpret_result, result)

    def _interpret_result(self, result: InterpretResult) -> None:
        self._scores(result.evaluation)
        pairs = [(p.actual, p.predicted, str(p.count), f"{p.share:.1%}") for p in result.confused]
        self._table(("actual", "called", "images", "share of actual"), pairs, title="most confused")
        for file in filter(None, [*result.pictures, result.report]):
            self.out.print(escape(file), soft_wrap=True)

    def evaluate_result(self, result: EvaluateResult) -> None:
        self.emit(result.to_dict(), self._evaluate_result, result)

    def _evaluate_result(self, result: EvaluateResult) -> None:
        self._scores(result.evaluation)
        self._facts(result.run, _figures(result.evaluation))
        for file in result.files:
            self.out.print(file, soft_wrap=True)

    def report_result(self, result: ReportResult) -> None:
        self.emit(result.to_dict(), lambda: [self.out.print(escape(file), soft_wrap=True) for file in result.files])

    def compare_result(self, result: CompareResult) -> None:
        self.emit(result.to_dict(), self._compare_result, result)

    def _compare_result(self, result: CompareResult) -> None:
        columns = ("arm", "accuracy", "macro F1", "SD over seeds", "seconds", "parameters", "MB", "ms/image")
        self._table(columns, [_arm_cells(arm) for arm in result.arms], title=f"{escape(result.source)}, {result.judged_on}")
        if result.differences:
            rows = [_difference_cells(difference) for difference in result.differences]
            self._table(("difference", "points of accuracy", "points of macro F1", "McNemar p", "corrected", "shown"), rows)
        if result.curve:
            arms, shares = list(dict.fromkeys(p.arm for p in result.curve)), list(dict.fromkeys(p.share for p in result.curve))
            cells = {(p.arm, p.share): _with_interval(p.accuracy, p.interval) for p in result.curve}
            self._table(("training images", *map(escape, arms)), [(f"{share:.0%}", *(cells[arm, share] for arm in arms)) for share in shares])
        for crossing in result.crossings:
            self.out.print(f"{escape(crossing.better_above)} overtakes {escape(crossing.better_below)} at about {crossing.share:.0%} of the training images")
        self.out.print(f"[bold]{escape(result.verdict)}[/]", soft_wrap=True)
        reused = f", {result.reused} of the trainings found from earlier" if result.reused else ""
        self.out.print(f"{escape(result.folder)} ({result.seconds:.1f} s{reused})", soft_wrap=True)

    def export_result(self, result: ExportResult) -> None:
        self.emit(result.to_dict(), self._export_result, result)

    def _export_result(self, result: ExportResult) -> None:
        if result.exports:
            columns = ("file", "MB", "of model.onnx", "accuracy", "before", "images/s", "before", "judged on")
            self._table(columns, [_export_cells(export) for export in result.exports])
        if result.bundle:
            self.out.print(f"bundle: {escape(result.bundle)}", soft_wrap=True)

    def data_report(self, report: DataReport) -> None:
        self.emit(report.to_dict(), self._data_report, report)

    def _data_report(self, report: DataReport) -> None:
        self._data_summary(report.summary)
        if report.counts:
            self._table(("finding", "images"), [(kind, f"{count:,}") for kind, count in report.counts.items()])
            self.out.print(f"each by name: {escape(report.findings_file)}", soft_wrap=True)
        if report.table:
            said = ", ".join(f"{count:,} {kind}" for kind, count in report.dropped.items()) or "nothing"
            self.out.print(f"left out: {said}; to train on the rest: --data {escape(report.table)}", soft_wrap=True)

    def _data_summary(self, summary: DataSummary) -> None:
        parts = list(summary.counts)
        rows = [(label, *(f"{summary.counts[part][label]:,}" for part in parts)) for label in summary.classes]
        rows.append(("all", *(f"{summary.total(part):,}" for part in parts)))
        self._table(("class", *parts), rows, title=escape(summary.source))
        facts = {
            "imbalance": _imbalance(summary),
            "groups": f"{summary.groups:,}" if summary.groups else "",
            "sizes": _most(summary.sizes),
            "modes": _most(summary.modes),
        }
        self._facts("", {name: value for name, value in facts.items() if value})
        for note in summary.notes:
            self.out.print(f"note: {escape(note)}", soft_wrap=True)
        if summary.unreadable:
            self._table(("unreadable", "reason"), [(escape(bad.path), escape(bad.reason)) for bad in summary.unreadable])

    def predictions(self, rows: Iterable[PredictRow], top: int | None, least: float, at_once: bool = False) -> Tally:
        """Show predictions and count them: as JSON each as it comes, else in a table, which for many images is that of the counts.

        `at_once` gives each its line as it comes, for there may be no end.
        """
        counts: Counter[str] = Counter()
        first: list[PredictRow] = []
        unread: list[PredictRow] = []
        number = failed = 0
        for number, row in enumerate(rows, start=1):
            failed += row.prediction is None
            counts.update([label(row, least)] if row.prediction else [])
            if at_once:
                print(json.dumps(as_dict(row, top, least), ensure_ascii=False) if self.as_json else f"{row.path}  {_likely(row, top, least)}", flush=True)
            elif self.as_json:
                print("[" if number == 1 else ",", json.dumps(as_dict(row, top, least), ensure_ascii=False, indent=1), sep="\n")
            if number <= LISTED:
                first.append(row)
            if row.prediction is None and failed <= LISTED:
                unread.append(row)
        tally = Tally(dict(counts.most_common()), failed)
        if self.as_json and not at_once:
            print("]" if number else "[]")
        elif not at_once:
            self._predictions(first if number <= LISTED else unread, tally, top, least)
        return tally

    def _predictions(self, shown: Sequence[PredictRow], tally: Tally, top: int | None, least: float) -> None:
        """Draw the table of all images; where they are too many, of the counts, with the first of those that failed."""
        total = sum(tally.labels.values()) + tally.failed
        if total > LISTED:
            self._table(("prediction", "images", "share"), [(escape(name), f"{n:,}", f"{n / total:.1%}") for name, n in tally.labels.items()])
            if tally.failed:
                self.out.print(f"{tally.failed:,} images could not be read" + (f", the first {LISTED}:" if tally.failed > LISTED else ":"))
        if shown:
            cells = [(escape(row.path), escape(_likely(row, top, least)) if row.prediction else f"[red]{escape(row.error)}[/]") for row in shown]
            self._table(("image", "prediction"), cells)

    def tasks(self, registered: Sequence[Task]) -> None:
        rows = [(t.name, t.title, str(len(t.classes)), str(t.defaults.get("arch", "")), t.licence) for t in registered]
        values = [{"name": t.name, "title": t.title, "classes": t.classes, "defaults": dict(t.defaults), "licence": t.licence} for t in registered]
        self.emit(values, self._table, ("task", "images", "classes", "backbone", "licence"), rows)

    def runs(self, values: list[dict]) -> None:
        columns = ("run", "task", "strategy", "arch", "accuracy", "macro_f1")
        rows = [tuple(f"{v[c]:.4f}" if isinstance(v[c], float) else str(v[c]) for c in columns) for v in values]
        self.emit(values, self._table, columns, rows)

    def rates(self, values: dict[str, dict]) -> None:
        rows = [(phase, f"{v['suggestion']:.2e}", v["picture"]) for phase, v in values.items()]
        self.emit(values, self._table, ("phase", "suggested rate", "curve"), rows)

    def facts(self, title: str, values: dict[str, Any]) -> None:
        self.emit(values, self._facts, title, {name: _shown(value) for name, value in values.items()})

    def said(self, key: str, value: str) -> None:
        """Print one outcome: a path, say."""
        self.emit({key: value}, lambda: self.out.print(f"{key}: {escape(value)}", soft_wrap=True))

    def _scores(self, evaluation: Evaluation) -> None:
        scores = [*evaluation.per_class, evaluation.macro, evaluation.weighted]
        rows = [(escape(s.name), f"{s.precision:.3f}", f"{s.recall:.3f}", f"{s.f1:.3f}", f"{s.support:,}") for s in scores]
        title = f"{evaluation.split} part: accuracy {evaluation.accuracy:.4f}"
        self._table(("class", "precision", "recall", "F1", "images"), rows, title=title)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        if title:  # rich would break it at the table's width
            self.out.print(f"[italic]{title}[/]", soft_wrap=True)
        table = Table(box=None if not self.out.is_terminal else _box())
        for i, column in enumerate(columns):
            numeric = bool(rows) and all(re.fullmatch(r"[\d.,%]+", row[i]) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.out.print(table)

    def _facts(self, title: str, values: dict[str, str]) -> None:
        if title:
            self.out.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
        width = max(map(len, values), default=0)
        for name, value in values.items():
            self.out.print(f"  {name:<{width}}  {escape(value)}", soft_wrap=True)


class _Lines:
    """Listens to events where nobody watches a terminal: remarks to stderr, the row of each epoch to stdout as soon as it is there."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.headed = screen, False

    def __call__(self, event: Event) -> None:
        if event.note and not self.screen.quiet:
            self.screen._remark(event)
        if event.row and not self.screen.as_json:
            for line in _epoch_lines(event.row, headed=self.headed):
                print(line, flush=True)
            self.headed = True


class _Speed(ProgressColumn):
    """Steps a second: images, or batches in training."""

    def render(self, task: Bar) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class _Bars:
    """Listens to events: a bar for each phase, a line for each epoch."""

    def __init__(self, screen: Screen, bars: Progress) -> None:
        self.screen, self.bars, self.known, self.headed = screen, bars, {}, False
        self.starting = bars.add_task("starting", total=None)  # importing torch and fastai alone takes seconds

    def __call__(self, event: Event) -> None:
        self.bars.update(self.starting, visible=False)
        if event.note:
            self.screen._remark(event)
        if event.total:
            if event.phase not in self.known:
                self.known[event.phase] = self.bars.add_task(event.phase, total=event.total)
            self.bars.update(self.known[event.phase], completed=event.done, total=event.total, visible=event.done < event.total)
        if event.row:
            for line in _epoch_lines(event.row, headed=self.headed):
                self.bars.console.print(line)
            self.headed = True


def settings_rows() -> list[tuple[str, str, str]]:
    """Return (flag, default, meaning) of every setting, for the README's table."""
    from typing import Literal, get_args, get_origin

    from .settings import flag

    hints, rows = types(), []
    for name, field in declared().items():
        choices = " ".join(get_args(hints[name])) if get_origin(hints[name]) is Literal else ""
        typed = f"--[no-]{flag(name)[2:]}" if hints[name] is bool else flag(name)
        meaning = field.metadata["help"] + (f" One of: {choices}." if choices else "")
        rows.append((typed, _shown(field.default) or "-", meaning))
    return rows


def _closing(result: TrainResult) -> dict[str, str]:
    e, settings = result.evaluation, Settings.from_dict(result.settings)
    averages = {f"{s.name} average": f"precision {s.precision:.4f}  recall {s.recall:.4f}  F1 {s.f1:.4f}" for s in (e.macro, e.weighted)}
    figures = _figures(e)
    phases = {}
    for phase in result.phases:
        if phase.features:
            phases[f"features for the {phase.name}"] = _pass(phase.features)
        phases[phase.name] = _phase(phase)
    return {
        "accuracy": f"{figures['accuracy']} on {e.macro.support:,} {e.split} images",
        **averages,
        **{name: figures[name] for name in ("calibration error", "sure answers")},
        "strategy": f"{settings.strategy} fine-tuning of {settings.arch} at {settings.size} px on {result.device}",
        "weights": result.weights,
        **phases,
        "seconds": f"{result.seconds:.1f}",
        "run": result.folder,
    }


def _figures(e: Evaluation) -> dict[str, str]:
    """Return every figure of an evaluation that is a single number, with its bootstrap interval where it has one."""
    c = e.calibration
    numbers = {
        "accuracy": e.accuracy,
        "balanced_accuracy": e.balanced_accuracy,
        **{f"macro_{name}": getattr(e.macro, name) for name in ("precision", "recall", "f1")},
        "kappa": e.kappa,
        "mcc": e.mcc,
        "log_loss": e.log_loss,
        "brier": e.brier,
        "roc_auc": e.roc_auc,
        "average_precision": e.average_precision,
    }
    shown = {FIGURES[name]: _with_interval(value, e.intervals.get(name)) for name, value in numbers.items() if value is not None}
    promised = [f"{float(accuracy):.0%} right on {p.coverage:.0%} of the images, from {p.threshold:.2f} on" for accuracy, p in c.promises.items()]
    return {
        **shown,
        **{f"among the {k} likeliest": f"{share:.4f}" for k, share in e.top.items()},
        "calibration error": f"{c.error:.4f}, {c.error_before:.4f} before temperature {c.temperature:.3f}",
        "sure answers": "; ".join(promised) or "90% right at no confidence",
    }


def _imbalance(summary: DataSummary) -> str:
    counts = summary.counts.get("train", {})
    if not counts or not min(counts.values()):
        return ""
    most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
    return f"{most} has {counts[most] / counts[least]:.1f} times the training images of {least}"


def _arm_cells(arm: ArmScore) -> tuple[str, ...]:
    sd = "-" if arm.accuracy_sd is None else f"{arm.accuracy_sd:.4f}"
    scores = _with_interval(arm.accuracy, arm.accuracy_interval), _with_interval(arm.macro_f1, arm.macro_f1_interval)
    return (escape(arm.name), *scores, sd, f"{arm.seconds:.1f}", f"{arm.parameters:,}", f"{arm.megabytes:.1f}", f"{arm.milliseconds:.1f}")


def _difference_cells(d: ArmDifference) -> tuple[str, ...]:
    gains = [
        f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        for value, (low, high) in ((d.accuracy, d.accuracy_interval), (d.macro_f1, d.macro_f1_interval))
    ]
    return (escape(f"{d.first} - {d.second}"), *gains, f"{d.p:.2g}", f"{d.p_corrected:.2g}", "yes" if d.shown else "no")


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})" if interval else f"{value:.4f}"


def _phase(phase: Phase) -> str:
    """One line on a phase; features are counted apart from the images that they were made of."""
    source = "finder" if phase.curve else "given"
    rates = f"{phase.lr:.1e}" if phase.lr == phase.lowest_lr else f"{phase.lowest_lr:.1e} to {phase.lr:.1e}"
    kept = f"best epoch {phase.best_epoch} of {len(phase.epochs)}" if phase.best_epoch else f"no epoch of {len(phase.epochs)} beat what was there"
    what = "features" if phase.features else "images"
    amp = "" if phase.precision == "off" else f"  {phase.precision}"
    return f"rate {rates} ({source})  {kept}  {phase.images_per_second:,.0f} {what}/s{amp}  {phase.seconds:.1f} s"


def _pass(cost: Pass) -> str:
    made = f"{cost.images:,} images  {cost.images / cost.seconds:,.0f} images/s  {cost.seconds:.1f} s" if cost.images else ""
    kept = f"{cost.kept:,} images kept from an earlier run" if cost.kept else ""
    return "  ".join(filter(None, (made, kept)))


def _export_cells(export: Export) -> tuple[str, ...]:
    e = export
    sizes = (e.file, f"{e.megabytes:.1f}", f"{e.share_of_size:.1%}")
    return (*sizes, f"{e.accuracy:.4f}", f"{e.accuracy_before:.4f}", f"{e.images_per_second:,.0f}", f"{e.images_per_second_before:,.0f}", f"{e.images:,}")


def _likely(row: PredictRow, top: int | None, least: float) -> str:
    """Return a row's likeliest classes with their probabilities, or why there are none."""
    if row.prediction is None:
        return row.error
    likely = "  ".join(f"{name} {probability:.1%}" for name, probability in islice(row.prediction.probabilities.items(), top or 1))
    return f"{UNSURE} ({likely})" if label(row, least) == UNSURE else likely


def _epoch_lines(row: EpochRow, headed: bool) -> list[str]:
    """Return the line of an epoch, and before it the names of the columns if they have not been shown."""
    rows = [_epoch_cells(row)] if headed else [EPOCH_COLUMNS, _epoch_cells(row)]
    return ["  ".join(f"{cell:>10}" for cell in cells) for cells in rows]


def _epoch_cells(row: EpochRow) -> tuple[str, ...]:
    return (
        row.phase,
        str(row.epoch),
        f"{row.train_loss:.4f}",
        f"{row.valid_loss:.4f}",
        f"{row.accuracy:.4f}",
        f"{row.macro_f1:.4f}",
        f"{row.seconds:.1f}",
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "  ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _most(counts: dict[str, int], shown: int = 5) -> str:
    parts = [f"{name} ({count:,})" for name, count in list(counts.items())[:shown]]
    return ", ".join(parts) + (f" and {len(counts) - shown} more" if len(counts) > shown else "")


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
