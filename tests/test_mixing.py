"""Mixing two speakers: what the keys mean, and that neither workers, nor a kill, nor bad files change a byte of it."""

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile
from conftest import command, run, run_command
from numpy.typing import NDArray

from ss.audio import AudioError
from ss.data import manifest
from ss.data.catalog import Catalog, make_catalog, make_chances
from ss.data.corpus import Span
from ss.data.manifest import Mixture, Row
from ss.data.mix import mix, read_config
from ss.data.plan import plan, plan_row
from ss.data.render import Renderer
from ss.data.scene_settings import Scene
from ss.data.sources import Sources
from ss.data.speech_activity import find_active
from ss.errors import UserError
from ss.files import sole_owner

ROOT = Path(__file__).parents[1]
REAL = Path(__file__).parents[2] / "shared/corpus/speech"
RATE = 16000
N_SPEAKERS, N_UTTERANCES = 5, 3
TALKATIVE = {"little": 40 * RATE, "much": 160 * RATE, "some": 40 * RATE}
Config = dict[str, Any]


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
def config(corpus: Path, tmp_path: Path) -> Config:
    """Whole utterances, trimmed."""
    return {"audios_dir": str(corpus), "out_folder": str(tmp_path / "out"), "nfiles": 12, "snr_levels": [-5, 0, 5], "trim_db": 30}


def planned(config: Config, **changes: Any) -> tuple[list[Row], Callable[[Row], Mixture]]:
    """The rows of a config, and what renders them."""
    scene, sources, folder = read_config({**config, **changes})
    return plan(make_catalog(sources), scene, folder.random_state, folder.nfiles), Renderer(sources)


def catalog_of(config: Config, **changes: Any) -> Catalog:
    return make_catalog(read_config({**config, **changes})[1])


def environment() -> dict[str, str]:
    """The environment, with this repository's package in reach where it is not installed."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def waves(folder: Path, name: str) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Mixture, target and enrolment as integers that do not overflow."""
    read = [soundfile.read(folder / f"{name}-{kind}.wav", dtype="int16")[0] for kind in ("mixed", "target", "ref")]
    mixture, target, ref = (wave.astype(np.int32) for wave in read)
    return mixture, target, ref


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file, but for the lock, which says who was there."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}


def snr(target: NDArray[np.int32], interferer: NDArray[np.int32], row: Row) -> float:
    """Ratio of mean powers in dB, each while it speaks."""
    spoken = [np.zeros(row.samples, bool) for _ in range(2)]
    for mask, voice in zip(spoken, (row.target, row.interferers[0]), strict=True):
        for piece in voice.pieces:
            mask[piece.at :][: piece.stop - piece.start] = True
    powers = [np.square(wave[mask] / 1.0).mean() for wave, mask in zip((target, interferer), spoken, strict=True)]
    return float(10 * np.log10(powers[0] / powers[1]))


