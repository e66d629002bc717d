"""Checkpoints of the predecessor: other names for the same weights, and an OmegaConf pickle as config.

The pickle is read by torch's weights-only reader, which calls nothing but what it is told is harmless; the OmegaConf classes in
it are replaced by empty ones of ours, so that not even OmegaConf's own code runs.
"""

import pickle
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ss import allowlist
from ss.errors import UserError, explain, require_file
from ss.model.extractor import ExtractionModel
from ss.model.stateful import FeatureMapScaling, GatedMemory
from ss.model.tcn import ChannelNorm, Stack

NODES = ("AnyNode", "BooleanNode", "BytesNode", "FloatNode", "IntegerNode", "PathNode", "StringNode")
OTHERS = ("base.ContainerMetadata", "base.Metadata", "dictconfig.DictConfig", "listconfig.ListConfig")
INERT = (*(f"omegaconf.nodes.{node}" for node in NODES), *(f"omegaconf.{name}" for name in OTHERS), "typing.Any")
HARMLESS = ((dict, "builtins.dict"), (list, "builtins.list"), (defaultdict, "collections.defaultdict"))
SCALES = ("short", "middle", "long")
BLOCK = {"norm1": "gln1", "norm2": "gln2", "depthwise": "deconv.0", "pointwise": "deconv.1", "residual": "downsample"}


class Inert:
    """Stands for an OmegaConf object: holds what was pickled of it, and does nothing."""


def plain(value: Any) -> Any:
    """What is in a predecessor's config, as plain data."""
    if isinstance(value, Inert):
        return plain(vars(value).get("_content", vars(value).get("_val")))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, ours or the predecessor's. Raises UserError for any other file; runs no code of it."""
    require_file(path, "a checkpoint")
    try:
        with torch.serialization.safe_globals([*((Inert, name) for name in INERT), *HARMLESS]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, ValueError) as error:
        refused = re.search(r"(GLOBAL|function|class) (\S+)", str(error))
        reason = f"it asks for {refused[2]}" if refused else (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: refused, expected a checkpoint of tensors and plain settings: {reason}") from error
    if not isinstance(content, dict) or "model" not in content or "config" not in content:
        raise UserError(f"{path}: expected a checkpoint with 'model' and 'config'")
    return content


def is_predecessor(content: dict[str, Any]) -> bool:
    """Whether a checkpoint's content is the predecessor's: its config has an `arch`."""
    config = plain(content["config"])
    return isinstance(config, dict) and "arch" in config


def load_predecessor_checkpoint(checkpoint: str | Path | dict[str, Any]) -> ExtractionModel:
    """The extractor in a checkpoint of the predecessor, all weights strictly matched.

    checkpoint: a path, or {"model": state dict, "config": {"arch": {"type": class name, "args": {...}}}}; names may begin with
    `module.`. Raises UserError for anything else, for a file that would run code, and for weights that do not match.
    """
    content = read_checkpoint(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    with explain("expected a predecessor's checkpoint with config.arch.type and args, but", KeyError, TypeError):
        arch = plain(content["config"])["arch"]
        name, args = arch["type"], arch["args"]
    ours = [known.removeprefix("ss.model.") for known in allowlist.CLASSES["model"] if known.startswith("ss.model.")]
    if name not in ours or not isinstance(args, dict):
        raise UserError(f"config.arch.type: expected one of {', '.join(ours)} with args, got {name!r}")
    model = allowlist.create("model", {**args, "_target_": f"ss.model.{name}"})
    load_predecessor_weights(model, content["model"])
    return model


def load_predecessor_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fills a model from the predecessor's state dict. Raises UserError for missing, left-over or misshapen weights."""
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    prefixes = dict(_prefixes(model))
    names = {name: replace_prefix(name, prefixes) for name in model.state_dict()}
    if set(names.values()) != set(weights):
        missing, over = sorted(set(names.values()) - set(weights)), sorted(set(weights) - set(names.values()))
        raise UserError(f"weights do not match {type(model).__name__}: missing {missing[:5]}, left over {over[:5]}")
    ours = {}
    for name, value in model.state_dict().items():
        theirs = weights[names[name]]
        if theirs.numel() != value.numel():
            raise UserError(f"{names[name]}: expected shape {tuple(value.shape)}, found {tuple(theirs.shape)}")
        ours[name] = theirs.reshape(value.shape)
    model.load_state_dict(ours)


def replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    """A parameter's name with the longest module name that it begins with replaced."""
    prefix = max((prefix for prefix in prefixes if name.startswith(f"{prefix}.")), key=len, default="")
    return prefixes[prefix] + name[len(prefix) :] if prefix else name


def _prefixes(model: nn.Module) -> Iterator[tuple[str, str]]:
    """(our module, the predecessor's) for every module that has weights of its own."""
    counts: Counter[type] = Counter()
    for name, module in model.named_modules():
        match module:
            case FeatureMapScaling():
                yield f"{name}.fc", f"speaker_extractor.fms_layers.{counts[FeatureMapScaling]}.fc"
                counts[FeatureMapScaling] += 1
            case GatedMemory():
                yield f"{name}.gate", "speaker_extractor.gate"
                yield from _block(f"{name}.write", "speaker_extractor.make_memory", module.write)
            case Stack():
                stack = f"speaker_extractor.stacked_tcnblocks.{counts[Stack]}"
                counts[Stack] += 1
                for i, block in enumerate(module.blocks):
                    yield from _block(f"{name}.blocks.{i}", f"{stack}.{i}", block)
                yield f"{name}.gate", f"{stack}.{len(module.blocks)}"
    for i, scale in enumerate(SCALES):
        yield f"encoder.scales.{i}", f"speech_encoder.encoder_{scale}"
        yield f"decoder.scales.{i}", f"speech_decoder.decoder_{scale}"
        yield f"separator.masks.{i}", f"speaker_extractor.mask{i + 1}"
    yield "separator.norm", "speaker_extractor.ln1"
    yield "separator.conv1", "speaker_extractor.conv1"
    yield "classifier", "speaker_encoder.linear"
    yield "speaker_encoder", "speaker_encoder"
    yield "speaker_encoder.norm", "speaker_encoder.ln1"
    for i in range(len(getattr(model, "speaker_encoder", SimpleNamespace(blocks=())).blocks)):
        ours, theirs = f"speaker_encoder.blocks.{i}", f"speaker_encoder.resnetblocks.{i}"
        yield ours, theirs
        for layer, name in (("norm1", "bn1"), ("norm2", "bn2"), ("residual", "downsample")):
            yield f"{ours}.{layer}", f"{theirs}.{name}"


def _block(ours: str, theirs: str, block: nn.Module) -> Iterator[tuple[str, str]]:
    yield ours, theirs
    for name, module in block.named_children():
        inner = ".ln" if isinstance(module, ChannelNorm) else ""
        yield f"{ours}.{name}", f"{theirs}.{BLOCK.get(name, name)}{inner}"
