"""What a listener of a live stream meets: its latency, the cost of a chunk, the memory, and whether long sessions get slower."""

from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor
from tqdm import tqdm

from ss.measure.alone import Run
from ss.measure.cost import n_macs
from ss.measure.latency import latency
from ss.measure.live import is_live, open_stream
from ss.measure.parts import Settings
from ss.measure.sources import Sources, chunk_sizes, job, run_alone
from ss.model import Extractor, SpexPlusOnline

SESSION_MS = 10.0  # chunks of a long session, where the model leaves the choice
PIECES = 10  # of a session, each with a mean time


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Mean, percentiles and maximum of times."""
    times = 1000 * np.array(seconds)
    p50, p95, p99 = np.percentile(times, (50, 95, 99)).tolist()
    return {"mean": times.mean().item(), "p50": p50, "p95": p95, "p99": p99, "max": times.max().item()}


def enrolled(settings: Settings, model: Extractor) -> Tensor:
    """A speaker [1,E] of noise."""
    return model.enroll(0.1 * torch.randn(1, settings.samples(settings.enrolment_seconds)))


@torch.inference_mode()
def measured_latency(settings: Settings, model: Extractor) -> dict[str, Any]:
    """Algorithmic latency of a stream; where there is none, a listener waits for the end of the utterance.

    samples, milliseconds: what a listener waits (None: the utterance). depends_samples: how far the output looks ahead.
    """
    streamer = instantiate(settings.streamer)
    if not is_live(model, streamer):
        return {"waits_for": "the utterance", "samples": None, "milliseconds": None, "depends_samples": None}
    speaker, utterance = enrolled(settings, model), settings.samples(settings.utterance_seconds)
    found = latency(lambda: open_stream(model, streamer, speaker, utterance))
    ms = 1000 * found.waits / settings.sample_rate
    return {"waits_for": "samples", "samples": found.waits, "milliseconds": ms, "depends_samples": found.depends}


@torch.inference_mode()
def macs_per_second(settings: Settings, model: Extractor) -> float:
    """MACs that a live stream needs for a second of audio, in the smallest steps that the model takes."""
    streamer, utterance = instantiate(settings.streamer), settings.samples(settings.utterance_seconds)
    stream = open_stream(model, streamer, enrolled(settings, model), utterance)
    return n_macs(stream.process, torch.randn(1, stream.window)) * settings.sample_rate / stream.hop


def live_rows(settings: Settings, model: Extractor, sources: Sources, devices: list[str]) -> list[dict[str, Any]]:
    """A row per runtime, device and chunk size: what the calls of a stream cost, its buffer included."""
    chunks, macs = chunk_sizes(settings, model, settings.chunk_ms), macs_per_second(settings, model)
    found = []
    for runtime in tqdm(sources.by_runtime, "live"):
        for device in devices if runtime == "torch" else ["cpu"]:
            run = run_alone(job(settings, sources, runtime, chunks, settings.live_seconds, device))
            about = {"runtime": runtime, "device": device, "threads": settings.threads if device == "cpu" else None}
            found += [{**about, **live_row(settings, run, i, chunk, macs)} for i, chunk in enumerate(chunks)]
    return found


def live_row(settings: Settings, run: Run, i: int, chunk: int, macs: float) -> dict[str, Any]:
    """What a run says of its i-th chunk size."""
    seconds, audio = run.seconds[i], chunk / settings.sample_rate
    return {
        "chunk_seconds": audio,
        "macs_per_second": macs,
        "calls": len(seconds),
        "milliseconds": milliseconds(seconds),
        "real_time_factor": float(np.mean(seconds)) / audio,
        "cpu_seconds_per_second": run.cpu_seconds[i] / len(seconds) / audio,
    }


def sessions(settings: Settings, model: Extractor, sources: Sources) -> list[dict[str, Any]]:
    """A row per runtime: one long stream on the CPU, as fast as it goes; time per call piece by piece, and memory."""
    (chunk,) = chunk_sizes(settings, model, [SESSION_MS])
    return [session(settings, sources, runtime, chunk) for runtime in tqdm(sources.by_runtime, "session")]


def session(settings: Settings, sources: Sources, runtime: str, chunk: int) -> dict[str, Any]:
    """One long stream; of utterances, as many as fit."""
    run = run_alone(job(settings, sources, runtime, [chunk], 60 * settings.session_minutes))
    pieces = np.array_split(1000 * np.array(run.seconds[0]), min(PIECES, len(run.seconds[0])))
    return {
        "runtime": runtime,
        "chunk_seconds": chunk / settings.sample_rate,
        "minutes": len(run.seconds[0]) * chunk / settings.sample_rate / 60,
        "mean_milliseconds": [piece.mean().item() for piece in pieces],
        **memory(run),
    }


def memory(run: Run) -> dict[str, int]:
    """Resident memory of a run in bytes; over_idle: once it streams, above an interpreter with numpy."""
    return {
        "idle_bytes": run.idle,
        "loaded_bytes": run.loaded,
        "begun_bytes": run.begun,
        "ended_bytes": run.ended,
        "peak_bytes": run.peak,
        "over_idle_bytes": run.ended - run.idle,
    }


def headline(model: Extractor, live: list[dict[str, Any]]) -> dict[str, Any]:
    """The real-time factor to quote: on the CPU, of ONNX Runtime where it ran, of the chunks nearest to 10 ms."""
    rows = [row for row in live if row["device"] == "cpu"] or live
    if isinstance(model, SpexPlusOnline):
        rows = [row for row in rows if row["runtime"] != "torch"] or rows
        rows = sorted(rows, key=lambda row: abs(1000 * row["chunk_seconds"] - SESSION_MS))
    return {"real_time_factor": rows[0]["real_time_factor"], "runtime": rows[0]["runtime"]}
