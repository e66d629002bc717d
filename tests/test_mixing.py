"""Mixing: what is planned, what is heard, and that neither workers, nor a kill, nor bad files change a byte of it."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile
from conftest import command, run, run_command
from numpy.typing import NDArray

from ss.audio import AudioError
from ss.mixing import manifest
from ss.mixing.corpus import Corpus, Span, scan
from ss.mixing.job import mix
from ss.mixing.plan import chances, plan, plan_row
from ss.mixing.render import merge, render, trim
from ss.mixing.settings import Settings

ROOT = Path(__file__).parents[1]
REAL = Path(__file__).parents[2] / "shared/corpus/speech"
RATE = 16000
N_SPEAKERS, N_UTTERANCES = 5, 3
TALKATIVE = {"little": 40 * RATE, "much": 160 * RATE, "some": 40 * RATE}


def bursts(rng: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """Speech-like noise: syllables of 0.2 s in changing loudness, with near silence before and after."""
    n = int(seconds * RATE)
    envelope = np.repeat(rng.uniform(0.02, 0.3, n // 3200 + 1), 3200)[:n]
    return rng.standard_normal(n + 5000).clip(-2, 2) * np.pad(envelope, (3000, 2000), constant_values=3e-4)


def put(path: Path, wave: NDArray[np.float64], rate: int = RATE) -> Path:
    """Writes a file of a corpus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="PCM_16")
    return path


def build(root: Path) -> Path:
    """A corpus in LibriSpeech's layout: part/speaker/chapter/speaker-chapter-number.flac."""
    rng = np.random.default_rng(0)
    for speaker in range(N_SPEAKERS):
        for number in range(N_UTTERANCES):
            put(root / f"part/{speaker}/7/{speaker}-7-{number:04d}.flac", bursts(rng, rng.uniform(1.1, 2.5)))
        (root / f"part/{speaker}/7/{speaker}-7.trans.txt").write_text("not audio")
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that no test changes."""
    return build(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> Settings:
    """Whole utterances, trimmed."""
    return Settings(str(corpus), str(tmp_path / "out"), nfiles=12, snr_levels=[-5, 0, 5], trim_db=30)


def environment() -> dict[str, str]:
    """The environment, with this repository's package in reach where it is not installed."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def waves(folder: Path, name: str) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Mixture, target and enrolment as integers that do not overflow."""
    read = [soundfile.read(folder / f"{name}-{kind}.wav", dtype="int16")[0] for kind in ("mixed", "target", "ref")]
    mixture, target, ref = (wave.astype(np.int32) for wave in read)
    return mixture, target, ref


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def snr(target: NDArray[np.int32], interferer: NDArray[np.int32]) -> float:
    """Ratio of mean powers in dB, padding at the end not counted."""
    powers = [np.square(wave[: np.flatnonzero(wave)[-1] + 1] / 1.0).mean() for wave in (target, interferer)]
    return float(10 * np.log10(powers[0] / powers[1]))


