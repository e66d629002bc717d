"""From scores to what is read: means with intervals, curves over conditions, and tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ss.leaderboard.scoring import LABELS, Score
from ss.measure.report import machine_line
from ss.metric import COLUMNS, UtteranceScores, summarize
from ss.tables import markdown_table

RANKING, ABSENT = "SI-SDRi", "absent-dB"
FORMS = {  # how values of a metric are written; others: with three digits
    RANKING: "{:.2f} dB",
    ABSENT: "{:.1f} dB",
    "pause-dB": "{:.1f} dB",
    "muted": "{:.1%}",
    "settle": "{:.2f} s",
    "settle-95": "{:.2f} s",
    "unsettled": "{:.1%}",
    "speech-SI-SDRi": "{:.2f} dB",
}
RESAMPLINGS = 2000
FEWEST = 8  # values that an interval is given for
METHOD = [
    " ".join(part.split())
    for part in f"""\
SI-SDRi: improvement of the scale-invariant SDR over the mixture; in brackets the 95 % interval of the mean by bootstrap over
utterances ({RESAMPLINGS} resamplings; each speaker is in several of them, so the truth is wider).

Below 0: part of the mixtures that get worse. PESQ (wide band) and STOI: means.

Level, absent-dB: energy of the output over that of the mixture where the enrolled speaker is silent, median, -100 dB at
least. STOI lost, STOI-drop: where the target is alone, mean.

Of calls, means over the calls. Pauses, pause-dB: energy of the output over that of the mixture while the target is silent.
Muted: share of the target's speech in which the output is more than 20 dB below it. Settle, settle-95: seconds from the
beginning of a turn of the target until the output has more of it than of all else, median and 95th percentile of the turns.
Unsettled: share of the turns where it never has. Speech-SI-SDRi, which the first table calls SI-SDRi: while the target speaks.

