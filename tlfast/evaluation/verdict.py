"""The sentences on a comparison: what the arms were evaluated on, and which of them differ."""

from __future__ import annotations

from collections.abc import Sequence

from .comparison import ArmDifference, ArmPredictions, ArmScore, Design


def describe_design(design: Design, predictions: ArmPredictions) -> str:
    """Return `judged_on` of a result: the folds or the split, the number of images and of seeds."""
    evaluated = sum(len(outcome.labels) for outcome in predictions.outcomes) // design.seeds
    folds = f"{design.folds} folds, each image evaluated once"
    if evaluated > len(predictions.labels):  # the valid parts of official folds
        folds = f"{design.folds} folds with common images, each image evaluated in its last fold"
    images = folds if design.folds else "the valid split"
    seeds = f", {design.seeds} seeds" if design.seeds > 1 else ""
    groups = f", {len(set(predictions.groups)):,} groups, over which the intervals and tests are" if predictions.groups else ""
    return f"{images}: {len(predictions.labels):,} images{seeds}{groups}"


def write_verdict(scores: Sequence[ArmScore], differences: Sequence[ArmDifference], baseline: str = "") -> str:
    """Return one sentence on the most accurate arm: the arms that it beats, by how much, and at what cost. With a baseline: on its differences."""
    best = max(scores, key=lambda score: score.accuracy)
    if len(scores) == 1:
        low, high = best.accuracy_interval
        return f"{best.name} is right on {best.accuracy:.1%} of {best.images:,} images (95 %: {low:.1%} to {high:.1%})."
    if baseline:
        return _describe_differences(differences, baseline, best.images)
    of_best = [d for d in differences if d.first == best.name]
    seconds = {score.name: score.seconds for score in scores}
    many = len(differences) > 1
    beaten = [f"{d.second} by {_format_points(d, many)}, in {seconds[best.name] / seconds[d.second]:.1f} times its time" for d in of_best if d.shown]
    undecided = [f"{d.second} ({_format_points(d, many)})" for d in of_best if not d.shown]
    clauses = [f"{best.name} is better than {'; than '.join(beaten)}"] if beaten else []
    if undecided:
        clauses.append(f"no difference shown between {best.name} and {' or '.join(undecided)}")
    return f"{'; '.join(clauses)}, on {best.images:,} images."


def _describe_differences(differences: Sequence[ArmDifference], baseline: str, images: int) -> str:
    """Return one sentence on the arms that differ from the baseline, and on those for which no difference is shown."""
    many = len(differences) > 1
    clauses = [f"{d.first} is better than {d.second} by {_format_points(d, many)}" for d in differences if d.shown]
    if undecided := [f"{d.second if d.first == baseline else d.first} ({_format_points(d, many)})" for d in differences if not d.shown]:
        clauses.append(f"no difference shown between {baseline} and {' or '.join(undecided)}")
    return f"{'; '.join(clauses)}, on {images:,} images."


def _format_points(d: ArmDifference, many: bool) -> str:
    """Return a difference in points, its interval and its p. Of `many` pairs the p is corrected, and the interval is not."""
    low, high = d.accuracy_interval
    p = "p < 0.001" if d.p_corrected < 0.001 else f"p = {d.p_corrected:.3f}"
    p = f"corrected {p}" if many else p
    return f"{100 * d.accuracy:.1f} points of accuracy (95 %: {100 * low:.1f} to {100 * high:.1f}; {p})"
