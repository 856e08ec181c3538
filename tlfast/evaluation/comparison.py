"""Statistics of a comparison: scores with intervals, paired differences and learning curves. The sentences on them are in `verdict`.

An arm is one of the compared configurations. Every arm is trained and evaluated on the same images.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from ..core import Settings
from ..core.metrics import Counts, macro_f1
from . import bootstrap, significance
from .transferability import RankedBackbone

ALPHA = 0.05  # level of significance

# What is compared


@dataclass(frozen=True)
class Arm:
    """One of the compared configurations.

    Attributes:
        name: unique in a comparison, such as "partial" or "depth 3 resnet50".
        settings: settings of its trainings.
        neighbours: whether the nearest neighbours in the features of the backbone predict, without training.
    """

    name: str
    settings: Settings
    neighbours: bool = False


@dataclass(frozen=True)
class Design:
    """Trainings of each arm.

    Attributes:
        folds: number of cross-validation folds; 0 evaluates on the valid split of the data, or on a drawn one.
        seeds: number of seeds.
        shares: shares of the training split, for a learning curve.
        baseline: name of the arm with which each other one is compared; "" compares all pairs.
    """

    folds: int = 0
    seeds: int = 1
    shares: tuple[float, ...] = (1.0,)
    baseline: str = ""


@dataclass(frozen=True)
class Outcome:
    """Result of one training.

    Attributes:
        labels: path of a valid image -> class index of its label.
        predicted: path of a valid image -> predicted class index.
        seconds: duration of the training.
        trained_on: number of training images.
        reused: True if the training was found in the cache.
    """

    labels: Mapping[str, int]
    predicted: Mapping[str, int]
    seconds: float
    trained_on: int
    reused: bool


@dataclass(frozen=True)
class ArmPredictions:
    """Predictions of one arm for all n images, which have the same order in every arm.

    Attributes:
        predicted: class indices `[s, n]`, one row for each seed.
        labels: class indices `[n]`.
        paths: paths of the n images.
        outcomes: the trainings, seed by seed and fold by fold.
        groups: group of each image, for intervals and tests over groups; empty without groups.
    """

    predicted: np.ndarray
    labels: np.ndarray
    paths: Sequence[str]
    outcomes: Sequence[Outcome]
    groups: Sequence[str] = ()

    @property
    def correct(self) -> np.ndarray:
        """Mask of correct predictions `[s, n]`."""
        return np.asarray(self.predicted == self.labels)


@dataclass(frozen=True)
class MacroF1:
    """Macro F1 of one arm, the mean over its seeds.

    Attributes:
        value: macro F1 on all images.
        replicates: macro F1 of bootstrap samples `[r]`, which are the same in every arm.
    """

    value: float
    replicates: np.ndarray


@dataclass(frozen=True)
class Cost:
    """Cost of inference, which does not depend on the weights.

    Attributes:
        parameters: number of parameters.
        megabytes: size of `model.onnx`.
        milliseconds: latency of `model.onnx` for one image.
    """

    parameters: int
    megabytes: float
    milliseconds: float


# Results


@dataclass(frozen=True)
class ArmScore:
    """Scores and costs of one arm. Intervals are bootstrap 95 % intervals over the images, or over their groups.

    Attributes:
        name: name of the arm.
        settings: its settings, as in `run.json`.
        accuracy: mean accuracy over the seeds.
        accuracy_interval: its interval.
        accuracy_sd: standard deviation of the accuracy over the seeds; None for one seed.
        macro_f1: mean macro F1 over the seeds.
        macro_f1_interval: its interval; None if it is the same in all bootstrap samples.
        images: number of images evaluated.
        trainings: number of trainings.
        seconds: mean duration of a training on all training images, with the forward pass of the frozen backbone also if it was cached.
        parameters: number of parameters.
        megabytes: size of `model.onnx`.
        milliseconds: latency of `model.onnx` for one image.
    """

    name: str
    settings: dict[str, Any]
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_sd: float | None
    macro_f1: float
    macro_f1_interval: tuple[float, float] | None
    images: int
    trainings: int
    seconds: float
    parameters: int
    megabytes: float
    milliseconds: float


@dataclass(frozen=True)
class ArmDifference:
    """Difference of two arms on the same images. Intervals are bootstrap 95 % intervals.

    Attributes:
        first: name of the more accurate arm.
        second: name of the other arm.
        accuracy: accuracy of `first` minus that of `second`.
        accuracy_interval: its interval.
        macro_f1: macro F1 of `first` minus that of `second`.
        macro_f1_interval: its interval; None if it is the same in all bootstrap samples.
        p: p-value of McNemar's exact test; for several seeds, or images with groups, of the paired permutation test.
        p_corrected: the same after Holm's correction for the number of pairs that are compared.
        shown: True if `p_corrected` is below 0.05 and the interval of the accuracy is above 0.
    """

    first: str
    second: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float] | None
    p: float
    p_corrected: float
    shown: bool


@dataclass(frozen=True)
class CurvePoint:
    """One point of a learning curve.

    Attributes:
        arm: name of the arm.
        share: share of the training split.
        images: mean number of training images.
        accuracy: mean accuracy over the seeds.
        interval: its bootstrap 95 % interval.
    """

    arm: str
    share: float
    images: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Crossing:
    """Crossing of the learning curves of two arms.

    Attributes:
        better_below: the more accurate arm with fewer training images.
        better_above: the more accurate arm with more training images.
        share: approximate share of the training split at the crossing.
    """

    better_below: str
    better_above: str
    share: float


@dataclass(frozen=True)
class CompareResult:
    """Result of a comparison, as in `comparison.json`.

    Attributes:
        task: name of the task.
        source: source of the images.
        judged_on: description of the evaluated images.
        arms: scores of each arm.
        differences: all pairs of arms, or those with the baseline.
        verdict: conclusion in one sentence.
        curve: points of the learning curves; empty without shares.
        crossings: crossings of the learning curves.
        reused: number of trainings found in the cache.
        seconds: duration of the comparison.
        folder: folder of the files.
        files: paths of the files written.
        ranking: backbones that were chosen from, best first; empty without `--archs auto`.
        notes: what makes the scores of an arm doubtful.
    """

    task: str
    source: str
    judged_on: str
    arms: list[ArmScore]
    differences: list[ArmDifference]
    verdict: str
    curve: list[CurvePoint]
    crossings: list[Crossing]
    reused: int
    seconds: float
    folder: str = ""
    files: list[str] = field(default_factory=list)
    ranking: list[RankedBackbone] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


# Statistics


def merge_folds(outcomes: Sequence[Outcome], design: Design) -> ArmPredictions:
    """Merge the folds of each seed, so that every image has one prediction per seed, by a training that did not include it."""
    folds = max(1, design.folds)
    by_seed = [outcomes[start : start + folds] for start in range(0, len(outcomes), folds)]
    labels = {path: label for outcome in by_seed[0] for path, label in outcome.labels.items()}
    paths = sorted(labels)
    predicted = []
    for group in by_seed:
        by_path = {path: label for outcome in group for path, label in outcome.predicted.items()}
        predicted.append([by_path[path] for path in paths])
    return ArmPredictions(np.array(predicted), np.array([labels[path] for path in paths]), paths, outcomes)


def score_arm(arm: Arm, predictions: ArmPredictions, f1: MacroF1, cost: Cost) -> ArmScore:
    """Return the scores of an arm with their intervals, and its costs."""
    accuracies = predictions.correct.mean(axis=1)
    return ArmScore(
        name=arm.name,
        settings=arm.settings.to_dict(),
        accuracy=float(predictions.correct.mean()),
        accuracy_interval=bootstrap.accuracy_interval(predictions.correct.mean(axis=0), predictions.labels, predictions.groups),
        accuracy_sd=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        macro_f1=f1.value,
        macro_f1_interval=bootstrap.find_interval(f1.replicates),
        images=len(predictions.labels),
        trainings=len(predictions.outcomes),
        seconds=statistics.mean(outcome.seconds for outcome in predictions.outcomes),
        parameters=cost.parameters,
        megabytes=cost.megabytes,
        milliseconds=cost.milliseconds,
    )


def measure_macro_f1(predictions: ArmPredictions, classes: int) -> MacroF1:
    """Return the macro F1 of an arm and its bootstrap replicates; `classes` is the number of classes."""
    value = float(macro_f1(Counts.of_classes(predictions.labels, predictions.predicted, classes)).mean())
    return MacroF1(value, bootstrap.bootstrap_macro_f1(predictions.predicted, predictions.labels, classes, groups=predictions.groups))


def compare_pairs(arms: Sequence[Arm], predictions: Sequence[ArmPredictions], f1: Sequence[MacroF1], baseline: str = "") -> list[ArmDifference]:
    """Compare all pairs of arms, or those with the arm `baseline`, the more accurate one first."""
    compared = [(i, j) for i, j in combinations(range(len(arms)), 2) if not baseline or baseline in (arms[i].name, arms[j].name)]
    pairs = [sorted(pair, key=lambda i: -predictions[i].correct.mean()) for pair in compared]
    p_values = [significance.mcnemar_test(predictions[i].correct, predictions[j].correct, predictions[i].groups) for i, j in pairs]
    differences = []
    for (i, j), p, corrected in zip(pairs, p_values, significance.holm_correction(p_values), strict=True):
        better, worse = predictions[i], predictions[j]
        gain, low, high = bootstrap.paired_interval(better.correct.mean(axis=0), worse.correct.mean(axis=0), better.labels, groups=better.groups)
        differences.append(
            ArmDifference(
                first=arms[i].name,
                second=arms[j].name,
                accuracy=gain,
                accuracy_interval=(low, high),
                macro_f1=f1[i].value - f1[j].value,
                macro_f1_interval=bootstrap.find_interval(f1[i].replicates - f1[j].replicates),
                p=p,
                p_corrected=corrected,
                shown=corrected < ALPHA and low > 0,
            )
        )
    return differences


def build_curve(arms: Sequence[Arm], design: Design, predictions: Mapping[tuple[str, float], ArmPredictions]) -> list[CurvePoint]:
    """Return the points of the learning curves; `predictions` maps (name of an arm, share) to its predictions."""
    points = []
    for arm in arms:
        for share in design.shares:
            at_share = predictions[arm.name, share]
            correct, count = at_share.correct.mean(axis=0), statistics.mean(outcome.trained_on for outcome in at_share.outcomes)
            points.append(CurvePoint(arm.name, share, count, float(correct.mean()), bootstrap.accuracy_interval(correct, at_share.labels, at_share.groups)))
    return points


def find_crossings(curve: Sequence[CurvePoint]) -> list[Crossing]:
    """Return the crossings between neighbouring shares of different accuracies, by linear interpolation over the logarithm of the share."""
    by_arm: dict[str, list[CurvePoint]] = {}
    for point in curve:
        by_arm.setdefault(point.arm, []).append(point)
    crossings = []
    for first, second in combinations(by_arm, 2):
        gaps = [(a.share, a.accuracy - b.accuracy) for a, b in zip(by_arm[first], by_arm[second], strict=True)]
        for i, j in pairwise(i for i, (_, gap) in enumerate(gaps) if gap):
            (low, before), (high, after) = gaps[i], gaps[j]
            if before * after < 0:
                # With a share of equal accuracies between them, the curves cross there.
                share = gaps[i + 1][0] if j > i + 1 else float(low * (high / low) ** (before / (before - after)))
                crossings.append(Crossing(*((first, second) if before > 0 else (second, first)), share))
    return crossings
