"""A segment model as two ONNX graphs, traced by torch: one enrols, the other takes a segment, its states inputs and outputs.

Shapes: B batch, W samples of a segment, R of an enrolment, E speaker embedding.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ss.export.graph import OPSET, set_metadata
from ss.model import SegmentExtractor
from ss.model.stateful import leaves, with_leaves
from ss.streamer import Streamer


class Traced(nn.Module):
    """A function of a model, as torch traces it."""

    def __init__(self, model: nn.Module, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.function(*inputs)


@torch.no_grad()
def write_segment_graphs(
    model: SegmentExtractor, streamer: Streamer, facts: dict[str, Any], enrolling: Path, stepping: Path
) -> None:
    """Writes both graphs, for segments of the streamer's length and any number of streams. facts: of the model, for the runtime."""
    window, nobody = streamer.window, torch.zeros(2, model.classifier.in_features)
    _, body = model.init_state(nobody, window)
    states = {f"state.{i}": state for i, state in enumerate(leaves(body))}
    fills = {name: float(state.flatten()[0]) for name, state in states.items() if state.any()}  # what a state begins with, if not 0
    facts = {**facts, "hop": streamer.step, "delay": window - streamer.step, "latency": window, "fills": json.dumps(fills)}
    facts["shortest_enrolment"] = model.shortest_enrolment

    def enroll(enrolment: Tensor) -> tuple[Tensor, ...]:
        speaker = model.enroll(enrolment)
        return speaker, model.classifier(speaker)

    def step(chunk: Tensor, speaker: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        waves, (_, after) = model.step(chunk, (speaker, with_leaves(body, iter(states))))
        return waves[0], *leaves(after)

    ref, chunk = 0.1 * torch.randn(2, model.shortest_enrolment + 4 * window), 0.1 * torch.randn(2, window)
    inputs, outputs = ["chunk", "speaker", *states], ["wave", *(name.replace("state", "next") for name in states)]
    axes = {"enrolment": {0: "batch", 1: "samples"}} | {name: {0: "batch"} for name in (*inputs, *outputs, "logits")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for function, example, path, names_in, names_out in (
            (enroll, (ref,), enrolling, ["enrolment"], ["speaker", "logits"]),
            (step, (chunk, nobody, *states.values()), stepping, inputs, outputs),
        ):
            how: dict[str, Any] = {"dynamic_axes": axes, "opset_version": OPSET, "dynamo": False}
            traced = Traced(model, function).eval()
            torch.onnx.export(traced, example, str(path), input_names=names_in, output_names=names_out, **how)
            set_metadata(path, {key: str(value) for key, value in facts.items()})
