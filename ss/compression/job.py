"""A trained model through a recipe, and tests and extraction with what is exported.

Each stage of a recipe is a training run of its own, in a folder of its own, that resumes like any other.
"""

import copy
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ss import allowlist, checkpoint, distributed, inferencer, tester
from ss.compression.constraints import Sparse, through_int8
from ss.compression.quantization import export_recipe, training_pairs
from ss.compression.recipe import Recipe, read_recipe
from ss.compression.structured import Importance, Limits, choose_channels, prune_channels
from ss.datasets import read_speakers
from ss.errors import UserError
from ss.files import whole_file
from ss.inferencer import PREDECESSOR_RATE
from ss.trainer import Trainer
from ss.trainer.job import build, differing, run_training
from ss.trainer.settings import scenes
from ss.utils.predecessor import is_predecessor, read_checkpoint

NARROWED = "narrowed.pth"
AS_TRAINED = "as_trained"  # the value that changes nothing


def prune_and_quantize(config: dict[str, Any]) -> None:
    """Fine-tunes `checkpoint` by `recipe`; best.pth in `run_dir`, the graphs in `exported`."""
    recipe, source, folder = read_recipe(config["recipe"]), Path(config["checkpoint"]), Path(config["exported"])
    overrides = {key: config[key] for key in ("data", "trainer")}
    model = fine_tune(recipe, source, Path(config["run_dir"]), overrides)
    if distributed.is_main():
        export_recipe(recipe, model, folder, training_pairs(examples_config(source, overrides), recipe.calibration))
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(folder.iterdir()))
        print(f"{recipe.about}\n{model}\n{folder}: {sizes}")


def test(config: dict[str, Any]) -> None:
    """Tests `exported` as `ss.tester.test` does."""
    tester.test(with_export(config, "test"))


def infer(config: dict[str, Any]) -> int:
    """Extracts with `exported` as `ss.inferencer.infer` does. Returns the exit code."""
    return inferencer.infer(with_export(config, "predictions"))


def with_export(config: dict[str, Any], out: str) -> dict[str, Any]:
    """The config for a job that takes a checkpoint. Raises UserError where nothing was exported."""
    if not Path(config["exported"]).is_dir():
        raise UserError(f"{config['exported']}: expected what prune_and_quantize.py makes by this recipe, found no such folder")
    return {**config, "checkpoint": config["exported"], "out_folder": f"{config['run_dir']}/{out}"}


def fine_tune(recipe: Recipe, source: Path, run_dir: Path, overrides: dict[str, Any]) -> Path:
    """The checkpoint at the end of a recipe's stages, `best.pth` in run_dir; what was done by an earlier call is not done again.

    source: a checkpoint of ours to begin with, whose own config says how it was trained. overrides: what is to be another in that
    config (`data`, `trainer`, ...). Stops, like a training, where asked to; then the checkpoint of the stage that is going on.
    """
    model, began = source, time.monotonic()
    for number, stage in enumerate(recipe.stages, 1):
        config = change_config(read_training_config(source), overrides)
        config |= {"run_dir": str(run_dir / f"stage-{number}"), "init_from": str(model), "resume": True, "sparsity": stage.sparsity}
        config["model"] = read_training_config(model)["model"]
        config["trainer"]["epochs"] = stage.epochs
        config["optimizer"]["lr"] = stage.lr
        if "max_lr" in (config.get("scheduler") or {}):
            config["scheduler"]["max_lr"] = stage.lr
        if stage.quantize:
            config["quantize"] = {"keep": list(recipe.keep)}
        if stage.distil:
            config["distil"] = {"teacher": stage.teacher or str(source), "weight": stage.distil}
            config["trainer"]["_target_"] = "ss.compression.distillation.DistillingTrainer"
        if config["trainer"].get("max_minutes") is not None:
            config["trainer"]["max_minutes"] -= (time.monotonic() - began) / 60
        if stage.structured:
            narrow_model(config, stage.structured, stage.batches, model)
        done = run_training(config, prepare)
        model = Path(config["run_dir"]) / "best.pth"
        if not done:
            break
    if distributed.is_main():
        with whole_file(run_dir / "best.pth") as aside:
            shutil.copyfile(model, aside)
    distributed.barrier()
    return run_dir / "best.pth"


