"""Cuts a waveform into the chunks that a segment model works on, and joins its outputs again.

Shapes: B batch, S samples, K chunks, W samples of a chunk.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ss.errors import UserError, require_choice
from ss.runtime.stream import n_segments, overlap_add


class Streamer:
    """Chunks of `chunk_window` samples, one every `chunk_step`; `causal`: no chunk's output depends on what comes after the chunk.

    overlap_add_method: "half" (the step is half the window; where two chunks overlap, their mean) or "nonintersec" (the step is
    the window). Any length goes: the last chunk is filled up with zeros, and `join` gives back as many samples as asked for.
    """

    causal = True

    def __init__(self, chunk_window: int, chunk_step: int, overlap_add_method: str) -> None:
        steps = {"half": chunk_window / 2, "nonintersec": chunk_window}
        require_choice("overlap_add_method", overlap_add_method, steps)
        if chunk_step != steps[overlap_add_method] or chunk_step <= 0:
            expected = f"expected a step of {steps[overlap_add_method]:g}, got {chunk_step}"
            raise UserError(f"{overlap_add_method} with a window of {chunk_window}: {expected}")
        self.window, self.step = chunk_window, chunk_step

    def split(self, wave: Tensor) -> Tensor:
        """wave [B,S] -> chunks [K,B,W]."""
        padded = (n_segments(wave.shape[-1], self.window, self.step) - 1) * self.step + self.window
        return F.pad(wave, (0, padded - wave.shape[-1])).unfold(-1, self.window, self.step).movedim(1, 0)

    def join(self, chunks: Tensor, samples: int, lengths: Tensor | None = None) -> Tensor:
        """chunks [K,B,W] -> wave [B,samples], such that join(split(x), S) is x.

        lengths [B]: the samples of each, where padded. An utterance ends with its own last chunk, as it does alone.
        """
        tail, finished = chunks[0][:, :0], []
        for number, chunk in enumerate(chunks):
            done, after = overlap_add(chunk, tail, self.step)
            if lengths is not None and tail.shape[-1]:
                ended = lengths <= (number - 1) * self.step + self.window
                done = torch.where(ended[:, None], tail, done)
            finished.append(done)
            tail = after
        return torch.cat([*finished, tail], -1)[:, :samples]


class Whole:
    """No streaming: the whole utterance is the one chunk."""

    window = step = None
    causal = False

    def split(self, wave: Tensor) -> Tensor:
        """wave [B,S] -> chunks [1,B,S]."""
        return wave[None]

    def join(self, chunks: Tensor, samples: int, lengths: Tensor | None = None) -> Tensor:
        """chunks [1,B,S] -> wave [B,samples]."""
        return chunks[0, :, :samples]
