"""The leaderboard's page: tables and curves in one HTML file that needs no network."""

import io
from collections.abc import Collection, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template

from ss.leaderboard.report import FORMS, METHOD, RANKING, Table, make_tables
from ss.leaderboard.scoring import LABELS

COLOURS = ("#1f5fd0", "#d2561c", "#1d8a5a", "#8e44ad", "#b8860b", "#c2185b", "#00838f", "#5d4037", "#546e7a", "#7cb342")
BOUND = "#9a9aa2"


def make_page(results: Mapping[str, Any]) -> str:
    """The page of results as `results.json` has them, by the template `page.html`."""
    bounds, others = [label for label, entry in results["entries"].items() if entry["bound"]], cycle(COLOURS)
    ran = [label for label, entry in results["entries"].items() if not entry["failed"]]
    colours = {label: BOUND if label in bounds else next(others) for label in ran}
    on_tests: dict[str, list[dict[str, Any]]] = {label: [] for label in ran}
    for name, test in results["tests"].items():
        for label, points in on_tests.items():
            one = test["summaries"].get(label, {}).get(RANKING, {})
            if not test["quick"] and one.get("mean") is not None:
                points.append({"x": name, **{key: one[key] for key in ("mean", "low", "high")}})
    curves = ((LABELS.get(one["condition"], one["condition"]), one["entries"], one["metric"]) for one in results["curves"].values())
    charts = [chart("test", on_tests, colours, cut=False), *(chart(x, entries, colours, y) for x, entries, y in curves)]
    template = Template(Path(__file__).with_name("page.html").read_text(), autoescape=True, keep_trailing_newline=True)
    given = {"tables": make_tables(results), "bounds": bounds, "colours": colours, "charts": charts, "best_cells": best_cells}
    return template.render(about=results["about"], method=METHOD, **given)


def best_cells(table: Table, bounds: Collection[str]) -> set[tuple[int, int]]:
    """Row and column of the best SI-SDRi in each column of it, and of what reads the same; bounds aside."""
    best = set()
    for j, head in enumerate(table.head):
        found = [(float(row[j].split()[0]), i) for i, row in enumerate(table.rows) if head.endswith(RANKING) and row[j] != "-"]
        others = [(value, i) for value, i in found if table.rows[i][0] not in bounds]
        best |= {(i, j) for value, i in others if value == max(others)[0]}
    return best


def chart(
    label: str, entries: Mapping[str, list[dict[str, Any]]], colours: Mapping[str, str], metric: str = RANKING, cut: bool = True
) -> str:
    """Points of each entry over a number, joined, or over words, as SVG. cut: bounds do not say how high the picture is."""
    import matplotlib as mpl  # not wanted in the processes that are weighed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.9), layout="constrained")
    unit = FORMS.get(metric, "").partition("} ")[2]
    axes = figure.add_subplot(xlabel=label, ylabel=f"{metric} ({unit})" if unit else metric)
    axes.axhline(0, color="#55555c", lw=0.8)
    axes.grid(axis="y", color="#e4e2dc", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    words = list(dict.fromkeys(point["x"] for points in entries.values() for point in points if isinstance(point["x"], str)))
    entries = {name: [point for point in points if point["mean"] is not None] for name, points in entries.items()}
    for place, (name, points) in enumerate(entries.items()):
        shift = 0.08 * (place - (len(entries) - 1) / 2)  # beside each other over a word
        xs = [words.index(point["x"]) + shift if words else point["x"] for point in points]
        style = "none" if words else ("-", "--")[place % 2]  # of two that coincide, both are seen
        axes.plot(xs, [point["mean"] for point in points], marker="o", ms=4, ls=style, color=colours[name])
        lows, highs = (np.array([point[key] for point in points], float) for key in ("low", "high"))  # NaN: there is no interval
        axes.vlines(xs, lows, highs, color=colours[name], lw=1.2, alpha=0.5)
    if words:
        axes.set_xticks(range(len(words)), words)
        axes.set_xlim(-0.5, len(words) - 0.5)
    shown = [point for name, points in entries.items() if not cut or colours[name] != BOUND for point in points]
    if shown:
        ends = [end for point in shown for end in (point["mean"], point["low"], point["high"]) if end is not None]
        low, high = min(0.0, *ends), max(0.0, *ends)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) + 1e-9)
    out = io.StringIO()  # text stays text, and the same figure gives the same SVG
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "leaderboard", "font.family": "sans-serif", "font.size": 10}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return out.getvalue()[out.getvalue().index("<svg") :]
