"""The exported graphs that a recipe asks for: in float, or quantized on real mixtures."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16

from ss.compression import int8
from ss.compression.int8 import Feed
from ss.compression.recipe import Recipe
from ss.export import export, replace_export
from ss.runtime import Extractor
from ss.runtime.pretrained import graphs_in
from ss.trainer.job import train_set

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
HOPS = 4  # that a step of an online model is given at once in calibration


def exported(recipe: Recipe, checkpoint: str | Path, folder: Path, mixtures: Iterator[Pair]) -> None:
    """Writes the graphs of a checkpoint into a folder. mixtures: to calibrate on."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if recipe.precision == "fp32":
        export(checkpoint, folder)
        return
    with TemporaryDirectory(dir=folder.parent) as aside:
        plain, done = Path(aside, "plain"), Path(aside, "done")
        done.mkdir()
        export(checkpoint, plain, plain=True)
        convert(recipe, plain, done, mixtures)
        Extractor.load(done)
        replace_export(sorted(done.iterdir()), folder)


def convert(recipe: Recipe, source: Path, target: Path, mixtures: Iterator[Pair]) -> None:
    """Writes the graphs of an export in float as the recipe asks for into another folder."""
    enrolling, stepping = graphs_in(source)
    if recipe.precision == "fp16":
        for name in (enrolling, stepping):
            half(source / name, target / name)
        return
    int8.dynamic(source / enrolling, target / enrolling, recipe.keep)
    if recipe.precision == "dynamic":
        int8.dynamic(source / stepping, target / stepping, recipe.keep)
    else:
        int8.static(source / stepping, target / stepping, feeds(source, mixtures), recipe.keep)


def half(source: Path, target: Path) -> None:
    """Numbers of 16 bits inside of the graph; what goes in and comes out stays as it was."""
    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(target))


def pairs(config: dict[str, Any], n: int) -> Iterator[Pair]:
    """(mixture [S], enrolment [R]) of the first n examples that a config trains on; reads nothing before it is asked for one."""
    examples = train_set(config)
    for index in range(min(n, len(examples))):
        example = examples[index]
        yield example.mixture, example.ref


def feeds(folder: Path, mixtures: Iterator[Pair]) -> Iterator[Feed]:
    """What the stepping graph of an export is given while it extracts these mixtures."""
    extractor = Extractor.load(folder)
    step = HOPS * extractor.hop if extractor.online else extractor.hop
    size = step if extractor.online else extractor.window
    for mixture, ref in mixtures:
        conditions, states = extractor.conditions_of(ref[None]), extractor.zeros(1)
        for begin in range(0, len(mixture) - size + 1, step):
            chunk = mixture[None, begin : begin + size]
            yield {"chunk": chunk, extractor.conditions: conditions, **states}
            _, states = extractor.step(chunk, conditions, states)
