"""HTML page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .svg import Axis, Series, draw_chart
from .templating import PALETTE_SIZE, template_environment


def render_comparison_page(result: Mapping[str, Any]) -> str:
    """Return the page of a comparison from the content of its `comparison.json`."""
    charts = [
        _draw_costs(result["arms"], "Accuracy against latency", "milliseconds", "milliseconds an image"),
        _draw_costs(result["arms"], "Accuracy against training time", "seconds", "seconds of a training"),
    ]
    if result["curve"]:
        charts.append(_draw_learning_curves(result["curve"]))
    return template_environment().get_template("comparison.html").render({**result, "charts": charts})


def _draw_costs(arms: Sequence[Mapping[str, Any]], title: str, cost: str, label: str) -> Markup:
    points = [Series(arm["name"], [(arm[cost], arm["accuracy"])], i % PALETTE_SIZE, [7]) for i, arm in enumerate(arms)]
    return draw_chart(title, points, Axis(label, 0, 1.15 * max(arm[cost] for arm in arms)), Axis("accuracy", *_axis_limits(arms)))


def _axis_limits(arms: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    accuracies = [arm["accuracy"] for arm in arms]
    return max(0.0, min(accuracies) - 0.05), min(1.0, max(accuracies) + 0.05)


def _draw_learning_curves(curve: Sequence[Mapping[str, Any]]) -> Markup:
    lines = [
        Series(name, [(point["images"], point["accuracy"]) for point in curve if point["arm"] == name], i % PALETTE_SIZE)
        for i, name in enumerate(dict.fromkeys(point["arm"] for point in curve))
    ]
    return draw_chart("Accuracy against training images", lines, Axis("training images", logarithmic=True), Axis("accuracy"))
