"""Weighs a model and times it: a row for the stream and one for the enrolment on every device, printed and as JSON."""

import json
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ss.measure.cost import n_bytes, n_macs, n_parameters
from ss.measure.listening import headline, live_rows, measured_latency, milliseconds, sessions
from ss.measure.parts import Part, Settings, Timing, call_of, parts, timing
from ss.measure.sources import ONNX, file_bytes, sources
from ss.measure.table import text
from ss.model import Extractor

METHOD = """\
Algorithmic latency: a live stream in torch is fed sample by sample, and when an output sample comes out is noted: so many samples
have to be in. And the input from some sample on is exchanged, and the earliest output sample that changes is noted, until no
position of a hop can show more: an output sample depends on input that is at most depends_samples - 1 later.
Live: a stream is given chunks of any size by its listener and takes the steps that are complete: what a call costs, buffer
included; every runtime in a process of its own, the chunk sizes in turn, a tenth of their calls at a time.
CPU per second: time that the processor spent, in all threads, on a second of audio.
Session: one stream, as fast as it goes; mean time per call in each tenth of it. Memory over idle: resident memory at its end above
an interpreter with numpy: what the runtime and its imports, the model and the stream need together.
Files: the weights as torch saves them; enroll and step as exported for ONNX Runtime.
Parts, time: from audio in the CPU's memory to the result there, batch 1, one call after the other, a stream's state carried on.
Real-time factor: mean time over the audio that a call adds (the hop of a chunk).
MACs: of convolutions and matrix products; Fourier transforms, norms, activations and other work on single elements are not counted.
Peak memory: of a process that does nothing else, weights included; on a CPU resident memory above that of Python with torch,
on a GPU tensors without CUDA's own context."""


def measure(config: dict[str, Any]) -> None:
    """Measures what a config of `measure_weight_and_time/` describes, prints tables and writes `measurement.json`.

    config: the fields of Settings. Raises ValueError for values that cannot
    be, and what loading a checkpoint raises.
    """
    settings = Settings.of(config)
    on, model = devices(settings), settings.load()
    about = {"model": type(model).__name__, "checkpoint": settings.checkpoint, "parameters": n_parameters(model)}
    latency = measured_latency(settings, model)
    with TemporaryDirectory() as folder:
        found = sources(settings, model, folder)
        live = live_rows(settings, model, found, on)
        listening = {
            "latency": latency,
            "file_bytes": file_bytes(model, found),
            "live": live,
            "sessions": sessions(settings, model, found),
            "not_measured": found.missing,
        }
    report = {
        **about,
        "weight_bytes": n_bytes(model),
        "machine": machine(),
        "method": METHOD.replace("\n", " "),
        "headline": headline(model, live),
        "rows": rows(settings, model),
        **listening,
    }
    path = Path(settings.out_folder) / "measurement.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{text(report)}\n\n{METHOD}\n\n{path}")


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    runtime = version(ONNX) if find_spec(ONNX) else None
    return {"cpu": names[0] if names else platform.processor(), "gpu": gpu, "torch": torch.__version__, ONNX: runtime}


def devices(settings: Settings) -> list[str]:
    """Those asked for, or the CPU and the GPU if there is one. Raises ValueError for one that torch cannot use."""
    found = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    asked = found if settings.devices is None else settings.devices
    for device in asked:
        if device.split(":")[0] not in found:
            raise ValueError(f"devices: expected some of {found}, got {device!r}")
    return asked


def rows(settings: Settings, model: Extractor) -> list[dict[str, Any]]:
    """One row per device and part; the costs are counted on `model`, which is on the CPU."""
    on = devices(settings)
    audio = {part: torch.randn(1, part.samples) for part in parts(settings)}
    with torch.inference_mode():
        speaker = model.enroll(audio[parts(settings)[1]])
        costs = {part: n_macs(call_of(part, model, speaker), wave) for part, wave in audio.items()}
    return [
        row(settings, part, device, macs, timing(settings, part, device, speaker[0].tolist()))
        for device in on
        for part, macs in costs.items()
    ]


def row(settings: Settings, part: Part, device: str, macs: int, timing: Timing) -> dict[str, Any]:
    """Everything about one part on one device, in seconds, milliseconds and bytes as the keys say."""
    hop = part.hop / settings.sample_rate
    return {
        "part": part.name,
        "device": device,
        "threads": settings.threads if device == "cpu" else None,
        "audio_seconds": part.samples / settings.sample_rate,
        "hop_seconds": hop,
        "macs": macs,
        "macs_per_second": macs / hop,
        "calls": len(timing.seconds),
        "milliseconds": milliseconds(timing.seconds),
        "real_time_factor": sum(timing.seconds) / len(timing.seconds) / hop,
        "peak_memory_bytes": timing.peak_bytes,
    }
