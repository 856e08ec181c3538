"""Output of the command line: results and tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import rich.markup
import rich.progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..core import Note, OnEvent, TlfastError
from ..core.cache import CacheEntry
from ..core.errors import make_printable
from ..inference import PredictRow, Tally
from ..inference.writers import as_dict, label_of
from . import formatting
from .progress import Bars, Lines, Speed

if TYPE_CHECKING:  # not imported at run time: `predict` must start fast
    from ..commands.archs import ArchsResult
    from ..commands.check import DataReport
    from ..commands.doctor import DoctorResult
    from ..commands.evaluate import EvaluateResult
    from ..commands.export import ExportResult
    from ..commands.interpret import InterpretResult
    from ..commands.interrupted import InterruptedTraining
    from ..commands.predict_shards import ShardsResult
    from ..commands.report import ReportResult
    from ..commands.train import DryRun, TrainResult
    from ..data import DataSummary, Task
    from ..evaluation import CompareResult, Evaluation
    from ..training import DepthPlan

LISTED = 40  # maximum number of predictions, or of unreadable images, in a table; for more predictions, the counts are shown
LISTED_CLASSES = 200  # maximum number of classes in a table
PLAIN_WIDTH = 200  # columns if the output is not a terminal


def escape(text: str) -> str:
    """Return a text that rich prints as it is, with control characters as escape sequences."""
    return rich.markup.escape(make_printable(text))


def _to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON for stdout, with other characters than ASCII only if its encoding has all of them."""
    is_unicode = codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")
    return json.dumps(value, ensure_ascii=not is_unicode, indent=indent)


