"""From scores to what is read: means with intervals, curves over conditions, tables in Markdown, and a page in one file."""

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ss.leaderboard.conditions import LABELS
from ss.leaderboard.scoring import Score
from ss.metric import COLUMNS, Row, applies, summarize

RANKING = "SI-SDRi"
RESAMPLINGS = 2000
FEWEST = 8  # values that an interval is given for
COLOURS = ("#1f5fd0", "#d2561c", "#1d8a5a", "#8e44ad", "#b8860b", "#c2185b", "#00838f", "#5d4037", "#546e7a", "#7cb342")
BOUND = "#9a9aa2"
METHOD = (
    "SI-SDRi: improvement of the scale-invariant SDR over the mixture, in dB; in brackets the 95 % interval of the mean by "
    f"bootstrap over utterances ({RESAMPLINGS} resamplings; a speaker is in several of them, so the truth is wider). Below 0: part of "
    "the mixtures that get worse. PESQ (wide band) and STOI: means. Absent: energy of the output over that of the mixture where the "
    "enrolled speaker is silent, median, -100 dB at least. Clean drop: STOI lost where the target is alone, mean. Latency: by "
    "perturbation of a live stream's input, and by when its samples come out. RTF: median time of a chunk of 10 ms (a model's own "
    "segments, if it has them) over its length, in one thread. Memory: peak of a process that does nothing else, above an idle "
    "interpreter; torch is part of it for checkpoints. A value that could not be computed is missing (-), never 0; why is said below "
    "its table."
)


class Interval(NamedTuple):
    """A mean, and the bounds of its 95 % interval: None for too few values."""

    mean: float
    low: float | None
    high: float | None
    count: int


