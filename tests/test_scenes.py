"""Scenes: what is planned and heard, and that the same row is the same bytes in files, in loaders, and after a resume."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import soundfile
import soxr
import yaml
from conftest import RATE, ROOT, TINY, composed, make_triplets, run, voice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ss import audio
from ss.audio import AudioError, Wave
from ss.data import manifest
from ss.data.acoustics import apply_codec, restore_formants
from ss.data.audio_cache import AudioCache
from ss.data.augment import change_speed, scene_of
from ss.data.catalog import Catalog, Group, draw_others, make_catalog
from ss.data.index import index, index_path
from ss.data.manifest import Mixture, Row, Voice
from ss.data.mix import mix, render_row
from ss.data.pitch import median_pitch
from ss.data.plan import plan, plan_row, plan_times
from ss.data.render import Renderer
from ss.data.scene_settings import CODECS, PATTERNS, Enrolment, Scene
from ss.data.sources import Sources
from ss.datasets import Rendered, TrainingBatches, loader
from ss.errors import UserError

SPEAKERS, UTTERANCES = 5, 3
PEAK = 0.9 * 32768 + 1
ALL = dict.fromkeys(PATTERNS, 1.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Five speakers with pauses before, between and after what they say; noise; a room."""
    root, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for speaker in range(SPEAKERS):
        for number in range(UTTERANCES):
            pause = np.zeros(RATE // 4, np.float32)
            parts = [voice(rng, 90 + 40 * speaker, round(rng.uniform(0.5, 1.2) * RATE)) for _ in range(2)]
            put(root / f"speech/part/{speaker}/1/{number}.flac", np.concatenate([pause, parts[0], pause, parts[1], pause]))
    put(root / "noise/hum.wav", 0.1 * rng.standard_normal(RATE // 2))
    put(root / "rirs/hall.wav", np.exp(-np.arange(4000) / 600) * rng.standard_normal(4000) * 0.1 + np.eye(1, 4000, 30)[0] * 0.9)
    return Sources(str(root / "speech"), noise=str(root / "noise"), rirs=str(root / "rirs"))


def put(path: Path, wave: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="PCM_16")


@pytest.fixture(scope="module")
def found(sources: Sources) -> Catalog:
    genders = Path(sources.audios_dir).with_name("genders.csv")
    genders.write_text("speaker,gender\n0,f\n1,f\n2,m\n3,m\n4,\n")
    return make_catalog(replace(sources, genders=str(genders)))


@pytest.fixture(scope="module")
def render(found: Catalog) -> Renderer:
    return Renderer(found.sources, 10, found.files)


def power(wave: np.ndarray, voice: Voice) -> float:
    """Mean power of a wave over the time in which a voice speaks."""
    spoken = np.zeros(len(wave), bool)
    for piece in voice.pieces:
        spoken[piece.at :][: int((piece.stop - piece.start) / voice.speed)] = True
    return float(np.square(wave.astype(float)).sum() / spoken.sum())


ranges = st.tuples(st.floats(-10, 0), st.floats(0, 10))
scenes = st.builds(
    Scene,
    seconds=st.sampled_from([(0.5, 1.5), (2.0, 4.0)]),
    patterns=st.dictionaries(st.sampled_from(PATTERNS), st.floats(0.1, 1), min_size=1),
    interferers=st.sampled_from([(0, 1), (1, 1), (1, 3), (3, 3)]),
    sir=ranges,
    snr=ranges,
    speed_share=st.floats(0, 1),
    noise_share=st.floats(0, 1),
    reverb_share=st.floats(0, 1),
    early_ms=st.sampled_from([None, 20.0]),
    bandwidth_share=st.floats(0, 1),
    level=st.sampled_from([(-40.0, -35.0), (-25.0, -5.0)]),
    clip_share=st.sampled_from([0.0, 0.3]),
    codec_share=st.sampled_from([0.0, 0.3]),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scene=scenes, seed=st.integers(0, 2**31), number=st.integers(0, 10**6))
def test_every_scene_is_exact(found: Catalog, render: Renderer, scene: Scene, seed: int, number: int) -> None:
    row = plan_row(found, scene, seed, 0, number)
    assert row == plan_row(found, scene, seed, 0, number)
    assert row.pattern in scene.patterns
    heard = render(row)
    assert len(heard.mixture) == len(heard.target) == row.samples
    assert len(heard.ref) == row.ref_samples > 0.3 * RATE
    assert heard.ref.any()
    parts = [heard.target, *heard.interferers, *heard.others]
    assert max(np.abs(wave.astype(int)).max() for wave in (*parts, heard.ref)) <= PEAK
    if row.linear:
        assert (np.sum(parts, axis=0, dtype=int) == heard.mixture).all()
        assert np.abs(heard.mixture.astype(int)).max() <= PEAK + len(parts)
    check_who_is_heard(row, heard)


def check_who_is_heard(row: Row, heard: Mixture) -> None:
    """The target is there unless it is absent, nobody else if it is alone; and nothing of it is in the enrolment."""
    assert heard.target.any() == (row.pattern != "absent" and bool(row.target.pieces))
    assert not (row.pattern == "alone" and row.interferers)
    assert len({row.target.speaker, *(voice.speaker for voice in row.interferers)}) == 1 + len(row.interferers)
    spoken = {piece.path for piece in row.target.pieces}
    assert not spoken & {piece.path for piece in row.enrolment.pieces}


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sir=st.floats(-10, 10), pattern=st.sampled_from(["full", "partial", "turns", "silent_middle"]), number=st.integers(0, 10**6))
def test_the_sir_is_as_planned(found: Catalog, render: Renderer, sir: float, pattern: str, number: int) -> None:
    scene = Scene(patterns={pattern: 1}, sir=(sir, sir), interferers=(1, 2), reverb_share=0.5, speed_share=0.5, level=(-20, -20))
    row = plan_row(found, scene, 1, 0, number)
    heard = render(row)
    for interferer, wave in zip(row.interferers, heard.interferers, strict=True):
        if row.target.pieces:
            ratio = 10 * np.log10(power(heard.target, row.target) / power(wave, interferer))
            assert ratio == pytest.approx(sir, abs=0.1)


def test_patterns_are_what_they_are_called(found: Catalog, render: Renderer) -> None:
    def heard(pattern: str, **more: Any) -> tuple[np.ndarray, np.ndarray]:
        row = plan_row(found, Scene(seconds=(3, 3), patterns={pattern: 1}, **more), 0, 0, 3)
        out = render(row)
        return out.target != 0, np.any([wave != 0 for wave in out.interferers], axis=0) if out.interferers else np.zeros(1)

    third = RATE
    target, _ = heard("silent_start", silence=(0.5, 0.5))
    assert not target[: third + 1000].any()
    target, _ = heard("silent_end", silence=(0.5, 0.5))
    assert not target[-third - 1000 :].any()
    target, other = heard("partial", overlap=(0, 0))
    assert not (target & other).any()
    target, other = heard("turns", gap=(0.1, 0.2), turn=(0.5, 0.8))
    assert not (target & other).any()
    assert target.any()
    assert other.any()
    target, other = heard("full")
    assert (target & other).mean() > 0.5


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    n_others=st.integers(0, 3),
    seconds=st.floats(0.2, 10),
    gap=st.sampled_from([(-0.3, 0.6), (-2.0, 0.0), (0.0, 0.0), (1.0, 3.0)]),
    turn=st.sampled_from([(0.8, 3.0), (0.3, 0.5), (5.0, 9.0)]),
    seed=st.integers(0, 2**31),
)
def test_turns_alternate_and_nobody_speaks_twice_at_once(
    n_others: int, seconds: float, gap: tuple[float, float], turn: tuple[float, float], seed: int
) -> None:
    samples = round(seconds * RATE)
    times = plan_times("turns", n_others, samples, Scene(gap=gap, turn=turn), RATE, np.random.default_rng(seed))
    assert times[0], "the target never speaks"
    for own in times:
        assert all(stop <= start for (_, stop), (start, _) in pairwise(own)), "a speaker overlaps itself"
        assert all(0 <= start < stop <= samples for start, stop in own)
        assert all(stop - start >= min(0.3 * RATE, samples) for start, stop in own), "a turn is too short to hear"
    order = [speaker for _, speaker in sorted((start, speaker) for speaker, own in enumerate(times) for start, _ in own)]
    assert n_others == 0 or all(one != other for one, other in pairwise(order)), "somebody has two turns in a row"
    assert 0 in order[:2]


def test_the_target_speaks_in_every_scene_of_turns(found: Catalog, render: Renderer) -> None:
    rows = plan(found, Scene(seconds=(1, 4), patterns={"turns": 1}, interferers=(1, 3), speed_share=0.5), 0, 300)
    for row in rows:
        assert row.target.pieces
        for one in (row.target, *row.interferers):
            stops = [piece.at + floor((piece.stop - piece.start) / one.speed) for piece in one.pieces]
            assert all(stop <= piece.at for stop, piece in zip(stops, one.pieces[1:], strict=False))
    assert all(render(row).target.any() for row in rows[:30])


def test_interferers_on_an_unbalanced_corpus(found: Catalog) -> None:
    """One speaker has nearly all of the speech: the others are still found, each as often as by its speech without the target."""
    chances = [1, 2, 3, 4000]
    group = Group.from_chances({str(speaker): n for speaker, n in enumerate(chances)})
    rng = np.random.default_rng(0)
    for n in (1, 2, 3):
        assert sorted(draw_others(group, "3", n, rng))[-1] != "3"
    assert sorted(draw_others(group, "3", 3, rng)) == ["0", "1", "2"]
    drawn = Counter(draw_others(group, "3", 1, rng)[0] for _ in range(6000))
    assert [drawn[name] / 6000 for name in "012"] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.02)
    pairs = Counter(frozenset(draw_others(group, "3", 2, rng)) for _ in range(6000))
    expected = {"01": 1 / 6 * 2 / 5 + 2 / 6 * 1 / 4, "02": 1 / 6 * 3 / 5 + 3 / 6 * 1 / 3, "12": 2 / 6 * 3 / 4 + 3 / 6 * 2 / 3}
    assert {names: pairs[frozenset(names)] / 6000 for names in expected} == pytest.approx(expected, abs=0.02)
    with pytest.raises(UserError, match="interferers: expected 4 speakers beside 3, found 3"):
        draw_others(group, "3", 4, rng)


