"""`tlfast compare`: strategies, backbones or any settings, trained and judged on the same images; what can be said of their differences."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from . import exporting, learner, plotting, portable, reporting, trials, uncertainty
from .backbones import Weights
from .core import files, runs
from .core.config_files import read_config
from .core.errors import DataError, ImageError, Interrupted, UsageError
from .core.events import Event, OnEvent, ignore_event
from .core.settings import DEPTH_ENDS, Settings
from .data import ImageTable, images, load_table
from .data.sources import locate
from .data.task import Task
from .data.types import Row
from .inference import Network, open_network
from .outcomes import ArmDifference, ArmScore, CompareResult, Crossing, CurvePoint
from .stages import stages
from .tasks.resolve import resolve_settings

FOLDER = "comparisons"
KINDS = (*DEPTH_ENDS, *DEPTH_ENDS.values(), "auto")  # of arms, beside numbers of stages and TOML files
BETWEEN = 4  # depths between partial and full, that --depths compares
SIGNIFICANT = 0.05
LATENCY_ROUNDS = 30


@dataclass(frozen=True)
class Arm:
    """One of the things compared: a name and the settings that it is trained with."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Design:
    """On what the arms are compared: `folds` (0: the data's own valid part, or one that is drawn), seeds, and shares of the training part."""

    folds: int = 0
    seeds: int = 1
    shares: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class _Outcome:
    """What one training answers for the images of its valid part, by path, and the trial that it was."""

    labels: Mapping[str, int]
    predicted: Mapping[str, int]
    trial: trials.Trial


@dataclass(frozen=True)
class _Answers:
    """One arm's answers for all images: class indices `[s, n]` by seed, and labels `[n]`, images in the same order for every arm."""

    predicted: np.ndarray
    labels: np.ndarray
    paths: Sequence[str]
    outcomes: Sequence[_Outcome]

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels


@dataclass(frozen=True)
class _MacroF1:
    """An arm's macro F1, the mean over its seeds, and what it is in bootstrap draws, the same for every arm."""

    value: float
    replicates: np.ndarray


@dataclass(frozen=True)
class _Cost:
    """What a network costs, whatever it has learned: its parameters, and its `model.onnx` in megabytes and milliseconds an image."""

    parameters: int
    megabytes: float
    milliseconds: float


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


