"""One live stream, timed and weighed in a process that holds nothing else: a script that takes a Job as JSON and prints a Run.

It is run by its path and imports numpy only before it looks at the memory of the idle interpreter; then onnxruntime, or torch.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Process = Callable[[Samples], Any]  # samples [S] -> whatever comes out
STATUS = Path("/proc/self/status")


class Job(NamedTuple):
    """What to run.

    runtime: "torch", "onnxruntime" or "adapter". source: the checkpoint, the folder of an export, or the config of an adapter in
    JSON (`ss.leaderboard.adapters`). streamer: of a torch model.
    chunks: sizes in samples, each a stream of its own, all in turn; calls: of each, that are timed, after `warmup` that are not.
    enrolment: samples of noise. device: of torch.
    """

    runtime: str
    source: str
    streamer: dict[str, Any]
    chunks: list[int]
    calls: list[int]
    warmup: int
    enrolment: int
    threads: int = 1
    device: str = "cpu"


class Run(NamedTuple):
    """What came of it.

    seconds: of every call, per chunk size; cpu_seconds: of all of a size's calls, in all threads. Resident memory in bytes: idle
    (an interpreter with numpy), loaded (with the runtime and the model), begun (after the warm-up), ended, peak (at any time).
    """

    seconds: list[list[float]]
    cpu_seconds: list[float]
    idle: int
    loaded: int
    begun: int
    ended: int
    peak: int


def resident(field: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most so far (VmHWM); without Linux's /proc, at most so far for both."""
    if STATUS.exists():
        kibibytes = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")).split()[1]
        return int(kibibytes) * 1024
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def streams(job: Job, enrolment: Samples) -> Callable[[int], Process]:
    """Loads the model. Returns what opens a stream for chunks of so many samples."""
    if job.runtime == "onnxruntime":
        from ss.runtime import Extractor

        extractor = Extractor.load(job.source, threads=job.threads)
        return lambda chunk: extractor.stream(enrolment).process
    if job.runtime == "adapter":
        from ss.leaderboard.adapters import AdapterStream, make_adapter

        adapter = make_adapter(job.source)
        return lambda chunk: AdapterStream(adapter, enrolment).process
    from ss.measure.sources import torch_streams

    return torch_streams(job, enrolment)


def run(job: Job) -> Run:
    """Runs the streams in turn, a tenth of the calls of each at a time, so that all meet the same machine."""
    rng, idle = np.random.default_rng(0), resident("VmRSS")
    audio = 0.1 * rng.standard_normal(max(job.enrolment, 2 * max(job.chunks)), np.float32)
    open_stream = streams(job, audio[: job.enrolment])
    loaded = resident("VmRSS")
    seconds, cpu_seconds = [np.full(calls, np.nan) for calls in job.calls], [0.0 for _ in job.calls]
    processes = [open_stream(chunk) for chunk in job.chunks]
    for process, chunk in zip(processes, job.chunks, strict=True):
        timed(process, audio, chunk, np.empty(job.warmup))
    begun = resident("VmRSS")
    for tenth in range(10):
        for i, (process, chunk) in enumerate(zip(processes, job.chunks, strict=True)):
            first, last = (len(seconds[i]) * part // 10 for part in (tenth, tenth + 1))
            cpu_seconds[i] += timed(process, audio, chunk, seconds[i][first:last])
    ended, peak = resident("VmRSS"), resident("VmHWM")
    return Run([each.tolist() for each in seconds], cpu_seconds, idle, loaded, begun, ended, peak)


def timed(process: Process, audio: Samples, chunk: int, seconds: NDArray[np.float64]) -> float:
    """Fills `seconds` with the time of each call; chunks follow each other through the audio [S]. Returns CPU seconds of all."""
    began, place = time.process_time(), 0
    for i in range(len(seconds)):
        place = place + chunk if place + 2 * chunk <= len(audio) else 0
        start = time.perf_counter()
        process(audio[place : place + chunk])
        seconds[i] = time.perf_counter() - start
    return time.process_time() - began


if __name__ == "__main__":
    print(json.dumps(run(Job(**json.load(sys.stdin)))._asdict()))