def test_an_unbalanced_corpus_can_be_planned(found: Catalog) -> None:
    group = Group.from_chances({"0": 4000, "1": 1, "2": 1, "3": 1, "4": 1})
    unbalanced = found._replace(drawn=found.drawn._replace(targets=["0"] * 4000 + list("1234"), interferers={"": group}))
    rows = plan(unbalanced, Scene(interferers=(3, 3), seconds=(0.5, 0.5)), 0, 100)
    assert all(len({row.target.speaker, *(other.speaker for other in row.interferers)}) == 4 for row in rows)


def test_interferers_may_have_the_gender_of_the_target(found: Catalog) -> None:
    alike = {"0": "1", "1": "0", "2": "3", "3": "2"}
    for share in (1.0, 0.5):
        rows = plan(found, Scene(same_gender_share=share), 0, 1500)
        pairs = [(row.target.speaker, row.interferers[0].speaker) for row in rows]
        same = [alike[target] == other for target, other in pairs if target != "4"]
        assert np.mean(same) == pytest.approx(share + (1 - share) / 4, abs=0.04)  # 1 of 4 others has it
        assert {other for target, other in pairs if target == "4"} == set("0123")  # whose gender is not known
    assert all(len(row.interferers) == 3 for row in plan(found, Scene(same_gender_share=1, interferers=(3, 3)), 0, 20))