def test_command_makes_exact_triplets(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [f"audios_dir={corpus}", f"out_folder={out}", "parts=part", "nfiles=10", "audio_len=1", "ref_max_len=0.5"]
    process = run_command("mixing/mix.py", "-cn", "train", *arguments, "snr_levels=[0,10]", "num_workers=2", "random_state=3")
    assert "10 of 10 mixtures" in process.stdout
    assert "mixing: 100%" in process.stderr
    rows = manifest.read(out / manifest.FILE)
    assert len(rows) == 10
    assert len(list(out.glob("*.wav"))) == 30
    assert {row.interferers[0].level for row in rows} == {0, 10}
    for row in rows:
        assert row.name.startswith(Path(row.target.pieces[0].path).parts[1] + "_")
        mixture, target, ref = waves(out, row.name)
        assert len(mixture) == len(target) == RATE
        assert len(ref) == RATE // 2
        assert max(np.abs(wave).max() for wave in (mixture, target, mixture - target, ref)) <= 0.9 * 32768 + 1
        assert snr(target, mixture - target, row) == pytest.approx(row.interferers[0].level, abs=0.02)
    assert soundfile.info(out / f"{rows[0].name}-mixed.wav").subtype == "PCM_16"


def test_plan_pairs_different_speakers_and_files(config: Config) -> None:
    rows, _ = planned(config, nfiles=300)
    for row in rows:
        assert row.target.speaker == row.enrolment.speaker != row.interferers[0].speaker
        for voice in (row.target, *row.interferers, row.enrolment):
            assert {Path(piece.path).parts[1] for piece in voice.pieces} == {voice.speaker}
        assert not {piece.path for piece in row.target.pieces} & {piece.path for piece in row.enrolment.pieces}
    assert len({row.name for row in rows}) == 300
    assert {row.target.speaker for row in rows} == {row.interferers[0].speaker for row in rows} == set("01234")
    assert len({row.target.pieces[0].path for row in rows}) == N_SPEAKERS * N_UTTERANCES


def drawn(speakers: Mapping[str, int], **more: Any) -> list[tuple[str, str]]:
    """Target and interferer of 600 mixtures of speakers with two files of so many samples."""
    spans = {name: tuple(Span(f"{name}/{number}", 0, n) for number in range(2)) for name, n in speakers.items()}
    speech = {span.path: np.array([[0, span.stop]]) for files in spans.values() for span in files}
    sources = Sources("nowhere", **more)
    catalog = Catalog(sources, spans, (), make_chances(spans, sources), {}, speech, (), ())
    return [(row.target.speaker, row.interferers[0].speaker) for row in plan(catalog, Scene(), 0, 600)]


def test_corpora_may_be_mixed_with_themselves_only() -> None:
    speakers = dict.fromkeys(("a1", "a2", "b1", "b2"), RATE)
    pairs = {("a1", "a2"), ("a2", "a1"), ("b1", "b2"), ("b2", "b1")}
    assert set(drawn(speakers, speaker_group_regex="[a-z]+")) == pairs
    with pytest.raises(UserError, match=r"speaker_group_regex: expected two speakers whose ids agree in \\w\+, found none"):
        drawn(speakers, speaker_group_regex=r"\w+")


def test_who_said_more_may_be_heard_more() -> None:
    for how, share in (("uniform", 1 / 3), ("by_duration", 2 / 3)):
        pairs = drawn(TALKATIVE, speaker_sampling=how)
        assert sum(target == "much" for target, _ in pairs) / 600 == pytest.approx(share, abs=0.06)
        assert all(target != interferer for target, interferer in pairs)


def test_a_row_depends_on_its_number_only(config: Config) -> None:
    rows, _ = planned(config)
    scene, sources, _ = read_config(config)
    assert plan_row(make_catalog(sources), scene, 0, 0, 7) == rows[7]
    assert planned(config, random_state=1)[0] != rows


def test_a_config_makes_the_same_mixtures_for_good(config: Config) -> None:
    rows, render = planned(config, partly_absent_share=0.3)
    digest = hashlib.sha256("".join(map(manifest.to_line, rows)).encode()).hexdigest()
    assert digest[:16] == "b7595af49f8f735d"
    found = {row.name: [(len(wave), int(np.abs(wave.astype(np.int64)).sum())) for wave in render(row)[:3]] for row in rows[:2]}
    known = {
        "4_0000000000_full": [(38400, 34221243), (38400, 17194161), (41984, 34841244)],
        "4_0000000001_full": [(38400, 38407027), (38400, 19959299), (22016, 21351544)],
    }
    assert set(found) == set(known)
    for name, sums in known.items():
        assert found[name] == [(n, pytest.approx(total, rel=1e-6)) for n, total in sums]


def test_shares_are_of_kinds_and_change_no_other_mixture(config: Config) -> None:
    shares = {"absent_share": 0.3, "partly_absent_share": 0.2, "clean_share": 0.1}
    rows, full = planned(config, nfiles=1000, **shares)[0], planned(config, nfiles=1000)[0]
    for starts, share in (("absent", 0.3), ("silent", 0.2), ("alone", 0.1), ("full", 0.4)):
        assert sum(row.pattern.startswith(starts) for row in rows) / 1000 == pytest.approx(share, abs=0.05)
    assert all(row == other for row, other in zip(rows, full, strict=True) if row.pattern == "full")
    assert {row.target.speaker == other.target.speaker for row, other in zip(rows, full, strict=True)} == {True}
    assert {row.pattern for row in planned(config, nfiles=100, clean_share=1.0)[0]} == {"alone"}


@pytest.mark.parametrize("options", [{}, {"audio_len": 0.8, "ref_max_len": 0.5}, {"trim_db": None, "audio_len": 3}])
@pytest.mark.parametrize("share", ["none", "absent", "partly_absent", "clean"])
def test_every_mixture_is_target_plus_interferer(config: Config, share: str, options: Config) -> None:
    rows, render = planned(config, **options, **({} if share == "none" else {f"{share}_share": 1}))
    for row in rows:
        made = render(row)
        mixture, target, *others = (wave.astype(int) for wave in (made.mixture, made.target, *made.interferers))
        assert (mixture == target + sum(others)).all()
        assert max(np.abs(wave).max() for wave in (mixture, target, *others)) <= 0.9 * 32768 + 1
        assert target.any() == (share != "absent")
        assert bool(others) == (share != "clean")
        assert len(mixture) == row.samples == round(options["audio_len"] * RATE) if options else True
        if share == "partly_absent":
            silent = row.samples - sum(piece.stop - piece.start for piece in row.target.pieces)
            assert silent >= 0.29 * row.samples
            stops = [0, *(piece.at + piece.stop - piece.start for piece in row.target.pieces), row.samples]
            starts = [*(piece.at for piece in row.target.pieces), row.samples]
            assert all(not target[stop:start].any() for stop, start in zip(stops, starts, strict=False))


def test_whole_targets_are_kept_and_interferers_fitted(config: Config) -> None:
    rows, render = planned(config, trim_db=None, nfiles=30)
    for row in rows:
        made = render(row)
        (piece,) = row.target.pieces
        source, _ = soundfile.read(Path(config["audios_dir"], piece.path))
        target = made.target / 1.0
        assert len(source) == len(target)
        faded = slice(80, -80)  # 5 ms at both ends
        scale = (target @ source) / (source @ source)
        assert np.abs(target - scale * source)[faded].max() < 0.75
        assert sum(other.stop - other.start for other in row.interferers[0].pieces) <= len(source)


def test_parts_that_cancel_do_not_clip(config: Config, tmp_path: Path) -> None:
    wave = np.random.default_rng(8).uniform(-0.99, 0.99, 2 * RATE)
    for speaker, sign in (("a", 1), ("b", -1)):
        for number in range(2):
            put(tmp_path / f"p/{speaker}/c/{number}.flac", sign * wave)
    rows, render = planned(config, audios_dir=str(tmp_path), nfiles=1, snr_levels=[0], trim_db=None)
    mixture, target = render(rows[0])[:2]
    assert np.abs(mixture).max() <= 1
    assert np.abs(target).max() == pytest.approx(0.9 * 32768, abs=2)


def test_a_source_shorter_than_its_row_is_an_error(config: Config) -> None:
    (row,), render = planned(config, nfiles=1)
    (piece,) = row.enrolment.pieces
    longer = replace(row, ref_samples=10**6, enrolment=manifest.Voice("0", (replace(piece, stop=10**6),)))
    with pytest.raises(AudioError, match=rf"{piece.path}: expected samples {piece.start} to 1000000, found"):
        render(longer)


def test_bytes_do_not_depend_on_workers_or_memory(config: Config, tmp_path: Path) -> None:
    for workers, cache_mb in ((1, 0), (2, 0.1), (8, 100)):
        out = str(tmp_path / str(workers))
        mix({**config, "nfiles": 40, "num_workers": workers, "cache_mb": cache_mb, "out_folder": out, "audio_len": 1})
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "8")


