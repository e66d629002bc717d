"""A frame processor for LiveKit's audio streams, which leaves one speaker. Needs livekit: pip install '.[livekit]'

rtc.AudioStream(track, sample_rate=16000, noise_cancellation=TargetSpeakerProcessor(Extractor.from_pretrained()))
"""

from typing import Any

import numpy as np

from ss.errors import explain
from ss.integrations.call import CallFilter
from ss.runtime import Extractor
from ss.runtime.extractor import Recordings

with explain("ss.integrations.livekit needs LiveKit's SDK: pip install 'livekit>=1.1.2'", ImportError):
    from livekit.rtc import AudioFrame, FrameProcessor


class TargetSpeakerProcessor(FrameProcessor[AudioFrame]):
    """One participant's processor: a new one for every room. call: its CallFilter, which tells the state; settings: of that.

    Frames may change their rate, as those do that a client recorded before it was connected. Without an enrolment, another
    participant is enrolled anew. Raises UserError as CallFilter does.
    """

    def __init__(self, extractor: Extractor, enrolment: Recordings | None = None, **settings: Any) -> None:
        self.call = CallFilter(extractor, enrolment, **settings)
        self.anyone, self.participant = enrolment is None, ""

    @property
    def enabled(self) -> bool:
        """Disabled, LiveKit lets frames pass without a delay."""
        return self.call.state != "disabled"

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if value and not self.enabled:
            self.call.restart(self.call.sample_rate)  # what it holds is of the time before
        self.call.enable(value)

    def _on_stream_info_updated(self, *, room_name: str, participant_identity: str, publication_sid: str) -> None:
        if self.anyone and self.participant not in ("", participant_identity):
            self.call.re_enroll()
        self.participant = participant_identity

    def _process(self, frame: AudioFrame) -> AudioFrame:
        if frame.sample_rate != self.call.sample_rate:
            self.call.restart(frame.sample_rate)
        size, channels = frame.samples_per_channel, frame.num_channels
        samples = np.frombuffer(frame.data, np.int16)[: size * channels].reshape(size, channels)
        data = self.call.process(samples).tobytes()
        return AudioFrame(data, frame.sample_rate, channels, size, userdata=frame.userdata)

    def _close(self) -> None:
        pass  # nothing is held that outlives it
