"""The demo's two commands: the synthetic corpus and the page."""

import base64
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import Done, run_script

from ss import audio
from ss.runtime.pretrained import PACKAGED

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 4, "dev": 1, "test": 2}
REASON = "too short <0.5 s"


def run_command(script: str, *args: object) -> Done:
    """Runs a script as a user does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "demo" / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def run(script: str, *args: object) -> Done:
    """Runs a script in this process."""
    return run_script(f"demo/{script}", *map(str, args), check=False)


def make_corpus(out: Path, *args: object) -> Done:
    counts = [arg for split, count in COUNTS.items() for arg in (f"--{split}-voices", count)]
    return run_command("corpus.py", "--out", out, *counts, "--utterances", 2, *args)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="the demo's corpus needs espeakng-loader: pip install .[demo]")
    out = tmp_path_factory.mktemp("demo") / "corpus"
    made = make_corpus(out, "--num-workers", 2)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == str(out)
    return out


def voices(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "voices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_corpus_has_librispeech_layout(corpus: Path) -> None:
    for split, count in COUNTS.items():
        speakers = sorted(path.name for path in (corpus / split).iterdir())
        assert speakers == [f"{split}{number:03d}" for number in range(count)]
        for speaker in speakers:
            names = [f"{speaker}-1-{number:04d}" for number in range(2)]
            chapter = corpus / split / speaker / "1"
            assert sorted(path.name for path in chapter.glob("*.flac")) == [f"{name}.flac" for name in names]
            texts = [line.split(" ", 1) for line in (chapter / f"{speaker}-1.trans.txt").read_text().splitlines()]
            assert [name for name, _ in texts] == names
            assert texts[0][1] != texts[1][1]


def test_every_utterance_is_of_the_rate_length_and_level_that_it_should_be(corpus: Path) -> None:
    paths = sorted(corpus.rglob("*.flac"))
    assert len(paths) == 14
    for path in paths:
        info, wave = soundfile.info(path), audio.read(path, 16000)
        assert info.subtype == "PCM_16"
        assert 3 <= len(wave) / 16000 <= 6
        assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.04, rel=0.01)
        assert np.abs(wave).max() < 0.81


def test_no_voice_is_in_two_splits_and_all_are_different(corpus: Path) -> None:
    rows = voices(corpus)
    assert len({row["speaker"] for row in rows}) == 7
    assert len({row["variant"] for row in rows}) == 7
    assert {row["split"] for row in rows} == set(COUNTS)


def test_the_same_arguments_give_the_same_bytes_with_any_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    assert make_corpus(tmp_path / "again", "--num-workers", 1).returncode == 0
    assert contents(tmp_path / "again") == contents(corpus)


def test_a_voice_does_not_depend_on_how_many_others_there_are_but_on_the_seed(corpus: Path, tmp_path: Path) -> None:
    few = ("--train-voices", 1, "--dev-voices", 0, "--test-voices", 0)
    assert make_corpus(tmp_path / "few", *few).returncode == 0
    assert make_corpus(tmp_path / "other", *few, "--seed", 1).returncode == 0
    utterance = "train/train000/1/train000-1-0001.flac"
    assert contents(tmp_path / "few")[utterance] == contents(corpus)[utterance]
    assert contents(tmp_path / "other")[utterance] != contents(corpus)[utterance]


def test_a_corpus_that_is_there_is_left_alone(corpus: Path) -> None:
    before = contents(corpus)
    again = make_corpus(corpus)
    assert again.returncode != 0
    assert f"expected a folder that is not there yet, but {corpus} is" in again.stderr
    assert contents(corpus) == before


@pytest.mark.parametrize("wrong", [("--utterances", 0), ("--dev-voices", -1), ("--min-seconds", 6), ("--num-workers", 0)])
def test_arguments_that_make_no_corpus_are_refused(tmp_path: Path, wrong: tuple[str, int]) -> None:
    made = run("corpus.py", "--out", tmp_path / "corpus", *wrong)
    assert made.returncode == 2
    assert "error: expected" in made.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_synthesiser_is_named_with_what_to_install(tmp_path: Path) -> None:
    hidden = f"""import runpy, sys
