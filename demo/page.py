"""Shows a run as one static page: examples to hear, metrics, the training's course, and what the model costs.

`python3 demo/page.py --run RUN --test TEST --data MIXTURES --pred PREDICTIONS --exported MODEL --measurement FILE --out PAGE` reads
what training, testing, mixing, inference, export and measuring wrote, and extracts from real speech in `demo/speech`.
The page needs no other file and no network.
"""

import argparse
import csv
import json
import math
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import tables
import yaml
from charts import Point, Series, bar_chart, decibels, line_chart
from clips import SAMPLE_RATE, picture, read_clip, sound
from released import Example, examples

from ss.audio import Wave
from ss.errors import UserError

RANKING = "SI-SDRi"
CLIPS = (
    ("mixed", "Mixture", "in"),
    ("ref", "Enrolment", "in"),
    ("pred", "Extracted", "out"),
    ("target", "Target", "the truth"),
)
CHIPS = ("SI-SDR", "SDRi", "STOI", "PESQ", "COVL")
DECIBELS = ("SI-SDR", "SI-SDRi", "SNR", "SDRi", "SSNR", "absent-dB")
SCENE_METRICS = ("absent-dB", "STOI-drop")  # shown where there are such mixtures
MEANINGS = {
    "SI-SDR": "scale-invariant signal-to-distortion ratio of the extracted voice",
    "SI-SDRi": "its improvement over the mixture",
    "SNR": "signal-to-noise ratio of the extracted voice",
    "SDRi": "improvement of the signal-to-distortion ratio",
    "STOI": "short-time objective intelligibility, 0 to 1",
    "PESQ": "perceptual quality, 1 to 4.5",
    "CSIG": "predicted opinion of the voice, 1 to 5",
    "CBAK": "predicted opinion of the background, 1 to 5",
    "COVL": "predicted opinion overall, 1 to 5",
    "SSNR": "segmental signal-to-noise ratio",
    "absent-dB": "output over mixture where the target is silent",
    "STOI-drop": "intelligibility that clean speech loses",
    "ACC": "speakers recognised from the enrolment",
}

Row = dict[str, float]


def build(args: argparse.Namespace) -> str:
    """The page. Raises UserError naming what is missing or cannot be used."""
    config = yaml.safe_load(_text(args.run / "config.yaml"))
    log = [json.loads(line) for line in _text(args.run / "log.jsonl").splitlines()]
    summary = json.loads(_text(args.test / "summary.json"))
    measurement = json.loads(_text(args.measurement))
    rows = read_rows(args.test / "utterances.csv")
    chosen = choose(rows)
    template = Path(__file__).with_name("page.html").read_text()
    return Template(template).substitute(
        tiles=_tiles(log, summary, measurement),
        voices=_voices(args.run / "speakers.txt", rows),
        examples="".join(_example(args, name, f"{kind} of {len(rows)}", rows[name]) for name, kind in chosen.items()),
        released="".join(map(_released, examples(args.exported))),
        improvements=_improvements(rows, chosen),
        metrics=_metrics_table(summary),
        training=_training(log),
        measurement=tables.report(measurement),
        model=tables.key_values(config.get("model", {})),
        config=escape(yaml.safe_dump(config, sort_keys=False, width=100)),
        versions=tables.key_values(json.loads(_text(args.run / "versions.json"))),
    )


def read_rows(path: Path) -> dict[str, Row]:
    """The values of every utterance by name; a missing one has no key."""
    table = csv.DictReader(_text(path).splitlines())
    rows = {row.pop("name"): {key: float(value) for key, value in row.items() if value} for row in table}
    if not any(RANKING in row for row in rows.values()):
        raise UserError(f"{path}: expected a column {RANKING} with values, to rank the examples by")
    return rows


