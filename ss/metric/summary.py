"""From utterances to the rows of a table, and from rows to means that know their counts.

Shapes: S samples.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from statistics import median
from typing import Any, NamedTuple, TypedDict

import torch
from numpy.typing import NDArray
from torch import Tensor

from ss.metric.absence import OTHER_SCENES
from ss.metric.base import Metric, UtteranceScores, utterances

COLUMNS = (
    *("SI-SDR", "SI-SDRi", "SNR", "SDRi", "STOI", "PESQ", "CSIG", "CBAK", "COVL", "SSNR", "absent-dB", "STOI-drop"),
    *("pause-dB", "muted", "settle", "settle-95", "unsettled", "speech-SI-SDRi"),  # of calls
)
WAITING = 4  # utterances for each worker: more would only fill the memory


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


class Utterance(NamedTuple):
    """A name, and its waves [S]."""

    name: str
    estimate: NDArray[Any]
    target: NDArray[Any]
    mixture: NDArray[Any]


def evaluate(metrics: Mapping[str, Metric], estimate: Tensor, target: Tensor, mixture: Tensor) -> UtteranceScores:
    """All metrics of one utterance, waves [S]. The key of a metric is its column, unless it has several values with names."""
    (waves,) = utterances(estimate[None], target[None], mixture[None])
    rows = [metric.record(column, *waves) for column, metric in metrics.items()]
    values = {name: value for row in rows for name, value in row.values.items()}
    missing = {name: reason for row in rows for name, reason in row.missing.items()}
    return UtteranceScores(values, missing)


def _evaluate_named(metrics: Mapping[str, Metric], utterance: Utterance) -> UtteranceScores:
    try:
        return evaluate(metrics, *map(torch.from_numpy, utterance[1:]))
    except Exception as error:
        raise RuntimeError(f"{utterance.name}: {error or type(error).__name__}") from error


def evaluate_all(
    metrics: Mapping[str, Metric], examples: Iterable[Utterance], n_workers: int = 0
) -> Iterator[tuple[str, UtteranceScores]]:
    """(name, row) of every utterance, in their order.

    n_workers: processes that compute the metrics while `examples` makes the next ones (0: this process does). Raises
    RuntimeError, naming the utterance, where a metric fails or its process ends.
    """
    if not n_workers:
        for utterance in examples:
            yield utterance.name, _evaluate_named(metrics, utterance)
        return
    pool = ProcessPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
    begun = ((utterance.name, pool.submit(_evaluate_named, metrics, utterance)) for utterance in examples)
    waiting: deque[tuple[str, Future[UtteranceScores]]] = deque()
    try:
        waiting.extend(islice(begun, WAITING * n_workers))
        while waiting:
            waiting.extend(islice(begun, 1))
            yield waiting[0][0], waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool as error:
        names = ", ".join(name for name, future in waiting if future.done() and future.exception() is not None)
        raise RuntimeError(f"a metric ended its process, with one of the utterances {names}") from error
    finally:
        pool.shutdown(cancel_futures=True)


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
