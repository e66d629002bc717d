"""How fast mixtures are made: seconds of mixture written per second of one core."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ss.data.catalog import make_catalog
from ss.data.corpus import scan
from ss.data.folder import render_all
from ss.data.mix import describe
from ss.data.plan import plan
from ss.data.render import Renderer
from ss.data.scene import Scene
from ss.data.sources import Sources
from ss.data.two_speakers.plan import plan as plan_pairs
from ss.data.two_speakers.render import render as render_pair
from ss.data.two_speakers.settings import Settings


def benchmark(config: dict[str, Any]) -> None:
    """Plans, renders and writes the mixtures `repeats` times, in this process alone; prints each speed and the median.

    config: the fields of Settings, and `repeats`; or see `benchmark_scenes`.

    A speed is the length of the mixtures over the time for all of it: headers, plan, decoding, mixing, writing (to a folder
    that is made inside `out_folder` and deleted). By the clock, it drops where other programs want the core or the disk; what
    it would be by the processor's time alone stands beside it. Raises ValueError where a mixture cannot be made.
    """
    if "scene" in config:
        benchmark_scenes(config)
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
    rows = plan_pairs(scan(settings), settings)
    planned = time.perf_counter()
    outcomes = list(render_all(rows, partial(render_pair, audios_dir=settings.audios_dir), settings))
    end, used = time.perf_counter(), time.process_time() - used
    if reasons := [outcome.reason for outcome in outcomes if outcome.reason is not None]:
        raise ValueError(f"expected a corpus without faults, but {len(reasons)} mixtures could not be made: {reasons[0]}")
    length = sum(outcome.samples for outcome in outcomes) / settings.sample_rate
    speed = length / (end - begin)
    times = f"plan {planned - begin:.2f} s, render {end - planned:.2f} s"
    print(f"{len(rows)} mixtures, {length:.0f} s: {times}: {speed:.0f} s/s ({length / used:.0f} by processor time)")
    return speed


def benchmark_scenes(config: Mapping[str, Any]) -> None:
    """Plans and renders `nfiles` scenes `repeats` times, with and without decoded audio in memory; prints speeds and medians.

    config: `scene`, `cache_mb`, `nfiles`, `repeats`, and the fields of Sources. A speed is the length of the mixtures over this
    process's time on the processor; the first round with a cache fills it and is not counted.
    """
    own = {"scene", "cache_mb", "nfiles", "repeats"}
    scene, sources = Scene.of(config["scene"]), Sources.of({key: config[key] for key in set(config) - own})
    found = make_catalog(sources)
    print(describe(found, scene))
    for cache_mb in (0, config["cache_mb"]):
        render, speeds = Renderer(sources, cache_mb), []
        for _ in range(config["repeats"] + (cache_mb > 0)):
            began = time.process_time()
            rows = plan(found, scene, 0, config["nfiles"])
            samples = sum(len(render(row).mixture) for row in rows)
            speeds.append(samples / sources.sample_rate / (time.process_time() - began))
        counted = speeds[cache_mb > 0 :]
        kept = f"{render.reader.used / 1e6:.0f} MB of decoded audio kept" if cache_mb else "every file decoded anew"
        each = ", ".join(f"{speed:.0f}" for speed in counted)
        print(f"{kept}: {each}: median {median(counted):.0f} seconds of mixture per second")
