"""A filter for the input of Pipecat's transports, which leaves one speaker. Needs pipecat-ai: pip install '.[pipecat]'

TransportParams(audio_in_enabled=True, audio_in_filter=TargetSpeakerFilter(Extractor.from_pretrained()))
"""

from typing import Any

from ss.errors import UserError, explain
from ss.integrations.call import CallFilter
from ss.runtime import Extractor
from ss.runtime.extractor import Recordings

with explain("ss.integrations.pipecat needs Pipecat: pip install pipecat-ai", ModuleNotFoundError):
    from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
    from pipecat.frames.frames import FilterControlFrame, FilterEnableFrame, FilterUpdateSettingsFrame


class TargetSpeakerFilter(BaseAudioFilter):
    """One call's filter: a new one for every transport. call: its CallFilter, which tells the state; settings: of that.

    FilterEnableFrame(False) lets all voices pass. FilterUpdateSettingsFrame({"enrolment": ...}) enrols another speaker, or, with
    None, whoever speaks next. Raises UserError as CallFilter does.
    """

    def __init__(self, extractor: Extractor, enrolment: Recordings | None = None, **settings: Any) -> None:
        self.call = CallFilter(extractor, enrolment, **settings)

    async def start(self, sample_rate: int) -> None:
        """The transport's sample rate in Hz is known. Raises UserError for one that cannot be."""
        self.call.restart(sample_rate)

    async def stop(self) -> None:
        """The call has ended: nothing is left to do."""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Enables, disables and enrols. Raises UserError for other settings, and for an enrolment that cannot be used."""
        if isinstance(frame, FilterEnableFrame):
            self.call.enable(frame.enable)
        elif isinstance(frame, FilterUpdateSettingsFrame):
            if set(frame.settings) != {"enrolment"}:
                raise UserError(f"expected the setting enrolment, got {', '.join(map(str, frame.settings)) or 'none'}")
            self.call.re_enroll(frame.settings["enrolment"])

    async def filter(self, audio: bytes) -> bytes:
        """int16 samples -> as many, see CallFilter.process. Nothing that comes raises: Pipecat would end the call's audio."""
        return self.call.process(audio)
