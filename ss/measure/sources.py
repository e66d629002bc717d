"""Where a runtime finds a model: a checkpoint for torch, an export for ONNX Runtime; and runs of both in processes of their own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.utils import instantiate

from ss import checkpoint
from ss.checkpoint import load_extractor
from ss.measure import alone
from ss.measure.alone import Job, Process, Run, Samples
from ss.measure.live import open_stream
from ss.measure.parts import Settings
from ss.model import Extractor, SpexPlusOnline
from ss.streamer import Streamer

SCRIPT = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # puts no folder on the import path
ONNX = "onnxruntime"


class Sources(NamedTuple):
    """by_runtime: a checkpoint and, where there is one, the folder of an export. missing: a reason for each that there is not."""

    by_runtime: dict[str, str]
    missing: dict[str, str]


def sources(settings: Settings, model: Extractor, folder: str | Path) -> Sources:
    """Writes what the runtimes need of the settings' model into a folder."""
    source = settings.checkpoint
    if source is None:
        source = str(Path(folder) / "model.pth")
        checkpoint.save(source, {"config": {"model": settings.model}, "model": model.state_dict()})
    reason = why_not_exported(model)
    if reason:
        return Sources({"torch": source}, {ONNX: reason})
    from ss.export import export

    export(model, Path(folder) / "onnx", settings.sample_rate)
    return Sources({"torch": source, ONNX: str(Path(folder) / "onnx")}, {})


def why_not_exported(model: Extractor) -> str:
    """Why ONNX Runtime cannot run a model here; empty if it can."""
    if not isinstance(model, SpexPlusOnline):
        return f"{type(model).__name__} has no export for streams"
    absent = [name for name in ("onnx", ONNX) if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def file_bytes(model: Extractor, sources: Sources) -> dict[str, int]:
    """Size of what has to be shipped: the weights as torch saves them, and the files of the export."""
    weights = io.BytesIO()
    torch.save(model.state_dict(), weights)
    sizes = {"weights": weights.tell()}
    if ONNX in sources.by_runtime:
        sizes |= {path.name: path.stat().st_size for path in sorted(Path(sources.by_runtime[ONNX]).iterdir())}
    return sizes


def chunk_sizes(settings: Settings, model: Extractor, milliseconds: list[float]) -> list[int]:
    """Samples that a listener gives at once: the online model takes any number, a segment model its step, others an utterance."""
    if isinstance(model, SpexPlusOnline):
        return [settings.samples(ms / 1000) for ms in milliseconds]
    streamer = instantiate(settings.streamer)
    return [streamer.step if isinstance(streamer, Streamer) else settings.samples(settings.utterance_seconds)]


def job(settings: Settings, sources: Sources, runtime: str, chunks: list[int], seconds: float, device: str = "cpu") -> Job:
    """Streams of so many seconds for every chunk size."""
    return Job(
        runtime=runtime,
        source=sources.by_runtime[runtime],
        streamer=settings.streamer,
        chunks=chunks,
        calls=[max(1, round(seconds * settings.sample_rate / chunk)) for chunk in chunks],
        warmup=settings.n_warmup,
        enrolment=settings.samples(settings.enrolment_seconds),
        threads=settings.threads,
        device=device,
    )


def run_alone(job: Job) -> Run:
    """Runs a job in a fresh interpreter. Raises RuntimeError with what that printed if it fails."""
    command = [sys.executable, "-c", SCRIPT, str(alone.__file__)]
    env = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
    done = subprocess.run(command, input=json.dumps(job._asdict()), capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring with {job.runtime} failed:\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def torch_streams(job: Job, enrolment: Samples) -> Callable[[int], Process]:
    """What opens a torch stream for chunks of so many samples, in this process; audio and result in the CPU's memory."""
    torch.set_num_threads(job.threads)
    torch.set_grad_enabled(False)
    model, streamer = load_extractor(job.source, job.device), instantiate(job.streamer)
    speaker = model.enroll(torch.from_numpy(enrolment)[None].to(job.device))

    def opened(chunk: int) -> Process:
        stream = open_stream(model, streamer, speaker, chunk)
        return lambda samples: stream.process(torch.from_numpy(samples)[None].to(job.device)).cpu()

    return opened
