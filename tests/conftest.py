"""What several tests use: the repository's commands as a user types them, a tiny data set, and small sizes for every model."""

import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from torch import nn

from ss import audio, distributed
from ss.config import plain

ROOT = Path(__file__).parents[1]
RATE = 16000
SIZES = {
    "n_channels": 16,
    "hidden_channels": 24,
    "out_channels": 12,
    "n_resnetblocks": 2,
    "n_speakers": 6,
    "n_stacked_tcnblocks": 2,
    "n_tcnblocks": 3,
}
WINDOWS = {"kernels": [32, 96], "synthesis_kernel": 32, "hop": 24}  # of the online model
TINY = [f"model.{key}={value}" for key, value in SIZES.items()]


def lively(model: nn.Module) -> nn.Module:
    """The model as after a training: no batch norm is the identity, and no weight is zero."""
    for weight in model.parameters():
        if not weight.any():
            nn.init.normal_(weight, 0, 0.1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.weight, 1, 0.1)
            nn.init.normal_(norm.bias, 0, 0.1)
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def command(script: str, *overrides: str) -> list[str]:
    """The words of a command line from the repository root."""
    return [sys.executable, f"./{script}", "-cp", "./configs/", *overrides]


def composed(folder: str, name: str | None, *overrides: str) -> dict[str, Any]:
    """The config that the scripts of a folder get with `-cn name`; of `configs` with None, the overrides alone."""
    GlobalHydra.instance().clear()
    configs = ROOT / folder if name is None else ROOT / folder / "configs"
    with initialize_config_dir(str(configs), version_base=None):
        config = compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return plain(config)


Done = subprocess.CompletedProcess[str]


def call(main: Callable[[], object], *words: str, check: bool = True, folder: Path = ROOT, **environment: str) -> Done:
    """Calls a command's main in this process with the words of a command line, in a folder; its exit code and what it printed.

    The code is what `main` exits with, or the number that it returns. Environment, folder, threads, random state and Hydra's state
    are as before afterwards. An exception that the command does not catch goes on to the test. With `check`, anything but 0 fails.
    """
    out, err, code, threads = io.StringIO(), io.StringIO(), None, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]), redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", list(words))
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(distributed, "keep_freed_memory", lambda: None)  # for good: the tests' own memory is measured
        patch.chdir(folder)
        for name, value in environment.items():
            patch.setenv(name, value)
        GlobalHydra.instance().clear()
        try:
            if isinstance(result := main(), int):
                code = result
        except SystemExit as ended:
            code = ended.code
        finally:
            GlobalHydra.instance().clear()
            torch.set_num_threads(threads)
    if isinstance(code, str):
        print(code, file=err)
    done = Done(list(words), int(isinstance(code, str)) or code or 0, out.getvalue(), err.getvalue())
    assert not check or done.returncode == 0, f"{' '.join(done.args)}\n{done.stdout}\n{done.stderr}"
    return done


def run_script(script: str, *words: str, check: bool = True, **environment: str) -> Done:
    """Runs a Python file in this process as `python3 <script> <words>` from the repository root; what is imported stays so."""
    path = ROOT / script

    def main() -> None:
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")

    return call(main, script, *words, check=check, **environment)


def run(script: str, *overrides: str, check: bool = True, **environment: str) -> Done:
    """Runs a script with its configs and these overrides, in this process."""
    return run_script(*command(script, *overrides)[1:], check=check, **environment)


def run_command(script: str, *overrides: str, check: bool = True, **environment: str) -> Done:
    """Runs a script as a user does, in a process of its own. Several processes and a lock on a folder need that."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command(script, *overrides), cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert not check or done.returncode == 0, f"{' '.join(done.args)}\n{done.stdout}\n{done.stderr}"
    return done


def voice(rng: np.random.Generator, pitch: float, samples: int) -> audio.Wave:
    """A harmonic tone of a pitch in Hz with a slow random level [samples]."""
    time = np.arange(samples) / RATE
    tone = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 6))
    level = np.interp(time, np.linspace(0, time[-1], 8), rng.uniform(0.2, 1, 8))
    return (0.1 * level * tone).astype(np.float32)


@pytest.fixture(scope="module")
def enrolment() -> audio.Wave:
    """A second of one voice [S]."""
    return voice(np.random.default_rng(1), 140, RATE)


def make_triplets(folder: Path, names: list[str], seconds: float = 0.7, seed: int = 0) -> Path:
    """A triplet folder; the speaker's number is the pitch, lengths differ a little."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number, name in enumerate(names):
        samples = round(RATE * seconds) + 700 * number
        pitch = 100 + 30 * int(name.split("_")[0][1:])
        target, interferer, ref = (voice(rng, p, n) for p, n in ((pitch, samples), (pitch * 1.37, samples), (pitch, 9000)))
        audio.write(folder / f"{name}-mixed.wav", target + interferer, RATE)
        audio.write(folder / f"{name}-target.wav", target, RATE)
        audio.write(folder / f"{name}-ref.wav", ref, RATE)
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indices of corpora go into a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` (8 mixtures of 4 speakers), `dev` and `test` (one more speaker) triplets."""
    folder = tmp_path_factory.mktemp("data")
    make_triplets(folder / "train", [f"s{i % 4}_{i}" for i in range(8)])
    make_triplets(folder / "dev", ["s0_a", "s1_b", "s2_c"], seed=1)
    make_triplets(folder / "test", ["s0_a", "s1_b", "s9_c"], seed=2)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, triplets: Path) -> Path:
    """The run folder of a tiny GRU model trained for one epoch by the real command."""
    run_dir = tmp_path_factory.mktemp("runs") / "gru"
    run_command("training/short_causal_train.py", "-cn", "spexplusshort_gru", *training(triplets, run_dir))
    return run_dir


def training(triplets: Path, run_dir: Path) -> list[str]:
    """Overrides that make a training tiny."""
    data = [f"data.train.folder={triplets}/train", f"data.valid.folder={triplets}/dev", "data.train.max_length=0.5"]
    small = ["trainer.batch_size=2", "trainer.accumulate=2", "trainer.epochs=1", "trainer.num_workers=0", "trainer.log_every=1"]
    return [*TINY, *data, *small, f"run_dir={run_dir}"]
