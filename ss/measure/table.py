"""A measurement as lines to read."""

from collections.abc import Iterator
from typing import Any

_TIMES = ("mean", "p50", "p95", "p99", "max")
_MS = [f"{name} ms" for name in _TIMES]
_HEAD = ["device", "part", "audio s", "hop s", "GMAC", "GMAC/s", *_MS, "real time", "peak MiB"]
_LIVE_HEAD = ["live", "device", "chunk ms", *_MS, "real time", "CPU/s"]
_SESSION_HEAD = ["session", "chunk ms", "minutes", "first ms", "last ms", "begun MiB", "ended MiB", "over idle MiB"]


def text(report: dict[str, Any]) -> str:
    """The model, the machine, a table of the parts; then what a listener meets: latency, live chunks, a long session, files."""
    origin = report["checkpoint"] or "random weights"
    model = f"{report['model']} ({origin}): {report['parameters']:,} parameters, {report['weight_bytes'] / 2**20:.1f} MiB"
    parts = aligned([_HEAD, *(_cells(row) for row in report["rows"])])
    return "\n".join([model, machine_line(report), "", *parts, "", *_facts(report), "", *listening(report)])


def listening(report: dict[str, Any]) -> list[str]:
    """Live chunks and a long session, as lines."""
    live = aligned([_LIVE_HEAD, *(_live_cells(row) for row in report["live"])])
    return [*live, "", *aligned([_SESSION_HEAD, *(_session_cells(row) for row in report["sessions"])])]


def machine_line(report: dict[str, Any]) -> str:
    """What it was measured on."""
    return ", ".join(f"{name} {value}" for name, value in report["machine"].items() if value)


def _facts(report: dict[str, Any]) -> Iterator[str]:
    latency = report["latency"]
    if latency["samples"] is None:
        yield f"algorithmic latency: {latency['waits_for']}"
    else:
        ahead = f"the output depends on input up to {latency['depends_samples'] - 1} samples later"
        yield f"algorithmic latency: {latency['milliseconds']:g} ms ({latency['samples']} samples; {ahead})"
    yield files(report)
    for name, reason in report["not_measured"].items():
        yield f"{name}: n/a ({reason})"


def files(report: dict[str, Any]) -> str:
    """What has to be shipped."""
    return "files: " + ", ".join(f"{name} {size / 2**20:.2f} MiB" for name, size in report["file_bytes"].items())


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        _device(row),
        row["part"],
        f"{row['audio_seconds']:g}",
        f"{row['hop_seconds']:g}",
        f"{row['macs'] / 1e9:.3g}",
        f"{row['macs_per_second'] / 1e9:.3g}",
        *(f"{row['milliseconds'][name]:.1f}" for name in _TIMES),
        f"{row['real_time_factor']:.3f}",
        f"{row['peak_memory_bytes'] / 2**20:.0f}",
    ]


def _live_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["runtime"],
        _device(row),
        f"{1000 * row['chunk_seconds']:g}",
        *(f"{row['milliseconds'][name]:.2f}" for name in _TIMES),
        f"{row['real_time_factor']:.4f}",
        f"{row['cpu_seconds_per_second']:.4f}",
    ]


def _session_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["runtime"],
        f"{1000 * row['chunk_seconds']:g}",
        f"{row['minutes']:.3g}",
        f"{row['mean_milliseconds'][0]:.2f}",
        f"{row['mean_milliseconds'][-1]:.2f}",
        *(f"{row[f'{name}_bytes'] / 2**20:.0f}" for name in ("begun", "ended", "over_idle")),
    ]


def _device(row: dict[str, Any]) -> str:
    return row["device"] if row["threads"] is None else f"{row['device']} x{row['threads']}"


def aligned(table: list[list[str]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its longest cell; words to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    sides = [str.ljust, str.ljust, *([str.rjust] * (len(widths) - 2))]
    return ["  ".join(side(cell, n) for side, cell, n in zip(sides, cells, widths, strict=True)) for cells in table]
