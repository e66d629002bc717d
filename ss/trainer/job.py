"""A training run from its config: builds the parts, goes on where an earlier run stopped, and trains."""

import json
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import get_class, instantiate

import ss
from ss import checkpoint, distributed
from ss.data import manifest
from ss.data.catalog import make_catalog
from ss.data.scene_settings import Scene
from ss.data.sources import Sources, check_sources
from ss.datasets import find_triplets, make_filenames, read_speakers
from ss.errors import UserError, require_positive
from ss.files import sole_owner
from ss.trainer.settings import scenes
from ss.trainer.trainer import Trainer
from ss.trainer.writers import JsonLines, Writer
from ss.utils.predecessor import read_checkpoint

# What may differ between a run and its continuation; a scene is compared where it is used, in data.train.
FREE = ("trainer", "writer", "n_gpu", "n_processes", "resume", "scene", "data.train.cache_mb", "data.train.sources.num_workers")
SHOWN = 6  # differences at most
PACKAGES = ("torch", "numpy", "soundfile", "hydra-core", "omegaconf")


def train(config: dict[str, Any]) -> None:
    """Trains as the config says, or goes on with the run in its `run_dir`."""
    run_training(config)


def run_training(config: dict[str, Any], prepare: Callable[[Trainer], None] = lambda trainer: None) -> bool:
    """The same; returns whether it got to the end. Raises UserError for a run of another config in `run_dir`, and at once for what
    would otherwise show only after long work.

    prepare: called with the trainer when its weights are those that the run begins, or goes on, with: for what changes how a model
    computes or an optimizer steps.
    """
    run_dir, last = Path(config["run_dir"]), None
    with ExitStack() as opened:
        if distributed.is_main():
            opened.enter_context(sole_owner(run_dir))
        if config["resume"] and (run_dir / "last.pth").exists():
            last = read_checkpoint(run_dir / "last.pth")
            if found := list(differing(last["config"], config)):
                more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
                what = f"{run_dir} holds a run of another config ({'; '.join([*found[:SHOWN], *more])})"
                raise UserError(f"{what}: choose another run_dir, or resume=false to begin anew")
        require_positive(config, or_zero=["seed"])
        find_triplets(config["data"]["valid"]["folder"])
        if scenes(config):
            train = config["data"]["train"]
            check_sources(Scene.from_config(train["scene"]), Sources.from_config(train["sources"]))
        torch.manual_seed(config["seed"])
        speakers, to = speaker_list(config, run_dir), writers(config, last)
        for writer in to:
            opened.callback(writer.close)
        trainer = build(config, speakers, to)
        if last:
            trainer.load_state_dict(last["model"], last["trainer"])
        elif config.get("init_from"):
            fresh = checkpoint.begin_from(trainer.model, config["init_from"], trainer.speakers)
            trainer.progress.hours = read_checkpoint(config["init_from"]).get("hours", 0.0)
            if distributed.is_main():
                print(f"weights of {config['init_from']}" + (f"; new: {', '.join(fresh)}" if fresh else ""))
        prepare(trainer)
        if distributed.is_main():
            (run_dir / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            (run_dir / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n")
            print(f"{'resuming' if last else 'training'} in {run_dir} on {distributed.world_size()} x {trainer.device}")
        done = trainer.fit()
    if distributed.is_main():
        print(f"{'finished' if done else 'stopped; the same command goes on'}: epoch {trainer.progress.epoch - done}, {run_dir}")
    return done


def differing(old: dict[str, Any], new: dict[str, Any], path: str = "") -> Iterator[str]:
    """What differs between two configs, apart from what may."""
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if f"{path}{key}" in FREE:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differing(a, b, f"{path}{key}.")
        elif a != b:
            yield f"{path}{key}: {a} then, {b} now"


def speaker_list(config: dict[str, Any], run_dir: Path) -> list[str]:
    """The training speakers, from `data.speakers` or, if that is null, from the training folder; kept in the run folder."""
    train, n_speakers, path = config["data"]["train"], config["model"]["n_speakers"], config["data"].get("speakers")
    if path is None:
        path = run_dir / "speakers.txt"
        begun = config["resume"] and (run_dir / "last.pth").exists() and path.exists()
        if distributed.is_main() and not begun and scenes(config):
            found = make_catalog(Sources.from_config({**train["sources"], "sample_rate": config["data"]["sample_rate"]}))
            manifest.write(path, sorted(set(found.drawn.targets)))
        elif distributed.is_main() and not begun:
            make_filenames(train["folder"], path, n_speakers)
        distributed.barrier()
    speakers = read_speakers(path)
    if len(speakers) > n_speakers:
        raise UserError(f"{path}: expected at most {n_speakers} speakers (n_speakers), found {len(speakers)}")
    return speakers


def build(config: dict[str, Any], speakers: list[str], to: list[Writer]) -> Trainer:
    """The trainer that a config describes."""
    get_class(config["model"]["_target_"])  # imports the module of a class of the user's own, where it is registered
    trainer = get_class(config["trainer"]["_target_"])
    assert issubclass(trainer, Trainer)
    return trainer(config, speakers, to)


def writers(config: dict[str, Any], last: dict[str, Any] | None) -> list[Writer]:
    """The log and the writer asked for, in the main process only."""
    if not distributed.is_main():
        return []
    run_dir = Path(config["run_dir"])
    rows = last["trainer"]["progress"]["rows"] if last else 0
    found: list[Writer] = [JsonLines(run_dir / "log.jsonl", rows)]
    if config.get("writer"):
        make = instantiate(config["writer"], _partial_=True)
        found.append(make(run_dir=run_dir, sample_rate=config["data"]["sample_rate"], config=config))
    return found


def versions() -> dict[str, str]:
    """What this software runs with."""
    found = {"ss": ss.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        found[package] = "not found"
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    describe = ["git", "describe", "--always", "--dirty"]
    with suppress(OSError, subprocess.CalledProcessError):  # git is not installed, or this is no checkout
        found["commit"] = subprocess.check_output(describe, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True).strip()
    return found
