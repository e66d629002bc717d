"""Weighs a model and times it, in torch, ONNX Runtime and the C library, and as a compressed export; tables, and a JSON of all."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from tqdm import tqdm

from ss import allowlist, checkpoint
from ss.compression.constraints import count_nonzero
from ss.errors import UserError, reject_unknown_keys, require_positive
from ss.measure.backend import C_INT8, ONNX, Backend, C, Streams, Workload
from ss.measure.latency import measure_latency
from ss.measure.report import publish
from ss.measure.streams import bare_call, model_streams
from ss.measure.worker import WorkerRun, run_alone
from ss.model import ExtractionModel
from ss.model.cost import n_bytes, n_macs, n_parameters
from ss.runtime.native import find_library
from ss.utils.predecessor import plain, read_checkpoint

METHOD = """\
Algorithmic latency: so many samples have to be in before an output sample comes out of a live stream; and the output changes with
input that is at most depends_samples - 1 later.
Live: chunks as a listener gives them, buffer included; each runtime in a process of its own. CPU/s: processor time of all threads
on a second of audio. Session: one stream as fast as it goes; mean time per call in each tenth. Memory over idle: resident memory at
its end above an interpreter with numpy.
Parts: from audio in the CPU's memory to the result there, batch 1, a stream's state carried on. Real time: mean time over the audio
that a call adds. MACs: of convolutions and matrix products only. Peak memory: of a process that does nothing else, weights
included; on a CPU above that of Python with torch, on a GPU tensors without CUDA's own context.
Files: the weights as torch saves them, the two graphs for ONNX Runtime, model.ss for the C library (c)."""
SESSION_MS = 10.0  # chunks of a long session, where the model leaves the choice
PIECES = 10  # of a session, each with a mean time
TIMES = ("mean", "p50", "p95", "p99", "max")
TIMES_COLUMNS = " | ".join(f"{name} ms {{milliseconds[{name}]:.2f}}" for name in TIMES)
PARTS = (
    "device {place} | part {part} | audio s {audio_seconds:g} | hop s {hop_seconds:g} | GMAC {macs/G:.3g} | "
    f"GMAC/s {{macs_per_second/G:.3g}} | {TIMES_COLUMNS} | real time {{real_time_factor:.3f}} | "
    "peak MiB {peak_memory_bytes/Mi:.0f}"
)
LIVE = (
    f"live {{runtime}} | device {{place}} | chunk ms {{chunk_seconds/m:g}} | {TIMES_COLUMNS} | "
    "real time {real_time_factor:.4f} | CPU/s {cpu_seconds_per_second:.4f}"
)
SESSIONS = (
    "session {runtime} | chunk ms {chunk_seconds/m:g} | minutes {minutes:.3g} | first ms {mean_milliseconds[0]:.2f} | "
    "last ms {mean_milliseconds[-1]:.2f} | begun MiB {begun_bytes/Mi:.0f} | ended MiB {ended_bytes/Mi:.0f} | "
    "over idle MiB {over_idle_bytes/Mi:.0f}"
)
MIB = 2**20


@dataclass(frozen=True)
class BenchSettings:
    """The keys of a config of `measure_weight_and_time/`.

    model: what to build, with random weights. checkpoint: a file whose model is taken instead. streamer: a Streamer, or Whole.
    devices: such as [cpu, cuda:0]; None is the CPU, and the GPU where there is one. threads: on a CPU.
    utterance_seconds, enrolment_seconds: how much audio goes in at once. n_chunks (or utterances), n_enrolments: calls that are
    timed, after n_warmup that are not. chunk_ms, live_seconds: sizes of the chunks that a live stream is given, and how much audio
    of each; session_minutes: of audio in the long session. out_folder: where `measurement.json` goes.
    Raises UserError for a value out of range.
    """

    out_folder: str
    streamer: dict[str, Any]
    model: dict[str, Any] | None = None
    checkpoint: str | None = None
    devices: list[str] | None = None
    threads: int = 1
    sample_rate: int = 16000
    utterance_seconds: float = 5
    enrolment_seconds: float = 5
    n_chunks: int = 100
    n_enrolments: int = 20
    n_warmup: int = 5
    chunk_ms: list[float] = field(default_factory=lambda: [5, 10, 20, 40, 150])
    live_seconds: float = 20
    session_minutes: float = 1

    def __post_init__(self) -> None:
        positive = ("threads", "sample_rate", "utterance_seconds", "enrolment_seconds", "n_chunks", "n_enrolments")
        require_positive(vars(self), *positive, "live_seconds", "session_minutes", or_zero=["n_warmup"])
        if not self.chunk_ms or self.samples(min(self.chunk_ms) / 1000) < 1:
            raise UserError(f"chunk_ms: expected chunks of at least a sample, got {list(self.chunk_ms)}")
        if self.model is None and self.checkpoint is None:
            raise UserError("expected a model or a checkpoint, got neither")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BenchSettings":
        """A checkpoint that says its sample rate has that. Raises UserError for an unknown key; `run_dir`, `n_gpu` and
        `n_processes` are others' business."""
        others = ("run_dir", "n_gpu", "n_processes")
        given = reject_unknown_keys(cls, {key: config[key] for key in config if key not in others})
        if given.get("checkpoint"):
            trained = plain(read_checkpoint(given["checkpoint"])["config"])
            given["sample_rate"] = trained.get("data", {}).get("sample_rate", given["sample_rate"])
        return cls(**given)

    @classmethod
    def from_checkpoint(cls, path: Path, **changes: Any) -> "BenchSettings":
        """How to measure a checkpoint, as its config says."""
        trained = plain(read_checkpoint(path)["config"])
        given = {"streamer": trained.get("streamer"), "sample_rate": trained.get("data", {}).get("sample_rate", 16000), **changes}
        allowlist.check("streamer", given["streamer"])
        return cls("", checkpoint=str(path), **given)

    def samples(self, seconds: float) -> int:
        """So many seconds, in samples."""
        return round(seconds * self.sample_rate)

    def load(self) -> ExtractionModel:
        """The extractor in eval mode: the checkpoint's, or the model with the same random weights every time."""
        if self.checkpoint is not None:
            return checkpoint.load_extractor(self.checkpoint)
        torch.manual_seed(0)
        return checkpoint.build(self.model).eval()

    def streams(self, model: ExtractionModel) -> Streams:
        """Streams of a speaker of noise."""
        with torch.no_grad():
            speaker = model.enroll(0.1 * torch.randn(1, self.samples(self.enrolment_seconds)))
        return model_streams(model, instantiate(self.streamer), speaker, self.samples(self.utterance_seconds))

    def place(self, device: str) -> dict[str, Any]:
        """What a row says of a device: on a CPU also how many threads."""
        threads = self.threads if device == "cpu" else None
        return {"device": device, "threads": threads, "place": f"{device} x{threads}" if threads else device}

    def live_workload(self, backend: Backend, chunks: list[int], seconds: float, device: str = "cpu") -> Workload:
        """Streams of so many seconds for every chunk size."""
        calls = [max(1, round(seconds * self.sample_rate / chunk)) for chunk in chunks]
        return Workload(backend, chunks, calls, self.n_warmup, self.samples(self.enrolment_seconds), self.threads, device)


