"""Small charts as SVG for the report: they take the page's own colours, light or dark, and any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 44
TICKS = 5
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one colour (its number in the palette), joined by a line or each a disc of a size in pixels."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    sizes: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """What runs along an edge: its name, and its ends where they are not those of the data."""

    name: str
    low: float | None = None
    high: float | None = None
    logarithmic: bool = False


def draw_chart(title: str, series: Sequence[Series], x: Axis, y: Axis, diagonal: bool = False, mark: float | None = None) -> Markup:
    """Draw series on two axes; `diagonal` adds the line of equality, `mark` an upright line there."""
    across, up = _draw_scale(x, [p[0] for each in series for p in each.points]), _draw_scale(y, [p[1] for each in series for p in each.points])
    parts = [_draw_frame(x, y, across, up)]
    if diagonal:
        parts.append(_draw_line([(across.low, up.low), (across.high, up.high)], across, up, "equal"))
    if mark is not None:
        parts.append(_draw_line([(mark, up.low), (mark, up.high)], across, up, "mark"))
    for each in series:
        if each.sizes:
            parts += [
                Markup('<circle class="c{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(each.colour, across.at_x(p[0]), up.at_y(p[1]), size)
                for p, size in zip(each.points, each.sizes, strict=True)
            ]
        else:
            parts.append(_draw_line(each.points, across, up, f"line c{each.colour}"))
    named = [each for each in series if each.name]
    legend = Markup("").join(Markup('<li><i class="c{}"></i>{}</li>').format(each.colour, each.name) for each in named) if len(named) > 1 else Markup("")
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(WIDTH, HEIGHT, title, Markup("").join(parts))
    return Markup('<figure class="chart"><figcaption>{}</figcaption>{}<ul>{}</ul></figure>').format(title, svg, legend)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    logarithmic: bool

    def share(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, max(value, self.low) if self.logarithmic else value))
        return (value - low) / (high - low)

    def at_x(self, value: float) -> float:
        return LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        raw = (self.high - self.low) / TICKS
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _draw_scale(axis: Axis, values: Sequence[float]) -> _Scale:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = min(finite) if axis.low is None else axis.low
    high = max(finite) if axis.high is None else axis.high
    return _Scale(low, high if high > low else low + 1, axis.logarithmic)


def _draw_frame(x: Axis, y: Axis, across: _Scale, up: _Scale) -> Markup:
    parts = []
    for value in up.ticks():
        at = up.at_y(value)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, at, at))
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 6, at + 4, f"{value:.3g}"))
    for value in across.ticks():
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(across.at_x(value), HEIGHT - BOTTOM + 17, f"{value:.3g}"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.name))
    parts.append(Markup('<text transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(middle, y.name))
    return Markup("").join(parts)


def _draw_line(points: Sequence[Point], across: _Scale, up: _Scale, kind: str) -> Markup:
    inside = [(across.at_x(px), max(TOP, min(HEIGHT - BOTTOM, up.at_y(py)))) for px, py in points if math.isfinite(py)]
    return Markup('<polyline class="{}" points="{}"/>').format(kind, " ".join(f"{px:.1f},{py:.1f}" for px, py in inside))
