"""The two halves of the segment GRU model as ONNX files: SpeakerHandler.onnx enrols, GRUMainModel.onnx takes a step.

Shapes: B batch, W samples of a segment, R of an enrolment, E speaker embedding, m memory channels, T frames of a segment.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ss import __version__, allowlist
from ss.checkpoint import load_extractor
from ss.export.check import TOLERANCE
from ss.export.origin import of_checkpoint, with_metadata
from ss.model import SpexPlusShortGRUMainModel, SpexPlusShortGRUModel, SpexPlusShortSpeakerHandler
from ss.model.family import memory_of
from ss.runtime.extractor import FORMAT
from ss.runtime.segments import HANDLER, MAIN, SegmentExtractor
from ss.streamer import Streamer

BOTH_NEED = ("n_channels", "out_channels", "short_kernel")
HANDLER_NEEDS = ("n_resnetblocks", "n_speakers")
MAIN_NEEDS = ("hidden_channels", "n_stacked_tcnblocks", "n_tcnblocks", "memory_size", "causal")


class Halves:
    """The enrolling and the stepping half of a model (version 0), sharing its weights; sizes: its constructor's arguments."""

    def __init__(self, model: SpexPlusShortGRUModel, sizes: dict[str, Any]) -> None:
        if sizes.get("version", 0) != 0:
            raise ValueError(f"version: only version 0 of the GRU model has two halves, got {sizes['version']}")
        self.handler = SpexPlusShortSpeakerHandler(**{key: sizes[key] for key in BOTH_NEED + HANDLER_NEEDS})
        self.main = SpexPlusShortGRUMainModel(**{key: sizes[key] for key in BOTH_NEED + MAIN_NEEDS if key in sizes})
        weights = model.state_dict()
        for half in (self.handler, self.main):
            half.load_state_dict({name: weights[name] for name in half.state_dict()})
            half.eval()


def export_segments(content: dict[str, Any], folder: Path) -> float:
    """Writes both files of a checkpoint's content. Returns the largest difference from torch over random audio.

    Raises ValueError for a model that has no two halves, ArithmeticError for graphs that do not compute what it does.
    """
    model = load_extractor(content)
    if not isinstance(model, SpexPlusShortGRUModel):
        raise ValueError(f"expected a SpexPlusShortGRUModel, which is exported in two halves; got a {type(model).__name__}")
    config = content["config"]
    streamer = allowlist.create("streamer", config.get("streamer"))
    if not isinstance(streamer, Streamer):
        raise ValueError("streamer: expected one for segments, as the exported graph is for segments of one length")
    halves = Halves(model, config["model"])
    export_halves(halves, folder, streamer.window)
    speaker = torch.zeros(1, halves.handler.classifier.in_features)
    memory = memory_of(halves.main.init_state(speaker, streamer.window)[1])
    facts = {
        "format": FORMAT,
        "ss": __version__,
        "model": type(model).__name__,
        "sample_rate": config["data"]["sample_rate"],
        "window": streamer.window,
        "step": streamer.step,
        "memory": json.dumps(list(memory.shape[1:])),
    }
    metadata = {key: str(value) for key, value in facts.items()} | of_checkpoint(content, config["data"]["sample_rate"])
    for name in (HANDLER, MAIN):
        with_metadata(folder / name, metadata)
    return checked(halves, folder)


@torch.no_grad()
def checked(halves: Halves, folder: Path) -> float:
    """The largest difference of the files from the halves over a few segments. Raises ArithmeticError where it is too large."""
    found, window = SegmentExtractor(folder), SegmentExtractor(folder).window
    ref, segments = 0.1 * torch.randn(2, 3 * window), 0.1 * torch.randn(4, 2, window)
    speaker, logits = halves.handler(ref)
    exported_speaker, exported_logits = found.enroll(ref.numpy())
    pairs = [(speaker, exported_speaker), (logits, exported_logits)]
    memory, exported_memory = torch.from_numpy(found.begin(2)), found.begin(2)
    for segment in segments:
        wave, memory = halves.main(segment, speaker, memory)
        exported_wave, exported_memory = found.next(segment.numpy(), exported_speaker, exported_memory)
        pairs += [(wave, exported_wave), (memory, exported_memory)]
    difference = max(float(np.abs(a.numpy() - b).max() / max(1.0, a.abs().max().item())) for a, b in pairs)
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"the exported graphs differ from the model by {difference:.2g}, expected at most {TOLERANCE}")
    return difference


@torch.no_grad()
def export_halves(halves: Halves, folder: Path, window: int) -> None:
    """Writes both files for segments of `window` samples and any number of streams."""
    speaker = torch.zeros(2, halves.handler.classifier.in_features)
    memory = memory_of(halves.main.init_state(speaker, window)[1])
    ref, chunk = (0.1 * torch.randn(2, samples) for samples in (window * 4, window))
    write(halves.handler, (ref,), folder / HANDLER, ["enrolment"], ["speaker", "logits"], ({0: "batch", 1: "samples"},))
    batched = ({0: "batch"},) * 3
    write(halves.main, (chunk, speaker, memory), folder / MAIN, ["chunk", "speaker", "memory"], ["wave", "next_memory"], batched)


def write(
    half: nn.Module, inputs: tuple[Tensor, ...], path: Path, names: list[str], outputs: list[str], axes: tuple[dict[int, str], ...]
) -> None:
    """One ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            half,
            inputs,
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_axes=dict(zip(names, axes, strict=True)) | {name: {0: "batch"} for name in outputs},
            opset_version=17,
            dynamo=False,
        )
