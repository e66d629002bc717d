"""Torch models as a listener meets them: samples go in as they come, finished samples come out; all as numpy arrays on the CPU.

Shapes: B streams, n samples of a chunk, E speaker embedding.
"""

from collections.abc import Callable

import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F

from ss.checkpoint import load_extractor
from ss.errors import UserError
from ss.extraction import Chunking
from ss.measure.backend import Process, Samples, Streams, Workload, stream_of, unclipped
from ss.model import ExtractionModel
from ss.model.stateful import State


class TorchModel:
    """A model in torch as `BatchStream` runs it, for one speaker [1,E]."""

    sample_rate = 16000  # the same for what comes and goes, so any number does

    def __init__(self, model: ExtractionModel, speaker: Tensor, window: int, hop: int) -> None:
        self.model, self.speaker, self.window, self.hop = model, speaker, window, hop
        self.online, self.delay = model.online, model.delay if model.online else window - hop

    @torch.no_grad()
    def zeros(self, batch: int) -> State:
        """The state of a new stream."""
        return self.model.init_state(self.speaker, self.window)

    @torch.no_grad()
    def step(self, chunk: Samples, conditions: Samples, states: State) -> tuple[Samples, State]:
        """chunk [1,n] -> its wave [1,n], the state after it."""
        waves, states = self.model.step(torch.from_numpy(chunk).to(self.speaker.device), states)
        return waves[0].cpu().numpy(), states


def bare_call(model: ExtractionModel, speaker: Tensor, name: str, samples: int) -> Process:
    """A call without a buffer, on so many samples: an "enrolment", a whole "utterance", or the next "chunk" of a stream [1,E]."""
    state: State = None

    @torch.no_grad()
    def call(wave: Samples) -> Samples:
        nonlocal state
        audio = torch.from_numpy(wave)[None].to(speaker.device)
        if name == "enrolment":
            return model.enroll(audio).cpu().numpy()
        audio = F.pad(audio, (0, -samples % model.hop))
        waves, after = model.step(audio, state or model.init_state(speaker, audio.shape[-1]))
        state = after if name == "chunk" else None  # an utterance begins anew
        return waves[0][0].cpu().numpy()

    return call


def model_streams(model: ExtractionModel, streamer: Chunking, speaker: Tensor, utterance: int) -> Streams:
    """Streams of a speaker [1,E]; utterance: samples of one, for what cannot be streamed.

    Raises UserError for an online model with a streamer for segments: it carries all it needs by itself.
    """
    if model.online and streamer.window:
        raise UserError("streamer: the online model streams by itself; expected streamer=whole")
    window, hop = (model.hop, model.hop) if model.online else (streamer.window, streamer.step)
    if not (window and hop):
        return Streams(lambda: bare_call(model, speaker, "utterance", utterance), utterance, utterance, utterance, False)
    chunk = None if model.online else hop
    return Streams(lambda: unclipped(stream_of(TorchModel(model, speaker, window, hop))), window, hop, chunk)


@torch.no_grad()
def load(work: Workload, enrolment: Samples) -> Callable[[], Process]:
    """Loads the model of a torch backend; what opens a stream of the workload, or its bare call."""
    torch.set_num_threads(work.threads)
    model = load_extractor(work.backend.source, work.device)
    heard = torch.from_numpy(enrolment)[None].to(work.device)
    speaker = model.enroll(heard) if work.speaker is None else torch.tensor([work.speaker], device=work.device)
    if work.device != "cpu":
        torch.cuda.reset_peak_memory_stats(work.device)
    if work.call != "stream":
        return lambda: bare_call(model, speaker, work.call, work.chunks[0])
    return model_streams(model, instantiate(work.backend.streamer), speaker, work.chunks[0]).open
