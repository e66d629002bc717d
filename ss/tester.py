"""Tests a checkpoint: every metric of every utterance, and their means with counts."""

import csv
import json
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from torch import Tensor
from tqdm import tqdm

from ss import distributed
from ss.datasets import Batch, EvaluationBatches, Triplets, loader
from ss.inferencer import Inferencer, inferencer
from ss.loss import UNKNOWN_SPEAKER
from ss.metric import Metric, Row, Summary, applies, columns, evaluate, summarize

ACCURACY = "ACC"


def test(config: dict[str, Any]) -> int:
    """Writes utterances.csv and summary.json to `out_folder` and prints the table. Returns the exit code."""
    if not config.get("metrics"):
        raise ValueError("metrics: expected some, e.g. metrics=all or metrics=fast, found none")
    extractor, metrics = inferencer(config), instantiate(config["metrics"])
    examples = Triplets(config["folder"], extractor.sample_rate, speakers=extractor.speakers)
    batches = EvaluationBatches(examples.groups(extractor.streamer.group), config["batch_size"])
    found = []
    for batch in tqdm(loader(examples, batches, config["num_workers"]), "testing", disable=not distributed.is_main()):
        found += measure(extractor, metrics, batch)
    rows = dict(sorted(distributed.gather(found)))
    if distributed.is_main():
        summary = summarize(list(rows.values()))
        write(Path(config["out_folder"]), rows, summary, {"checkpoint": config["checkpoint"], "folder": config["folder"]})
        print(table(summary))
        print(f"{len(rows)} utterances of {config['folder']}; each in {config['out_folder']}/utterances.csv")
    return 0


def measure(extractor: Inferencer, metrics: dict[str, Metric], batch: Batch) -> list[tuple[str, Row]]:
    """(name, row) of every utterance of a batch."""
    (estimates,), logits = extractor(batch.mixture, batch.lengths, batch.ref, batch.ref_lengths)
    found = []
    for i, (name, samples) in enumerate(zip(batch.names, batch.lengths.tolist(), strict=True)):
        row = evaluate(metrics, *(wave[i, :samples] for wave in (estimates, batch.target, batch.mixture)))
        found.append((name, with_accuracy(row, logits[i], int(batch.speakers[i]))))
    return found


def with_accuracy(row: Row, logits: Tensor, speaker: int) -> Row:
    """The row and whether the enrolment's speaker was recognised, where it is one of the training's."""
    if speaker == UNKNOWN_SPEAKER:
        return Row(row.values, row.missing | {ACCURACY: "the speaker is not one of the training set"})
    if not len(logits):
        return Row(row.values, row.missing | {ACCURACY: "the export tells no speakers apart"})
    return Row(row.values | {ACCURACY: float(logits.argmax() == speaker)}, row.missing)


def write(folder: Path, rows: dict[str, Row], summary: Summary, about: dict[str, Any]) -> None:
    """utterances.csv (empty where a value is missing) and summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    names = columns(rows.values())
    with (folder / "utterances.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", *names])
        for name, row in rows.items():
            table.writerow([name, *(row.values.get(column, "") for column in names)])
    (folder / "summary.json").write_text(json.dumps({**about, **summary}, indent=1) + "\n")


def table(summary: Summary) -> str:
    """The summary as text: a line per metric that is for any of the utterances, and the reasons of what is missing."""
    lines = [f"{'metric':<10}{'mean':>10}{'median':>10}{'count':>8}{'missing':>9}"]
    for name, average in summary["metrics"].items():
        if not applies(average):
            continue
        mean, median = ("-" if value is None else f"{value:.3f}" for value in (average["mean"], average["median"]))
        why = ";".join(f"  {reason} ({count})" for reason, count in average["reasons"].items())
        lines.append(f"{name:<10}{mean:>10}{median:>10}{average['count']:>8}{average['missing']:>9}{why}")
    return "\n".join(lines)
