"""Real-time factor against latency as a picture."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

MARKERS = {"torch": "o", "onnxruntime": "D"}
APART = 0.035  # of the height of the axes: between labels


class Point(NamedTuple):
    """A model on a runtime. latency_ms: its algorithmic latency; real_time_factor: time that it needs over time that passes."""

    name: str
    runtime: str
    latency_ms: float
    real_time_factor: float


def scatter(points: Sequence[Point], path: str | Path) -> None:
    """Draws the points on logarithmic axes, each with its name, and writes a PNG."""
    from matplotlib.figure import Figure  # not wanted in the processes that are weighed

    figure = Figure(figsize=(9, 6.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="algorithmic latency (ms)", ylabel="real-time factor")
    for runtime, marker in MARKERS.items():
        some = [point for point in points if point.runtime == runtime]
        axes.scatter([p.latency_ms for p in some], [p.real_time_factor for p in some], marker=marker, label=runtime, zorder=3)
    low, high = (limit(p.real_time_factor for p in points) for limit in (min, max))
    bottom, top = math.log10(low) - 0.3, math.log10(high) + 0.5
    axes.set_ylim(10**bottom, 10**top)
    axes.set_xlim(min(p.latency_ms for p in points) / 2, 6 * max(p.latency_ms for p in points))
    ranked = sorted(points, key=lambda p: (p.latency_ms, p.real_time_factor))
    for _, group in groupby(ranked, key=lambda p: p.latency_ms):
        column = list(group)
        heights = apart([(math.log10(p.real_time_factor) - bottom) / (top - bottom) for p in column], APART)
        for point, height in zip(column, heights, strict=True):
            axes.annotate(
                point.name,
                (point.latency_ms, point.real_time_factor),
                (1.3 * point.latency_ms, 10 ** (bottom + height * (top - bottom))),
                fontsize=8,
                va="center",
                arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "color": "0.7", "lw": 0.6},
            )
    axes.axhline(1, color="0.5", lw=0.8, ls="--")
    axes.grid(which="both", color="0.9", lw=0.5)
    axes.legend()
    figure.savefig(path)


def apart(heights: list[float], distance: float) -> list[float]:
    """Rising heights moved so that neighbours are at least so far apart: those too close become a group around their middle."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _spread(groups[-2], distance)[-1] + distance > _spread(groups[-1], distance)[0]:
            last = groups.pop()
            groups[-1] += last
    return [height for group in groups for height in _spread(group, distance)]


def _spread(group: list[float], distance: float) -> list[float]:
    lowest = sum(group) / len(group) - distance * (len(group) - 1) / 2
    return [lowest + distance * i for i in range(len(group))]
