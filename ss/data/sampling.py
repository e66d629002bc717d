"""How often each speaker is drawn, as the target and as an interferer, and who may be mixed with whom."""

import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ss.data.corpus import Span
from ss.data.sources import Sources
from ss.errors import UserError

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


def make_chances(speakers: Mapping[str, tuple[Span, ...]], sources: Sources) -> Chances:
    """The speakers that can be the target are those with two files, or with one that is split. Raises UserError if none can."""
    own = {speaker: _chances_of(spans, sources) for speaker, spans in speakers.items()}
    members: dict[str, dict[str, int]] = {}
    for speaker, n in own.items():
        members.setdefault(group_of(speaker, sources.speaker_group_regex), {})[speaker] = n
    groups = {group: Group.of(names) for group, names in members.items() if len(names) > 1}
    if not groups:
        raise UserError(f"speaker_group_regex: expected two speakers whose ids agree in {sources.speaker_group_regex}, found none")
    able = [
        speaker
        for speaker, spans in speakers.items()
        if (len(spans) > 1 or _splits(spans[0], sources)) and group_of(speaker, sources.speaker_group_regex) in groups
        for _ in range(own[speaker])
    ]
    if not able:
        raise UserError(
            f"{sources.audios_dir}: expected a speaker with two utterances (one of them the enrolment), found only speakers "
            "with one; split_single_utterances=true takes target and enrolment from the two halves of it"
        )
    return Chances(able, groups)


def group_of(speaker: str, regex: str | None) -> str:
    """What a speaker's id has in common with those of its group: what the expression matches first."""
    found = re.search(regex, speaker) if regex else None
    return found[0] if found else ""


def draw_others(group: Group, speaker: str, n: int, rng: np.random.Generator) -> list[str]:
    """n speakers of the group beside this one, all different, each draw by the chances of those that are left.

    Raises UserError where there are not so many.
    """
    if len(group.places) <= n:
        raise UserError(f"interferers: expected {n} speakers beside {speaker}, found {len(group.places) - 1}")
    chosen = [speaker]
    for _ in range(n):
        taken = sorted((group.places[name] for name in chosen), key=lambda places: places.start)
        place = int(rng.integers(len(group.names) - sum(map(len, taken))))
        for places in taken:  # in order: steps over all that are before it
            place += len(places) * (place >= places.start)
        chosen.append(group.names[place])
    return chosen[1:]


def _chances_of(spans: tuple[Span, ...], sources: Sources) -> int:
    if sources.speaker_sampling == "uniform":
        return 1
    return math.ceil(sum(span.stop - span.start for span in spans) / (CHANCE * sources.sample_rate))


def _splits(span: Span, sources: Sources) -> bool:
    """Whether a speaker's only file serves as target and enrolment: each half must be long enough by itself."""
    return sources.split_single_utterances and (span.stop - span.start) // 2 >= max(1, sources.min_len * sources.sample_rate)
