"""What only a GPU can show: `pytest -m gpu`, on a machine with one. Skipped elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, SIZES, WINDOWS, command, lively, run_command, training
from torch import distributed as dist
from torch import nn

from ss import distributed
from ss.extraction import separate
from ss.model import ExtractionModel, SpexPlusOnline, SpexPlusShortGRUModel
from ss.optimizer import Muon
from ss.streamer import Streamer, Whole
from ss.trainer.trainer import WeightAverage
from ss.utils.predecessor import read_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")]
SCRIPT = ("training/train.py", "-cn", "spexplus_online")


def gru() -> ExtractionModel:
    return SpexPlusShortGRUModel(**SIZES, short_kernel=20, dimension=16, memory_size=4, causal=True, version=0)


def losses(run_dir: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run_dir) if row["kind"] == "step"]


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["online", "segments"])
def test_forward_and_gradient_are_those_of_a_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    model = lively(SpexPlusOnline(**SIZES, **WINDOWS) if kind == "online" else gru())
    streamer = Whole() if kind == "online" else Streamer(800, 400, "half")
    mixture, ref = 0.1 * torch.randn(2, 3, 9600)
    found = []
    for device in ("cpu", "cuda"):
        model = model.to(device)
        model.zero_grad()
        waves, logits = separate(model, streamer, mixture.to(device), ref.to(device))
        (waves[0].square().mean() + logits.square().mean()).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        found.append((waves[0].detach().cpu(), logits.detach().cpu(), norm.cpu()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_steps_and_running_mean_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ss.optimizer.bfloat16_is_native", lambda device: False)
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 20)).to(device)
        optimizer, mean = Muon(net.parameters(), lr=1e-2), WeightAverage(net, 0.9)
        generator = torch.Generator().manual_seed(1)
        for _ in range(5):
            net(torch.randn(8, 20, generator=generator).to(device)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            mean.update_parameters(net)
        found.append([value.cpu() for value in mean.module.state_dict().values()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_trains_in_every_precision(precision: str, triplets: Path, tmp_path: Path) -> None:
    more = [f"trainer.precision={precision}", "trainer.average=0.9", "trainer.epochs=3", "writer=none", "n_gpu=1"]
    done = run_command(*SCRIPT, *training(triplets, tmp_path / "run"), *more)
    assert "on 1 x cuda:0" in done.stdout
    rows = read_rows(tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 6
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert np.isfinite([row["valid"]["loss"] for row in rows if row["kind"] == "epoch"]).all()


def test_resumes_where_it_stopped(triplets: Path, tmp_path: Path) -> None:
    more = ["trainer.epochs=2", "trainer.accumulate=1", "trainer.precision=fp32", "trainer.average=0.9", "writer=none", "n_gpu=1"]
    run_command(*SCRIPT, *training(triplets, tmp_path / "whole"), *more)
    stopped = run_command(*SCRIPT, *training(triplets, tmp_path / "run"), *more, "trainer.max_minutes=0")
    assert "stopped; the same command goes on" in stopped.stdout
    run_command(*SCRIPT, *training(triplets, tmp_path / "run"), *more)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=0.02, abs=0.02)
    last = [read_checkpoint(tmp_path / name / "last.pth")["trainer"]["progress"] for name in ("run", "whole")]
    assert last[0]["examples"] == last[1]["examples"]
    assert last[0]["step"] == last[1]["step"]


def exchange() -> list[float]:
    """What NCCL makes of numbers of one process."""
    values = torch.arange(3.0, device=distributed.device())
    dist.all_reduce(values)
    everybody: list[list[int]] = [[]]
    dist.all_gather_object(everybody, [distributed.rank()])
    dist.barrier()
    return [*values.tolist(), *everybody[0], float(dist.get_backend() == "nccl")]


def test_nccl_with_one_process(triplets: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    (tmp_path / "job.py").write_text("from test_gpu import *\nprint(distributed.joined(exchange))\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*torchrun, tmp_path / "job.py"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[0.0, 1.0, 2.0, 0, 1.0]" in done.stdout
    words = command(*SCRIPT, *training(triplets, tmp_path / "run"), "writer=none")[1:]
    done = subprocess.run([*torchrun, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "on 1 x cuda:0" in done.stdout


def test_onnx_runtime_on_cuda(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider (onnxruntime-gpu has)")
    from ss.export import export
    from ss.runtime import Extractor

    torch.manual_seed(0)
    export(lively(SpexPlusOnline(**SIZES, **WINDOWS)), tmp_path)
    wave = 0.1 * np.random.default_rng(0).standard_normal(24 * 200).astype(np.float32)
    found = []
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
        extractor = Extractor.load(tmp_path, provider=provider)
        assert provider in extractor.stepping.get_providers()
        stream = extractor.stream(np.tile(wave, 4), extractor.sample_rate)
        found.append(np.concatenate([stream.process(wave), stream.flush()]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
