"""The audio of a call, frame by frame: frames go in as they come, frames of the same length come out, a fixed time later.

Who is to be heard is told by an enrolment; without one it is the caller: whoever speaks alone first, in clean audio.
Shapes: n samples of a frame, C channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss.audio import Wave
from ss.data.speech_activity import BLOCK, find_active
from ss.errors import UserError
from ss.runtime import Conditions, Extractor, Stream
from ss.runtime.enrolment import SHORTEST, find_faults
from ss.runtime.extractor import Recordings
from ss.runtime.resample import Resampler, check_rate, resampling_reach
from ss.runtime.stream import LOUDEST, repair, to_float, to_type

PIECE = 0.5  # seconds of audio, after each of which speech is looked for
PIECES = 30  # are kept at most: of more, the quietest is dropped
SPEECH_DB = 20.0  # below the loudest block, where speech ends
QUIET = 0.003  # of full scale, -50 dB: audio whose peak is lower is no speech
WAITING, ENROLLING, EXTRACTING, DISABLED = "waiting", "enrolling", "extracting", "disabled"


class CallFilter:
    """Leaves one speaker in a call. Any number of calls share an Extractor; each has a filter of its own, for one thread at a time.

    enrolment: as for `Extractor.enroll`, samples at the model's rate; None: the first clean `seconds` of speech in the call.
    sample_rate: of the frames in Hz (None: the model's). channels: of frames that are bytes. mute: silence, instead of all voices,
    until it is known who is to be heard. Raises UserError for values that cannot be, and for an enrolment that cannot be used.

    Every change of `state` is told to `on_state(state, details)`: "waiting" for speech, details["faults"] says in words what was
    wrong with the speech so far; "enrolling", speech is being collected; "extracting", details["conditions"] may be saved for the
    caller's next call; "disabled", all voices pass.

    delay: samples that every frame is late, the same in all states; it depends on the sample rate. repaired: samples that were NaN
    or infinite and were taken for 0.
    """

    def __init__(
        self,
        extractor: Extractor,
        enrolment: Recordings | None = None,
        sample_rate: int | None = None,
        channels: int = 1,
        mute: bool = False,
        seconds: float = 5.0,
        on_state: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        if channels < 1:
            raise UserError(f"channels: expected at least 1, got {channels}")
        if not SHORTEST <= seconds <= PIECE * PIECES:
            raise UserError(f"seconds: expected {SHORTEST:g} to {PIECE * PIECES:g} s of speech, got {seconds:g}")
        self.extractor, self.channels, self.mute, self.seconds, self.on_state = extractor, channels, mute, seconds, on_state
        self.sample_rate, self.state, self.repaired = extractor.sample_rate, WAITING, 0
        self.stream: Stream | None = None
        self.pieces: list[Wave] = []  # of what may become the enrolment, at the model's rate
        self.piece = np.zeros(0, np.float32)  # which is not complete
        self.restart(sample_rate or extractor.sample_rate)
        self.re_enroll(enrolment)

    def restart(self, sample_rate: int) -> None:
        """From now on, frames are at this rate in Hz. Who is to be heard stays; the last `delay` samples are lost."""
        check_rate(sample_rate)
        model, self.sample_rate = self.extractor, sample_rate
        self.coming = Resampler(1, sample_rate, model.sample_rate)
        held = model.delay + model.hop - 1 + resampling_reach(model.sample_rate, sample_rate)  # at most, at the model's rate
        self.delay = self.coming.reach + -(-held * sample_rate // model.sample_rate)
        self.late: NDArray[Any] = np.zeros(self.delay, np.float32)  # what comes out next
        if self.stream and self.conditions:
            self.stream = model.stream(self.conditions, sample_rate)

    def re_enroll(self, enrolment: Recordings | None = None) -> None:
        """Another speaker from now on; None: whoever is the next to speak alone. Raises UserError, and nothing changes."""
        self.conditions: Conditions | None = None if enrolment is None else self.extractor.enroll(enrolment)
        self.pieces.clear()
        self.piece = self.piece[:0]
        if self.state != DISABLED:
            self._begin()

    def enable(self, on: bool) -> None:
        """Disabled, all voices pass; enabled again, the same speaker is to be heard."""
        if on and self.state == DISABLED:
            self._begin()
        elif not on and self.state != DISABLED:
            self._end_stream()
            self._change(DISABLED)

    def process(self, frame: Any) -> Any:
        """A frame -> one of the same type and length: that of `delay` samples ago, mono, the same in every channel.

        frame: int16 as bytes, channels interleaved, a part of a sample at the end is left out; or an array [n] or [n,C] of int16 or
        float32. Raises ValueError for other shapes and types.
        """
        if isinstance(frame, bytes | bytearray | memoryview):
            data, size = bytes(frame), 2 * self.channels
            samples = np.frombuffer(data[: len(data) // size * size], "<i2").reshape(-1, self.channels)
            return self.process(samples).tobytes()
        samples = np.asarray(frame)
        if samples.ndim not in (1, 2) or 0 in samples.shape[1:]:
            raise ValueError(f"expected samples [n] or [n,channels], got shape {list(samples.shape)}")
        if samples.dtype == np.int16 and samples.size == len(samples):
            mono = samples.reshape(-1)
        else:
            wave, bad = repair(to_float(samples), LOUDEST)
            mono, self.repaired = to_type(wave if wave.ndim == 1 else wave.mean(1), samples.dtype), self.repaired + bad
        if self.late.dtype != mono.dtype:
            self.late = to_type(to_float(self.late), mono.dtype)
        size = round(PIECE * self.sample_rate)
        for begin in range(0, len(mono), size):  # however long the frame is: its caller is enrolled within it
            block = mono[begin : begin + size]
            if self.stream:
                given = self.stream.process(block)
            else:
                given = np.zeros_like(block) if self.mute and self.state != DISABLED else block
            self.late = np.concatenate([self.late, given])
            if self.state in (WAITING, ENROLLING):
                self._listen(to_float(block))
        out, self.late = self.late[: len(mono)], self.late[len(mono) :]
        return out if samples.ndim == 1 else np.repeat(out[:, None], samples.shape[1], 1)

    def _listen(self, wave: Wave) -> None:
        """Collects the audio [n], looks for speech after every PIECE, and enrols where there is enough and it is clean."""
        rate = self.extractor.sample_rate
        self.piece = np.concatenate([self.piece, self.coming(wave[None])[0]])
        if len(self.piece) < PIECE * rate:
            return
        self.pieces.append(self.piece)
        self.piece = self.piece[:0]
        if len(self.pieces) > PIECES:
            self.pieces.pop(int(np.argmin([np.square(piece).mean() for piece in self.pieces])))
        heard = np.concatenate(self.pieces)
        if np.abs(heard).max() < QUIET:
            return
        active = np.repeat(find_active(heard, SPEECH_DB, rate), round(BLOCK * rate))[: len(heard)]
        if np.count_nonzero(active) < self.seconds * rate:
            if self.state != ENROLLING:
                self._change(ENROLLING)
        elif faults := find_faults(heard, rate):
            self.pieces.clear()
            self._change(WAITING, faults=faults)
        else:  # without the pauses, so that enrolling 5 s takes about as long as a frame
            self.pieces.clear()
            self.conditions = self.extractor.enroll(heard[active])
            self._begin()

    def _begin(self) -> None:
        self._end_stream()
        if self.conditions is None:
            self._change(WAITING, faults=[])
        else:
            self.stream = self.extractor.stream(self.conditions, self.sample_rate)
            self._change(EXTRACTING, conditions=self.conditions)

    def _end_stream(self) -> None:
        if self.stream and len(rest := self.stream.flush()):  # of a stream that was given nothing it is of another type
            self.late = np.concatenate([self.late, rest])
        self.stream = None

    def _change(self, state: str, **details: Any) -> None:
        self.state = state
        if self.on_state:
            self.on_state(state, details)
