"""How fast scenes are rendered while a training waits for them: seconds of mixture per second of one core."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from ss.scenes.job import describe
from ss.scenes.plan import plan
from ss.scenes.pool import pool
from ss.scenes.render import Renderer
from ss.scenes.scene import Scene
from ss.scenes.sources import Sources


def benchmark(config: Mapping[str, Any]) -> None:
    """Plans and renders `nfiles` scenes `repeats` times, with and without decoded audio in memory; prints speeds and medians.

    config: `scene`, `cache_mb`, `nfiles`, `repeats`, and the fields of Sources. A speed is the length of the mixtures over this
    process's time on the processor; the first round with a cache fills it and is not counted.
    """
    own = {"scene", "cache_mb", "nfiles", "repeats"}
    scene, sources = Scene.of(config["scene"]), Sources.of({key: config[key] for key in set(config) - own})
    found = pool(sources)
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
