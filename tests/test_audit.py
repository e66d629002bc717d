"""The audit: a sound folder passes, each fault that is planted is found, by name and nothing else, and the command says it all."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, run

from ss import audio
from ss.audio import Wave
from ss.audit.checks import likeness
from ss.audit.report import CHECKS, audit
from ss.data import manifest
from ss.data.manifest import Piece, Row, Voice
from ss.data.packed import pack
from ss.errors import UserError

NAMES = {"a_0": "full", "a_1": "full", "b_2": "full", "b_3": "partly_absent", "c_4": "absent", "c_5": "clean"}
Found = dict[str, list[str]]
Plant = Callable[[Path], object]


def speech(name: str, seconds: float) -> Wave:
    """Noise in syllables of 0.1 s [S], another for every name."""
    rng, samples = np.random.default_rng(list(name.encode())), round(seconds * RATE)
    envelope = np.repeat(rng.uniform(0.02, 0.2, samples // 1600 + 1), 1600)[:samples]
    return (rng.standard_normal(samples).clip(-2, 2) * envelope).astype(np.float32)


def put(folder: Path, name: str, scene: str = "full", snr: float = 0.0, seconds: float = 1.2, ref_seconds: float = 1.1) -> None:
    """Writes a triplet; the last third of the interferer is padding."""
    target, length = speech(f"{name}/target", seconds), round(seconds * RATE)
    interferer = speech(f"{name}/interferer", seconds)[: length * 2 // 3]
    target[: length // 2 if scene == "partly_absent" else 0] = 0
    power = np.square(target).sum() / np.count_nonzero(target)
    interferer *= np.float32(np.sqrt(power / np.square(interferer).mean()) * 10 ** (-snr / 20))
    interferer = np.pad(interferer, (0, length - len(interferer)))
    target, interferer = target * np.float32(scene != "absent"), interferer * np.float32(scene != "clean")
    save(folder, name, {"mixed": target + interferer, "target": target, "ref": speech(f"{name}/ref", ref_seconds)})


def save(folder: Path, name: str, waves: dict[str, Wave], rate: int = RATE) -> None:
    """Writes files of a triplet."""
    for kind, wave in waves.items():
        audio.write(folder / f"{name}-{kind}.wav", wave, rate)


def read(folder: Path, name: str, kind: str) -> Wave:
    return audio.read(folder / f"{name}-{kind}.wav", RATE)


def spoken(name: str, kind: str, start: int, stop: int) -> Voice:
    """A voice that says so much of a file of its own from then on."""
    return Voice(name[0], (Piece(f"{name}/{kind}", start, stop, start),))


def row(name: str, scene: str) -> Row:
    """What `put` makes at 0 dB."""
    target = spoken(name, "target", 9600 if scene == "partly_absent" else 0, 19200)
    return Row(
        name=name,
        pattern=scene,
        sample_rate=RATE,
        samples=19200,
        ref_samples=17600,
        target=Voice(name[0], ()) if scene == "absent" else target,
        interferers=() if scene == "clean" else (spoken(name, "interferer", 0, 12800),),
        enrolment=spoken(name, "ref", 0, 17600),
    )


def write(folder: Path, rows: Iterable[Row]) -> None:
    manifest.write(folder / manifest.FILE, map(manifest.to_line, rows))


def rewrite(folder: Path, **changes: Any) -> None:
    """The manifest with another row a_0."""
    rows = manifest.read(folder / manifest.FILE)
    write(folder, [replace(one, **changes) if one.name == "a_0" else one for one in rows])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without a fault that no test changes."""
    folder = tmp_path_factory.mktemp("sound") / "train"
    folder.mkdir()
    for name, scene in NAMES.items():
        put(folder, name, scene)
    write(folder, [row(name, scene) for name, scene in NAMES.items()])
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "train"))


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("ss.audit.report.draw_histograms", lambda *_: None)


def faults(out: Path, *folders: Path, **settings: Any) -> tuple[int, Found]:
    """The exit code, and the names that are at fault by check."""
    code = audit({"folders": [str(folder) for folder in folders], "out_folder": str(out), **settings})
    report = json.loads((out / "audit.json").read_text())
    return code, {one["check"]: [fault["name"] for fault in one["found"]] for one in report["checks"] if one["count"]}


def spoil(kind: str, change: Callable[[Wave], Wave]) -> Plant:
    """Changes a wave of a_0."""
    return lambda folder: save(folder, "a_0", {kind: change(read(folder, "a_0", kind))})


