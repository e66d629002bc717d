"""A learning curve that grows: what checkpoints do on fixed folders of triplets against the hours of mixtures that they heard."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from hydra.utils import instantiate

from ss.errors import UserError
from ss.files import folders_by_name, whole_file
from ss.inferencer import Inferencer
from ss.metric import SISDR, Improvement, Metric
from ss.tables import text_table
from ss.tester import run_test
from ss.utils.predecessor import read_checkpoint

HOURS, CHECKPOINT = "hours", "checkpoint"
METRICS: dict[str, Metric] = {"SI-SDRi": Improvement(SISDR())}


def extend_curve(config: dict[str, Any]) -> None:
    """Tests `checkpoint` on every one of `folders`, adds a row to the CSV `table`, and draws it anew.

    hours: heard by the checkpoint, where it does not say so itself. name: of the row; a row of this name is replaced. Without one
    it is the file's, and only a row of the same hours is replaced.
    """
    hours = read_checkpoint(config["checkpoint"]).get("hours") if config["hours"] is None else config["hours"]
    if hours is None:
        raise UserError(f"{config['checkpoint']}: expected a checkpoint that says its hours, or hours=...; found neither")
    table = Path(config["table"])
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    if rows and not {HOURS, CHECKPOINT} <= rows[0].keys():
        raise UserError(f"{table}: expected columns {HOURS} and {CHECKPOINT}, found {', '.join(rows[0])}")
    for number, other in enumerate(rows, start=2):
        if not re.fullmatch(r"\d+(\.\d+)?", other[HOURS] or ""):
            raise UserError(f"{table}, line {number}: expected a number of hours, found {other[HOURS]!r}")
    row = {HOURS: f"{hours:.1f}", CHECKPOINT: config["name"] or Path(config["checkpoint"]).stem}
    extractor, folders = Inferencer(config["checkpoint"], instantiate(config["streamer"])), folders_by_name(config["folders"])
    for name, folder in folders.items():
        tested = run_test(extractor, METRICS, folder, config["batch_size"]).values()
        values = [one.values["SI-SDRi"] for one in tested if "SI-SDRi" in one.values]
        if not values:
            raise UserError(f"{folder}: expected mixtures with an SI-SDRi, found none")
        row[name] = f"{mean(values):.2f}"
    keys = [CHECKPOINT] if config["name"] else [CHECKPOINT, HOURS]  # best.pth of a run that went on is another point
    others = [other for other in rows if any(other[key] != row[key] for key in keys)]
    rows = sorted([*others, row], key=lambda one: float(one[HOURS]))
    columns = list(dict.fromkeys(key for one in rows for key in one))
    with whole_file(table) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if config["picture"]:
        draw(rows, columns[2:], Path(config["picture"]))
    print(text_table(columns, [[one.get(column) or "-" for column in columns] for one in rows]))


def draw(rows: Sequence[dict[str, str]], columns: Sequence[str], path: Path) -> None:
    """SI-SDRi of each folder against hours heard, as a picture."""
    from matplotlib.figure import Figure  # takes a second to load

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="hours of mixtures heard", ylabel="SI-SDRi (dB)")
    for column in columns:
        points = [(float(row[HOURS]), float(row[column])) for row in rows if row.get(column)]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=column)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
