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

from hydra import compose
from omegaconf import OmegaConf
from tqdm import tqdm

from ss.config import plain
from ss.errors import UserError, reject_unknown_keys
from ss.measure.backend import ONNX, Workload
from ss.measure.bench import (
    BenchSettings,
    call_costs,
    chunk_sizes,
    describe_latency,
    describe_times,
    file_bytes,
    macs_per_second,
    weights_bytes,
    write_backends,
)
from ss.measure.report import in_rounds, machine, machine_line, publish
from ss.measure.worker import run_alone
from ss.model.cost import n_parameters
from ss.tables import text_table

METHOD = """\
Every model in turn, every runtime of it in a fresh process on the CPU, in rounds. Real-time factor and CPU time per second of
audio: medians over the rounds. A segment model is given its own step at once, the online model chunks of chunk_ms, others whole
utterances. less CPU: the baseline's CPU time in torch over the model's own, in ONNX Runtime where that runs it.
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
        if self.baseline not in self.models:
            raise UserError(f"baseline: expected one of {', '.join(self.models)}, got {self.baseline!r}")
        for key in ("rounds", "chunk_ms"):
            if getattr(self, key) <= 0:
                raise UserError(f"{key}: expected more than 0, got {getattr(self, key)}")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FamilySettings":
        """Of a config. Raises UserError for a key that is none of these."""
        return cls(**reject_unknown_keys(cls, config))

    def settings(self, name: str) -> BenchSettings:
        """Of one model. Raises OmegaConf's error for a key in `each` that its config does not have."""
        return BenchSettings.from_config(plain(OmegaConf.merge(compose(name), self.each)))  # type: ignore[arg-type]


def measure_family(config: dict[str, Any]) -> None:
    """Measures the models of a config inside of a Hydra job, prints a table, writes `family.json` and `family.png`."""
    family = FamilySettings.from_config(config)
    all_settings = {name: family.settings(name) for name in family.models}
    workloads: dict[tuple[str, str], Workload] = {}
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        for name, settings in tqdm(all_settings.items(), "latency, export"):
            folder = Path(temporary) / name
            folder.mkdir()
            model = settings.load()
            streams = settings.streams(model)
            backends, missing = write_backends(settings, model, folder)
            (chunk,) = chunk_sizes(settings, streams, [family.chunk_ms])
            for backend in backends:
                workloads[name, backend.runtime] = settings.live_workload(backend, [chunk], settings.live_seconds)
            exported = file_bytes(backends[1].source) if len(backends) > 1 else {}
            rows.append(
                {
                    "name": name,
                    "model": type(model).__name__,
                    "parameters": n_parameters(model),
                    "macs_per_second": macs_per_second(streams, settings.sample_rate),
                    "live": streams.live,
                    "latency": describe_latency(streams, settings.sample_rate),
                    "file_bytes": {"weights": weights_bytes(model), **exported},
                    "not_measured": missing,
                    "chunk_seconds": chunk / settings.sample_rate,
                    "runtimes": {},
                }
            )
        runs = in_rounds(workloads, family.rounds, lambda key: run_alone(workloads[key]))
    by_name = {row["name"]: row for row in rows}
    for (name, runtime), rounds in runs.items():
        costs = [call_costs(run, 0, by_name[name]["chunk_seconds"]) for run in rounds]
        by_name[name]["runtimes"][runtime] = {
            **{key: median(each[key] for each in costs) for key in ("real_time_factor", "cpu_seconds_per_second")},
            "milliseconds": describe_times([second for run in rounds for second in run.seconds[0]]),
            "over_idle_bytes": median(run.ended - run.idle for run in rounds),
        }
    of_baseline = by_name[family.baseline]["runtimes"]["torch"]["cpu_seconds_per_second"]
    for row in rows:
        cpu_seconds = row["runtimes"].get(ONNX, row["runtimes"]["torch"])["cpu_seconds_per_second"]
        row |= {"cpu_seconds_per_second": cpu_seconds, "times_less_cpu": of_baseline / cpu_seconds}
    report = {"baseline": family.baseline, "rounds": family.rounds, "machine": machine(), "method": METHOD.replace("\n", " ")}
    out = Path(family.out_folder)
    out.mkdir(parents=True, exist_ok=True)
    draw(rows, out / "family.png")
    blocks = [machine_line(report["machine"]), family_table(rows), METHOD]
    publish(report | {"rows": rows}, out / "family.json", *blocks, pictures=[out / "family.png"])


def family_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per model."""
    head = ["name", "model", "parameters", "GMAC/s", "latency ms", "RTF torch", "RTF ORT", "CPU/s", "less CPU", "weights MiB"]
    head += ["step MiB", "RSS torch MiB", "RSS ORT MiB"]
    lines = []
    for row in rows:
        files, runtimes = row["file_bytes"], [row["runtimes"].get(runtime) for runtime in ("torch", ONNX)]
        lines.append(
            [
                row["name"],
                row["model"],
                f"{row['parameters']:,}",
                f"{row['macs_per_second'] / 1e9:.3g}",
                f"{row['latency']['milliseconds']:g}" if row["live"] else "utterance",
                *(f"{one['real_time_factor']:.4f}" if one else "n/a" for one in runtimes),
                f"{row['cpu_seconds_per_second']:.4f}",
                f"{row['times_less_cpu']:.1f}x",
                f"{files['weights'] / 2**20:.1f}",
                f"{files['step.onnx'] / 2**20:.1f}" if "step.onnx" in files else "n/a",
                *(f"{one['over_idle_bytes'] / 2**20:.0f}" if one else "n/a" for one in runtimes),
            ]
        )
    return text_table(head, lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Real-time factor against latency on logarithmic axes, a named point per model and runtime, as a PNG."""
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


def apart(heights: list[float], distance: float) -> list[float]:
    """Rising heights moved so that neighbours are at least so far apart: those too close become a group around their middle."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _spread(groups[-2], distance)[-1] + distance > _spread(groups[-1], distance)[0]:
            last = groups.pop()
            groups[-1] += last
    return [height for group in groups for height in _spread(group, distance)]


def _spread(group: list[float], distance: float) -> list[float]:
    lowest = sum(group) / len(group) - distance * (len(group) - 1) / 2
    return [lowest + distance * i for i in range(len(group))]