def test_interferers_may_have_the_pitch_of_the_target(found: Catalog) -> None:
    assert found.by_pitch == {"": list("01234")}  # 90, 130, 170, 210 and 250 Hz
    for share in (1.0, 0.5):
        pairs = [(row.target.speaker, row.interferers[0].speaker) for row in plan(found, Scene(same_pitch_share=share), 0, 1500)]
        near = [abs(int(target) - int(other)) == 1 for target, other in pairs]
        assert np.mean(near) == pytest.approx(share + (1 - share) * 8 / 20, abs=0.04)
    assert all(len(row.interferers) == 3 for row in plan(found, Scene(same_pitch_share=1, interferers=(3, 3)), 0, 20))


@pytest.mark.parametrize(("rate", "hz"), [(8000, 90), (16000, 130), (16000, 260), (44100, 330)])
def test_the_pitch_of_a_voice_is_found(rate: int, hz: int) -> None:
    time = np.arange(rate) / rate
    tone = sum(np.sin(2 * np.pi * hz * k * time + k) / k for k in range(1, 6)).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    assert median_pitch(np.concatenate([tone, 0.01 * noise]), rate) == pytest.approx(hz, rel=0.02)
    assert median_pitch(noise, rate) == median_pitch(tone[:10], rate) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("speaker,sex\n0,f\n", "genders.csv: expected a speaker and a gender in its lines, found no gender"),
        ("speaker,gender\n0,f\n0,m\n", "genders.csv, entry 2: expected f as the gender of 0, like before, found m"),
        ("speaker,gender\nx,f\n", "genders.csv: expected the genders of speakers in .*, found only of others"),
        ("who,gender\n0,f\n", "genders.csv, entry 1: expected speaker or speaker_id or spk, found only gender, who"),
    ],
)
def test_wrong_genders_are_refused(sources: Sources, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "genders.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        make_catalog(replace(sources, genders=str(tmp_path / "genders.csv")))


def test_few_interferers_are_more_frequent(found: Catalog) -> None:
    numbers = Counter(len(row.interferers) for row in plan(found, Scene(interferers=(1, 2), fewest_share=0.6), 0, 1500))
    assert numbers[2] / 1500 == pytest.approx(0.2, abs=0.04)
    assert numbers[1] + numbers[2] == 1500


def test_somebody_speaks_where_the_target_is_absent(found: Catalog, render: Renderer) -> None:
    rows = plan(found, Scene(seconds=(1, 1), patterns={"absent": 1}, interferers=(0, 2), noise_share=0.5), 0, 60)
    for row in rows:
        heard = render(row)
        assert not heard.target.any()
        assert any(wave.any() for wave in heard.interferers)
        assert heard.ref.any()
        assert {Path(piece.path).parts[1] for piece in row.enrolment.pieces} == {row.target.speaker}
        assert row.target.speaker not in {other.speaker for other in row.interferers}


def test_who_is_alone_may_be_in_a_noisy_room(found: Catalog, render: Renderer) -> None:
    row = plan_row(found, Scene(patterns={"alone": 1}, interferers=(1, 2), noise_share=1, reverb_share=1, early_ms=20), 0, 0, 0)
    assert (row.target.rir, row.noise is not None, row.interferers) == ("hall.wav", True, ())
    late, noise = render(row).others
    assert late.any()
    assert noise.any()


@pytest.mark.parametrize(
    ("seconds", "asked", "part"),
    [
        (4, (1, 4), 1.0),  # a fifth would be shorter than min_len
        (4, (15, 3), 2.0),  # not enough for both: half is left to speak
        (24, (15, 3), 20.0),
        (24, (3, 3), 12.0),
    ],
)
def test_an_only_utterance_serves_both(tmp_path: Path, seconds: int, asked: tuple[float, float], part: float) -> None:
    rng = np.random.default_rng(0)
    for speaker in "ab":
        put(tmp_path / f"p/{speaker}/1/0.wav", 0.1 * rng.standard_normal(seconds * RATE))
    single = make_catalog(Sources(str(tmp_path), split_single_utterances=True))
    scene = Scene(seconds=(asked[1], asked[1]), enrolment=Enrolment(seconds=(asked[0], asked[0])), speed_share=0.5)
    for row in plan(single, scene, 0, 30):
        ref, spoken = row.enrolment.pieces, row.target.pieces
        assert all(one.stop <= other.start or other.stop <= one.start for one in ref for other in spoken)
        assert all(0 <= piece.start < piece.stop <= seconds * RATE for piece in (*ref, *spoken))
        assert row.ref_samples / RATE == pytest.approx(min(asked[0], part / row.target.speed), abs=0.01)
        assert len(Renderer(single.sources)(row).ref) == row.ref_samples


def test_whole_utterances(found: Catalog) -> None:
    scene = Scene(seconds=None, enrolment=Enrolment(seconds=None), patterns={"full": 1, "silent_middle": 0.5})
    for row in plan(found, scene, 0, 30):
        if row.pattern == "full":
            (piece, *_) = row.target.pieces
            assert piece.stop - piece.start == row.samples
        spans = {span.path: span for span in found.speakers[row.target.speaker]}
        assert all(spans[piece.path][1:] == (piece.start, piece.stop) for piece in row.enrolment.pieces)
        assert row.ref_samples == sum(piece.stop - piece.start for piece in row.enrolment.pieces)


def test_pauses_can_be_dropped(sources: Sources) -> None:
    dense = make_catalog(replace(sources, drop_pauses=True))
    inside = 0
    for row in plan(dense, Scene(seconds=(0.8, 2)), 0, 60):
        for piece in (*row.target.pieces, *row.interferers[0].pieces, *row.enrolment.pieces):
            assert any(start <= piece.start < piece.stop <= stop for start, stop in dense.speech[piece.path])
        inside += len({piece.path for piece in row.target.pieces}) < len(row.target.pieces)
        stops = [piece.at + piece.stop - piece.start for piece in row.target.pieces]
        assert all(stop <= piece.at for stop, piece in zip(stops, row.target.pieces[1:], strict=False))
    assert inside > 10  # joined where a pause was


def test_only_early_reflections_are_asked_for(found: Catalog, render: Renderer) -> None:
    whole, early = (
        render(plan_row(found, Scene(patterns={"alone": 1}, reverb_share=1, early_ms=ms), 0, 0, 0)) for ms in (None, 10.0)
    )
    assert not whole.others
    assert (whole.mixture == whole.target).all()
    (late,) = early.others
    assert (early.target + late == early.mixture).all()
    assert 0.01 < np.square(late / 1.0).sum() / np.square(early.mixture / 1.0).sum() < 0.9


def test_rooms_can_be_simulated(found: Catalog, render: Renderer) -> None:
    pytest.importorskip("pyroomacoustics")
    scene = Scene(reverb_share=1, rt60=(0.3, 0.3), seconds=(1, 1))
    row = plan_row(found, scene, 0, 0, 0)
    assert row.target.room
    assert row.target.room.size == row.interferers[0].room.size  # type: ignore[union-attr]
    assert row.target.room.source != row.interferers[0].room.source  # type: ignore[union-attr]
    assert (render(row).mixture == Renderer(render.sources)(row).mixture).all()


def test_a_silent_room_is_refused(sources: Sources, tmp_path: Path) -> None:
    put(tmp_path / "silent.wav", np.zeros(1000))
    silent = replace(sources, rirs=str(tmp_path))
    row = plan_row(make_catalog(silent), Scene(reverb_share=1), 0, 0, 0)
    with pytest.raises(AudioError, match=r"silent\.wav: expected an impulse response, found silence"):
        Renderer(silent)(row)


def test_rooms_may_be_from_files_and_simulated(found: Catalog) -> None:
    rows = plan(found, Scene(reverb_share=1, rt60=(0.2, 0.6), simulated_share=0.3), 0, 500)
    assert all((voice.rir is None) != (voice.room is None) for row in rows for voice in (row.target, *row.interferers))
    assert np.mean([row.target.room is not None for row in rows]) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 96000])