def test_a_killed_run_continues(config: Config, tmp_path: Path) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    nfiles = 400
    arguments = [f"audios_dir={config['audios_dir']}", "parts=part", f"nfiles={nfiles}", "num_workers=2", "snr_levels=[-5,0,5]"]
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
    mix({**config, "out_folder": str(whole), "nfiles": nfiles, "random_state": 2})
    assert contents(out) == contents(whole)


def test_two_runs_in_one_folder_are_refused(config: Config) -> None:
    out = Path(config["out_folder"])
    words = [f"audios_dir={config['audios_dir']}", "parts=part", "nfiles=2", f"out_folder={out}"]
    with sole_owner(out):
        (out / ".1_0_x-mixed.wav.1.part").write_text("what the first run is writing")
        refused = run_command("mixing/mix.py", "-cn", "test", *words, check=False)
    assert refused.returncode == 2
    assert f"{out}: expected no other run in this folder, found process {os.getpid()} on " in refused.stderr
    assert sorted(path.name for path in out.iterdir()) == [".1_0_x-mixed.wav.1.part", "lock"]
    assert "2 of 2 mixtures" in run("mixing/mix.py", "-cn", "test", *words).stdout  # it is free again


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


def test_more_files_continue_and_another_plan_is_refused(config: Config) -> None:
    out = Path(config["out_folder"])
    mix(config)
    before = contents(out)
    mix({**config, "nfiles": 15})
    after = contents(out)
    assert all(after[name] == data for name, data in before.items() if name.endswith(".wav"))
    assert len(list(out.glob("*-mixed.wav"))) == 15
    with pytest.raises(UserError, match=r"manifest.jsonl: expected at most 12 mixtures .* overwrite=true"):
        mix(config)
    with pytest.raises(UserError, match=r"manifest.jsonl, line 1: expected loudness '-30', found 'null'.* overwrite=true"):
        mix({**config, "nfiles": 15, "loudness": -30})
    mix({**config, "overwrite": True})
    assert contents(out) == before
    (out / manifest.FILE).write_text("no row\n")
    with pytest.raises(UserError, match="manifest.jsonl, line 1: expected a row of a manifest, but: "):
        mix(config)
    (out / manifest.FILE).unlink()
    with pytest.raises(UserError, match="found mixtures without"):
        mix(config)


