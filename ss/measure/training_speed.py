"""How fast a training hears audio, and what its time goes into: the real Trainer on real data, beside forward and backward alone.

Several variants (other settings, or another checkout of this software) run one after the other in every round, each in a process of
its own that imports `ss` from its checkout; so this file uses only what trainers have long had.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from tqdm import tqdm

from ss.config import plain
from ss.datasets import Batch
from ss.distributed import device
from ss.measure.job import machine
from ss.measure.table import aligned, machine_line
from ss.trainer.job import build, speaker_list

METHOD = """\
Every variant trains once in each round, in a process of its own, after a warm-up that is not counted; the figures are medians over
rounds. Heard: seconds of mixtures that went through a training step, per second, and per second of processor time of the process
and its workers. Shares of the training's time: forward and backward with the loss; optimizer: gradient norm, clipping, step and
running mean; data: no batch was there yet; rest: progress bar, log and all else. Workers: their part of the processor time. Alone:
forward and backward with the loss, again and again on the last batch. Reached: heard per processor second over that of alone. x:
heard per processor second, times the first variant's."""
_HEAD = [
    "variant",
    "batch",
    "heard/s",
    "heard/CPU s",
    "x",
    "fwd+bwd",
    "optimizer",
    "data",
    "rest",
    "workers",
    "alone/CPU s",
    "reached",
]
_SHARES = ("forward_backward", "optimizer", "data", "rest", "workers")
_RUN = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


def measure_speed(config: dict[str, Any]) -> None:
    """Prints a table of the variants, and writes `training_speed.json` where there is an out_folder; see training_speed.yaml."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in config["variants"]}
    for name in tqdm(list(found) * config["rounds"], "rounds"):
        found[name].append(measure_in_checkout(config, **config["variants"][name]))
    rows: list[dict[str, Any]] = [
        {"variant": name, **{key: median(row[key] for row in rounds) for key in rounds[0]}} for name, rounds in found.items()
    ]
    for row in rows:
        row["times"] = row["heard_per_cpu_second"] / rows[0]["heard_per_cpu_second"]
    report = {"machine": machine(), "method": METHOD.replace("\n", " "), "config": config, "rows": rows}
    if config["out_folder"]:
        path = Path(config["out_folder"]) / "training_speed.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join([machine_line(report), "", *aligned([_HEAD, *map(cells, rows)]), "", METHOD]))


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    heard = [f"{row['heard_per_second']:.1f}", f"{row['heard_per_cpu_second']:.1f}", f"{row['times']:.2f}"]
    shares = [f"{row[name]:.1%}" for name in _SHARES]
    batch = f"{row['batch_size']:.0f} x {row['example_seconds']:.2g} s"
    return [row["variant"], batch, *heard, *shares, f"{row['alone_per_cpu_second']:.1f}", f"{row['reached']:.1%}"]


def measure_in_checkout(
    config: dict[str, Any], checkout: str | None = None, overrides: list[str] | None = None
) -> dict[str, float]:
    """One round of a variant. Raises ValueError with what was printed where it fails."""
    folder = Path(checkout or Path(__file__).parents[2]).resolve()
    task = {**config, "overrides": [*config["overrides"], *(overrides or [])]}
    command = [sys.executable, "-c", _RUN, str(Path(__file__).resolve()), json.dumps(task)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the training in {folder} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(config: dict[str, Any]) -> dict[str, float]:
    """One round with the `ss` of this process, in its repository's root."""
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    with initialize_config_dir(str(Path("training/configs").resolve()), version_base=None), TemporaryDirectory() as run_dir:
        endless = [f"run_dir={run_dir}", "resume=false", "trainer.epochs=1000000", "trainer.save_minutes=null"]
        training = plain(compose(config["training"], [*config["overrides"], *endless]))
        torch.manual_seed(training["seed"])
        trainer = build(training, speaker_list(training, Path(run_dir)), [])
        backward, update = Stopwatch(trainer.backward), Stopwatch(trainer.update)
        vars(trainer).update(backward=backward, update=update)

        def train(seconds: float) -> None:
            trainer.stop.deadline = time.monotonic() + seconds
            while time.monotonic() < trainer.stop.deadline:
                if trainer.train_epoch():
                    trainer.progress.next_epoch()

        def now() -> dict[str, float]:
            times = {"wall": time.perf_counter(), "cpu": time.process_time(), "workers": workers_cpu_seconds()}
            calls = {"forward_backward": backward.seconds, "optimizer": update.seconds, "batches": backward.calls}
            return {**times, **calls, "data": trainer.progress.waited}

        train(config["warm_up"])
        before = now()
        train(config["seconds"])
        spent = {key: value - before[key] for key, value in now().items()}
        batch: Batch = backward.arguments[0]
        batch_seconds = int(batch.lengths.sum()) / training["data"]["sample_rate"]
        before = now()
        while time.perf_counter() - before["wall"] < config["seconds"] / 3:
            backward(batch, 1)
            trainer.optimizer.zero_grad()
        alone = {key: value - before[key] for key, value in now().items()}
    cpu = spent["cpu"] + spent["workers"]
    heard, heard_alone = spent["batches"] * batch_seconds, alone["batches"] * batch_seconds
    shares = {key: spent[key] / spent["wall"] for key in ("forward_backward", "optimizer", "data")}
    return {
        "batch_size": len(batch.names),
        "example_seconds": batch_seconds / len(batch.names),
        "heard_per_second": heard / spent["wall"],
        "heard_per_cpu_second": heard / cpu,
        **shares,
        "rest": 1 - sum(shares.values()),
        "workers": spent["workers"] / cpu,
        "alone_per_cpu_second": heard_alone / alone["cpu"],
        "reached": heard / cpu / (heard_alone / alone["cpu"]),
    }


class Stopwatch:
    """A function that counts its calls and their seconds, and keeps the arguments of the last one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.calls = function, 0.0, 0
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        self.arguments, began = arguments, time.perf_counter()
        result = self.function(*arguments)
        if device().type == "cuda":
            torch.cuda.synchronize()
        self.seconds, self.calls = self.seconds + time.perf_counter() - began, self.calls + 1
        return result


def workers_cpu_seconds() -> float:
    """Processor time of the processes that prepare batches (Linux only; 0 elsewhere)."""
    seconds = 0.0
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            seconds += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


if __name__ == "__main__":
    print(json.dumps(measure_here(json.loads(sys.argv[2]))))
