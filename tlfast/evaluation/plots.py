"""Figures as PNG files, in one style: colour-blind-safe palette, named axes, sizes that fit the number of classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..core.errors import make_printable
from ..core.metrics import format_threshold
from .comparison import CompareResult
from .types import Calibration, Evaluation, TopLoss

BLUE, RED = "#0072B2", "#D55E00"  # from the colour-blind-safe palette of Okabe and Ito
PALETTE = (BLUE, RED, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MATRIX_COLOURS = "Blues"  # one hue, so that the order of the values remains in greyscale
MAX_NUMBERED = 40  # classes up to which the cells of a confusion matrix show numbers
MAX_NAMED = 120  # classes up to which its axes show names, and lines are between the cells
MAX_MATRIX_INCHES = 16.0  # inches of its side
MAX_NAME_LENGTH = 28  # characters of a class name that it shows
MAX_UPRIGHT = 3  # characters of a class name up to which the names are not rotated

# Shares of the figure. Margins that matplotlib measures (layout="constrained") double the time of a figure, and these labels never change.
CALIBRATION_MARGINS = {"left": 0.065, "right": 0.985, "bottom": 0.12, "top": 0.85, "wspace": 0.17}

matplotlib.rcParams["font.size"] = 10


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, with the folders above it, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # names in scripts that the font lacks are drawn as boxes
        figure.savefig(path, dpi=130)
    return path


def to_label(text: str) -> str:
    """Return a text, such as the name of a class, as a label that shows its characters: matplotlib reads pairs of dollar signs as formulas."""
    return make_printable(text).replace("$", r"\$")


# Evaluations


def plot_confusion_matrix(evaluation: Evaluation, path: Path, title: str) -> Path:
    """Plot the confusion matrix of an evaluation as `draw_confusion_matrix` does."""
    figure = draw_confusion_matrix(np.array(evaluation.confusion), evaluation.classes, "")
    return _save_titled(figure, path, title)


def draw_confusion_matrix(counts: np.ndarray, names: Sequence[str], title: str = "") -> Figure:
    """Draw a confusion matrix `[c, c]` twice, side by side: counts, and shares of each actual class."""
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    classes = [name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…" for name in map(make_printable, names)]
    side = float(np.clip(0.55 * len(classes), 4.0, MAX_MATRIX_INCHES))
    margin = max(map(len, classes)) * 0.085  # inches for the longest name
    figure = Figure(figsize=(2 * (side + margin) + 1.2, side + margin + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, counts, classes, "images")
    _draw_matrix(right, shares, classes, "share of each actual class")
    if title:
        figure.suptitle(to_label(title))
    return figure


def _draw_matrix(axes: Axes, values: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Draw counts (integers) or shares (floats) `[c, c]` as a heat map."""
    shares = values.dtype.kind == "f"
    axes.imshow(values, cmap=MATRIX_COLOURS, vmin=0, vmax=1 if shares else None, aspect="equal")
    axes.set(title=title, xlabel="predicted", ylabel="actual")
    ticks = range(len(classes)) if len(classes) <= MAX_NAMED else range(0)
    rotation: dict[str, Any] = {} if max(map(len, classes)) <= MAX_UPRIGHT else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    labels = [to_label(classes[i]) for i in ticks]
    axes.set_xticks(ticks, labels, **rotation)
    axes.set_yticks(ticks, labels)
    if len(classes) <= MAX_NAMED:  # lines between the cells
        axes.set_xticks(np.arange(-0.5, len(classes)), minor=True)
        axes.set_yticks(np.arange(-0.5, len(classes)), minor=True)
        axes.grid(which="minor", color="white", linewidth=min(1.0, MAX_MATRIX_INCHES * 72 / len(classes) / 10))  # at most a tenth of a cell
        axes.tick_params(which="minor", length=0)
    if len(classes) <= MAX_NUMBERED:
        _write_numbers(axes, values, "{:.2f}" if shares else "{:d}", 1 if shares else values.max())


def _write_numbers(axes: Axes, values: np.ndarray, template: str, largest: float) -> None:
    """Write the value into each cell except zeros, which would hide the pattern."""
    size = float(np.clip(120 / len(values), 5, 10))
    for (i, j), value in np.ndenumerate(values):
        if value:
            weight, colour = "bold" if i == j else "normal", "white" if value > 0.55 * largest else "black"
            axes.text(j, i, template.format(value), ha="center", va="center", fontsize=size, fontweight=weight, color=colour)


def plot_top_losses(items: Sequence[TopLoss], pictures: Sequence[Image.Image], path: Path, title: str) -> Path:
    """Plot the images with the largest losses, with the class of the label and the prediction."""
    columns = min(4, len(items))
    rows = -(-len(items) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.6 * rows + 0.5), layout="constrained")
    cells = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in cells[len(items) :]:
        axes.axis("off")
    for axes, item, picture in zip(cells, items, pictures, strict=False):
        axes.imshow(np.asarray(picture), interpolation="nearest" if max(picture.size) < 100 else "antialiased")
        axes.set(xticks=[], yticks=[])
        correct = item.predicted == item.actual
        prediction = _fit_title(f"predicted {item.predicted} ({item.probability:.0%})")
        axes.set_title(prediction, color=BLUE if correct else RED, fontsize=10, fontweight="bold")
        truth = _fit_title(f"actual {item.actual} ({item.probability_of_actual:.1%})")
        axes.set_xlabel(f"{truth}\nloss {item.loss:.2f}  ·  {_shorten_path(item.path)}", fontsize=8.5)
    return _save_titled(figure, path, title)