def test_bad_sources_are_reported_and_skipped(tmp_path: Path) -> None:
    root, out = build(tmp_path / "corpus"), tmp_path / "out"
    (root / "part/0/7/0-7-0000.flac").write_bytes(b"no flac")
    broken = root / "part/1/7/1-7-0000.flac"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    silent = put(root / "part/2/7/2-7-0000.flac", np.zeros(2 * RATE))
    other_rate = put(root / "part/3/7/3-7-0000.flac", bursts(np.random.default_rng(0), 2), rate=8000)
    arguments = [f"audios_dir={root}", f"out_folder={out}", "nfiles=60", "num_workers=2", "parts=part"]
    process = run("mixing/mix.py", "-cn", "test", *arguments)
    with (out / "skipped.csv").open() as file:
        skipped = list(csv.DictReader(file))
    for reason in ("0-7-0000.flac: expected a readable", f"{broken}", f"{silent}: expected speech, found silence"):
        assert f"left out {root}" in process.stderr
        assert reason in process.stderr
        assert any(reason in row["reason"] and not row["name"] for row in skipped)
    assert "skipped: 0 mixtures, 3 files of the sources" in process.stdout
    assert "60 of 60 mixtures are in" in process.stdout
    assert any(str(other_rate) in sources(row, root) for row in manifest.read(out / manifest.FILE))  # resampled


def test_a_source_that_is_lost_meanwhile_costs_its_mixtures(tmp_path: Path) -> None:
    root, out = build(tmp_path / "corpus"), tmp_path / "out"
    config = {"audios_dir": str(root), "out_folder": str(out), "nfiles": 40, "snr_levels": [0]}
    lost = root / "part/1/7/1-7-0000.flac"
    rows, _ = planned(config)
    users = {row.name for row in rows if str(lost) in sources(row, root)}
    size, changed = lost.stat().st_size, lost.stat().st_mtime_ns
    lost.write_bytes(bytes(size))  # as the index has it
    os.utime(lost, ns=(changed, changed))
    mix(config)
    with (out / "skipped.csv").open() as file:
        assert {row["name"] for row in csv.DictReader(file)} == users
    assert 0 < len(list(out.glob("*-mixed.wav"))) == len(list(out.glob("*.wav"))) / 3 == 40 - len(users)


def sources(row: Row, root: Path) -> set[str]:
    """The files that a row is made of."""
    return {str(root / piece.path) for voice in (row.target, *row.interferers, row.enrolment) for piece in voice.pieces}


