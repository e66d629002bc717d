"""The plan of a set of mixtures: who is mixed with whom, how loud, and with which enrolment.

A row depends on the corpus, the settings and its own number only, so rows can be planned in any order, without end, and a
larger set begins with the rows of a smaller one.
"""

import numpy as np

from ss.data.corpus import Corpus, Span
from ss.data.sampling import Chances, chances, draw_others, group_of
from ss.data.two_speakers.manifest import Row
from ss.data.two_speakers.settings import Settings


def plan(corpus: Corpus, settings: Settings) -> list[Row]:
    """The rows of all `nfiles` mixtures."""
    drawn = chances(corpus, settings)
    return [plan_row(corpus, drawn, settings, index) for index in range(settings.nfiles)]


def plan_row(corpus: Corpus, drawn: Chances, settings: Settings, index: int) -> Row:
    """Row number `index`. Target speaker and interfering speaker are drawn from their chances, their files with equal ones.

    drawn: what `chances` gives. The enrolment is another file of the target speaker, or the other half of the only one. The scene
    is drawn last: whatever the shares, a row has the same sources.
    """
    rng = np.random.default_rng(np.random.SeedSequence([settings.random_state, index]))
    speaker = drawn.targets[rng.integers(len(drawn.targets))]
    target, ref = _target_and_ref(corpus.speakers[speaker], rng)
    (other,) = draw_others(drawn.interferers[group_of(speaker, settings.speaker_group_regex)], speaker, 1, rng)
    interferer = corpus.speakers[other][rng.integers(len(corpus.speakers[other]))]
    snr = float(settings.snr_levels[rng.integers(len(settings.snr_levels))])
    seed = int(rng.integers(2**63))
    return Row(
        name=f"{speaker}_{index:06d}_{other}_{snr:g}",
        target=target,
        interferer=interferer,
        ref=ref,
        snr=snr,
        seed=seed,
        audio_len=settings.audio_len,
        ref_max_len=settings.ref_max_len,
        trim_db=settings.trim_db,
        vad_db=settings.vad_db,
        loudness=settings.loudness,
        sample_rate=settings.sample_rate,
        extension=settings.extension,
        scene=_scene(rng.random(), settings),
    )


def _scene(draw: float, settings: Settings) -> str:
    """The scene that a draw from 0..1 falls on."""
    for scene, share in settings.shares().items():
        if draw < share:
            return scene
        draw -= share
    return "full"


def _target_and_ref(spans: tuple[Span, ...], rng: np.random.Generator) -> tuple[Span, Span]:
    """Two of a speaker's files in random order, or the two halves of the only one."""
    if len(spans) == 1:
        path, start, stop = spans[0]
        middle = (start + stop) // 2
        spans = (Span(path, start, middle), Span(path, middle, stop))
    first = int(rng.integers(len(spans)))
    second = int(rng.integers(len(spans) - 1))
    return spans[first], spans[second + (second >= first)]
