"""WSJ0-2mix-extr (Xu et al., ICASSP 2019) by its lists mix_2_spk_{tr,cv,tt}_extr.txt.

As simulate_2spk_mix.m of github.com/xuchenglin28/speaker_extraction makes it: names, steps, levels and their order are the same;
the bits are NOT promised: that script runs in MATLAB with a voicebox of no stated version, and neither they nor its output were at
hand to compare with.

Shapes: N samples of a source.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ss import audio
from ss.data.mixture import FULL_SCALE, Mixture
from ss.data.published.rows import Part, PublishedRow, finite, lines, same_speaker
from ss.data.published.settings import Published, Roots
from ss.data.published.speech_level import active_power
from ss.data.published.waves import RATE, Signal, fit, speech
from ss.errors import UserError

PEAK = 0.9  # of all that belongs to one mixture


def rows(settings: Published) -> Iterator[PublishedRow]:
    """The triplets of a list. Raises UserError, with file and line, for what it should not hold."""
    for where, words in lines(settings.metadata, "target.wav SNR interferer.wav SNR enrolment.wav"):
        try:
            target, interferer = (Part(path.lstrip("/"), finite(snr)) for path, snr in (words[:2], words[2:4]))
        except ValueError as error:
            raise UserError(f"{where}: expected levels in dB as words 2 and 4, found {words[1]} and {words[3]}") from error
        ref = Part(words[4].lstrip("/"), 0.0)
        speaker = same_speaker(where, target.utterance[:3], ref.utterance[:3])
        name = "_".join((speaker, *(f"{part.utterance}_{part.gain:.5g}" for part in (target, interferer)), ref.utterance))
        yield PublishedRow(name, "wsj0_2mix_extr", settings.sample_rate, settings.mode, (target, interferer), 0, (ref,), 0)


def render(row: PublishedRow, roots: Roots) -> Mixture:
    """The parts at their active levels, fitted, and all lowered or raised together until the loudest sample is PEAK."""
    target, other = fit([_levelled(part, row, roots) for part in row.parts], row.mode)
    ref = _levelled(row.ref_parts[0], row, roots)
    waves = (target + other, target, ref)
    scale = PEAK / max(np.abs(wave).max() for wave in (*waves, other))
    return Mixture(*(np.rint(wave * scale * FULL_SCALE).astype(np.int16) for wave in waves))


def _levelled(part: Part, row: PublishedRow, roots: Roots) -> Signal:
    from scipy.signal import resample_poly

    wave = resample_poly(speech(part, roots).astype(np.float64), row.sample_rate, RATE)  # the window that MATLAB's resample has
    if not wave.any():
        raise audio.AudioError(f"{Path(roots.speech, part.path)}: expected speech, found silence")
    return wave * 10 ** (part.gain / 20) / math.sqrt(active_power(wave, row.sample_rate))
