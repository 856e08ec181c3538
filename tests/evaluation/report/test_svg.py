"""Charts."""

from __future__ import annotations

import re

from tlfast.evaluation.report.svg import Axis, Series, draw_chart


def test_the_axis_of_equal_values_stays_below_its_upper_end():
    chart = str(draw_chart("", [Series("", [(0.1, 1.0), (1.0, 1.0)])], Axis("x", 0, 1), Axis("accuracy", None, 1)))
    assert 'text-anchor="end">1</text>' in chart and 'text-anchor="end">1.2</text>' not in chart and 'text-anchor="end">0.8</text>' in chart


def test_charts_are_drawn_where_the_points_are():
    drawn = draw_chart("t<", [Series("a<", [(0, 0), (10, 1)])], Axis("x<"), Axis("y"), mark=5)
    assert "t&lt;" in drawn and "x&lt;" in drawn and "<polyline" in drawn
    (line,) = re.findall(r'class="line c0" points="([^"]*)"', drawn)
    assert line == "56.0,256.0 466.0,12.0"
    assert re.findall(r'class="mark" points="([^"]*)"', drawn) == ["261.0,256.0 261.0,12.0"]
    logarithmic = draw_chart("t", [Series("", [(1e-4, 1), (1e-2, 2), (1, 3)])], Axis("rate", logarithmic=True), Axis("y"))
    assert re.findall(r'class="line c0" points="([^"]*)"', logarithmic) == ["56.0,256.0 261.0,134.0 466.0,12.0"]
    assert draw_chart("flat", [Series("", [(1, 1), (2, 1)])], Axis("x"), Axis("y"))  # no division by nothing
