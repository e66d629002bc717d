"""The jobs of `pruning_and_quantization/`: a trained model through a recipe, and tests and extraction with what is exported."""

from pathlib import Path
from typing import Any

from ss import distributed, inferencer, tester
from ss.compression.fine_tuning import examples_config, fine_tune
from ss.compression.quantization import export_recipe, training_pairs
from ss.compression.recipe import read_recipe
from ss.errors import UserError


def prune_and_quantize(config: dict[str, Any]) -> int:
    """Fine-tunes `checkpoint` by `recipe`; best.pth in `run_dir`, the graphs in `exported`. Returns the exit code."""
    recipe, source, folder = read_recipe(config["recipe"]), Path(config["checkpoint"]), Path(config["exported"])
    overrides = {key: config[key] for key in ("data", "trainer")}
    model = fine_tune(recipe, source, Path(config["run_dir"]), overrides)
    if distributed.is_main():
        export_recipe(recipe, model, folder, training_pairs(examples_config(source, overrides), recipe.calibration))
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
    """The config for a job that takes a checkpoint. Raises UserError where nothing was exported."""
    if not Path(config["exported"]).is_dir():
        raise UserError(
            f"{config['exported']}: expected what prune_and_quantize.py makes by this recipe, but there is no such folder"
        )
    return {**config, "checkpoint": config["exported"], "out_folder": f"{config['run_dir']}/{out}"}