def test_command_makes_exact_triplets(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [f"audios_dir={corpus}", f"out_folder={out}", "parts=part", "nfiles=10", "audio_len=1", "ref_max_len=0.5"]
    process = run_command("mixing/mix.py", "-cn", "train", *arguments, "snr_levels=[0,10]", "num_workers=2", "random_state=3")
    assert "10 of 10 mixtures" in process.stdout
    assert "mixing: 100%" in process.stderr
    rows = manifest.read(out / "manifest.csv")
    assert len(rows) == 10
    assert len(list(out.glob("*.wav"))) == 30
    assert {row.snr for row in rows} == {0, 10}
    for row in rows:
        assert row.name.startswith(Path(row.target.path).parts[1] + "_")
        mixture, target, ref = waves(out, row.name)
        assert len(mixture) == len(target) == RATE
        assert len(ref) == RATE // 2
        assert max(np.abs(wave).max() for wave in (mixture, target, mixture - target, ref)) <= 0.9 * 32768 + 1
        assert snr(target, mixture - target) == pytest.approx(row.snr, abs=0.02)
    assert soundfile.info(out / f"{rows[0].name}-mixed.wav").subtype == "PCM_16"


def test_plan_pairs_different_speakers_and_files(settings: Settings) -> None:
    rows = plan(scan(settings), replace(settings, nfiles=300))
    speakers = [[Path(span.path).parts[1] for span in (row.target, row.interferer, row.ref)] for row in rows]
    assert all(target == ref != interferer for target, interferer, ref in speakers)
    assert all(row.target.path != row.ref.path for row in rows)
    assert len({row.name for row in rows}) == len({row.seed for row in rows}) == 300
    assert {target for target, *_ in speakers} == {interferer for _, interferer, _ in speakers} == set("01234")
    assert len({row.target.path for row in rows}) == N_SPEAKERS * N_UTTERANCES


def test_corpora_may_be_mixed_with_themselves_only(settings: Settings) -> None:
    speakers = ("a1", "a2", "b1", "b2")
    found = Corpus({speaker: (Span(f"{speaker}/0", 0, RATE), Span(f"{speaker}/1", 0, RATE)) for speaker in speakers}, ())
    rows = plan(found, replace(settings, nfiles=100, within="[a-z]+"))
    pairs = {tuple(Path(span.path).parts[0] for span in (row.target, row.interferer)) for row in rows}
    assert pairs == {("a1", "a2"), ("a2", "a1"), ("b1", "b2"), ("b2", "b1")}
    with pytest.raises(ValueError, match=r"within: expected two speakers whose ids agree in \\w\+, found none"):
        chances(found, replace(settings, within=r"\w+"))


def test_who_said_more_may_be_heard_more(settings: Settings) -> None:
    found = Corpus({speaker: (Span(f"{speaker}/0", 0, n), Span(f"{speaker}/1", 0, n)) for speaker, n in TALKATIVE.items()}, ())
    for drawn, share in (("speakers", 1 / 3), ("speech", 2 / 3)):
        rows = plan(found, replace(settings, nfiles=600, drawn=drawn))
        names = [row.name.split("_") for row in rows]
        assert sum(target == "much" for target, *_ in names) / 600 == pytest.approx(share, abs=0.06)
        assert all(target != interferer for target, _, interferer, _ in names)


def test_a_row_depends_on_its_number_only(settings: Settings) -> None:
    found = scan(settings)
    rows = plan(found, settings)
    assert plan_row(found, chances(found, settings), replace(settings, nfiles=1), 7) == rows[7]
    assert plan(found, replace(settings, random_state=1)) != rows


def test_manifest_keeps_rows_exactly(settings: Settings, tmp_path: Path) -> None:
    rows = plan(scan(settings), replace(settings, audio_len=1 / 3, snr_levels=[0.1 + 0.2], loudness=-25))
    manifest.write(tmp_path / "m.csv", rows)
    assert manifest.read(tmp_path / "m.csv") == rows


def test_sets_without_scenes_are_what_they_were(settings: Settings) -> None:
    rows = plan(scan(settings), settings)
    cells = [{key: value for key, value in manifest.cells(row).items() if key != "scene"} for row in rows]
    digest = hashlib.sha256("".join(map(json.dumps, cells)).encode()).hexdigest()
    assert digest[:16] == "a8a6a6ec733e47ac"
    assert {row.scene for row in rows} == {"full"}
    known = {
        "4_000000_1_-5": [(22016, 96866253), (22016, 44346770), (41984, 136514017)],
        "2_000001_3_5": [(36352, 195394902), (36352, 167067340), (35328, 176540511)],
    }
    for row in rows[:2]:
        found = [(len(wave), int(np.abs(wave.astype(np.int64)).sum())) for wave in render(row, settings.audios_dir)]
        assert found == [(n, pytest.approx(total, rel=1e-6)) for n, total in known[row.name]]


def test_a_manifest_without_scenes_is_of_full_mixtures_and_is_continued(settings: Settings) -> None:
    mix(asdict(settings))
    path = Path(settings.out_folder) / "manifest.csv"
    before = path.read_text()
    path.write_text("\n".join(line.rpartition(",")[0] for line in before.splitlines()) + "\n")
    mix(asdict(settings))
    assert path.read_text() == before
    path.write_text(before.replace(",full", ",nonsense"))
    with pytest.raises(ValueError, match=r"manifest.csv, line 2: .*scene: expected one of full, absent, .* found nonsense"):
        mix(asdict(settings))


SHARES = {"absent_share": 0.3, "partly_absent_share": 0.2, "clean_share": 0.1}


def test_scenes_have_their_shares_and_change_nothing_else(settings: Settings) -> None:
    found, many = scan(settings), replace(settings, nfiles=1000)
    rows = plan(found, replace(many, **SHARES))
    for scene, share in (("absent", 0.3), ("partly_absent", 0.2), ("clean", 0.1), ("full", 0.4)):
        assert sum(row.scene == scene for row in rows) / 1000 == pytest.approx(share, abs=0.05)
    assert [row._replace(scene="full") for row in rows] == plan(found, many)
    assert {row.scene for row in plan(found, replace(many, clean_share=1.0))} == {"clean"}


def rendered(row: manifest.Row, folder: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mixture, target and enrolment as numbers that do not overflow."""
    mixture, target, ref = (wave.astype(np.float64) for wave in render(row, folder))
    return mixture, target, ref


@pytest.mark.parametrize("options", [{}, {"audio_len": 0.8, "ref_max_len": 0.5}, {"trim_db": None, "audio_len": 3}])
@pytest.mark.parametrize("scene", manifest.SCENES)
def test_every_scene_is_target_plus_the_same_interferer(settings: Settings, scene: str, options: dict[str, float]) -> None:
    settings = replace(settings, snr_levels=[12], **options)  # so quiet an interferer that nothing is lowered
    for row in plan(scan(settings), settings):
        full_mixture, full_target, full_ref = rendered(row, settings.audios_dir)
        mixture, target, ref = rendered(row._replace(scene=scene), settings.audios_dir)
        interferer, full = mixture - target, full_mixture - full_target
        assert np.array_equal(ref, full_ref)
        assert max(np.abs(wave).max() for wave in (mixture, target, interferer)) <= 0.9 * 32768 + 1
        assert target.any() == (scene != "absent")
        assert interferer.any() == (scene != "clean")
        if scene in ("full", "clean"):
            assert np.array_equal(target, full_target)
        if scene in ("full", "absent"):
            assert np.array_equal(interferer, full)
        if scene == "partly_absent":
            assert np.abs(interferer * (interferer @ full) / (interferer @ interferer) - full).max() < 3  # goes on all the time


def test_an_absent_target_lowers_a_loud_interferer_alone(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for speaker in "ab":
        for number in range(2):
            put(tmp_path / f"loud/p/{speaker}/c/{number}.flac", rng.uniform(-0.99, 0.99, 2 * RATE))
    loud = replace(settings, audios_dir=str(tmp_path / "loud"), absent_share=1, nfiles=4)
    for row in plan(scan(loud), loud):
        mixture, target, _ = rendered(row, loud.audios_dir)
        assert not target.any()
        assert np.abs(mixture).max() == pytest.approx(min(0.99 * 10 ** (-row.snr / 20), 0.9) * 32768, rel=0.02)


def silence(target: NDArray[np.float64]) -> tuple[int, int]:
    """First and last sample of the longest stretch of zeros."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], target == 0, [0]])))
    lengths = edges[1::2] - edges[::2]
    place = lengths.argmax()
    return int(edges[2 * place]), int(edges[2 * place + 1] - 1)


def test_a_partly_absent_target_pauses_without_a_click(settings: Settings) -> None:
    settings = replace(settings, snr_levels=[10], nfiles=40)
    places = set()
    for row in plan(scan(settings), replace(settings, partly_absent_share=1)):
        mixture, target, _ = rendered(row, settings.audios_dir)
        _, whole, _ = rendered(row._replace(scene="full"), settings.audios_dir)
        first, last = silence(target)
        assert 0.29 <= (last - first + 1) / len(target) <= 0.71
        assert snr(target[np.abs(target) > 0], mixture - target) == pytest.approx(10, abs=0.05)
        places.add("start" if first == 0 else "end" if last == len(target) - 1 else "middle")
        for outwards in (np.arange(last, len(target)), np.arange(first, -1, -1)):
            ramp = np.minimum(np.arange(len(outwards)) / 160, 1)
            late = 3 / 160 * np.abs(whole[outwards])  # small samples are rounded to zeros, so that the fade seems to begin later
            assert (np.abs(target[outwards] - ramp * whole[outwards]) <= late + 1).all()
    assert places == {"start", "middle", "end"}


def test_a_partly_absent_target_speaks_in_the_rest(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    for speaker in "ab":
        for number in range(2):
            put(tmp_path / f"gaps/p/{speaker}/c/{number}.flac", np.concatenate([bursts(rng, 1), np.zeros(3 * RATE)]))
    gaps = replace(settings, audios_dir=str(tmp_path / "gaps"), trim_db=None, partly_absent_share=1, nfiles=20)
    for row in plan(scan(gaps), gaps):
        assert np.abs(rendered(row, gaps.audios_dir)[1]).max() > 1000


def test_loudness_of_a_partly_absent_target_is_what_is_asked(settings: Settings) -> None:
    meter = pyloudnorm.Meter(RATE)
    settings = replace(settings, loudness=-30, snr_levels=[3], partly_absent_share=1, trim_db=None, nfiles=4)
    for row in plan(scan(settings), settings):
        mixture, target, _ = (wave / 32768 for wave in rendered(row, settings.audios_dir))
        assert meter.integrated_loudness(target) == pytest.approx(-30, abs=0.1)
        assert meter.integrated_loudness(mixture - target) == pytest.approx(-33, abs=0.1)


def test_whole_targets_are_kept_and_interferers_fitted(settings: Settings) -> None:
    settings = replace(settings, trim_db=None, nfiles=30, snr_levels=[20])
    shorter = 0
    for row in plan(scan(settings), settings):
        triplet = render(row, settings.audios_dir)
        target, _ = soundfile.read(Path(settings.audios_dir, row.target.path), dtype="int16")
        ref, _ = soundfile.read(Path(settings.audios_dir, row.ref.path), dtype="int16")
        assert np.array_equal(triplet.target, target)  # nothing was near clipping
        assert np.array_equal(triplet.ref, ref)
        assert len(triplet.mixture) == len(target)
        beyond = slice(row.interferer.stop, None)
        shorter += row.interferer.stop < len(target)
        assert np.array_equal(triplet.mixture[beyond], triplet.target[beyond])
    assert 0 < shorter < 30


def test_all_is_lowered_together_where_it_would_clip(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for speaker in "ab":
        for number in range(2):
            put(tmp_path / f"loud/p/{speaker}/c/{number}.flac", rng.uniform(-0.99, 0.99, 2 * RATE))
    for row in plan(scan(loud := replace(settings, audios_dir=str(tmp_path / "loud"))), loud):
        mixture, target, ref = (wave.astype(np.int32) for wave in render(row, loud.audios_dir))
        peaks = [np.abs(wave).max() for wave in (mixture, target, mixture - target)]
        assert max(peaks) == pytest.approx(0.9 * 32768, abs=2)
        assert np.abs(ref).max() == pytest.approx(0.9 * 32768, abs=2)
        assert snr(target, mixture - target) == pytest.approx(row.snr, abs=0.02)


def test_parts_that_cancel_do_not_clip(settings: Settings, tmp_path: Path) -> None:
    wave = np.random.default_rng(8).uniform(-0.99, 0.99, 2 * RATE)
    for speaker, sign in (("a", 1), ("b", -1)):
        for number in range(2):
            put(tmp_path / f"p/{speaker}/c/{number}.flac", sign * wave)
    opposite = replace(settings, audios_dir=str(tmp_path), nfiles=1, snr_levels=[0])
    for row in plan(scan(opposite), opposite):
        mixture, target, _ = render(row, tmp_path)
        assert np.abs(mixture).max() <= 1
        assert np.abs(target).max() == pytest.approx(0.9 * 32768, abs=2)


def test_the_interferer_in_the_mixture_is_the_source_rounded_once(settings: Settings) -> None:
    settings = replace(settings, trim_db=None, snr_levels=[-20, 3])
    for row in plan(scan(settings), settings):
        mixture, target, _ = (wave.astype(np.float64) for wave in render(row, settings.audios_dir))
        interferer, start = mixture - target, row.interferer.stop - len(mixture)
        source, _ = soundfile.read(Path(settings.audios_dir, row.interferer.path), dtype="int16")
        if start <= 0:  # it was not cut
            source = np.pad(source.astype(np.float64), (0, -start))
            assert np.abs(interferer - source * (interferer @ source) / (source @ source)).max() < 0.65


def test_a_source_shorter_than_its_row_is_an_error(settings: Settings) -> None:
    (row,) = plan(scan(settings), replace(settings, nfiles=1))
    longer = row._replace(ref=row.ref._replace(stop=row.ref.stop + 1))
    with pytest.raises(AudioError, match=rf"{row.ref.path}: expected samples 0 to {row.ref.stop + 1}, found {row.ref.stop} "):
        render(longer, settings.audios_dir)


def test_bytes_do_not_depend_on_workers(settings: Settings, tmp_path: Path) -> None:
    for workers in (1, 2, 8):
        mix(asdict(replace(settings, nfiles=40, num_workers=workers, out_folder=str(tmp_path / str(workers)), audio_len=1)))
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "8")


def test_a_killed_run_continues(settings: Settings, tmp_path: Path) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    nfiles = 400
    arguments = [f"audios_dir={settings.audios_dir}", "parts=part", f"nfiles={nfiles}", "num_workers=2", "snr_levels=[-5,0,5]"]
    words = ["mixing/mix.py", "-cn", "test", *arguments, f"out_folder={out}"]
    process = subprocess.Popen(command(*words), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    wait(lambda: len(list(out.glob("*-mixed.wav"))) >= 5)
    process.kill()
    process.wait()
    wait(lambda: not alive(process.pid))  # its workers end by themselves
    (out / ".1_0_x-mixed.wav.1.part").write_text("left half-written")
    done = {path.name[: -len("-mixed.wav")] for path in out.glob("*-mixed.wav")}
    assert 5 <= len(done) < nfiles
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav") if path.name.rsplit("-", 1)[0] in done}
    assert f"{nfiles - len(done)} made now, {len(done)} there before" in run(*words).stdout
    assert before == {name: (out / name).stat().st_mtime_ns for name in before}
    mix(asdict(replace(settings, out_folder=str(whole), nfiles=nfiles, random_state=2)))
    assert contents(out) == contents(whole)


def wait(condition: Callable[[], bool]) -> None:
    """Returns as soon as the condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen in a minute"
        time.sleep(0.005)


def alive(group: int) -> bool:
    """Whether a process of this group runs (one that has ended, but that nobody asked for its result, does not)."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    states = [stat.rpartition(")")[2].split() for stat in stats]
    return any(int(fields[2]) == group and fields[0] != "Z" for fields in states)


def test_more_files_continue_and_another_plan_is_refused(settings: Settings, tmp_path: Path) -> None:
    out = Path(settings.out_folder)
    mix(asdict(settings))
    before = contents(out)
    mix(asdict(replace(settings, nfiles=15)))
    after = contents(out)
    assert all(after[name] == data for name, data in before.items() if name.endswith(".wav"))
    assert len(list(out.glob("*-mixed.wav"))) == 15
    with pytest.raises(ValueError, match=r"manifest.csv: expected at most 12 mixtures .* overwrite=true"):
        mix(asdict(settings))
    with pytest.raises(ValueError, match=r"manifest.csv, line 2: expected trim_db '20.0', found '30.0'.* overwrite=true"):
        mix(asdict(replace(settings, nfiles=15, trim_db=20)))
    mix(asdict(replace(settings, overwrite=True)))
    assert contents(out) == before
    (out / "manifest.csv").unlink()
    with pytest.raises(ValueError, match="found mixtures without"):
        mix(asdict(settings))


def test_bad_sources_are_reported_and_skipped(tmp_path: Path) -> None:
    root, out = build(tmp_path / "corpus"), tmp_path / "out"
    (root / "part/0/7/0-7-0000.flac").write_bytes(b"no flac")
    broken = root / "part/1/7/1-7-0000.flac"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    silent = put(root / "part/2/7/2-7-0000.flac", np.zeros(2 * RATE))
    wrong = put(root / "part/3/7/3-7-0000.flac", np.ones(2 * RATE) * 0.1, rate=8000)
    arguments = [f"audios_dir={root}", f"out_folder={out}", "nfiles=60", "num_workers=2", "parts=part"]
    process = run("mixing/mix.py", "-cn", "test", *arguments)
    with (out / "skipped.csv").open() as file:
        skipped = list(csv.DictReader(file))
    assert [row["reason"] for row in skipped if not row["name"]] == [row["reason"] for row in skipped[:1]]
    for reason in ("0-7-0000.flac: expected a readable", f"{broken}", f"{silent}: expected speech, found silence", "8000 Hz"):
        assert reason in process.stderr
        assert any(reason in row["reason"] for row in skipped)
    missing = {row["name"] for row in skipped if row["name"]}
    users = {row.name for row in manifest.read(out / "manifest.csv") if {str(broken), str(silent), str(wrong)} & sources(row, root)}
    assert missing == users
    assert len(list(out.glob("*-mixed.wav"))) == len(list(out.glob("*.wav"))) / 3 == 60 - len(missing)
    assert re.search(rf"skipped: {len(missing)} mixtures, \d+ files of the sources", process.stdout)
    assert f"{60 - len(missing)} of 60 mixtures are in" in process.stdout


def sources(row: manifest.Row, root: Path) -> set[str]:
    """The files that a row is made of."""
    return {str(root / span.path) for span in (row.target, row.interferer, row.ref)}


def test_single_utterances_are_split_or_only_interfere(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for speaker in "ab":
        put(tmp_path / f"single/p/{speaker}/c/0.flac", bursts(rng, 4))
    put(tmp_path / "single/p/a_short/c/0.flac", bursts(rng, 1.2))
    single = replace(settings, audios_dir=str(tmp_path / "single"), split_single_utterances=True, trim_db=None)
    rows = plan(scan(single), single)
    assert {row.name.split("_")[0] for row in rows} == {"a", "b"}
    assert "a-short" in {row.name.split("_")[2] for row in rows}
    for row in rows:
        assert row.target.path == row.ref.path
        assert row.target.stop <= row.ref.start or row.ref.stop <= row.target.start
        source, _ = soundfile.read(tmp_path / "single" / row.ref.path, dtype="int16")
        assert np.array_equal(render(row, single.audios_dir).ref, source[row.ref.start : row.ref.stop])
    assert {row.target.start == 0 for row in rows} == {True, False}
    with pytest.raises(ValueError, match=r"expected a speaker with two utterances.*split_single_utterances=true"):
        mix(asdict(replace(single, split_single_utterances=False)))


@pytest.mark.parametrize("audio_len", [None, 1.0])
def test_loudness_is_what_is_asked(settings: Settings, audio_len: float | None) -> None:
    meter = pyloudnorm.Meter(RATE)
    settings = replace(settings, loudness=-30, snr_levels=[0, 6], audio_len=audio_len)
    for row in plan(scan(settings), settings):
        mixture, target, _ = (wave.astype(np.float64) / 32768 for wave in render(row, settings.audios_dir))
        assert meter.integrated_loudness(target) == pytest.approx(-30, abs=0.1)
        assert meter.integrated_loudness(mixture - target) == pytest.approx(-30 - row.snr, abs=0.1)


def test_trim_cuts_ends_and_merge_drops_pauses() -> None:
    rng = np.random.default_rng(3)
    loud, quiet = rng.standard_normal(RATE), rng.standard_normal(RATE) * 10 ** (-40 / 20)
    wave = np.concatenate([quiet, loud, quiet, loud, quiet]).astype(np.float32)
    margin = 3 * 512
    trimmed, merged = trim(wave, 30, RATE), merge(wave, 30, RATE)
    assert 3 * RATE <= len(trimmed) <= 3 * RATE + 2 * margin
    assert 2 * RATE <= len(merged) <= 2 * RATE + 4 * margin
    assert len(trim(wave, 50, RATE)) == len(merge(wave, 50, RATE)) == 5 * RATE
    start = (wave[:, None] == trimmed[0]).argmax()
    assert np.array_equal(wave[start : start + len(trimmed)], trimmed)
    assert np.abs(loud.astype(np.float32) - merged[RATE - start :][:RATE]).max() == 0


def test_short_pauses_inside_words_stay() -> None:
    wave = np.random.default_rng(4).standard_normal(RATE).astype(np.float32)
    wave[5120 : 5120 + 4 * 512] = 0  # 0.13 s
    assert len(merge(wave, 30, RATE)) == RATE
    wave[5120 : 5120 + 8 * 512] = 0
    assert len(merge(wave, 30, RATE)) == RATE - 4 * 512


def test_trim_and_vad_reach_the_mixture(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for speaker in "ab":
        for number in range(2):
            put(tmp_path / f"gaps/p/{speaker}/c/{number}.flac", np.concatenate([bursts(rng, 1), np.zeros(RATE), bursts(rng, 1)]))
    gaps = replace(settings, audios_dir=str(tmp_path / "gaps"))
    lengths = []
    for options in ({"trim_db": None, "vad_db": None}, {"trim_db": 30, "vad_db": None}, {"trim_db": None, "vad_db": 30}):
        row = plan_row(scan(gaps), chances(scan(gaps), gaps), replace(gaps, **options), 0)
        lengths.append(len(render(row, gaps.audios_dir).target) / RATE)
    whole, trimmed, merged = lengths
    assert whole == 3 + 2 * 5000 / RATE
    assert 0.1 < whole - trimmed < 5000 / RATE
    assert 0.9 < trimmed - merged < 1 + 5000 / RATE


def test_cuts_are_not_made_in_pauses(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    for speaker in "ab":
        for number in range(2):
            put(
                tmp_path / f"gaps/p/{speaker}/c/{number}.flac",
                np.concatenate([bursts(rng, 1), np.zeros(6 * RATE), bursts(rng, 1)]),
            )
    for trim_db in (None, 40):
        gaps = replace(settings, audios_dir=str(tmp_path / "gaps"), trim_db=trim_db, audio_len=1, ref_max_len=1, nfiles=20)
        for row in plan(scan(gaps), gaps):
            for wave in render(row, gaps.audios_dir):
                assert np.abs(wave).max() > 100


def test_speakers_can_be_chosen(settings: Settings) -> None:
    def ids(**changes: object) -> set[str]:
        return set(scan(replace(settings, **changes)).speakers)  # type: ignore[arg-type]

    assert ids(speakers=["1", "3", "4"], exclude_speakers=["3"]) == {"1", "4"}
    assert ids(speakers=[1, 2]) == {"1", "2"}
    drawn = ids(max_n_speakers=3)
    assert len(drawn) == 3
    assert drawn == ids(max_n_speakers=3)
    assert len({frozenset(ids(max_n_speakers=3, random_state=seed)) for seed in range(10)}) > 1


def test_templates(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for speaker in "ab":
        for part in ("wav1", "wav2"):
            put(tmp_path / f"{part}/p_{speaker}/p_{speaker}_1.wav", bursts(rng, 1.5))
    other = replace(settings, audios_dir=str(tmp_path), template="{part}/{speaker}/{speaker}_*.wav")
    assert {speaker: len(spans) for speaker, spans in scan(other).speakers.items()} == {"p-a": 2, "p-b": 2}
    assert scan(replace(other, parts="wav?")) == scan(replace(other, parts=["wav2", "wav1"])) == scan(other)
    assert len(scan(replace(other, parts="wav2")).speakers["p-a"]) == 1
    assert set(scan(replace(other, template="wav1/*/{speaker}_1.wav")).speakers) == {"p-a", "p-b"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audios_dir": "/nowhere"}, "audios_dir: expected a folder, found none at /nowhere"),
        ({"template": "{part}/{speaker}/*.wav"}, r"expected audio files .* that match \*/\*/\*.wav, found none"),
        ({"parts": ["part", "other"]}, r"that match other/\*/\*/\*, found none"),
        ({"parts": "part", "template": "*/{speaker}/*/*"}, r"template: expected \{part\}"),
        ({"template": "*/*/*/*"}, r"template: expected \{speaker\}"),
        ({"speakers": ["2"]}, "expected at least two speakers .*, found 1"),
        ({"min_len": 60.0}, "readable files of 60.0 s or more, found 0 in 15 files"),
        ({"exclude_speakers": ["2", "nobody"]}, "exclude_speakers: .* not found there: nobody"),
        ({"snr_levels": []}, "snr_levels: expected at least one level"),
        ({"absent_share": 0.6, "clean_share": 0.5}, "shares: .*at most 1 together, found absent_share 0.6"),
        ({"clean_share": -0.1}, "shares: expected at least 0 each"),
        ({"nfiles": 0}, "nfiles: expected more than 0, found 0"),
        ({"extension": "mp3"}, "extension: expected one of wav, flac, found mp3"),
    ],
)
def test_errors_say_what_was_expected(settings: Settings, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix(asdict(replace(settings, **changes)))  # type: ignore[arg-type]


def test_unknown_keys_and_nothing_made_are_errors(settings: Settings, corpus: Path, tmp_path: Path) -> None:
    process = run("mixing/mix.py", f"audios_dir={corpus}", f"out_folder={tmp_path}", "+audio_length=3", check=False)
    assert process.returncode
    assert "unknown key audio_length: expected some of audios_dir," in process.stderr
    with pytest.raises(ValueError, match=r"all 12 were skipped; the first because .*expected a sample rate of 8000 Hz"):
        mix(asdict(replace(settings, sample_rate=8000, min_len=0)))


def test_flac_triplets_hold_the_same_samples(settings: Settings, tmp_path: Path) -> None:
    mix(asdict(replace(settings, nfiles=2)))
    mix(asdict(replace(settings, nfiles=2, extension="flac", out_folder=str(tmp_path / "flac"))))
    for path in Path(settings.out_folder).glob("*.wav"):
        other = tmp_path / "flac" / f"{path.stem}.flac"
        assert np.array_equal(soundfile.read(path, dtype="int16")[0], soundfile.read(other, dtype="int16")[0])


def test_benchmark_prints_a_speed(corpus: Path) -> None:
    process = run("mixing/benchmark.py", f"audios_dir={corpus}", "nfiles=5", "repeats=2")
    assert "median of 2: " in process.stdout
    assert "mixture-seconds written per second of one core" in process.stdout


@pytest.mark.corpus
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no corpus at {REAL}")
def test_real_corpus(tmp_path: Path) -> None:
    arguments = ["parts=train", "nfiles=12", "audio_len=3", "ref_max_len=3", "split_single_utterances=true", "num_workers=2"]
    process = run("mixing/mix.py", "-cn", "train", f"audios_dir={REAL}", f"out_folder={tmp_path}", *arguments)
    assert "12 of 12 mixtures" in process.stdout
    for row in manifest.read(tmp_path / "manifest.csv"):
        mixture, target, _ = waves(tmp_path, row.name)
        assert len(mixture) == 3 * RATE
        assert snr(target, mixture - target) == pytest.approx(row.snr, abs=0.02)


@pytest.mark.slow
def test_rows_of_a_lost_worker_are_rendered_by_another(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    address = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"], [sys.executable, "-m", "distributed.cli.dask_worker"]
    quiet: dict[str, Any] = {"env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([*dask[0], "--port", "0", "--no-dashboard", f"--scheduler-file={address}"], **quiet)
    one = [*dask[1], f"--scheduler-file={address}", "--nthreads=1", "--no-nanny", "--no-dashboard"]
    workers = [subprocess.Popen(one, **quiet) for _ in range(2)]
    try:
        while not address.exists() or not address.stat().st_size:
            time.sleep(0.1)
        out, alone = tmp_path / "out", tmp_path / "alone"
        words = ["mixing/mix.py", "-cn", "train", f"audios_dir={corpus}", "parts=part", "audio_len=1", "nfiles=400"]
        there = json.loads(address.read_text())["address"]
        cluster = command(*words, f"out_folder={out}", f"cluster={there}")
        mixing = subprocess.Popen(cluster, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        half_written = out / ".1_0_x-mixed.wav.1.part"
        while (n_written := len(list(out.glob("*-mixed.wav")))) < 40:
            assert mixing.poll() is None
            if n_written and not half_written.exists():
                half_written.write_text("what the lost worker was writing")
            time.sleep(0.02)
        workers[0].kill()
        assert "400 of 400 mixtures" in mixing.communicate(timeout=120)[0]
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    run(*words, f"out_folder={alone}", "num_workers=1")
    assert contents(out) == contents(alone)
