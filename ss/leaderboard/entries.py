"""What can be entered: checkpoints, exports, adapters of others, and bounds that no extractor passes.

Shapes: S samples of the mixture, R of the enrolment; T frames, K samples of a window, F bins.
"""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from torch import Tensor

from ss import allowlist
from ss.audio import Wave
from ss.inferencer import Inferencer
from ss.leaderboard.adapters import AdapterStream, make_adapter, model_bytes, package_version
from ss.measure.alone import Job
from ss.measure.cost import n_bytes
from ss.measure.latency import latency
from ss.measure.listening import measured_latency, milliseconds
from ss.measure.parts import Settings
from ss.measure.sources import chunk_sizes, run_alone
from ss.model.lapped import windows
from ss.runtime import Extractor as Runtime
from ss.utils.predecessor import read_checkpoint

CHUNK_SECONDS, LIVE_SECONDS, ENROLMENT_SECONDS, WARMUP = 0.01, 20.0, 5.0, 5
TINY = 1e-12


class Entry(Protocol):
    """One line of the leaderboard. fingerprint: changes when the estimates may be others. about: what it is, in a few words."""

    fingerprint: str
    about: str

    @property
    def sample_rate(self) -> int:
        """In Hz."""

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """mixture [S], ref [R] and, for bounds only, target [S] -> the estimate [S]."""

    def measure_costs(self) -> dict[str, float | None]:
        """What it costs live; empty for a bound.

        latency_ms (None: it waits for the whole utterance); p50_ms, p99_ms and real_time_factor (by the processor's time) of
        chunks of `chunk_ms` in one thread: 10 ms, or a model's own segments; peak_bytes of a process above an idle interpreter;
        model_bytes.
        """


class Inferring(ABC):
    """What checkpoints and exports have in common: both are run by an Inferencer."""

    @property
    @abstractmethod
    def inferencer(self) -> Inferencer:
        """What runs it, loaded when it is first asked for."""

    @property
    def sample_rate(self) -> int:
        """See Entry."""
        return self.inferencer.sample_rate

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """See Entry."""
        return self.inferencer.extract(mixture, ref)


class Checkpoint(Inferring):
    """A checkpoint of ours or the predecessor's, in torch. streamer: how utterances are cut; None: as it was trained."""

    def __init__(self, path: Path, streamer: Mapping[str, Any] | None = None) -> None:
        self.path, self.streamer = path, streamer
        self.fingerprint = f"{digest_of_files([path])} {json.dumps(streamer)}"
        self.about = "torch"

    @cached_property
    def inferencer(self) -> Inferencer:
        """See Inferring."""
        return Inferencer(self.path, instantiate(self.streamer))

    def measure_costs(self) -> dict[str, float | None]:
        """See Entry."""
        streamer = self.streamer
        if streamer is None:
            streamer = read_checkpoint(self.path)["config"]["streamer"]
            allowlist.check("streamer", streamer)
        settings = Settings("", streamer, checkpoint=str(self.path), sample_rate=self.sample_rate)
        model = settings.load()
        (chunk,) = chunk_sizes(settings, model, [1000 * CHUNK_SECONDS])
        return {
            "latency_ms": measured_latency(settings, model)["milliseconds"],
            **time_alone("torch", str(self.path), chunk, self.sample_rate, streamer),
            "model_bytes": n_bytes(model),
        }


class Export(Inferring):
    """The folder of an export, in ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, sorted(folder.glob("*.onnx"))
        self.fingerprint = digest_of_files(self.files)
        self.about = "ONNX Runtime"

    @cached_property
    def inferencer(self) -> Inferencer:
        """See Inferring."""
        return Inferencer(self.folder)

    def measure_costs(self) -> dict[str, float | None]:
        """See Entry."""
        enrolment, runtime = noise(ENROLMENT_SECONDS, self.sample_rate), Runtime.load(self.folder)
        found = latency(lambda: ListenedStream(runtime.stream(enrolment), runtime.hop))
        chunk = round(CHUNK_SECONDS * self.sample_rate) if runtime.online else runtime.hop
        return {
            "latency_ms": 1000 * found.waits / self.sample_rate,
            **time_alone("onnxruntime", str(self.folder), chunk, self.sample_rate),
            "model_bytes": sum(file.stat().st_size for file in self.files),
        }


class Peer:
    """An extractor that others made, by its adapter. config: the adapter's `_target_`, and what it is made with."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = json.dumps(dict(config), sort_keys=True)
        self.adapter = make_adapter(self.config)
        self.about = package_version(self.adapter)
        self.fingerprint = f"{self.about} {self.config} {inspect.getsource(type(self.adapter))}"

    @property
    def sample_rate(self) -> int:
        """See Entry."""
        return self.adapter.sample_rate

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """See Entry."""
        missing = self.adapter.delay + -(len(mixture) + self.adapter.delay) % self.adapter.hop
        wave = AdapterStream(self.adapter, ref).process(np.pad(mixture, (0, missing)))
        return wave[self.adapter.delay :][: len(mixture)]

    def measure_costs(self) -> dict[str, float | None]:
        """See Entry."""
        enrolment, hop = noise(ENROLMENT_SECONDS, self.sample_rate), self.adapter.hop
        found = latency(lambda: ListenedStream(AdapterStream(self.adapter, enrolment), hop, self.adapter.delay))
        chunk = max(1, round(CHUNK_SECONDS * self.sample_rate / hop)) * hop
        return {
            "latency_ms": 1000 * found.waits / self.sample_rate,
            **time_alone("adapter", self.config, chunk, self.sample_rate),
            "model_bytes": model_bytes(self.adapter),
        }


