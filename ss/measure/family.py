"""Many models side by side in one run: a table, a JSON, and a plot of real-time factor against latency.

Every round runs each model once on each runtime, in a process of its own; what a busy machine does to one round it does to all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hydra import compose
from omegaconf import OmegaConf
from scipy.optimize import isotonic_regression
from tqdm import tqdm

from ss.config import plain
from ss.errors import reject_unknown_keys, require_choice, require_positive
from ss.measure import bench
from ss.measure.backend import ONNX, Workload
from ss.measure.report import in_rounds, publish
from ss.measure.worker import run_alone
from ss.runtime.pretrained import SEGMENT_GRU, STEP

METHOD = """\
Every model in turn, every runtime of it in a fresh process on the CPU, in rounds. Real-time factor and CPU time per second of
audio: medians over the rounds. A segment model is given its own step at once, the online model chunks of chunk_ms, others whole
utterances. less CPU: the baseline's CPU time over the model's own, each in ONNX Runtime where that runs it, else in torch.
Latency, MACs, files and memory over idle as measure_weight_and_time.py says."""
APART = 0.035  # of the height of the picture: between labels


@dataclass(frozen=True)
class FamilySettings:
    """The keys of `family.yaml`.

    models: names of configs of `measure_weight_and_time/`; each: what is to be changed in every one of them; baseline: the one
    that the others' CPU time is compared with; rounds: how often each is run; chunk_ms: what the online model is given at once.
    Raises UserError for values that cannot be.
    """

    models: list[str]
    out_folder: str
    baseline: str
    each: dict[str, Any]
    rounds: int = 3
    chunk_ms: float = 10

    def __post_init__(self) -> None:
        require_choice("baseline", self.baseline, self.models)
        require_positive(vars(self), "rounds", "chunk_ms")

    def settings(self, name: str) -> bench.BenchSettings:
        """Of one model. Raises OmegaConf's error for a key in `each` that its config does not have."""
        return bench.BenchSettings.from_config(plain(OmegaConf.merge(compose(name), self.each)))  # type: ignore[arg-type]


def measure_family(config: dict[str, Any]) -> None:
    """Measures the models of a config inside of a Hydra job, prints a table, writes `family.json` and `family.png`."""
    family = FamilySettings(**reject_unknown_keys(FamilySettings, config))
    all_settings = {name: family.settings(name) for name in family.models}
    workloads: dict[tuple[str, str], Workload] = {}
    rows: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as temporary:
        for name, settings in tqdm(all_settings.items(), "latency, export"):
            model = settings.load()
            streams = settings.streams(model)
            backends, missing = bench.write_backends(settings, model, Path(temporary, name))
            (chunk,) = bench.chunk_sizes(settings, streams, [family.chunk_ms])
            for backend in backends:
                workloads[name, backend.runtime] = settings.live_workload(backend, [chunk], settings.live_seconds)
            rows[name] = {
                "name": name,
                **bench.describe_model(settings, model, streams, backends),
                "macs_per_second": bench.macs_per_second(streams, settings.sample_rate),
                "live": streams.live,
                "not_measured": missing,
                "chunk_seconds": chunk / settings.sample_rate,
                "runtimes": {},
            }
        runs = in_rounds(workloads, family.rounds, lambda key: run_alone(workloads[key]))
    for (name, runtime), rounds in runs.items():
        in_round = [bench.call_costs(run, 0, rows[name]["chunk_seconds"]) for run in rounds]
        rows[name]["runtimes"][runtime] = {
            **{key: median(each[key] for each in in_round) for key in ("real_time_factor", "cpu_seconds_per_second")},
            "milliseconds": bench.describe_times([second for run in rounds for second in run.seconds[0]]),
            "over_idle_bytes": median(run.ended - run.idle for run in rounds),
        }
    costs = {name: row["runtimes"].get(ONNX, row["runtimes"]["torch"])["cpu_seconds_per_second"] for name, row in rows.items()}
    for name, row in rows.items():
        sizes, wait = row["file_bytes"], row["latency"]["milliseconds"]
        row |= {"cpu_seconds_per_second": costs[name], "times_less_cpu": costs[family.baseline] / costs[name]}
        row |= {"step_bytes": sizes.get(STEP, sizes.get(SEGMENT_GRU[1])), "wait": f"{wait:g}" if row["live"] else "utterance"}
    columns = (
        "name {name} | model {model} | parameters {parameters:,} | GMAC/s {macs_per_second/G:.3g} | latency ms {wait} | "
        "RTF torch {runtimes[torch][real_time_factor]:.4f} | RTF ORT {runtimes[onnxruntime][real_time_factor]:.4f} | "
        "CPU/s {cpu_seconds_per_second:.4f} | less CPU {times_less_cpu:.1f}x | "
        "weights MiB {file_bytes[weights]/Mi:.1f} | step MiB {step_bytes/Mi:.1f} | "
        "RSS torch MiB {runtimes[torch][over_idle_bytes]/Mi:.0f} | RSS ORT MiB {runtimes[onnxruntime][over_idle_bytes]/Mi:.0f}"
    )
    report: dict[str, Any] = {"baseline": family.baseline, "rounds": family.rounds, "rows": [*rows.values()]}
    publish(family.out_folder, "family.json", "", report, {"rows": columns}, method=METHOD)
    draw(report["rows"], Path(family.out_folder, "family.png"))


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Real-time factor against latency on logarithmic axes, a named point per model and runtime, as a PNG; prints its path."""
    from matplotlib.figure import Figure  # takes a second to load

    figure = Figure(figsize=(9, 6.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="algorithmic latency (ms)", ylabel="real-time factor")
    columns: dict[float, list[tuple[float, str]]] = {}  # by latency; who waits for the end of an utterance waits as long as it is
    for runtime, marker in (("torch", "o"), (ONNX, "D")):
        ran = [row for row in rows if runtime in row["runtimes"]]
        xs = [row["latency"]["milliseconds"] or 1000 * row["chunk_seconds"] for row in ran]
        points = [(x, row["runtimes"][runtime]["real_time_factor"], row["name"]) for x, row in zip(xs, ran, strict=True)]
        axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], marker=marker, label=runtime, zorder=3)
        for x, y, name in points:
            columns.setdefault(x, []).append((y, name))
    factors = [y for column in columns.values() for y, _ in column]
    bottom, top = math.log10(min(factors)) - 0.3, math.log10(max(factors)) + 0.5
    axes.set_ylim(10**bottom, 10**top)
    axes.set_xlim(min(columns) / 2, 6 * max(columns))
    for x, column in columns.items():
        column.sort()
        heights = apart([(math.log10(y) - bottom) / (top - bottom) for y, _ in column], APART)
        for (y, name), height in zip(column, heights, strict=True):
            place, arrow = (1.3 * x, 10 ** (bottom + height * (top - bottom))), {"relpos": (0, 0.5), "color": "0.7", "lw": 0.6}
            axes.annotate(name, (x, y), place, fontsize=8, va="center", arrowprops={"arrowstyle": "-", **arrow})
    axes.axhline(1, color="0.5", lw=0.8, ls="--")
    axes.grid(which="both", color="0.9", lw=0.5)
    axes.legend()
    figure.savefig(path)
    print(path)


def apart(heights: list[float], distance: float) -> list[float]:
    """Rising heights moved as little as can be, so that neighbours are at least so far apart: those too close become a group."""
    steps = distance * np.arange(len(heights))
    return (isotonic_regression(np.array(heights) - steps).x + steps).tolist()
