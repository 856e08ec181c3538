"""Line and scatter charts as SVG for HTML pages. Colours come from the style sheet of the page, light or dark; the width adapts to the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 44  # margins around the plot area
TICKS = 5  # about the number of ticks of an axis
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        name: entry of the legend; "" for none.
        points: (x, y) in units of the axes.
        colour: index in the palette of the page.
        sizes: radius of each point in pixels, for a scatter plot; without sizes the points are joined by a line.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    sizes: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        name: label.
        low: lower limit; None for that of the data.
        high: upper limit; None for that of the data.
        logarithmic: logarithmic scale to base 10.
    """

    name: str
    low: float | None = None
    high: float | None = None
    logarithmic: bool = False


def draw_chart(title: str, series: Sequence[Series], x: Axis, y: Axis, diagonal: bool = False, mark: float | None = None) -> Markup:
    """Return a figure with title, chart and legend; `diagonal` adds the line of equality, `mark` a vertical line at that x."""
    x_scale = _fit_scale(x, [point[0] for s in series for point in s.points])
    y_scale = _fit_scale(y, [point[1] for s in series for point in s.points])
    parts = [_draw_axes(x, y, x_scale, y_scale)]
    if diagonal:
        parts.append(_draw_line([(x_scale.low, y_scale.low), (x_scale.high, y_scale.high)], x_scale, y_scale, "equal"))
    if mark is not None:
        parts.append(_draw_line([(mark, y_scale.low), (mark, y_scale.high)], x_scale, y_scale, "mark"))
    for s in series:
        parts.append(_draw_discs(s, x_scale, y_scale) if s.sizes else _draw_line(s.points, x_scale, y_scale, f"line c{s.colour}"))
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(WIDTH, HEIGHT, title, Markup("").join(parts))
    return Markup('<figure class="chart"><figcaption>{}</figcaption>{}<ul>{}</ul></figure>').format(title, svg, _draw_legend(series))


@dataclass(frozen=True)
class _Scale:
    """Mapping from the units of an axis to pixels."""

    low: float
    high: float
    logarithmic: bool

    def share(self, value: float) -> float:
        """Return the position of a value between the limits: 0 for `low`, 1 for `high`."""
        if not self.logarithmic:
            return (value - self.low) / (self.high - self.low)
        low, high = math.log10(self.low), math.log10(self.high)
        return (math.log10(max(value, self.low)) - low) / (high - low)

    def to_x(self, value: float) -> float:
        return LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)

    def to_y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        """Return powers of ten for a logarithmic scale, else multiples of 1, 2, 2.5 or 5 times a power of ten."""
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        raw = (self.high - self.low) / TICKS
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _fit_scale(axis: Axis, values: Sequence[float]) -> _Scale:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = min(finite) if axis.low is None else axis.low
    high = max(finite) if axis.high is None else axis.high
    if low == high and axis.low is None and axis.high is not None:
        low -= 1
    return _Scale(low, high if high > low else low + 1, axis.logarithmic)


def _draw_axes(x: Axis, y: Axis, x_scale: _Scale, y_scale: _Scale) -> Markup:
    """Draw ticks, horizontal grid lines and labels."""
    parts = []
    for value in y_scale.ticks():
        height = y_scale.to_y(value)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, height, height))
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 6, height + 4, f"{value:.3g}"))
    for value in x_scale.ticks():
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x_scale.to_x(value), HEIGHT - BOTTOM + 17, f"{value:.3g}"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.name))
    parts.append(Markup('<text transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(middle, y.name))
    return Markup("").join(parts)


def _draw_line(points: Sequence[Point], x_scale: _Scale, y_scale: _Scale, kind: str) -> Markup:
    """Draw a line through the points with finite y, clipped to the height of the plot area; `kind` is its CSS class."""
    pixels = [(x_scale.to_x(px), max(TOP, min(HEIGHT - BOTTOM, y_scale.to_y(py)))) for px, py in points if math.isfinite(py)]
    return Markup('<polyline class="{}" points="{}"/>').format(kind, " ".join(f"{px:.1f},{py:.1f}" for px, py in pixels))


def _draw_discs(series: Series, x_scale: _Scale, y_scale: _Scale) -> Markup:
    disc = Markup('<circle class="c{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>')
    points = zip(series.points, series.sizes, strict=True)
    return Markup("").join(disc.format(series.colour, x_scale.to_x(px), y_scale.to_y(py), size) for (px, py), size in points)


def _draw_legend(series: Sequence[Series]) -> Markup:
    """Return the entries of the legend; a chart with one named series has none."""
    named = [s for s in series if s.name]
    if len(named) < 2:
        return Markup("")
    return Markup("").join(Markup('<li><i class="c{}"></i>{}</li>').format(s.colour, s.name) for s in named)
