"""Torch models as a listener meets them: samples go in as they come, finished samples come out; all as numpy arrays on the CPU.

Shapes: W samples of a window, H samples of a hop, E speaker embedding.
"""

from collections.abc import Callable

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F

from ss.checkpoint import load_extractor
from ss.extraction import Chunking
from ss.measure.backend import BufferedStream, Process, Samples, Streams, Workload
from ss.model import Extractor, SpexPlusOnline
from ss.streamer import Streamer


class Step:
    """Steps of a model, its state carried on: samples [W] -> [H]; the mean of windows where they overlap, as `streamer.join`."""

    @torch.no_grad()
    def __init__(self, model: Extractor, speaker: Tensor, window: int, hop: int) -> None:
        self.model, self.device, self.overlap = model, speaker.device, window - hop
        self.state = model.init_state(speaker, window)
        self.tail: Samples | None = None

    @torch.no_grad()
    def __call__(self, samples: Samples) -> Samples:
        """The next window."""
        waves, self.state = self.model.step(torch.from_numpy(samples)[None].to(self.device), self.state)
        wave: Samples = waves[0][0].cpu().numpy()
        if not self.overlap:
            return wave
        if self.tail is not None:
            wave = np.concatenate([(self.tail + wave[: self.overlap]) / 2, wave[self.overlap :]])
        finished, self.tail = np.split(wave, [len(wave) - self.overlap])
        return finished


def bare_call(model: Extractor, speaker: Tensor, name: str, samples: int) -> Process:
    """A call without a buffer, on so many samples: an "enrolment", a whole "utterance", or the next "chunk" of a stream [1,E]."""
    if name == "chunk":
        return Step(model, speaker, samples, samples)
    missing = -samples % model.hop if isinstance(model, SpexPlusOnline) else 0

    @torch.no_grad()
    def call(wave: Samples) -> Samples:
        audio = torch.from_numpy(wave)[None].to(speaker.device)
        if name == "enrolment":
            return model.enroll(audio).cpu().numpy()
        audio = F.pad(audio, (0, missing))
        return model.step(audio, model.init_state(speaker, audio.shape[-1]))[0][0][0].cpu().numpy()

    return call


def model_streams(model: Extractor, streamer: Chunking, speaker: Tensor, utterance: int) -> Streams:
    """Streams of a speaker [1,E]; utterance: samples of one, for what cannot be streamed.

    Raises ValueError for the online model with a streamer for segments: it carries all it needs by itself.
    """
    if isinstance(model, SpexPlusOnline):
        if isinstance(streamer, Streamer):
            raise ValueError("streamer: the online model streams by itself; expected streamer=whole")
        hop = model.hop
        return Streams(lambda: BufferedStream(Step(model, speaker, hop, hop), hop, hop, True).process, hop, hop, model.delay)
    if isinstance(streamer, Streamer):
        window, step = streamer.window, streamer.step
        return Streams(lambda: BufferedStream(Step(model, speaker, window, step), window, step).process, window, step, chunk=step)
    return Streams(lambda: bare_call(model, speaker, "utterance", utterance), utterance, utterance, 0, utterance, False)


@torch.no_grad()
def load(work: Workload, enrolment: Samples) -> Callable[[], Process]:
    """Loads the model of a torch backend; what opens a stream of the workload, or its bare call."""
    torch.set_num_threads(work.threads)
    model = load_extractor(work.backend.source, work.device)
    if work.speaker is None:
        speaker = model.enroll(torch.from_numpy(enrolment)[None].to(work.device))
    else:
        speaker = torch.tensor([work.speaker], device=work.device)
    if work.device != "cpu":
        torch.cuda.reset_peak_memory_stats(work.device)
    if work.call != "stream":
        return lambda: bare_call(model, speaker, work.call, work.chunks[0])
    return model_streams(model, instantiate(work.backend.streamer), speaker, work.chunks[0]).open


def allocated(device: str) -> int:
    """The most bytes that torch held on a GPU since the model was loaded, without CUDA's own context."""
    return torch.cuda.max_memory_allocated(device)