def all_depths(task: Task, flags: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return kinds of arms from partial to full, and up to four depths evenly between. Raises UsageError where the backbone does not say its stages."""
    settings = resolve_settings(task, None, flags, config)
    learner.check_arch(settings.arch)
    count = len(stages(learner.build_body(Weights("none", settings.arch), settings.size), settings.arch))
    between = {round(depth) for depth in np.linspace(1, count, min(count, BETWEEN))}
    return ["partial", *map(str, sorted(between)), "full"]


def compare(task: Task, arms: Sequence[Arm], design: Design = Design(), on_event: OnEvent = ignore_event) -> CompareResult:
    """Train every arm on every fold, seed and share that was not trained before; compare them; write tables and pictures.

    What was trained stays in the cache, so that a comparison that was broken off goes on where it was. Raises TlfastError.
    """
    _check(arms, design)
    started, listen = time.perf_counter(), _without_epochs(on_event)
    first = arms[0].settings
    runs.check_writable(first.out, first.task, "")
    table = load_table(task, trials.on_fold(first, design.folds, 0), locate(task, first.data))
    try:
        answers = _all_answers(task, arms, design, table.classes, listen)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the trainings that were done are kept", "The same command goes on after them") from None
    whole = [answers[arm.name, 1.0] for arm in arms]
    if any(own.paths != whole[0].paths for own in answers.values()):
        raise UsageError("the arms were judged on different images", "Give all arms the same --data, --limit, --valid-pct and --seed")
    latencies = _latencies(arms, table, listen)
    f1 = [_macro_f1(own, len(table.classes)) for own in whole]
    scores = [_score(arm, own, each, latencies[arm.name]) for arm, own, each in zip(arms, whole, f1, strict=True)]
    differences = _differences(arms, whole, f1)
    curve = _curve(arms, design, answers) if len(design.shares) > 1 else []
    result = CompareResult(
        task=first.task,
        source=table.source,
        judged_on=_judged_on(design, whole[0]),
        arms=scores,
        differences=differences,
        verdict=verdict(scores, differences),
        curve=curve,
        crossings=crossings(curve),
        reused=sum(outcome.trial.reused for own in answers.values() for outcome in own.outcomes),
        seconds=time.perf_counter() - started,
    )
    return _written(result, first.out)


def _check(arms: Sequence[Arm], design: Design) -> None:
    names = [arm.name for arm in arms]
    if not arms:
        raise UsageError("--arms names nothing", "Such as: --arms partial,full")
    if len(set(names)) < len(names):
        raise UsageError(f"two arms are the same: {', '.join(names)}", "Name each strategy, backbone and file once")
    if len(arms) < 2 and design.folds < 2 and design.seeds < 2 and len(design.shares) < 2:
        raise UsageError(f"one arm ({names[0]}) and nothing to compare it with", "Give several --arms or --archs, or --folds, --seeds or --learning-curve")
    if any(arm.settings.fold is not None for arm in arms):
        raise UsageError("--fold names one fold", "Use --folds K to compare on all of them")


def _without_epochs(on_event: OnEvent) -> OnEvent:
    """Pass on progress, and each remark once: the epochs of many trainings are no table."""
    said: set[tuple[str, str]] = set()

    def listen(event: Event) -> None:
        if event.note and (event.phase, event.note) in said:
            return
        said.add((event.phase, event.note))
        on_event(replace(event, row=None))

    return listen


# Training


def _all_answers(task: Task, arms: Sequence[Arm], design: Design, classes: Sequence[str], on_event: OnEvent) -> dict[tuple[str, float], _Answers]:
    """Train all that is not trained yet; return each arm's answers by its name and share of the training part."""
    total = len(arms) * len(design.shares) * design.seeds * max(1, design.folds)
    done, found = 0, {}
    for arm in arms:
        for share in design.shares:
            outcomes = []
            for seed in range(design.seeds):
                for fold in range(max(1, design.folds)):
                    placed = trials.on_fold(arm.settings, design.folds, fold)
                    on_event(Event("comparing", done, total))
                    outcomes.append(_outcome(task, replace(placed, seed=arm.settings.seed + seed, train_pct=share), classes, on_event))
                    done += 1
            found[arm.name, share] = _gathered(outcomes, design)
    on_event(Event("comparing", total, total))
    return found


def _outcome(task: Task, settings: Settings, classes: Sequence[str], on_event: OnEvent) -> _Outcome:
    """Return what a training with these settings answers, from an earlier time where there was one with the same settings and images."""
    trial = trials.trained(task, settings, on_event)
    kept = _read(trial.predictions)
    index = {label: i for i, label in enumerate(classes)}
    labels, predicted = ({path: index[row[column]] for path, row in kept.items()} for column in ("label", "prediction"))
    return _Outcome(labels, predicted, trial)


def _read(path: Path) -> dict[str, dict[str, str]]:
    from pyarrow import parquet

    return {row["path"]: row for row in parquet.read_table(path, columns=["path", "label", "prediction"]).to_pylist()}


def _gathered(outcomes: Sequence[_Outcome], design: Design) -> _Answers:
    """Put the folds of each seed together: every image was judged by the one training that had not seen it."""
    folds = max(1, design.folds)
    by_seed = [outcomes[start : start + folds] for start in range(0, len(outcomes), folds)]
    labels = {path: label for outcome in by_seed[0] for path, label in outcome.labels.items()}
    paths = sorted(labels)
    predicted = []
    for group in by_seed:
        own = {path: label for outcome in group for path, label in outcome.predicted.items()}
        predicted.append([own[path] for path in paths])
    return _Answers(np.array(predicted), np.array([labels[path] for path in paths]), paths, outcomes)


# Judging


def _score(arm: Arm, own: _Answers, f1: _MacroF1, cost: _Cost) -> ArmScore:
    accuracies = own.right.mean(axis=1)
    return ArmScore(
        name=arm.name,
        settings=arm.settings.to_dict(),
        accuracy=float(accuracies.mean()),
        accuracy_interval=uncertainty.mean_interval(own.right.mean(axis=0), own.labels),
        accuracy_sd=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        macro_f1=f1.value,
        macro_f1_interval=uncertainty.percentiles(f1.replicates),
        images=len(own.labels),
        trainings=len(own.outcomes),
        seconds=statistics.mean(outcome.trial.seconds for outcome in own.outcomes),
        parameters=cost.parameters,
        megabytes=cost.megabytes,
        milliseconds=cost.milliseconds,
    )


def _macro_f1(own: _Answers, classes: int) -> _MacroF1:
    confusions = [np.bincount(own.labels * classes + row, minlength=classes**2).reshape(classes, classes) for row in own.predicted]
    value = float(uncertainty.figures_of(np.array(confusions))["macro_f1"].mean())
    return _MacroF1(value, uncertainty.redrawn_macro_f1(own.predicted, own.labels, classes))


def _differences(arms: Sequence[Arm], answers: Sequence[_Answers], f1: Sequence[_MacroF1]) -> list[ArmDifference]:
    """Compare all pairs of arms, the better one first."""
    pairs = [sorted(pair, key=lambda i: -answers[i].right.mean()) for pair in combinations(range(len(arms)), 2)]
    p_values = [uncertainty.mcnemar(answers[i].right, answers[j].right) for i, j in pairs]
    found = []
    for (i, j), p, corrected in zip(pairs, p_values, uncertainty.holm(p_values), strict=True):
        better, worse = answers[i], answers[j]
        gain, low, high = uncertainty.paired_difference(better.right.mean(axis=0), worse.right.mean(axis=0), better.labels)
        found.append(
            ArmDifference(
                first=arms[i].name,
                second=arms[j].name,
                accuracy=gain,
                accuracy_interval=(low, high),
                macro_f1=f1[i].value - f1[j].value,
                macro_f1_interval=uncertainty.percentiles(f1[i].replicates - f1[j].replicates),
                p=p,
                p_corrected=corrected,
                shown=corrected < SIGNIFICANT and low > 0,
            )
        )
    return found


def verdict(scores: Sequence[ArmScore], differences: Sequence[ArmDifference]) -> str:
    """Say in one plain sentence what the comparison shows of the most accurate arm: what it is better than, by how much, at what price."""
    best = max(scores, key=lambda score: score.accuracy)
    if len(scores) == 1:
        low, high = best.accuracy_interval
        return f"{best.name} is right on {best.accuracy:.1%} of {best.images:,} images (95 %: {low:.1%} to {high:.1%})."
    own = [d for d in differences if d.first == best.name]
    seconds = {score.name: score.seconds for score in scores}
    shown = [f"{d.second} by {_points(d)}, in {seconds[best.name] / seconds[d.second]:.1f} times its time" for d in own if d.shown]
    open_ = [f"{d.second} ({_points(d)})" for d in own if not d.shown]
    said = [f"{best.name} is better than {'; than '.join(shown)}"] if shown else []
    if open_:
        said.append(f"no difference shown between {best.name} and {' or '.join(open_)}")
    return f"{'; '.join(said)}, on {best.images:,} images."


def _points(d: ArmDifference) -> str:
    low, high = d.accuracy_interval
    p = "p < 0.001" if d.p_corrected < 0.001 else f"p = {d.p_corrected:.3f}"
    return f"{100 * d.accuracy:.1f} points of accuracy (95 %: {100 * low:.1f} to {100 * high:.1f}; {p})"


def _judged_on(design: Design, answers: _Answers) -> str:
    parts = f"{design.folds} folds, each image judged once" if design.folds else "the valid part"
    seeds = f", {design.seeds} seeds" if design.seeds > 1 else ""
    return f"{parts}: {len(answers.labels):,} images{seeds}"


def _curve(arms: Sequence[Arm], design: Design, answers: Mapping[tuple[str, float], _Answers]) -> list[CurvePoint]:
    points = []
    for arm in arms:
        for share in design.shares:
            own = answers[arm.name, share]
            right, count = own.right.mean(axis=0), statistics.mean(outcome.trial.trained_on for outcome in own.outcomes)
            points.append(CurvePoint(arm.name, share, count, float(right.mean()), uncertainty.mean_interval(right, own.labels)))
    return points


def crossings(curve: Sequence[CurvePoint]) -> list[Crossing]:
    """Return where arms overtake one another, between the shares that were tried, by a straight line over the share's logarithm."""
    by_arm: dict[str, list[CurvePoint]] = {}
    for point in curve:
        by_arm.setdefault(point.arm, []).append(point)
    found = []
    for first, second in combinations(by_arm, 2):
        gaps = [(a.share, a.accuracy - b.accuracy) for a, b in zip(by_arm[first], by_arm[second], strict=True)]
        for (low, before), (high, after) in pairwise(gaps):
            if before * after < 0:
                share = float(low * (high / low) ** (before / (before - after)))
                found.append(Crossing(*((first, second) if before > 0 else (second, first)), share))
    return found


# Costs


def _latencies(arms: Sequence[Arm], table: ImageTable, on_event: OnEvent) -> dict[str, _Cost]:
    """Return what each arm's `model.onnx` costs, timed in turns on one image; what it has learned makes no difference, so it need not be trained."""
    sample = _sample(table.rows)[None]
    with tempfile.TemporaryDirectory() as scratch:
        opened: dict[tuple, tuple[int, float, Network]] = {}
        shape = {arm.name: (arm.settings.arch, arm.settings.size, arm.settings.full_size, arm.settings.resize) for arm in arms}
        for number, arm in enumerate(arms):
            on_event(Event("timing predictions", number, len(arms)))
            if shape[arm.name] not in opened:
                opened[shape[arm.name]] = _opened(Path(scratch) / f"{number}.onnx", arm.settings, table.classes)
        seconds: dict[tuple, list[float]] = {key: [] for key in opened}
        for _ in range(LATENCY_ROUNDS):
            for key, (_, _, network) in opened.items():
                started = time.perf_counter()
                network.probabilities(sample)
                seconds[key].append(time.perf_counter() - started)
        costs = {key: _Cost(*opened[key][:2], 1000 * statistics.median(own)) for key, own in seconds.items()}
    on_event(Event("timing predictions", len(arms), len(arms)))
    return {name: costs[key] for name, key in shape.items()}


def _opened(path: Path, settings: Settings, classes: Sequence[str]) -> tuple[int, float, Network]:
    """Return a model's number of parameters, its size in megabytes as ONNX, and the file opened."""
    model = learner.build_model(settings.arch, len(classes), settings.size)
    portable.save(path, model, settings, learner.IMAGENET, exporting.portrait(settings, classes, "", "", ""))
    return sum(p.numel() for p in model.parameters()), path.stat().st_size / 1e6, open_network(path)


def _sample(rows: Sequence[Row]) -> np.ndarray:
    """Return the pixels of the first image that can be read; trainings have read most of them."""
    for row in rows:
        with suppress(ImageError):
            return np.asarray(images.open_image(row.path))
    raise DataError("no image can be read", "tlfast data check names the reasons")


# Files


def _written(result: CompareResult, out: str) -> CompareResult:
    """Write the comparison's folder, whole or not at all; return the result with its place."""
    with runs.create_run(out, f"{result.task}/{FOLDER}", time.strftime("%Y%m%d-%H%M%S"), latest=False) as (folder, published):
        names = [runs.COMPARISON, "arms.csv", "pareto.png", "seconds.png"]
        files.write_json(folder / names[0], result.to_dict())
        files.write_csv(folder / names[1], [replace(score, settings={}) for score in result.arms])
        if result.differences:
            names.append("differences.csv")
            files.write_csv(folder / names[-1], result.differences)
        plotting.pareto(result, folder / names[2], "milliseconds")
        plotting.pareto(result, folder / names[3], "seconds")
        if result.curve:
            names += ["learning_curve.csv", "learning_curve.png"]
            files.write_csv(folder / names[-2], result.curve)
            plotting.learning_curve(result, folder / names[-1])
        (folder / reporting.FILE).write_text(reporting.comparison_page(result.to_dict()), encoding="utf-8")
        names.append(reporting.FILE)
    return replace(result, folder=str(published[0]), files=[str(published[0] / name) for name in names])
