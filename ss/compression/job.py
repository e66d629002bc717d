"""The jobs of `pruning_and_quantization/`: a trained model through a recipe, and tests and extraction with what is exported."""

from pathlib import Path
from typing import Any

import yaml

from ss import distributed, inferencer, tester
from ss.compression.exporting import exported, pairs
from ss.compression.recipe import Recipe, parse, read
from ss.compression.stages import examples_config, fine_tuned

RECIPES = Path(__file__).parents[2] / "pruning_and_quantization" / "recipes.yaml"


def recipe_of(name: str) -> Recipe:
    """A recipe by its path, or by the name of one in `pruning_and_quantization/recipes.yaml`."""
    recipes = yaml.safe_load(RECIPES.read_text())
    if name in recipes:
        return parse(recipes[name], f"{RECIPES}: {name}")
    if not Path(name).exists():
        raise ValueError(f"recipe: expected a file, or one of {', '.join(sorted(recipes))}, found {name}")
    return read(name)


def prune_and_quantize(config: dict[str, Any]) -> int:
    """Fine-tunes `checkpoint` by `recipe`; best.pth in `run_dir`, the graphs in `exported`. Returns the exit code."""
    recipe = recipe_of(config["recipe"])
    run_dir, folder = Path(config["run_dir"]), Path(config["exported"])
    overrides = {key: config[key] for key in ("data", "trainer")}
    model = fine_tuned(recipe, config["checkpoint"], run_dir, overrides)
    if distributed.is_main():
        exported(recipe, model, folder, pairs(examples_config(Path(config["checkpoint"]), overrides), recipe.calibration))
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(folder.iterdir()))
        print(f"{recipe.about}\n{model}\n{folder}: {sizes}")
    return 0


def test(config: dict[str, Any]) -> int:
    """Tests `exported` as `ss.tester.test` does. Returns the exit code."""
    return tester.test(with_export(config, "test"))


def infer(config: dict[str, Any]) -> int:
    """Extracts with `exported` as `ss.inferencer.infer` does. Returns the exit code."""
    return inferencer.infer(with_export(config, "predictions"))


def with_export(config: dict[str, Any], out: str) -> dict[str, Any]:
    """The config for a job that takes a checkpoint. Raises ValueError where nothing was exported."""
    if not Path(config["exported"]).is_dir():
        raise ValueError(
            f"{config['exported']}: expected what prune_and_quantize.py makes by this recipe, but there is no such folder"
        )
    return {**config, "checkpoint": config["exported"], "out_folder": f"{config['run_dir']}/{out}"}
