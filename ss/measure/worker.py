"""Times and weighs a model in a process that holds nothing else: a script that takes a Workload as JSON and prints a WorkerRun.

It is run by its path and imports numpy only before it looks at the memory of the idle interpreter; then onnxruntime, or torch.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ss.measure.backend import Backend, Process, Samples, Workload, streams_of

SCRIPT = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # puts no folder on the import path
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class WorkerRun(NamedTuple):
    """What came of it.

    seconds: of every call, per chunk size; cpu_seconds: of all of a size's calls, in all threads. Resident memory in bytes: idle
    (an interpreter with numpy), loaded (with the runtime and the model), begun (after the warm-up), ended, peak (at any time).
    working: the peak once the model is loaded, above an interpreter with torch; on a GPU, what torch allocated there.
    """

    seconds: list[list[float]]
    cpu_seconds: list[float]
    idle: int
    loaded: int
    begun: int
    ended: int
    peak: int
    working: int


def resident(field: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most so far (VmHWM); without Linux's /proc, at most so far for both."""
    if STATUS.exists():
        kibibytes = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")).split()[1]
        return int(kibibytes) * 1024
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """From here on, VmHWM is the peak from here on (on Linux)."""
    if CLEAR.exists():
        CLEAR.write_text("5")  # proc(5)


def run_alone(work: Workload) -> WorkerRun:
    """Runs a workload in a fresh interpreter. Raises RuntimeError with what that printed if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(work.threads)}
    command = [sys.executable, "-c", SCRIPT, __file__]
    given = json.dumps(work._asdict())
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring with {work.backend.runtime} failed:\n{done.stderr}")
    return WorkerRun(**json.loads(done.stdout.splitlines()[-1]))


def run(work: Workload) -> WorkerRun:
    """Runs the streams in turn, a tenth of the calls of each at a time, so that all meet the same machine."""
    rng, idle = np.random.default_rng(0), resident("VmRSS")
    audio = 0.1 * rng.standard_normal(max(work.enrolment, 2 * max(work.chunks)), np.float32)
    enrolment = audio[: work.enrolment]
    if work.backend.runtime == "torch":
        from ss.measure import streams  # torch

        imported = resident("VmRSS")
        open_stream = streams.load(work, enrolment)
    else:
        imported, open_stream = idle, streams_of(work.backend, enrolment, work.threads).open
    loaded, peak = resident("VmRSS"), resident("VmHWM")
    forget_peak()
    seconds, cpu_seconds = [np.full(calls, np.nan) for calls in work.calls], [0.0 for _ in work.calls]
    processes = [open_stream() for _ in work.chunks]
    for process, chunk in zip(processes, work.chunks, strict=True):
        time_calls(process, audio, chunk, np.empty(work.warmup))
    begun = resident("VmRSS")
    for tenths in zip(*(np.array_split(times, 10) for times in seconds), strict=True):
        for i, (process, chunk, tenth) in enumerate(zip(processes, work.chunks, tenths, strict=True)):
            cpu_seconds[i] += time_calls(process, audio, chunk, tenth)
    ended, highest = resident("VmRSS"), resident("VmHWM")
    working = highest - imported
    if work.device != "cpu":
        working = streams.torch.cuda.max_memory_allocated(work.device)  # CUDA's own context does not count
    return WorkerRun([each.tolist() for each in seconds], cpu_seconds, idle, loaded, begun, ended, max(peak, highest), working)


def time_calls(process: Process, audio: Samples, chunk: int, seconds: NDArray[np.float64]) -> float:
    """Fills `seconds` with the time of each call; chunks follow each other through the audio [n]. Returns CPU seconds of all."""
    began, place = time.process_time(), 0
    for i in range(len(seconds)):
        place = place + chunk if place + 2 * chunk <= len(audio) else 0
        start = time.perf_counter()
        process(audio[place : place + chunk])
        seconds[i] = time.perf_counter() - start
    return time.process_time() - began


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps(run(Workload(Backend(*given.pop("backend")), **given))._asdict()))