def choose(rows: dict[str, Row]) -> dict[str, str]:
    """Names of the best, the median and the worst utterance, and which is which."""
    ranked = sorted((row[RANKING], name) for name, row in rows.items() if RANKING in row)
    places = {"best": len(ranked) - 1, "median": len(ranked) // 2, "worst": 0}
    chosen: dict[str, str] = {}
    for kind, place in places.items():
        chosen.setdefault(ranked[place][1], kind)
    return chosen


def _voices(trained: Path, rows: dict[str, Row]) -> str:
    """How many of the voices that were tested the training knew, where it left a list of its own."""
    if not trained.is_file():
        return ""
    tested = {name.split("_")[0] for name in rows}
    known = tested & set(trained.read_text().split())
    return f"{len(known) or 'None'} of these {len(tested)} voices {'was' if len(known) < 2 else 'were'} trained on."


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: expected a file, but there is none")
    return path.read_text()


def _find(folder: Path, name: str, part: str) -> Path:
    """The file of a triplet or prediction, of whatever format."""
    for suffix in ("wav", "flac", "ogg", "opus"):
        if (path := folder / f"{name}-{part}.{suffix}").is_file():
            return path
    raise UserError(f"{folder}: expected {name}-{part}.wav (or .flac, .ogg, .opus), but there is none")


def _tiles(log: list[dict[str, Any]], summary: dict[str, Any], measurement: dict[str, Any]) -> str:
    improvement = summary["metrics"].get(RANKING, {})
    minutes = max((row.get("seconds", 0.0) for row in log), default=0.0) / 60
    epochs = sum(row["kind"] == "epoch" for row in log)
    tiles = []
    if improvement.get("mean") is not None:
        tiles.append((decibels(improvement["mean"]), f"mean SI-SDR improvement over {improvement['count']} mixtures"))
    tiles.append(
        (f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min", f"of training, {epochs} epoch{'s' * (epochs != 1)}")
    )
    if "parameters" in measurement:
        tiles.append((tables.number(measurement["parameters"]), "parameters"))
    if "headline" in measurement:
        tiles.append((f"{100 * measurement['headline']['real_time_factor']:.2g} %", "of real time spent computing"))
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in tiles)


def _example(args: argparse.Namespace, name: str, place: str, row: Row) -> str:
    """One mixture: its four recordings and its metrics."""
    clips = [
        _clip(title, note, read_clip(_find(args.pred if part == "pred" else args.data, name, part), args.seconds))
        for part, title, note in CLIPS
    ]
    chips = "".join(f"<li>{key} <b>{_value(key, row[key])}</b></li>" for key in CHIPS if key in row)
    head = f"<h3><b>{decibels(row[RANKING])}</b> {place}<small>{escape(name)}</small></h3>"
    return (
        f'<article class="example"><header>{head}<ul class="chips">{chips}</ul></header>'
        f'<div class="clips">{"".join(clips)}</div></article>'
    )


def _released(example: Example) -> str:
    """The released model beside the one of this run."""
    clips = (
        ("Mixture", "in", example.mixture),
        ("Enrolment", "in", example.enrolment),
        ("Released", decibels(example.released_gain), example.released),
        ("This run", decibels(example.trained_gain), example.trained),
    )
    head = f"<h3><b>{decibels(example.released_gain)}</b> {example.title}</h3>"
    return (
        f'<article class="example"><header>{head}</header>'
        f'<div class="clips">{"".join(_clip(title, note, wave) for title, note, wave in clips)}</div></article>'
    )


def _clip(title: str, note: str, wave: Wave) -> str:
    """A recording [S] to see and to play."""
    image = f'<img alt="Spectrogram: {title}" src="{picture(wave)}">'
    return (
        f'<figure class="clip"><figcaption>{title} <i>{note}</i><span>{len(wave) / SAMPLE_RATE:.1f} s</span></figcaption>'
        f'<button class="screen" aria-label="Play: {title}">{image}<span class="head"></span></button>'
        f'<audio controls preload="metadata" src="{sound(wave)}"></audio></figure>'
    )


def _value(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.2f} dB".replace("-", "\N{MINUS SIGN}") if key in DECIBELS else f"{value:.1%}" if key == "ACC" else f"{value:.3f}"
    )


def _improvements(rows: dict[str, Row], chosen: dict[str, str]) -> str:
    bars = sorted(((name, row[RANKING]) for name, row in rows.items() if RANKING in row), key=lambda bar: bar[1])
    return bar_chart("SI-SDR improvement of every mixture, dB", f"{len(bars)} mixtures, from the worst to the best", bars, chosen)


def _metrics_table(summary: dict[str, Any]) -> str:
    lines = []
    for key, average in summary["metrics"].items():
        if key in SCENE_METRICS and not average["count"]:
            continue
        reasons = "; ".join(f"{reason} ({count})" for reason, count in average["reasons"].items())
        missing = f"{average['missing']}<small>{escape(reasons)}</small>" if average["missing"] else "0"
        mean = f"<td><b>{_value(key, average['mean'])}</b></td><td>{average['count']}</td><td>{missing}</td>"
        lines.append(f"<tr><th>{escape(key)}</th><td>{MEANINGS.get(key, '')}</td>{mean}</tr>")
    head = "<tr><th>metric</th><th></th><th>mean</th><th>count</th><th>missing</th></tr>"
    return f'<div class="scroll"><table class="metrics">{head}{"".join(lines)}</table></div>'


def _training(log: list[dict[str, Any]]) -> str:
    """Two charts over the minutes of training: loss and SI-SDR, of steps and of epochs."""
    steps, epochs = ([row for row in log if row["kind"] == kind] for kind in ("step", "epoch"))
    charts = []
    for key, title in (("si_sdr", "SI-SDR, dB"), ("loss", "Loss")):
        lines = [
            Series("training, steps", "steps", smoothed(points(steps, key)), dots=False),
            Series("training", "train", points(epochs, key, "train")),
            Series("validation", "valid", points(epochs, key, "valid")),
        ]
        charts.append(line_chart(title, "minutes of training", lines))
    return "".join(charts)


def points(rows: list[dict[str, Any]], key: str, part: str | None = None) -> list[Point]:
    """(minutes, value) of the rows that have a finite one."""
    found = ((row["seconds"] / 60, (row[part] if part else row).get(key)) for row in rows)
    return [(x, y) for x, y in found if y is not None and math.isfinite(y)]


def smoothed(line: list[Point], spans: int = 15, n: int = 100) -> list[Point]:
    """About n points of a line at most, each the mean of those around it, over one of so many spans of the whole."""
    half, stride = len(line) // spans // 2, math.ceil(len(line) / n) or 1
    around = [line[max(i - half, 0) : i + half + 1] for i in range(0, len(line), stride)]
    return [(math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group)) for group in around]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the training: config.yaml, versions.json, log.jsonl")
    parser.add_argument("--test", type=Path, required=True, help="folder of the test: utterances.csv, summary.json")
    parser.add_argument("--data", type=Path, required=True, help="folder of the triplets that were tested")
    parser.add_argument("--pred", type=Path, required=True, help="folder of the predictions for them")
    parser.add_argument("--exported", type=Path, required=True, help="folder of the export of the model that was trained")
    parser.add_argument("--measurement", type=Path, required=True, help="measurement.json")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--seconds", type=float, default=8.0, help="show at most so much of each recording (default 8)")
    return parser.parse_args(arguments)


def main() -> None:
    """Writes the page and prints where it is."""
    args = parse()
    try:
        page = build(args)
    except UserError as error:
        raise SystemExit(f"page.py: {error}") from error
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page)
    print(args.out.resolve())


if __name__ == "__main__":
    main()
