"""Charts as inline SVG, drawn in the colours of the page's style sheet so that they follow its light and dark schemes."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

HALF, WHOLE = 560, 1080  # widths; a chart of half the page's width, and of all of it
HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 18, 46

Point = tuple[float, float]


class Series(NamedTuple):
    """A line of a chart. style: its CSS class; dots: whether its points are marked and tell their values."""

    name: str
    style: str
    points: list[Point]
    dots: bool = True


class Axes(NamedTuple):
    """The region of values that a chart shows, and how they map to a picture so wide."""

    width: int
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (self.width - LEFT - RIGHT) * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / (self.y1 - self.y0)


def line_chart(title: str, x_label: str, series: Sequence[Series]) -> str:
    """Lines over x with a legend; series without points are left out."""
    series = [one for one in series if one.points]
    if not series:
        return f'<p class="note">{escape(title)}: nothing was logged.</p>'
    axes = _axes_of(series)
    marks = "".join(_line(one, axes) for one in series)
    keys = "".join(f'<li class="{one.style}">{escape(one.name)}</li>' for one in series)
    return _figure(title, f'<ul class="legend">{keys}</ul>', _svg(title, axes, marks, x_label))


def bar_chart(title: str, x_label: str, bars: Sequence[tuple[str, float]], marked: dict[str, str]) -> str:
    """A bar per name, side by side; those in `marked` are set off and carry their label."""
    values = [value for _, value in bars]
    low, high = min(0.0, *values), max(0.0, *values)
    axes = Axes(WHOLE, 0, len(bars), low - 0.1 * (high - low) * (low < 0), high + 0.12 * (high - low) or 1.0)
    width = axes.x(1) - axes.x(0)
    marks = []
    for i, (name, value) in enumerate(bars):
        top, height = axes.y(max(value, 0)), abs(axes.y(value) - axes.y(0))
        style = ("up" if value >= 0 else "down") + (" marked" if name in marked else "")
        place = f'x="{axes.x(i) + width * 0.1:.1f}" y="{top:.1f}" width="{width * 0.8:.2f}" height="{max(height, 0.5):.1f}"'
        marks.append(f'<rect class="{style}" {place}><title>{escape(name)}: {decibels(value)}</title></rect>')
        if name in marked:
            label_x = min(max(axes.x(i + 0.5), LEFT + 32), WHOLE - RIGHT - 32)
            label_y = top - 6 if value >= 0 else top + height + 16
            marks.append(f'<text class="tag" x="{label_x:.1f}" y="{label_y:.1f}">{escape(marked[name])}</text>')
    return _figure(title, "", _svg(title, axes, "".join(marks), x_label, x_ticks=False))


def decibels(value: float) -> str:
    """A difference in dB to read."""
    return _minus(f"{value:+.1f} dB")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _figure(title: str, legend: str, svg: str) -> str:
    return f'<figure class="chart"><figcaption>{escape(title)}{legend}</figcaption><div class="scroll">{svg}</div></figure>'


def _axes_of(series: Sequence[Series]) -> Axes:
    """Room for every dotted point and for all but the outermost of the others."""
    xs = [x for one in series for x, _ in one.points]
    ys: list[float] = []
    for one in series:
        values = [y for _, y in one.points]
        ys += values if one.dots else np.percentile(values, (2, 98)).tolist()
    low, high = min(ys), max(ys)
    margin = 0.06 * (high - low) or 0.5
    return Axes(HALF, 0, max(xs) * 1.02 or 1.0, low - margin, high + margin)


def _line(series: Series, axes: Axes) -> str:
    places = [(axes.x(x), axes.y(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    line = f'<path class="line {series.style}" d="{path}"/>'
    if not series.dots:
        return line
    tips = [f"{series.name}: {y:.2f} at {x:.1f}" for x, y in series.points]
    dots = zip(places, tips, strict=True)
    return line + "".join(
        f'<circle class="dot {series.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(tip)}</title></circle>'
        for (x, y), tip in dots
    )


def _svg(title: str, axes: Axes, marks: str, x_label: str, x_ticks: bool = True) -> str:
    right, bottom = axes.width - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(axes.y0, axes.y1):
        y = axes.y(value)
        style = "zero" if value == 0 else "grid"
        parts.append(f'<line class="{style}" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{y + 5:.1f}">{_minus(f"{value:g}")}</text>')
    for value in ticks(axes.x0, axes.x1) if x_ticks else ():
        parts.append(f'<text class="x" x="{axes.x(value):.1f}" y="{bottom + 20}">{value:g}</text>')
    parts.append(f'<text class="x" x="{(LEFT + right) / 2}" y="{HEIGHT - 4}">{escape(x_label)}</text>')
    # A nested picture clips what leaves the axes; its viewBox keeps the coordinates.
    size = f'x="{LEFT}" y="0" width="{right - LEFT}" height="{bottom}" viewBox="{LEFT} 0 {right - LEFT} {bottom}"'
    parts.append(f"<svg {size}>{marks}</svg>")
    shape = f'class="w{axes.width}" viewBox="0 0 {axes.width} {HEIGHT}" role="img" aria-label="{escape(title)}"'
    return f"<svg {shape}>{''.join(parts)}</svg>"


def ticks(low: float, high: float) -> Iterator[float]:
    """Round values between two others, about five."""
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield round(i * step, 10)
