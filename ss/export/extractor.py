"""Exported models as extractors: the same enroll, init_state and step, in ONNX Runtime, on a CPU or a GPU, or in the C library.

Shapes: B batch, S samples, K chunks, W samples of a chunk, E speaker embedding, D conditions.
"""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from ss.audio import Wave
from ss.errors import UserError, require_choice
from ss.model.extractor import Extraction, ExtractionModel
from ss.model.stateful import State
from ss.runtime.extractor import CPU, Extractor

NATIVE = "c"  # no provider of ONNX Runtime, but the C library
PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider", NATIVE: CPU}


class ExportedExtractor(ExtractionModel):
    """The model in an export's folder; nothing to train. The state is (conditions [B,D], the runtime's states).

    on: cpu or cuda of ONNX Runtime, or c, the C library, whose streams advance with each step, so that a state serves once.
    Raises UserError where there is no export in the folder, or `on` is not to be had here.
    """

    def __init__(self, folder: str | Path, on: str = "cpu") -> None:
        super().__init__()
        require_choice("provider", on, PROVIDERS)
        if PROVIDERS[on] not in (there := onnxruntime.get_available_providers()):
            raise UserError(f"provider: ONNX Runtime cannot use {on} here (it has {', '.join(there)}): pip install onnxruntime-gpu")
        self.runtime = Extractor.load(folder, provider=PROVIDERS[on], backend="c" if on == NATIVE else "onnxruntime")
        self.online, self.latency = self.runtime.online, self.runtime.latency
        self.hop, self.delay = (self.runtime.hop, self.runtime.delay) if self.online else (1, 0)

    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref [B,S] -> the conditions [B,D]."""
        return for_each(self.runtime.conditions_of, ref, lengths)

    def init_state(self, speaker: Tensor, samples: int = 0) -> State:
        """See ExtractionModel. Raises UserError for segments of another length than the export's."""
        if not self.online and samples != self.runtime.window:
            raise UserError(f"this export is for segments of {self.runtime.window} samples, got {samples}")
        return speaker, self.runtime.zeros(len(speaker))

    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        conditions, states = state
        wave, after = self.runtime.step(chunk.contiguous().numpy(), conditions.numpy(), states)
        return (torch.from_numpy(wave),), (conditions, after)

    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W] and ref [B,S] -> Extraction; logits [B,0] where the export has no classifier."""
        state = self.init_state(self.enroll(ref, ref_lengths), chunks.shape[-1])
        wave = self.run_stream(chunks, state, 100 * self.hop if self.online else chunks.shape[-1])
        return Extraction((wave,), for_each(self.runtime.classify, ref, ref_lengths))


def for_each(function: Callable[[Wave], Wave], ref: Tensor, lengths: Tensor | None) -> Tensor:
    """What a function of an enrolment [1,S'] gives for each of these [B,S], without what they were padded with."""
    samples = [ref.shape[-1]] * len(ref) if lengths is None else lengths.tolist()
    waves = [wave[None, :n].contiguous().numpy() for wave, n in zip(ref, samples, strict=True)]
    return torch.cat([torch.from_numpy(function(wave)) for wave in waves])