Latency: of a live stream, by perturbation of its input and by when its samples come out. RTF: processor time for chunks of 10
ms (a model's own segments, if it has them) over their length, in one thread. Peak memory: of a process that does nothing else,
above an idle interpreter; for checkpoints torch is part of it.

A value that could not be computed, or was not asked for, is missing (-), never 0; the reason is below its table.""".split("\n\n")
]


class Table(NamedTuple):
    """Cells to read; notes: lines below."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def interval(values: Sequence[float]) -> dict[str, Any]:
    """{mean, low, high, count} of values: the mean, and the bounds of its 95 % interval; None for too few values."""
    array = np.array(values)
    low = high = None
    if len(array) >= FEWEST:
        draws = np.random.default_rng(0).integers(len(array), size=(RESAMPLINGS, len(array)))
        low, high = np.percentile(array[draws].mean(1), (2.5, 97.5)).tolist()
    return {"mean": float(array.mean()) if len(array) else None, "low": low, "high": high, "count": len(array)}


def summarize_scores(scores: Sequence[Score]) -> dict[str, Any]:
    """Mean, median, counts and reasons of every metric; of SI-SDRi also the interval and the share below 0 dB. The pieces of calls
    are left out."""
    scores = [score for score in scores if score.start is None] or scores
    summary: dict[str, Any] = {name: dict(one) for name, one in summarize([score.row for score in scores])["metrics"].items()}
    values = values_of(RANKING, (score.row for score in scores))
    if values:
        summary[RANKING] |= interval(values) | {"below_0": sum(value < 0 for value in values) / len(values)}
    return summary


def values_of(metric: str, rows: Iterable[UtteranceScores]) -> list[float]:
    """The values of a metric that there are."""
    return [row.values[metric] for row in rows if metric in row.values]


def curve(
    condition: str,
    edges: Sequence[float] | None,
    known: Sequence[tuple[Mapping[str, Any], UtteranceScores]],
    metric: str = RANKING,
) -> list[dict[str, Any]]:
    """A metric over a condition: one point for each range between two edges, or for each value where there are no edges.

    known: conditions and metrics of each utterance. A point is {x, mean, low, high, count}, all but x None where none of the
    range's utterances has a value; x: the mean of the condition in the range, so that it is the same for all entries.
    """
    found = [(about[condition], row) for about, row in known if condition in about]
    if edges is None:
        groups: list[Any] = [[pair for pair in found if pair[0] == value] for value in sorted({value for value, _ in found})]
    else:
        groups = [[pair for pair in found if low <= pair[0] < high] for low, high in pairwise(edges)]

    def point(group: list[tuple[Any, UtteranceScores]]) -> dict[str, Any]:
        xs, values = [x for x, _ in group], values_of(metric, (row for _, row in group))
        return {"x": xs[0] if isinstance(xs[0], str) else math.fsum(xs) / len(xs), **interval(values)}

    return [point(group) for group in groups if group]


def make_tables(results: Mapping[str, Any]) -> list[Table]:
    """The headline, the costs, a table for each test that is not for curves only, and one for each curve.

    results: as `results.json` has them.
    """
    tests = [name for name, test in results["tests"].items() if not test["quick"]]
    tables = [headline_table(results, tests), costs_table(results), *(test_table(results, name) for name in tests)]
    tables += [curve_table(one) for one in results["curves"].values()]
    return [table for table in tables if table.rows]


def headline_table(results: Mapping[str, Any], tests: Sequence[str]) -> Table:
    """One line per entry."""
    ran = {label: entry for label, entry in results["entries"].items() if not entry["failed"]}
    head, rows = [""], [[label] for label in ran]
    for metric, part, title in HEADLINE:
        for name in tests:
            summaries = results["tests"][name]["summaries"]
            if any(one.get(metric, {}).get("count") for one in summaries.values()):
                head.append(f"{name}: {title}")
                for row in rows:
                    row.append(metric_cells(metric, summaries.get(row[0], {}).get(metric, {}))[part])
    for row, entry in zip(rows, ran.values(), strict=True):
        costs = entry["costs"]
        row += [latency(costs), number(costs.get("real_time_factor"), "{:.3f}"), mebibytes(costs, "model_bytes")]
    notes = [f"{label} did not run: {entry['failed']}" for label, entry in results["entries"].items() if entry["failed"]]
    return Table("", [*head, "latency", "RTF", "size"], rows, notes)


def costs_table(results: Mapping[str, Any]) -> Table:
    """What each entry costs live."""
    head, rows = ["", "runs in", "latency", "chunk", "RTF", "median of a chunk", "p99", "peak memory", "size"], []
    for label, entry in results["entries"].items():
        if found := entry["costs"]:
            row = [label, entry["about"], latency(found), f"{found['chunk_ms']:g} ms", f"{found['real_time_factor']:.3f}"]
            row += [f"{found['p50_ms']:.2f} ms", f"{found['p99_ms']:.2f} ms"]
            rows.append([*row, mebibytes(found, "peak_bytes"), mebibytes(found, "model_bytes")])
    return Table("What it costs live", head, rows, [machine_line(results["machine"])])


def test_table(results: Mapping[str, Any], name: str) -> Table:
    """All metrics that have values, of all entries on a test; below it what is missing, and why."""
    test = results["tests"][name]
    summaries: dict[str, dict[str, Any]] = test["summaries"]
    head, rows, notes = [""], [[label] for label in summaries], []
    for metric in COLUMNS:
        if metric == "SI-SDR" or not any(one.get(metric, {}).get("count") for one in summaries.values()):
            continue
        head += metric_cells(metric, {})
        for row, (label, summary) in zip(rows, summaries.items(), strict=True):
            row += metric_cells(metric, summary[metric]).values()
            notes += [f"{label}: {metric} is missing for {n}: {reason}" for reason, n in summary[metric]["reasons"].items()]
    return Table(f"{name}: {test['utterances']} utterances, {test['seconds'] / 60:.1f} minutes", head, rows, notes)


def curve_table(one: Mapping[str, Any]) -> Table:
    """A curve as numbers."""
    first: list[dict[str, Any]] = next(iter(one["entries"].values()))
    places = (point["x"] if isinstance(point["x"], str) else f"{point['x']:.3g}" for point in first)
    head = ["", *(f"{place} (n = {point['count']})" for place, point in zip(places, first, strict=True))]
    form = FORMS.get(one["metric"], "{:.3f}")
    rows = [[label, *(number(point["mean"], form) for point in points)] for label, points in one["entries"].items()]
    title = f"{one['metric']} by {LABELS.get(one['condition'], one['condition'])}, on {', '.join(one['tests'])}"
    return Table(title, head, rows, [])


def metric_cells(metric: str, one: Mapping[str, Any]) -> dict[str, str]:
    """What is told of a metric, by heading. one: its summary; empty: none."""
    if metric == ABSENT:
        return {f"{ABSENT}, median": number(one.get("median"), FORMS[ABSENT])}
    mean = number(one.get("mean"), FORMS.get(metric, "{:.3f}"))
    if metric != RANKING:
        return {metric: mean}
    bounds = "" if one.get("low") is None else f" ({one['low']:.1f} to {one['high']:.1f})"
    median, below = number(one.get("median"), FORMS[RANKING]), number(one.get("below_0"), "{:.0%}")
    return {RANKING: mean + bounds, "median": median, "below 0": below}


HEADLINE = (  # metric, which of its cells, title
    (RANKING, RANKING, RANKING),
    (RANKING, "below 0", "below 0"),
    (ABSENT, f"{ABSENT}, median", "level"),
    ("STOI-drop", "STOI-drop", "STOI lost"),
    ("pause-dB", "pause-dB", "pauses"),
    ("muted", "muted", "muted"),
    ("speech-SI-SDRi", "speech-SI-SDRi", RANKING),
)


def number(value: float | None, form: str) -> str:
    """A value to read, or - where there is none."""
    return "-" if value is None else form.format(value).replace("%", " %")


def latency(costs: Mapping[str, Any]) -> str:
    """What a listener waits for."""
    return "the utterance" if costs and costs["latency_ms"] is None else number(costs.get("latency_ms"), "{:g} ms")


def mebibytes(costs: Mapping[str, Any], key: str) -> str:
    """A size to read."""
    return number(costs[key] / 2**20 if costs else None, "{:.1f} MiB")


def markdown(tables: Iterable[Table]) -> str:
    """Tables for a document; notes are lists."""
    parts = []
    for table in tables:
        parts += [f"### {table.title}"] if table.title else []
        parts.append(markdown_table(table.head, table.rows))
        parts += ["\n".join(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n\n".join([*parts, "### How it is measured", "\n".join(f"- {line}" for line in METHOD)]) + "\n"
