"""The composite measure of Hu & Loizou (2008): ratings of signal, background and overall quality from four simpler measures.

Shapes: B batch, S samples.
"""

import torch
from torch import Tensor

from ss.metric.base import Array, CannotCompute, Metric, UtteranceScores, check, utterances
from ss.metric.perceptual import PESQ
from ss.metric.spectral import frame_length, log_likelihood_ratio, segmental_snr, weighted_spectral_slope


class CompositeMetric(Metric):
    """PESQ, CSIG, CBAK and COVL (ratings 1..5) and SSNR (segmental SNR in dB, -10..35), with one pass of PESQ for all.

    sample_rate: 16000 (PESQ of wide band) or 8000. Where PESQ cannot be computed, SSNR still is; where every frame of
    the target is digital silence, both are.
    """

    NAMES = ("PESQ", "CSIG", "CBAK", "COVL", "SSNR")

    def __init__(self, sample_rate: int = 16000) -> None:
        self.sample_rate, self.pesq = sample_rate, PESQ(sample_rate)

    def __call__(self, estimate: Tensor, target: Tensor) -> dict[str, Tensor]:
        """estimate and target [B,S] -> [B] for each of NAMES. Raises CannotCompute if any value of any utterance is missing."""
        rows = [self.rate(*waves) for waves in utterances(estimate, target)]
        for reason in (reason for row in rows for reason in row.missing.values()):
            raise CannotCompute(reason)
        return {name: torch.tensor([row.values[name] for row in rows], device=estimate.device) for name in self.NAMES}

    def record(self, column: str, estimate: Array, target: Array, mixture: Array) -> UtteranceScores:
        return self.rate(estimate, target)

    def rate(self, estimate: Array, target: Array) -> UtteranceScores:
        """What of NAMES can be computed for waves [S]."""
        values = {}
        try:
            check(estimate, target)
            if len(target) < 2 * frame_length(self.sample_rate):
                raise CannotCompute("the utterance is shorter than two frames of 30 ms")
            ssnr = values["SSNR"] = segmental_snr(estimate, target, self.sample_rate)
            pesq = values["PESQ"] = self.pesq.compute(estimate, target)
            llr = log_likelihood_ratio(estimate, target, self.sample_rate)
        except CannotCompute as error:
            return UtteranceScores(values, {name: error.reason for name in self.NAMES if name not in values})
        wss = weighted_spectral_slope(estimate, target, self.sample_rate)
        signal = 3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss
        background = 1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * ssnr
        overall = 1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss
        ratings = (min(max(rating, 1.0), 5.0) for rating in (signal, background, overall))
        return UtteranceScores(dict(zip(self.NAMES, (pesq, *ratings, ssnr), strict=True)), {})
