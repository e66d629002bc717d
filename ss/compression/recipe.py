"""Recipes: what is done to a trained model, stage by stage, as a person can read it in a yaml file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from ss.compression.structured import Limits
from ss.errors import UserError, explain, reject_unknown_keys, require_choices, require_positive

RECIPES = Path(__file__).parents[2] / "pruning_and_quantization" / "recipes.yaml"


@dataclass(frozen=True)
class Stage:
    """A stretch of fine-tuning, after what is done at its beginning.

    epochs, lr: of this stage. structured: channels and blocks to take out first (see Limits), judged on `batches` training batches.
    sparsity: the part of the weights that is held at zero. quantize: train through int8, as the exported model will compute.
    distil: the part of the loss that asks for the output of the model that the recipe began with (or of `teacher`, a checkpoint),
    instead of the target.
    """

    epochs: int
    lr: float
    structured: Limits | None = None
    batches: int = 50
    sparsity: float = 0.0
    quantize: bool = False
    distil: float = 0.0
    teacher: str | None = None

    def __post_init__(self) -> None:
        require_positive(vars(self), "epochs", "lr", "batches")
        for key in ("sparsity", "distil"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"{key}: expected a part from 0 to below 1, got {getattr(self, key)}")


@dataclass(frozen=True)
class Recipe:
    """about: what it is for, in a line. stages: in order; none: nothing is trained.

    precision: of the exported graphs. fp32; fp16, for GPUs; dynamic: int8 weights, activations quantized as they come; int8:
    weights and activations, with ranges found on `calibration` mixtures of the training set, whether or not a stage trained through
    int8. keep: layers that stay in float: beginnings of their names.
    """

    about: str
    stages: Sequence[Stage] = ()
    precision: Literal["fp32", "fp16", "dynamic", "int8"] = "fp32"
    calibration: int = 64
    keep: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_positive(vars(self), "calibration")
        require_choices(self)
        if any(stage.quantize for stage in self.stages) and self.precision != "int8":
            raise UserError(f"precision: expected int8 where a stage trains through int8, got {self.precision}")


def read_recipe(name: str | Path) -> Recipe:
    """A recipe by its file, or by the name of one in `pruning_and_quantization/recipes.yaml`.

    Raises UserError, naming the file, for keys that are none and values that cannot be.
    """
    recipes, where = yaml.safe_load(RECIPES.read_text()), str(name)
    if where not in recipes and not Path(name).is_file():
        raise UserError(f"recipe: expected a file, or one of {', '.join(sorted(recipes))}, found {name}")
    wrong, stages = (ValueError, TypeError, AttributeError, yaml.YAMLError), []
    with explain(f"{where}: not a recipe", *wrong):
        content = recipes[where] if where in recipes else yaml.safe_load(Path(name).read_text())
        for number, stage in enumerate(content.pop("stages", None) or [], 1):
            with explain(f"stage {number}", *wrong):
                limits = stage.get("structured")
                stages.append(Stage(**reject_unknown_keys(Stage, stage) | ({"structured": Limits(**limits)} if limits else {})))
        return Recipe(**reject_unknown_keys(Recipe, content), stages=stages)
