"""What can be measured: a model in a runtime, its live streams, and how much of them. Imports numpy only; then a runtime.

Shapes: n samples that come, m samples that go.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Process = Callable[[Samples], Samples]  # samples [n] -> those that are finished [m]
ONNX = "onnxruntime"


class Backend(NamedTuple):
    """What runs a model.

    runtime: "torch", "onnxruntime" or "adapter". source: the checkpoint, the folder of an export (compressed or not), or the config
    of an adapter in JSON (see `ss.leaderboard.adapters`). streamer: the config of a torch model's.
    """

    runtime: str
    source: str
    streamer: dict[str, Any] | None = None


class Workload(NamedTuple):
    """What to run.

    chunks: sizes in samples, each a stream of its own, all in turn; calls: of each, that are timed, after `warmup` that are not.
    enrolment: samples of noise. device: of torch. call: "stream", or of torch a bare "chunk", "utterance" or "enrolment" (see
    `ss.measure.streams.bare_call`); speaker: an embedding for these, instead of an enrolment.
    """

    backend: Backend
    chunks: list[int]
    calls: list[int]
    warmup: int
    enrolment: int
    threads: int = 1
    device: str = "cpu"
    call: str = "stream"
    speaker: list[float] | None = None


class Streams(NamedTuple):
    """Streams of one enrolled speaker.

    open: a new one. window: samples that a step takes in, hop: samples that come out of it. delay: so many come out before the
    estimate of the first input sample. chunk: samples to give at once; None: any number. live: whether anything comes out before
    the end of an utterance.
    """

    open: Callable[[], Process]
    window: int
    hop: int
    delay: int = 0
    chunk: int | None = None
    live: bool = True


class BufferedStream:
    """Takes any number of samples: complete windows are stepped through, one every `hop`, and the rest waits.

    at_once: all complete hops are one step.
    """

    def __init__(self, step: Process, window: int, hop: int, at_once: bool = False) -> None:
        self.step, self.window, self.hop, self.at_once = step, window, hop, at_once
        self.waiting: Samples = np.zeros(0, np.float32)

    def process(self, samples: Samples) -> Samples:
        """samples [n] -> those that are finished [m]."""
        self.waiting, finished = np.concatenate([self.waiting, samples]), [samples[:0]]
        while len(self.waiting) >= self.window:
            used = len(self.waiting) // self.hop * self.hop if self.at_once else self.window
            finished.append(self.step(self.waiting[:used]))
            self.waiting = self.waiting[used if self.at_once else self.hop :]
        return np.concatenate(finished)


def make_adapter(config: str) -> Any:
    """The adapter of a config in JSON: its `_target_` is called with the other keys. Raises ValueError where it is not there."""
    arguments = dict(json.loads(config))
    module, _, name = arguments.pop("_target_").rpartition(".")
    try:
        return getattr(import_module(module), name)(**arguments)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{module}.{name}: expected an adapter whose package is installed, but: {error}") from error


def adapter_streams(adapter: Any, enrolment: Samples) -> Streams:
    """Of an adapter, which has one stream at a time."""

    def open_stream() -> Process:
        adapter.enroll(enrolment)
        return BufferedStream(adapter.process, adapter.hop, adapter.hop).process

    return Streams(open_stream, adapter.hop, adapter.hop, adapter.delay)


def export_streams(folder: str | Path, enrolment: Samples, threads: int = 1) -> Streams:
    """Of the folder of an export."""
    from ss.runtime import Extractor

    extractor = Extractor.load(folder, threads)
    chunk = None if extractor.online else extractor.hop
    return Streams(lambda: extractor.stream(enrolment).process, extractor.window, extractor.hop, chunk=chunk)
