"""What can be entered: checkpoints, exports, adapters of others, and bounds that no extractor passes.

Shapes: S samples of the mixture, R of the enrolment; T frames, F bins.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import files, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch.nn.functional import pad

from ss.audio import Wave
from ss.data.packed import Place
from ss.errors import UserError
from ss.inferencer import Inferencer
from ss.measure.backend import ADAPTER, ONNX, AdapterModel, Backend, C, Streams, Workload, make_adapter, stream_of, streams_of
from ss.measure.bench import BenchSettings, call_costs, describe_latency
from ss.measure.worker import run_alone
from ss.model.cost import n_bytes
from ss.model.stft import MultiWindowSTFT, OverlapAddDecoder, Spectrum
from ss.runtime.pretrained import NATIVE

CHUNK_SECONDS, LIVE_SECONDS, ENROLMENT_SECONDS, WARMUP = 0.01, 20.0, 5.0, 5
TINY = 1e-12


class Entry:
    """One line of the leaderboard.

    fingerprint: changes when the estimates may be others. about: what it is, in a few words. is_bound: whether it is no extractor.
    """

    fingerprint: str
    about: str
    is_bound = False
    sample_rate = 16000

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """mixture [S], ref [R] and, for bounds only, target [S] -> the estimate [S]."""
        raise NotImplementedError

    def measure_costs(self) -> dict[str, float | None]:
        """What it costs live; empty for a bound.

        latency_ms (None: it waits for the whole utterance); p50_ms, p99_ms and real_time_factor (by the processor's time) of
        chunks of `chunk_ms` in one thread: 10 ms, or a model's own segments; peak_bytes of a process above an idle interpreter;
        model_bytes.
        """
        return {}


class ModelEntry(Entry):
    """A checkpoint of ours or the predecessor's, in torch, or the folder of an export, in ONNX Runtime or the C library.

    streamer: how a checkpoint's utterances are cut; None: as it was trained. provider: of an export, see `Inferencer`.
    """

    def __init__(self, path: Path, streamer: Mapping[str, Any] | None = None, provider: str = "cpu") -> None:
        self.path, self.streamer, self.is_export = path, streamer, path.is_dir()
        self.runtime = C if provider == C else ONNX
        self.files = sorted(path.glob(NATIVE if self.runtime == C else "*.onnx")) if self.is_export else [path]
        self.fingerprint = digest_of_files(self.files) + ("" if self.is_export else f" {json.dumps(streamer)}")
        self.about = ("C library" if self.runtime == C else "ONNX Runtime") if self.is_export else "torch"
        self.inferencer = Inferencer(path, instantiate(streamer), provider)
        self.sample_rate = self.inferencer.sample_rate

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        return self.inferencer.extract(mixture, ref)

    def measure_costs(self) -> dict[str, float | None]:
        if self.is_export:
            size = sum(file.stat().st_size for file in self.files)
            return measure_streams(Backend(self.runtime, str(self.path)), self.sample_rate, size)
        given = {"streamer": dict(self.streamer)} if self.streamer else {}
        settings = BenchSettings.from_checkpoint(self.path, sample_rate=self.sample_rate, **given)
        model, backend = settings.load(), Backend("torch", str(self.path), settings.streamer)
        return measure_streams(backend, self.sample_rate, n_bytes(model), settings.streams(model))


class AdapterEntry(Entry):
    """An extractor that others made, by its adapter. config: the adapter's `_target_`, and what it is made with."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = json.dumps(dict(config), sort_keys=True)
        self.adapter = make_adapter(self.config)
        self.sample_rate = self.adapter.sample_rate
        self.about = f"{self.adapter.package} {version(self.adapter.package)}"
        self.fingerprint = f"{self.about} {self.config} {inspect.getsource(type(self.adapter))}"

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        stream = stream_of(AdapterModel(self.adapter, ref))
        return np.concatenate([stream.process(mixture), stream.flush()])

    def measure_costs(self) -> dict[str, float | None]:
        graphs: list[Any] = [file for file in files(self.adapter.package) or () if file.suffix == ".onnx"]
        size = sum(file.locate().stat().st_size for file in graphs)
        return measure_streams(Backend(ADAPTER, self.config), self.sample_rate, size)


def measure_streams(backend: Backend, sample_rate: int, size: int, streams: Streams | None = None) -> dict[str, float | None]:
    """What an entry costs (see Entry): the latency of its streams, and a stream in a process of its own, in one thread."""
    if streams is None:
        noise = np.random.default_rng(0).standard_normal(round(ENROLMENT_SECONDS * sample_rate), np.float32)
        streams = streams_of(backend, 0.1 * noise)
    chunk = streams.chunk or round(CHUNK_SECONDS * sample_rate)
    calls = max(10, round(LIVE_SECONDS * sample_rate / chunk))
    run = run_alone(Workload(backend, [chunk], [calls], WARMUP, round(ENROLMENT_SECONDS * sample_rate)))
    costs = call_costs(run, 0, chunk / sample_rate)
    return {
        "latency_ms": describe_latency(streams, sample_rate)["milliseconds"],
        "real_time_factor": costs["cpu_seconds_per_second"],  # a busy machine makes the calls longer
        "p50_ms": costs["milliseconds"]["p50"],
        "p99_ms": costs["milliseconds"]["p99"],
        "chunk_ms": 1000 * chunk / sample_rate,
        "peak_bytes": run.peak - run.idle,
        "model_bytes": size,
    }


class Unprocessed(Entry):
    """A bound: the mixture as it is."""

    about, is_bound = "bound", True

    def __init__(self) -> None:
        self.fingerprint = inspect.getsource(type(self))

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        return mixture


class OracleMask(Entry):
    """A bound: the best mask that one who knows the target gives each bin of the online model's filter bank: its windows reach back
    `window` samples, those of the synthesis `synthesis`, one every `hop`.

    complex: a complex mask up to magnitude 1; else a real one from 0 to 1.
    """

    about, is_bound = "bound: the target is known", True

    def __init__(self, complex: bool, window: int = 480, synthesis: int = 160, hop: int = 120) -> None:
        self.complex, self.window, self.synthesis, self.hop = complex, window, synthesis, hop
        self.fingerprint = f"{inspect.getsource(type(self))} {vars(self)}"

    @torch.no_grad()
    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        encoder = MultiWindowSTFT([self.window], self.synthesis, self.hop)
        decoder, late = OverlapAddDecoder(self.window, self.synthesis, self.hop), self.synthesis - self.hop
        around = self.window - self.hop, late + -(len(mixture) + late) % self.hop
        mixed, wanted = torch.complex(*encoder(pad(torch.from_numpy(np.stack([mixture, target])), around)))  # [T,F]
        mask = wanted * mixed.conj() / mixed.abs().square().clamp_min(TINY)
        mask = mask / mask.abs().clamp_min(1) if self.complex else mask.real.clamp(0, 1)
        masked = (mask * mixed)[None]
        wave, _ = decoder(Spectrum(masked.real, masked.imag), torch.zeros(1, late))
        return wave[0, late:][: len(mixture)].numpy()


class OracleEnrolment(Entry):
    """A bound: a model that is enrolled with the target itself, the best that can be. checkpoint, provider: see ModelEntry."""

    about, is_bound = "bound: enrolled with the target itself", True

    def __init__(self, checkpoint: str, provider: str = "cpu") -> None:
        self.entry = ModelEntry(Path(checkpoint), provider=provider)
        self.sample_rate = self.entry.sample_rate
        self.fingerprint = f"{inspect.getsource(type(self))} {self.entry.fingerprint}"

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        return self.entry.estimate(mixture, target, target)


BOUNDS = {f"{kind.__module__}.{kind.__name__}": kind for kind in (Unprocessed, OracleMask, OracleEnrolment)}


def make_entry(config: str | Mapping[str, Any]) -> Entry:
    """The entry of a config: a path of a checkpoint or of an export's folder, {checkpoint, streamer, provider}, or a
    `_target_`, which is a bound of this module or an adapter. Raises UserError where there is none."""
    if isinstance(config, str):
        config = {"checkpoint": config}
    if target := config.get("_target_"):
        arguments = {key: value for key, value in config.items() if key != "_target_"}
        return BOUNDS[target](**arguments) if target in BOUNDS else AdapterEntry(config)
    path = Path(config["checkpoint"])
    if not path.is_file() and not any(path.glob("*.onnx")):
        raise UserError(f"{path}: expected a checkpoint or the folder of an export, found neither")
    return ModelEntry(path, config.get("streamer"), config.get("provider", "cpu"))


def digest_of_files(places: Sequence[Place]) -> str:
    """Of the names and contents of files, packed or not, in this order."""
    digest = hashlib.sha256()
    for place in places:
        content = place.read_bytes()
        digest.update(f"{place.name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()
