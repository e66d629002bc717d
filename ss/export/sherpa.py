"""An exported online model as the two graphs that sherpa-onnx runs as its enrolled speech denoiser, which it calls voxlock.

sherpa-onnx cuts the audio into overlapping windows and adds up what the chunk graph gives for each, divided by the sum of squared
Hann windows. The graph extracts the newest block that a window's second half begins with. It gives the whole estimate of a block in
the first part of one window, multiplied by that sum, and zeros in the rest: what is added up is then the estimate itself, aligned
with the input.

Shapes: N samples of a window, H samples of a block, E speaker embedding, D conditions, M numbers that a stream carries.
"""

from math import prod

import numpy as np
from onnx import ModelProto, compose, helper

from ss.export.graph import END, Graph

CHUNK = "chunk.onnx"


def sherpa_graphs(enrolling: ModelProto, stepping: ModelProto, seconds: int) -> tuple[ModelProto, ModelProto]:
    """The graphs of an online model (see `ss.export.online`) -> enroll.onnx and chunk.onnx for sherpa-onnx.

    The first is the same graph with more metadata. The inputs of the second are wav [1,N], speaker [1,E], conditions [1,D], state
    [1,M] and unused [1,M]; its outputs frames [1,N], next.state and next.unused. seconds: of the voice sample that is enrolled.
    """
    facts = {fact.key: fact.value for fact in stepping.metadata_props}
    hop, delay = int(facts["hop"]), int(facts["delay"])
    block = hop * max(1, -(-(delay - 1) // hop))
    window = 2 * block + 2  # sherpa-onnx wants an even number above two blocks; its first half is padding when a stream begins
    inner = compose.add_prefix(stepping, "step.").graph
    chunk, conditions, *states = inner.input
    wave, *after = inner.output
    shapes = [[size.dim_value or 1 for size in state.type.tensor_type.shape.dim] for state in states]
    sizes = [*map(prod, shapes), window // 2 - delay]  # the last: samples of the estimate that wait for their block

    g = Graph("chunk")
    heard = g.input("wav", 1, window)
    speaker, known = (value.type.tensor_type.shape.dim[1].dim_value for value in enrolling.graph.output)
    g.input("speaker", 1, speaker)  # the model needs the conditions only, but sherpa-onnx passes on both outputs of the first graph
    g.input("conditions", 1, known)
    *parts, waiting = g.split(g.input("state", 1, sum(sizes)), sizes, len(sizes), axis=1)
    unused = g.input("unused", 1, sum(sizes))  # sherpa-onnx carries two states of one shape
    g.nodes += [
        helper.make_node("Identity", ["conditions"], [conditions.name]),
        helper.make_node("Identity", [g.cut(heard, g.ints(window // 2), g.ints(window // 2 + block), 1)], [chunk.name]),
        *(
            helper.make_node("Reshape", [part, g.ints(*shape)], [state.name])
            for part, shape, state in zip(parts, shapes, states, strict=True)
        ),
        *inner.node,
    ]
    g.weights += inner.initializer
    estimate = g.concat(waiting, wave.name, axis=1)
    squares = np.square(0.5 - 0.5 * np.cos(2 * np.pi / window * np.arange(3 * block))) * (np.arange(3 * block) < window)
    shares = g.weight(squares.reshape(3, block).sum(0))
    frames = g.op("Mul", g.cut(estimate, g.ints(0), g.ints(block), 1), shares)
    g.output("frames", g.op("Pad", frames, g.ints(0, 0, 0, window - block)), 1, window)
    rest = g.cut(estimate, g.ints(block), g.ints(END), 1)
    g.output("next.state", g.concat(*(g.reshape(value.name, 1, -1) for value in after), rest, axis=1), 1, sum(sizes))
    g.output("next.unused", unused, 1, sum(sizes))

    facts |= {"model_type": "voxlock", "version": "1", "window_type": "hann", "voice_sample_seconds": str(seconds)}
    facts |= {"n_fft": str(window), "window_length": str(window), "hop_length": str(block)}
    helper.set_model_props(enrolling, {**facts, "model_role": "enroll"})
    runs = {"frames_per_chunk": "1", "state_shape": f"1,{sum(sizes)}", "output_gain": "1"}
    return enrolling, g.model({**facts, **runs, "model_role": "chunk"})
