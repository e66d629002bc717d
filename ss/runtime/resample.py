"""Other sample rates in a stream, about a millisecond late: a windowed sinc (Smith, "Digital audio resampling", 2002).

soxr, which whole recordings are resampled with, gives its output in blocks: 35 to 115 ms late at its usual quality, each way.

Shapes: B streams, n samples that come, m samples that go, P phases, N taps.
"""

import math

import numpy as np

from ss.audio import Wave
from ss.errors import UserError

RATES = (4000, 384000)  # Hz, of streams
PHASES = 1024  # at most, of which filters are kept
REACH = 20  # samples of the lower rate to either side
CUTOFF, BETA = 0.92, 9.0  # of the lower rate's half; of the Kaiser window: 90 dB


class Resampler:
    """Streams [B,n] from one rate in Hz to another as they come. Output sample i is the input at i/after seconds.

    Where two rates have so little in common that there are more than PHASES, the outputs of two neighbouring ones are interpolated.
    """

    def __init__(self, batch: int, before: int, after: int) -> None:
        common = math.gcd(before, after)
        self.up, self.down = after // common, before // common
        self.reach = resampling_reach(before, after)
        self.phases = min(self.up, PHASES)
        self.taps = make_filters(self.phases, self.reach, min(1.0, after / before)) if self.reach else None
        self.heard = np.zeros((batch, max(0, self.reach - 1)), np.float32)
        self.start = 1 - self.reach  # the input sample that `heard` begins with
        self.given = 0

    def __call__(self, wave: Wave, last: bool = False) -> Wave:
        """[B,n] -> what is ready [B,m]; with `last`, all that is left: ceil(samples that came * after / before) in sum."""
        if self.taps is None:
            return wave
        after = np.zeros((len(wave), self.reach if last else 0), np.float32)
        self.heard = np.concatenate([self.heard, wave, after], 1)
        known = self.start + self.heard.shape[1] - self.reach  # what lies before this input sample has all its taps
        ready = -(-known * self.up // self.down)
        if ready <= self.given:
            return self.heard[:, :0]
        places = np.arange(self.given, ready) * self.down
        behind = self.start + self.reach - 1  # from an input sample to where its window begins in `heard`
        windows = np.lib.stride_tricks.sliding_window_view(self.heard, 2 * self.reach, 1)[:, places // self.up - behind]
        phases, between = np.divmod(places % self.up * self.phases, self.up)
        out = np.einsum("bmn,mn->bm", windows, self.taps[phases])
        if self.phases < self.up:
            out += (between / self.up).astype(np.float32) * (np.einsum("bmn,mn->bm", windows, self.taps[phases + 1]) - out)
        self.given = ready
        done = min(ready * self.down // self.up - behind, self.heard.shape[1])
        self.heard, self.start = self.heard[:, done:], self.start + done
        return out


def check_rate(sample_rate: int) -> None:
    """Raises UserError for a rate in Hz that no stream has, as a damaged file may name it."""
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise UserError(f"expected a sample rate from {RATES[0]} to {RATES[1]} Hz, got {sample_rate}")


def resampling_reach(before: int, after: int) -> int:
    """Samples of the rate `before` that a Resampler waits for after an input sample; 0 where both rates are the same."""
    return 0 if before == after else math.ceil(REACH * max(1.0, before / after))


def make_filters(phases: int, reach: int, band: float) -> Wave:
    """What an output sample at phase p/P, 0 to 1, after an input sample takes of the `reach` samples to either side: [P+1,N]."""
    offsets = np.arange(1 - reach, reach + 1) - np.arange(phases + 1)[:, None] / phases
    window = np.i0(BETA * np.sqrt(np.maximum(0, 1 - (offsets / reach) ** 2)))
    filters = np.sinc(CUTOFF * band * offsets) * window
    return (filters / filters.sum(1, keepdims=True)).astype(np.float32)