def measure(config: dict[str, Any]) -> None:
    """Measures what a config of `measure_weight_and_time/` describes, prints tables and writes `measurement.json`.

    config: the fields of BenchSettings. Raises UserError for values that cannot be, and what loading a checkpoint raises.
    """
    settings = BenchSettings.from_config(config)
    usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices = usable if settings.devices is None else settings.devices
    if unknown := [device for device in devices if device.split(":")[0] not in usable]:
        raise UserError(f"devices: expected some of {usable}, got {unknown[0]!r}")
    model = settings.load()
    streams = settings.streams(model)
    with TemporaryDirectory() as folder:
        backends, missing = write_backends(settings, model, Path(folder))
        report: dict[str, Any] = {
            **describe_model(settings, model, streams, backends),
            "checkpoint": settings.checkpoint,
            "weight_bytes": n_bytes(model),
            "live": list(live_rows(settings, streams, backends, devices)),
            "sessions": [run_session(settings, streams, backend) for backend in tqdm(backends, "sessions")],
            "not_measured": missing,
            "rows": list(bare_rows(settings, streams, model, backends[0], devices)),
        }
    rows = [row for row in report["live"] if row["device"] == "cpu"] or report["live"]
    rows = [row for row in rows if row["runtime"] != "torch"] or rows
    row = min(rows, key=lambda row: abs(1000 * row["chunk_seconds"] - SESSION_MS))  # the real-time factor to quote
    report["headline"] = {"real_time_factor": row["real_time_factor"], "runtime": row["runtime"]}
    size = f"{report['parameters']:,} parameters, {report['weight_bytes'] / MIB:.1f} MiB"
    about = f"{report['model']} ({settings.checkpoint or 'random weights'}): {size}"
    latency, wait = report["latency"], report["latency"]["waits_for"]
    if streams.live:
        ahead = f"the output depends on input up to {latency['depends_samples'] - 1} samples later"
        wait = f"{latency['milliseconds']:g} ms ({latency['samples']} samples; {ahead})"
    facts = [f"algorithmic latency: {wait}", files_line(report), *(f"{name}: n/a ({why})" for name, why in missing.items())]
    tables = {"rows": PARTS, "live": LIVE, "sessions": SESSIONS}
    publish(settings.out_folder, "measurement.json", about, report, tables, "\n".join(facts), method=METHOD)