class Screen:
    """Output of one command. `quiet` hides progress and notes; `as_json` prints results as JSON."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.out = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, soft_wrap=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, emoji=False)
        self.quiet, self.as_json = quiet, as_json
        self.list_begun = False  # a JSON list was printed, after which no other value can follow

    @property
    def live(self) -> bool:
        """Whether to draw progress bars: on a terminal, not quiet, and not beside JSON on the same terminal, whose lines they would wrap."""
        return self.err.is_terminal and not self.quiet and not (self.as_json and sys.stdout.isatty())

    @contextmanager
    def progress(self) -> Iterator[OnEvent]:
        """Yield a listener for events. It shows progress bars, epochs and notes."""
        if not self.live:
            yield Lines(self)
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
        # While the bars are drawn, rich prints stdout above them, to stderr: only where both are the terminal.
        with rich.progress.Progress(*columns, console=self.err, transient=True, redirect_stdout=sys.stdout.isatty()) as bars:
            yield Bars(self, bars)

    def emit(self, value: Any, draw: Any, *arguments: Any) -> None:
        """Print `value` as JSON, or call `draw(*arguments)`."""
        if self.as_json:
            print(_to_json(value, indent=1), flush=True)  # `serve` prints its address and goes on
        else:
            draw(*arguments)

    def error(self, error: TlfastError) -> None:
        """Print an error and its hint to stderr; with `as_json` then also to stdout as JSON, unless a list was begun there: that is closed."""
        self.err.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            self.err.print(f"  {escape(error.hint)}", soft_wrap=True)
        if self.as_json:
            print("]" if self.list_begun else _to_json({"error": error.message, "hint": error.hint}))

    def note(self, event: Note) -> None:
        """Print a note to stderr."""
        self.err.print(f"[yellow]{escape(event.phase)}:[/] {escape(event.note)}", soft_wrap=True)

    def depths(self, plan: Sequence[DepthPlan]) -> None:
        """Print the planned depths to stderr."""
        columns = ("", "depth", "trains", "images/s", "GB cached", "views", "epochs", "total seconds")
        self._table(columns, list(map(formatting.choice_cells, plan)), title="predicted cost of each depth", console=self.err)

    # Results

    def train_result(self, result: TrainResult) -> None:
        """Print the result of a training."""
        self.emit(result.to_dict(), self._train_result, result)

    def _train_result(self, result: TrainResult) -> None:
        self._facts(f"{result.run}", formatting.format_result(result))
        if result.data.unreadable:
            self.out.print(f"skipped unreadable images: {len(result.data.unreadable)}; they are listed in run.json")

    def plan(self, plan: DryRun) -> None:
        """Print the plan of a training (`--dry-run`)."""
        self.emit(plan.to_dict(), self._plan, plan)

    def _plan(self, plan: DryRun) -> None:
        self._facts("settings", {name: formatting.format_value(value) for name, value in plan.settings.items()})
        self._data_summary(plan.data)
        self._facts("model", formatting.format_model(plan))
        if plan.depths and self.quiet:  # else they were printed when they were planned
            self.depths(plan.depths)

    def interpret_result(self, result: InterpretResult) -> None:
        """Print the scores, most confused pairs and files of `interpret`."""
        self.emit(result.to_dict(), self._interpret_result, result)

    def _interpret_result(self, result: InterpretResult) -> None:
        self._scores(result.evaluation)
        pairs = [(p.actual, p.predicted, str(p.count), f"{p.share:.1%}") for p in result.confused]
        self._table(("actual", "predicted", "images", "share of actual"), pairs, title="most confused")
        self._files(filter(None, [*result.pictures, result.report]))

    def evaluate_result(self, result: EvaluateResult) -> None:
        """Print the metrics and files of `evaluate`."""
        self.emit(result.to_dict(), self._evaluate_result, result)

    def _evaluate_result(self, result: EvaluateResult) -> None:
        self._scores(result.evaluation)
        self._facts(result.run, formatting.format_figures(result.evaluation))
        self._files(result.files)

    def report_result(self, result: ReportResult) -> None:
        """Print the files of `report`."""
        self.emit(result.to_dict(), self._files, result.files)

    def compare_result(self, result: CompareResult) -> None:
        """Print the tables and the verdict of a comparison."""
        self.emit(result.to_dict(), self._compare_result, result)

    def _compare_result(self, result: CompareResult) -> None:
        columns = ("arm", "accuracy", "macro F1", "SD over seeds", "seconds", "parameters", "MB", "ms/image")
        self._table(columns, [formatting.arm_cells(arm) for arm in result.arms], title=f"{result.source}, {result.judged_on}")
        if result.differences:
            rows = [formatting.difference_cells(difference) for difference in result.differences]
            self._table(("difference", "points of accuracy", "points of macro F1", "p", "corrected p", "significant"), rows)
        if result.curve:
            arms, shares = list(dict.fromkeys(p.arm for p in result.curve)), list(dict.fromkeys(p.share for p in result.curve))
            cells = {(p.arm, p.share): formatting.format_interval(p.accuracy, p.interval) for p in result.curve}
            self._table(("training images", *arms), [(f"{share:.0%}", *(cells[arm, share] for arm in arms)) for share in shares])
        for crossing in result.crossings:
            self.out.print(f"{escape(crossing.better_above)} overtakes {escape(crossing.better_below)} at about {crossing.share:.0%} of the training images")
        self.out.print(f"[bold]{escape(result.verdict)}[/]", soft_wrap=True)
        reused = f", {result.reused} of the trainings from the cache" if result.reused else ""
        self.out.print(f"{escape(result.folder)} ({result.seconds:.1f} s{reused})", soft_wrap=True)

    def export_result(self, result: ExportResult) -> None:
        """Print the exports of a run."""
        self.emit(result.to_dict(), self._export_result, result)

    def _export_result(self, result: ExportResult) -> None:
        if result.exports:
            columns = ("file", "MB", "of model.onnx", "accuracy", "model.onnx", "images/s", "model.onnx", "images")
            self._table(columns, [formatting.export_cells(export) for export in result.exports])
        for each in result.portable:
            differ = f"on {each.images:,} images {each.top1:.1%} of the labels are those of the network"
            self.out.print(f"{each.format}: {escape(', '.join(each.files))} ({each.megabytes:.1f} MB; {differ})", soft_wrap=True)
        if result.bundle:
            self.out.print(f"bundle: {escape(result.bundle)}", soft_wrap=True)

    def data_report(self, report: DataReport) -> None:
        """Print the findings of `data check`."""
        self.emit(report.to_dict(), self._data_report, report)

    def _data_report(self, report: DataReport) -> None:
        self._data_summary(report.summary)
        if report.counts:
            self._table(("finding", "images"), [(kind, f"{count:,}") for kind, count in report.counts.items()])
            self.out.print(f"list: {escape(report.findings_file)}", soft_wrap=True)
            self.out.print(f"page with images: {escape(report.page)}", soft_wrap=True)
        if wrong := report.wrong_labels:
            interval = f"({wrong.low:,} to {wrong.high:,}) of {wrong.images:,}"
            self.out.print(f"estimated number of wrong labels: {wrong.estimate:,} {interval}, with images that are hard to tell apart")
        if report.table:
            dropped = ", ".join(f"{count:,} {kind}" for kind, count in report.dropped.items()) or "none"
            copies = " (of leaks, the copy in the earlier split)" if "leaks" in report.dropped else ""
            self.out.print(f"dropped images: {dropped}{copies}; train on the rest with: --data {escape(report.table)}", soft_wrap=True)

    def _data_summary(self, summary: DataSummary) -> None:
        splits = list(summary.counts)
        rows = [(label, *(f"{summary.counts[split][label]:,}" for split in splits)) for label in summary.classes]
        total = ("all", *(f"{summary.total(split):,}" for split in splits))
        self._table(("class", *splits), [*formatting.shorten_rows(rows, LISTED_CLASSES), total], title=summary.source)
        self._facts("", formatting.format_summary(summary))
        for note in summary.notes:
            self.out.print(f"note: {escape(note)}", soft_wrap=True)
        if summary.unreadable:
            self._table(("unreadable", "reason"), formatting.shorten_rows([(bad.path, bad.reason) for bad in summary.unreadable], LISTED))

    def predictions(self, rows: Iterable[PredictRow], top: int | None, min_probability: float, at_once: bool = False) -> Tally:
        """Print predictions and count them: as a JSON list, or a table. For more than 40 images, the table has the counts of the classes.

        `at_once` prints a line for each prediction as it arrives, because `--watch` has no end.
        """
        counts: Counter[str] = Counter()
        first: list[PredictRow] = []
        errors: list[PredictRow] = []
        number = failed = 0
        for number, row in enumerate(rows, start=1):
            failed += row.prediction is None
            counts.update([label_of(row, min_probability)] if row.prediction else [])
            self._prediction(row, number, top, min_probability, at_once)
            if number <= LISTED:
                first.append(row)
            if row.prediction is None and failed <= LISTED:
                errors.append(row)
        tally = Tally(dict(counts.most_common()), failed)
        if self.as_json and not at_once:
            print("]" if number else "[]")
            self.list_begun = False
        elif not at_once:
            self._predictions_table(first if number <= LISTED else errors, tally, top, min_probability)
        return tally

    def _prediction(self, row: PredictRow, number: int, top: int | None, min_probability: float, at_once: bool) -> None:
        """Print one prediction: an item of the JSON list, or a line with `at_once`."""
        if self.as_json:
            values = as_dict(row, top, min_probability)
            if at_once:
                print(_to_json(values), flush=True)
            else:
                self.list_begun = True
                print("[" if number == 1 else ",", _to_json(values, indent=1), sep="\n")
        elif at_once:
            print(make_printable(f"{row.path}  {formatting.format_top_classes(row, top, min_probability)}"), flush=True)

    def sharded(self, result: ShardsResult) -> None:
        """Print the counts of a sharded prediction."""
        self.emit(result.to_dict(), self._sharded, result)

    def _sharded(self, result: ShardsResult) -> None:
        rows = [(name, f"{count:,}", f"{count / max(1, result.images):.1%}") for name, count in result.labels.items()]
        self._table(("prediction", "images", "share"), formatting.shorten_rows(rows, LISTED_CLASSES))
        kept = f", {result.reused:,} of them by earlier commands" if result.reused else ""
        parts = f"{result.shards:,} of {result.of:,}{kept}" if result.shards else "none"
        self._facts("", {"images": f"{result.images:,}, {result.failed:,} unreadable", "parts": parts, "folder": result.folder})

    def _predictions_table(self, shown: Sequence[PredictRow], tally: Tally, top: int | None, min_probability: float) -> None:
        """Print a table of predictions; for too many, the counts of the classes and a table of the first errors."""
        total = sum(tally.labels.values()) + tally.failed
        if total > LISTED:
            counts = [(name, f"{n:,}", f"{n / total:.1%}") for name, n in tally.labels.items()]
            self._table(("prediction", "images", "share"), formatting.shorten_rows(counts, LISTED_CLASSES))
            if tally.failed:
                self.out.print(f"{tally.failed:,} images could not be read" + (f", the first {LISTED}:" if tally.failed > LISTED else ":"))
        if shown:
            texts = [formatting.format_top_classes(row, top, min_probability) for row in shown]
            cells = [(row.path, text if row.prediction else Text(make_printable(text), "red")) for row, text in zip(shown, texts, strict=True)]
            self._table(("image", "prediction"), cells)

    def tasks(self, registered: Sequence[Task]) -> None:
        """Print the registered tasks."""
        rows = [(t.name, t.title, str(len(t.classes)), str(t.defaults.get("arch", "")), t.licence) for t in registered]
        values = [{"name": t.name, "title": t.title, "classes": t.classes, "defaults": dict(t.defaults), "licence": t.licence} for t in registered]
        self.emit(values, self._table, ("task", "images", "classes", "backbone", "licence"), rows)

    def runs(self, values: list[dict[str, Any]]) -> None:
        """Print the finished runs."""
        columns = ("run", "task", "strategy", "arch", "accuracy", "macro_f1")
        rows = [tuple(f"{v[c]:.4f}" if isinstance(v[c], float) else str(v[c]) for c in columns) for v in values]
        self.emit(values, self._table, columns, rows)

    def interrupted(self, trainings: Sequence[InterruptedTraining]) -> None:
        """Print interrupted trainings."""
        rows = [(each.run, each.task, each.strategy, each.progress, f"{each.seconds / 60:.1f}", each.command) for each in trainings]
        columns = ("run", "task", "strategy", "progress", "minutes", "to resume")
        self.emit([each.to_dict() for each in trainings], self._table, columns, rows)

    def rates(self, values: dict[str, dict[str, Any]]) -> None:
        """Print the suggested learning rate and the rate of each phase."""
        rows = [(phase, f"{v['suggestion']:.2e}", f"{v['rate']:.2e}", v["picture"]) for phase, v in values.items()]
        self.emit(values, self._table, ("phase", "suggested rate", "rate of train", "curve"), rows)

    def archs(self, result: ArchsResult) -> None:
        """Print backbones."""
        self.emit(result.to_dict(), self._table, formatting.ARCH_COLUMNS, formatting.arch_rows(result))
        if not self.as_json and result.others:
            self.out.print(f"{result.others:,} other backbones: tlfast archs PATTERN, such as tlfast archs 'resnet*'")

    def doctor(self, result: DoctorResult) -> None:
        """Print the facts of `doctor`, and the measured speeds."""
        self.emit(result.to_dict(), self._doctor, result)

    def _doctor(self, result: DoctorResult) -> None:
        facts = {**result.facts, "problems": result.problems}
        self._facts("doctor", {name: formatting.format_value(value) for name, value in facts.items()})
        if result.bench:
            self._table(formatting.SPEED_COLUMNS, [formatting.speed_cells(row) for row in result.bench.speeds], title=formatting.describe_bench(result.bench))
            for reason in result.bench.reasons:
                self.out.print(f"slows this machine: {escape(reason)}", soft_wrap=True)

    def message(self, key: str, value: str) -> None:
        """Print a single result, such as a path."""
        self.emit({key: value}, lambda: self.out.print(f"{key}: {escape(value)}", soft_wrap=True))

    def cache_entries(self, entries: Sequence[CacheEntry], verb: str = "cached") -> None:
        """Print entries of the cache."""
        values = [{"kind": e.kind, "folder": str(e.folder), "bytes": e.size, "used": f"{datetime.fromtimestamp(e.used):%Y-%m-%d %H:%M}"} for e in entries]
        self.emit(values, self._cache_entries, values, verb)

    def _cache_entries(self, values: Sequence[dict[str, Any]], verb: str) -> None:
        if values:
            self._table(("kind", "MB", "used", "folder"), [(v["kind"], f"{v['bytes'] / 1e6:,.1f}", v["used"], v["folder"]) for v in values])
        self.out.print(f"{verb}: {len(values):,} entries, {sum(v['bytes'] for v in values) / 1e6:,.1f} MB")

    def facts(self, values: dict[str, Any]) -> None:
        """Print a result that is a few named values."""
        self.emit(values, self._facts, "", {name: ", ".join(value) if isinstance(value, list) else str(value) for name, value in values.items()})

    def _files(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.out.print(escape(path), soft_wrap=True)

    def _scores(self, evaluation: Evaluation) -> None:
        scores = [*evaluation.per_class, evaluation.macro, evaluation.weighted]
        *of_classes, macro, weighted = [(s.name, f"{s.precision:.3f}", f"{s.recall:.3f}", f"{s.f1:.3f}", f"{s.support:,}") for s in scores]
        rows = [*formatting.shorten_rows(of_classes, LISTED_CLASSES), macro, weighted]
        title = f"{evaluation.split} split: accuracy {evaluation.accuracy:.4f}"
        self._table(("class", "precision", "recall", "F1", "images"), rows, title=title)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], title: str = "", console: Console | None = None) -> None:
        """Print a table of plain text, or of styled cells."""
        console = console or self.out
        if title:  # not as the title of the table, which rich wraps at the width of the table
            console.print(f"[italic]{escape(title)}[/]", soft_wrap=True)
        table = Table(box=None if not console.is_terminal else _box())
        for i, column in enumerate(columns):
            numeric = bool(rows) and all(re.fullmatch(r"[\d.,%]+", str(row[i])) for row in rows)
            table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else escape(cell) for cell in row))
        console.print(table)

    def _facts(self, title: str, values: dict[str, str]) -> None:
        if title:
            self.out.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
        width = max(map(len, values), default=0)
        for name, value in values.items():
            self.out.print(f"  {name:<{width}}  {escape(value)}", soft_wrap=True)


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
