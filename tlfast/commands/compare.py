"""`tlfast compare`: strategies, backbones or any settings, trained and judged on the same images; what can be said of their differences."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import files, runs
from ..core.config_files import read_config
from ..core.errors import DataError, ImageError, Interrupted, UsageError
from ..core.events import Event, Note, OnEvent, Progress, ignore_event
from ..core.settings import DEPTH_ENDS, Settings
from ..data import ImageTable, images, load_table
from ..data.sources import locate
from ..data.task import Task
from ..data.types import Preprocessing, Row
from ..evaluation import plots
from ..evaluation.comparison import (
    Arm,
    ArmPredictions,
    CompareResult,
    Cost,
    Design,
    Outcome,
    build_curve,
    compare_pairs,
    describe_design,
    find_crossings,
    measure_macro_f1,
    merge_folds,
    score_arm,
    write_verdict,
)
from ..evaluation.report import REPORT_FILE, render_comparison_page
from ..export import metadata, onnx
from ..inference.onnx_model import Network, open_network
from ..models import build, weights
from ..models.pretrained import Weights
from ..models.stages import list_stages
from ..tasks.resolve import resolve_settings
from ..training import experiments
from ..training.types import EpochEnd

FOLDER = "comparisons"
KINDS = (*DEPTH_ENDS, *DEPTH_ENDS.values(), "auto")  # of arms, beside numbers of stages and TOML files
BETWEEN = 4  # depths between partial and full, that --depths compares
LATENCY_ROUNDS = 30


def build_arms(task: Task, kinds: Sequence[str], archs: Sequence[str], flags: Mapping[str, Any], config: Mapping[str, Any]) -> list[Arm]:
    """Return an arm for each kind (partial, full, a depth, or a TOML file of settings) with each backbone. Raises UsageError."""
    if "depth" in flags or "minutes" in flags:
        raise UsageError("--depth and --minutes name one training", "Name the depths to compare, such as: --arms partial,2,4,full; or use --depths")
    found = []
    for kind in kinds:
        if kind not in KINDS and not kind.isdigit() and not kind.endswith(".toml"):
            raise UsageError(f"--arms '{kind}' is neither partial, full, a depth nor a TOML file", "Such as: --arms partial,3,full or --arms partial,mine.toml")
        values = {**config, **read_config(kind)} if kind.endswith(".toml") else config
        strategy, depth = (kind, {}) if kind in DEPTH_ENDS.values() else (None, {} if kind.endswith(".toml") else {"depth": kind})
        for arch in archs or [""]:
            settings = resolve_settings(task, strategy, {**flags, **depth, **({"arch": arch} if arch else {})}, values)
            name = Path(kind).stem if kind.endswith(".toml") else settings.tuning
            found.append(Arm(f"{name} {arch}" if len(archs) > 1 else name, settings))
    return found


def list_depths(task: Task, flags: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return kinds of arms from partial to full, and up to four depths evenly between. Raises UsageError where the backbone does not say its stages."""
    settings = resolve_settings(task, None, flags, config)
    build.check_arch(settings.arch)
    count = len(list_stages(build.build_body(Weights("none", settings.arch), settings.size), settings.arch))
    between = {round(depth) for depth in np.linspace(1, count, min(count, BETWEEN))}
    return ["partial", *map(str, sorted(between)), "full"]


def compare_arms(task: Task, arms: Sequence[Arm], design: Design | None = None, on_event: OnEvent = ignore_event) -> CompareResult:
    """Train every arm on every fold, seed and share that was not trained before; compare them; write tables and pictures.

    What was trained stays in the cache, so that a comparison that was broken off goes on where it was. Raises TlfastError.
    """
    design = design or Design()
    _check_design(arms, design)
    started, listen = time.perf_counter(), _filter_events(on_event)
    first = arms[0].settings
    runs.check_writable(first.out, first.task, "")
    table = load_table(task, experiments.place_on_fold(first, design.folds, 0), locate(task, first.data))
    try:
        answers = _collect_answers(task, arms, design, table.classes, listen)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the trainings that were done are kept", "The same command goes on after them") from None
    whole = [answers[arm.name, 1.0] for arm in arms]
    if any(own.paths != whole[0].paths for own in answers.values()):
        raise UsageError("the arms were judged on different images", "Give all arms the same --data, --limit, --valid-pct and --seed")
    latencies = _measure_costs(arms, table, listen)
    f1 = [measure_macro_f1(own, len(table.classes)) for own in whole]
    scores = [score_arm(arm, own, each, latencies[arm.name]) for arm, own, each in zip(arms, whole, f1, strict=True)]
    differences = compare_pairs(arms, whole, f1)
    curve = build_curve(arms, design, answers) if len(design.shares) > 1 else []
    result = CompareResult(
        task=first.task,
        source=table.source,
        judged_on=describe_design(design, whole[0]),
        arms=scores,
        differences=differences,
        verdict=write_verdict(scores, differences),
        curve=curve,
        crossings=find_crossings(curve),
        reused=sum(outcome.reused for own in answers.values() for outcome in own.outcomes),
        seconds=time.perf_counter() - started,
    )
    return _write_comparison(result, first.out)


def _check_design(arms: Sequence[Arm], design: Design) -> None:
    names = [arm.name for arm in arms]
    if not arms:
        raise UsageError("--arms names nothing", "Such as: --arms partial,full")
    if len(set(names)) < len(names):
        raise UsageError(f"two arms are the same: {', '.join(names)}", "Name each strategy, backbone and file once")
    if len(arms) < 2 and design.folds < 2 and design.seeds < 2 and len(design.shares) < 2:
        raise UsageError(f"one arm ({names[0]}) and nothing to compare it with", "Give several --arms or --archs, or --folds, --seeds or --learning-curve")
    if any(arm.settings.fold is not None for arm in arms):
        raise UsageError("--fold names one fold", "Use --folds K to compare on all of them")


