"""Recipes: what is done to a trained model, stage by stage, as a person can read it in a yaml file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ss.compression.structured import Limits

PRECISIONS = ("fp32", "fp16", "dynamic", "int8")


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
        if self.epochs < 1 or self.lr <= 0 or self.batches < 1:
            raise ValueError(f"expected epochs, lr and batches above 0, got {self.epochs}, {self.lr} and {self.batches}")
        for key in ("sparsity", "distil"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"{key}: expected a part from 0 to below 1, got {getattr(self, key)}")


@dataclass(frozen=True)
class Recipe:
    """about: what it is for, in a line. stages: in order; none: nothing is trained.

    precision: of the exported graphs. fp32; fp16, for GPUs; dynamic: int8 weights, activations quantized as they come; int8:
    weights and activations, with ranges found on `calibration` mixtures of the training set, whether or not a stage trained through
    int8. keep: layers that stay in float: beginnings of their names.
    """

    about: str
    stages: Sequence[Stage] = ()
    precision: str = "fp32"
    calibration: int = 64
    keep: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if any(stage.quantize for stage in self.stages) and self.precision != "int8":
            raise ValueError(f"precision: expected int8 where a stage trains through int8, got {self.precision}")


def read(path: str | Path) -> Recipe:
    """A recipe from its file. Raises ValueError, naming the file, for keys that are none and values that cannot be."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a recipe, but there is no such file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a recipe: {error}") from error
    return parse(content, str(path))


def parse(content: Any, where: str) -> Recipe:
    """A recipe from what a yaml file says. Raises ValueError, naming `where`, for keys that are none and values that cannot be."""
    try:
        stages = tuple(_stage(number, stage) for number, stage in enumerate(content.pop("stages", None) or [], 1))
        return Recipe(**_known(Recipe, content), stages=stages)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: not a recipe: {error}") from error


def _stage(number: int, content: dict[str, Any]) -> Stage:
    try:
        known = _known(Stage, content)
        limits = known.get("structured")
        return Stage(**known | ({"structured": Limits(**limits)} if limits else {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"stage {number}: {error}") from error


def _known(kind: Any, content: dict[str, Any]) -> dict[str, Any]:
    names = [one.name for one in fields(kind)]
    if unknown := sorted(set(content) - set(names)):
        raise ValueError(f"expected only {', '.join(names)}, got {', '.join(unknown)}")
    return dict(content)