@pytest.mark.parametrize("codec", CODECS)
def test_codecs_keep_length_and_place(codec: str, rate: int) -> None:
    wave = soxr.resample(voice(np.random.default_rng(0), 200, 2 * RATE), RATE, rate)
    back = apply_codec(wave, codec, rate)
    assert len(back) == len(wave)
    error = np.square(back - wave).sum() / np.square(wave).sum()
    assert 1e-6 < error < 0.1


def test_a_bandwidth_that_a_rate_has_anyway_changes_nothing(sources: Sources) -> None:
    narrow = replace(sources, sample_rate=8000)
    row = plan_row(make_catalog(narrow), Scene(bandwidth_share=1), 0, 0, 0)
    assert row.bandwidth == 4000
    assert (Renderer(narrow)(row).mixture == Renderer(narrow)(replace(row, bandwidth=None)).mixture).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patterns": {"sung": 1}}, "patterns: expected some of full, partial"),
        ({"interferers": [1, 4]}, "interferers: expected 0 to 3"),
        ({"sir": [5, -5]}, r"sir: expected \[low, high\]"),
        ({"sir": [float("nan"), 5]}, r"sir: expected \[low, high\]"),
        ({"noise_share": 2}, "noise_share: expected a part from 0 to 1"),
        ({"codecs": ["tape"]}, "codecs: expected some of mulaw"),
        ({"sir_levels": []}, "sir_levels: expected at least one level in dB, found none"),
        ({"volume": 1}, "unknown key volume: expected some of seconds"),
        ({"enrolment": {"utterances": [0, 1]}}, "expected more than 0"),
        ({"enrolment": {"level": [-20, -30]}}, r"level: expected \[low, high\]"),
    ],
)
def test_a_wrong_scene_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Scene.from_config(changes)


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (Scene(noise_share=1), "noise_share: expected a folder of files"),
        (Scene(reverb_share=1), "reverb_share: expected impulse responses"),
        (Scene(same_gender_share=1), "same_gender_share: expected a file with the speakers' genders"),
    ],
)
def test_what_a_scene_needs_must_be_there(sources: Sources, scene: Scene, message: str) -> None:
    bare = make_catalog(replace(sources, noise=None, rirs=None))
    with pytest.raises(UserError, match=message):
        plan_row(bare, scene, 0, 0, 0)


def test_every_preset_can_be_planned(found: Catalog, render: Renderer) -> None:
    presets = list(yaml.safe_load((ROOT / "configs" / "groups" / "scene.yaml").read_text()))
    assert len(presets) >= 7
    patterns = {}
    for name in presets:
        rows = plan(found, Scene.from_config(composed("configs", None, f"+scene={name}")["scene"]), 0, 30)
        assert all(render(row).mixture.any() for row in rows[:3])
        patterns[name] = {row.pattern for row in rows}
    assert patterns["two_speakers"] == {"full"}
    assert patterns["absent"] == {"absent"}
    assert patterns["clean"] == {"alone"}
    assert patterns["meeting"] == {"turns", "partial"}
    assert len(patterns["everything"]) > 4


def test_rows_are_kept_exactly(found: Catalog, tmp_path: Path) -> None:
    rows = plan(found, Scene(patterns=ALL, noise_share=0.5, reverb_share=0.5, rt60=(0.2, 0.4), interferers=(0, 3)), 0, 50)
    manifest.write(tmp_path / "manifest.jsonl", map(manifest.to_line, rows))
    assert manifest.read(tmp_path / "manifest.jsonl") == rows
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write('{"name": "x"}\n')
    with pytest.raises(UserError, match="line 51: expected a row of a manifest"):
        manifest.read(tmp_path / "manifest.jsonl")


