"""Metrics of many utterances in processes of their own, while the model goes on with the next utterances.

Shapes: S samples.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ss.metric.base import Metric, UtteranceScores
from ss.metric.summary import record_all

WAITING = 4  # utterances for each worker: more would only fill the memory
Wave = NDArray[np.float32]


class Utterance(NamedTuple):
    """A name, and its waves [S]."""

    name: str
    estimate: Wave
    target: Wave
    mixture: Wave


def evaluate_all(
    metrics: Mapping[str, Metric], utterances: Iterable[Utterance], n_workers: int = 0
) -> Iterator[tuple[str, UtteranceScores]]:
    """(name, row) of every utterance, in their order.

    n_workers: processes that compute the metrics while `utterances` makes the next ones (0: this process does). Raises
    RuntimeError, naming the utterance, where a metric fails or its process ends.
    """
    if not n_workers:
        for utterance in utterances:
            yield utterance.name, record_utterance(metrics, utterance)
        return
    waiting: deque[tuple[str, Future[UtteranceScores]]] = deque()
    pool = ProcessPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for utterance in utterances:
            waiting.append((utterance.name, pool.submit(record_utterance, metrics, utterance)))
            while len(waiting) > WAITING * n_workers:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][0], waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool as error:
        names = ", ".join(name for name, future in waiting if future.done() and future.exception() is not None)
        raise RuntimeError(f"a metric ended its process, with one of the utterances {names}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def record_utterance(metrics: Mapping[str, Metric], utterance: Utterance) -> UtteranceScores:
    """The row of an utterance. Raises RuntimeError, naming it, where a metric fails."""
    try:
        return record_all(metrics, *(wave.astype(np.float64) for wave in utterance[1:]))
    except Exception as error:
        raise RuntimeError(f"{utterance.name}: {error or type(error).__name__}") from error
