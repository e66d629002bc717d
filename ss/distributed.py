"""The only module that knows how many processes there are; alone, everything here does nothing.

Plain `python3` starts one process per GPU (or `n_processes` on a CPU) through torch's elastic launcher; under `torchrun`, on one
machine or several, the processes are there already and join.
"""

import ctypes
import os
import re
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.nn.functional import all_reduce
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ss.errors import UserError, require_positive

Item = TypeVar("Item")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's names for what `mallopt` sets


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def n_spare_cores() -> int:
    """Cores that are left for each process of this machine beside its own, of all or of those that it is pinned to."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, n_cores // local_world_size() - 1)


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


@cache
def bfloat16_is_native(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by itself; one that does not is slower with it than with float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    return device.type == "cpu" and flags.exists() and bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", flags.read_text()))


def launched() -> bool:
    """Whether torch's launcher started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(job: Callable[..., Item], *args: Any, n_gpu: int | None = None, n_processes: int = 1) -> list[Item]:
    """Runs `job(*args)` in every process and returns their results, by rank.

    job: a module's function, as the processes are spawned. n_gpu: GPUs to use (None: all there are; 0: the CPU); n_processes: on
    a CPU. Under torchrun both are torchrun's business, and the result is this process's only.
    """
    if launched():
        return [joined(job, *args)]
    n = n_processes
    if n_gpu == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if torch.cuda.is_available():
        n = n_gpu or torch.cuda.device_count()
    elif n_gpu:
        raise UserError(f"n_gpu: {n_gpu} asked for, but there is no GPU that torch can use")
    require_positive({"n_processes": n}, "n_processes")
    if n == 1:
        return [job(*args)]
    config = LaunchConfig(
        1, 1, n, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.2
    )
    results = elastic_launch(config, joined)(job, *args)
    return [results[i] for i in range(n)]


def joined(job: Callable[..., Item], *args: Any) -> Item:
    """Runs `job(*args)` as one of the processes that the launcher started."""
    on_gpu = device().type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device())
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_world_size()))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        return job(*args)
    finally:
        dist.destroy_process_group()


def total(values: Tensor) -> Tensor:
    """The sum of each value over all processes. Not differentiable."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def any_of(flag: bool) -> bool:
    """Whether any process says so; the same answer in all."""
    return flag if world_size() == 1 else bool(total(torch.tensor(float(flag), device=device())))


def gather(items: list[Item]) -> list[Item]:
    """The items of all processes, in the order of their ranks, in all of them."""
    if world_size() == 1:
        return items
    everybody: list[list[Item]] = [[] for _ in range(world_size())]
    dist.all_gather_object(everybody, items)
    return [item for theirs in everybody for item in theirs]


def shard(n: int) -> range:
    """This process's share of n items: every item in exactly one process."""
    return range(rank(), n, world_size())


def barrier() -> None:
    """Waits for all processes."""
    if world_size() > 1:
        dist.barrier()


def share(tensors: Iterable[Tensor]) -> None:
    """Gives every process the main one's values: of a model's weights, or of statistics that each took from its own examples."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients by their mean over the processes, once per optimizer step.

    Done here rather than by DistributedDataParallel: gradients accumulate over several batches before they are exchanged, and in
    a batch of one chunk a model's memory has none at all, which DDP allows only by searching the graph at every step.
    """
    if world_size() == 1:
        return
    parameters = list(parameters)
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    grads = [p.grad for p in parameters if p.grad is not None]
    vector_to_parameters(total(parameters_to_vector(grads)) / world_size(), grads)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of x [B,C,T] or [B,C] over the frames of all processes, on GPU and CPU (torch's SyncBatchNorm knows GPUs only)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        wide = x.float()  # under autocast, sums of bf16 would be far too coarse
        others, shape = [d for d in range(x.ndim) if d != 1], (-1, *[1] * (x.ndim - 2))
        running_mean, running_var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        shift = running_mean.detach().clone()  # the same everywhere: sums about it keep their precision
        shifted = wide - shift.view(shape)
        count = wide.new_full((1,), wide.numel() // wide.shape[1])
        sums = all_reduce(torch.cat([shifted.sum(others), shifted.square().sum(others), count]))  # one exchange, and one back
        mean, square = (sums[:-1] / sums[-1]).chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            assert self.momentum is not None
            running_mean.lerp_((mean + shift).to(running_mean.dtype), self.momentum)
            running_var.lerp_((variance * sums[-1] / (sums[-1] - 1)).to(running_var.dtype), self.momentum)
            self.get_buffer("num_batches_tracked").add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((shifted - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def keep_freed_memory() -> None:
    """Keeps what this process frees for itself, where the C library is glibc: it gives large blocks back to the system at once, and
    a training step, which needs them all again, spends an eighth of its time on having them cleared."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
