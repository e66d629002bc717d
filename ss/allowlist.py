"""What a file may ask for: a checkpoint's config and ONNX metadata are data, and name classes only from a fixed list.

Hydra's `instantiate` calls whatever a `_target_` names; it is for configs that the user wrote. What a file carries is created here:
one class of the list of its role, with plain arguments.
"""

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any, TypeVar

from ss.errors import UserError, explain

Class = TypeVar("Class", bound=type)

TARGET = "_target_"
DEPTH = 8  # of lists and dicts in each other: a pickle may hold a list that holds itself
MODELS = ("", "Online", "Short", "ShortCacheModel", "ShortGRUMainModel", "ShortGRUModel", "ShortRNN", "ShortSpeakerHandler")
CLASSES: dict[str, list[str]] = {
    "model": [f"ss.model.SpexPlus{kind}" for kind in (*MODELS, "ShortSpecialChannelsModel")],
    "streamer": ["ss.streamer.Streamer", "ss.streamer.Whole"],
    "loss": ["ss.loss.PresenceLoss", "ss.loss.SpexPlusLoss", "ss.loss.SpexPlusShortLoss"],
    "optimizer": ["ss.optimizer.Muon", "torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD"],
    "scheduler": ["torch.optim.lr_scheduler.OneCycleLR", "torch.optim.lr_scheduler.ReduceLROnPlateau"],
    "trainer": [
        "ss.compression.distillation.DistillingTrainer",
        *(f"ss.trainer.{kind}Trainer" for kind in ("", "Causal", "ShortCausal", "SimpleShortCausal")),
    ],
    "writer": ["ss.trainer.writers.TensorBoard", "ss.wandb.Wandb"],
}
REGISTERED: dict[str, type] = {}  # classes of users, by their names in CLASSES


def register(role: str) -> Callable[[Class], Class]:
    """A decorator for a class of your own: files may name it for this role wherever the module that defines it is imported."""

    def add(kind: Class) -> Class:
        name = f"{kind.__module__}.{kind.__qualname__}"
        REGISTERED[name] = kind
        if name not in CLASSES[role]:
            CLASSES[role].append(name)
        return kind

    return add


def check(role: str, config: Any) -> None:
    """Raises UserError unless a config names a class of its role's list, with plain arguments: numbers, strings, booleans, None,
    and lists and dicts of these without a `_target_` in them."""
    if not isinstance(config, Mapping):
        raise UserError(f"{role}: expected a {TARGET} and its arguments, got {type(config).__name__}")
    name = config.get(TARGET)
    if not isinstance(name, str) or name not in CLASSES[role]:
        modules = " or ".join(sorted({known.rpartition(".")[0] for known in CLASSES[role]}))
        hint = "a class of your own: see docs/training.md, ss.allowlist"
        raise UserError(f"{role}: expected a {TARGET} in {modules}, got {name!r:.80} ({hint})")
    _check_plain(role, {key: value for key, value in config.items() if key != TARGET}, DEPTH)


def _check_plain(place: str, value: Any, depth: int) -> None:
    if isinstance(value, str) and "${" in value:
        raise UserError(f"{place}: expected plain text, got {value!r:.80}, which OmegaConf would look up")
    if value is None or isinstance(value, (bool, int, float, str)):
        return
    if not isinstance(value, (Mapping, list, tuple)) or not depth:
        raise UserError(f"{place}: expected numbers, strings, booleans, null, lists or dicts of these, got {type(value).__name__}")
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(value, Mapping) and (not isinstance(key, str) or key.startswith("_")):
            raise UserError(f"{place}: expected names of arguments, got {key!r:.80}: what a file says is not instantiated")
        _check_plain(f"{place}.{key}", item, depth - 1)


def class_of(name: str) -> Any:
    """The class of this name in CLASSES."""
    return REGISTERED.get(name) or resolve_name(name)


def create(role: str, config: Any) -> Any:
    """The object that a config from a file describes. Raises UserError for anything but what `check` allows, and for arguments
    that the class does not take."""
    check(role, config)
    name = config[TARGET]
    wrong = TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError
    with explain(f"{role}: {name} cannot be made with these arguments", *wrong):
        return class_of(name)(**{key: value for key, value in config.items() if key != TARGET})


def check_config(config: Mapping[str, Any]) -> None:
    """Raises UserError unless the parts of a whole config that are given and to be created are as `check` wants them."""
    for role in CLASSES:
        if config.get(role):
            check(role, config[role])
