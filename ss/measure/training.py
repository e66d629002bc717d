"""What one training step needs: time and peak memory, forward and backward, of one batch of noise in a process of its own."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from hydra.utils import instantiate

from ss.checkpoint import build
from ss.extraction import separate
from ss.measure.memory import PeakMemory


def measure_step(config: dict[str, Any]) -> None:
    """Prints time, peak memory and gradient norm of a step.

    config: model, loss, streamer; batch_size, seconds of each mixture and enrolment; activation_checkpointing; threads.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process whose memory nothing else has touched
        seconds, peak, norm = pool.submit(step, config).result()
    kind = "with" if config["activation_checkpointing"] else "without"
    batch = f"{config['batch_size']} mixtures of {config['seconds']} s"
    print(
        f"one step of {batch}, {kind} activation checkpointing: {seconds:.1f} s, peak {peak / 1e9:.2f} GB, gradient norm {norm:.6g}"
    )


def step(config: dict[str, Any]) -> tuple[float, int, float]:
    """(seconds, peak bytes above those of Python with torch, norm of the gradient) of one step on the CPU."""
    torch.set_num_threads(config["threads"])
    memory = PeakMemory(torch.device("cpu"))
    torch.manual_seed(0)
    model = build(config["model"]).train()
    model.checkpointing = config["activation_checkpointing"]
    size, samples = config["batch_size"], round(config["seconds"] * config["sample_rate"])
    mixture, target, ref = torch.randn(3, size, samples) * 0.1
    began = time.perf_counter()
    waves, logits = separate(model, instantiate(config["streamer"]), mixture, ref)
    instantiate(config["loss"])(
        waves, logits, target, torch.full((size,), samples), torch.zeros(size, dtype=torch.long)
    ).loss.backward()
    seconds, peak = time.perf_counter() - began, memory.peak()
    return seconds, peak, torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
