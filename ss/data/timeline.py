"""Who speaks when: for each pattern the times of the target, then of each interferer, in samples."""

from typing import TypeAlias

import numpy as np

from ss.data.scene import Scene

Interval: TypeAlias = tuple[int, int]
Times: TypeAlias = list[list[Interval]]
SHORTEST = 0.3  # seconds: nothing shorter is begun


def plan_times(pattern: str, n_others: int, samples: int, scene: Scene, rate: int, rng: np.random.Generator) -> Times:
    """Times of the target, then of each of the others, within 0..samples. pattern: one of `ss.data.scene.PATTERNS`."""
    whole = [(0, samples)]
    if pattern == "turns":
        return plan_turns(n_others, samples, scene, rate, rng)
    if pattern == "partial":  # one begins, the other ends; in between both speak
        both = rng.uniform(*scene.overlap)
        first, second = [(0, round(samples * (1 + both) / 2))], [(round(samples * (1 - both) / 2), samples)]
        target, other = (first, second) if rng.random() < 0.5 else (second, first)
        return [target, *[other] * n_others]
    if pattern in ("full", "alone"):
        return [whole, *[whole] * n_others]
    if pattern == "absent":
        return [[], *[whole] * n_others]
    pause = round(samples * rng.uniform(*scene.silence))
    middle = round((samples - pause) * rng.uniform(0.3, 0.7))
    begin = {"silent_start": 0, "silent_middle": middle, "silent_end": samples - pause}[pattern]
    spoken = [(a, b) for a, b in ((0, begin), (begin + pause, samples)) if b > a]
    return [spoken, *[whole] * n_others]


def plan_turns(n_others: int, samples: int, scene: Scene, rate: int, rng: np.random.Generator) -> Times:
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
