"""How high a voice is, told by the autocorrelation of short frames (Boersma, 1993).

Shapes: N samples of a recording, F frames, L lags.
"""

import numpy as np
import scipy

from ss.audio import Wave

FRAME, HOP = 0.064, 0.02  # seconds
LOWEST, HIGHEST = 65, 400  # Hz
LOUD_DB = 25.0  # below the loudest frame
VOICED = 0.5  # of a frame's autocorrelation without lag
NEARLY = 0.9  # of the highest peak: the first peak as high as that is the pitch, as an octave below is as periodic


def median_pitch(wave: Wave, sample_rate: int) -> float:
    """The median of the pitch of a wave [N] over its voiced frames, in Hz; 0 where no frame is voiced."""
    size, first, last = round(FRAME * sample_rate), sample_rate // HIGHEST, sample_rate // LOWEST
    if len(wave) < size:
        return 0.0
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: round(HOP * sample_rate)]
    power = np.square(frames).mean(1)
    window = np.hanning(size).astype(np.float32)
    loud = frames[power > power.max() * 10 ** (-LOUD_DB / 10)] * window

    def autocorrelate(x: Wave) -> Wave:
        return scipy.fft.irfft(np.square(np.abs(scipy.fft.rfft(x, 2 * size))))[..., : last + 1]

    lags = autocorrelate(loud)  # [F,L]
    lags = lags / lags[:, :1] / (autocorrelate(window) / np.square(window).sum())
    found = []
    for likeness in lags[:, first:]:
        if likeness.max() > VOICED:
            lag = int(np.argmax(likeness >= NEARLY * likeness.max()))
            while lag + 1 < len(likeness) and likeness[lag + 1] >= likeness[lag]:
                lag += 1
            found.append(sample_rate / (first + lag))
    return float(np.median(found)) if found else 0.0
