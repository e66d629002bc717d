"""A user's error reaches the user as one line, also out of a loader's worker."""

from functools import partial
from pathlib import Path

import pytest
from conftest import make_triplets, run
from omegaconf import OmegaConf

from ss.config import clear_errors, plain
from ss.datasets import EvaluationBatches, Triplets, loader
from ss.errors import UserError
from ss.trainer.settings import Settings


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_loader_is_one_line(num_workers: int, tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "train", ["s0_a", "s1_b"])
    (folder / "s1_b-ref.wav").write_bytes(b"no audio")
    batches = loader(Triplets(folder), EvaluationBatches([0, 0], 1), num_workers)
    with pytest.raises(UserError, match="s1_b-ref.wav: expected a readable audio file") as caught:
        list(batches)
    assert "\n" not in str(caught.value)


def test_only_a_users_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, clear_errors():
        raise UserError("a.wav: expected one channel, found 2")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a.wav: expected one channel, found 2\n"
    with pytest.raises(ValueError, match="too many values"), clear_errors():
        raise ValueError("too many values to unpack")


def write(path: Path) -> None:
    with path.open("w") as file:
        file.write("x")


def test_a_missing_value_a_missing_file_and_a_full_disk_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for action, message in (
        (lambda: plain(OmegaConf.create({"a": {"b": "???"}})), "error: a.b: Missing mandatory value: b\n"),
        (Path("nowhere").read_text, "error: nowhere: there is no such file\n"),
        (Path(__file__, "run").mkdir, f"error: {__file__}/run: Not a directory\n"),
        (partial(write, Path("/dev/full")), "error: No space left on device\n"),
    ):
        with pytest.raises(SystemExit), clear_errors():
            action()
        assert capsys.readouterr().err == message


def test_ctrl_c_is_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, clear_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("training/train.py", ["-cn", "spexplus", "data.valid.folder=nowhere"], "nowhere: expected a folder of triplets"),
        ("testing/make_test_sets.py", ["only=[nothing]", "corpus=nowhere", "out_folder=nowhere"], "only: expected some of"),
        ("inferencing/export.py", ["checkpoint=nowhere.pth"], "nowhere.pth: expected a checkpoint"),
        ("mixing/pack.py", ["folder=nowhere", "out_folder=nowhere"], "nowhere: expected audio files"),
        ("mixing/pack.py", ["folder=nowhere", "out_folder=nowhere", "seed=-1"], "seed: expected at least 0, found -1"),
        ("training/train.py", ["-cn", "spexplus", "seed=-1"], "seed: expected at least 0, found -1"),
        ("training/train.py", ["-cn", "spexplus", "seed=null"], "seed: expected at least 0, found None"),
        ("training/train.py", ["-cn", "spexplus", "n_processes=0"], "n_processes: expected more than 0, found 0"),
        (
            "measure_weight_and_time/measure_weight_and_time.py",
            ["-cn", "spexplus", "checkpoint=no.pth"],
            "no.pth: expected a checkpoint",
        ),
        ("pruning_and_quantization/prune_and_quantize.py", ["-cn", "spexplus", "recipe=nowhere"], "recipe: expected a file"),
        (
            "pruning_and_quantization/compare.py",
            ["-cn", "spexplus", "recipes=[a/x.yaml,b/x.yaml]"],
            "recipes: expected files of di",
        ),
        ("pruning_and_quantization/compare.py", ["-cn", "spexplus", "recipes=nowhere"], "recipe: expected a file"),
        ("testing/leaderboard.py", ["folders=nowhere"], "folders: expected a folder of triplets at nowhere"),
        ("mixing/audit.py", ["folders=nowhere"], "nowhere: expected a folder"),
        (
            "mixing/mix.py",
            ["-cn", "scenes", "scene.codecs=mu", "audios_dir=x", "nfiles=1"],
            "codecs: expected some of mulaw, mp3, vorbis, opus, found mu",
        ),
        ("measure_weight_and_time/family.py", ["models=nowhere", "baseline=nowhere"], "Cannot find primary config 'nowhere'"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".py") else "",
)
def test_a_users_mistake_is_one_line(script: str, words: list[str], message: str, tmp_path: Path) -> None:
    run_dir = [f"run_dir={tmp_path}"] if script.startswith("training") else []
    done = run(script, *words, *run_dir, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("key", ["unknown=1", "checkpoint.unknown=1"])
def test_an_unknown_key_shows_no_traceback(key: str) -> None:
    done = run("inferencing/export.py", key, check=False)
    assert done.returncode == 1
    assert "Could not override" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_the_software_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> None:
        raise ValueError("too many values to unpack")

    monkeypatch.setattr("ss.export.run", fail)
    done = run("inferencing/export.py", check=False)
    assert done.returncode == 1
    assert f"{Path(__file__).name}" in done.stderr
    assert "ValueError: too many values to unpack" in done.stderr


@pytest.mark.parametrize("key", ["batch_size", "accumulate", "num_workers"])
def test_a_number_below_the_least_is_a_users_error(key: str) -> None:
    with pytest.raises(UserError, match=f"{key}: expected (at least|more than) 0, found -1"):
        Settings(**{"epochs": 1, "batch_size": 1, key: -1})
