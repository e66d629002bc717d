"""Silent and clean targets end to end, by the real commands: mixing, training with the loss that knows of them, testing."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import run, training
from test_mixing import build

from ss.data import manifest
from ss.data.augment import SCENES


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of triplets of every scene."""
    folder = tmp_path_factory.mktemp("absence")
    corpus, shares = build(folder / "corpus"), ["absent_share=0.3", "partly_absent_share=0.2", "clean_share=0.3"]
    length = ["nfiles=16", "audio_len=1", "ref_max_len=0.6", "num_workers=2"]
    run("mixing/mix.py", "-cn", "train", f"audios_dir={corpus}", "parts=part", f"out_folder={folder}/mixtures", *shares, *length)
    return folder / "mixtures"


def scenes(folder: Path) -> dict[str, str]:
    kinds = {"alone": "clean", "silent_start": "partly_absent", "silent_middle": "partly_absent", "silent_end": "partly_absent"}
    return {row.name: kinds.get(row.pattern, row.pattern) for row in manifest.read(folder / manifest.FILE)}


def test_a_test_reports_silence_and_clean_speech(mixtures: Path, trained: Path, tmp_path: Path) -> None:
    counts = Counter(scenes(mixtures).values())
    assert set(counts) == set(SCENES)
    common = ["-cn", "spexplusshort_gru", f"run_dir={trained}"]
    done = run("testing/short_causal_test.py", *common, f"folder={mixtures}", f"out_folder={tmp_path}", "batch_size=3")
    metrics = json.loads((tmp_path / "summary.json").read_text())["metrics"]
    silent, speaks, mixed = {"the target is silent": counts["absent"]}, counts.total() - counts["absent"], "the mixture is not"
    assert metrics["absent-dB"]["count"] == counts["absent"]
    assert metrics["absent-dB"]["reasons"] == {"the target speaks": speaks}
    assert metrics["STOI-drop"]["count"] == counts["clean"]
    assert metrics["STOI-drop"]["reasons"] == {f"{mixed} the clean target": counts.total() - counts["clean"]}
    assert metrics["SI-SDR"]["reasons"] == silent
    assert metrics["SI-SDRi"]["count"] == counts["full"] + counts["partly_absent"]
    with (tmp_path / "utterances.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for name, scene in scenes(mixtures).items():
        assert bool(rows[name]["absent-dB"]) == (scene == "absent")
        assert bool(rows[name]["STOI-drop"]) == (scene == "clean")
    values = [float(row["absent-dB"]) for row in rows.values() if row["absent-dB"]]
    assert metrics["absent-dB"]["median"] == pytest.approx(np.median(values))
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    assert lines["metric"] == ["metric", "mean", "median", "count", "missing"]
    assert lines["absent-dB"][1:3] == [f"{metrics['absent-dB'][key]:.3f}" for key in ("mean", "median")]
    assert "STOI-drop" in lines


def test_without_such_mixtures_the_table_has_no_lines_for_them(trained: Path, triplets: Path, tmp_path: Path) -> None:
    common = ["-cn", "spexplusshort_gru", f"run_dir={trained}", f"folder={triplets}/test", f"out_folder={tmp_path}"]
    done = run("testing/short_causal_test.py", *common)
    assert "SI-SDRi" in done.stdout
    assert "absent-dB" not in done.stdout
    assert "STOI-drop" not in done.stdout
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"]["absent-dB"]["missing"] == 3


def test_training_reports_the_level_where_the_target_is_inactive(mixtures: Path, tmp_path: Path) -> None:
    more = ["loss=presence", "writer=none", "+data.train.remix=0.5", "+data.train.gain_db=[-6,6]"]
    folders = [f"data.train.folder={mixtures}", f"data.valid.folder={mixtures}"]
    run("training/short_causal_train.py", "-cn", "spexplusshort_gru", *training(mixtures, tmp_path), *folders, *more)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"loss", "si_sdr", "accuracy", "inactive_db"} == set(rows[-1]["train"]) == set(rows[-1]["valid"])
    assert all(np.isfinite(list(rows[-1][part].values())).all() for part in ("train", "valid"))


def test_mixtures_of_every_scene_are_whole(mixtures: Path) -> None:
    for name, scene in scenes(mixtures).items():
        mixture, target = (soundfile.read(mixtures / f"{name}-{kind}.wav", dtype="int16")[0] for kind in ("mixed", "target"))
        assert mixture.any()
        assert target.any() == (scene != "absent")
        assert np.array_equal(mixture, target) == (scene == "clean")
        assert (np.mean(target == 0) > 0.29) == (scene in ("absent", "partly_absent"))