def _fit_title(text: str) -> str:
    text = make_printable(text)
    return to_label(text if len(text) <= 34 else text[:33] + "…")


def _shorten_path(path: str) -> str:
    name = make_printable(Path(path).name)
    return to_label(name if len(name) <= 26 else "…" + name[-25:])


def plot_calibration(evaluation: Evaluation, path: Path, title: str) -> Path:
    """Plot the reliability diagram, and accuracy against coverage."""
    figure = Figure(figsize=(10.4, 4.6))
    left, right = figure.subplots(1, 2, gridspec_kw=CALIBRATION_MARGINS)
    _draw_reliability(left, evaluation.calibration)
    _draw_coverage(right, evaluation.calibration)
    return _save_titled(figure, path, title)


def _draw_reliability(axes: Axes, calibration: Calibration) -> None:
    bins = calibration.bins
    sizes = np.array([b.images for b in bins])
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect calibration")
    axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], s=15 + 300 * sizes / sizes.max(), color=BLUE, alpha=0.8, label="images")
    axes.set(xlabel="confidence (mean of a bin)", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.05))
    before = f"{calibration.error_before:.3f} before temperature {calibration.temperature:.2f}"
    if calibration.rejected:
        before = f"temperature {calibration.rejected:.2f} does not improve it"
    axes.set_title(f"calibration error {calibration.error:.3f}; {before}", fontsize=10)
    axes.legend(loc="upper left", frameon=False)
    axes.grid(alpha=0.3)


def _draw_coverage(axes: Axes, calibration: Calibration) -> None:
    axes.plot([p.coverage for p in calibration.curve], [p.accuracy for p in calibration.curve], color=BLUE)
    highest = {point.threshold: (accuracy, point) for accuracy, point in calibration.thresholds.items()}  # of accuracies with one threshold, the last
    for accuracy, point in highest.values():
        axes.plot(point.coverage, point.accuracy, "o", color=RED)
        text = f" {float(accuracy):.0%} correct from {format_threshold(point.threshold)}"
        axes.annotate(text, (point.coverage, point.accuracy), fontsize=9, ha="right" if point.coverage > 0.5 else "left", va="bottom", color=RED)
    axes.set(xlabel="coverage: share of images with an accepted prediction", ylabel="accuracy of accepted predictions", xlim=(0, 1.02))
    axes.set_title("accuracy against coverage", fontsize=10)
    axes.grid(alpha=0.3)


def _save_titled(figure: Figure, path: Path, title: str) -> Path:
    figure.suptitle(to_label(title), fontsize=13, fontweight="bold")
    return save_figure(figure, path)


# Comparisons

COSTS = {"milliseconds": "milliseconds an image (model.onnx, this machine)", "seconds": "seconds of a training (this machine)"}


def plot_pareto(result: CompareResult, path: Path, cost: str) -> Path:
    """Plot the accuracy of each arm, with its interval, against a cost, one of `COSTS`."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for arm, colour in zip(result.arms, _arm_colours(len(result.arms)), strict=True):
        (low, high), x = arm.accuracy_interval, getattr(arm, cost)
        errors = [[max(0.0, arm.accuracy - low)], [max(0.0, high - arm.accuracy)]]
        axes.errorbar(x, arm.accuracy, yerr=errors, fmt="o", capsize=4, color=colour, label=_to_legend(arm.name))
    axes.set(xlabel=COSTS[cost])
    axes.set_xlim(0, 1.15 * max(getattr(arm, cost) for arm in result.arms))
    return _save_comparison(figure, axes, result, path)


def plot_learning_curve(result: CompareResult, path: Path) -> Path:
    """Plot the accuracy of each arm, with its interval, against the number of training images; dotted lines mark the crossings."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(point.arm for point in result.curve))
    for arm, colour in zip(arms, _arm_colours(len(arms)), strict=True):
        points = [point for point in result.curve if point.arm == arm]
        images = [point.images for point in points]
        axes.plot(images, [point.accuracy for point in points], "o-", color=colour, label=_to_legend(arm))
        axes.fill_between(images, [point.interval[0] for point in points], [point.interval[1] for point in points], color=colour, alpha=0.15)
    most = max(point.images for point in result.curve)
    for crossing in result.crossings:
        axes.axvline(crossing.share * most, color="grey", linestyle=":")
    axes.set(xscale="log", xlabel="training images")
    return _save_comparison(figure, axes, result, path)


def _save_comparison(figure: Figure, axes: Axes, result: CompareResult, path: Path) -> Path:
    axes.set(ylabel="accuracy, with its 95 % interval", title=to_label(f"{result.task}: {result.judged_on}"))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, path)


def _to_legend(name: str) -> str:
    """Return the label of an arm. matplotlib leaves labels that begin with "_" out of legends."""
    return f" {to_label(name)}" if name.startswith("_") else to_label(name)


def _arm_colours(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]
