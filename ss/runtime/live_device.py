"""Microphones, speakers and virtual devices, through sounddevice (PortAudio), which only this module imports.

The callbacks run in PortAudio's threads and only move samples; the extraction runs in the main thread between two bounded queues.
Shapes: n samples of a block, C channels.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ss.audio import Wave
from ss.errors import UserError
from ss.runtime.live_io import Sink, Source, samples_of
from ss.signals import SLICE, StopSignal

HELD = 1.0  # seconds of a microphone that may wait for a stalled extraction
SLACK = 0.04  # seconds by which speakers may lag more than they should before what is too late is skipped
SETTINGS = {"dtype": "float32", "latency": "low"}  # PortAudio's default adds some 40 ms
RATES = (48000, 44100, 16000)


def sounddevice() -> Any:
    """The module sounddevice. Raises UserError that says how to install it, or the PortAudio library that it needs."""
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise UserError("microphone and speakers need sounddevice: pip install sounddevice") from error
    except OSError as error:
        install = "apt install libportaudio2, dnf install portaudio or brew install portaudio"
        raise UserError(f"microphone and speakers need PortAudio ({error}): {install}") from error
    return sounddevice


def ask_device(what: str, action: Callable[..., Any], **settings: Any) -> Any:
    """What an action with a device gives, or UserError with what the device says."""
    try:
        return action(**settings)
    except (sounddevice().PortAudioError, ValueError) as error:
        said = str(error).partition("\n")[0]  # PortAudio appends lists of devices
        raise UserError(f"{what}: {said}; --list-devices shows what there is") from error


def shared_rate(wanted: int, device_in: str | int | None, channels_in: int, output: tuple[str | int | None, int] | None) -> int:
    """A sample rate that the input, and the output (device, channels) if one is given, take: the wanted one if they do.

    Raises UserError where they have none in common.
    """
    sd, rates, problem = sounddevice(), list(dict.fromkeys((wanted, *RATES))), ""
    for rate in rates:
        try:
            sd.check_input_settings(device=device_in, channels=channels_in, dtype="float32", samplerate=rate)
            if output:
                sd.check_output_settings(device=output[0], channels=output[1], dtype="float32", samplerate=rate)
            return rate
        except (sd.PortAudioError, ValueError) as error:
            problem = str(error).partition("\n")[0]
    tried = f"no sample rate of {', '.join(map(str, rates))} Hz suits the devices with {channels_in} channels in"
    raise UserError(f"{tried}: {problem}; --list-devices shows what there is")


class Microphone(Source):
    """A source: blocks that PortAudio's thread puts into a queue of one second; what does not fit is lost and counted.

    Listens from the first `read` on. Raises UserError for a device that cannot be opened.
    """

    def __init__(self, device: str | int | None, rate: int, channels: int, block_ms: float, stop: StopSignal) -> None:
        self.rate, self.stop, self.listening = rate, stop, False
        block = samples_of(block_ms, rate)
        self.waiting: queue.Queue[Wave] = queue.Queue(max(2, round(HELD * rate / block)))
        settings = {"device": device, "samplerate": rate, "channels": channels, "blocksize": block, **SETTINGS}
        self.stream = ask_device("the input device", sounddevice().InputStream, callback=self.receive, **settings)
        self.latency = float(self.stream.latency)

    def receive(self, block: Wave, frames: int, time: Any, status: Any) -> None:
        """PortAudio's callback: block [n,C]."""
        self.dropped += bool(status.input_overflow)
        try:
            self.waiting.put_nowait(block[:, 0].copy() if block.shape[1] == 1 else block.copy())
        except queue.Full:
            self.dropped += 1

    def read(self) -> Wave | None:
        if not (self.listening or self.stop.requested):
            ask_device("the input device", self.stream.start)
            self.listening = True
        while True:
            if self.stop.requested:
                self.pause()
            try:
                return self.waiting.get(timeout=SLICE if self.listening else 0.001)
            except queue.Empty:
                if self.stop.requested:
                    return None
                if not self.stream.active:
                    raise UserError("the input device stopped: is it still connected?") from None

    def pause(self) -> None:
        if self.listening:
            self.stream.stop()
            self.listening = False

    def close(self) -> None:
        self.stream.close()


class Speakers(Sink):
    """A sink: PortAudio's thread takes blocks from a buffer that is held `buffer_ms` longer than a block.

    The device starts with the first samples, behind as much silence as makes the buffer full, so that the latency is known. Where
    the estimate comes too late, silence is played and counted, and the buffer is filled in the same way again. What would make the
    latency grow is skipped and counted if the source is `live` (a microphone does not wait), else writing waits.
    Raises UserError for a device that cannot be opened.
    """

    def __init__(
        self, device: str | int | None, rate: int, channels: int, block_ms: float, buffer_ms: float, live: bool, stop: StopSignal
    ) -> None:
        self.rate, self.live, self.stop = rate, live, stop
        self.block, self.buffered = samples_of(block_ms, rate), buffer_ms / 1000
        self.target = self.block + round(self.buffered * rate)
        self.limit = self.target + max(4 * self.block, round(SLACK * rate))
        self.waiting, self.lock = np.zeros(0, np.float32), threading.Lock()
        self.playing = self.ending = False
        self.starved = True
        settings = {"device": device, "samplerate": rate, "channels": channels, "blocksize": self.block, **SETTINGS}
        self.stream = ask_device("the output device", sounddevice().OutputStream, callback=self.play, **settings)
        self.latency = float(self.stream.latency)

    def play(self, block: Wave, frames: int, time: Any, status: Any) -> None:
        """PortAudio's callback: fills block [n,C]."""
        with self.lock:
            taken, self.waiting = self.waiting[:frames], self.waiting[frames:]
            if len(taken) < frames:
                self.starved = True
                self.dropped += not self.ending
        self.dropped += bool(status.output_underflow)
        block[: len(taken)] = taken[:, None]
        block[len(taken) :] = 0

    def write(self, wave: Wave) -> None:
        while not self.live and self.playing and len(self.waiting) > self.target and not self.stop.wait(self.block / self.rate / 2):
            if not self.stream.active:
                raise UserError("the output device stopped: is it still connected?")
        if not len(wave):
            return
        with self.lock:
            silence = max(0, self.target - len(self.waiting) - len(wave)) if self.starved else 0
            self.waiting = np.concatenate([self.waiting, np.zeros(silence, np.float32), wave])
            self.starved = False
            if self.live and len(self.waiting) > self.limit:
                self.skipped += -(-(len(self.waiting) - self.target) // self.block)
                self.waiting = self.waiting[-self.target :]
        if not self.playing:
            ask_device("the output device", self.stream.start)
            self.playing = True

    def close(self) -> None:
        self.ending = True
        while self.playing and len(self.waiting) and self.stream.active:
            threading.Event().wait(SLICE)
        if self.playing:
            self.stream.stop()
        self.stream.close()
