"""Weighs a model and times it: a row for the stream and one for the enrolment on every device, printed and as JSON."""

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ss.measure.cost import n_bytes, n_macs, n_parameters
from ss.measure.parts import Part, Settings, Timing, call_of, parts, timing
from ss.measure.table import text
from ss.model import Extractor

METHOD = """\
Time: from audio in the CPU's memory to the result there, batch 1, one call after the other, a stream's state carried on.
Real-time factor: mean time over the audio that a call adds (the hop of a chunk).
MACs: of convolutions and matrix products; norms, activations and other work on single elements are not counted.
Peak memory: of a process that does nothing else, weights included; on a CPU resident memory above that of Python with torch,
on a GPU tensors without CUDA's own context."""


def measure(config: dict[str, Any]) -> None:
    """Measures what a config of `measure_weight_and_time/` describes, prints a table and writes `measurement.json`.

    config: the fields of Settings. Raises ValueError for values that cannot
    be, and what loading a checkpoint raises.
    """
    settings = Settings.of(config)
    model = settings.load()
    report = {
        "model": type(model).__name__,
        "checkpoint": settings.checkpoint,
        "parameters": n_parameters(model),
        "weight_bytes": n_bytes(model),
        "machine": machine(),
        "method": METHOD.replace("\n", " "),
        "rows": rows(settings, model),
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
    return {"cpu": names[0] if names else platform.processor(), "gpu": gpu, "torch": torch.__version__}


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
    milliseconds = 1000 * np.array(timing.seconds)
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99)).tolist()
    mean, hop = milliseconds.mean().item(), part.hop / settings.sample_rate
    return {
        "part": part.name,
        "device": device,
        "threads": settings.threads if device == "cpu" else None,
        "audio_seconds": part.samples / settings.sample_rate,
        "hop_seconds": hop,
        "macs": macs,
        "macs_per_second": macs / hop,
        "calls": len(milliseconds),
        "milliseconds": {"mean": mean, "p50": p50, "p95": p95, "p99": p99, "max": milliseconds.max().item()},
        "real_time_factor": mean / 1000 / hop,
        "peak_memory_bytes": timing.peak_bytes,
    }
