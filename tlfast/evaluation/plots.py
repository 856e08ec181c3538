"""Every picture that tlfast draws, in one style: colour-blind-safe, named axes, sizes that fit the number of classes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .comparison import CompareResult
from .types import Evaluation

BLUE, RED = "#0072B2", "#D55E00"  # of the Okabe-Ito palette, told apart by all common kinds of sight
PALETTE = (BLUE, RED, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MATRIX_COLOURS = "Blues"  # one hue, light to dark: readable in grey too
NUMBERS_UP_TO = 40  # classes beyond which numbers in the cells would be too small to read
NAMES_UP_TO = 120
UPRIGHT_UP_TO = 3  # letters in a class name below which the names fit side by side

matplotlib.rcParams["font.size"] = 10


def plot_confusion_matrix(evaluation: Evaluation, path: Path, title: str) -> Path:
    """Draw the confusion matrix twice, side by side: counts, and shares of each actual class."""
    counts = np.array(evaluation.confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    classes = [textwrap.shorten(name, 28, placeholder="…") if " " in name else name[:28] for name in evaluation.classes]
    side = float(np.clip(0.55 * len(classes), 4.0, 16.0))
    names = max(map(len, classes)) * 0.085  # inches that the longest name takes
    figure = Figure(figsize=(2 * (side + names) + 1.2, side + names + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, counts, classes, "images", "{:d}")
    _draw_matrix(right, shares, classes, "share of each actual class", "{:.2f}")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return save_figure(figure, path)


def _draw_matrix(axes: Any, values: np.ndarray, classes: Sequence[str], title: str, form: str) -> None:
    axes.imshow(values, cmap=MATRIX_COLOURS, vmin=0, vmax=1 if values.dtype.kind == "f" else None, aspect="equal")
    axes.set(title=title, xlabel="predicted", ylabel="actual")
    ticks = range(len(classes)) if len(classes) <= NAMES_UP_TO else []
    slanted = {} if max(map(len, classes)) <= UPRIGHT_UP_TO else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, [classes[i] for i in ticks], **slanted)
    axes.set_yticks(ticks, [classes[i] for i in ticks])
    axes.set_xticks(np.arange(-0.5, len(classes)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(classes)), minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    if len(classes) > NUMBERS_UP_TO:
        return
    size = float(np.clip(120 / len(classes), 5, 10))
    for (i, j), value in np.ndenumerate(values):
        if value:  # an empty cell says nothing by a zero, and the pattern shows better without
            dark = value > 0.55 * (1 if values.dtype.kind == "f" else values.max())
            weight = "bold" if i == j else "normal"
            axes.text(j, i, form.format(value), ha="center", va="center", fontsize=size, fontweight=weight, color="white" if dark else "black")


def plot_top_losses(items: Sequence[dict[str, Any]], pictures: Sequence[Image.Image], path: Path, title: str) -> Path:
    """Draw the images with the largest losses, each with prediction, truth, loss and the probability given to the truth."""
    columns = min(4, len(items))
    rows = -(-len(items) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.6 * rows + 0.5), layout="constrained")
    cells = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in cells[len(items) :]:
        axes.axis("off")
    for axes, item, picture in zip(cells, items, pictures, strict=False):
        axes.imshow(np.asarray(picture), interpolation="nearest" if max(picture.size) < 100 else "antialiased")
        axes.set(xticks=[], yticks=[])
        right = item["predicted"] == item["actual"]
        says = _fit_title(f"says {item['predicted']} ({item['probability']:.0%})")
        axes.set_title(says, color=BLUE if right else RED, fontsize=10, fontweight="bold")
        truth = _fit_title(f"is {item['actual']} ({item['probability_of_actual']:.1%})")
        axes.set_xlabel(f"{truth}\nloss {item['loss']:.2f}  ·  {_shorten_path(item['path'])}", fontsize=8.5)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return save_figure(figure, path)


def _fit_title(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"


def _shorten_path(path: str) -> str:
    name = Path(path).name
    return name if len(name) <= 26 else "…" + name[-25:]


def plot_calibration(evaluation: Evaluation, path: Path, title: str) -> Path:
    """Draw the reliability diagram, and accuracy against the share of images answered."""
    found = evaluation.calibration
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as it should be")
    size = np.array([each.images for each in found.bins])
    left.scatter([b.confidence for b in found.bins], [b.accuracy for b in found.bins], s=15 + 300 * size / size.max(), color=BLUE, alpha=0.8, label="images")
    left.set(xlabel="probability of the likeliest class (mean of a bin)", ylabel="share of them that is right", xlim=(0, 1.03), ylim=(0, 1.05))
    left.set_title(f"calibration error {found.error:.3f}; {found.error_before:.3f} before temperature {found.temperature:.2f}", fontsize=10)
    left.legend(loc="upper left", frameon=False)
    right.plot([p.coverage for p in found.curve], [p.accuracy for p in found.curve], color=BLUE)
    for accuracy, point in found.promises.items():
        right.plot(point.coverage, point.accuracy, "o", color=RED)
        text = f" {float(accuracy):.0%} right above {point.threshold:.2f}"
        right.annotate(text, (point.coverage, point.accuracy), fontsize=9, ha="right" if point.coverage > 0.5 else "left", va="bottom", color=RED)
    right.set(xlabel="share of images that are answered", ylabel="share of the answers that is right", xlim=(0, 1.02))
    right.set_title("answering only when sure enough", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return save_figure(figure, path)


PRICES = {"milliseconds": "milliseconds an image (model.onnx, this machine)", "seconds": "seconds of a training (this machine)"}


def plot_pareto(result: CompareResult, path: Path, price: str) -> Path:
    """Draw each arm's accuracy, with its interval, against its price: what an image or a training takes, see PRICES."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for arm, colour in zip(result.arms, _arm_colours(len(result.arms)), strict=True):
        (low, high), at = arm.accuracy_interval, getattr(arm, price)
        axes.errorbar(at, arm.accuracy, yerr=[[arm.accuracy - low], [high - arm.accuracy]], fmt="o", capsize=4, color=colour, label=arm.name)
    axes.set(xlabel=PRICES[price], ylabel="accuracy, with its 95 % interval", title=f"{result.task}: {result.judged_on}")
    axes.set_xlim(0, 1.15 * max(getattr(arm, price) for arm in result.arms))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, path)


def plot_learning_curve(result: CompareResult, path: Path) -> Path:
    """Draw accuracy, with its interval, against the number of training images, a line an arm; where two cross is marked."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(point.arm for point in result.curve))
    for arm, colour in zip(arms, _arm_colours(len(arms)), strict=True):
        points = [point for point in result.curve if point.arm == arm]
        images = [point.images for point in points]
        axes.plot(images, [point.accuracy for point in points], "o-", color=colour, label=arm)
        axes.fill_between(images, *zip(*(point.interval for point in points), strict=True), color=colour, alpha=0.15)
    most = max(point.images for point in result.curve)
    for crossing in result.crossings:
        axes.axvline(crossing.share * most, color="grey", linestyle=":")
    axes.set(xscale="log", xlabel="training images", ylabel="accuracy, with its 95 % interval", title=f"{result.task}: {result.judged_on}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, path)


def _arm_colours(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def save_figure(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
