"""A measurement as lines to read."""

from typing import Any

_TIMES = ("mean", "p50", "p95", "p99", "max")
_HEAD = ["device", "part", "audio s", "hop s", "GMAC", "GMAC/s", *(f"{name} ms" for name in _TIMES), "real time", "peak MiB"]


def text(report: dict[str, Any]) -> str:
    """The model, the machine, and a table of the rows."""
    origin = report["checkpoint"] or "random weights"
    model = f"{report['model']} ({origin}): {report['parameters']:,} parameters, {report['weight_bytes'] / 2**20:.1f} MiB"
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items() if value)
    return "\n".join([model, machine, "", *aligned([_HEAD, *(_cells(row) for row in report["rows"])])])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["device"] if row["threads"] is None else f"{row['device']} x{row['threads']}",
        row["part"],
        f"{row['audio_seconds']:g}",
        f"{row['hop_seconds']:g}",
        f"{row['macs'] / 1e9:.3g}",
        f"{row['macs_per_second'] / 1e9:.3g}",
        *(f"{row['milliseconds'][name]:.1f}" for name in _TIMES),
        f"{row['real_time_factor']:.3f}",
        f"{row['peak_memory_bytes'] / 2**20:.0f}",
    ]


def aligned(table: list[list[str]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its longest cell; words to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    sides = [str.ljust, str.ljust, *([str.rjust] * (len(widths) - 2))]
    return ["  ".join(side(cell, n) for side, cell, n in zip(sides, cells, widths, strict=True)) for cells in table]
