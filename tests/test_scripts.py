"""Every training, testing and inferencing command, end to end, alone and with two processes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import RATE, Done, make_triplets, run, run_command, training

from ss import audio
from ss.inferencer import ShortCausalInferencer
from ss.metric import SISDR

OFFLINE = ("spexplus", "train", "test", "inference", ["model.middle_kernel=80", "model.long_kernel=160"])
CAUSAL = (
    "spexplus_causal",
    "causal_train",
    "causal_test",
    "causal_inference",
    ["model.middle_kernel=80", "model.long_kernel=160"],
)
SHORT = ("spexplusshort_gru", "short_causal_train", "short_causal_test", "short_causal_inference", ["model.memory_size=8"])
ONLINE = ("spexplus_online", "train", "test", "inference", ["model.kernels=[160,240]", "trainer.precision=bf16"])

FOLDERS = ("training", "testing", "inferencing", "mixing", "measure_weight_and_time", "pruning_and_quantization")
TWO_PROCESSES = pytest.param(2, marks=pytest.mark.slow)


def runner(processes: int) -> Callable[..., Done]:
    """How to run a script with so many processes: `run` does not see what others than this one print."""
    return run if processes == 1 else run_command


def scores(folder: Path, column: str = "SI-SDR") -> dict[str, float]:
    with (folder / "utterances.csv").open() as file:
        return {row["name"]: float(row[column]) for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("name", "train", "test", "infer", "more"), [OFFLINE, CAUSAL, SHORT, ONLINE], ids=lambda value: str(value)[:12]
)
@pytest.mark.parametrize("processes", [1, TWO_PROCESSES])
def test_train_test_infer(
    triplets: Path, tmp_path: Path, name: str, train: str, test: str, infer: str, more: list[str], processes: int
) -> None:
    common = ["-cn", name, f"run_dir={tmp_path}/run", f"n_processes={processes}"]
    run = runner(processes)
    run(f"training/{train}.py", *common, *training(triplets, tmp_path / "run"), *more, "writer=none")
    tested = run(f"testing/{test}.py", *common, f"folder={triplets}/test").stdout
    run(f"inferencing/{infer}.py", *common, f"folder={triplets}/test")

    assert "SI-SDRi" in tested
    summary = json.loads((tmp_path / "run" / "test" / "summary.json").read_text())
    assert summary["utterances"] == 3
    assert summary["metrics"]["SI-SDR"]["count"] == 3
    assert summary["metrics"]["ACC"]["count"] == 2  # s9 is not a training speaker
    assert summary["metrics"]["ACC"]["reasons"] == {"the speaker is not one of the training set": 1}
    for utterance, si_sdr in scores(tmp_path / "run" / "test").items():
        estimate, rate = soundfile.read(tmp_path / "run" / "predictions" / f"{utterance}-pred.wav", dtype="float32")
        target, _ = soundfile.read(triplets / "test" / f"{utterance}-target.wav", dtype="float32")
        assert rate == RATE
        assert estimate.shape == target.shape
        assert SISDR()(torch.from_numpy(estimate)[None], torch.from_numpy(target)[None]).item() == pytest.approx(si_sdr, abs=1e-6)


@pytest.mark.parametrize(
    ("processes", "overrides"), [(1, ["batch_size=4", "num_workers=1"]), pytest.param(2, ["batch_size=2"], marks=pytest.mark.slow)]
)
def test_the_result_does_not_depend_on_batches_or_processes(
    trained: Path, tmp_path: Path, processes: int, overrides: list[str]
) -> None:
    folder = make_triplets(tmp_path / "data", [f"s{i % 3}_{i}" for i in range(7)], seconds=0.5)
    found = []
    for name, n, more in (("a", 1, []), ("b", processes, overrides)):
        common = [
            "-cn",
            "spexplusshort_gru",
            f"run_dir={trained}",
            f"folder={folder}",
            f"out_folder={tmp_path}/{name}",
            "metrics=fast",
        ]
        runner(n)("testing/short_causal_test.py", *common, f"n_processes={n}", *more)
        found.append(scores(tmp_path / name))
    first, other = found
    assert other.keys() == first.keys()
    assert list(other.values()) == pytest.approx(list(first.values()), abs=1e-3)


def test_two_plain_files_and_another_streamer(trained: Path, triplets: Path, tmp_path: Path) -> None:
    shutil.copy(triplets / "test" / "s0_a-mixed.wav", tmp_path / "meeting.wav")
    files = [f"mixture={tmp_path}/meeting.wav", f"enrolment={triplets}/test/s0_a-ref.wav", f"out_folder={tmp_path}/out"]
    common = ["-cn", "spexplusshort_gru", f"run_dir={trained}"]
    run("inferencing/short_causal_inference.py", *common, *files)
    half, _ = soundfile.read(tmp_path / "out" / "meeting-pred.wav")
    run("inferencing/short_causal_inference.py", *common, *files, "+streamer=nonintersec")
    other, _ = soundfile.read(tmp_path / "out" / "meeting-pred.wav")
    assert half.shape == other.shape
    assert not np.allclose(half, other)


def test_any_rate_and_number_of_channels(trained: Path, triplets: Path, tmp_path: Path) -> None:
    names = ["s0_a-mixed", "s0_a-ref"]
    for name in names:
        wave = soxr.resample(audio.read(triplets / "test" / f"{name}.wav", RATE), RATE, 44100)
        soundfile.write(tmp_path / f"{name}.wav", np.stack([wave, wave], 1), 44100)
    words = ["-cn", "spexplusshort_gru", f"checkpoint={trained}/best.pth", f"out_folder={tmp_path}/out"]
    run(
        "inferencing/short_causal_inference.py",
        *words,
        f"mixture={tmp_path}/{names[0]}.wav",
        f"enrolment={tmp_path}/{names[1]}.wav",
    )
    assert soundfile.info(tmp_path / "out" / "s0_a-pred.wav").samplerate == RATE


@pytest.mark.parametrize("processes", [1, TWO_PROCESSES])
def test_a_bad_file_is_reported_and_the_rest_goes_on(trained: Path, triplets: Path, tmp_path: Path, processes: int) -> None:
    folder = tmp_path / "data"
    shutil.copytree(triplets / "test", folder)
    (folder / "s0_a-ref.wav").unlink()
    soundfile.write(folder / "s1_b-ref.wav", np.zeros(100), RATE)
    common = ["-cn", "spexplusshort_gru", f"run_dir={trained}", f"folder={folder}", f"out_folder={tmp_path}/out"]
    done = runner(processes)("inferencing/short_causal_inference.py", *common, f"n_processes={processes}", check=False)
    assert done.returncode == 1
    assert "s0_a-ref.*: expected beside" in done.stderr
    assert "s1_b-ref.wav: an enrolment of 100 samples is too short" in done.stderr
    assert "1 of 3 mixtures extracted" in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["s9_c-pred.wav"]


def test_arrays_of_any_kind_are_extracted_alike(trained: Path) -> None:
    rng, extract = np.random.default_rng(0), ShortCausalInferencer(trained / "best.pth").extract
    mixture, ref = (0.1 * rng.standard_normal((2, 20000))).astype(np.float32)
    pcm = np.rint(mixture * 32768).astype(np.int16)
    expected = extract((pcm / 32768).astype(np.float32), ref)
    for same in (pcm, pcm / 32768, np.stack([pcm, pcm], 1), pcm[::-1][::-1]):
        np.testing.assert_allclose(extract(same, ref), expected, atol=1e-6)
    with pytest.raises(ValueError, match="expected samples of int16, float32 or float64, got int64"):
        extract(pcm.astype(np.int64), ref)


def test_an_estimate_that_is_not_finite_is_not_written(trained: Path, triplets: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "best.pth", weights_only=True)
    broken = {name: value * float("nan") if value.is_floating_point() else value for name, value in content["model"].items()}
    torch.save({**content, "model": broken}, tmp_path / "nan.pth")
    words = ["-cn", "spexplusshort_gru", f"checkpoint={tmp_path}/nan.pth", f"folder={triplets}/test", f"out_folder={tmp_path}/out"]
    done = run("inferencing/short_causal_inference.py", *words, check=False)
    assert done.returncode == 1
    assert "s9_c-ref.wav: expected a finite estimate, found NaN or infinite samples" in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_predecessor_checkpoint_can_be_used(triplets: Path, tmp_path: Path) -> None:
    checkpoint = Path(__file__).parent / "assets" / "golden" / "predecessor_checkpoint.pth"
    common = ["-cn", "spexplusshort_gru", f"checkpoint={checkpoint}", f"folder={triplets}/test", f"out_folder={tmp_path}"]
    refused = run("inferencing/short_causal_inference.py", *common, check=False)
    assert refused.returncode == 2
    assert "does not say how it cuts utterances: give a streamer" in refused.stderr
    run("inferencing/short_causal_inference.py", *common, "+streamer=half")
    assert len(list(tmp_path.glob("*-pred.wav"))) == 3


@pytest.mark.parametrize("processes", [1, TWO_PROCESSES])
def test_a_users_error_has_its_exit_code_with_any_number_of_processes(trained: Path, processes: int) -> None:
    common = ["-cn", "spexplusshort_gru", f"run_dir={trained}", "folder=nowhere", f"n_processes={processes}"]
    done = runner(processes)("testing/short_causal_test.py", *common, check=False)
    assert done.returncode == 2
    assert "error: nowhere: expected a folder of triplets, but there is none" in done.stderr


def test_one_of_two_files_is_refused(trained: Path) -> None:
    done = run(
        "inferencing/short_causal_inference.py", "-cn", "spexplusshort_gru", f"run_dir={trained}", "mixture=a.wav", check=False
    )
    assert done.returncode == 2
    assert "expected both mixture=<file> and enrolment=<file>" in done.stderr


@pytest.mark.parametrize(
    "script",
    sorted(
        path.relative_to(Path(__file__).parents[1]).as_posix()
        for folder in FOLDERS
        for path in (Path(__file__).parents[1] / folder).glob("*.py")
    ),
)
@pytest.mark.slow
def test_help(script: str) -> None:
    assert "Powered by Hydra" in run_command(script, "--help").stdout