def test_the_cache_changes_no_byte(tmp_path: Path) -> None:
    wave = voice(np.random.default_rng(0), 150, 3 * RATE)
    kinds = {"a.flac": (RATE, "PCM_24"), "b.ogg": (RATE, "VORBIS"), "c.wav": (22050, "FLOAT")}
    files = [tmp_path / name for name in kinds]
    for path, (rate, subtype) in zip(files, kinds.values(), strict=True):
        soundfile.write(path, wave, rate, subtype=subtype)
    read = partial(audio.read_any, sample_rate=RATE)
    kept, fresh, small = (AudioCache(files, read, megabytes, np.int16) for megabytes in (10, 0, 0.12))
    for path in files:
        for start, stop in ((100, 20000), (0, 300), (15000, 31000)):
            parts = [cache.read(path, start, stop) for cache in (kept, fresh, small)]
            assert len(parts[0]) == stop - start
            assert all((part == parts[0]).all() for part in parts)
        with pytest.raises(AudioError, match="expected samples 100 to 60000, found"):
            kept.read(path, 100, 60000)
    assert fresh.used == 0
    assert small.used == 2 * 3 * RATE  # there is room for the first only
    for path in files:
        path.unlink()
        assert len(kept.read(path)) > 2 * RATE


def test_a_file_that_two_processes_decode_at_once_is_kept_once() -> None:
    files = {Path("a"): np.full(100, 0.25, np.float32), Path("b"): np.full(100, 0.5, np.float32)}
    decoded: list[Path] = []

    def decode(path: Path, **part: int) -> np.ndarray:
        decoded.append(path)
        if len(decoded) == 1:  # another process is as far, and is done before this one
            assert (cache.read(path) == files[path]).all()
        return files[path]

    cache = AudioCache(files, decode, 800e-6)  # room for both
    for path in [*files, *files]:
        assert (cache.read(path) == files[path]).all()
    assert [path.name for path in decoded] == ["a", "a", "b"]
    assert cache.used == 800


def test_noise_goes_on_with_its_beginning(tmp_path: Path) -> None:
    hum, path = np.arange(100, dtype=np.int16), tmp_path / "hum.wav"
    soundfile.write(path, hum, RATE)
    for megabytes in (0, 1):
        looped = AudioCache([path], partial(audio.read_any, sample_rate=RATE), megabytes, np.int16).loop(path, 70, 250) * 32768
        assert (looped == np.resize(np.roll(hum, -70), 250)).all()


SCENE = {
    "seconds": [0.6, 0.6],
    "patterns": {"full": 1, "absent": 0.3},
    "noise_share": 0.5,
    "interferers": [1, 2],
    "speed_share": 0.5,
}


def dataset(sources: Sources, **changes: Any) -> Rendered:
    given = {"audios_dir": sources.audios_dir, "noise": sources.noise}
    return Rendered(SCENE, given, examples=12, cache_mb=5, speakers=[str(i) for i in range(SPEAKERS)], seed=3, **changes)


def test_files_and_loaders_hear_the_same(sources: Sources, found: Catalog) -> None:
    data = dataset(sources)
    rows = plan(found, Scene.from_config(SCENE), 3, 12, epoch=2)
    expected = {row.name: render_row(row, sources) for row in rows}
    for workers in (0, 1, 4):
        batches = TrainingBatches(len(data), 3, seed=0)
        batches.start(2)
        seen = 0
        for batch in loader(data, batches, workers):
            for name, mixture, target, length in zip(batch.names, batch.mixture, batch.target, batch.lengths, strict=True):
                assert (mixture[:length].numpy() * 32768 == expected[name].mixture).all()
                assert (target[:length].numpy() * 32768 == expected[name].target).all()
                seen += 1
        assert seen == 12


def test_a_resumed_epoch_goes_on_where_it_was(sources: Sources) -> None:
    data = dataset(sources)

    def names(epoch: int, heard: int) -> list[tuple[str, ...]]:
        batches = TrainingBatches(len(data), 3, seed=0)
        batches.start(epoch, heard)
        made: DataLoader[Any] = loader(data, batches)
        return [batch.names for batch in made]

    assert names(1, 2 * 3) == names(1, 0)[2:]
    assert set(sum(names(1, 0), ())).isdisjoint(sum(names(2, 0), ()))


def test_an_enrolment_has_a_level_of_its_own(found: Catalog, render: Renderer) -> None:
    scene = Scene(level=(-30, -30))
    rows, others = plan(found, scene, 0, 12), plan(found, replace(scene, enrolment=Enrolment(level=(-45, -25))), 0, 12)
    assert "ref_level" not in manifest.to_line(rows[0])
    levels = [other.ref_level for other in others]
    assert all(level is not None and -45 <= level <= -25 for level in levels)
    assert len(set(levels)) == 12
    for row, other in zip(rows, others, strict=True):
        assert replace(other, ref_level=None) == row  # nothing else is drawn anew
        one, two = render(row), render(other)
        np.testing.assert_array_equal(one.mixture, two.mixture)
        for wave, level in ((one.ref, -30), (two.ref, other.ref_level)):
            assert 20 * np.log10(np.sqrt(np.square(wave.astype(float)).mean()) / 32768) == pytest.approx(level, abs=0.1)


def test_an_enrolment_has_a_speed_of_its_own(found: Catalog, render: Renderer) -> None:
    scene = Scene(speed_share=0.5, speed=(0.9, 1.1), enrolment=Enrolment(speed=(0.95, 1.05)))
    rows = plan(found, scene, 0, 12)
    factors = [row.enrolment.speed / row.target.speed for row in rows]
    assert all(0.9499 <= factor <= 1.0501 for factor in factors)
    assert len(set(factors)) == 12
    for row in rows:
        assert len(render(row).ref) == row.ref_samples
    assert all(row.enrolment.speed == row.target.speed for row in plan(found, replace(scene, enrolment=Enrolment()), 0, 12))


