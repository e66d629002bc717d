"""How fast mixtures are made: seconds of mixture written per second of one core."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ss.mixing.corpus import scan
from ss.mixing.folder import render_all
from ss.mixing.plan import plan
from ss.mixing.render import render
from ss.mixing.settings import Settings
from ss.scenes import benchmark as scenes


def benchmark(config: dict[str, Any]) -> None:
    """Plans, renders and writes the mixtures `repeats` times, in this process alone; prints each speed and the median.

    config: the fields of Settings, and `repeats`; or see `ss.scenes.benchmark`.

    A speed is the length of the mixtures over the time for all of it: headers, plan, decoding, mixing, writing (to a folder
    that is made inside `out_folder` and deleted). By the clock, it drops where other programs want the core or the disk; what
    it would be by the processor's time alone stands beside it. Raises ValueError where a mixture cannot be made.
    """
    if "scene" in config:
        scenes.benchmark(config)
        return
    repeats, settings = config["repeats"], Settings.of({key: config[key] for key in config if key != "repeats"})
    # all runs' files are deleted together at the end: ext4 is slow to make files where some were deleted just before
    with TemporaryDirectory(dir=settings.out_folder) as folder:
        speeds = [_run(replace(settings, out_folder=f"{folder}/{number}", num_workers=1)) for number in range(repeats)]
    print(f"median of {repeats}: {median(speeds):.0f} mixture-seconds written per second of one core")


def _run(settings: Settings) -> float:
    """The speed of one run."""
    Path(settings.out_folder).mkdir()
    begin, used = time.perf_counter(), time.process_time()
    rows = plan(scan(settings), settings)
    planned = time.perf_counter()
    outcomes = list(render_all(rows, partial(render, audios_dir=settings.audios_dir), settings))
    end, used = time.perf_counter(), time.process_time() - used
    if reasons := [outcome.reason for outcome in outcomes if outcome.reason is not None]:
        raise ValueError(f"expected a corpus without faults, but {len(reasons)} mixtures could not be made: {reasons[0]}")
    length = sum(outcome.samples for outcome in outcomes) / settings.sample_rate
    speed = length / (end - begin)
    times = f"plan {planned - begin:.2f} s, render {end - planned:.2f} s"
    print(f"{len(rows)} mixtures, {length:.0f} s: {times}: {speed:.0f} s/s ({length / used:.0f} by processor time)")
    return speed