class Table(NamedTuple):
    """Cells to read; notes: lines below."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def interval(values: Sequence[float]) -> Interval:
    """Of one or more values; the same for the same values in the same order."""
    array = np.array(values)
    if len(array) < FEWEST:
        return Interval(float(array.mean()), None, None, len(array))
    draws = np.random.default_rng(0).integers(len(array), size=(RESAMPLINGS, len(array)))
    low, high = np.percentile(array[draws].mean(1), (2.5, 97.5)).tolist()
    return Interval(float(array.mean()), low, high, len(array))


def summarize_scores(scores: Sequence[Score]) -> dict[str, Any]:
    """Mean, median, counts and reasons of every metric; of SI-SDRi also the interval and the share below 0 dB."""
    summary: dict[str, Any] = {name: dict(one) for name, one in summarize([score.row for score in scores])["metrics"].items()}
    values = values_of(RANKING, (score.row for score in scores))
    if values:
        found = interval(values)
        below = sum(value < 0 for value in values) / len(values)
        summary[RANKING] |= {"low": found.low, "high": found.high, "below_0": below}
    return summary


def values_of(metric: str, rows: Iterable[Row]) -> list[float]:
    """The values of a metric that there are."""
    return [row.values[metric] for row in rows if metric in row.values]


def curve(condition: str, edges: Sequence[float] | None, known: Sequence[tuple[Mapping[str, Any], Row]]) -> list[dict[str, Any]]:
    """SI-SDRi over a condition: one point for each range between two edges, or for each value where there are no edges.

    known: conditions and metrics of each utterance. A point is {x, mean, low, high, count}; x: the mean of the values in a range.
    """
    found = [(about[condition], row.values[RANKING]) for about, row in known if condition in about and RANKING in row.values]
    if edges is None:
        groups: list[Any] = [[pair for pair in found if pair[0] == value] for value in sorted({value for value, _ in found})]
    else:
        groups = [[pair for pair in found if low <= pair[0] < high] for low, high in pairwise(edges)]
    points = []
    for group in groups:
        if group:
            xs = [x for x, _ in group]
            x = xs[0] if isinstance(xs[0], str) else math.fsum(xs) / len(xs)
            points.append({"x": x, **interval([y for _, y in group])._asdict()})
    return points


def make_tables(results: Mapping[str, Any]) -> list[Table]:
    """The headline, and a table for each test and each curve. results: as `results.json` has them."""
    return [
        headline(results),
        costs(results),
        *(of_test(results, name) for name in results["tests"] if not results["tests"][name]["quick"]),
    ] + [of_curve(condition, one) for condition, one in results["curves"].items()]


def headline(results: Mapping[str, Any]) -> Table:
    """One line per entry."""
    tests, entries = results["tests"], results["entries"]
    speaks = [
        name
        for name in tests
        if not tests[name]["quick"] and any(RANKING in one and one[RANKING]["count"] for one in tests[name]["summaries"].values())
    ]
    absent, clean = (find_test(results, metric) for metric in ("absent-dB", "STOI-drop"))
    speaks = [name for name in speaks if name != clean]
    head = ["", *(f"{name}: SI-SDRi" for name in speaks), *(f"{name}: below 0" for name in speaks)]
    head += ["absent"] * bool(absent) + ["clean drop"] * bool(clean) + ["latency", "RTF", "size"]
    rows = []
    for label, entry in entries.items():
        if entry["failed"]:
            continue
        cells = [label]
        for shown in (decibels_with_interval, below_0):
            cells += [shown(tests[name]["summaries"][label].get(RANKING, {})) for name in speaks]
        if absent:
            cells.append(number(tests[absent]["summaries"][label].get("absent-dB", {}).get("median"), "{:.1f} dB"))
        if clean:
            cells.append(number(tests[clean]["summaries"][label].get("STOI-drop", {}).get("mean"), "{:.3f}"))
        cells += [latency(entry), number(entry["costs"].get("real_time_factor"), "{:.3f}"), mebibytes(entry, "model_bytes")]
        rows.append(cells)
    notes = [f"{label} did not run: {entry['failed']}" for label, entry in entries.items() if entry["failed"]]
    return Table("", head, rows, notes)


def find_test(results: Mapping[str, Any], metric: str) -> str | None:
    """The first test that has values of a metric."""
    return next(
        (
            name
            for name, test in results["tests"].items()
            if any(one.get(metric, {}).get("count") for one in test["summaries"].values())
        ),
        None,
    )


def costs(results: Mapping[str, Any]) -> Table:
    """What each entry costs live."""
    head = ["", "runs in", "latency", "chunk", "RTF", "median, p99 of a chunk", "peak memory", "size"]
    rows = []
    for label, entry in results["entries"].items():
        if found := entry["costs"]:
            times = f"{found['p50_ms']:.2f}, {found['p99_ms']:.2f} ms"
            rows.append(
                [label, entry["about"], latency(entry), f"{found['chunk_ms']:g} ms", f"{found['real_time_factor']:.3f}", times]
                + [mebibytes(entry, "peak_bytes"), mebibytes(entry, "model_bytes")]
            )
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    return Table("What it costs live", head, rows, [machine])


def of_test(results: Mapping[str, Any], name: str) -> Table:
    """All metrics of all entries on a test."""
    test = results["tests"][name]
    metrics = {
        metric for one in test["summaries"].values() for metric, average in one.items() if applies(average) and metric != "SI-SDR"
    }
    columns = sorted(metrics, key=lambda metric: (COLUMNS.index(metric) if metric in COLUMNS else len(COLUMNS), metric))
    head, notes = [""], Counter[str]()
    for column in columns:
        head += ["SI-SDRi", "median", "below 0"] if column == RANKING else [column + (" (median)" if column == "absent-dB" else "")]
    rows = []
    for label, summary in test["summaries"].items():
        cells = [label]
        for column in columns:
            one = summary.get(column, {})
            if column == RANKING:
                cells += [decibels_with_interval(one), number(one.get("median"), "{:.2f} dB"), below_0(one)]
            else:
                cells.append(
                    number(one.get("median" if column == "absent-dB" else "mean"), "{:.1f} dB" if "dB" in column else "{:.3f}")
                )
            for reason, count in one.get("reasons", {}).items():
                notes[f"{column} of {label} is missing for {count}: {reason}"] += 1
        rows.append(cells)
    return Table(f"{name}: {test['utterances']} utterances, {test['seconds'] / 60:.1f} minutes", head, rows, list(notes))


def of_curve(condition: str, one: Mapping[str, Any]) -> Table:
    """A curve as numbers."""
    longest = max(one["entries"].values(), key=len, default=[])
    head = [
        "",
        *(
            f"{point['x']} ({point['count']})" if isinstance(point["x"], str) else f"{point['x']:.3g} ({point['count']})"
            for point in longest
        ),
    ]
    rows = [[label, *(number(point["mean"], "{:.2f}") for point in points)] for label, points in one["entries"].items()]
    return Table(
        f"SI-SDRi (dB) by {LABELS.get(condition, condition)}; in brackets utterances, of {', '.join(one['tests'])}", head, rows, []
    )


def number(value: float | None, form: str) -> str:
    """A value to read, or - where there is none."""
    return "-" if value is None else form.format(value)


def decibels_with_interval(one: Mapping[str, Any]) -> str:
    """A mean in dB, with its interval."""
    if one.get("mean") is None:
        return "-"
    bounds = "" if one.get("low") is None else f" ({one['low']:.1f} to {one['high']:.1f})"
    return f"{one['mean']:.2f} dB{bounds}"


def below_0(one: Mapping[str, Any]) -> str:
    """The share of mixtures that get worse."""
    return number(None if one.get("below_0") is None else 100 * one["below_0"], "{:.0f} %")


def latency(entry: Mapping[str, Any]) -> str:
    """What a listener waits for."""
    if not entry["costs"]:
        return "-"
    return number(entry["costs"]["latency_ms"], "{:g} ms") if entry["costs"]["latency_ms"] is not None else "the utterance"


def mebibytes(entry: Mapping[str, Any], key: str) -> str:
    """A size to read."""
    found = entry["costs"].get(key)
    return number(None if found is None else found / 2**20, "{:.1f} MiB")


def markdown(tables: Iterable[Table]) -> str:
    """Tables for a document; notes are lists."""
    parts = []
    for table in tables:
        lines = [f"### {table.title}", ""] if table.title else []
        lines += [f"| {' | '.join(cells)} |" for cells in (table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows)]
        lines += ["", *(f"- {note}" for note in table.notes)] if table.notes else []
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, METHOD]) + "\n"


def page(results: Mapping[str, Any]) -> str:
    """The page: everything in one HTML file that needs no network."""
    tables = make_tables(results)
    colours = colours_of(results)
    keys = "".join(f'<li style="--key: {colour}">{escape(label)}</li>' for label, colour in colours.items())
    charts = [bars(results, colours), *(chart(condition, one, colours) for condition, one in results["curves"].items())]
    shown = "".join(f"<figure>{one}</figure>" for one in charts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leaderboard</title><style>{STYLE}</style></head><body><main>
<h1>Target speaker extraction: leaderboard</h1>
<p>{escape(results["about"])}</p>
{html(tables[0])}
<h2>Curves</h2><p>Mean SI-SDRi in dB; lines at the points: 95 % interval of the mean.</p>
<ul class="keys">{keys}</ul><div class="charts">{shown}</div>
<h2>All numbers</h2>{"".join(html(table) for table in tables[1:])}
<h2>How it is measured</h2><p>{escape(METHOD)}</p>
</main></body></html>
"""


