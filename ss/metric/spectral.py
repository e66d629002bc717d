"""What the composite measure adds to PESQ, over frames of 30 ms: segmental SNR, log-likelihood ratio, weighted spectral slope.

As in the authors' composite.m (Hu & Loizou, 2008): Hann frames, a new one every quarter of a frame; the means of the last two
leave out the worst 5 % of the frames. Each takes waves [S] in float64 of one length, of at least two frames.

Shapes: S samples, F frames, L samples of a frame, P order of a linear prediction, C critical bands, N frequency bins.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ss.metric.base import NO_SPEECH, Array, CannotCompute

_EPS = float(np.finfo(np.float64).eps)
# Centre frequencies and bandwidths of the critical bands in Hz (Klatt, 1982).
_CENTRES, _WIDTHS = np.array(
    [
        *((50, 70), (120, 70), (190, 70), (260, 70), (330, 70), (400, 70), (470, 70), (540, 77.3724), (617.372, 86.0056)),
        *((703.378, 95.3398), (798.717, 105.411), (904.128, 116.256), (1020.38, 127.914), (1148.30, 140.423)),
        *((1288.72, 153.823), (1442.54, 168.154), (1610.70, 183.457), (1794.16, 199.776), (1993.93, 217.153)),
        *((2211.08, 235.631), (2446.71, 255.255), (2701.97, 276.072), (2978.04, 298.126), (3276.17, 321.465)),
        (3597.63, 346.136),
    ]
).T


def frame_length(sample_rate: int) -> int:
    """Samples of a frame of 30 ms."""
    return round(0.03 * sample_rate)


def frames(wave: Array, sample_rate: int) -> Array:
    """[S] -> windowed frames [F,L]. As in the original, the last frame that would fit is left out."""
    length = frame_length(sample_rate)
    hop = length // 4
    count = int(len(wave) / hop - length / hop)
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1)))
    return sliding_window_view(wave, length)[::hop][:count] * window


def segmental_snr(estimate: Array, target: Array, sample_rate: int) -> float:
    """Mean over the frames of the SNR in dB, each held within -10..35."""
    said, wrong = (((frames(wave, sample_rate)) ** 2).sum(1) for wave in (target, target - estimate))
    return float((10 * np.log10(said / (wrong + _EPS) + _EPS)).clip(-10, 35).mean())


def log_likelihood_ratio(estimate: Array, target: Array, sample_rate: int) -> float:
    """How much worse the estimate's linear prediction fits the target than its own does (Quackenbush et al., 1988); 0 is best.

    Frames in which the target is digital silence predict nothing and are left out. Raises CannotCompute where there are no others.
    """
    said, heard = frames(target, sample_rate), frames(estimate, sample_rate)
    sounding = said.any(1)
    if not sounding.any():
        raise CannotCompute(NO_SPEECH)
    order = 10 if sample_rate < 10000 else 16
    own, other = _autocorrelation(said[sounding], order), _autocorrelation(heard[sounding], order)
    return _mean_of_best(np.log(_residual(_predictor(other), own) / _residual(_predictor(own), own)))


def _autocorrelation(framed: Array, order: int) -> Array:
    """Frames [F,L] -> lags [F,P+1]."""
    length = framed.shape[1]
    return np.stack([(framed[:, : length - lag] * framed[:, lag:]).sum(1) for lag in range(order + 1)], 1)


def _predictor(lags: Array) -> Array:
    """Lags [F,P+1] -> whitening filters [F,P+1] by Levinson's recursion; of silence, the filter that does nothing."""
    filters = np.zeros_like(lags)
    filters[:, 0] = 1
    error = lags[:, 0] + (lags[:, 0] == 0)
    for i in range(1, lags.shape[1]):
        reflection = -(filters[:, :i] * lags[:, i:0:-1]).sum(1) / error
        filters[:, 1 : i + 1] += reflection[:, None] * filters[:, :i][:, ::-1]
        error *= 1 - reflection**2
    return filters


def _residual(filters: Array, lags: Array) -> Array:
    """Energy [F] that these filters [F,P+1] leave of frames with these lags [F,P+1], not below what float64 resolves."""
    order = np.arange(lags.shape[1])
    left = np.einsum("fi,fij,fj->f", filters, lags[:, np.abs(order[:, None] - order)], filters)
    return np.maximum(left, _EPS * lags[:, 0])


def weighted_spectral_slope(estimate: Array, target: Array, sample_rate: int) -> float:
    """Distance between the slopes of the two spectra from one critical band to the next (Klatt, 1982); 0 is best."""
    said, said_weight = _slopes(frames(target, sample_rate), sample_rate)
    heard, heard_weight = _slopes(frames(estimate, sample_rate), sample_rate)
    weight = said_weight + heard_weight
    return _mean_of_best((weight * (said - heard) ** 2).sum(1) / weight.sum(1))


def _slopes(framed: Array, sample_rate: int) -> tuple[Array, Array]:
    """Frames [F,L] -> slopes in dB between neighbouring bands [F,C-1], and what each counts [F,C-1]."""
    n_fft = 2 ** int(np.ceil(np.log2(2 * framed.shape[1])))
    per_hz = n_fft / sample_rate
    offset = (np.arange(n_fft // 2) - np.floor(_CENTRES * per_hz)[:, None]) / (_WIDTHS * per_hz)[:, None]
    filters = np.exp(-11 * offset**2) * (_WIDTHS[0] / _WIDTHS)[:, None]  # Gaussian [C,N]
    filters = np.where(filters > np.exp(-30 / (2 * 2.303)), filters, 0)
    power = np.abs(np.fft.rfft(framed, n_fft)[:, : n_fft // 2]) ** 2
    level = 10 * np.log10(np.maximum(power @ filters.T, 1e-10))
    slopes, lower = np.diff(level), level[:, :-1]
    below_top = level.max(1, keepdims=True) - lower
    below_peak = _peaks(lower, slopes) - lower
    return slopes, 20 / (20 + below_top) / (1 + below_peak)


def _peaks(lower: Array, slopes: Array) -> Array:
    """The level of the peak nearest to each slope, from the level [F,C-1] at its lower end.

    Where a slope goes up, that is one band short of the peak: so in the original, and kept so that values compare.
    """
    ahead, behind = lower.copy(), lower.copy()
    for band in range(slopes.shape[1] - 2, -1, -1):
        ahead[:, band] = np.where(slopes[:, band + 1] > 0, ahead[:, band + 1], lower[:, band])
    for band in range(1, slopes.shape[1]):
        behind[:, band] = np.where(slopes[:, band - 1] > 0, lower[:, band], behind[:, band - 1])
    return np.where(slopes > 0, ahead, behind)


def _mean_of_best(distances: Array) -> float:
    """The mean of the smallest 95 % of [F]."""
    return float(np.sort(distances)[: max(1, round(0.95 * len(distances)))].mean())
