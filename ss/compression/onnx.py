"""Exported models as extractors: the same enroll, init_state and step, in ONNX Runtime, on a CPU or a GPU.

Shapes: B batch, S samples, K chunks, W samples of a chunk, E speaker embedding, D conditions.
"""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional as F

from ss.model.carried import State
from ss.model.extractor import Extraction, Extractor
from ss.runtime import Extractor as Runtime
from ss.runtime.segments import MAIN, SegmentExtractor

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def provider(name: str) -> str:
    """ONNX Runtime's name of a provider. Raises ValueError for one that is not there."""
    if name not in PROVIDERS:
        raise ValueError(f"provider: expected one of {', '.join(PROVIDERS)}, got {name!r}")
    if PROVIDERS[name] not in onnxruntime.get_available_providers():
        found = ", ".join(onnxruntime.get_available_providers())
        raise ValueError(f"provider: ONNX Runtime cannot use {name} here (it has {found}): pip install onnxruntime-gpu")
    return PROVIDERS[name]


class OnnxExtractor(Extractor):
    """What both kinds have in common; nothing to train. metadata: of the export."""

    metadata: dict[str, str]

    def described(self) -> dict[str, Any]:
        """What the exported checkpoint said: {"config": its streamer, sample rate and loss, "speakers": those of training}."""
        return json.loads(self.metadata["checkpoint"])

    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W] and ref [B,S] -> Extraction; logits [B,0] where the export has no classifier."""
        speaker = self.enroll(ref, ref_lengths)
        state, outs = self.init_state(speaker, chunks.shape[-1]), []
        for chunk in chunks:
            (wave,), state = self.step(chunk, state)
            outs.append(wave)
        return Extraction((torch.stack(outs),), self.classified(ref, ref_lengths))

    def classified(self, ref: Tensor, lengths: Tensor | None) -> Tensor:
        """ref [B,S] -> logits."""
        return ref.new_zeros(len(ref), 0)


class OnnxSegments(OnnxExtractor):
    """SpeakerHandler.onnx and GRUMainModel.onnx in a folder. The state is (speaker [B,E], memory [B,m,T])."""

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        super().__init__()
        self.runtime = SegmentExtractor(folder, threads, name)
        self.metadata = self.runtime.metadata

    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Extractor."""
        return torch.cat([torch.from_numpy(self.runtime.enroll(one.numpy())[0]) for one in alone(ref, lengths)])

    def classified(self, ref: Tensor, lengths: Tensor | None) -> Tensor:
        """See OnnxExtractor."""
        return torch.cat([torch.from_numpy(self.runtime.enroll(one.numpy())[1]) for one in alone(ref, lengths)])

    def init_state(self, speaker: Tensor, samples: int) -> State:
        """See Extractor. Raises ValueError for segments of another length than the export's."""
        if samples != self.runtime.window:
            raise ValueError(f"this export is for segments of {self.runtime.window} samples, got {samples}")
        return speaker, torch.from_numpy(self.runtime.begin(len(speaker)))

    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """See Extractor."""
        speaker, memory = state
        wave, memory = self.runtime.next(*(x.contiguous().numpy() for x in (chunk, speaker, memory)))
        return (torch.from_numpy(wave),), (speaker, torch.from_numpy(memory))


class OnnxOnline(OnnxExtractor):
    """enroll.onnx and step.onnx in a folder: an exported online model. The state is (conditions [B,D], the runtime's states)."""

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        super().__init__()
        self.runtime = Runtime.load(folder, threads, name)
        self.metadata = self.runtime.metadata
        self.hop, self.delay = self.runtime.hop, self.runtime.delay

    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref [B,S] -> the conditions [B,D]."""
        return torch.cat([torch.from_numpy(self.runtime.conditions_of(one.numpy())) for one in alone(ref, lengths)])

    def init_state(self, speaker: Tensor, samples: int = 0) -> State:
        """See Extractor."""
        return speaker, {key: torch.from_numpy(value) for key, value in self.runtime.zeros(len(speaker)).items()}

    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """See Extractor; whole hops."""
        conditions, states = state
        wave, after = self.runtime.step(chunk.numpy(), conditions.numpy(), {key: value.numpy() for key, value in states.items()})
        return (torch.from_numpy(wave),), (conditions, {key: torch.from_numpy(value) for key, value in after.items()})

    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W], one signal, as `SpexPlusOnline` takes them."""
        n_chunks, batch, samples = chunks.shape
        whole = chunks.movedim(0, 1).reshape(batch, n_chunks * samples)
        padded = F.pad(whole, (0, self.delay + -(whole.shape[-1] + self.delay) % self.hop))
        state, waves = self.init_state(self.enroll(ref, ref_lengths)), []
        for chunk in padded.split(100 * self.hop, -1):
            (wave,), state = self.step(chunk.contiguous(), state)
            waves.append(wave)
        aligned = torch.cat(waves, -1)[:, self.delay :][:, : whole.shape[-1]]
        return Extraction((aligned.view(batch, n_chunks, samples).movedim(1, 0),), self.classified(ref, ref_lengths))


def load(folder: str | Path, on: str = "cpu", threads: int = 1) -> OnnxExtractor:
    """The extractor of an export's folder. Raises ValueError where that holds neither kind, or the provider is not there."""
    folder, name = Path(folder), provider(on)
    return (OnnxSegments if (folder / MAIN).exists() else OnnxOnline)(folder, name, threads)


def alone(ref: Tensor, lengths: Tensor | None) -> list[Tensor]:
    """Enrolments [B,S] -> each by itself [1,S'], without what they were padded with."""
    samples = [ref.shape[-1]] * len(ref) if lengths is None else lengths.tolist()
    return [wave[None, :n].contiguous() for wave, n in zip(ref, samples, strict=True)]
