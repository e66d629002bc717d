"""From samples to rows of frames, spectra and features in a graph: what enrolment and step have in common.

Shapes: B batch, S samples, T frames, K samples of the longest window, F bins of all scales. Rows [T*B,...] are frame-major.
"""

import numpy as np

from ss.export.graph import Graph, Value
from ss.export.products import Array, array
from ss.model.online import FLOOR
from ss.model.stft import MultiWindowSTFT


def sizes(g: Graph, samples: Value) -> tuple[Value, Value]:
    """Values [1] of samples [B,S]: B and S."""
    return g.op("Shape", samples, start=0, end=1), g.op("Shape", samples, start=1, end=2)


def spectra(g: Graph, encoder: MultiWindowSTFT, samples: Value, span: Value, hop: int) -> list[Value]:
    """samples [B,S], S >= K-hop + T*hop, and span [1], T*hop -> the real parts of each scale, then the imaginary ones, all [T*B,F].

    Around the middle of a window cosines are even and sines odd: the sums and the differences of its halves need a product of half
    the size each. Weights to read are what a step waits for, more than for the few small kernels that this takes.
    """
    halves = [Halves(array(encoder.get_buffer(f"window{i}")), encoder.kernel) for i in range(len(encoder.kernels))]
    places = np.concatenate([half.ahead for half in halves] + [half.back for half in halves])
    weights = np.concatenate([half.window_ahead for half in halves] + [half.window_back for half in halves])
    begins = g.op("Range", g.number(0), g.op("Squeeze", span), g.number(hop))
    gathered = g.op("Gather", samples, g.op("Add", g.reshape(begins, -1, 1), g.ints(*places)), axis=1)
    rows = g.reshape(g.op("Transpose", gathered, perm=[1, 0, 2]), -1, len(places))
    ahead, back = g.split(g.op("Mul", rows, g.weight(weights)), [len(places) // 2] * 2, 2, axis=1)
    sizes = [len(half.ahead) for half in halves]
    parts = [part for kind in ("Add", "Sub") for part in g.split(g.op(kind, ahead, back), sizes, len(sizes), axis=1)]
    filters = [half.cosines for half in halves] + [half.sines for half in halves]
    pairs = zip(parts, filters, strict=True)
    return [g.op("Gemm", x, g.weight(f), name=f"encoder.{i}") for i, (x, f) in enumerate(pairs)]


class Halves:
    """A windowed Fourier transform over the newest N samples of a frame [K], by what its first half and its second have in common.

    Sample m of the first half (`ahead`, with `window_ahead`), m = 0..N/2, meets its mirror image N-m (`back`; nothing for the two
    in the middle of themselves, 0 and N/2): `cosines` [N/2+1,F] are for their sums, `sines` for their differences.
    """

    def __init__(self, window: Array, kernel: int) -> None:
        size = len(window)
        first = np.arange(size // 2 + 1)
        mirrored = -first % size
        self.ahead, self.back = first + kernel - size, mirrored + kernel - size
        self.window_ahead = window[first]
        self.window_back = np.where(mirrored == first, 0, window[mirrored])
        angles = 2 * np.pi / size * (first[:, None] * first % size)
        self.cosines, self.sines = np.cos(angles), -np.sin(angles)


def log_power(g: Graph, encoder: MultiWindowSTFT, parts: list[Value]) -> Value:
    """`spectra` -> features [T*B,F of all scales]."""
    every = g.concat(*parts, axis=1)
    real, imag = g.split(g.op("Mul", every, every), [sum(encoder.bins)] * 2, 2, axis=1)
    return g.op("Log", g.op("Add", g.op("Add", real, imag), g.weight(np.array([FLOOR]))))
