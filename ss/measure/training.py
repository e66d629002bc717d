"""What a training step needs: time and peak memory, forward and backward, of a batch of noise in a process of its own.

Of one model, or of several side by side: then each runs once in every round, and the medians are compared.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from ss.checkpoint import build
from ss.config import plain
from ss.extraction import separate
from ss.measure.job import machine
from ss.measure.memory import PeakMemory
from ss.measure.table import aligned, machine_line

METHOD = """\
Forward and backward of a batch of noise, without the optimizer; each step in a fresh process, after n_warmup that are not timed;
medians over rounds in which every model runs once. Mixture s per CPU s: seconds of mixtures over processor time of all threads.
Peak: resident memory above that of Python with torch. x: times the first model's."""
_HEAD = ["name", "loss", "step s", "CPU s", "mixture s per CPU s", "x", "peak MB", "x"]


class Cost(NamedTuple):
    """seconds, cpu_seconds (of all threads), peak_bytes above those of Python with torch, norm of the gradient."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    norm: float


def measure_step(config: dict[str, Any]) -> None:
    """Prints time, peak memory and gradient norm of a step; of several `models`, a table (in a Hydra job only).

    config: model, loss, streamer; batch_size, seconds of each mixture and enrolment; activation_checkpointing; threads; n_warmup;
    models, recipes, each, rounds and out_folder of a comparison, as training_step.yaml says.
    """
    if config["models"]:
        compare(config)
        return
    cost = step_alone(config)
    kind = "with" if config["activation_checkpointing"] else "without"
    batch = f"{config['batch_size']} mixtures of {config['seconds']} s"
    times = f"{cost.seconds:.1f} s, peak {cost.peak_bytes / 1e9:.2f} GB, gradient norm {cost.norm:.6g}"
    print(f"one step of {batch}, {kind} activation checkpointing: {times}")


def compare(config: dict[str, Any]) -> None:
    """Prints a table of the models in `models`, and writes `training_step.json` if there is an out_folder."""
    configs = {name: config_of(name, config) for name in config["models"]}
    costs: dict[str, list[Cost]] = {name: [] for name in configs}
    for name in tqdm(list(configs) * config["rounds"], "rounds"):
        costs[name].append(step_alone(configs[name]))
    rows = [row(configs[name], name, costs[name]) for name in configs]
    for each in rows:
        each |= {f"times_{key}": each[key] / rows[0][key] for key in ("mixture_seconds_per_cpu_second", "peak_bytes")}
    sizes = {key: config[key] for key in ("batch_size", "seconds", "activation_checkpointing", "threads", "n_warmup", "rounds")}
    report = {**sizes, "machine": machine(), "method": METHOD.replace("\n", " "), "rows": rows}
    if config["out_folder"]:
        path = Path(config["out_folder"]) / "training_step.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in sizes.items())
    print("\n".join([machine_line(report), about, "", *aligned([_HEAD, *map(_cells, rows)]), "", METHOD]))


def config_of(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The config with the model of this name, its recipe's loss and streamer, and what `each` changes.

    Raises OmegaConf's error for a key in `each` that the model does not have.
    """
    composed = compose("training_step", [f"model={name}", *config["recipes"].get(name, [])])
    chosen = plain(OmegaConf.merge(composed, config["each"]))  # type: ignore[arg-type]
    return {**config, **{key: chosen[key] for key in ("model", "loss", "streamer", "activation_checkpointing")}}


def row(config: dict[str, Any], name: str, costs: list[Cost]) -> dict[str, Any]:
    """Medians of what a model's steps took."""
    middle = Cost(*(median(values) for values in zip(*costs, strict=True)))
    return {
        "name": name,
        "loss": config["loss"]["_target_"].split(".")[-1],
        "seconds": middle.seconds,
        "cpu_seconds": middle.cpu_seconds,
        "mixture_seconds_per_cpu_second": config["batch_size"] * config["seconds"] / middle.cpu_seconds,
        "peak_bytes": middle.peak_bytes,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["loss"],
        f"{row['seconds']:.2f}",
        f"{row['cpu_seconds']:.2f}",
        f"{row['mixture_seconds_per_cpu_second']:.3g}",
        f"{row['times_mixture_seconds_per_cpu_second']:.3g}",
        f"{row['peak_bytes'] / 1e6:.0f}",
        f"{row['times_peak_bytes']:.2g}",
    ]


def step_alone(config: dict[str, Any]) -> Cost:
    """Runs `step` in a process whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(step, config).result()


def step(config: dict[str, Any]) -> Cost:
    """What one step on the CPU takes, after `n_warmup` others."""
    torch.set_num_threads(config["threads"])
    memory = PeakMemory(torch.device("cpu"))
    torch.manual_seed(0)
    model, loss, streamer = build(config["model"]).train(), instantiate(config["loss"]), instantiate(config["streamer"])
    model.checkpointing = config["activation_checkpointing"]
    size, samples = config["batch_size"], round(config["seconds"] * config["sample_rate"])
    mixture, target, ref = torch.randn(3, size, samples) * 0.1
    lengths, speakers = torch.full((size,), samples), torch.zeros(size, dtype=torch.long)
    for _ in range(config["n_warmup"] + 1):
        model.zero_grad()
        began, began_cpu = time.perf_counter(), time.process_time()
        waves, logits = separate(model, streamer, mixture, ref)
        loss(waves, logits, target, lengths, speakers, mixture).loss.backward()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    return Cost(seconds, cpu_seconds, memory.peak(), norm)
