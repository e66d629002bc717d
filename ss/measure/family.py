"""Many models side by side in one run: a table, a JSON, and a plot of real-time factor against latency.

Every round runs each model once on each runtime, in a process of its own; what a busy machine does to one round it does to all.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from ss.config import plain
from ss.measure.alone import Run
from ss.measure.cost import n_parameters
from ss.measure.job import machine
from ss.measure.listening import live_row, macs_per_second, measured_latency, memory, milliseconds
from ss.measure.live import is_live
from ss.measure.parts import Settings
from ss.measure.plot import Point, scatter
from ss.measure.sources import ONNX, Sources, chunk_sizes, file_bytes, job, run_alone, sources
from ss.measure.table import aligned, machine_line

METHOD = """\
Every model in turn, every runtime of it in a fresh process on the CPU, in rounds. Real-time factor and CPU time per second of
audio: medians over the rounds. A segment model is given its own step at once, the online model chunks of chunk_ms, others whole
utterances. less CPU: the baseline's CPU time in torch over the model's own, in ONNX Runtime where that runs it.
Latency, MACs, files and memory over idle as measure_weight_and_time.py says."""

_HEAD = ["name", "model", "parameters", "GMAC/s", "latency ms", "RTF torch", "RTF ORT", "CPU/s", "less CPU", "weights MiB"]
_HEAD += ["step MiB", "RSS torch MiB", "RSS ORT MiB"]


@dataclass(frozen=True)
class Family:
    """The keys of `family.yaml`.

    models: names of configs of `measure_weight_and_time/`; each: what is to be changed in every one of them; baseline: the one
    that the others' CPU time is compared with; rounds: how often each is run; chunk_ms: what the online model is given at once.
    Raises ValueError for values that cannot be.
    """

    models: list[str]
    out_folder: str
    baseline: str
    each: dict[str, Any]
    rounds: int = 3
    chunk_ms: float = 10

    def __post_init__(self) -> None:
        if self.baseline not in self.models:
            raise ValueError(f"baseline: expected one of {', '.join(self.models)}, got {self.baseline!r}")
        for key in ("rounds", "chunk_ms"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: expected more than 0, got {getattr(self, key)}")

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Family":
        """Of a config. Raises ValueError for a key that is none of these."""
        unknown = set(config) - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"expected no other keys than those of family.yaml, got {', '.join(sorted(unknown))}")
        return cls(**config)

    def settings(self, name: str) -> Settings:
        """Of one model. Raises OmegaConf's error for a key in `each` that its config does not have."""
        return Settings.of(plain(OmegaConf.merge(compose(name), self.each)))  # type: ignore[arg-type]


class Member(NamedTuple):
    """A model of the table. chunk: samples that it is given at once; facts: what does not need a clock."""

    name: str
    settings: Settings
    sources: Sources
    chunk: int
    facts: dict[str, Any]


def measure_family(config: dict[str, Any]) -> None:
    """Measures the models of a config inside of a Hydra job, prints a table, writes `family.json` and `family.png`."""
    family = Family.of(config)
    settings = {name: family.settings(name) for name in family.models}
    with TemporaryDirectory() as folder:
        members = [
            member(name, one, family.chunk_ms, Path(folder) / name) for name, one in tqdm(settings.items(), "latency, export")
        ]
        runs = in_rounds(members, family.rounds)
    rows = [row(one, runs[one.name]) for one in members]
    compared(rows, family.baseline)
    report = {"baseline": family.baseline, "rounds": family.rounds, "machine": machine(), "method": METHOD.replace("\n", " ")}
    write(report | {"rows": rows}, Path(family.out_folder))


def member(name: str, settings: Settings, chunk_ms: float, folder: Path) -> Member:
    """Loads a model, counts, watches its latency, and writes what the runtimes need into a folder."""
    model = settings.load()
    folder.mkdir()
    found = sources(settings, model, folder)
    (chunk,) = chunk_sizes(settings, model, [chunk_ms])
    facts = {
        "name": name,
        "model": type(model).__name__,
        "parameters": n_parameters(model),
        "macs_per_second": macs_per_second(settings, model),
        "live": is_live(model, instantiate(settings.streamer)),
        "latency": measured_latency(settings, model),
        "file_bytes": file_bytes(model, found),
        "not_measured": found.missing,
    }
    return Member(name, settings, found, chunk, facts)


