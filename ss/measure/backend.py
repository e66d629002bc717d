"""What can be measured: a model in a runtime, its live streams, and how much of them. Imports numpy only; then a runtime."""

import json
from collections.abc import Callable
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ss.errors import UserError

if TYPE_CHECKING:
    from ss.runtime.stream import Stream

Samples = NDArray[np.float32]
Process = Callable[[Samples], Samples]  # samples [n] -> those that are finished [m]
ONNX, C, C_INT8, ADAPTER = "onnxruntime", "c", "c int8", "adapter"


class Backend(NamedTuple):
    """What runs a model.

    runtime: "torch", "onnxruntime", "c" or "c int8" (the C library), or "adapter". source: the checkpoint, the folder of an export
    (compressed or not), or the config of an adapter in JSON (see `ss.leaderboard.adapters`). streamer: a torch model's config.
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

    open: a new one. window: samples that a step takes in, hop: samples that come out of it. chunk: samples to give at once; None:
    any number. live: whether anything comes out before the end of an utterance.
    """

    open: Callable[[], Process]
    window: int
    hop: int
    chunk: int | None = None
    live: bool = True


def unclipped(stream: "Stream") -> Process:
    """A stream's `process`, of samples of any level: a latency is measured with some that are far beyond full scale."""
    stream.loudest = np.inf
    return stream.process


def make_adapter(config: str) -> Any:
    """The adapter of a config in JSON: its `_target_` is called with the other keys. Raises UserError where that fails."""
    arguments = json.loads(config)
    name = arguments.pop("_target_")
    try:
        return resolve_name(name)(**arguments)
    except Exception as error:  # what others' code raises is not known
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{name}: expected an adapter that is installed and takes these arguments, but {said}") from error


class AdapterModel:
    """An adapter, which has one stream at a time, as `BatchStream` runs it."""

    online = False

    def __init__(self, adapter: Any, enrolment: Samples) -> None:
        self.adapter, self.enrolment, self.sample_rate = adapter, enrolment, adapter.sample_rate
        self.hop = self.window = adapter.hop
        self.delay = adapter.delay

    def zeros(self, batch: int) -> None:
        """Begins anew."""
        self.adapter.enroll(self.enrolment)

    def step(self, chunk: Samples, conditions: Samples, states: None) -> tuple[Samples, None]:
        """chunk [1,hop] -> as many samples of the output."""
        return self.adapter.process(chunk[0])[None], None


def stream_of(model: Any) -> "Stream":
    """A stream of a model that knows its speaker: an AdapterModel, or a TorchModel."""
    from ss.runtime.stream import Stream

    return Stream(model, np.zeros((1, 0), np.float32))


def streams_of(backend: Backend, enrolment: Samples, threads: int = 1) -> Streams:
    """Streams of the folder of an export, or of an adapter: all that runs without torch."""
    if backend.runtime == ADAPTER:
        adapter = make_adapter(backend.source)
        return Streams(lambda: unclipped(stream_of(AdapterModel(adapter, enrolment))), adapter.hop, adapter.hop)
    from ss.runtime import Extractor

    extractor = Extractor.load(backend.source, threads, backend=ONNX if backend.runtime == ONNX else "c")
    chunk = None if extractor.online else extractor.hop
    return Streams(lambda: unclipped(extractor.stream(enrolment)), extractor.window, extractor.hop, chunk)
