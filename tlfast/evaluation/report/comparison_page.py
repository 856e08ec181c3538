"""HTML page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .page import COLOURS, template_environment
from .svg import Axis, Series, draw_chart

# Charts


def render_comparison_page(result: Mapping[str, Any]) -> str:
    """Return the page of a comparison, from what `CompareResult.to_dict` gives."""
    drawn = [
        _price_points(result["arms"], "Accuracy against latency", "milliseconds", "milliseconds an image"),
        _price_points(result["arms"], "Accuracy against training time", "seconds", "seconds of a training"),
    ]
    if result["curve"]:
        lines = [
            Series(name, [(point["images"], point["accuracy"]) for point in result["curve"] if point["arm"] == name], i % COLOURS)
            for i, name in enumerate(dict.fromkeys(point["arm"] for point in result["curve"]))
        ]
        drawn.append(draw_chart("Accuracy against training images", lines, Axis("training images", logarithmic=True), Axis("accuracy")))
    return template_environment().get_template("comparison.html").render({**result, "charts": drawn})


def _price_points(arms: Sequence[Mapping[str, Any]], title: str, price: str, said: str) -> str:
    points = [Series(arm["name"], [(arm[price], arm["accuracy"])], i % COLOURS, [7]) for i, arm in enumerate(arms)]
    return draw_chart(title, points, Axis(said, 0, 1.15 * max(arm[price] for arm in arms)), Axis("accuracy", *_axis_around(arms)))


def _axis_around(arms: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    values = [arm["accuracy"] for arm in arms]
    return max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05)


# How to repeat it
