"""The leaderboard's page: tables and curves in one HTML file that needs no network."""

import io
from collections.abc import Collection, Mapping
from html import escape
from itertools import cycle
from typing import Any

from ss.leaderboard.conditions import LABELS
from ss.leaderboard.report import METHOD, RANKING, Table, make_tables

COLOURS = ("#1f5fd0", "#d2561c", "#1d8a5a", "#8e44ad", "#b8860b", "#c2185b", "#00838f", "#5d4037", "#546e7a", "#7cb342")
BOUND = "#9a9aa2"
STYLE = """
:root { --page: #f7f6f3; --card: #fff; --ink: #1b1b1f; --soft: #66666e; --rule: #e4e2dc; --accent: #1f5fd0; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 12px; }
h2 { font-size: 1.3rem; margin: 48px 0 8px; } h3 { font-size: 1rem; margin: 28px 0 8px; }
p { max-width: 75ch; color: var(--soft); margin: 0 0 16px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 12px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
tr:first-child > * { border-top: 0; color: var(--soft); font-weight: 500; vertical-align: bottom; white-space: normal; }
th:first-child { text-align: left; font-weight: 600;
  position: sticky; left: 0; background: var(--card); white-space: normal; min-width: 8rem; }
td b { color: var(--accent); } td small { display: block; color: var(--soft); font-size: 0.85em; font-weight: 400; }
.notes { color: var(--soft); font-size: 0.85rem; padding-left: 20px; }
.keys { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 0 0 14px; font-size: 0.9rem; }
.keys li::before { content: ""; display: inline-block; width: 12px; height: 12px;
  border-radius: 50%; background: var(--key); margin-right: 6px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
figure svg { display: block; width: 100%; height: auto; }
"""


def make_page(results: Mapping[str, Any]) -> str:
    """The page: everything in one HTML file that needs no network."""
    tables, bounds = make_tables(results), [label for label, entry in results["entries"].items() if entry["bound"]]
    ran, others = [label for label, entry in results["entries"].items() if not entry["failed"]], cycle(COLOURS)
    colours = {label: BOUND if label in bounds else next(others) for label in ran}
    keys = "".join(f'<li style="--key: {colour}">{escape(label)}</li>' for label, colour in colours.items())
    on_tests: dict[str, list[dict[str, Any]]] = {label: [] for label in colours}
    for name, test in results["tests"].items():
        for label, points in on_tests.items():
            one = test["summaries"][label].get(RANKING, {})
            if not test["quick"] and one.get("mean") is not None:
                points.append({"x": name, **{key: one[key] for key in ("mean", "low", "high")}})
    charts = [chart("test", on_tests, colours, cut=False)]
    charts += [chart(LABELS.get(condition, condition), one["entries"], colours) for condition, one in results["curves"].items()]
    shown = "".join(f"<figure>{one}</figure>" for one in charts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leaderboard</title><style>{STYLE}</style></head><body><main>
<h1>Target speaker extraction: leaderboard</h1>
<p>{escape(results["about"])}</p>
{html(tables[0], bounds)}
<h2>Curves</h2><p>Mean SI-SDRi in dB, with the 95 % interval of the mean. Bounds are grey; after the first picture, those above all
others are cut off.</p>
<ul class="keys">{keys}</ul><div class="charts">{shown}</div>
<h2>All numbers</h2>{"".join(html(table, bounds) for table in tables[1:])}
<h2>How it is measured</h2><p>{escape(METHOD)}</p>
</main></body></html>
"""


def html(table: Table, bounds: Collection[str]) -> str:
    """A table that scrolls by itself where it is too wide."""
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    best, body = best_cells(table, bounds), ""
    for i, row in enumerate(table.rows):
        cells = []
        for j, cell in enumerate(row):
            mean, found, between = escape(cell).partition(" (")
            text = f"{mean}<small>{between[:-1]}</small>" if found else mean  # the interval below its mean
            cells.append(f"<b>{text}</b>" if (i, j) in best else text)
        body += f"<tr><th>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return f'{title}<div class="scroll"><table><tr>{head}</tr>{body}</table></div><ul class="notes">{notes}</ul>'


def best_cells(table: Table, bounds: Collection[str]) -> set[tuple[int, int]]:
    """Row and column of the best SI-SDRi in each column of it, and of what reads the same; bounds aside."""
    best = set()
    for j, head in enumerate(table.head):
        found = [(float(row[j].split()[0]), i) for i, row in enumerate(table.rows) if head.endswith(RANKING) and row[j] != "-"]
        others = [(value, i) for value, i in found if table.rows[i][0] not in bounds]
        best |= {(i, j) for value, i in others if value == max(others)[0]}
    return best


def chart(label: str, entries: Mapping[str, list[dict[str, Any]]], colours: Mapping[str, str], cut: bool = True) -> str:
    """Points of each entry over a number, joined, or over words, as SVG. cut: bounds do not say how high the picture is."""
    import matplotlib as mpl  # not wanted in the processes that are weighed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.9), layout="constrained")
    axes = figure.add_subplot(xlabel=label, ylabel="SI-SDRi (dB)")
    axes.axhline(0, color="#55555c", lw=0.8)
    axes.grid(axis="y", color="#e4e2dc", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    words = list(dict.fromkeys(point["x"] for points in entries.values() for point in points if isinstance(point["x"], str)))
    entries = {name: [point for point in points if point["mean"] is not None] for name, points in entries.items()}
    for place, (name, points) in enumerate(entries.items()):
        shift = 0.08 * (place - (len(entries) - 1) / 2)  # beside each other over a word
        xs = [words.index(point["x"]) + shift if words else point["x"] for point in points]
        axes.plot(xs, [point["mean"] for point in points], marker="o", ms=4, ls="none" if words else "-", color=colours[name])
        for x, point in zip(xs, points, strict=True):
            if point["low"] is not None:
                axes.plot([x, x], [point["low"], point["high"]], color=colours[name], lw=1.2, alpha=0.5)
    if words:
        axes.set_xticks(range(len(words)), words)
        axes.set_xlim(-0.5, len(words) - 0.5)
    shown = [point for name, points in entries.items() if not cut or colours[name] != BOUND for point in points]
    if shown:
        ends = [end for point in shown for end in (point["mean"], point["low"], point["high"]) if end is not None]
        axes.set_ylim(min(0.0, *ends) - 0.5, max(0.0, *ends) + 1)
    out = io.StringIO()  # text stays text, and the same figure gives the same SVG
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "leaderboard", "font.family": "sans-serif", "font.size": 10}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return out.getvalue()[out.getvalue().index("<svg") :]
