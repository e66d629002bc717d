"""From a trained model to two ONNX files that need neither torch nor the rest of `ss`: one enrols, the other takes a step. Of an
online model also `model.ss`, for the C library (see `ss.export.native`).

The graphs of an online model are written node by node rather than traced: at chunks of 10 ms the cost of a step is one of kernels
and of the weights they read, so batch norms are folded, biases and residual paths ride in the products, and shapes are computed
once. Segment models are traced by torch. Every export is compared with torch before it is given out.
"""

import json
import logging
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ss import __version__, allowlist
from ss.checkpoint import load_extractor
from ss.errors import UserError
from ss.export.native import model_bytes
from ss.export.online import enroll_graph, step_graph
from ss.export.segments import write_segment_graphs
from ss.export.sherpa import CHUNK, sherpa_graphs
from ss.files import whole_folder
from ss.model import ExtractionModel, SegmentExtractor, SpexPlusOnline, SpexPlusShortGRUModel
from ss.runtime.extractor import FORMAT, Extractor
from ss.runtime.native import find_library
from ss.runtime.pretrained import ENROLL, NATIVE, SEGMENT_GRU, STEP
from ss.runtime.voice import DIGITS
from ss.streamer import Streamer
from ss.utils.predecessor import read_checkpoint

EXPORTED = ("*.onnx", NATIVE)  # the names of the files of an export
SAMPLE_RATE = 16000  # of a model that comes without a checkpoint
TOLERANCE = 1e-4
HOPS = (1, 2, 5, 1, 3, 2, 40, 1)  # of the steps that an online export is compared over; a segment model takes as many segments
LEVEL = 0.1


def export(
    model: nn.Module | str | Path,
    folder: str | Path,
    sample_rate: int | None = None,
    plain: bool = False,
    streamer: dict[str, Any] | None = None,
    int8: bool = False,
    sherpa: int = 0,
) -> float:
    """Writes the two graphs of a model, or of a checkpoint of one, as a folder, in the place of an export that is there.

    Returns the largest difference from torch over random audio. sample_rate: in Hz; None: the checkpoint's, or 16,000. plain: for
    a quantization (see Graph), and without model.ss in floats. streamer: a config of what cuts segments; None: the
    checkpoint's. int8: of model.ss, the products of a step in bytes. sherpa: seconds of the voice sample that sherpa-onnx enrols;
    0: no chunk.onnx for it (see `ss.export.sherpa`). Raises UserError for a segment model without a streamer or for sherpa-onnx,
    for a folder that holds other files, and for graphs that do not compute what the model does; then the folder stays. The files
    are enroll.onnx, step.onnx and model.ss; SpeakerHandler.onnx and GRUMainModel.onnx of a SpexPlusShortGRUModel.
    """
    content = {} if isinstance(model, nn.Module) else read_checkpoint(model)
    extractor = deepcopy(cast(ExtractionModel, model)).cpu().eval() if isinstance(model, nn.Module) else load_extractor(content)
    config = content["config"] if isinstance(content.get("config"), dict) else {}  # the predecessor's is none of ours
    streamer = streamer or config.get("streamer")
    cutter = allowlist.create("streamer", streamer) if streamer else None
    kind, rate = type(extractor).__name__, sample_rate or config.get("data", {}).get("sample_rate", SAMPLE_RATE)
    if not (extractor.online or (cutter and cutter.window)):
        raise UserError(f"expected a SpexPlusOnline, or a checkpoint that says how its segments are cut; got a {kind}")
    if type(sherpa) is not int or sherpa < 0 or (sherpa and not extractor.online):
        raise UserError(f"sherpa: expected whole seconds, 0 for none, of a SpexPlusOnline; got {sherpa} of a {kind}")
    names = SEGMENT_GRU if isinstance(extractor, SpexPlusShortGRUModel) else (ENROLL, STEP)
    facts = {"format": FORMAT, "ss": __version__, "model": kind, "sample_rate": rate}
    row, speakers = content.get("row", {}), content.get("speakers", [])
    kept = {"streamer": streamer, "loss": config.get("loss"), "data": {"sample_rate": rate}}
    facts["checkpoint"] = json.dumps({"config": kept, "speakers": speakers})  # what testing and extracting want to know
    told = {key: row[key] for key in ("epoch", "step", "valid") if key in row}
    facts["training"] = json.dumps({"speakers": len(speakers), **told})
    weights = b"".join(value.numpy().tobytes() for value in extractor.state_dict().values())
    facts["weights"] = sha256(weights).hexdigest()[:DIGITS]  # whose voices a model takes
    with whole_folder(Path(folder), *EXPORTED) as made:
        enrolling, stepping = (made / name for name in names)
        if extractor.online:
            online = cast(SpexPlusOnline, extractor)
            facts |= {key: getattr(online, key) for key in ("hop", "delay", "latency", "shortest_enrolment")}
            metadata = {key: str(value) for key, value in facts.items()}
            enroller, stepper = enroll_graph(online, metadata), step_graph(online, metadata, plain)
            if sherpa:
                enroller, chunk = sherpa_graphs(enroller, stepper, sherpa)
                (made / CHUNK).write_bytes(chunk.SerializeToString())
            enrolling.write_bytes(enroller.SerializeToString())
            stepping.write_bytes(stepper.SerializeToString())
            if int8 or not plain:
                try:
                    (made / NATIVE).write_bytes(model_bytes(online, rate, json.dumps(metadata), int8))
                except UserError as error:
                    logging.getLogger(__name__).warning("no %s: %s", NATIVE, error)
        else:
            write_segment_graphs(cast(SegmentExtractor, extractor), cast(Streamer, cutter), facts, enrolling, stepping)
        difference = largest_difference(extractor, Extractor.load(made, backend="onnxruntime"))
        if not int8 and (made / NATIVE).is_file() and find_library():
            difference = max(difference, largest_difference(extractor, Extractor.load(made, backend="c")))
    return difference


