"""Statistics of a comparison: scores, paired differences, learning curves, verdict."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from ..core.metrics import compute_metrics, confusion_matrix
from ..core.settings import Settings
from . import bootstrap, significance


@dataclass(frozen=True)
class ArmScore:
    """One arm of a comparison: how good it is, with bootstrap 95 % intervals over the images, and what it costs.

    `seconds` are those of one training on all training images, the frozen backbone's pass counted even where it was kept from before;
    `megabytes` and `milliseconds` those of `model.onnx` for one image. `accuracy_sd` is the standard deviation over seeds (None: one seed).
    """

    name: str
    settings: dict[str, Any]
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_sd: float | None
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    images: int
    trainings: int
    seconds: float
    parameters: int
    megabytes: float
    milliseconds: float


@dataclass(frozen=True)
class ArmDifference:
    """How much better `first` is than `second` on the same images, with bootstrap 95 % intervals.

    `p` is McNemar's exact test's (of several seeds, of all their answers), `p_corrected` Holm's where there are several pairs. A difference is
    `shown` where the corrected p is below 0.05 and the interval of accuracy leaves 0 out.
    """

    first: str
    second: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    p: float
    p_corrected: float
    shown: bool


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of an arm that was trained on a share of the training images."""

    arm: str
    share: float
    images: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Crossing:
    """Two arms of a learning curve, of which `better_below` is ahead up to about `share` of the training images and `better_above` from there."""

    better_below: str
    better_above: str
    share: float


@dataclass(frozen=True)
class CompareResult:
    """Arms trained and judged on the same images, and what can be said of their differences."""

    task: str
    source: str
    judged_on: str
    arms: list[ArmScore]
    differences: list[ArmDifference]
    verdict: str
    curve: list[CurvePoint]
    crossings: list[Crossing]
    reused: int  # trainings found from earlier
    seconds: float
    folder: str = ""
    files: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


SIGNIFICANT = 0.05


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
class Outcome:
    """Result of one training: class indices of its valid split by path, true and predicted; and its cost.

    `seconds` is the duration of the training, `trained_on` the number of training images; `reused` marks a training found in the cache.
    """

    labels: Mapping[str, int]
    predicted: Mapping[str, int]
    seconds: float
    trained_on: int
    reused: bool


@dataclass(frozen=True)
class Answers:
    """One arm's answers for all images: class indices `[s, n]` by seed, and labels `[n]`, images in the same order for every arm."""

    predicted: np.ndarray
    labels: np.ndarray
    paths: Sequence[str]
    outcomes: Sequence[Outcome]

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels


@dataclass(frozen=True)
class MacroF1:
    """An arm's macro F1, the mean over its seeds, and what it is in bootstrap draws, the same for every arm."""

    value: float
    replicates: np.ndarray


@dataclass(frozen=True)
class Cost:
    """What a network costs, whatever it has learned: its parameters, and its `model.onnx` in megabytes and milliseconds an image."""

    parameters: int
    megabytes: float
    milliseconds: float


# Training


def gather_answers(outcomes: Sequence[Outcome], design: Design) -> Answers:
    """Put the folds of each seed together: every image was judged by the one training that had not seen it."""
    folds = max(1, design.folds)
    by_seed = [outcomes[start : start + folds] for start in range(0, len(outcomes), folds)]
    labels = {path: label for outcome in by_seed[0] for path, label in outcome.labels.items()}
    paths = sorted(labels)
    predicted = []
    for group in by_seed:
        own = {path: label for outcome in group for path, label in outcome.predicted.items()}
        predicted.append([own[path] for path in paths])
    return Answers(np.array(predicted), np.array([labels[path] for path in paths]), paths, outcomes)


# Judging


def score_arm(arm: Arm, own: Answers, f1: MacroF1, cost: Cost) -> ArmScore:
    accuracies = own.right.mean(axis=1)
    return ArmScore(
        name=arm.name,
        settings=arm.settings.to_dict(),
        accuracy=float(accuracies.mean()),
        accuracy_interval=bootstrap.mean_interval(own.right.mean(axis=0), own.labels),
        accuracy_sd=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        macro_f1=f1.value,
        macro_f1_interval=bootstrap.percentile_interval(f1.replicates),
        images=len(own.labels),
        trainings=len(own.outcomes),
        seconds=statistics.mean(outcome.seconds for outcome in own.outcomes),
        parameters=cost.parameters,
        megabytes=cost.megabytes,
        milliseconds=cost.milliseconds,
    )


