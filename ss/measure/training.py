"""What a training needs: a step, forward and backward on noise; and the real Trainer on real data, and what its time goes into.

Of one model or one setting, or of several side by side: then each runs once in every round, and the medians are compared.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ss.checkpoint import build
from ss.config import plain
from ss.errors import UserError, require_positive
from ss.extraction import separate
from ss.measure.report import in_rounds, publish
from ss.measure.worker import SCRIPT, forget_peak, resident

STEP_METHOD = """\
Forward and backward of a batch of noise, without the optimizer; each step in a fresh process, after n_warmup that are not timed;
medians over rounds in which every model runs once. Mixture s per CPU s: seconds of mixtures over processor time of all threads.
Peak: resident memory above that of Python with torch. x: times the first model's."""
SPEED_METHOD = """\
Every variant trains once in each round, in a process of its own, after a warm-up that is not counted; the figures are medians over
rounds. Heard: seconds of mixtures that went through a training step, per second, and per second of processor time of the process
and its workers. Shares of the training's time: forward and backward with the loss; optimizer: gradient norm, clipping, step and
running mean; data: no batch was there yet; rest: progress bar, log and all else. Workers: their part of the processor time. Alone:
forward and backward with the loss, again and again on the last batch. Reached: heard per processor second over that of alone. x:
heard per processor second, times the first variant's."""


def measure_step(config: dict[str, Any]) -> None:
    """Prints time, peak memory and gradient norm of a step; of several `models`, a table (in a Hydra job only).

    config: model, loss, streamer; batch_size, seconds of each mixture and enrolment; activation_checkpointing; threads; n_warmup;
    models, recipes, each, rounds and out_folder of a comparison, as training_step.yaml says.
    """
    require_positive(config, "batch_size", "seconds", "sample_rate", "threads", "rounds", or_zero=["n_warmup"])
    if config["models"]:
        compare_steps(config)
        return
    cost = run_step_alone(config)
    batch = f"{config['batch_size']} mixtures of {config['seconds']} s"
    times = f"{cost['seconds']:.1f} s, peak {cost['peak_bytes'] / 1e9:.2f} GB, gradient norm {cost['norm']:.6g}"
    print(f"one step of {batch}, {'with' if config['activation_checkpointing'] else 'without'} activation checkpointing: {times}")


def compare_steps(config: dict[str, Any]) -> None:
    """Prints a table of the models in `models`, and writes `training_step.json` if there is an out_folder.

    `model`, `loss` and `streamer` are each model's own, changed by `each`; OmegaConf's error for a key that a model does not have.
    """
    configs = {}
    for name in config["models"]:
        composed = compose("training_step", [f"model={name}", *config["recipes"].get(name, [])])
        chosen = plain(OmegaConf.merge(composed, config["each"]))  # type: ignore[arg-type]
        configs[name] = {**config, **{key: chosen[key] for key in ("model", "loss", "streamer", "activation_checkpointing")}}
    rows = median_rows("name", configs, config["rounds"], lambda name: run_step_alone(configs[name]))
    for row in rows:
        del row["norm"]
        row["loss"] = configs[row["name"]]["loss"]["_target_"].split(".")[-1]
        row["mixture_seconds_per_cpu_second"] = config["batch_size"] * config["seconds"] / row["cpu_seconds"]
        row |= {f"times_{key}": row[key] / rows[0][key] for key in ("mixture_seconds_per_cpu_second", "peak_bytes")}
    sizes = {key: config[key] for key in ("batch_size", "seconds", "activation_checkpointing", "threads", "n_warmup", "rounds")}
    columns = (
        "name {name} | loss {loss} | step s {seconds:.2f} | CPU s {cpu_seconds:.2f} | "
        "mixture s per CPU s {mixture_seconds_per_cpu_second:.3g} | x {times_mixture_seconds_per_cpu_second:.3g} | "
        "peak MB {peak_bytes/M:.0f} | peak x {times_peak_bytes:.2g}"
    )
    head = ", ".join(f"{key} {value}" for key, value in sizes.items())
    publish(config["out_folder"], "training_step.json", head, {**sizes, "rows": rows}, {"rows": columns}, method=STEP_METHOD)


def median_rows(head: str, names: Iterable[str], rounds: int, run: Callable[[str], dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each name, which is under `head`: the medians over the rounds of what `run` gives."""
    found = in_rounds(names, rounds, run)
    return [{head: name, **{key: median(one[key] for one in all_of) for key in all_of[0]}} for name, all_of in found.items()]


def run_step_alone(config: dict[str, Any]) -> dict[str, float]:
    """`run_step` in a process whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run_step, config).result()


def run_step(config: dict[str, Any]) -> dict[str, float]:
    """What one step on the CPU takes, after `n_warmup` others: seconds, cpu_seconds of all threads, peak_bytes above those of
    Python with torch, and the norm of the gradient."""
    torch.set_num_threads(config["threads"])
    before = resident("VmRSS")
    forget_peak()
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
        loss(waves, logits, target, lengths, speakers, mixture).total.backward()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": resident("VmHWM") - before, "norm": norm}


def measure_speed(config: dict[str, Any]) -> None:
    """Prints a table of the variants, and writes `training_speed.json` where there is an out_folder; see training_speed.yaml.

    Variants are other settings, or other checkouts of this software.
    """
    require_positive(config, "rounds", "seconds", or_zero=["warm_up"], or_none=["threads"])
    variants = config["variants"]
    rows = median_rows("variant", variants, config["rounds"], lambda name: train_in_checkout(config, **variants[name]))
    for row in rows:
        row["times"] = row["heard_per_cpu_second"] / rows[0]["heard_per_cpu_second"]
    columns = (
        "variant {variant} | batch {batch_size:.0f} x {example_seconds:.2g} s | heard/s {heard_per_second:.1f} | "
        "heard/CPU s {heard_per_cpu_second:.1f} | x {times:.2f} | fwd+bwd {forward_backward:.1%} | optimizer {optimizer:.1%} | "
        "data {data:.1%} | rest {rest:.1%} | workers {workers:.1%} | alone/CPU s {alone_per_cpu_second:.1f} | reached {reached:.1%}"
    )
    report = {"config": config, "rows": rows}
    publish(config["out_folder"], "training_speed.json", "", report, {"rows": columns}, method=SPEED_METHOD)


def train_in_checkout(config: dict[str, Any], checkout: str | None = None, overrides: list[str] | None = None) -> dict[str, float]:
    """One round of a variant. Raises UserError with what was printed where it fails."""
    folder = Path(checkout or Path(__file__).parents[2]).resolve()
    task = {**config, "overrides": [*config["overrides"], *(overrides or [])]}
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).with_name("training_worker.py").resolve()), json.dumps(task)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the training in {folder} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