@torch.inference_mode()
def largest_difference(model: ExtractionModel, runtime: Extractor) -> float:
    """The largest difference of an export from torch: what enrolments of noise give, and waves over several steps of noise.

    Raises UserError where it is more than 1e-4, or not a number.
    """
    rng, differences = np.random.default_rng(0), []
    for batch in (1, 2):
        enrolment = LEVEL * rng.standard_normal((batch, 3 * runtime.shortest_enrolment), np.float32)
        speaker = model.enroll(torch.from_numpy(enrolment))
        state = model.init_state(speaker, runtime.window)
        conditions, states = runtime.conditions_of(enrolment), runtime.zeros(batch)
        known = state[0] if model.online else speaker
        differences.append(np.abs(conditions - known.numpy()).max() / max(1.0, known.abs().max().item()))
        for hops in HOPS:
            samples = hops * runtime.hop if runtime.online else runtime.window
            chunk = LEVEL * rng.standard_normal((batch, samples), np.float32)
            waves, state = model.step(torch.from_numpy(chunk), state)
            wave, states = runtime.step(chunk, conditions, states)
            differences.append(np.abs(wave - waves[0].numpy()).max() / max(1.0, waves[0].abs().max().item()))
    difference = float(np.max(differences))
    if not difference <= TOLERANCE:
        raise UserError(f"the exported graphs differ from the model by {difference:.2g}, expected at most {TOLERANCE}")
    return difference


def run(config: dict[str, Any]) -> None:
    """Exports a config's `checkpoint` to its `folder`, and says how big the files are and how exact."""
    folder = Path(config["folder"])
    difference = export(config["checkpoint"], folder, int8=config["int8"], sherpa=config["sherpa"])
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in sorted(folder.iterdir()))
    print(f"{folder}: {sizes}; at most {difference:.1g} from torch")