def html(table: Table) -> str:
    """A table that scrolls by itself where it is too wide."""
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    best = best_cells(table)
    body = "".join(
        "<tr>"
        + f"<th>{escape(row[0])}</th>"
        + "".join(
            f"<td>{f'<b>{cell}</b>' if (i, j) in best else cell}</td>" for j, cell in enumerate(map(split_interval, row[1:]), 1)
        )
        + "</tr>"
        for i, row in enumerate(table.rows)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return f'{title}<div class="scroll"><table><tr>{head}</tr>{body}</table></div>' + (
        f'<ul class="notes">{notes}</ul>' if notes else ""
    )


def split_interval(cell: str) -> str:
    """The interval of a cell below its mean."""
    mean, found, bounds = escape(cell).partition(" (")
    return f"{mean}<small>{bounds[:-1]}</small>" if found else mean


def best_cells(table: Table) -> set[tuple[int, int]]:
    """Nothing is set off yet in tables without SI-SDRi; else the best of those that are no bound."""
    best = set()
    for j, head in enumerate(table.head):
        if head.endswith(RANKING):
            ranked = [
                (float(row[j].split()[0]), i)
                for i, row in enumerate(table.rows)
                if row[j] != "-" and not row[0].startswith("oracle")
            ]
            if ranked:
                best.add((max(ranked)[1], j))
    return best


def colours_of(results: Mapping[str, Any]) -> dict[str, str]:
    """A colour per entry that ran; bounds are grey."""
    ran = [(label, entry) for label, entry in results["entries"].items() if not entry["failed"]]
    others = iter(COLOURS * len(ran))
    return {label: BOUND if entry["bound"] else next(others) for label, entry in ran}


def chart(condition: str, one: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """A curve as SVG."""
    words = any(isinstance(point["x"], str) for points in one["entries"].values() for point in points)
    figure, axes = canvas(LABELS.get(condition, condition))
    names = sorted({point["x"] for points in one["entries"].values() for point in points}) if words else []
    for place, (label, points) in enumerate(one["entries"].items()):
        shift = 0.06 * (place - len(one["entries"]) / 2) if words else 0.0
        xs = [names.index(point["x"]) + shift if words else point["x"] for point in points]
        ys, known = [point["mean"] for point in points], [i for i, point in enumerate(points) if point["low"] is not None]
        errors = [[ys[i] - points[i]["low"] for i in known], [points[i]["high"] - ys[i] for i in known]]
        style = {"color": colours[label], "lw": 1.0 if colours[label] == BOUND else 1.8}
        axes.plot(xs, ys, marker="o", ms=4, ls="none" if words else "-", **style)
        axes.errorbar(
            [xs[i] for i in known], [ys[i] for i in known], errors, fmt="none", ecolor=colours[label], elinewidth=1, alpha=0.45
        )
    if words:
        axes.set_xticks(range(len(names)), names)
    return svg(figure)


def bars(results: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """SI-SDRi of every entry on every test that is tabulated, as SVG."""
    figure, axes = canvas("test")
    names = [
        name
        for name, test in results["tests"].items()
        if not test["quick"] and any(one.get(RANKING, {}).get("low") is not None for one in test["summaries"].values())
    ]
    for place, label in enumerate(colours):
        for i, name in enumerate(names):
            one = results["tests"][name]["summaries"].get(label, {}).get(RANKING, {})
            if one.get("low") is not None:
                x = i + 0.08 * (place - (len(colours) - 1) / 2)
                axes.plot([x, x], [one["low"], one["high"]], color=colours[label], lw=1.5, alpha=0.6)
                axes.plot([x], [one["mean"]], marker="o", ms=4.5, color=colours[label])
    axes.set_xticks(range(len(names)), names)
    return svg(figure)


def canvas(x_label: str) -> tuple[Any, Any]:
    """A figure with axes in the page's style."""
    from matplotlib.figure import Figure  # not wanted in the processes that are weighed

    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel="SI-SDRi (dB)")
    axes.axhline(0, color="#55555c", lw=0.8)
    axes.grid(axis="y", color="#e4e2dc", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Any) -> str:
    """A figure as an SVG element whose text stays text; the same for the same figure."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "leaderboard", "font.family": "sans-serif", "font.size": 10}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return out.getvalue()[out.getvalue().index("<svg") :]


STYLE = """
:root { --page: #f7f6f3; --card: #fff; --ink: #1b1b1f; --soft: #66666e; --rule: #e4e2dc; --accent: #1f5fd0; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 12px; }
h2 { font-size: 1.3rem; margin: 48px 0 8px; } h3 { font-size: 1rem; margin: 28px 0 8px; }
p { max-width: 75ch; color: var(--soft); margin: 0 0 16px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 12px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
tr:first-child > * { border-top: 0; color: var(--soft); font-weight: 500; vertical-align: bottom; white-space: normal; }
th:first-child { text-align: left; font-weight: 600; position: sticky; left: 0; background: var(--card); white-space: normal; min-width: 8rem; }
td b { color: var(--accent); } td small { display: block; color: var(--soft); font-size: 0.85em; }
.notes { color: var(--soft); font-size: 0.85rem; padding-left: 20px; }
.keys { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 0 0 14px; font-size: 0.9rem; }
.keys li::before { content: ""; display: inline-block; width: 12px; height: 12px; border-radius: 50%; background: var(--key); margin-right: 6px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
figure svg { display: block; width: 100%; height: auto; }
"""
