"""What voice calls cost: CPU time per frame, with some calls at once in one thread, as in a voice agent; a table, and a JSON."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from ss.errors import UserError, reject_unknown_keys, require_positive
from ss.integrations.call import EXTRACTING, CallFilter
from ss.measure.bench import describe_times
from ss.measure.report import publish
from ss.runtime import Extractor
from ss.runtime.enrolment import read_stretch

METHOD = """\
Every call is enrolled from its first seconds; then all calls are given a frame in turn. mean to max: CPU time of a frame in ms,
resampling included. enrol: the longest of the frames in which the calls were enrolled. calls/core: frame ms over the mean."""
PATIENCE = 60  # seconds of speech in which a call must be enrolled


@dataclass(frozen=True)
class CallSettings:
    """The keys of `calls.yaml`.

    speech: a clean recording of one speaker, repeated; precisions: of the packaged model; n_calls, frame_ms: every number of calls
    with every length of frame; sample_rate: of the calls in Hz; seconds: of each call that are timed, after it is enrolled.
    Raises UserError for a value out of range.
    """

    speech: str
    precisions: list[str]
    n_calls: list[int]
    frame_ms: list[float]
    sample_rate: int = 16000
    seconds: float = 10
    out_folder: str | None = None

    def __post_init__(self) -> None:
        require_positive(vars(self), "sample_rate", "seconds")
        if min(self.n_calls, default=0) < 1 or min(self.frame_ms, default=0) * self.sample_rate < 1000:
            raise UserError("n_calls, frame_ms: expected at least a call, and frames of at least a sample")


def measure_calls(config: dict[str, Any]) -> None:
    """Measures what a config describes, prints a table and writes `calls.json`. Raises UserError for speech that enrols nobody."""
    settings = CallSettings(**reject_unknown_keys(CallSettings, config))
    wave, rate = read_stretch(settings.speech)
    samples = (32767 * soxr.resample(wave, rate, settings.sample_rate).clip(-1, 1)).astype("<i2")
    rows = []
    for precision in settings.precisions:
        extractor = Extractor.from_pretrained(precision=precision)
        for milliseconds, n_calls in itertools.product(settings.frame_ms, settings.n_calls):
            rows.append({"precision": precision, **time_calls(extractor, samples, settings, milliseconds, n_calls)})
    times_columns = " | ".join(f"{name} {{milliseconds[{name}]:.2f}}" for name in ("mean", "p50", "p99", "max", "enrol"))
    columns = f"precision {{precision}} | frame ms {{frame_ms:g}} | calls {{n_calls}} | delay ms {{delay_ms:.1f}} | {times_columns}"
    columns += " | calls/core {calls_per_core:.0f}"
    report = {"rate": settings.sample_rate, "rows": rows}
    publish(settings.out_folder, "calls.json", f"calls at {settings.sample_rate} Hz", report, {"rows": columns}, method=METHOD)


def time_calls(extractor: Extractor, samples: np.ndarray, settings: CallSettings, frame_ms: float, n_calls: int) -> dict[str, Any]:
    """What so many calls cost at once: CPU time of every frame after they were enrolled, and of those in which they were."""
    size = round(frame_ms * settings.sample_rate / 1000)

    def frames(begin: int) -> Iterator[bytes]:
        for place in itertools.count(begin, size):
            yield samples.take(range(place, place + size), mode="wrap").tobytes()

    enrolling, times = [], []
    calls = [(CallFilter(extractor, sample_rate=settings.sample_rate), frames(i * size)) for i in range(n_calls)]
    for call, audio in calls:
        for _ in range(round(PATIENCE * settings.sample_rate / size)):
            spent = time_frame(call, next(audio))
            if call.state == EXTRACTING:
                break
        else:
            raise UserError(f"{settings.speech}: expected clean speech of one speaker, of {call.seconds:g} s or more")
        enrolling.append(spent)
    for _ in range(round(settings.seconds * settings.sample_rate / size)):
        times += [time_frame(call, next(audio)) for call, audio in calls]
    return {
        "frame_ms": frame_ms,
        "n_calls": n_calls,
        "delay_ms": 1000 * calls[0][0].delay / settings.sample_rate,
        "milliseconds": {**describe_times(times), "enrol": 1000 * max(enrolling)},
        "calls_per_core": frame_ms / 1000 / np.mean(times),
    }


def time_frame(call: CallFilter, frame: bytes) -> float:
    """CPU time in seconds."""
    before = time.thread_time()
    call.process(frame)
    return time.thread_time() - before
