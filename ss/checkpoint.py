"""Checkpoints: plain data, written whole or not at all, read without running anything in them.

A checkpoint is {"format": 1, "config": the run's whole config, "model": state dict, ...}; `last.pth` also holds all that a
resumed training needs.
"""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ss import allowlist
from ss.errors import UserError, explain
from ss.files import whole_file
from ss.model.extractor import ExtractionModel
from ss.model.stateful import Chain, StatefulLayer
from ss.utils.predecessor import is_predecessor, load_predecessor_checkpoint, read_checkpoint, replace_prefix

FORMAT = 1


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all. Raises UserError for a model that nobody could load."""
    if model := content["config"].get("model"):
        allowlist.check("model", model)
    encoded = io.BytesIO()  # in memory, as torch says something else of a full disk
    torch.save({"format": FORMAT, **content}, encoded)
    with whole_file(Path(path)) as aside:
        aside.write_bytes(encoded.getbuffer())


def build(model_config: Any) -> ExtractionModel:
    """The extractor that a config's `model` describes. Raises UserError for what `ss.allowlist` does not let a file ask for."""
    return allowlist.create("model", model_config)


def load_extractor(checkpoint: str | Path | dict[str, Any], device: str | torch.device = "cpu") -> ExtractionModel:
    """The extractor of a checkpoint (a path, or what `read_checkpoint` gave), in eval mode; it says itself what it is."""
    content = checkpoint if isinstance(checkpoint, dict) else read_checkpoint(checkpoint)
    if is_predecessor(content):
        model = load_predecessor_checkpoint(content)
    else:
        config = content["config"]
        model = build(config.get("model") if isinstance(config, dict) else config)
        wanted = f"expected the weights of the {type(model).__name__} of the checkpoint's config, but"
        with explain(wanted, RuntimeError, TypeError):
            model.load_state_dict(content["model"])
    return model.to(device).eval()


@torch.no_grad()
def begin_from(model: nn.Module, checkpoint: str | Path, speakers: Sequence[str]) -> list[str]:
    """Gives a model the weights of a checkpoint, also where the model has grown: more layers, hidden channels, or speakers.

    Layers of a body are matched by their kind and order. What is new keeps its start, and new hidden channels go into their product
    with zeros, so that at first the model does what the checkpoint's did. Rows of the speaker classifier go to the same `speakers`
    (names, in the order of the rows). Returns the names of the tensors that are new, wholly or in part. Raises UserError where a
    tensor of the checkpoint has no place in the model.
    """
    content = read_checkpoint(checkpoint)
    before = load_extractor(content)
    places = matched_names(before)
    known = {places[name]: tensor for name, tensor in before.state_dict().items()}
    if content.get("speakers", list(speakers)) != list(speakers):
        rows = {name: row for row, name in enumerate(content["speakers"])}
        for key in ("classifier.weight", "classifier.bias"):
            own = model.get_parameter(key).detach().clone()
            for row, name in enumerate(speakers):
                if name in rows:
                    own[row] = known[key][rows[name]]
            known[key] = own
    fresh = []
    for name, place in matched_names(model).items():
        tensor, old = model.state_dict()[name], known.pop(place, None)
        if old is None:
            fresh.append(name)
        elif old.shape == tensor.shape:
            tensor.copy_(old)
        elif old.shape[1:] == tensor.shape[1:] and len(old) < len(tensor):
            fresh.append(name)
            tensor[: len(old)] = old
        elif name.endswith("output.weight") and len(old) == len(tensor) and old.shape[1] < tensor.shape[1]:
            fresh.append(name)
            tensor[:, : old.shape[1]], tensor[:, old.shape[1] :] = old, 0
        else:
            raise UserError(f"{checkpoint}: expected a tensor {name} that fits {list(tensor.shape)}, found {list(old.shape)}")
    if known:
        raise UserError(f"{checkpoint}: expected weights that the model has a place for, found {', '.join(sorted(known)[:4])}")
    return fresh


def matched_names(model: nn.Module) -> dict[str, str]:
    """For every name of a state dict one that stays the same when layers are put in between others of a body."""
    counts: Counter[str] = Counter()
    layers: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, StatefulLayer) and not isinstance(module, Chain):
            kind = type(module).__name__
            layers[name], counts[kind] = f"{kind} {counts[kind]}", counts[kind] + 1
    return {name: replace_prefix(name, layers) for name in model.state_dict()}
