"""Rooms: impulse responses from files, or simulated (image sources, Allen and Berkley, 1979, by pyroomacoustics).

Shapes: N samples of a response, S of a voice.
"""

from functools import lru_cache

import numpy as np
import scipy  # loads `fft` where it is first used

from ss.audio import Wave
from ss.scenes.row import Room

ROOMS_KEPT = 256
REFLECTIONS = 17  # of image sources at most, for speed: what comes later is far below


def direct_first(response: Wave) -> Wave:
    """A response [N] from its direct sound on, which becomes 1: a voice keeps its place in time and nearly its level."""
    place = int(np.abs(response).argmax())
    return response[place:] / response[place]


def early(response: Wave, ms: float, sample_rate: int) -> Wave:
    """The first milliseconds of a response."""
    return response[: max(1, round(ms * sample_rate / 1000))]


def reverberant(voice: Wave, *responses: Wave) -> list[Wave]:
    """A voice [S] through each of the responses, as long as it was."""
    size = scipy.fft.next_fast_len(len(voice) + max(map(len, responses)) - 1, real=True)
    spectrum = scipy.fft.rfft(voice, size)  # float32 all the way
    return [scipy.fft.irfft(spectrum * scipy.fft.rfft(response, size), size)[: len(voice)] for response in responses]


@lru_cache(ROOMS_KEPT)
def simulated(room: Room, sample_rate: int) -> Wave:
    """The response of a shoebox. Raises ValueError where pyroomacoustics is not there, or no walls give such a reverberation."""
    try:
        import pyroomacoustics as acoustics
    except ImportError as error:
        raise ValueError("rt60: simulated rooms need pyroomacoustics: pip install 'ss[rooms]'") from error
    try:
        absorption, order = acoustics.inverse_sabine(room.rt60, room.size)
    except ValueError as error:
        raise ValueError(f"rt60: expected a reverberation that a room of {room.size} m can have, found {room.rt60} s") from error
    box = acoustics.ShoeBox(
        room.size, fs=sample_rate, materials=acoustics.Material(absorption), max_order=min(order, REFLECTIONS), use_rand_ism=False
    )
    box.add_source(list(room.source))
    box.add_microphone(list(room.microphone))
    box.compute_rir()
    return np.asarray(box.rir[0][0], np.float32)