def test_an_enrolment_has_a_tone_of_its_own(found: Catalog, render: Renderer, tmp_path: Path) -> None:
    scene = Scene(level=(-30, -30))
    rows, others = plan(found, scene, 0, 12), plan(found, replace(scene, enrolment=Enrolment(equalizer=(-9, 9))), 0, 12)
    assert "ref_equalizer" not in manifest.to_line(rows[0])
    manifest.write(tmp_path / manifest.FILE, map(manifest.to_line, others))
    assert manifest.read(tmp_path / manifest.FILE) == others
    for row, other in zip(rows, others, strict=True):
        assert replace(other, ref_equalizer=None) == row  # nothing else is drawn anew
        one, two = render(row), render(replace(other, ref_equalizer=(0, 0, 0, 0, 0, 9, 9)))
        np.testing.assert_array_equal(one.mixture, two.mixture)
        before, after = (np.square(np.abs(np.fft.rfft(wave.astype(float)))) for wave in (one.ref, two.ref))
        hz = np.fft.rfftfreq(len(one.ref), 1 / row.sample_rate)
        low, high = hz < 1800, hz > 4000
        change = after[high].sum() / after[low].sum() / (before[high].sum() / before[low].sum())
        assert 10 * np.log10(change) == pytest.approx(9, abs=0.5)


def test_an_enrolment_has_a_pitch_of_its_own(found: Catalog, render: Renderer, tmp_path: Path) -> None:
    scene = Scene(level=(-30, -30))
    rows, others = plan(found, scene, 0, 12), plan(found, replace(scene, enrolment=Enrolment(pitch=(0.8, 1.25))), 0, 12)
    assert "ref_pitch" not in manifest.to_line(rows[0])
    manifest.write(tmp_path / manifest.FILE, map(manifest.to_line, others))
    assert manifest.read(tmp_path / manifest.FILE) == others
    for row, other in zip(rows, others, strict=True):
        assert other.ref_pitch is not None
        assert 0.8 <= other.ref_pitch <= 1.25
        assert other.enrolment.speed == pytest.approx(row.enrolment.speed * other.ref_pitch, abs=1e-4)
        assert len(render(other).ref) == other.ref_samples
    assert len({other.ref_pitch for other in others}) == 12


