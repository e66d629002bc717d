"""Who speaks when: for each pattern the times of the target, then of each interferer, in samples."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ss.data.scene import Scene

Draw = np.random.Generator
Interval: TypeAlias = tuple[int, int]
Times: TypeAlias = list[list[Interval]]
SHORTEST = 0.3  # seconds: nothing shorter is begun


def plan_times(pattern: str, n_others: int, samples: int, scene: Scene, rate: int, rng: Draw) -> Times:
    """Times of the target, then of each of the others, within 0..samples."""
    whole = [[(0, samples)]] * n_others
    if pattern in ("full", "alone"):
        return [[(0, samples)], *whole]
    if pattern == "absent":
        return [[], *whole]
    return PATTERNS[pattern](n_others, samples, scene, rate, rng)


def partial(n_others: int, samples: int, scene: Scene, rate: int, rng: Draw) -> Times:
    """One begins, the other ends; in between both speak."""
    both = rng.uniform(*scene.overlap)
    early, late = (0, round(samples * (1 + both) / 2)), (round(samples * (1 - both) / 2), samples)
    first, second = (early, late) if rng.random() < 0.5 else (late, early)
    return [[first], *[[second]] * n_others]


def turns(n_others: int, samples: int, scene: Scene, rate: int, rng: Draw) -> Times:
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


def silent_at(where: str) -> Callable[[int, int, Scene, int, Draw], Times]:
    """The target is silent at the start, in the middle or at the end; the others speak all the time."""

    def times(n_others: int, samples: int, scene: Scene, rate: int, rng: Draw) -> Times:
        pause = round(samples * rng.uniform(*scene.silence))
        begin = {"start": 0, "middle": round((samples - pause) * rng.uniform(0.3, 0.7)), "end": samples - pause}[where]
        spoken = [(a, b) for a, b in ((0, begin), (begin + pause, samples)) if b > a]
        return [spoken, *[[(0, samples)]] * n_others]

    return times


PATTERNS = {"partial": partial, "turns": turns} | {f"silent_{where}": silent_at(where) for where in ("start", "middle", "end")}
