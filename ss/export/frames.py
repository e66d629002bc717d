"""From samples to rows of frames, spectra and features in a graph: what enrolment and step have in common.

Shapes: B batch, S samples, T frames, K samples of the longest window, F bins of all scales. Rows [T*B,...] are frame-major.
"""

import math

import numpy as np

from ss.export.graph import Graph, Value
from ss.export.products import Array, array
from ss.model.lapped import LappedEncoder
from ss.model.online import FLOOR


def sizes(g: Graph, samples: Value) -> tuple[Value, Value]:
    """Values [1] of samples [B,S]: B and S."""
    return g.op("Shape", samples, start=0, end=1), g.op("Shape", samples, start=1, end=2)


def frames(g: Graph, samples: Value, n_frames: Value, kernel: int, hop: int) -> Value:
    """samples [B, K + (T-1)*hop] and T [1] -> their windows [T*B,K], by copying blocks of the common divisor of K and hop."""
    unit = math.gcd(kernel, hop)
    blocks = g.op("Transpose", g.reshape(samples, 0, -1, unit), perm=[1, 0, 2])
    end = g.op("Squeeze", g.op("Mul", n_frames, g.ints(hop // unit)))
    first = g.op("Range", g.number(0), end, g.number(hop // unit))
    places = g.op("Add", g.reshape(first, -1, 1), g.ints(*range(kernel // unit)))
    windows = g.op("Transpose", g.op("Gather", blocks, places, axis=0), perm=[0, 2, 1, 3])
    return g.reshape(windows, -1, kernel)


def spectrum(g: Graph, encoder: LappedEncoder, windows: Value) -> Value:
    """Windows [n,K] -> the real parts of all bins, then the imaginary ones [n,2F].

    Around the middle of a window cosines are even and sines odd: the sums and the differences of its halves need a product of half
    the size each. Weights to read are what a step waits for, more than for the dozen small kernels that this takes.
    """
    halves = [Halves(array(encoder.get_buffer(f"window{i}")), encoder.kernel) for i in range(len(encoder.kernels))]
    ahead, back = (
        g.op("Mul", g.op("Gather", windows, g.weight(np.concatenate(places)), axis=1), g.weight(np.concatenate(weights)))
        for places, weights in (
            ([half.ahead for half in halves], [half.window_ahead for half in halves]),
            ([half.back for half in halves], [half.window_back for half in halves]),
        )
    )
    sizes = [len(half.ahead) for half in halves]
    sums, differences = (
        g.split(g.op(kind, ahead, back), sizes, len(sizes), axis=1) if len(sizes) > 1 else [g.op(kind, ahead, back)]
        for kind in ("Add", "Sub")
    )
    filters = [half.cosines for half in halves] + [half.sines for half in halves]
    parts = zip([*sums, *differences], filters, strict=True)
    return g.concat(*(g.op("Gemm", x, g.weight(f), name=f"encoder.{i}") for i, (x, f) in enumerate(parts)), axis=1)


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


def log_power(g: Graph, encoder: LappedEncoder, spectra: Value) -> Value:
    """Spectra [n,2F] -> features [n,F]."""
    n_bins = sum(encoder.bins)
    real, imag = g.split(g.op("Mul", spectra, spectra), [n_bins, n_bins], 2, axis=1)
    return g.op("Log", g.op("Add", g.op("Add", real, imag), g.weight(np.array([FLOOR]))))