def in_rounds(members: list[Member], rounds: int) -> dict[str, dict[str, list[Run]]]:
    """The runs of each round, by name and runtime."""
    turns = [(one, runtime) for _ in range(rounds) for one in members for runtime in one.sources.by_runtime]
    runs: dict[str, dict[str, list[Run]]] = {one.name: {runtime: [] for runtime in one.sources.by_runtime} for one in members}
    for one, runtime in tqdm(turns, "rounds"):
        seconds = one.settings.live_seconds
        runs[one.name][runtime].append(run_alone(job(one.settings, one.sources, runtime, [one.chunk], seconds)))
    return runs


def row(one: Member, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """A member's facts and what its runs took."""
    chunk_seconds = one.chunk / one.settings.sample_rate
    return {**one.facts, "chunk_seconds": chunk_seconds, "runtimes": {name: cost(one, some) for name, some in runs.items()}}


def cost(one: Member, runs: list[Run]) -> dict[str, Any]:
    """Medians over the rounds; the times of all calls together."""
    rounds = [live_row(one.settings, run, 0, one.chunk, one.facts["macs_per_second"]) for run in runs]
    return {
        **{key: median(each[key] for each in rounds) for key in ("real_time_factor", "cpu_seconds_per_second")},
        "milliseconds": milliseconds([second for run in runs for second in run.seconds[0]]),
        "over_idle_bytes": median(memory(run)["over_idle_bytes"] for run in runs),
    }


def compared(rows: list[dict[str, Any]], baseline: str) -> None:
    """Adds how many times less CPU than the baseline in torch each model needs, on the last of its runtimes."""
    of_baseline = next(row for row in rows if row["name"] == baseline)["runtimes"]["torch"]["cpu_seconds_per_second"]
    for row in rows:
        own = row["runtimes"].get(ONNX, row["runtimes"]["torch"])["cpu_seconds_per_second"]
        row |= {"cpu_seconds_per_second": own, "times_less_cpu": of_baseline / own}


def write(report: dict[str, Any], folder: Path) -> None:
    """Prints the table; `family.json` and `family.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "family.json").write_text(json.dumps(report, indent=1) + "\n")
    scatter(points(report["rows"]), folder / "family.png")
    table = "\n".join(aligned([_HEAD, *(_cells(row) for row in report["rows"])]))
    print(f"{machine_line(report)}\n\n{table}\n\n{METHOD}\n\n{folder / 'family.json'}\n{folder / 'family.png'}")


def points(rows: list[dict[str, Any]]) -> list[Point]:
    """A point per model and runtime; who waits for the end of an utterance waits as long as it is."""
    return [
        Point(row["name"], runtime, row["latency"]["milliseconds"] or 1000 * row["chunk_seconds"], found["real_time_factor"])
        for row in rows
        for runtime, found in row["runtimes"].items()
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    runtimes, latency = row["runtimes"], row["latency"]
    rtf, rss = ([_of(runtimes, name, key, by) for name in ("torch", ONNX)] for key, by in _COLUMNS)
    step = row["file_bytes"].get("step.onnx")
    return [
        row["name"],
        row["model"],
        f"{row['parameters']:,}",
        f"{row['macs_per_second'] / 1e9:.3g}",
        "utterance" if latency["milliseconds"] is None else f"{latency['milliseconds']:g}",
        *rtf,
        f"{row['cpu_seconds_per_second']:.4f}",
        f"{row['times_less_cpu']:.1f}x",
        f"{row['file_bytes']['weights'] / 2**20:.1f}",
        "n/a" if step is None else f"{step / 2**20:.1f}",
        *rss,
    ]


_COLUMNS = (("real_time_factor", 1), ("over_idle_bytes", 2**20))


def _of(runtimes: dict[str, dict[str, Any]], name: str, key: str, by: int) -> str:
    return f"{runtimes[name][key] / by:.{4 if by == 1 else 0}f}" if name in runtimes else "n/a"
