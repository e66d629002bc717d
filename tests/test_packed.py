"""Shards: what is packed is read as if it were not, wherever it lies, and a training over it is as exact."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from conftest import RATE, ROOT, TINY, make_triplets, run, run_command, training, voice

from ss import audio
from ss.data.catalog import make_catalog
from ss.data.mix import mix
from ss.data.packed import Member, contents, pack, write_shards
from ss.data.plan import plan
from ss.data.render import Renderer
from ss.data.scene_settings import Scene
from ss.data.sources import Sources
from ss.datasets import TrainingBatches, Triplets
from ss.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve triplets of four speakers."""
    return make_triplets(tmp_path_factory.mktemp("plain") / "train", [f"s{i % 4}_{i}" for i in range(12)])


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards of about three triplets."""
    out = tmp_path_factory.mktemp("packed") / "train"
    pack({"folder": folder, "out_folder": out, "megabytes": 0.2, "seed": 0})
    return out


def test_shards_hold_the_same_bytes(folder: Path, packed: Path, tmp_path: Path) -> None:
    shards = sorted(packed.glob("*.tar"))
    assert len(shards) > 3
    for shard in shards:
        with tarfile.open(shard) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                (tmp_path / member.name).write_bytes(file.read())
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names == set(contents(str(packed)))
    for name in names:
        content = (folder / name).read_bytes()
        assert Member(str(packed), name).read_bytes() == content == (tmp_path / name).read_bytes()
    for name in names:  # what belongs together is together
        assert len({contents(str(packed))[f"{name.rpartition('-')[0]}-{kind}.wav"][0] for kind in ("mixed", "target", "ref")}) == 1


def test_the_same_files_give_the_same_shards(folder: Path, packed: Path, tmp_path: Path) -> None:
    pack({"folder": folder, "out_folder": tmp_path / "again", "megabytes": 0.2, "seed": 0})
    for path in packed.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="expected an empty folder"):
        pack({"folder": folder, "out_folder": packed, "megabytes": 1, "seed": 0})


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_triplets_are_the_same(folder: Path, packed: Path, where: str) -> None:
    place = str(packed)
    if where == "memory":
        place = "memory://bucket/train"
        for path in packed.iterdir():
            fsspec.filesystem("memory").pipe(f"/bucket/train/{path.name}", path.read_bytes())
    plain, sharded = Triplets(folder, remix=0.5), Triplets(place, remix=0.5)
    assert plain.lengths() == sharded.lengths()
    for key in [*range(12), *((1, i) for i in range(12))]:
        one, other = plain[key], sharded[key]
        assert one.name == other.name
        assert all((a == b).all() for a, b in zip(one[1:4], other[1:4], strict=True))


def test_a_file_that_is_cut_short_is_named(packed: Path, folder: Path, tmp_path: Path) -> None:
    pack({"folder": folder, "out_folder": tmp_path / "cut", "megabytes": 100, "seed": 0})
    shard = tmp_path / "cut" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:200_000])
    last = max(contents(str(tmp_path / "cut")).items(), key=lambda entry: entry[1][1])[0]
    with pytest.raises(audio.AudioError, match=rf"cut/{last}: expected a readable audio file, but: .*000000.tar: expected \d+ by"):
        audio.read(Member(str(tmp_path / "cut"), last), RATE)


def test_epochs_are_whole_and_shards_come_together(packed: Path) -> None:
    data = Triplets(packed)
    shards = data.shards()
    batches = TrainingBatches(len(data), 2, 0, shards)
    seen = []
    for epoch in (1, 2):
        batches.start(epoch)
        order = [index for batch in batches for _, index in batch]
        assert sorted(order) == list(range(12))
        seen.append(order)
        first = len({shards[index] for index in order[:4]})
        assert first <= 4
    assert seen[0] != seen[1]
    batches.start(1, 6)
    assert [index for batch in batches for _, index in batch] == seen[0][6:]


def write_corpora(folder: Path) -> None:
    """The same three speakers as files below `plain` and as shards below `packed`."""
    rng, names = np.random.default_rng(0), []
    for speaker in range(3):
        for number in range(2):
            names.append(f"part/{speaker}/1/{number}.flac")
            (folder / "plain" / names[-1]).parent.mkdir(parents=True, exist_ok=True)
            audio.write(folder / "plain" / names[-1], voice(rng, 100 + 50 * speaker, 2 * RATE), RATE)
    write_shards(folder / "plain", [[name] for name in names], folder / "packed", 0.1)


def test_a_corpus_of_scenes_can_be_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_corpora(tmp_path)
    heard = []
    for where in ("plain", "packed"):
        sources = Sources(str(tmp_path / where), noise=str(tmp_path / where), rirs=str(tmp_path / where))
        catalog = make_catalog(sources)
        rows, render = plan(catalog, Scene(noise_share=1, reverb_share=0.5), 0, 4), Renderer(sources, 10, catalog.files)
        heard.append([(row, render(row).mixture.tobytes()) for row in rows])
    assert heard[0] == heard[1]


def test_linked_folders_are_packed_and_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_corpora(tmp_path)
    (tmp_path / "linked" / "part").mkdir(parents=True)
    for speaker in (tmp_path / "plain" / "part").iterdir():
        (tmp_path / "linked" / "part" / speaker.name).symlink_to(speaker)
    pack({"folder": tmp_path / "linked", "out_folder": tmp_path / "out", "megabytes": 1, "seed": 0})
    assert set(contents(str(tmp_path / "out"))) == set(contents(str(tmp_path / "packed")))
    plain, linked = (
        make_catalog(Sources(str(tmp_path / "plain"), noise=str(tmp_path / where))).noise for where in ("plain", "linked")
    )
    assert len(plain) == 6
    assert plain == linked


def test_triplets_of_subfolders_do_not_count(folder: Path, tmp_path: Path) -> None:
    for name in (*(path.name for path in folder.glob("s0_0-*")), *(f"aside/{path.name}" for path in folder.glob("s0_*"))):
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes((folder / Path(name).name).read_bytes())
    pack({"folder": tmp_path / "plain", "out_folder": tmp_path / "packed", "megabytes": 1, "seed": 0})
    for where in ("plain", "packed"):
        assert [triplet.name for triplet in Triplets(tmp_path / where).triplets] == ["s0_0"]


def test_a_listed_file_that_is_not_there_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_corpora(tmp_path)
    paths = [f"part/{speaker}/1/{number}.flac" for speaker in range(3) for number in range(3)]  # two of each are there
    (tmp_path / "list.csv").write_text("speaker,path\n" + "".join(f"{path[5]},{path}\n" for path in paths))
    for where in ("plain", "packed"):
        catalog = make_catalog(Sources(str(tmp_path / where), manifest=str(tmp_path / "list.csv")))
        assert [len(spans) for spans in catalog.speakers.values()] == [2, 2, 2]
        assert [f"{where}/part/{speaker}/1/2.flac" in fault for speaker, fault in enumerate(catalog.unusable)] == [True] * 3


def test_a_corpus_of_two_speaker_mixtures_can_be_packed(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    made = []
    for where in ("plain", "packed"):
        out = tmp_path / f"out_{where}"
        mix({"audios_dir": str(tmp_path / where), "out_folder": str(out), "nfiles": 4, "snr_levels": [0], "audio_len": 1.0})
        made.append({path.name: path.read_bytes() for path in out.glob("*.wav")})
    assert len(made[0]) == 12
    assert made[0] == made[1]


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    for name, names in (("train", [f"s{i % 4}_{i}" for i in range(8)]), ("dev", ["s5_a", "s6_a"])):
        make_triplets(tmp_path / "plain" / name, names)
    done = run("mixing/pack.py", "-cn", "pack", f"folder={tmp_path}/plain/train", f"out_folder={tmp_path}/train", "megabytes=0.2")
    assert "24 files are in" in done.stdout
    (tmp_path / "dev").symlink_to(tmp_path / "plain" / "dev")
    for where in (tmp_path, tmp_path / "plain"):
        words = training(where, where / "run")
        run("training/train.py", "-cn", "spexplus_online", *words, "writer=none", "trainer.batch_size=2")
        assert (where / "run" / "speakers.txt").read_text().split() == ["s0", "s1", "s2", "s3"]
        assert json.loads((where / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 2


def agent(words: list[str], port: int, hosts: bool) -> "subprocess.Popen[bytes]":
    """One node of two, with two processes. hosts: it is where the others meet."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", "--max-restarts=3"]
    meet = [
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{port}",
        "--rdzv-id=test",
        f"--rdzv-conf=is_host={hosts},keep_alive_interval=1,keep_alive_max_attempt=2",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*torchrun, *meet, *words], cwd=ROOT, env=env, **quiet)  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_node_that_is_lost_comes_back_and_every_example_is_seen_once(packed: Path, folder: Path, tmp_path: Path) -> None:
    make_triplets(tmp_path / "dev", ["s5_a"])
    data = [f"data.train.folder={packed}", f"data.valid.folder={tmp_path}/dev", "data.train.max_length=0.5"]
    small = ["trainer.batch_size=1", "trainer.accumulate=1", "trainer.epochs=20", "trainer.log_every=1", "trainer.num_workers=0"]
    words = ["-cp", "./configs/", "-cn", "spexplus_online", *TINY, *data, *small, "trainer.save_minutes=0", "writer=none"]
    run_command("training/train.py", *words[2:], f"run_dir={tmp_path}/whole", "n_processes=4")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    nodes = [agent(["training/train.py", *words, f"run_dir={tmp_path}/lost"], port, hosts) for hosts in (True, False)]
    try:
        wait_for_steps(tmp_path / "lost" / "log.jsonl", 3)
        kill(nodes[1].pid)
        nodes.append(agent(["training/train.py", *words, f"run_dir={tmp_path}/lost"], port, False))
        assert [node.wait(timeout=200) for node in (nodes[0], nodes[2])] == [0, 0]
    finally:
        for node in nodes:
            kill(node.pid)
            node.wait()
    whole, lost = (torch.load(tmp_path / name / "last.pth", weights_only=True) for name in ("whole", "lost"))
    rows = [json.loads(line) for line in (tmp_path / "lost" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 20 * 3 + 1))  # 12 examples, 4 processes
    assert all(torch.equal(value, lost["model"][name]) for name, value in whole["model"].items())


def kill(process: int) -> None:
    """Kills a process and all that it has started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == process:  # its parent
                kill(int(stat.parent.name))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def wait_for_steps(log: Path, n: int) -> None:
    """Until so many lines are in a log."""
    for _ in range(1000):
        if log.exists() and log.read_text().count("\n") >= n:
            return
        time.sleep(0.1)
    raise AssertionError(f"{log}: expected {n} lines within 100 seconds")


def test_a_url_that_cannot_be_read_says_why() -> None:
    with pytest.raises(UserError, match=r"nothing://bucket: expected a URL that fsspec can read here, but: .*nothing"):
        contents("nothing://bucket")
