"""Extractors that others made, as the leaderboard calls them. To enter another one, write such a class and name it in a config.

This module imports nothing heavy, so that the process that weighs an extractor holds nothing else.

Shapes: R samples of an enrolment.
"""

from importlib import resources
from typing import Protocol

from ss.audio import Wave


class Adapter(Protocol):
    """A streaming extractor that computes in one thread.

    sample_rate: in Hz. hop: samples that `process` takes and gives. delay: samples that it gives before its estimate of the first
    input sample. package: the distribution that it comes from.
    """

    sample_rate: int
    hop: int
    delay: int
    package: str

    def enroll(self, enrolment: Wave) -> None:
        """Begins a new stream of the speaker who is heard in the enrolment [R]."""

    def process(self, samples: Wave) -> Wave:
        """The next samples [hop] -> as many of the output."""


class OpenVoiceFilterLite:
    """`open-voicefilter-lite` (Apache-2.0), which carries its weights in its wheel: masks on mel bands, an LSTM, int8."""

    package = "open-voicefilter-lite"

    def __init__(self) -> None:
        from onnxruntime import InferenceSession, SessionOptions
        from voicefilter_lite import StreamingVoiceFilter

        self.filter, options = StreamingVoiceFilter(), SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # it has no setting for this
        for session, file in (("_mask_sess", "voicefilter_lite"), ("_dvec_sess", "embedder")):
            path = resources.files("voicefilter_lite") / "models" / f"{file}.int8.onnx"
            setattr(self.filter, session, InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        settings = self.filter.hp
        self.sample_rate, self.hop = settings.sample_rate, settings.hop_length
        self.delay = settings.n_fft - self.hop  # it gives the oldest hop of its last Fourier transform

    def enroll(self, enrolment: Wave) -> None:
        self.filter.set_enrollment(enrolment)

    def process(self, samples: Wave) -> Wave:
        return self.filter.step(samples)