sys.modules["espeakng_loader"] = None
sys.path.insert(0, {str(ROOT / "demo")!r})
sys.argv = ["corpus.py", "--out", {str(tmp_path / "corpus")!r}]
runpy.run_path({str(ROOT / "demo" / "corpus.py")!r}, run_name="__main__")"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, env=environment, timeout=60)
    assert made.returncode == 2
    assert "pip install .[demo]" in made.stderr


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """What the page is made from, in the formats of the commands that write it."""
    folders = {name: tmp_path / name for name in ("run", "test", "data", "pred")}
    for folder in folders.values():
        folder.mkdir()
    config = {"model": {"_target_": "ss.model.SomeModel", "n_channels": 16}, "note": "<&>"}
    (folders["run"] / "config.yaml").write_text(yaml.safe_dump(config))
    (folders["run"] / "versions.json").write_text(json.dumps({"torch": "2.13.0"}))
    (folders["run"] / "speakers.txt").write_text("a\nb\n")
    (folders["run"] / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log_rows()))
    write_test(folders["test"])
    rng = np.random.default_rng(0)
    for name in ("a_1", "c_2", "c_3", "d_4"):
        for part in ("mixed", "target", "ref"):
            audio.write(folders["data"] / f"{name}-{part}.wav", rng.normal(0, 0.1, 8000).astype(np.float32), 16000)
        audio.write(folders["pred"] / f"{name}-pred.wav", rng.normal(0, 0.1, 8000).astype(np.float32), 16000)
    measurement = {
        "parameters": 1234567,
        "machine": {"cpu": "a <fast> one"},
        "live": [{"runtime": "torch", "real_time_factor": 0.58}, {"runtime": "onnxruntime", "real_time_factor": 0.25}],
        "headline": {"runtime": "onnxruntime", "real_time_factor": 0.25},
    }
    (tmp_path / "measurement.json").write_text(json.dumps(measurement))
    exported = PACKAGED / "spexplus_online" / "float32"
    return {**folders, "exported": exported, "measurement": tmp_path / "measurement.json", "out": tmp_path / "page" / "index.html"}


def log_rows() -> list[dict[str, object]]:
    steps = [{"kind": "step", "step": i, "epoch": 1, "loss": 9 - i, "si_sdr": i, "seconds": 30.0 * i} for i in range(1, 5)]
    values = {"loss": 4.0, "si_sdr": 5.0, "accuracy": 0.5}
    epochs = [{"kind": "epoch", "epoch": 1, "step": 4, "seconds": 120.0, "lr": 1e-3, "train": values, "valid": values}]
    return [*steps, *epochs]


def write_test(folder: Path) -> None:
    rows = ["name,SI-SDR,SI-SDRi,PESQ", "a_1,5.0,5.5,1.5", "c_2,2.0,2.25,", "c_3,-3.0,-2.75,1.25", "d_4,4.0,3.5,1.25"]
    (folder / "utterances.csv").write_text("\n".join(rows) + "\n")
    metrics = {
        "SI-SDRi": {"mean": 2.125, "count": 4, "missing": 0, "reasons": {}},
        "PESQ": {"mean": 1.333, "count": 3, "missing": 1, "reasons": {REASON: 1}},
        "ACC": {"mean": None, "count": 0, "missing": 4, "reasons": {"the speaker is not one of the training set": 4}},
    }
    (folder / "summary.json").write_text(json.dumps({"metrics": metrics, "utterances": 4}))


def make_page(inputs: dict[str, Path], run: Callable[..., Done] = run) -> Done:
    return run("page.py", *(arg for name, path in inputs.items() for arg in (f"--{name}", path)))


class Reader(HTMLParser):
    """Collects what a page holds, and checks that its elements are closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        self.open += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_shows_everything_and_needs_nothing_else(inputs: dict[str, Path]) -> None:
    made = make_page(inputs, run_command)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == str(inputs["out"])
    page = inputs["out"].read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert reader.counts["audio"] == reader.counts["img"] == 12 + 8
    assert reader.counts["rect"] == 4
    assert all(link.startswith("data:") for link in reader.links)
    assert "@import" not in page
    text = " ".join(" ".join(reader.text).split())
    for wanted in (
        "+2.1 dB",
        "+5.5 dB best of 4",
        "+3.5 dB median",
        "\N{MINUS SIGN}2.8 dB worst",
        "dB A man under a woman",
        f"{REASON} (1)",
        "a <fast> one",
        "1.23 M",
        "25 %",
    ):
        assert wanted in text
    for wanted in ("ss.model.SomeModel", "note: <&>", "2.13.0", "1 of these 3 voices was trained on", "2.0 min", "1 epoch"):
        assert wanted in text


def test_the_page_embeds_the_recordings_as_they_are(inputs: dict[str, Path]) -> None:
    assert make_page(inputs).returncode == 0
    reader = Reader()
    reader.feed(inputs["out"].read_text())
    sounds = [link.split(",")[1] for link in reader.links if link.startswith("data:audio/flac;base64,")]
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[2])), dtype="float32")
    assert rate == 16000
    np.testing.assert_array_equal(wave, audio.read(inputs["pred"] / "a_1-pred.wav", 16000))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("run/log.jsonl", "log.jsonl: expected a file, but there is none"),
        ("test/utterances.csv", "utterances.csv: expected a file, but there is none"),
        ("pred/c_3-pred.wav", "expected c_3-pred.wav (or"),
        ("measurement.json", "measurement.json: expected a file, but there is none"),
    ],
)
def test_a_missing_input_is_named(inputs: dict[str, Path], missing: str, message: str) -> None:
    (inputs["measurement"].parent / missing).unlink()
    made = make_page(inputs)
    assert made.returncode == 1
    assert message in made.stderr
    assert "Traceback" not in made.stderr
    assert not inputs["out"].exists()
