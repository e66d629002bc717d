"""The plan of scenes without end: a row is a function of the sources, the scene and (seed, epoch, index), and of nothing else.

So any rank, worker or resumed run that asks for the same number gets the same row.
"""

from collections.abc import Callable, Sequence
from math import floor
from typing import Any, TypeAlias

import numpy as np

from ss.data.acoustics import OCTAVES
from ss.data.catalog import Catalog, Group, draw_others, group_of
from ss.data.corpus import Span
from ss.data.manifest import Noise, Piece, Room, Row, Voice
from ss.data.scene_settings import Range, Scene
from ss.errors import UserError

Draw = np.random.Generator
Point: TypeAlias = tuple[float, float, float]
Interval: TypeAlias = tuple[int, int]
Times: TypeAlias = list[list[Interval]]
SHORTEST = 0.3  # seconds: nothing shorter is begun
UTTERANCE_GAP = (0.1, 0.4)  # seconds between two utterances of a speaker
SIZES = ((4.0, 8.0), (3.0, 6.0), (2.5, 3.5))  # metres of a simulated room
WALL, DISTANCE = 0.4, (0.5, 2.5)  # metres from the walls, and from the microphone
ENDLESS = 2**40  # samples of an enrolment that is whole
TRIES = 100  # to find a place in a room
NEAREST = 20  # voices of near pitch are one in so many of all on either side, those nearest in pitch


def plan(catalog: Catalog, scene: Scene, seed: int, n: int, epoch: int = 0) -> list[Row]:
    """The first n rows of an epoch."""
    return [plan_row(catalog, scene, seed, epoch, index) for index in range(n)]


def plan_row(catalog: Catalog, scene: Scene, seed: int, epoch: int, index: int) -> Row:
    """Row number `index` of an epoch.

    Raises UserError where the scene asks for noise, rooms, genders or more speakers than there are.
    """
    rng, rate = np.random.default_rng((seed, epoch, index)), catalog.sources.sample_rate
    speaker = catalog.drawn.targets[rng.integers(len(catalog.drawn.targets))]
    speed = draw_speed(scene, rng)
    weights = np.array(list(scene.patterns.values()), float)
    pattern = list(scene.patterns)[rng.choice(len(weights), p=weights / weights.sum())]
    samples = round(draw_between(scene.seconds, rng) * rate) if scene.seconds else 0
    ref_length = round(draw_between(scene.enrolment.seconds, rng) * rate) if scene.enrolment.seconds else 0
    spans = catalog.speakers[speaker]
    if len(spans) == 1:
        lengths = (ref_length or samples or 1) * speed, (samples or ref_length or 1) * speed
        enrolled, spoken = split_utterance(spans[0], *lengths, catalog, rng)
    else:
        n = min(draw_whole(scene.enrolment.utterances, rng), len(spans) - 1)
        order = rng.permutation(len(spans))
        enrolled, spoken = [spans[i] for i in order[:n]], [spans[i] for i in order[n:]]
    if not samples:
        spoken = [spoken[rng.integers(len(spoken))]]
        samples = floor(sum(stop - start for start, stop in find_parts(catalog, spoken[0])) / speed)
    others = draw_interferers(catalog, scene, speaker, pattern, rng)
    times = plan_times(pattern, len(others), samples, scene, rate, rng)
    room = draw_room(catalog, scene, scene.reverb_share, rng)
    target = Voice(speaker, fill_times(catalog, spoken, times[0], speed, rng), speed, 0.0, *room())
    interferers = []
    for name, when in zip(others, times[1:], strict=True):
        own, sir = draw_speed(scene, rng), draw_one(scene.sir_levels, rng) if scene.sir_levels else draw_between(scene.sir, rng)
        interferers.append(Voice(name, fill_times(catalog, catalog.speakers[name], when, own, rng), own, sir, *room()))
    ref_speed = round(speed * draw_between(scene.enrolment.speed, rng), 4) if scene.enrolment.speed else speed
    pitch = round(draw_between(scene.enrolment.pitch, rng), 4) if scene.enrolment.pitch else None
    ref_speed = round(ref_speed * pitch, 4) if pitch else ref_speed
    ref = fill_times(catalog, enrolled, [(0, ref_length or ENDLESS)], ref_speed, rng, once=True)
    enrolment = Voice(speaker, ref, ref_speed, 0.0, *draw_room(catalog, scene, scene.enrolment.reverb_share, rng)())
    equalizer = scene.enrolment.equalizer
    return Row(
        name=f"{speaker}_{epoch:03d}{index:07d}_{pattern}",
        pattern=pattern,
        sample_rate=rate,
        samples=samples,
        ref_samples=min(ref_length or ENDLESS, max(time.stop for time in enrolment.spoken())),
        target=target,
        interferers=tuple(voice for voice in interferers if voice.pieces),
        enrolment=enrolment,
        noise=draw_noise(catalog, scene.noise_share, scene.snr, rng),
        enrolment_noise=draw_noise(catalog, scene.enrolment.noise_share, scene.enrolment.snr, rng),
        early_ms=scene.early_ms,
        bandwidth=draw_one(scene.bandwidths, rng) if rng.random() < scene.bandwidth_share else None,
        codec=draw_one(scene.codecs, rng) if rng.random() < scene.codec_share else None,
        clip_db=draw_between(scene.clip_db, rng) if rng.random() < scene.clip_share else None,
        level=draw_between(scene.level, rng),
        loudness=scene.loudness,
        ref_level=draw_between(scene.enrolment.level, rng) if scene.enrolment.level else None,
        ref_pitch=pitch,
        ref_equalizer=tuple(round(draw_between(equalizer, rng), 2) for _ in OCTAVES) if equalizer else None,
    )


