"""A stand-in for sounddevice: clock threads drive the callbacks, the microphone hears a file, the speakers fill one.

The clock runs at half the real pace, as test machines are busy. When the microphone has heard its file, and FAKE_AFTER ticks of
silence, it presses Ctrl-C. Environment: FAKE_INPUT a wav file, FAKE_OUTPUT a .npy file [n], FAKE_RATES the rates that devices take.
"""

import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import soundfile


class PortAudioError(Exception):
    """As in sounddevice."""


def query_devices():
    return "  0 Fake Microphone\n> 1 Fake Cable"


def check_input_settings(device=None, channels=None, dtype=None, samplerate=None):
    if str(samplerate) not in os.environ.get("FAKE_RATES", "16000").split():
        raise PortAudioError(f"Invalid sample rate {samplerate}\nand more")


check_output_settings = check_input_settings


class Stream:
    latency = 0.004

    def __init__(self, samplerate, blocksize, device, channels, dtype, latency, callback):
        assert (dtype, latency) == ("float32", "low")
        if device == "broken":
            raise ValueError("No such device")
        self.device = device
        self.rate, self.block, self.channels, self.callback = samplerate, blocksize, channels, callback
        self.active = False
        self.status = SimpleNamespace(input_overflow=False, output_underflow=False)

    def start(self):
        if self.device == "busy":
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        self.active = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        due = time.monotonic()
        while self.active:
            due += 2 * self.block / self.rate
            self.tick()
            time.sleep(max(0, due - time.monotonic()))

    def stop(self):
        self.active = False
        self.thread.join()

    def close(self):
        assert not self.active


class InputStream(Stream):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.left, rate = soundfile.read(os.environ["FAKE_INPUT"], dtype="float32", always_2d=True)
        assert rate == self.rate
        self.after = int(os.environ.get("FAKE_AFTER", "3"))

    def tick(self):
        heard, self.left = self.left[: self.block], self.left[self.block :]
        block = np.zeros((self.block, self.channels), np.float32)
        block[: len(heard)] = heard
        self.callback(block, self.block, None, self.status)
        self.after -= not len(self.left)
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGINT)


class OutputStream(Stream):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.played = []

    def tick(self):
        block = np.full((self.block, self.channels), np.nan, np.float32)
        self.callback(block, self.block, None, self.status)
        self.played.append(block)

    def close(self):
        super().close()
        np.save(os.environ["FAKE_OUTPUT"], np.concatenate(self.played) if self.played else np.zeros((0, self.channels)))
