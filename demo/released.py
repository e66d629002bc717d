"""The released model beside one that was just trained, on real speech: one reader under two other voices, one at a time.

Shapes: S samples.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from clips import SAMPLE_RATE

from ss import audio
from ss.audio import Wave
from ss.runtime import Extractor

SPEECH = Path(__file__).with_name("speech")
OTHERS = {"woman": "A man under a woman", "man": "A man under another man"}


class Example(NamedTuple):
    """A mixture [S] of equal levels, the enrolment, both models' estimates [S] and their SI-SDR improvements in dB."""

    title: str
    mixture: Wave
    enrolment: Wave
    released: Wave
    trained: Wave
    released_gain: float
    trained_gain: float


def examples(exported: Path) -> list[Example]:
    """One for each of the other voices. exported: of the model that was just trained. Raises UserError where there is none."""
    models = (Extractor.from_pretrained(), Extractor.load(exported))
    reader, enrolment = (audio.read(SPEECH / f"{name}.flac", SAMPLE_RATE) for name in ("reader", "reader-enrolment"))
    found = []
    for name, title in OTHERS.items():
        other = audio.read(SPEECH / f"{name}.flac", SAMPLE_RATE)[: len(reader)]
        target = reader[: len(other)]
        mixture = target + other * np.float32(np.linalg.norm(target) / np.linalg.norm(other))
        estimates = []
        for model in models:
            stream = model.stream(enrolment)
            estimates.append(np.concatenate([stream.process(mixture), stream.flush()]))
        levels = [si_sdr(wave, target) for wave in (*estimates, mixture)]
        found.append(Example(title, mixture, enrolment, estimates[0], estimates[1], levels[0] - levels[2], levels[1] - levels[2]))
    return found


def si_sdr(estimate: Wave, target: Wave) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of waves [S], as ss.metric.SISDR has it, but without torch."""
    estimate, target = estimate - estimate.mean(), target - target.mean()
    wanted = estimate @ target / (target @ target) * target
    return float(20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(estimate - wanted)))
