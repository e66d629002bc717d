"""From one utterance to a row of a table, and from rows to means that know their counts.

Shapes: S samples.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TypedDict

from torch import Tensor

from ss.metric.absence import OTHER_SCENES
from ss.metric.base import Array, Metric, UtteranceScores, utterances

COLUMNS = ("SI-SDR", "SI-SDRi", "SNR", "SDRi", "STOI", "PESQ", "CSIG", "CBAK", "COVL", "SSNR", "absent-dB", "STOI-drop")


class Average(TypedDict):
    """Mean and median of the `count` utterances that have a value (None where none has), and why the `missing` others have none."""

    mean: float | None
    median: float | None
    count: int
    missing: int
    reasons: dict[str, int]


class Summary(TypedDict):
    """An Average per column, of so many utterances."""

    metrics: dict[str, Average]
    utterances: int


def evaluate(metrics: Mapping[str, Metric], estimate: Tensor, target: Tensor, mixture: Tensor) -> UtteranceScores:
    """All metrics of one utterance, waves [S]. The key of a metric is its column, unless it has several values with names."""
    (waves,) = utterances(estimate[None], target[None], mixture[None])
    return record_all(metrics, *waves)


def record_all(metrics: Mapping[str, Metric], estimate: Array, target: Array, mixture: Array) -> UtteranceScores:
    """The same for arrays [S]."""
    row = UtteranceScores({}, {})
    for column, metric in metrics.items():
        values, missing = metric.record(column, estimate, target, mixture)
        row.values.update(values)
        row.missing.update(missing)
    return row


def columns(rows: Iterable[UtteranceScores]) -> list[str]:
    """Every column that occurs: those known here in their usual order, then others by name."""
    found = {name for row in rows for part in row for name in part}
    return sorted(found, key=lambda name: (COLUMNS.index(name) if name in COLUMNS else len(COLUMNS), name))


def summarize(rows: Sequence[UtteranceScores]) -> Summary:
    """The same for the same rows, to the last bit, in whatever order they come."""
    return {"metrics": {name: _average(name, rows) for name in columns(rows)}, "utterances": len(rows)}


def _average(name: str, rows: Sequence[UtteranceScores]) -> Average:
    values = [row.values[name] for row in rows if name in row.values]
    reasons = Counter(row.missing[name] for row in rows if name in row.missing)
    mean, middle = (math.fsum(values) / len(values), median(values)) if values else (None, None)
    why = dict(sorted(reasons.items()))
    return {"mean": mean, "median": middle, "count": len(values), "missing": reasons.total(), "reasons": why}


def applies(average: Average) -> bool:
    """False where no utterance is of the kind that the metric is for (a silent target, a clean mixture): nothing to show."""
    return average["count"] > 0 or not average["reasons"].keys() <= OTHER_SCENES
