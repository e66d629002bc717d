"""One round of a training, timed: a script that takes its task as JSON and prints figures.

It runs in a process of its own that imports `ss` from whatever checkout is measured, so it uses only what trainers have long had.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from ss.config import plain
from ss.datasets import Batch
from ss.distributed import device
from ss.trainer.job import build, speaker_list


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