def _filter_events(on_event: OnEvent) -> OnEvent:
    """Pass on progress, and each remark once: the epochs of many trainings are no table."""
    notes: set[Event] = set()

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnd) or event in notes:
            return
        if isinstance(event, Note):
            notes.add(event)
        on_event(event)

    return listen


# Training


def _collect_answers(task: Task, arms: Sequence[Arm], design: Design, classes: Sequence[str], on_event: OnEvent) -> dict[tuple[str, float], ArmPredictions]:
    """Train all that is not trained yet; return each arm's answers by its name and share of the training part."""
    total = len(arms) * len(design.shares) * design.seeds * max(1, design.folds)
    done, found = 0, {}
    for arm in arms:
        for share in design.shares:
            outcomes = []
            for seed in range(design.seeds):
                for fold in range(max(1, design.folds)):
                    placed = experiments.place_on_fold(arm.settings, design.folds, fold)
                    on_event(Progress("comparing", done, total))
                    outcomes.append(_run_outcome(task, replace(placed, seed=arm.settings.seed + seed, train_pct=share), classes, on_event))
                    done += 1
            found[arm.name, share] = merge_folds(outcomes, design)
    on_event(Progress("comparing", total, total))
    return found


def _run_outcome(task: Task, settings: Settings, classes: Sequence[str], on_event: OnEvent) -> Outcome:
    """Return what a training with these settings answers, from an earlier time where there was one with the same settings and images."""
    trial = experiments.run_trial(task, settings, on_event)
    kept = _read_predictions(trial.predictions)
    index = {label: i for i, label in enumerate(classes)}
    labels, predicted = ({path: index[row[column]] for path, row in kept.items()} for column in ("label", "prediction"))
    return Outcome(labels, predicted, trial.seconds, trial.trained_on, trial.reused)


def _read_predictions(path: Path) -> dict[str, dict[str, str]]:
    from pyarrow import parquet

    return {row["path"]: row for row in parquet.read_table(path, columns=["path", "label", "prediction"]).to_pylist()}


# Judging


# Costs


def _measure_costs(arms: Sequence[Arm], table: ImageTable, on_event: OnEvent) -> dict[str, Cost]:
    """Return what each arm's `model.onnx` costs, timed in turns on one image; what it has learned makes no difference, so it need not be trained."""
    sample = _read_sample(table.rows)[None]
    with tempfile.TemporaryDirectory() as scratch:
        opened: dict[tuple, tuple[int, float, Network]] = {}
        shape = {arm.name: (arm.settings.arch, arm.settings.size, arm.settings.full_size, arm.settings.resize) for arm in arms}
        for number, arm in enumerate(arms):
            on_event(Progress("timing predictions", number, len(arms)))
            if shape[arm.name] not in opened:
                opened[shape[arm.name]] = _export_untrained(Path(scratch) / f"{number}.onnx", arm.settings, table.classes)
        seconds: dict[tuple, list[float]] = {key: [] for key in opened}
        for _ in range(LATENCY_ROUNDS):
            for key, (_, _, network) in opened.items():
                started = time.perf_counter()
                network.probabilities(sample)
                seconds[key].append(time.perf_counter() - started)
        costs = {key: Cost(*opened[key][:2], 1000 * statistics.median(own)) for key, own in seconds.items()}
    on_event(Progress("timing predictions", len(arms), len(arms)))
    return {name: costs[key] for name, key in shape.items()}


def _export_untrained(path: Path, settings: Settings, classes: Sequence[str]) -> tuple[int, float, Network]:
    """Return a model's number of parameters, its size in megabytes as ONNX, and the file opened."""
    model = build.build_model(settings.arch, len(classes), settings.size)
    onnx.export_onnx(path, model, Preprocessing.from_settings(settings, weights.IMAGENET_STATS), metadata.describe_model(settings, classes, "", "", ""))
    return sum(p.numel() for p in model.parameters()), path.stat().st_size / 1e6, open_network(path)


def _read_sample(rows: Sequence[Row]) -> np.ndarray:
    """Return the pixels of the first image that can be read; trainings have read most of them."""
    for row in rows:
        with suppress(ImageError):
            return np.asarray(images.open_image(row.path))
    raise DataError("no image can be read", "tlfast data check names the reasons")


# Files


def _write_comparison(result: CompareResult, out: str) -> CompareResult:
    """Write the comparison's folder, whole or not at all; return the result with its place."""
    with runs.create_run(out, f"{result.task}/{FOLDER}", time.strftime("%Y%m%d-%H%M%S"), latest=False) as (folder, published):
        names = [runs.COMPARISON, "arms.csv", "pareto.png", "seconds.png"]
        files.write_json(folder / names[0], result.to_dict())
        files.write_csv(folder / names[1], [replace(score, settings={}) for score in result.arms])
        if result.differences:
            names.append("differences.csv")
            files.write_csv(folder / names[-1], result.differences)
        plots.plot_pareto(result, folder / names[2], "milliseconds")
        plots.plot_pareto(result, folder / names[3], "seconds")
        if result.curve:
            names += ["learning_curve.csv", "learning_curve.png"]
            files.write_csv(folder / names[-2], result.curve)
            plots.plot_learning_curve(result, folder / names[-1])
        (folder / REPORT_FILE).write_text(render_comparison_page(result.to_dict()), encoding="utf-8")
        names.append(REPORT_FILE)
    return replace(result, folder=str(published[0]), files=[str(published[0] / name) for name in names])