@pytest.mark.parametrize("pitch", [0.8, 1.25])
def test_a_pitch_changes_and_the_formants_stay(pitch: float) -> None:
    rate, hz = 16000, 150
    pulses = np.zeros(2 * rate)
    pulses[:: rate // hz] = 1
    for formant in (700, 1200, 2600):  # Hz, each a resonance of 100 Hz
        r = np.exp(-np.pi * 100 / rate)
        pulses = scipy.signal.lfilter([1], [1, -2 * r * np.cos(2 * np.pi * formant / rate), r * r], pulses)
    voice = (pulses / np.abs(pulses).max()).astype(np.float32)
    shifted = restore_formants(change_speed(voice, pitch), pitch, rate)

    def envelope(wave: Wave) -> Wave:  # dB in bands of 250 Hz up to 4 kHz
        power = scipy.signal.welch(wave, rate, nperseg=4096)[1][: 1024 // 64 * 64].reshape(-1, 64)[:16]
        return 10 * np.log10(power.mean(1))

    def pitch_of(wave: Wave) -> float:
        correlation = scipy.signal.fftconvolve(wave, wave[::-1])[len(wave) - 1 :]
        return rate / (60 + int(correlation[60:240].argmax()))

    assert pitch_of(shifted) == pytest.approx(pitch * pitch_of(voice), rel=0.02)
    sped = np.abs(envelope(change_speed(voice, pitch)) - envelope(voice)).mean()
    assert np.abs(envelope(shifted) - envelope(voice)).mean() < sped / 2


def test_levels_can_be_drawn_for_scenes_too(sources: Sources) -> None:
    plain, data = dataset(sources), dataset(sources, gain_db=(-12.0, 6.0))
    for number in range(4):
        one, other, again = plain[1, number], data[1, number], data[1, number]
        gains = [float(np.abs(getattr(other, kind)).max() / np.abs(getattr(one, kind)).max()) for kind in ("mixture", "ref")]
        assert all(10 ** (-12 / 20) <= gain <= 10 ** (6 / 20) for gain in gains)
        assert gains[0] != pytest.approx(gains[1], abs=1e-3)
        np.testing.assert_allclose(other.target, np.float32(gains[0]) * one.target, rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(other.mixture, again.mixture)


def test_scenes_can_get_new_interferers_and_speeds_too(sources: Sources) -> None:
    plain, remixed, faster = (
        dataset(sources, **changes)
        for changes in ({}, {"remix": 1.0, "remix_snr": (3, 3)}, {"speed": (1.25, 1.25), "speed_share": 1})
    )
    scenes = set()
    for number in range(12):
        one, other, again, fast = plain[1, number], remixed[1, number], remixed[1, number], faster[1, number]
        np.testing.assert_array_equal(other.mixture, again.mixture)
        np.testing.assert_array_equal(other.target, one.target)
        assert not np.array_equal(other.mixture, one.mixture)
        scenes.add(bool(one.target.any()))
        if one.target.any():
            spoken = other.target != 0 if scene_of(one.mixture, one.target) == "partly_absent" else slice(None)
            ratio = np.square(other.target[spoken]).mean() / np.square(other.mixture - other.target).mean()
            assert 10 * np.log10(ratio) == pytest.approx(3, abs=0.01)
        assert len(fast.mixture) == len(fast.target) == pytest.approx(len(one.mixture) / 1.25, abs=2)
        assert fast.speaker == -100
        np.testing.assert_array_equal(remixed[number].mixture, plain[number].mixture)
    assert scenes == {True, False}
    with pytest.raises(UserError, match="unknown key remix_share: expected some of max_length"):
        dataset(sources, remix_share=1)


def test_voices_at_another_speed_are_nobody_known(sources: Sources) -> None:
    data = dataset(sources)
    numbers = [data[0, i].speaker for i in range(12)]
    assert -100 in numbers
    assert max(numbers) >= 0


def test_the_index_is_made_once_and_follows_change(sources: Sources, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for speaker in "ab":
        put(tmp_path / f"c/p/{speaker}/1/x.wav", voice(rng, 120, 2 * RATE))
    own = Sources(str(tmp_path / "c"))
    first = index(own)
    assert [file.samples for file in first] == [2 * RATE] * 2
    stamp = index_path(own).stat().st_mtime_ns
    assert index(own) == first
    assert index_path(own).stat().st_mtime_ns == stamp
    put(tmp_path / "c/p/b/1/x.wav", voice(rng, 120, 3 * RATE), 8000)
    (tmp_path / "c/p/b/1/bad.flac").write_bytes(b"no audio")
    changed = {file.path: file for file in index(own)}
    assert changed["p/b/1/x.wav"].samples == 3 * RATE
    assert changed["p/b/1/x.wav"].sample_rate == 8000
    assert "bad.flac: expected a readable audio file" in changed["p/b/1/bad.flac"].fault
    assert changed["p/a/1/x.wav"] == first[0]


def test_where_no_index_can_be_kept_it_is_made_again(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = index(sources)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert index(sources) == index(sources) == kept
    said = f"no index of {sources.audios_dir} is kept: [Errno 20] Not a directory: '{tmp_path}/file/ss'"
    assert [record.getMessage() for record in caplog.records] == [said] * 2


def test_noise_of_less_than_a_sample_is_left_out(sources: Sources, tmp_path: Path) -> None:
    put(tmp_path / "noise/click.wav", np.ones(2), 48000)
    put(tmp_path / "noise/hum.wav", np.ones(3), 48000)
    found = make_catalog(replace(sources, noise=str(tmp_path / "noise")))
    assert found.noise == (("hum.wav", 1),)
    assert found.unusable == (f"{tmp_path}/noise/click.wav: expected noise, found less than a sample at 16000 Hz",)
    assert all(row.noise and row.noise.path == "hum.wav" for row in plan(found, Scene(noise_share=1), 0, 10))


def test_the_released_model_says_how_it_was_trained() -> None:
    train = yaml.safe_load((ROOT / "models/spexplus_online/config.yaml").read_text())["data"]["train"]
    released = Sources.from_config(train["sources"])
    assert (released.speaker_sampling, released.speaker_group_regex) == ("by_duration", "[a-z]+")
    assert Scene.from_config(train["scene"]).patterns["full"] == 0.77


def test_sources_can_be_looked_up() -> None:
    assert len({Sources("corpus", parts=["a", "b"], speakers=["s"]), Sources("corpus", parts=("a", "b"), speakers=("s",))}) == 1


def test_a_corpus_can_be_listed(sources: Sources, tmp_path: Path) -> None:
    entries = [
        ("nina_b", "part/0/1/0.flac"),
        ("nina_b", "part/0/1/1.flac"),
        ("olaf", "part/1/1/0.flac"),
        ("olaf", "part/1/1/1.flac"),
    ]
    (tmp_path / "list.csv").write_text("speaker,path\n" + "".join(f"{speaker},{path}\n" for speaker, path in entries))
    lines = "".join(json.dumps({"spk": speaker, "audio": path}) + "\n" for speaker, path in entries)
    (tmp_path / "list.jsonl").write_text(lines)
    (tmp_path / "twice.csv").write_text((tmp_path / "list.csv").read_text() + "nina_b,part/0/1/1.flac\n")
    for name in ("list.csv", "list.jsonl", "twice.csv"):
        listed = make_catalog(replace(sources, manifest=str(tmp_path / name)))
        assert {speaker: len(spans) for speaker, spans in listed.speakers.items()} == {"nina-b": 2, "olaf": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("who,path\na,b\n", "list.csv, entry 1: expected speaker or speaker_id or spk, found only path, who"),
        ("speaker,path\nann,x.wav\n,y.wav\n", "list.csv, entry 2: expected a speaker, found none"),
        ("speaker,path\n", "list.csv: expected entries with a path and a speaker, found none"),
        ("speaker,path\na_b,x.wav\na-b,y.wav\n", "ids differ by more than _, - and /, found a_b and a-b"),
        ("speaker,path\nann,x.wav\nbob,x.wav\n", "list.csv: expected one speaker of x.wav, found ann and bob"),
        ("speaker,path\nZo\xeb,x.wav\n", "list.csv: expected a CSV file, or a JSON object on each line, in UTF-8"),
    ],
)
def test_a_wrong_list_is_refused(sources: Sources, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        make_catalog(replace(sources, manifest=str(tmp_path / "list.csv")))


def test_a_speaker_is_no_folder(sources: Sources, tmp_path: Path) -> None:
    entries = [f"{name},part/{number}/1/{take}.flac\n" for number, name in enumerate(("../x/a", "b")) for take in range(2)]
    (tmp_path / "list.csv").write_text("speaker,path\n" + "".join(entries))
    rows = plan(make_catalog(replace(sources, manifest=str(tmp_path / "list.csv"))), Scene(), 0, 8)
    assert {row.target.speaker for row in rows} == {"..-x-a", "b"}


def test_parts_may_lie_in_folders(sources: Sources) -> None:
    root = Path(sources.audios_dir)
    folder, name = str(root.parent), f"{root.name}/part"
    found = make_catalog(replace(sources, audios_dir=folder, parts=[name], template="{part}/{speaker}/?/*")).speakers
    assert set(found) == set(make_catalog(sources).speakers)
    with pytest.raises(UserError, match=r"template: expected no patterns but \* and \?, found"):
        make_catalog(replace(sources, template="part/{speaker}/[01]/*"))


def test_a_list_as_spreadsheets_write_it(sources: Sources, tmp_path: Path) -> None:
    rows = [f"{name},part/{number}/1/{take}.flac\n" for number, name in enumerate(("ann", "bob")) for take in range(2)]
    (tmp_path / "list.csv").write_text("speaker,path\n" + "".join(rows), encoding="utf-8-sig")
    assert set(make_catalog(replace(sources, manifest=str(tmp_path / "list.csv"))).speakers) == {"ann", "bob"}
    with pytest.raises(UserError, match="audios_dir: expected a folder, found none at nowhere"):
        make_catalog(replace(sources, manifest=str(tmp_path / "list.csv"), audios_dir="nowhere"))


def test_stereo_at_another_rate(tmp_path: Path) -> None:
    """Channels are averaged: the same voices as in one channel come out."""
    rng, found = np.random.default_rng(0), []
    for speaker in range(2):
        for number in range(2):
            wave = voice(rng, 90 + 60 * speaker, 44100)
            put(tmp_path / f"mono/{speaker}/{number}.wav", wave, 44100)
            put(tmp_path / f"stereo/{speaker}/{number}.wav", np.stack([1.5 * wave, 0.5 * wave], 1), 44100)
    for folder in ("mono", "stereo"):
        there = Sources(str(tmp_path / folder), template="{speaker}/*", min_len=0.5)
        rows = plan(make_catalog(there), Scene(seconds=(0.5, 0.5)), 0, 2)
        catalog = make_catalog(there)
        found.append([Renderer(there, mb, catalog.files)(row).mixture for row in rows for mb in (0, 10)])
    for one, other in zip(*found, strict=True):
        assert len(one) == RATE // 2
        np.testing.assert_allclose(one, other, atol=200)  # of 32768: the levels of what was rounded differ


def test_the_command_continues_and_refuses_another_scene(sources: Sources, tmp_path: Path) -> None:
    words = ["-cn", "scenes", f"audios_dir={sources.audios_dir}", f"noise={sources.noise}", f"rirs={sources.rirs}", "num_workers=2"]
    out = [f"out_folder={tmp_path}/out", "random_state=3"]
    done = run("mixing/mix.py", *words, *out, "scene=everything", "nfiles=6")
    assert "6 of 6 mixtures" in done.stdout
    assert len(list((tmp_path / "out").glob("*.wav"))) == 18
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.wav")}
    (tmp_path / "out" / sorted(kept)[0]).unlink()
    more = run("mixing/mix.py", *words, *out, "scene=everything", "nfiles=8", "num_workers=1")
    assert "8 of 8 mixtures" in more.stdout
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in kept.items())
    plain = run("mixing/mix.py", *words, f"out_folder={tmp_path}/plain", "nfiles=1")
    assert "this scene uses no files of noise; this scene uses no files of rooms" in plain.stdout
    bare = run("mixing/mix.py", *words[:3], f"out_folder={tmp_path}/bare", "nfiles=1", "scene=meeting", check=False)
    assert "asks for noise (noise=<a folder of files>), rooms (rirs=<a folder" in bare.stderr
    other = run("mixing/mix.py", *words, *out, "scene=meeting", "nfiles=8", check=False)
    assert other.returncode != 0
    assert "the folder holds other mixtures" in other.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nfiles": 0}, "nfiles: expected more than 0, found 0"),
        ({"nfiles": -3}, "nfiles: expected more than 0, found -3"),
        ({"extension": "ogg"}, "extension: expected one of wav, flac, found ogg"),
        ({"random_state": -1}, "random_state: expected at least 0, found -1"),
    ],
)
def test_a_wrong_folder_is_refused(sources: Sources, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mix({"scene": {}, "audios_dir": sources.audios_dir, "out_folder": str(tmp_path / "out"), "nfiles": 1, **changes})
    assert not (tmp_path / "out").exists()


def test_without_trimming_all_of_a_file_is_speech(sources: Sources) -> None:
    whole = make_catalog(replace(sources, trim_db=None))
    for file in index(replace(sources, trim_db=None)):
        assert file.speech == ((0, file.samples),)
    assert all(span.start == 0 for spans in whole.speakers.values() for span in spans)
    assert plan(whole, Scene(), 0, 1)


def test_training_on_scenes_without_files(sources: Sources, tmp_path: Path) -> None:
    make_triplets(tmp_path / "dev", ["s5_a"])
    given = {"audios_dir": sources.audios_dir, "noise": sources.noise, "rirs": sources.rirs, "num_workers": 1}
    words = ["data=scenes", "scene=everything", *(f"data.train.sources.{key}={value}" for key, value in given.items())]
    words += ["data.train.examples=4", f"data.valid.folder={tmp_path}/dev", "trainer.batch_size=2", "trainer.epochs=2"]
    few = ["trainer.num_workers=2", "writer=none", *TINY, f"run_dir={tmp_path}/run", "scene.seconds=[0.5,1]"]
    run("training/train.py", "-cn", "spexplus_online", *words, *few)
    assert (tmp_path / "run" / "speakers.txt").read_text().split() == [str(speaker) for speaker in range(SPEAKERS)]
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert (last["epoch"], last["step"]) == (2, 4)
    assert 0 <= last["waited"] < 1
    again = run("training/train.py", "-cn", "spexplus_online", *words, *few, "data.train.sources.num_workers=2")
    assert "finished: epoch 2" in again.stdout
    elsewhere = f"run_dir={tmp_path}/elsewhere"
    for more, message in (("scene=meeting", "holds a run of another config"), (elsewhere, "scene: expected one of")):
        given = [word for word in (*words, *few) if not (more == elsewhere and word.startswith("scene"))]
        refused = run("training/train.py", "-cn", "spexplus_online", *given, more, check=False)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr


def test_the_benchmark_says_how_fast(sources: Sources) -> None:
    words = [f"audios_dir={sources.audios_dir}", "num_workers=1", "nfiles=5", "repeats=2", "cache_mb=10"]
    lines = run("mixing/benchmark.py", "-cn", "benchmark_scenes", *words).stdout.splitlines()
    assert "every file decoded anew" in lines[1]
    assert "MB of decoded audio kept" in lines[2]
    assert all(float(line.split("median ")[1].split()[0]) > 1 for line in lines[1:])
