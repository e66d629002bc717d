"""From a trained online model to two ONNX files that need neither torch nor the rest of `ss`.

The graphs are written node by node rather than traced: at chunks of 10 ms the cost of a step is one of kernels and of the
weights they read, so batch norms are folded, biases and residual paths ride in the products, and shapes are computed once.
Every export is compared with torch before it is given out.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ss import __version__
from ss.checkpoint import load_extractor
from ss.export.check import check
from ss.export.enroll import enroll_graph, shortest
from ss.export.origin import of_checkpoint
from ss.export.segments import export_segments
from ss.export.step import step_graph
from ss.model import SpexPlusOnline, SpexPlusShortGRUModel
from ss.runtime.extractor import ENROLL, FORMAT, STEP
from ss.utils.predecessor import read_checkpoint

SAMPLE_RATE = 16000  # of a model that comes without a checkpoint


def export(model: nn.Module | str | Path, folder: str | Path, sample_rate: int | None = None, plain: bool = False) -> float:
    """Writes enroll.onnx and step.onnx of a SpexPlusOnline, or of a checkpoint of one, into a folder.

    Returns the largest difference from torch over random audio. sample_rate: in Hz; None: the checkpoint's, or 16,000. plain: for
    a quantization (see Graph). Raises ValueError for another kind of model, ArithmeticError for graphs that do not compute what
    the model does; then the folder stays as it was. A checkpoint of a SpexPlusShortGRUModel becomes two other files, for segments.
    """
    content = {} if isinstance(model, nn.Module) else read_checkpoint(model)
    extractor = model if isinstance(model, nn.Module) else load_extractor(content)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if content and isinstance(extractor, SpexPlusShortGRUModel):
        return export_segments(content, folder)
    if not isinstance(extractor, SpexPlusOnline):
        raise ValueError(f"expected a SpexPlusOnline, whose step is the graph that goes live; got a {type(extractor).__name__}")
    rate = sample_rate or content.get("config", {}).get("data", {}).get("sample_rate", SAMPLE_RATE)
    metadata = {**describe(extractor, rate), **of_checkpoint(content, rate)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as aside:
        for name, graph in ((ENROLL, enroll_graph), (STEP, partial(step_graph, plain=plain))):
            Path(aside, name).write_bytes(graph(extractor, metadata).SerializeToString())
        difference = check(extractor, Path(aside))
        for name in (ENROLL, STEP):
            Path(aside, name).replace(folder / name)
    return difference


def describe(model: SpexPlusOnline, sample_rate: int) -> dict[str, str]:
    """What a runtime must know of the model, as ONNX metadata."""
    facts = {
        "format": FORMAT,
        "ss": __version__,
        "model": type(model).__name__,
        "sample_rate": sample_rate,
        "hop": model.hop,
        "delay": model.delay,
        "latency": model.latency,
        "shortest_enrolment": shortest(model),
    }
    return {key: str(value) for key, value in facts.items()}


def run(config: dict[str, Any]) -> int:
    """Exports a config's `checkpoint` to its `folder`, and says how big the files are and how exact."""
    folder = Path(config["folder"])
    difference = export(config["checkpoint"], folder)
    sizes = ", ".join(f"{name} {(folder / name).stat().st_size / 1e6:.1f} MB" for name in (ENROLL, STEP))
    print(f"{folder}: {sizes}; at most {difference:.1g} from torch")
    return 0