class Bound:
    """What is known without an extractor: the mixture as it is, or an oracle's mask."""

    sample_rate = 16000
    about = "bound"

    @property
    def fingerprint(self) -> str:
        """See Entry."""
        return inspect.getsource(type(self))

    def measure_costs(self) -> dict[str, float | None]:
        """See Entry."""
        return {}


class Unprocessed(Bound):
    """The mixture."""

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """See Entry."""
        return mixture


class OracleMask(Bound):
    """The best mask that one who knows the target gives each bin of the online model's filter bank: its windows reach back
    `window` samples, those of the synthesis `synthesis`, one every `hop`.

    complex: a complex mask up to magnitude 1; else a real one from 0 to 1.
    """

    about = "bound: the target is known"

    def __init__(self, complex: bool, window: int = 480, synthesis: int = 160, hop: int = 120) -> None:
        self.complex, self.window, self.synthesis, self.hop = complex, window, synthesis, hop

    @property
    def fingerprint(self) -> str:
        """See Entry."""
        return f"{inspect.getsource(type(self))} {vars(self)}"

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """See Entry."""
        analysis, synthesis = (window.double().numpy() for window in windows(self.window, self.synthesis, self.hop))
        behind = self.synthesis + -len(mixture) % self.hop
        spectra = []
        for wave in (mixture, target):
            padded = np.pad(wave.astype(np.float64), (self.window - self.hop, behind))
            frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]  # [T,K]
            spectra.append(np.fft.rfft(frames * analysis))  # [T,F]
        mixed, wanted = spectra
        mask = wanted * mixed.conj() / np.maximum(np.abs(mixed) ** 2, TINY)
        mask = mask / np.maximum(np.abs(mask), 1) if self.complex else mask.real.clip(0, 1)
        pieces = np.fft.irfft(mask * mixed, self.window)[:, -self.synthesis :] * synthesis
        estimate = np.zeros(len(pieces) * self.hop + self.synthesis)
        for frame, piece in enumerate(pieces):
            estimate[frame * self.hop :][: self.synthesis] += piece
        early = self.synthesis - self.hop  # a frame ends with its newest hop, its piece begins so much before
        return estimate[early:][: len(mixture)].astype(np.float32)


class ListenedStream:
    """A numpy stream as `ss.measure.latency` listens to it: waves [1,S] of torch."""

    def __init__(self, stream: Any, hop: int, delay: int = 0) -> None:
        self.stream, self.window, self.hop, self.delay = stream, hop, hop, delay

    def process(self, samples: Tensor) -> Tensor:
        """samples [1,S] -> the samples [1,P] that are finished now."""
        return torch.from_numpy(np.asarray(self.stream.process(samples[0].numpy()), np.float32))[None]


def make_entry(config: str | Mapping[str, Any]) -> Entry:
    """The entry of a config: a path of a checkpoint or of an export's folder, {checkpoint, streamer}, or a `_target_`, which is a
    bound of this module or an adapter. Raises ValueError where there is none."""
    if isinstance(config, str):
        config = {"checkpoint": config}
    if "_target_" in config:
        if not str(config["_target_"]).startswith("ss.leaderboard.entries."):
            return Peer(config)
        kind = get_class(config["_target_"])
        assert issubclass(kind, Bound)
        return kind(**{key: value for key, value in config.items() if key != "_target_"})  # type: ignore[return-value]
    path = Path(config["checkpoint"])
    if path.is_dir() and any(path.glob("*.onnx")):
        return Export(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint or the folder of an export, found neither")
    return Checkpoint(path, config.get("streamer"))


def digest_of_files(paths: list[Path]) -> str:
    """Of the names and contents of files, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def noise(seconds: float, sample_rate: int) -> Wave:
    """Noise [S] that is the same every time."""
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * sample_rate), np.float32)


def time_alone(runtime: str, source: str, chunk: int, sample_rate: int, streamer: dict[str, Any] | None = None) -> dict[str, float]:
    """What a stream in a process of its own needs for chunks of so many samples, in one thread."""
    job = Job(
        runtime=runtime,
        source=source,
        streamer=streamer or {},
        chunks=[chunk],
        calls=[max(10, round(LIVE_SECONDS * sample_rate / chunk))],
        warmup=WARMUP,
        enrolment=round(ENROLMENT_SECONDS * sample_rate),
    )
    run = run_alone(job)
    times = milliseconds(run.seconds[0])
    return {
        "real_time_factor": run.cpu_seconds[0] / len(run.seconds[0]) * sample_rate / chunk,  # a busy machine makes the calls longer
        "p50_ms": times["p50"],
        "p99_ms": times["p99"],
        "chunk_ms": 1000 * chunk / sample_rate,
        "peak_bytes": run.peak - run.idle,
    }
