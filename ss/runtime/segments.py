"""An exported segment model (SpeakerHandler.onnx, GRUMainModel.onnx) in ONNX Runtime: overlapping segments, their mean given out.

Shapes: R samples of an enrolment, n samples that come, m samples that go, W samples of a segment, E speaker embedding.
"""

import json
from pathlib import Path

import numpy as np

from ss.audio import Wave
from ss.runtime.extractor import session

HANDLER, MAIN = "SpeakerHandler.onnx", "GRUMainModel.onnx"


class SegmentExtractor:
    """The model in a folder that the export wrote; one of it serves any number of streams.

    window, step: samples of a segment, and between the beginnings of two. metadata: what the export says of the model.
    """

    def __init__(self, folder: str | Path, threads: int = 1, provider: str = "CPUExecutionProvider") -> None:
        self.handler, self.main = (session(Path(folder, name), threads, provider) for name in (HANDLER, MAIN))
        self.metadata: dict[str, str] = self.main.get_modelmeta().custom_metadata_map
        self.sample_rate, self.window, self.step = (int(self.metadata[key]) for key in ("sample_rate", "window", "step"))
        self.memory: list[int] = json.loads(self.metadata["memory"])  # channels and frames

    def enroll(self, refs: Wave) -> tuple[Wave, Wave]:
        """refs [B,R] -> speaker [B,E], logits [B,n] of the training speakers."""
        speaker, logits = self.handler.run(["speaker", "logits"], {"enrolment": refs})
        return speaker, logits

    def begin(self, batch: int) -> Wave:
        """The memory of new streams [B,m,T]."""
        return np.zeros((batch, *self.memory), np.float32)

    def next(self, segment: Wave, speaker: Wave, memory: Wave) -> tuple[Wave, Wave]:
        """segment [B,W], speaker [B,E], memory -> wave [B,W], memory."""
        wave, memory = self.main.run(["wave", "next_memory"], {"chunk": segment, "speaker": speaker, "memory": memory})
        return wave, memory

    def stream(self, enrolment: Wave) -> "SegmentStream":
        """A new stream of the speaker of an enrolment [R] at the model's rate."""
        return SegmentStream(self, self.enroll(enrolment[None])[0])


class SegmentStream:
    """One stream: each complete segment is a step; a sample is finished once no later segment covers it."""

    def __init__(self, extractor: SegmentExtractor, speaker: Wave) -> None:
        self.extractor, self.speaker, self.memory = extractor, speaker, extractor.begin(1)
        self.waiting: Wave = np.zeros(0, np.float32)
        self.tail: Wave | None = None
        self.owed = 0  # samples that came in and did not go out yet

    def process(self, samples: Wave) -> Wave:
        """samples [n] -> those that are finished [m]."""
        window, step = self.extractor.window, self.extractor.step
        self.waiting, finished = np.concatenate([self.waiting, samples]), [samples[:0]]
        while len(self.waiting) >= window:
            wave, self.memory = self.extractor.next(self.waiting[None, :window], self.speaker, self.memory)
            self.waiting = self.waiting[step:]
            finished.append(self._added(wave[0]))
        out = np.concatenate(finished)
        self.owed += len(samples) - len(out)
        return out

    def flush(self) -> Wave:
        """What is still to come, so that in sum as many samples went out as came in; the stream is at its end then."""
        owed = self.owed
        return self.process(np.zeros(self.extractor.window + self.extractor.step, np.float32))[:owed]

    def _added(self, wave: Wave) -> Wave:
        overlap = self.extractor.window - self.extractor.step
        if self.tail is not None:
            wave[:overlap] = (self.tail + wave[:overlap]) / 2
        self.tail = wave[self.extractor.step :]
        return wave[: self.extractor.step]