def split_utterance(span: Span, enrolled: float, spoken: float, catalog: Catalog, rng: Draw) -> tuple[list[Span], list[Span]]:
    """A speaker's only file, cut in two: a part to enrol with, and a part to speak.

    They are as long, to each other, as the samples that are asked for; but where there are not so many, half is left to speak, and
    no part is shorter than `min_len`, or half.
    """
    path, start, stop = span
    n, share = stop - start, enrolled / (enrolled + spoken)
    least = min(n // 2, round(catalog.sources.min_len * catalog.sources.sample_rate))
    first = round(n * (share if n >= enrolled + spoken else min(share, 0.5)))
    first = min(max(first, least), n - least)
    if rng.random() < 0.5:
        return [Span(path, start, start + first)], [Span(path, start + first, stop)]
    return [Span(path, stop - first, stop)], [Span(path, start, stop - first)]


def draw_interferers(catalog: Catalog, scene: Scene, speaker: str, pattern: str, rng: Draw) -> list[str]:
    """Who else speaks: others of the speaker's group, in a share of all cases with the same gender, in another of near pitch.

    Where the target is absent, at least one if the scene allows any, or nobody would speak. Where the speaker's gender is not
    known, or not enough others have it, all of the group is drawn from. Raises UserError where no gender is known.
    """
    n = 0
    if pattern != "alone":
        low, high = scene.interferers
        n = low if rng.random() < scene.fewest_share else draw_whole(scene.interferers, rng)
        n = max(n, min(1, high)) if pattern == "absent" else n
    group = catalog.drawn.interferers[group_of(speaker, catalog.sources.speaker_group_regex)]
    if rng.random() < scene.same_gender_share:
        if catalog.sources.genders is None:
            raise UserError("same_gender_share: expected a file with the speakers' genders as `genders`, found none")
        alike = catalog.same_gender.get(speaker, group)
        group = alike if len(alike.places) > n else group
    elif scene.same_pitch_share and rng.random() < scene.same_pitch_share:
        voices = catalog.by_pitch[group_of(speaker, catalog.sources.speaker_group_regex)]
        place, reach = voices.index(speaker), max(n, len(voices) // NEAREST)
        group = Group.from_chances({name: len(group.places[name]) for name in voices[max(0, place - reach) : place + reach + 1]})
    return draw_others(group, speaker, n, rng)


def plan_times(pattern: str, n_others: int, samples: int, scene: Scene, rate: int, rng: Draw) -> Times:
    """When the target speaks, then each of the others, in samples within 0..samples. pattern: one of PATTERNS."""
    spoken = whole = [(0, samples)]
    if pattern == "turns":
        return plan_turns(n_others, samples, scene, rate, rng)
    if pattern == "partial":  # one begins, the other ends; in between both speak
        both = rng.uniform(*scene.overlap)
        first, second = [(0, round(samples * (1 + both) / 2))], [(round(samples * (1 - both) / 2), samples)]
        target, other = (first, second) if rng.random() < 0.5 else (second, first)
        return [target, *[other] * n_others]
    if pattern == "absent":
        spoken = []
    if pattern.startswith("silent"):
        pause = round(samples * rng.uniform(*scene.silence))
        middle = round((samples - pause) * rng.uniform(0.3, 0.7))
        begin = {"silent_start": 0, "silent_middle": middle, "silent_end": samples - pause}[pattern]
        spoken = [(a, b) for a, b in ((0, begin), (begin + pause, samples)) if b > a]
    return [spoken, *[whole] * n_others]


def plan_turns(n_others: int, samples: int, scene: Scene, rate: int, rng: Draw) -> Times:
    """One after the other, never the same twice in a row, nobody over itself; the target has the first or the second turn.

    Where there is time for one turn only, it is the target's.
    """
    times: Times = [[] for _ in range(1 + n_others)]
    speaker = first = 0 if rng.random() < 0.5 or not n_others else int(rng.integers(1, 1 + n_others))
    now = stop = 0
    while not stop or (stop < samples and now + SHORTEST * rate <= samples):
        stop = min(samples, now + round(rng.uniform(*scene.turn) * rate))
        times[speaker].append((now, stop))
        speaker = (speaker + int(rng.integers(1, 1 + n_others))) % (1 + n_others) if n_others and times[0] else 0
        free = times[speaker][-1][1] if times[speaker] else 0  # from when on it may speak
        now = max(now + 1, free, stop + round(rng.uniform(*scene.gap) * rate))
    if not times[0]:
        times[0], times[first] = times[first], []
    return times


def fill_times(
    catalog: Catalog, spans: Sequence[Span], times: Sequence[Interval], speed: float, rng: Draw, once: bool = False
) -> tuple[Piece, ...]:
    """Speech for these times: utterances, or parts of them, one after the other. once: none twice, so it may be less."""
    rate, pieces, left = catalog.sources.sample_rate, [], list(spans)
    for begin, end in times:
        now = begin
        while left and (end - now >= SHORTEST * rate or now == begin):
            span = left.pop(0) if once else left[rng.integers(len(left))]
            needed = max(1, floor((end - now) * speed))  # so that it ends by then
            for start, stop in cut_span(catalog, span, needed, rng):
                pieces.append(Piece(span.path, start, stop, now))
                now += floor((stop - start) / speed)
            now += round(rng.uniform(*UTTERANCE_GAP) * rate)
    return tuple(pieces)


def find_parts(catalog: Catalog, span: Span) -> list[Interval]:
    """The starts and stops of what a span gives: all of it, or its speech alone where pauses are dropped."""
    if not catalog.sources.drop_pauses:
        return [(span.start, span.stop)]
    speech = catalog.speech[span.path].clip(span.start, span.stop).tolist()
    return [(start, stop) for start, stop in speech if start < stop] or [(span.start, span.stop)]


def cut_span(catalog: Catalog, span: Span, samples: int, rng: Draw) -> list[Interval]:
    """So many samples of the parts of a span, or all, from a place on that is drawn, but never in a pause."""
    parts = find_parts(catalog, span)
    last = sum(stop - start for start, stop in parts) - samples
    if last <= 0:
        return parts
    first = int(rng.integers(last + 1))
    if len(parts) == 1:
        ((begin, _),) = parts
        speech = catalog.speech[span.path]
        following = speech[np.searchsorted(speech[:, 1], begin + first, "right") :]  # what ends behind it
        first = min(max(first, int(following[0, 0]) - begin), last) if len(following) else first
    pieces = []
    for start, stop in parts:
        begin, end = max(start, start + first), min(stop, start + first + samples)
        if begin < end:
            pieces.append((begin, end))
        first -= stop - start
    return pieces


def draw_room(catalog: Catalog, scene: Scene, share: float, rng: Draw) -> Callable[[], tuple[str | None, Room | None]]:
    """A function that gives the room of each voice, `rir` and `room`: in a share of all cases one for all of them, else none."""
    if rng.random() >= share:
        return lambda: (None, None)
    if scene.rt60 is None or rng.random() >= scene.simulated_share:
        if not catalog.rirs:
            raise UserError("reverb_share: expected impulse responses in `rirs`, or `rt60` to simulate rooms, found neither")
        return lambda: (draw_one(catalog.rirs, rng), None)
    x, y, z = (round(float(rng.uniform(*side)), 3) for side in SIZES)
    size = x, y, z
    microphone, rt60 = draw_place(size, rng), round(draw_between(scene.rt60, rng), 3)
    return lambda: (None, Room(size, microphone, draw_place(size, rng, microphone), rt60))


def draw_place(size: Point, rng: Draw, microphone: Point | None = None) -> Point:
    """A place in a room, to the millimetre; not too far from the microphone, if that is given."""
    for _ in range(TRIES):
        x, y, z = (round(float(rng.uniform(WALL, side - WALL)), 3) for side in size)
        if microphone is None or DISTANCE[0] <= np.linalg.norm(np.subtract((x, y, z), microphone)) <= DISTANCE[1]:
            break
    return x, y, z


def draw_noise(catalog: Catalog, share: float, snr: Range, rng: Draw) -> Noise | None:
    """Noise in a share of all cases. Raises UserError where there is none."""
    if rng.random() >= share:
        return None
    if not catalog.noise:
        raise UserError("noise_share: expected a folder of files as `noise`, found none")
    path, samples = draw_one(catalog.noise, rng)
    return Noise(path, int(rng.integers(samples)), draw_between(snr, rng))


def draw_speed(scene: Scene, rng: Draw) -> float:
    """How fast a voice is played."""
    return round(draw_between(scene.speed, rng), 4) if rng.random() < scene.speed_share else 1.0


def draw_between(range_: Range, rng: Draw) -> float:
    """Drawn evenly from a range."""
    return float(rng.uniform(*range_))


def draw_whole(range_: tuple[int, int], rng: Draw) -> int:
    """A whole number drawn evenly from a range, both ends included."""
    return int(rng.integers(range_[0], range_[1] + 1))


def draw_one(choices: Sequence[Any], rng: Draw) -> Any:
    """One of the choices, with equal chances."""
    return choices[int(rng.integers(len(choices)))]
