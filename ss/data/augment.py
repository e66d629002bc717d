"""Changes of examples as waves: another speed, gain or interferer, and where they are cut, also where the target is silent.

What is heard in a mixture is told from its waves alone: a target of zeros is absent; one of which a good part is exact zeros is
partly absent; a mixture that is its target is clean; all others are full (`SCENES`). Shapes: S samples.
"""

import numpy as np
import soxr

from ss.audio import Wave
from ss.data.speech_activity import draw_speech

SCENES = ("full", "absent", "partly_absent", "clean")
SILENT = 0.25  # a target of which this part is exact zeros is partly absent (the mixing makes 0.3 or more silent)


def scene_of(mixture: Wave, target: Wave) -> str:
    """The scene of a whole example, mixture and target [S]."""
    if not target.any():
        return "absent"
    if np.array_equal(mixture, target):
        return "clean"
    return "partly_absent" if np.count_nonzero(target != 0) <= (1 - SILENT) * len(target) else "full"


def draw_start(scene: str, mixture: Wave, target: Wave, samples: int | None, rng: np.random.Generator) -> int:
    """Where a cut of so many samples may start: not in a pause of the target, or of the mixture if the target is meant to pause.

    Where the target may be silent, a cut of the mixture never is (unless all of it is).
    """
    if scene not in ("absent", "partly_absent"):
        return draw_speech(target, samples, rng)
    start = draw_speech(mixture, samples, rng)
    if samples is None or mixture[start:][:samples].any():
        return start
    return min(int(np.abs(mixture).argmax()), max(len(mixture) - samples, 0))


def change_speed(wave: Wave, speed: float) -> Wave:
    """A wave [S] played `speed` times as fast -> [S/speed]: another tempo and pitch, another size of speaker (Ko et al., 2015)."""
    return wave if speed == 1 else soxr.resample(wave, speed, 1.0, "MQ").astype(np.float32)


def change_speeds(mixture: Wave, target: Wave, own: float, other: float) -> tuple[Wave, Wave]:
    """(mixture, target) [S'] with the target played `own` and the interferer `other` times as fast, cut to the shorter of them."""
    if np.array_equal(mixture, target):
        return (change_speed(target, own),) * 2
    target, interferer = change_speed(target, own), change_speed(mixture - target, other)
    samples = min(len(target), len(interferer))
    return target[:samples] + interferer[:samples], target[:samples]


def replace_interferer(scene: str, mixture: Wave, target: Wave, interferer: Wave, snr: float) -> Wave:
    """A cut [S] of an example with another interferer [S], which is not silent.

    Their mean powers are `snr` dB apart, the target's being taken from where it speaks if it is partly absent. Where it is
    silent all through, the interferer is as loud as the one before.
    """
    power = np.square(interferer).mean()
    if not target.any():
        wanted, snr = active_power(mixture) * power / active_power(interferer), 0.0
    else:
        wanted = active_power(target) if scene == "partly_absent" else np.square(target).mean()
    gain = np.sqrt(wanted / max(power, np.finfo(np.float32).tiny)) * 10 ** (-snr / 20)
    return (target + gain * interferer).astype(np.float32)


def active_power(wave: Wave) -> np.floating:
    """Mean square of the samples of a wave [S] that are not exact zeros."""
    return np.square(wave).sum() / max(np.count_nonzero(wave), 1)
