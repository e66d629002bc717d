"""What is measured of an extractor, and how long it takes and what memory it needs, each in a process of its own.

Shapes: S samples of what one call takes in, W samples of a chunk, E speaker embedding.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ss.checkpoint import build, load_extractor
from ss.measure.memory import PeakMemory
from ss.model import Extractor, SpexPlusOnline
from ss.streamer import Streamer

Call = Callable[[Tensor], Tensor]
POSITIVE = (
    *("threads", "sample_rate", "utterance_seconds", "enrolment_seconds", "n_chunks", "n_enrolments"),
    *("live_seconds", "session_minutes"),
)


@dataclass(frozen=True)
class Settings:
    """The keys of a config of `measure_weight_and_time/`.

    model: what to build, with random weights. checkpoint: a file whose model is taken instead. streamer: a Streamer, or Whole.
    devices: such as [cpu, cuda:0]; None is the CPU, and the GPU where there is one. threads: on a CPU.
    utterance_seconds, enrolment_seconds: how much audio goes in at once. n_chunks (or utterances), n_enrolments: calls that are
    timed, after n_warmup that are not. chunk_ms, live_seconds: sizes of the chunks that a live stream is given, and how much audio
    of each; session_minutes: of audio in the long session. out_folder: where `measurement.json` goes.
    Raises ValueError for a key that is none of these and for a value out of range.
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
        for key in POSITIVE:
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: expected more than 0, got {getattr(self, key)}")
        if not self.chunk_ms or min(map(self.samples, (ms / 1000 for ms in self.chunk_ms))) < 1:
            raise ValueError(f"chunk_ms: expected chunks of at least a sample, got {list(self.chunk_ms)}")
        if self.model is None and self.checkpoint is None:
            raise ValueError("expected a model or a checkpoint, got neither")

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Settings":
        """The settings of a config, of which `n_gpu` and `n_processes` are the launcher's business."""
        own = {key: value for key, value in config.items() if key not in ("n_gpu", "n_processes")}
        unknown = set(own) - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"expected no other keys than those of settings.yaml, got {', '.join(sorted(unknown))}")
        return cls(**own)

    def samples(self, seconds: float) -> int:
        """So many seconds, in samples."""
        return round(seconds * self.sample_rate)

    def load(self, device: torch.device | str = "cpu") -> Extractor:
        """The extractor in eval mode: the checkpoint's, or the model with the same random weights every time."""
        if self.checkpoint is not None:
            return load_extractor(self.checkpoint, device)
        assert self.model is not None
        torch.manual_seed(0)
        return build(self.model).to(device).eval()


class Part(NamedTuple):
    """One thing to measure: a call that takes so many samples in, once in `hop` samples of a stream; `repeats` calls are timed.

    name: "chunk", "utterance" or "enrolment".
    """

    name: str
    samples: int
    hop: int
    repeats: int


def parts(settings: Settings) -> tuple[Part, Part]:
    """The stream, in chunks or as whole utterances, and the enrolment."""
    streamer = instantiate(settings.streamer)
    whole, enrolment = settings.samples(settings.utterance_seconds), settings.samples(settings.enrolment_seconds)
    if isinstance(streamer, Streamer):
        stream = Part("chunk", streamer.window, streamer.step, settings.n_chunks)
    else:
        stream = Part("utterance", whole, whole, settings.n_chunks)
    return stream, Part("enrolment", enrolment, enrolment, settings.n_enrolments)


def call_of(part: Part, model: Extractor, speaker: Tensor) -> Call:
    """A function of audio [1,S] that does the part once. Of a stream of chunks, each call goes on where the last one ended."""
    if part.name == "enrolment":
        return model.enroll
    state = model.init_state(speaker, part.samples)
    if part.name == "utterance":
        missing = -part.samples % model.hop if isinstance(model, SpexPlusOnline) else 0
        return lambda utterance: model.step(F.pad(utterance, (0, missing)), state)[0][0]

    def step(chunk: Tensor) -> Tensor:
        nonlocal state
        waves, state = model.step(chunk, state)
        return waves[0]

    return step


class Timing(NamedTuple):
    """seconds of each call, and the peak memory of the process in bytes (see PeakMemory)."""

    seconds: list[float]
    peak_bytes: int


def timing(settings: Settings, part: Part, device: str, speaker: list[float]) -> Timing:
    """Times the part in a fresh process, so that its memory and threads are nobody else's. speaker: the embedding [E]."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_time_here, settings, part, torch.device(device), speaker).result()


@torch.inference_mode()
def _time_here(settings: Settings, part: Part, device: torch.device, speaker: list[float]) -> Timing:
    torch.set_num_threads(settings.threads)
    memory = PeakMemory(device)
    model = settings.load(device)
    memory.restart()
    call = call_of(part, model, torch.tensor([speaker], device=device))
    seconds = [_seconds(call, part, device) for _ in tqdm(range(settings.n_warmup + part.repeats), f"{device} {part.name}")]
    return Timing(seconds[settings.n_warmup :], memory.peak())


def _seconds(call: Call, part: Part, device: torch.device) -> float:
    """Seconds from audio [1,S] in the CPU's memory to the result there, as a listener has to wait."""
    audio = 0.1 * torch.randn(1, part.samples)
    start = time.perf_counter()
    call(audio.to(device)).cpu()
    return time.perf_counter() - start
