"""Pictures of the errors of a run: confusion matrix and largest losses. Shared by `tlfast interpret` and experiment trackers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core import RunRecord
from ..core.run_files import LOSSES_PLOT, MATRIX_PLOT, PLOTS, name_split_file
from ..core.runs import BY_HAND
from ..data import images
from ..evaluation import Evaluation, TopLoss, plots


def plot_errors(run: RunRecord, evaluation: Evaluation, top_losses: Sequence[TopLoss]) -> list[Path]:
    """Write the confusion matrix and the images with the largest losses into the folder `plots` of a run. Returns the files. Raises ImageError."""
    settings, folder, split = run.settings, run.folder / PLOTS, evaluation.split
    count = evaluation.macro.support
    training = f"fine-tuning {BY_HAND}" if run.strategy == BY_HAND else f"{run.strategy} fine-tuning"
    title = f"{settings.task}, {training} of {settings.arch}: {evaluation.accuracy:.1%} of {count:,} {split} images right"
    matrix = plots.plot_confusion_matrix(evaluation, folder / name_split_file(MATRIX_PLOT, split), title)
    pixels = [images.open_image(item.path) for item in top_losses]
    title = f"{run.id}: the {len(top_losses)} largest losses, {split} split"
    return [matrix, plots.plot_top_losses(top_losses, pixels, folder / name_split_file(LOSSES_PLOT, split), title)]