def test_single_utterances_are_split_or_only_interfere(config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for speaker in "ab":
        put(tmp_path / f"single/p/{speaker}/c/0.flac", bursts(rng, 4))
    put(tmp_path / "single/p/a_short/c/0.flac", bursts(rng, 1.2))
    single = {**config, "audios_dir": str(tmp_path / "single"), "trim_db": None}
    rows, _ = planned(single, split_single_utterances=True)
    assert {row.target.speaker for row in rows} == {"a", "b"}
    assert "a-short" in {row.interferers[0].speaker for row in rows}
    for row in rows:
        (target,), (ref,) = row.target.pieces, row.enrolment.pieces
        assert target.path == ref.path
        assert target.stop <= ref.start or ref.stop <= target.start
    assert {row.target.pieces[0].start == 0 for row in rows} == {True, False}
    with pytest.raises(UserError, match=r"expected a speaker with two utterances.*split_single_utterances=true"):
        mix(single)


@pytest.mark.parametrize("options", [{}, {"audio_len": 1.0}, {"partly_absent_share": 1}])
def test_loudness_is_what_is_asked(config: Config, options: Config) -> None:
    meter = pyloudnorm.Meter(RATE)
    rows, render = planned(config, loudness=-30, snr_levels=[0, 6], **options)
    for row in rows:
        mixture, target = (wave / 32768 for wave in render(row)[:2])
        assert meter.integrated_loudness(target) == pytest.approx(-30, abs=0.1)
        assert meter.integrated_loudness(mixture - target) == pytest.approx(-30 - row.interferers[0].level, abs=0.1)


def test_what_is_too_short_has_no_loudness(config: Config) -> None:
    rows, render = planned(config, loudness=-30, audio_len=0.3)
    with pytest.raises(AudioError, match="expected at least 6400 samples to measure the loudness of, found 4800"):
        render(rows[0])


def test_trim_and_vad_reach_the_mixture(config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for speaker in "ab":
        for number in range(2):
            put(tmp_path / f"p/{speaker}/c/{number}.flac", np.concatenate([bursts(rng, 1), np.zeros(RATE), bursts(rng, 1)]))
    lengths = []
    for options in ({"trim_db": None, "vad_db": None}, {"trim_db": 30, "vad_db": None}, {"trim_db": None, "vad_db": 30}):
        rows, render = planned(config, audios_dir=str(tmp_path), nfiles=1, **options)
        lengths.append(len(render(rows[0]).target) / RATE)
    whole, trimmed, dense = lengths
    assert whole == 3 + 2 * 5000 / RATE
    assert 0.1 < whole - trimmed < 5000 / RATE
    assert 0.7 < trimmed - dense < 1 + 5000 / RATE


def test_short_pauses_inside_words_stay() -> None:
    wave = np.random.default_rng(4).standard_normal(RATE).astype(np.float32)
    wave[5120 : 5120 + 4 * 512] = 0  # 0.13 s
    assert find_active(wave, 30, RATE).all()
    wave[5120 : 5120 + 8 * 512] = 0
    assert np.count_nonzero(~find_active(wave, 30, RATE)) == 4


def test_cuts_are_not_made_in_pauses(config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    for speaker in "ab":
        for number in range(2):
            put(tmp_path / f"p/{speaker}/c/{number}.flac", np.concatenate([bursts(rng, 1), np.zeros(6 * RATE), bursts(rng, 1)]))
    rows, render = planned(config, audios_dir=str(tmp_path), trim_db=40, audio_len=1, ref_max_len=1, nfiles=20)
    for row in rows:
        assert all(np.abs(wave).max() > 100 for wave in render(row)[:3])


def test_speakers_can_be_chosen(config: Config) -> None:
    def ids(**changes: Any) -> set[str]:
        return set(catalog_of(config, **changes).speakers)

    assert ids(speakers=["1", "3", "4"], exclude_speakers=["3"]) == {"1", "4"}
    assert ids(speakers=[1, 2]) == {"1", "2"}
    assert len(ids(max_n_speakers=3)) == 3
    assert ids(max_n_speakers=3) == ids(max_n_speakers=3)
    assert len({frozenset(ids(max_n_speakers=3, random_state=seed)) for seed in range(10)}) > 1


def test_templates(config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for speaker in "ab":
        for part in ("wav1", "wav2"):
            put(tmp_path / f"{part}/p_{speaker}/p_{speaker}_1.wav", bursts(rng, 1.5))
    other = {**config, "audios_dir": str(tmp_path), "template": "{part}/{speaker}/{speaker}_*.wav"}
    everybody = catalog_of(other).speakers
    assert {speaker: len(spans) for speaker, spans in everybody.items()} == {"p-a": 2, "p-b": 2}
    assert catalog_of(other, parts="wav?").speakers == catalog_of(other, parts=["wav2", "wav1"]).speakers == everybody
    assert len(catalog_of(other, parts="wav2", split_single_utterances=True, min_len=0.5).speakers["p-a"]) == 1
    one = catalog_of(other, template="wav1/*/{speaker}_1.wav", split_single_utterances=True, min_len=0.5)
    assert set(one.speakers) == {"p-a", "p-b"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audios_dir": "/nowhere"}, "audios_dir: expected a folder, found none at /nowhere"),
        ({"template": "{part}/{speaker}/*.wav"}, r"expected audio files .* that match \*/\*/\*.wav, found none"),
        ({"parts": ["part", "other"]}, r"that match other/\*/\*/\*, found none"),
        ({"parts": "part", "template": "*/{speaker}/*/*"}, r"template: expected \{part\}"),
        ({"template": "*/*/*/*"}, r"template: expected \{speaker\}"),
        ({"speakers": ["2"]}, "expected at least two speakers .*, found 1"),
        ({"min_len": 60.0}, "at least two speakers with 60.0 s of speech in a file, found 0 in 15 files"),
        ({"exclude_speakers": ["2", "nobody"]}, "exclude_speakers: .* not found there: nobody"),
        ({"snr_levels": []}, "sir_levels: expected at least one level"),
        ({"absent_share": 0.6, "clean_share": 0.5}, "shares: .*at most 1 together, found absent_share 0.6"),
        ({"clean_share": -0.1}, "shares: expected at least 0 each"),
        ({"audio_len": 0}, "seconds: expected more than 0"),
        ({"nfiles": 0}, "nfiles: expected more than 0, got 0"),
        ({"min_len": -1}, "min_len: expected 0 or more, got -1"),
        ({"extension": "mp3"}, "extension: expected one of wav, flac, found mp3"),
        ({"speaker_sampling": "often"}, "speaker_sampling: expected one of uniform, by_duration, found often"),
    ],
)
def test_errors_say_what_was_expected(config: Config, changes: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mix({**config, **changes})


def test_unknown_keys_and_nothing_made_are_errors(config: Config, corpus: Path, tmp_path: Path) -> None:
    process = run("mixing/mix.py", f"audios_dir={corpus}", f"out_folder={tmp_path}", "+audio_length=3", check=False)
    assert process.returncode
    assert "unknown key audio_length: expected some of audios_dir," in process.stderr
    with pytest.raises(UserError, match=r"all 12 were skipped; the first because .*to measure the loudness of"):
        mix({**config, "audio_len": 0.3, "loudness": -30})


def test_flac_triplets_hold_the_same_samples(config: Config, tmp_path: Path) -> None:
    mix({**config, "nfiles": 2})
    mix({**config, "nfiles": 2, "extension": "flac", "out_folder": str(tmp_path / "flac")})
    for path in Path(config["out_folder"]).glob("*.wav"):
        other = tmp_path / "flac" / f"{path.stem}.flac"
        assert np.array_equal(soundfile.read(path, dtype="int16")[0], soundfile.read(other, dtype="int16")[0])


def test_benchmark_prints_a_speed(corpus: Path) -> None:
    lines = run("mixing/benchmark.py", f"audios_dir={corpus}", "nfiles=5", "repeats=2").stdout.splitlines()
    assert lines[1].startswith("every file decoded anew: ")
    assert "MB of decoded audio kept: " in lines[2]
    assert all(line.endswith(" seconds of mixture written per second of one core") for line in lines[1:])


@pytest.mark.corpus
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no corpus at {REAL}")
def test_real_corpus(tmp_path: Path) -> None:
    arguments = ["parts=test", "nfiles=12", "audio_len=3", "ref_max_len=3", "split_single_utterances=true", "num_workers=2"]
    process = run("mixing/mix.py", "-cn", "train", f"audios_dir={REAL}", f"out_folder={tmp_path}", *arguments)
    assert "12 of 12 mixtures" in process.stdout
    for row in manifest.read(tmp_path / manifest.FILE):
        mixture, target, _ = waves(tmp_path, row.name)
        assert len(mixture) == 3 * RATE
        assert snr(target, mixture - target, row) == pytest.approx(row.interferers[0].level, abs=0.02)


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