def measure_export(config: dict[str, Any]) -> None:
    """Measures `exported`, the graphs of `run_dir`'s checkpoint; prints tables, writes `measurement.json`."""
    given = {key: config[key] for key in ("threads", "chunk_ms", "live_seconds", "session_minutes")}
    settings = BenchSettings.from_checkpoint(Path(config["run_dir"]) / "best.pth", **given)
    model, backend = settings.load(), Backend(ONNX, config["exported"])
    streams = settings.streams(model)
    report: dict[str, Any] = {
        "model": type(model).__name__,
        "exported": config["exported"],
        "parameters": count_nonzero(model.state_dict()),
        "macs_per_second": macs_per_second(streams, settings.sample_rate),
        "file_bytes": file_bytes(config["exported"]),
        "live": list(live_rows(settings, streams, [backend], ["cpu"])),
        "sessions": [run_session(settings, streams, backend)],
    }
    numbers = f"{report['parameters']:,} parameters that are not zero, {report['macs_per_second'] / 1e6:.1f} MMAC/s"
    head = f"{report['model']} ({config['exported']}): {numbers}\n{files_line(report)}"
    publish(f"{config['run_dir']}/measure", "measurement.json", head, report, {"live": LIVE, "sessions": SESSIONS})


def write_backends(settings: BenchSettings, model: ExtractionModel, folder: Path) -> tuple[list[Backend], dict[str, str]]:
    """Writes what the runtimes need of the settings' model into a folder: the torch backend, then others; why one is missing."""
    source = settings.checkpoint
    if source is None:
        source = str(folder / "model.pth")
        checkpoint.save(source, {"config": {"model": settings.model}, "model": model.state_dict()})
    backends = [Backend("torch", source, settings.streamer)]
    if absent := [name for name in ("onnx", ONNX) if find_spec(name) is None]:
        return backends, {ONNX: f"{' and '.join(absent)} not installed"}
    if not (model.online or instantiate(settings.streamer).window):
        return backends, {ONNX: f"{type(model).__name__} takes whole utterances here: exports are of online models and of segments"}
    from ss.export import export  # onnx, which need not be installed

    export(model, folder / "onnx", settings.sample_rate, streamer=settings.streamer)
    backends.append(Backend(ONNX, str(folder / "onnx")))
    if not model.online or find_library() is None:
        return backends, {}
    export(model, folder / "int8", settings.sample_rate, int8=True)
    return [*backends, Backend(C, str(folder / "onnx")), Backend(C_INT8, str(folder / "int8"))], {}


def describe_model(settings: BenchSettings, model: ExtractionModel, streams: Streams, backends: list[Backend]) -> dict[str, Any]:
    """What is known of a model before it is timed; file_bytes: of its weights as torch saves them, and of its export's files."""
    weights = io.BytesIO()
    torch.save(model.state_dict(), weights)
    exported = file_bytes(backends[1].source) if len(backends) > 1 else {}
    return {
        "model": type(model).__name__,
        "parameters": n_parameters(model),
        "latency": describe_latency(streams, settings.sample_rate),
        "file_bytes": {"weights": weights.tell(), **exported},
    }


def file_bytes(folder: str | Path) -> dict[str, int]:
    """Size of each file of an export."""
    return {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}


def describe_latency(streams: Streams, sample_rate: int) -> dict[str, Any]:
    """Algorithmic latency of a stream; where there is none, a listener waits for the end of the utterance.

    samples, milliseconds: what a listener waits (None: the utterance). depends_samples: how far the output looks ahead.
    """
    if not streams.live:
        return {"waits_for": "the utterance", "samples": None, "milliseconds": None, "depends_samples": None}
    waits, depends = measure_latency(streams)
    return {"waits_for": "samples", "samples": waits, "milliseconds": 1000 * waits / sample_rate, "depends_samples": depends}


def macs_per_second(streams: Streams, sample_rate: int) -> float:
    """MACs that a live stream needs for a second of audio, in the smallest steps that the model takes."""
    noise = np.random.default_rng(0).standard_normal(streams.window, np.float32)
    return n_macs(streams.open(), noise) * sample_rate / streams.hop


def chunk_sizes(settings: BenchSettings, streams: Streams, milliseconds: Sequence[float]) -> list[int]:
    """Samples that a listener gives at once: of these lengths where a stream takes any number, else what it takes."""
    return [streams.chunk] if streams.chunk else [settings.samples(ms / 1000) for ms in milliseconds]


