"""What each technique buys: all recipes side by side, in parameters, operations, bytes, milliseconds and decibels."""

import hashlib
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

from ss import distributed, tester
from ss.compression.job import prune_and_quantize
from ss.compression.recipe import read_recipe
from ss.constraints import count_nonzero
from ss.measure.backend import ONNX, Backend, Workload
from ss.measure.bench import BenchSettings, file_bytes, macs_per_second
from ss.measure.report import in_rounds, machine, machine_line, publish
from ss.measure.worker import WorkerRun, run_alone
from ss.tables import text_table

QUALITY = ("SI-SDRi", "PESQ", "STOI")
CHUNK_MS = (10, 150)
OF = "of.json"  # what a test was of


def compare(config: dict[str, Any]) -> int:
    """Makes, tests and times what every one of `recipes` gives; prints a table, writes `table.json`.

    Each is made where `prune_and_quantize` makes it, so what was trained there is not trained again. Where `folder` is null,
    nothing is tested: for costs at sizes that cannot be trained at hand.
    """
    names = {Path(recipe).stem: recipe for recipe in config["recipes"]}
    abouts = {name: read_recipe(recipe).about for name, recipe in names.items()}
    folders = {name: Path(f"{config['runs']}_{name}") for name in names}
    for name, recipe in names.items():
        run = {"recipe": recipe, "run_dir": str(folders[name]), "exported": str(folders[name] / "exported")}
        prune_and_quantize({**config, **run})
        distributed.barrier()
    quality = {name: test_export(config, folders[name]) if config["folder"] else {} for name in names}
    if not distributed.is_main():
        return 0
    rate = BenchSettings.from_checkpoint(Path(config["checkpoint"])).sample_rate
    chunks = [rate * ms // 1000 for ms in CHUNK_MS]
    calls = [max(1, round(config["live_seconds"] * rate / chunk)) for chunk in chunks]
    backends = {name: Backend(ONNX, str(folder / "exported")) for name, folder in folders.items()}
    runs = in_rounds(names, config["rounds"], lambda name: run_alone(Workload(backends[name], chunks, calls, 20, 3 * rate)))
    rows = [describe_recipe(name, abouts[name], folders[name], quality[name], runs[name]) for name in names]
    report = {"checkpoint": config["checkpoint"], "machine": machine(), "rounds": config["rounds"], "rows": rows}
    head = ["recipe", "what", "parameters", "MMAC/s", "MB", *(f"RTF {ms} ms" for ms in CHUNK_MS), *QUALITY]
    cells = [
        [
            row["recipe"],
            row["about"],
            f"{row['parameters']:,}",
            f"{row['macs_per_second'] / 1e6:.1f}",
            f"{sum(row['bytes'].values()) / 1e6:.2f}",
            *(f"{row['real_time_factors'][ms]:.4f}" for ms in CHUNK_MS),
            *(f"{row['quality'][name]:.3f}" if name in row["quality"] else "-" for name in QUALITY),
        ]
        for row in rows
    ]
    publish(report, Path(config["out_folder"]) / "table.json", machine_line(report["machine"]), text_table(head, cells))
    return 0


def test_export(config: dict[str, Any], folder: Path) -> dict[str, float]:
    """Means of the metrics on the test set; the same graphs are not tested with the same metrics on the same folder again."""
    out = folder / "compared"
    exported = sorted((folder / "exported").iterdir())
    graphs = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in exported}
    of = json.dumps({"graphs": graphs, "folder": config["folder"], "metrics": config["metrics"]}, indent=1)
    if not distributed.any_of((out / OF).exists() and (out / OF).read_text() == of):
        tester.test({**config, "checkpoint": str(folder / "exported"), "out_folder": str(out)})
        if distributed.is_main():
            (out / OF).write_text(of)
    distributed.barrier()
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    return {name: metrics[name]["mean"] for name in QUALITY if name in metrics}


def describe_recipe(name: str, about: str, folder: Path, quality: dict[str, float], runs: list[WorkerRun]) -> dict[str, Any]:
    """All about one recipe. bytes: of the exported files; real_time_factors: by milliseconds of a chunk, medians of the rounds."""
    settings = BenchSettings.from_checkpoint(folder / "best.pth")
    model = settings.load()
    return {
        "recipe": name,
        "about": about,
        "parameters": count_nonzero(model.state_dict()),
        "macs_per_second": macs_per_second(settings.streams(model), settings.sample_rate),
        "bytes": file_bytes(folder / "exported"),
        "real_time_factors": {ms: median(mean(run.seconds[i]) for run in runs) / (ms / 1000) for i, ms in enumerate(CHUNK_MS)},
        "quality": quality,
    }
