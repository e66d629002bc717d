"""The plan of a set of mixtures: who is mixed with whom, how loud, and with which enrolment.

A row depends on the corpus, the settings and its own number only, so rows can be planned in any order, without end, and a
larger set begins with the rows of a smaller one.
"""

import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ss.mixing.corpus import Corpus, Selection, Span
from ss.mixing.manifest import Row
from ss.mixing.settings import Settings

CHANCE = 10  # seconds of speech for each of a speaker's chances


class Group(NamedTuple):
    """Speakers who are mixed with each other: `names` holds each once per chance, `places` says where in it."""

    names: list[str]
    places: dict[str, range]

    @classmethod
    def of(cls, chances: Mapping[str, int]) -> "Group":
        """From the number of chances of each speaker."""
        names = [name for name, n in chances.items() for _ in range(n)]
        ends = accumulate(chances.values())
        return cls(names, {name: range(end - n, end) for (name, n), end in zip(chances.items(), ends, strict=True)})


class Chances(NamedTuple):
    """Who can be drawn: the targets, each once per chance, and the interferers by group."""

    targets: list[str]
    interferers: dict[str, Group]


def chances(corpus: Corpus, settings: Selection) -> Chances:
    """The speakers that can be the target are those with two files, or with one that is split. Raises ValueError if none can."""
    own = {speaker: _chances_of(spans, settings) for speaker, spans in corpus.speakers.items()}
    members: dict[str, dict[str, int]] = {}
    for speaker, n in own.items():
        members.setdefault(group_of(speaker, settings.within), {})[speaker] = n
    groups = {group: Group.of(speakers) for group, speakers in members.items() if len(speakers) > 1}
    if not groups:
        raise ValueError(f"within: expected two speakers whose ids agree in {settings.within}, found none")
    able = [
        speaker
        for speaker, spans in corpus.speakers.items()
        if (len(spans) > 1 or _splits(spans[0], settings)) and group_of(speaker, settings.within) in groups
        for _ in range(own[speaker])
    ]
    if not able:
        raise ValueError(
            f"{settings.audios_dir}: expected a speaker with two utterances (one of them the enrolment), found only speakers "
            "with one; split_single_utterances=true takes target and enrolment from the two halves of it"
        )
    return Chances(able, groups)


def group_of(speaker: str, within: str | None) -> str:
    """What a speaker's id has in common with those of its group: what the expression `within` matches first."""
    found = re.search(within, speaker) if within else None
    return found[0] if found else ""


def draw_others(group: Group, speaker: str, n: int, rng: np.random.Generator) -> list[str]:
    """n speakers of the group beside this one, all different, each draw by the chances of those that are left.

    Raises ValueError where there are not so many.
    """
    if len(group.places) <= n:
        raise ValueError(f"interferers: expected {n} speakers beside {speaker}, found {len(group.places) - 1}")
    chosen = [speaker]
    for _ in range(n):
        taken = sorted((group.places[name] for name in chosen), key=lambda places: places.start)
        place = int(rng.integers(len(group.names) - sum(map(len, taken))))
        for places in taken:  # in order: steps over all that are before it
            place += len(places) * (place >= places.start)
        chosen.append(group.names[place])
    return chosen[1:]


def _chances_of(spans: tuple[Span, ...], settings: Selection) -> int:
    if settings.drawn == "speakers":
        return 1
    return math.ceil(sum(span.stop - span.start for span in spans) / (CHANCE * settings.sample_rate))


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
    (other,) = draw_others(drawn.interferers[group_of(speaker, settings.within)], speaker, 1, rng)
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


def _splits(span: Span, settings: Selection) -> bool:
    """Whether a speaker's only file serves as target and enrolment: each half must be long enough by itself."""
    return settings.split_single_utterances and (span.stop - span.start) // 2 >= max(1, settings.min_len * settings.sample_rate)


def _target_and_ref(spans: tuple[Span, ...], rng: np.random.Generator) -> tuple[Span, Span]:
    """Two of a speaker's files in random order, or the two halves of the only one."""
    if len(spans) == 1:
        path, start, stop = spans[0]
        middle = (start + stop) // 2
        spans = (Span(path, start, middle), Span(path, middle, stop))
    first = int(rng.integers(len(spans)))
    second = int(rng.integers(len(spans) - 1))
    return spans[first], spans[second + (second >= first)]
