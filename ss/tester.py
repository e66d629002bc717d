"""Tests a checkpoint: every metric of every utterance, and their means with counts."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from torch import Tensor
from tqdm import tqdm

from ss import distributed
from ss.datasets import EvaluationBatches, Triplets, loader
from ss.errors import UserError, require_positive
from ss.extraction import may_pad
from ss.inferencer import Inferencer, inferencer
from ss.loss import UNKNOWN_SPEAKER
from ss.metric import Metric, Summary, Utterance, UtteranceScores, applies, columns, evaluate_all, summarize
from ss.tables import rows_table

ACCURACY = "ACC"


def test(config: dict[str, Any]) -> None:
    """Writes utterances.csv and summary.json to `out_folder` and prints the table."""
    rows, summary = run_from_config(config)
    if distributed.is_main():
        out, names = Path(config["out_folder"]), columns(rows.values())
        out.mkdir(parents=True, exist_ok=True)
        with (out / "utterances.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["name", *names])
            lines.writerows([name, *(row.values.get(column, "") for column in names)] for name, row in rows.items())
        about = {"checkpoint": config["checkpoint"], "folder": config["folder"]}
        (out / "summary.json").write_text(json.dumps({**about, **summary}, indent=1) + "\n")
        print(f"{len(rows)} utterances of {config['folder']}; each in {config['out_folder']}/utterances.csv")


def run_from_config(config: dict[str, Any]) -> tuple[dict[str, UtteranceScores], Summary]:
    """The rows of a config's `folder` by name (see `run_test`), and their summary, which is printed."""
    require_positive(config, "batch_size")
    if not config.get("metrics"):
        raise UserError("metrics: expected some, e.g. metrics=all or metrics=fast, found none")
    n_workers = distributed.n_spare_cores() if config["num_workers"] is None else config["num_workers"]
    extractor = inferencer(config)
    metrics = instantiate(at_rate(config["metrics"], extractor.sample_rate))
    rows = run_test(extractor, metrics, config["folder"], config["batch_size"], n_workers)
    summary = summarize(list(rows.values()))
    if distributed.is_main():
        print(table(summary))
    return rows, summary


def at_rate(metrics: dict[str, Any], sample_rate: int) -> dict[str, Any]:
    """The config of metrics with this `sample_rate` in Hz wherever they have one: any other would give wrong values."""
    values = {key: at_rate(value, sample_rate) if isinstance(value, dict) else value for key, value in metrics.items()}
    return {**values, "sample_rate": sample_rate} if "sample_rate" in values else values


def run_test(
    extractor: Inferencer, metrics: Mapping[str, Metric], folder: str | Path, batch_size: int, n_workers: int = 0
) -> dict[str, UtteranceScores]:
    """The row of every triplet of a folder, by name; the folder is shared out to all processes, and each has all rows.

    n_workers: processes that compute the metrics beside the model (see `evaluate_all`).
    """
    examples = Triplets(folder, extractor.sample_rate, speakers=extractor.speakers)
    batches = EvaluationBatches(examples.lengths(), batch_size, may_pad(extractor.model, extractor.streamer))
    recognized: dict[str, UtteranceScores] = {}

    def utterances() -> Iterator[Utterance]:
        for batch in loader(examples, batches):
            (estimates,), logits = extractor(batch.mixture, batch.lengths, batch.ref, batch.ref_lengths)
            for i, (name, samples) in enumerate(zip(batch.names, batch.lengths.tolist(), strict=True)):
                recognized[name] = accuracy(logits[i], int(batch.speakers[i]))
                yield Utterance(name, *(wave[i, :samples].numpy() for wave in (estimates, batch.target, batch.mixture)))

    found = []
    n_utterances = sum(map(len, batches))
    shown = tqdm(evaluate_all(metrics, utterances(), n_workers), Path(folder).name, n_utterances, disable=not distributed.is_main())
    for name, row in shown:
        speaker = recognized[name]
        found.append((name, UtteranceScores(row.values | speaker.values, row.missing | speaker.missing)))
    return dict(sorted(distributed.gather(found)))


def accuracy(logits: Tensor, speaker: int) -> UtteranceScores:
    """Whether the enrolment's speaker was recognised, where it is one of the training's."""
    if speaker == UNKNOWN_SPEAKER:
        return UtteranceScores({}, {ACCURACY: "the speaker is not one of the training set"})
    if not len(logits):
        return UtteranceScores({}, {ACCURACY: "the export tells no speakers apart"})
    return UtteranceScores({ACCURACY: float(logits.argmax() == speaker)}, {})


def table(summary: Summary) -> str:
    """The summary as text: a line per metric that is for any of the utterances, and the reasons of what is missing."""
    rows = [
        {"name": name, **average, "why": "; ".join(f"{reason} ({count})" for reason, count in average["reasons"].items())}
        for name, average in summary["metrics"].items()
        if applies(average)
    ]
    columns = "metric {name} | mean {mean:.3f} | median {median:.3f} | count {count} | missing {missing} |  {why}"
    return rows_table(rows, columns, left=(0, 5), missing="-")