def prepare(trainer: Trainer) -> None:
    """What a stage asks of a training: some weights stay zero, and the model computes through int8."""
    if trainer.config["sparsity"]:
        trainer.optimizer.register_step_post_hook(Sparse(trainer.model, trainer.config["sparsity"]).apply)
    if "quantize" in trainer.config:
        for model in {trainer.model, trainer.trained()}:
            through_int8(model, trainer.config["quantize"]["keep"])


def narrow_model(config: dict[str, Any], limits: Limits, n: int, model: Path) -> None:
    """Lets a stage's config begin with fewer hidden channels, judged on n batches: from a checkpoint of what is left of a model.

    Raises UserError where the one of an earlier call comes from another model or other limits.
    """
    begin = Path(config["run_dir"]) / NARROWED
    asked = {"checkpoint": str(model), "batches": n, **limits._asdict()}
    if not distributed.any_of(begin.exists()):
        path, former = config["data"].get("speakers"), checkpoint.load_extractor(model)
        trainer = build(config, read_speakers(path) if path else read_checkpoint(model).get("speakers", []), [])
        trainer.model.load_state_dict(former.state_dict())
        importance = Importance(trainer.model)
        trainer.batches.start(1)
        for batch in tqdm(islice(trainer.train_loader, n), "judging", n, disable=not distributed.is_main()):
            trainer.model.zero_grad()
            trainer.backward(batch.to(trainer.device), 1)
            importance()
        importance.share()
        kept = choose_channels(config["model"], importance, limits)
        small = prune_channels(former, config["model"], importance, kept)
        if distributed.is_main():
            left = {**config, "model": {**config["model"], "hidden_channels": kept}}
            checkpoint.save(begin, {"config": left, "model": small.state_dict(), "narrowed": asked})
        distributed.barrier()
    content = read_checkpoint(begin)
    if found := list(differing(content.get("narrowed", asked), asked)):  # older ones do not say
        what = f"{begin.parent} holds a model narrowed in another way ({'; '.join(found)})"
        raise UserError(f"{what}: choose another run_dir, or remove that folder to begin anew")
    config |= {"model": content["config"]["model"], "init_from": str(begin)}


def read_training_config(model: Path) -> dict[str, Any]:
    """How a checkpoint was trained. Raises UserError for one of the predecessor's, which does not say, and for a config that
    names what no file may (see `ss.allowlist`)."""
    config = read_checkpoint(model)["config"]
    if not isinstance(config, dict) or "trainer" not in config:
        raise UserError(f"{model}: expected a checkpoint of a training of ours, whose config says how to fine-tune it")
    allowlist.check_config(config)
    return copy.deepcopy(config)


def examples_config(source: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """A config with the training examples of a checkpoint, or with those that the overrides name."""
    content = read_checkpoint(source)
    config = {"data": {"train": {}, "sample_rate": PREDECESSOR_RATE}, "seed": 0} if is_predecessor(content) else content["config"]
    return change_config(copy.deepcopy(config), overrides)


def change_config(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A training config with other values for some keys (see `merge`). Scenes give way to a folder."""
    if scenes(config) and overrides.get("data", {}).get("train", {}).get("folder", AS_TRAINED) != AS_TRAINED:
        config["data"]["train"] = {}
    return merge(config, overrides)


def merge(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config with these changes; null switches a key off, `as_trained` changes nothing."""
    for key, value in changes.items():
        if isinstance(value, dict):
            config[key] = merge(config[key] if isinstance(config.get(key), dict) else {}, value)
        elif value != AS_TRAINED:
            config[key] = value
    return config
