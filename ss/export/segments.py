"""A segment model as two ONNX graphs, traced by torch: one enrols, the other takes a segment, its states inputs and outputs.

Shapes: B batch, W samples of a segment, R of an enrolment, E speaker embedding.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ss.export.graph import set_metadata
from ss.model import SegmentExtractor
from ss.model.carried import State, leaves, with_leaves
from ss.streamer import Streamer


class TracedEnrolment(nn.Module):
    """The enrolling half of a model: recordings [B,R] -> speakers [B,E], logits of the training speakers."""

    def __init__(self, model: SegmentExtractor) -> None:
        super().__init__()
        self.model = model

    def forward(self, enrolment: Tensor) -> tuple[Tensor, Tensor]:
        speaker = self.model.enroll(enrolment)
        return speaker, self.model.classifier(speaker)


class TracedStep(nn.Module):
    """The stepping half: segment [B,W], speaker [B,E] and the tensors of a state -> wave [B,W], the tensors of the next state."""

    def __init__(self, model: SegmentExtractor, state: State) -> None:
        super().__init__()
        self.model, self.body = model, state

    def forward(self, chunk: Tensor, speaker: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        waves, (_, after) = self.model.step(chunk, (speaker, with_leaves(self.body, iter(states))))
        return waves[0], *leaves(after)


def segment_facts(model: SegmentExtractor, streamer: Streamer) -> dict[str, Any]:
    """What a runtime must know of the model in a streamer's segments; fills: the number that a state begins with, if not 0."""
    _, body = model.init_state(torch.zeros(1, model.classifier.in_features), streamer.window)
    fills = {f"state.{i}": float(state.flatten()[0]) for i, state in enumerate(leaves(body)) if state.any()}
    return {
        "hop": streamer.step,
        "delay": streamer.window - streamer.step,
        "latency": streamer.window,
        "shortest_enrolment": model.shortest_enrolment,
        "fills": json.dumps(fills),
    }


@torch.no_grad()
def write_graphs(model: SegmentExtractor, streamer: Streamer, metadata: dict[str, str], enrolling: Path, stepping: Path) -> None:
    """Writes both graphs, for segments of the streamer's length and any number of streams."""
    window, speaker = streamer.window, torch.zeros(2, model.classifier.in_features)
    _, body = model.init_state(speaker, window)
    names = [f"state.{i}" for i, _ in enumerate(leaves(body))]
    ref, chunk = 0.1 * torch.randn(2, model.shortest_enrolment + 4 * window), 0.1 * torch.randn(2, window)
    inputs, outputs = ["chunk", "speaker", *names], ["wave", *(name.replace("state", "next") for name in names)]
    axes = {"enrolment": {0: "batch", 1: "samples"}} | {name: {0: "batch"} for name in (*inputs, *outputs, "logits")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module, example, path, names_in, names_out in (
            (TracedEnrolment(model), (ref,), enrolling, ["enrolment"], ["speaker", "logits"]),
            (TracedStep(model, body), (chunk, speaker, *leaves(body)), stepping, inputs, outputs),
        ):
            dynamic = {name: axes[name] for name in (*names_in, *names_out)}
            how: dict[str, Any] = {"dynamic_axes": dynamic, "opset_version": 17, "dynamo": False}
            torch.onnx.export(module.eval(), example, str(path), input_names=names_in, output_names=names_out, **how)
            set_metadata(path, metadata)
