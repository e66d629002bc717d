"""What compression buys and costs: all recipes side by side, and int8 layer by layer."""

import json
import shutil
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ss import distributed, tester
from ss.audio import Wave
from ss.compression.constraints import count_nonzero
from ss.compression.job import examples_config, prune_and_quantize
from ss.compression.quantization import product_names, quantize_calibrated, step_inputs, training_pairs
from ss.compression.recipe import read_recipe
from ss.datasets import Triplets
from ss.errors import UserError, as_list, require_positive
from ss.export import export
from ss.inferencer import Inferencer
from ss.measure.backend import ONNX, Backend
from ss.measure.bench import BenchSettings, macs_per_second
from ss.measure.report import in_rounds, publish
from ss.measure.worker import run_alone
from ss.metric import SISDR
from ss.runtime.pretrained import graphs_in, sum_of
from ss.tables import rows_table

QUALITY = ("SI-SDRi", "PESQ", "STOI")
CHUNK_MS = (10, 150)
OF = "of.json"  # what a test was of


def compare(config: dict[str, Any]) -> None:
    """Makes, tests and times what every one of `recipes` gives; prints a table, writes `table.json`.

    Each is made where `prune_and_quantize` makes it, so what was trained there is not trained again. Where `folder` is null,
    nothing is tested: for costs at sizes that cannot be trained at hand.
    """
    require_positive(config, "rounds", "live_seconds")
    names = {Path(recipe).stem: recipe for recipe in as_list(config["recipes"])}
    if others := {*as_list(config["recipes"])} - {*names.values()}:
        raise UserError(f"recipes: expected files of different names, found {', '.join([*names.values(), *others])}")
    abouts = {name: read_recipe(recipe).about for name, recipe in names.items()}
    folders = {name: Path(f"{config['runs']}_{recipe}") for name, recipe in names.items()}
    for name, recipe in names.items():
        prune_and_quantize({**config, "recipe": recipe, "run_dir": str(folders[name]), "exported": str(folders[name] / "exported")})
        distributed.barrier()
    quality = {name: test_export(config, folders[name]) if config["folder"] else {} for name in names}
    if not distributed.is_main():
        return
    settings = BenchSettings.from_checkpoint(Path(config["checkpoint"]), n_warmup=20)
    chunks = [settings.samples(ms / 1000) for ms in CHUNK_MS]
    backends = {name: Backend(ONNX, str(folder / "exported")) for name, folder in folders.items()}
    work = {name: settings.live_workload(backend, chunks, config["live_seconds"]) for name, backend in backends.items()}
    runs = in_rounds(names, config["rounds"], lambda name: run_alone(work[name]))
    rows = []
    for name, folder in folders.items():
        pruned = BenchSettings.from_checkpoint(folder / "best.pth")
        model, exported = pruned.load(), folder / "exported"
        sizes = {graph: (exported / graph).stat().st_size for graph in graphs_in(exported)}  # not model.ss, which only float has
        factors = {str(ms): median(mean(run.seconds[i]) for run in runs[name]) / (ms / 1000) for i, ms in enumerate(CHUNK_MS)}
        rows.append(
            {
                "recipe": name,
                "about": abouts[name],
                "parameters": count_nonzero(model.state_dict()),
                "macs_per_second": macs_per_second(pruned.streams(model), pruned.sample_rate),
                "bytes": sizes,
                "total_bytes": sum(sizes.values()),
                "real_time_factors": factors,
                "quality": quality[name],
            }
        )
    columns = (
        "recipe {recipe} | what {about} | parameters {parameters:,} | MMAC/s {macs_per_second/M:.1f} | MB {total_bytes/M:.2f} | "
        + " | ".join(f"RTF {ms} ms {{real_time_factors[{ms}]:.4f}}" for ms in CHUNK_MS)
        + "".join(f" | {name} {{quality[{name}]:.3f}}" for name in QUALITY)
    )
    report = {"checkpoint": config["checkpoint"], "rounds": config["rounds"], "rows": rows}
    publish(config["out_folder"], "table.json", "", report, {"rows": columns})


def test_export(config: dict[str, Any], folder: Path) -> dict[str, float]:
    """Means of the metrics on the test set; the same graphs are not tested with the same metrics on the same folder again."""
    out = folder / "compared"
    graphs = {path.name: sum_of(path) for path in sorted((folder / "exported").iterdir())}
    of = json.dumps({"graphs": graphs, "folder": config["folder"], "metrics": config["metrics"]}, indent=1)
    if not distributed.any_of((out / OF).exists() and (out / OF).read_text() == of):
        tester.test({**config, "checkpoint": str(folder / "exported"), "out_folder": str(out)})
        if distributed.is_main():
            (out / OF).write_text(of)
    distributed.barrier()
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    return {name: metrics[name]["mean"] for name in QUALITY if name in metrics}


def sensitivity(config: dict[str, Any]) -> None:
    """Quantizes each layer of `checkpoint` alone; prints a table, writes sensitivity.json and .png.

    SI-SDR lost: mean over the first `mixtures` triplets of `folder`; error: energy of the difference over that of the output in
    float. Calibrated on as many training mixtures. Rows are in the order of the graph.
    """
    require_positive(config, "mixtures")
    if not distributed.is_main():
        return
    out = Path(config["out_folder"])
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    examples = examples_config(Path(config["checkpoint"]), {"data": config["data"]})
    with TemporaryDirectory() as aside:
        in_float, int8 = Path(aside, "float"), Path(aside, "int8")
        export(config["checkpoint"], in_float, plain=True)
        stepping = graphs_in(in_float)[1]
        names = product_names(in_float / stepping)
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
    draw(rows, out / "sensitivity.png")
    columns = "layer {layer} | SI-SDR lost (dB) {si_sdr_lost:.3f} | error (dB) {error_db:.1f}"
    (out / "sensitivity.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{rows_table(rows, columns, left=[0])}\n\n{out / 'sensitivity.json'}\n{out / 'sensitivity.png'}")


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
    from matplotlib.figure import Figure  # takes a second to load

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
