"""From samples to rows of frames, spectra and features in a graph: what enrolment and step have in common.

Shapes: B batch, S samples, T frames, K samples of the longest window, F bins of all scales. Rows [T*B,...] are frame-major.
"""

import math

import numpy as np

from ss.export.graph import Graph, Value
from ss.export.products import array
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
    """Windows [n,K] -> the real parts of all bins, then the imaginary ones [n,2F]."""
    return g.op("Gemm", windows, g.weight(array(encoder.filters())))


def log_power(g: Graph, encoder: LappedEncoder, spectra: Value) -> Value:
    """Spectra [n,2F] -> features [n,F]."""
    n_bins = sum(encoder.bins)
    real, imag = g.split(g.op("Mul", spectra, spectra), [n_bins, n_bins], 2, axis=1)
    return g.op("Log", g.op("Add", g.op("Add", real, imag), g.weight(np.array([FLOOR]))))
