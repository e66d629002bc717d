"""How fast mixtures are made: seconds of mixture written per second of one core."""

import time
from dataclasses import replace
from statistics import median
from tempfile import TemporaryDirectory

from ss.mixing.corpus import scan
from ss.mixing.job import render_all
from ss.mixing.plan import plan
from ss.mixing.settings import Settings


def benchmark(settings: Settings, repeats: int) -> float:
    """Plans, renders and writes the mixtures `repeats` times, in this process alone; prints each speed and gives the median.

    A speed is the length of the mixtures over the time for all of it: headers, plan, decoding, mixing, writing (to a folder that is
    made inside `out_folder` and deleted). Raises ValueError where a mixture cannot be made.
    """
    speeds = []
    for repeat in range(1, repeats + 1):
        with TemporaryDirectory(dir=settings.out_folder) as folder:
            begin = time.perf_counter()
            single = replace(settings, out_folder=folder, num_workers=1)
            rows = plan(scan(single), single)
            planned = time.perf_counter() - begin
            outcomes = list(render_all(rows, single))
            seconds = time.perf_counter() - begin
        if reasons := [outcome.reason for outcome in outcomes if outcome.reason is not None]:
            raise ValueError(f"expected a corpus without faults, but {len(reasons)} mixtures could not be made: {reasons[0]}")
        length = sum(outcome.samples for outcome in outcomes) / settings.sample_rate
        speeds.append(length / seconds)
        print(
            f"{repeat}: {len(rows)} mixtures, {length:.0f} s, in {seconds:.2f} s ({planned:.2f} s to plan): {speeds[-1]:.0f} s/s"
        )
    print(f"median of {repeats}: {median(speeds):.0f} mixture-seconds written per second of one core")
    return median(speeds)
