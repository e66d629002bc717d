"""What int8 costs where: every layer of the stepping graph is quantized alone, and the output compared with that in float."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from ss import distributed
from ss.audio import Wave
from ss.compression.fine_tuning import examples_config
from ss.compression.quantization import product_names, quantize_calibrated, step_inputs, training_pairs
from ss.datasets import Triplets
from ss.errors import UserError
from ss.export import export
from ss.inferencer import Inferencer
from ss.measure.report import publish
from ss.metric import SISDR
from ss.runtime.pretrained import graphs_in
from ss.tables import text_table


def sensitivity(config: dict[str, Any]) -> int:
    """Quantizes the layers of `checkpoint` one by one; prints a table, writes sensitivity.json and .png. Returns the exit code.

    SI-SDR lost: mean over the first `mixtures` triplets of `folder`; error: energy of the difference over that of the output in
    float. Calibrated on as many training mixtures.
    """
    if config["mixtures"] < 1:
        raise UserError(f"mixtures: expected more than 0, found {config['mixtures']}")
    if not distributed.is_main():
        return 0
    out = Path(config["out_folder"])
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as aside:
        export(config["checkpoint"], Path(aside, "float"), plain=True)
        rows = measure_layers(config, Path(aside, "float"), Path(aside, "int8"))
    draw(rows, out / "sensitivity.png")
    cells = [[row["layer"], f"{row['si_sdr_lost']:.3f}", f"{row['error_db']:.1f}"] for row in rows]
    table = text_table(["layer", "SI-SDR lost (dB)", "error (dB)"], cells, left=[0])
    publish(rows, out / "sensitivity.json", table, pictures=[out / "sensitivity.png"])
    return 0


def measure_layers(config: dict[str, Any], in_float: Path, int8: Path) -> list[dict[str, Any]]:
    """A row per layer, in the order of the graph."""
    _, stepping = graphs_in(in_float)
    names, rows = product_names(in_float / stepping), []
    examples = examples_config(Path(config["checkpoint"]), {"data": config["data"]})
    expected, score = extract(config, in_float)
    shutil.copytree(in_float, int8)
    for name in tqdm(names, "layers"):
        calibration = step_inputs(in_float, training_pairs(examples, config["mixtures"]))
        others = [other.lstrip("/") for other in names if other != name]
        quantize_calibrated(in_float / stepping, int8 / stepping, calibration, others)
        found, own = extract(config, int8)
        error = sum(np.square(a - b).sum() for a, b in zip(found, expected, strict=True))
        energy = sum(np.square(wave).sum() for wave in expected)
        rows.append({"layer": name, "si_sdr_lost": score - own, "error_db": float(10 * np.log10(error / energy))})
    return rows


def extract(config: dict[str, Any], export_folder: Path) -> tuple[list[Wave], float]:
    """What an export makes of the mixtures, and its mean SI-SDR in dB."""
    extractor, examples = Inferencer(export_folder), Triplets(config["folder"])
    waves, scores = [], []
    for index in range(min(config["mixtures"], len(examples))):
        example = examples[index]
        waves.append(extractor.extract(example.mixture, example.ref))
        scores.append(SISDR()(*(torch.from_numpy(wave)[None] for wave in (waves[-1], example.target))).item())
    return waves, float(np.mean(scores))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """What every layer costs, as bars, and the error that it leaves in the output, as dots, in the order of the graph."""
    figure = Figure(figsize=(11, 1.5 + 0.25 * len(rows)), dpi=120, layout="constrained")
    figure.suptitle("One layer in int8, all others in float")
    lost, left = figure.subplots(1, 2, sharey=True)
    names = [row["layer"] for row in rows]
    lost.barh(names, [row["si_sdr_lost"] for row in rows])
    lost.set_xlabel("SI-SDR lost (dB)")
    left.plot([row["error_db"] for row in rows], names, "o")
    left.set_xlabel("energy of the error over that of the output (dB)")
    lost.invert_yaxis()
    for axes in (lost, left):
        axes.set_axisbelow(True)
        axes.grid(axis="x", color="0.9", lw=0.5)
    figure.savefig(path)
