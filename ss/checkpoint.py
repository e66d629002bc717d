"""Checkpoints: plain data, written whole or not at all, read without running anything in them.

A checkpoint is {"format": 1, "config": the run's whole config, "model": state dict, ...}; `last.pth` also holds all that a
resumed training needs.
"""

import os
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from ss.model.extractor import Extractor
from ss.utils.predecessor import is_predecessor, load_predecessor_checkpoint, read_checkpoint

FORMAT = 1


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Writes aside, then renames: an interrupted save leaves the former file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    torch.save({"format": FORMAT, **content}, aside)
    aside.replace(path)


def build(model_config: dict[str, Any]) -> Extractor:
    """The extractor that a config's `model` describes. Raises ValueError for a _target_ outside of `ss.model`."""
    target = str(model_config.get("_target_"))
    if not target.startswith("ss.model."):
        raise ValueError(f"model: expected a _target_ in ss.model, got {target!r}")
    return instantiate(model_config)


def load_extractor(checkpoint: str | Path | dict[str, Any], device: str | torch.device = "cpu") -> Extractor:
    """The extractor of a checkpoint (a path, or what `read_checkpoint` gave), in eval mode; it says itself what it is."""
    content = checkpoint if isinstance(checkpoint, dict) else read_checkpoint(checkpoint)
    if is_predecessor(content):
        model = load_predecessor_checkpoint(content)
    else:
        model = build(content["config"]["model"])
        model.load_state_dict(content["model"])
    return model.to(device).eval()