def live_rows(settings: BenchSettings, streams: Streams, backends: list[Backend], devices: list[str]) -> Iterator[dict[str, Any]]:
    """A row per runtime, device and chunk size: what the calls of a stream cost, its buffer included."""
    chunks, macs = chunk_sizes(settings, streams, settings.chunk_ms), macs_per_second(streams, settings.sample_rate)
    for backend in tqdm(backends, "live"):
        for device in devices if backend.runtime == "torch" else ["cpu"]:
            run = run_alone(settings.live_workload(backend, chunks, settings.live_seconds, device))
            about = {"runtime": backend.runtime, **settings.place(device), "macs_per_second": macs}
            yield from (about | call_costs(run, i, chunk / settings.sample_rate) for i, chunk in enumerate(chunks))


def call_costs(run: WorkerRun, i: int, audio_seconds: float) -> dict[str, Any]:
    """What a run says of its i-th chunk size, of which each call adds so much audio."""
    seconds = run.seconds[i]
    return {
        "chunk_seconds": audio_seconds,
        "calls": len(seconds),
        "milliseconds": describe_times(seconds),
        "real_time_factor": float(np.mean(seconds)) / audio_seconds,
        "cpu_seconds_per_second": run.cpu_seconds[i] / len(seconds) / audio_seconds,
    }


def describe_times(seconds: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles and maximum of times, in milliseconds."""
    times = 1000 * np.array(seconds)
    return dict(zip(TIMES, [times.mean().item(), *np.percentile(times, (50, 95, 99, 100)).tolist()], strict=True))


def run_session(settings: BenchSettings, streams: Streams, backend: Backend) -> dict[str, Any]:
    """One long stream on the CPU, as fast as it goes; time per call piece by piece, and memory. Of utterances, as many as fit."""
    (chunk,) = chunk_sizes(settings, streams, [SESSION_MS])
    run = run_alone(settings.live_workload(backend, [chunk], 60 * settings.session_minutes))
    pieces = np.array_split(1000 * np.array(run.seconds[0]), min(PIECES, len(run.seconds[0])))
    return {
        "runtime": backend.runtime,
        "chunk_seconds": chunk / settings.sample_rate,
        "minutes": len(run.seconds[0]) * chunk / settings.sample_rate / 60,
        "mean_milliseconds": [piece.mean().item() for piece in pieces],
        **{f"{name}_bytes": getattr(run, name) for name in ("idle", "loaded", "begun", "ended", "peak")},
        "over_idle_bytes": run.ended - run.idle,
    }


def bare_calls(settings: BenchSettings, streams: Streams) -> list[tuple[str, int, int, int]]:
    """(name, samples of a call, samples of audio that it adds, calls) of a chunk or an utterance, and of an enrolment."""
    whole, enrolment = settings.samples(settings.utterance_seconds), settings.samples(settings.enrolment_seconds)
    stream = ("chunk", streams.window, streams.hop) if streams.live and streams.chunk else ("utterance", whole, whole)
    return [(*stream, settings.n_chunks), ("enrolment", enrolment, enrolment, settings.n_enrolments)]


def bare_rows(
    settings: BenchSettings, streams: Streams, model: ExtractionModel, backend: Backend, devices: list[str]
) -> Iterator[dict[str, Any]]:
    """A row per device and call without a buffer: time, MACs, and peak memory, each in a process of its own."""
    with torch.no_grad():
        speaker = model.enroll(torch.randn(1, settings.samples(settings.enrolment_seconds)))
    turns = [(device, call) for device in devices for call in bare_calls(settings, streams)]
    for device, (name, samples, hop, calls) in (progress := tqdm(turns, "parts")):
        progress.set_description(f"{device} {name}")
        macs = n_macs(bare_call(model, speaker, name, samples), np.zeros(samples, np.float32))
        hop_seconds, embedding = hop / settings.sample_rate, speaker[0].tolist()
        run = run_alone(Workload(backend, [samples], [calls], settings.n_warmup, 0, settings.threads, device, name, embedding))
        yield {
            "part": name,
            **settings.place(device),
            "audio_seconds": samples / settings.sample_rate,
            "hop_seconds": hop_seconds,
            "macs": macs,
            "macs_per_second": macs / hop_seconds,
            **call_costs(run, 0, hop_seconds),
            "peak_memory_bytes": run.working,
        }


def files_line(report: dict[str, Any]) -> str:
    """What has to be shipped."""
    return "files: " + ", ".join(f"{name} {size / MIB:.2f} MiB" for name, size in report["file_bytes"].items())
