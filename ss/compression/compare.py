"""What each technique buys: all recipes side by side, in parameters, operations, bytes, milliseconds and decibels."""

import hashlib
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

from tqdm import tqdm

from ss import distributed, tester
from ss.compression.job import prune_and_quantize, recipe_of
from ss.compression.measuring import counts
from ss.compression.stages import trained_config
from ss.measure.alone import Job, Run
from ss.measure.job import machine
from ss.measure.sources import ONNX, run_alone
from ss.measure.table import aligned, machine_line

QUALITY = ("SI-SDRi", "PESQ", "STOI")
HEAD = ["recipe", "what", "parameters", "MMAC/s", "MB", "RTF 10 ms", "RTF 150 ms", *QUALITY]
CHUNK_MS = (10, 150)
OF = "of.json"  # what a test was of


def compare(config: dict[str, Any]) -> int:
    """Makes, tests and times what every one of `recipes` gives; prints a table, writes `table.json`.

    Each is made where `prune_and_quantize` makes it, so what was trained there is not trained again. Where `folder` is null,
    nothing is tested: for costs at sizes that cannot be trained at hand.
    """
    out = Path(config["out_folder"])
    names = {Path(recipe).stem: recipe for recipe in config["recipes"]}
    abouts = {name: recipe_of(recipe).about for name, recipe in names.items()}
    folders = {name: Path(f"{config['runs']}_{name}") for name in names}
    for name, recipe in names.items():
        run = {"recipe": recipe, "run_dir": str(folders[name]), "exported": str(folders[name] / "exported")}
        prune_and_quantize({**config, **run})
        distributed.barrier()
    quality = {name: tested(config, folders[name]) if config["folder"] else {} for name in names}
    if not distributed.is_main():
        return 0
    runs = in_rounds(config, {name: folders[name] / "exported" for name in names})
    rows = [row(name, abouts[name], folders[name], quality[name], runs[name]) for name in names]
    report = {"checkpoint": config["checkpoint"], "machine": machine(), "rounds": config["rounds"], "rows": rows}
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.json").write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join([machine_line(report), "", *aligned([HEAD, *map(cells, rows)]), "", str(out / "table.json")]))
    return 0


def tested(config: dict[str, Any], folder: Path) -> dict[str, float]:
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


def in_rounds(config: dict[str, Any], exports: dict[str, Path]) -> dict[str, list[Run]]:
    """Live streams of all exports in turn, each in a process of its own on one thread, so that all meet the same machine."""
    rate, seconds = trained_config(Path(config["checkpoint"]))["data"]["sample_rate"], config["live_seconds"]
    chunks = [rate * ms // 1000 for ms in CHUNK_MS]
    runs: dict[str, list[Run]] = {name: [] for name in exports}
    for name in tqdm([name for _ in range(config["rounds"]) for name in exports], "rounds"):
        calls = [max(1, round(seconds * rate / chunk)) for chunk in chunks]
        runs[name].append(run_alone(Job(ONNX, str(exports[name]), {}, chunks, calls, 20, 3 * rate)))
    return runs


def row(name: str, about: str, folder: Path, quality: dict[str, float], runs: list[Run]) -> dict[str, Any]:
    """All about one recipe. bytes: of the exported files; real_time_factors: by milliseconds of a chunk, medians of the rounds."""
    counted, export = counts(folder / "best.pth"), folder / "exported"
    factors = {ms: median(mean(run.seconds[i]) for run in runs) / (ms / 1000) for i, ms in enumerate(CHUNK_MS)}
    return {
        "recipe": name,
        "about": about,
        **counted,
        "bytes": {path.name: path.stat().st_size for path in sorted(export.iterdir())},
        "real_time_factors": factors,
        "quality": quality,
    }


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text."""
    return [
        row["recipe"],
        row["about"],
        f"{row['parameters']:,}",
        f"{row['macs_per_second'] / 1e6:.1f}",
        f"{sum(row['bytes'].values()) / 1e6:.2f}",
        *(f"{factor:.4f}" for factor in row["real_time_factors"].values()),
        *(f"{row['quality'][name]:.3f}" if name in row["quality"] else "-" for name in QUALITY),
    ]
