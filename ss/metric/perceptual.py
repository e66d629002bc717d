"""Models of listeners by others' libraries: intelligibility (pystoi) and quality (pesq, optional).

Shapes: S samples.
"""

import warnings

import numpy as np

from ss.errors import require_choice
from ss.metric.base import Array, CannotCompute, SingleMetric, check_audible

TOO_LITTLE_SPEECH = "less than 0.4 s of the target is speech"


class STOI(SingleMetric):
    """Short-time objective intelligibility (Taal et al., 2011), about 0..1, or the extended one (Jensen & Taal, 2016)."""

    def __init__(self, sample_rate: int = 16000, extended: bool = False) -> None:
        self.sample_rate, self.extended = sample_rate, extended

    def compute(self, estimate: Array, target: Array) -> float:
        from pystoi import stoi

        if len(target) < 0.4 * self.sample_rate:
            raise CannotCompute(TOO_LITTLE_SPEECH)
        check_audible(estimate)
        with warnings.catch_warnings():
            # pystoi's answer to too few frames that are not silent is a warning and the value 1e-5.
            warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
            try:
                return float(stoi(target, estimate, self.sample_rate, self.extended))
            except RuntimeWarning as error:
                raise CannotCompute(TOO_LITTLE_SPEECH) from error


class PESQ(SingleMetric):
    """Perceptual evaluation of speech quality, MOS-LQO 1..4.64: ITU-T P.862.2 (wide band) at 16 kHz, P.862.1 at 8 kHz.

    Needs the package pesq (`pip install 'ss[pesq]'`, builds with a C compiler); without it, every value is missing.
    max_seconds: longer utterances are not given to it, as its C code overflows, often fatally, beyond 50 bursts of speech.
    """

    def __init__(self, sample_rate: int = 16000, max_seconds: float = 40) -> None:
        require_choice("PESQ: sample_rate", sample_rate, (8000, 16000))
        self.sample_rate, self.max_seconds = sample_rate, max_seconds
        self.mode = "wb" if sample_rate == 16000 else "nb"

    def compute(self, estimate: Array, target: Array) -> float:
        try:
            from pesq import BufferTooShortError, NoUtterancesError, PesqError, pesq
        except ImportError as error:
            raise CannotCompute("the package pesq is not installed") from error
        if len(target) > self.max_seconds * self.sample_rate:
            raise CannotCompute(f"PESQ takes at most {self.max_seconds:g} s")
        check_audible(estimate)
        try:
            value = float(pesq(self.sample_rate, target, estimate, self.mode))
        except (PesqError, ValueError) as error:
            known = {NoUtterancesError: "PESQ finds no speech in the target", BufferTooShortError: "PESQ needs at least 0.25 s"}
            raise CannotCompute(known.get(type(error), f"PESQ failed: {error}")) from error
        if not np.isfinite(value):
            raise CannotCompute(f"PESQ failed: it gave {value}")
        return value