def full_scale(wave: Wave, samples: int = 3) -> Wave:
    wave[500 : 500 + samples] = 1
    return wave


def in_two_formats(folder: Path) -> None:
    audio.write(folder / "a_0-ref.flac", read(folder, "a_0", "ref"), RATE)


def half_a_flac(folder: Path) -> None:
    in_two_formats(folder)
    (folder / "a_0-ref.wav").unlink()
    data = (folder / "a_0-ref.flac").read_bytes()
    (folder / "a_0-ref.flac").write_bytes(data[: len(data) // 2])


def not_finite(folder: Path) -> None:
    soundfile.write(folder / "a_0-target.wav", np.full(19200, np.nan), RATE, subtype="FLOAT")


def enrolled_with_a_part_of_the_target(folder: Path) -> None:
    save(folder, "a_0", {"ref": np.float32(-0.3) * read(folder, "a_0", "target")[1111:]})


def enrolled_with_more_than_the_target(folder: Path) -> None:
    save(folder, "a_0", {"ref": np.concatenate([speech("x", 2), read(folder, "a_0", "target"), speech("y", 1)])})


def enrolled_with_what_was_silenced(folder: Path) -> None:
    save(folder, "b_3", {"ref": speech("b_3/target", 1.2)})


def planned_by_loudness(folder: Path) -> None:
    put(folder, "a_0", snr=3)
    rewrite(folder, loudness=-25.0)


def short(folder: Path) -> None:
    put(folder, "a_0", seconds=0.4)
    rewrite(folder, target=spoken("a_0", "target", 0, 6400), interferers=(spoken("a_0", "interferer", 0, 4266),))


def copied(folder: Path) -> None:
    for kind in ("mixed", "target", "ref"):
        shutil.copy(folder / f"a_0-{kind}.wav", folder / f"a_9-{kind}.wav")


PLANTS: dict[str, tuple[Plant, Found]] = {
    "nothing": (lambda folder: None, {}),
    "a file is missing": (lambda folder: (folder / "a_0-ref.wav").unlink(), {"incomplete": ["a_0"]}),
    "two of a kind": (in_two_formats, {"incomplete": ["a_0"]}),
    "no audio": (lambda folder: (folder / "a_0-mixed.wav").write_text("no audio"), {"unreadable": ["a_0"]}),
    "half a file": (half_a_flac, {"unreadable": ["a_0"]}),
    "not finite": (not_finite, {"unreadable": ["a_0"]}),
    "two channels": (spoil("ref", lambda wave: np.stack([wave, wave], 1)), {"unreadable": ["a_0"]}),
    "another rate": (lambda folder: save(folder, "a_0", {"ref": speech("x", 1.2)}, 8000), {"rates": ["a_0"]}),
    "another length": (spoil("target", lambda wave: wave[:-1]), {"lengths": ["a_0"]}),
    "short": (short, {"short_mixed": ["a_0"]}),
    "a short enrolment": (lambda folder: put(folder, "a_0", ref_seconds=0.9), {"short_ref": ["a_0"]}),
    "clipped": (spoil("mixed", full_scale), {"clipped_mixed": ["a_0"]}),
    "a clipped target": (spoil("target", full_scale), {"clipped_target": ["a_0"]}),
    "a clipped enrolment": (spoil("ref", lambda wave: -full_scale(wave)), {"clipped_ref": ["a_0"]}),
    "a peak": (spoil("mixed", lambda wave: full_scale(wave, 2)), {}),
    "a silent mixture": (
        lambda folder: save(folder, "c_4", {"mixed": np.zeros(19200, np.float32)}),
        {"silent_mixed": ["c_4"], "no_interferer": ["c_4"]},
    ),
    "a silent enrolment": (spoil("ref", lambda wave: wave * 1e-3), {"silent_ref": ["a_0"]}),
    "a silent target": (spoil("target", np.zeros_like), {"silent_target": ["a_0"]}),
    "absent, but heard": (lambda folder: put(folder, "c_4"), {"other_scene": ["c_4"]}),
    "clean, but mixed": (lambda folder: put(folder, "c_5"), {"other_scene": ["c_5"]}),
    "no interferer": (lambda folder: put(folder, "a_0", "clean"), {"no_interferer": ["a_0"]}),
    "another SIR": (lambda folder: put(folder, "a_0", snr=0.6), {"sir": ["a_0"]}),
    "almost the SIR": (lambda folder: put(folder, "a_0", snr=-0.4), {}),
    "levels by loudness": (planned_by_loudness, {}),
    "no manifest": (lambda folder: (folder / manifest.FILE).unlink(), {"unexplained": ["c_4", "c_5"]}),
    "a part of the target": (enrolled_with_a_part_of_the_target, {"leak": ["a_0"]}),
    "more than the target": (enrolled_with_more_than_the_target, {"leak": ["a_0"]}),
    "what was silenced": (enrolled_with_what_was_silenced, {"leak": ["b_3"]}),
    "one span": (lambda folder: rewrite(folder, enrolment=spoken("a_0", "target", 19199, 2 * RATE)), {"leak": ["a_0"]}),
    "two halves": (lambda folder: rewrite(folder, enrolment=spoken("a_0", "target", 19200, 2 * RATE)), {}),
    "a copy": (copied, {"copy": ["a_9"], "same_mixture": ["a_9"], "same_target": ["a_9"]}),
    "a name": (lambda folder: put(folder, "nobody"), {"unnamed": ["nobody"]}),
    "a row": (lambda folder: rewrite(folder, name="a_7"), {"rows": ["a_7"]}),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_found_and_nothing_else(plant: str, folder: Path, tmp_path: Path, no_picture: None) -> None:
    spoilt, expected = PLANTS[plant]
    spoilt(folder)
    code, found = faults(tmp_path / "out", folder)
    assert found == expected
    assert code == any(CHECKS[check][0] == "error" for check in found)


def test_every_check_has_its_plant() -> None:
    between_folders = {"same_mixture_elsewhere", "same_target_elsewhere", "speakers"}
    assert {check for _, found in PLANTS.values() for check in found} | between_folders == set(CHECKS)


def test_folders_are_compared(sound: Path, tmp_path: Path, no_picture: None) -> None:
    test = tmp_path / "test"
    test.mkdir()
    put(test, "d_0")
    assert faults(tmp_path, sound, test) == (0, {})
    put(test, "b_9")
    assert faults(tmp_path, sound, test) == (1, {"speakers": ["b"]})
    assert faults(tmp_path, sound, test, disjoint=False) == (0, {"speakers": ["b"]})
    for kind, check in (("target", "same_target_elsewhere"), ("mixed", "same_mixture_elsewhere")):
        put(test, "d_0")
        shutil.copy(sound / f"a_0-{kind}.wav", test / f"d_0-{kind}.wav")
        code, found = faults(tmp_path, sound, test, disjoint=False)
        assert (code, found[check]) == (1, ["d_0"])
        assert set(found) <= {"speakers", check}


def test_settings_move_the_limits(sound: Path, folder: Path, tmp_path: Path, no_picture: None) -> None:
    assert faults(tmp_path, sound, sample_rate=8000)[1] == {"rates": list(NAMES)}
    assert faults(tmp_path, sound, min_len=1.25, ref_min_len=1.05)[1] == {"short_mixed": list(NAMES)}
    put(folder, "a_0", snr=0.6)
    assert faults(tmp_path, folder, sir_tolerance=0.7) == (0, {})


def test_a_manifest_tells_what_can_be_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str], no_picture: None) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    rows = {}
    for name, scene in {"a_0_full": "full", "a_1_full": "full", "b_2_absent": "absent", "b_3_alone": "clean"}.items():
        put(folder, name, scene, snr=3 if name == "a_0_full" else 0)
        rows[name] = row(name, scene)
    rows["a_0_full"] = replace(rows["a_0_full"], noise=manifest.Noise("x", 0, 20.0))
    rows["a_1_full"] = replace(rows["a_1_full"], enrolment=rows["a_1_full"].target)
    write(folder, rows.values())
    assert faults(tmp_path, folder) == (1, {"leak": ["a_1_full"]})
    assert (
        "SIR not held against a plan: 2 (no single interferer beside a target), 1 (noise or a channel)" in capsys.readouterr().out
    )
    put(folder, "a_0_full", "clean")
    put(folder, "b_3_alone")
    found = {"leak": ["a_1_full"], "no_interferer": ["a_0_full"], "other_scene": ["b_3_alone"]}
    assert faults(tmp_path, folder) == (1, found)
    (folder / manifest.FILE).unlink()
    assert faults(tmp_path, folder) == (0, {"unexplained": ["a_0_full"]})  # the name says which is absent


def test_alike_is_what_is_of_one_recording() -> None:
    wave, other = speech("a", 3), speech("b", 2)
    assert likeness(wave, other, RATE) < 0.2
    assert likeness(wave, np.float32(-0.01) * wave[7000:30000], RATE) == pytest.approx(1, abs=1e-3)
    assert likeness(wave[7000:20000], wave, RATE) == pytest.approx(1, abs=1e-3)  # all of a shorter one
    assert likeness(wave[:38000], wave[20000:], RATE) == pytest.approx(1, abs=1e-3)  # neither holds the other
    assert likeness(wave[:24000], wave[20000:], RATE) < 0.2  # too little to tell
    assert 0.8 < likeness(wave + speech("noise", 3) * np.float32(0.5), wave, RATE) < 0.99
    spliced = np.concatenate([other, wave[10000:28000], other])
    assert likeness(wave, spliced, RATE) == likeness(spliced, wave, RATE) == pytest.approx(1, abs=1e-3)


def test_processes_find_the_same(sound: Path, tmp_path: Path, no_picture: None) -> None:
    for workers in (1, 2):
        faults(tmp_path / str(workers), sound, num_workers=workers)
    assert (tmp_path / "1/audit.json").read_text() == (tmp_path / "2/audit.json").read_text()


def test_shards_are_audited_like_their_folder(folder: Path, tmp_path: Path, no_picture: None) -> None:
    (folder / "a_1-ref.wav").unlink()
    pack({"folder": str(folder), "out_folder": str(tmp_path / "packed"), "megabytes": 1, "seed": 0})
    code, found = faults(tmp_path / "out", tmp_path / "packed")
    assert (code, found["incomplete"]) == (1, ["a_1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folders": []}, "folders: expected one or several, each once"),
        ({"folders": None}, "folders: expected one or several, each once"),
        ({"folders": ["x", "./x"]}, "folders: expected one or several, each once"),
        ({"folders": "nowhere"}, "nowhere: expected a folder of triplets, but there is none"),
        ({"clip_run": 2.5}, "clip_run: expected int, found 2.5"),
        ({"silent_db": 3}, "silent_db: expected less than 0, got 3"),
        ({"num_workers": 0}, "num_workers: expected more than 0, got 0"),
        ({"min_length": 1}, "unknown key min_length: expected some of folders"),
        ({"out_folder": __file__}, "out_folder: expected a folder, found a file"),
    ],
)
def test_errors_say_what_was_expected(sound: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        audit({"folders": [str(sound)], "out_folder": str(tmp_path), **changes})


def test_no_triplets_and_other_manifests_are_errors(folder: Path, tmp_path: Path) -> None:
    (folder / manifest.FILE).write_text('{"name": "a_0"}\n')
    with pytest.raises(UserError, match="manifest.jsonl, line 1: expected a row of a manifest"):
        audit({"folders": str(folder), "out_folder": str(tmp_path / "out")})
    with pytest.raises(UserError, match="expected files <name>-mixed, -target and -ref"):
        audit({"folders": str(tmp_path), "out_folder": str(tmp_path / "out")})
    assert not (tmp_path / "out").exists()


def test_command(sound: Path, folder: Path, tmp_path: Path) -> None:
    def command(*folders: Path) -> tuple[int, str, str]:
        done = run("mixing/audit.py", "-cn", "audit", f"folders=[{','.join(map(str, folders))}]", f"out_folder={out}", check=False)
        return done.returncode, done.stdout, done.stderr

    out = tmp_path / "out"
    code, printed, progress = command(sound)
    assert code == 0, progress
    assert "auditing: 100%" in progress
    assert f"{sound}: 6 triplets, 0.00 h, 3 target speakers, 2 to 2 mixtures each" in printed
    assert "\nsound: errors in 0 of 25 checks, warnings in 0" in printed
    assert (out / "audit.png").stat().st_size > 10000
    report = json.loads((out / "audit.json").read_text())
    assert report["folders"][str(sound)]["speakers"] == {"a": 2, "b": 2, "c": 2}
    assert report["no_sir"] == {"no single interferer beside a target": 2}
    (folder / "a_1-ref.wav").unlink()
    code, printed, _ = command(folder)
    assert code == 1
    assert f"{folder}/a_1: no enrolment" in printed
    assert "\nnot sound: errors in 1 of 25 checks, warnings in 0" in printed
    code, _, said = command(tmp_path / "nowhere")
    assert (code, said) == (2, f"error: {tmp_path}/nowhere: expected a folder of triplets, but there is none\n")