def measure_macro_f1(own: Answers, classes: int) -> MacroF1:
    confusions = [confusion_matrix(own.labels, row, classes) for row in own.predicted]
    value = float(compute_metrics(np.array(confusions))["macro_f1"].mean())
    return MacroF1(value, bootstrap.bootstrap_macro_f1(own.predicted, own.labels, classes))


def compare_pairs(arms: Sequence[Arm], answers: Sequence[Answers], f1: Sequence[MacroF1]) -> list[ArmDifference]:
    """Compare all pairs of arms, the better one first."""
    pairs = [sorted(pair, key=lambda i: -answers[i].right.mean()) for pair in combinations(range(len(arms)), 2)]
    p_values = [significance.mcnemar_test(answers[i].right, answers[j].right) for i, j in pairs]
    found = []
    for (i, j), p, corrected in zip(pairs, p_values, significance.holm_correction(p_values), strict=True):
        better, worse = answers[i], answers[j]
        gain, low, high = bootstrap.paired_interval(better.right.mean(axis=0), worse.right.mean(axis=0), better.labels)
        found.append(
            ArmDifference(
                first=arms[i].name,
                second=arms[j].name,
                accuracy=gain,
                accuracy_interval=(low, high),
                macro_f1=f1[i].value - f1[j].value,
                macro_f1_interval=bootstrap.percentile_interval(f1[i].replicates - f1[j].replicates),
                p=p,
                p_corrected=corrected,
                shown=corrected < SIGNIFICANT and low > 0,
            )
        )
    return found


def write_verdict(scores: Sequence[ArmScore], differences: Sequence[ArmDifference]) -> str:
    """Say in one plain sentence what the comparison shows of the most accurate arm: what it is better than, by how much, at what price."""
    best = max(scores, key=lambda score: score.accuracy)
    if len(scores) == 1:
        low, high = best.accuracy_interval
        return f"{best.name} is right on {best.accuracy:.1%} of {best.images:,} images (95 %: {low:.1%} to {high:.1%})."
    own = [d for d in differences if d.first == best.name]
    seconds = {score.name: score.seconds for score in scores}
    shown = [f"{d.second} by {_format_points(d)}, in {seconds[best.name] / seconds[d.second]:.1f} times its time" for d in own if d.shown]
    open_ = [f"{d.second} ({_format_points(d)})" for d in own if not d.shown]
    said = [f"{best.name} is better than {'; than '.join(shown)}"] if shown else []
    if open_:
        said.append(f"no difference shown between {best.name} and {' or '.join(open_)}")
    return f"{'; '.join(said)}, on {best.images:,} images."


def _format_points(d: ArmDifference) -> str:
    low, high = d.accuracy_interval
    p = "p < 0.001" if d.p_corrected < 0.001 else f"p = {d.p_corrected:.3f}"
    return f"{100 * d.accuracy:.1f} points of accuracy (95 %: {100 * low:.1f} to {100 * high:.1f}; {p})"


def describe_design(design: Design, answers: Answers) -> str:
    parts = f"{design.folds} folds, each image judged once" if design.folds else "the valid part"
    seeds = f", {design.seeds} seeds" if design.seeds > 1 else ""
    return f"{parts}: {len(answers.labels):,} images{seeds}"


def build_curve(arms: Sequence[Arm], design: Design, answers: Mapping[tuple[str, float], Answers]) -> list[CurvePoint]:
    points = []
    for arm in arms:
        for share in design.shares:
            own = answers[arm.name, share]
            right, count = own.right.mean(axis=0), statistics.mean(outcome.trained_on for outcome in own.outcomes)
            points.append(CurvePoint(arm.name, share, count, float(right.mean()), bootstrap.mean_interval(right, own.labels)))
    return points


def find_crossings(curve: Sequence[CurvePoint]) -> list[Crossing]:
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


# Files
