"""Training through the real commands: what a run leaves, resuming, stopping, several processes, and what is refused."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RATE, ROOT, command, composed, lively, make_triplets, run, run_command, training

from ss import audio, checkpoint
from ss.checkpoint import load_extractor
from ss.compression.distillation import DistillingTrainer
from ss.datasets import Batch, make_filenames
from ss.extraction import cut, match_level, separate
from ss.files import sole_owner
from ss.loss import masked_si_sdr
from ss.utils.predecessor import read_checkpoint

SCRIPT = ("training/short_causal_train.py", "-cn", "spexplusshort_gru")
TIMES = ("seconds", "waited")


def log(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of a log without the times in them."""
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def same(a: Any, b: Any) -> bool:
    """Whether two trees of tensors and plain values are the same, bit for bit; times are left out."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key not in TIMES)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, optimizer, scheduler, counters, random state, history and log of two finished runs are the same."""
    first, second = read_checkpoint(a / "last.pth"), read_checkpoint(b / "last.pth")
    assert same(first["model"], second["model"])
    assert same(first["trainer"], second["trainer"])
    assert log(a) == log(b)


@pytest.fixture(scope="module")
def long_training(triplets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Overrides of a run of 3 epochs of 8 steps that saves at every step, and the folder of such a run done in one go.

    All in processes of their own: beside what other tests left in this one, some CPUs round a gradient's last bit otherwise.
    """
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    more = [
        "trainer.epochs=3",
        "trainer.average=0.9",
        "trainer.batch_size=1",
        "trainer.accumulate=1",
        "trainer.save_minutes=0",
        "writer=none",
    ]
    run_command(*SCRIPT, *training(triplets, run_dir), *more)
    return more, run_dir


def interrupted(overrides: list[str], run_dir: Path, number: signal.Signals) -> subprocess.Popen[str]:
    """Starts a training and sends it a signal in the middle of its second epoch."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(*SCRIPT, *overrides), cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not ((run_dir / "log.jsonl").exists() and any(row["step"] >= 10 for row in log_so_far(run_dir))):
        assert process.poll() is None, "the training ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    process.wait(timeout=60)
    return process


def log_so_far(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of a log that is being written: its last line may not be whole."""
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_killed_and_started_again_is_the_same_run(long_training: tuple[list[str], Path], triplets: Path, tmp_path: Path) -> None:
    more, whole = long_training
    overrides = [*training(triplets, tmp_path / "run"), *more]
    interrupted(overrides, tmp_path / "run", signal.SIGKILL)
    progress = read_checkpoint(tmp_path / "run" / "last.pth")["trainer"]["progress"]
    assert progress["epoch"] == 2
    assert 0 < progress["examples"] < 8
    assert "resuming" in run_command(*SCRIPT, *overrides).stdout
    assert_same_run(whole, tmp_path / "run")


def test_ctrl_c_stops_cleanly_and_goes_on(long_training: tuple[list[str], Path], triplets: Path, tmp_path: Path) -> None:
    more, whole = long_training
    overrides = [*training(triplets, tmp_path / "run"), *more]
    process = interrupted(overrides, tmp_path / "run", signal.SIGINT)
    assert process.returncode == 0
    assert process.stdout is not None
    assert "stopped; the same command goes on" in process.stdout.read()
    run_command(*SCRIPT, *overrides)
    assert_same_run(whole, tmp_path / "run")


def test_a_time_budget_stops_and_goes_on(long_training: tuple[list[str], Path], triplets: Path, tmp_path: Path) -> None:
    more, whole = long_training
    overrides = [*training(triplets, tmp_path / "run"), *more]
    done = run_command(*SCRIPT, *overrides, "trainer.max_minutes=0.002")
    assert "stopped; the same command goes on" in done.stdout
    assert log(tmp_path / "run")[-1]["kind"] == "stop"
    assert load_extractor(tmp_path / "run" / "best.pth")
    run_command(*SCRIPT, *overrides)
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_resumes_with_other_processes_and_batches_where_it_stopped(triplets: Path, tmp_path: Path) -> None:
    overrides = [*training(triplets, tmp_path / "run"), "writer=none", "trainer.accumulate=1"]
    for processes, size, heard in ((2, 1, 2), (1, 2, 4)):
        run_command(
            *SCRIPT, *overrides, "trainer.max_minutes=0", f"n_processes={processes}", f"trainer.batch_size={size}"
        )  # one step
        progress = read_checkpoint(tmp_path / "run" / "last.pth")["trainer"]["progress"]
        assert (progress["epoch"], progress["examples"]) == (1, heard)
        assert progress["meter"]["counts"][0] == heard  # of both processes
    done = run_command(*SCRIPT, *overrides, "n_processes=2", "trainer.batch_size=2")
    assert "finished: epoch 1" in done.stdout
    rows = log(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["step", "step", "step", "epoch"]
    steps = [row["loss"] for row in rows if row["kind"] == "step"]
    mean = (2 * steps[0] + 2 * steps[1] + 4 * steps[2]) / 8
    assert rows[-1]["train"]["loss"] == pytest.approx(mean, rel=1e-5)


def test_another_number_of_examples_to_a_step_does_not_fit_a_schedule_of_steps(triplets: Path, tmp_path: Path) -> None:
    overrides = [*training(triplets, tmp_path / "run"), "scheduler=onecycle", "trainer.step_scheduler=true", "writer=none"]
    run(*SCRIPT, *overrides, "trainer.max_minutes=0")
    refused = run(*SCRIPT, *overrides, "trainer.batch_size=4", check=False)
    assert refused.returncode == 2
    assert "expected a product of 4 examples to a step" in refused.stderr
    assert "finished" in run(*SCRIPT, *overrides, "trainer.batch_size=4", "trainer.accumulate=1").stdout


def test_two_runs_in_one_folder_are_refused(triplets: Path, tmp_path: Path) -> None:
    with sole_owner(tmp_path / "run"):
        refused = run_command(*SCRIPT, *training(triplets, tmp_path / "run"), check=False)
    assert refused.returncode == 2
    assert f"expected no other run in this folder, found process {os.getpid()} on " in refused.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    with sole_owner(tmp_path / "run"):
        pass  # it is free again


def test_more_epochs_than_the_learning_rate_was_scheduled_for(triplets: Path, tmp_path: Path) -> None:
    tiny = [*training(triplets, tmp_path / "run"), "scheduler=onecycle", "scheduler.pct_start=0.5", "trainer.step_scheduler=true"]
    done = run(*SCRIPT, *tiny)  # two steps, of which the rate rises for one: torch alone would divide by zero
    assert "finished: epoch 1" in done.stdout
    more = run(*SCRIPT, *tiny, "trainer.epochs=2", check=False)
    assert more.returncode == 2
    assert "trainer.epochs: expected at most the 2 steps" in more.stderr


def test_speakers_of_a_run_that_never_began_are_not_kept(triplets: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "speakers.txt").write_text("somebody\nelse\n")
    run(*SCRIPT, *training(triplets, tmp_path / "run"))
    assert (tmp_path / "run" / "speakers.txt").read_text().split() == ["s0", "s1", "s2", "s3"]


def test_what_a_run_leaves(trained: Path) -> None:
    assert {"best.pth", "last.pth", "config.yaml", "versions.json", "log.jsonl", "speakers.txt"} <= {
        p.name for p in trained.iterdir()
    }
    assert list((trained / "tensorboard").glob("events*"))
    assert (trained / "speakers.txt").read_text().split() == ["s0", "s1", "s2", "s3"]
    assert "???" not in (trained / "config.yaml").read_text()
    assert {"ss", "torch", "python"} <= set(json.loads((trained / "versions.json").read_text()))
    rows = log(trained)
    assert [row["kind"] for row in rows] == ["step", "step", "epoch"]
    assert {"loss", "si_sdr", "accuracy", "grad_norm", "lr"} <= set(rows[0])
    assert {"loss", "si_sdr", "accuracy"} == set(rows[-1]["train"]) == set(rows[-1]["valid"])
    assert read_checkpoint(trained / "best.pth")["row"]["valid"] == rows[-1]["valid"]


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_a_double_batch(triplets: Path, tmp_path: Path) -> None:
    more = [
        "optimizer._target_=torch.optim.SGD",
        "optimizer.lr=0.01",
        "trainer.accumulate=1",
        "writer=none",
        "trainer.clip_grad_norm=null",
        "trainer.precision=fp32",  # bfloat16 would round the sums of both in other places
    ]
    for name, processes, size in (("one", 1, 4), ("two", 2, 2)):
        run_command(*SCRIPT, *training(triplets, tmp_path / name), *more, f"n_processes={processes}", f"trainer.batch_size={size}")
    one, two = (read_checkpoint(tmp_path / name / "last.pth")["model"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5, msg=key)
    for a, b in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        if a["kind"] == "step":
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        else:
            assert a["valid"]["si_sdr"] == pytest.approx(b["valid"]["si_sdr"], rel=1e-4)


def test_a_teacher_hears_no_padding_and_has_its_part_of_the_first_scale(triplets: Path, tmp_path: Path) -> None:
    words = [*training(triplets, tmp_path), "streamer.chunk_window=800", "streamer.chunk_step=400", "trainer.precision=fp32"]
    config = composed("training", "spexplus_causal", *words)
    checkpoint.save(tmp_path / "teacher.pth", {"model": lively(checkpoint.build(config["model"])).state_dict(), "config": config})
    speakers = make_filenames(triplets / "train", tmp_path / "speakers.txt")
    taught = DistillingTrainer({**config, "distil": {"teacher": str(tmp_path / "teacher.pth"), "weight": 0.5}}, speakers)
    model, batch = taught.model.eval(), next(iter(taught.train_loader))
    batch = batch._replace(lengths=batch.lengths // torch.tensor([1, 3]))
    batch = batch._replace(mixture=cut(batch.mixture, batch.lengths), target=cut(batch.target, batch.lengths))
    alone = []
    for i, n in enumerate(batch.lengths):
        one = Batch(batch.names[i : i + 1], *(x[i : i + 1] for x in batch[1:]))
        alone.append(one._replace(mixture=one.mixture[:, :n], target=one.target[:, :n]))
    together, *apart = (taught.forward(model, each)[0].total for each in (batch, *alone))
    torch.testing.assert_close(together, torch.stack(apart).mean())
    taught.loss.weights, taught.loss.gamma = (0.8, 0.0, 0.0), 0.0
    (_, mixture, target, lengths, ref, ref_lengths, _), (loss, waves) = alone[0], taught.forward(model, alone[0])
    with torch.no_grad():
        said = match_level(separate(taught.teacher, taught.streamer, mixture, ref, ref_lengths).waves[0], mixture, lengths)
    from_teacher, from_target = (-masked_si_sdr(waves, wave, lengths).mean() for wave in (said, target))
    torch.testing.assert_close(loss.total, 0.8 * (from_teacher + from_target) / 2)


@pytest.mark.slow
def test_joins_under_torchrun(triplets: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = command(*SCRIPT, *training(triplets, tmp_path / "run"), "trainer.accumulate=1", "writer=none")[1:]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout
    assert [row["kind"] for row in log(tmp_path / "run")] == ["step", "step", "epoch"]


def test_a_loss_that_is_not_finite_stops_the_run(triplets: Path, tmp_path: Path) -> None:
    more = [
        "optimizer._target_=torch.optim.SGD",
        "optimizer.lr=1e30",
        "trainer.clip_grad_norm=null",
        "trainer.epochs=9",
        "writer=none",
    ]
    done = run(*SCRIPT, *training(triplets, tmp_path / "run"), *more, check=False)
    assert done.returncode == 2
    assert "error: stopped: " in done.stderr
    assert " is nan at epoch 1, step 1" in done.stderr or " is inf at epoch 1, step 1" in done.stderr
    assert "examples: s" in done.stderr


def test_bf16_and_saving_every_epoch(triplets: Path, tmp_path: Path) -> None:
    more = [
        "trainer.precision=bf16",
        "trainer.save_period=1",
        "scheduler=onecycle",
        "trainer.step_scheduler=true",
        "trainer.epochs=2",
    ]
    run(*SCRIPT, *training(triplets, tmp_path / "run"), *more, "writer=none", "trainer.activation_checkpointing=false")
    assert (tmp_path / "run" / "epoch-1.pth").exists()
    assert (tmp_path / "run" / "epoch-2.pth").exists()
    rates = [row["lr"] for row in log(tmp_path / "run") if row["kind"] == "step"]
    assert len(set(rates)) > 1


def test_begins_from_another_checkpoint(trained: Path, triplets: Path, tmp_path: Path) -> None:
    more = [f"init_from={trained}/best.pth", "optimizer.lr=0", "writer=none"]
    run(*SCRIPT, *training(triplets, tmp_path / "run"), *more)
    before, after = load_extractor(trained / "best.pth"), load_extractor(tmp_path / "run" / "best.pth")
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new), name
    first, second = (row for folder in (trained, tmp_path / "run") for row in log(folder)[-1:])
    heard = read_checkpoint(trained / "best.pth")["hours"]
    assert heard > 0
    assert second["hours"] == pytest.approx(heard + first["hours"] / first["epoch"] * second["epoch"], abs=2e-3)


def test_a_learning_curve_grows(trained: Path, triplets: Path, tmp_path: Path) -> None:
    table, picture = tmp_path / "curve.csv", tmp_path / "curve.png"
    where = [f"checkpoint={trained}/best.pth", f"folders=[{triplets}/dev]", f"table={table}", f"picture={picture}"]
    run("training/learning_curve.py", "-cn", "learning_curve", *where)
    run("training/learning_curve.py", "-cn", "learning_curve", *where, "hours=0.5", "name=later")
    run("training/learning_curve.py", "-cn", "learning_curve", *where)  # again: its row is replaced
    rows = list(csv.DictReader(table.open()))
    assert [row["checkpoint"] for row in rows] == ["best", "later"]
    assert rows[0]["dev"] == rows[1]["dev"]
    assert picture.stat().st_size > 1000
    run("training/learning_curve.py", "-cn", "learning_curve", *where, "hours=1")  # the same file, trained on: one more point
    assert [row["checkpoint"] for row in csv.DictReader(table.open())] == ["best", "later", "best"]
    with table.open("a") as file:
        file.write("yesterday\n")
    done = run("training/learning_curve.py", "-cn", "learning_curve", *where, check=False)
    assert f"{table}, line 5: expected a number of hours, found 'yesterday'" in done.stderr


def test_folders_that_a_learning_curve_cannot_show(trained: Path, triplets: Path, tmp_path: Path) -> None:
    where = [f"checkpoint={trained}/best.pth", f"table={tmp_path}/curve.csv", "picture=null"]
    same, absent = f"folders=[{triplets}/dev,{tmp_path}/dev]", tmp_path / "absent"
    done = run("training/learning_curve.py", "-cn", "learning_curve", *where, same, check=False)
    assert f"folders: expected different names, found {triplets}/dev and {tmp_path}/dev" in done.stderr
    shutil.copytree(triplets / "dev", absent)
    for path in absent.glob("*-target.wav"):
        audio.write(path, 0 * audio.read(path, RATE), RATE)
    done = run("training/learning_curve.py", "-cn", "learning_curve", *where, f"folders=[{absent}]", check=False)
    assert f"{absent}: expected mixtures with an SI-SDRi, found none" in done.stderr


def test_the_mean_of_the_weights_is_what_is_kept(triplets: Path, tmp_path: Path) -> None:
    more = [
        "optimizer._target_=torch.optim.SGD",
        "optimizer.lr=0.01",
        "trainer.accumulate=1",
        "trainer.batch_size=8",
        "writer=none",
        "trainer.save_period=1",
    ]
    for name, epochs in (("one", 1), ("two", 2), ("mean", 2)):  # an epoch is one step here
        average = ["trainer.average=0.75"] if name == "mean" else []
        run(*SCRIPT, *training(triplets, tmp_path / name), *more, *average, f"trainer.epochs={epochs}")
    key = "decoder.scales.0.weight"
    one, two = (read_checkpoint(tmp_path / name / "last.pth")["model"][key] for name in ("one", "two"))
    mean = read_checkpoint(tmp_path / "mean" / "epoch-2.pth")["model"][key]
    assert not torch.equal(one, two)
    torch.testing.assert_close(mean, one / 11 + two * 10 / 11)  # the first steps count for little
    assert torch.equal(read_checkpoint(tmp_path / "mean" / "last.pth")["model"][key], two)


def test_wandb_offline_without_a_log_in(triplets: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    run_command(*SCRIPT, *training(triplets, tmp_path / "run"), "writer=wandb", WANDB_API_KEY="", HOME=str(tmp_path))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=0.5", "holds a run of another config (optimizer.lr: 0.0003 then, 0.5 now)"),
        ("data.train.folder=nowhere", "data.train.folder:"),
    ],
)
def test_another_config_in_the_same_folder_is_refused(trained: Path, triplets: Path, override: str, message: str) -> None:
    done = run(*SCRIPT, *training(triplets, trained), override, check=False)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_speakers=3", "expected at most 3 speakers"),
        ("streamer=whole", "this training is over segments"),
        ("trainer.precision=fp8", "precision: expected one of auto, fp32, bf16, fp16"),
        ("trainer.monitor=max", "monitor: expected 'min' or 'max' and a name"),
        ("trainer.monitor=max valid.sisdr", "monitor: expected 'min' or 'max' and a name (one of train.loss, "),
        ("scheduler.mode=min", "scheduler.mode is min, but the monitor is 'max valid.si_sdr'"),
        ("loss=spexplus", "this loss is for a model of 3 scales, but the model gave 1"),
        ("trainer.batch_size=9", "expected at least 9 training examples"),
        ("+trainer.epoch=9", "unknown key epoch: expected some of epochs, "),
        ("trainer.log_every=0", "log_every: expected more than 0, got 0"),
        ("trainer.early_stop=0", "early_stop: expected more than 0, got 0"),
        ("trainer.clip_grad_norm=0", "clip_grad_norm: expected more than 0, got 0"),
        ("trainer.max_minutes=soon", "max_minutes: expected float or null, found 'soon'"),
    ],
)
def test_clear_errors(triplets: Path, tmp_path: Path, override: str, message: str) -> None:
    done = run(*SCRIPT, *training(triplets, tmp_path / "run"), override, "writer=none", check=False)
    assert done.returncode == 2, done.stderr
    assert f"error: {message}" in done.stderr or message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_monitor_that_no_example_has_is_refused_after_an_epoch(triplets: Path, tmp_path: Path) -> None:
    words = [*training(triplets, tmp_path / "run"), "writer=none", f"data.valid.folder={tmp_path}/dev", "trainer.epochs=2"]
    make_triplets(tmp_path / "dev", ["s8_a", "s9_b"])  # of others than in training
    done = run(*SCRIPT, *words, "trainer.monitor=max valid.accuracy", check=False)
    assert done.returncode == 2
    assert "error: monitor: expected validation examples with a value of accuracy, found none" in done.stderr
    assert "finished: epoch 2" in run(*SCRIPT, *words).stdout  # with another monitor nothing was lost
    assert [row["epoch"] for row in log(tmp_path / "run") if row["kind"] == "epoch"] == [1, 2]


def test_the_speed_of_a_training_and_its_shares(triplets: Path, tmp_path: Path) -> None:
    overrides = ",".join(f"'{override}'" for override in training(triplets, tmp_path / "run") if not override.startswith("run_dir"))
    times = ["rounds=1", "seconds=0.5", "warm_up=0.1", "+variants.single.overrides=['trainer.batch_size=1']"]
    words = ["training=spexplusshort_gru", f"overrides=[{overrides}]", *times, f"out_folder={tmp_path}"]
    done = run("measure_weight_and_time/training_speed.py", "-cn", "training_speed", *words)
    this, single = json.loads((tmp_path / "training_speed.json").read_text())["rows"]
    assert (this["variant"], this["batch_size"], single["variant"], single["batch_size"]) == ("this", 2, "single", 1)
    for row in (this, single):
        assert sum(row[key] for key in ("forward_backward", "optimizer", "data", "rest")) == pytest.approx(1)
        assert all(row[key] > 0 for key in ("forward_backward", "optimizer", "data", "heard_per_second", "alone_per_cpu_second"))
        assert row["example_seconds"] == 0.5
    assert "2 x 0.5 s" in done.stdout
