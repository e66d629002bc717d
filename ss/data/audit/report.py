"""What an audit found, to read and to look at: a table of its checks, and histograms."""

from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ERROR, WARNING = "error", "warning"
BINS = 40
WIDTH = 43  # of the longest name of a check
Measured: TypeAlias = dict[str, dict[str, list[float]]]


def text(report: dict[str, Any]) -> str:
    """The checks as a table with an example each, the folders, and the verdict."""
    lines = [_line("verdict", "check", "of", "count", "share", "example")]
    for check in report["checks"]:
        verdict = check["verdict"] if check["count"] else "ok" if check["of"] else "n/a"
        share = f"{100 * check['share']:.3g}%" if check["of"] else ""
        example = "{folder}/{name}: {why}".format(**check["found"][0]) if check["count"] else ""
        lines.append(_line(verdict, check["what"], check["of"], check["count"], share, example))
    for folder, content in report["folders"].items():
        counts = content["speakers"].values()
        often = f"{len(counts)} target speakers, {min(counts)} to {max(counts)} mixtures each"
        lines.append(f"{folder}: {content['triplets']} triplets, {content['hours']:.2f} h, {often}")
    untold = ", ".join(f"{n} ({why})" for why, n in report["no_sir"].items())
    lines += [f"SIR not held against a plan: {untold}"] if untold else []
    failed = Counter(check["verdict"] for check in report["checks"] if check["count"])
    n = f"errors in {failed[ERROR]} of {len(report['checks'])} checks, warnings in {failed[WARNING]}"
    lines.append(f"{'sound' if report['sound'] else 'not sound'}: {n}")
    return "\n".join(lines)


def _line(verdict: str, what: str, of: object, count: object, share: str, example: str) -> str:
    """A row of the table; not by `ss.measure.table`, which brings torch."""
    return f"{verdict:8}  {what:{WIDTH}}  {of:>7}  {count:>7}  {share:>6}  {example}".rstrip()


def draw(values: Measured, path: Path) -> None:
    """Histograms, a line for each folder, as a PNG."""
    from matplotlib.figure import Figure  # not wanted in the processes

    figure = Figure(figsize=(13, 7), dpi=120, layout="constrained")
    *panels, legend = figure.subplots(2, 3).ravel()
    for axes, (label, by_folder) in zip(panels, values.items(), strict=True):
        edges = _edges([value for column in by_folder.values() for value in column])
        for column in by_folder.values():
            axes.hist(column, edges, weights=np.full(len(column), 1 / max(len(column), 1)), histtype="step", lw=1.5)
        axes.set(xlabel=label, ylabel="share of the speakers" if "speaker" in label else "share of the triplets")
        axes.grid(color="0.9", lw=0.5)
    for folder, column in by_folder.items():
        legend.plot([], label=f"{folder}: {sum(column)} triplets")
    legend.legend(loc="center", frameon=False)
    legend.axis("off")
    figure.savefig(path)


def _edges(values: list[float]) -> NDArray[np.float64]:
    """Where the bins of a histogram begin and end; numbers of things, if they are few, get one each."""
    if values and isinstance(values[0], int) and max(values) <= BINS:
        return np.arange(0.5, max(values) + 1)
    return np.histogram_bin_edges(values, BINS)
