"""Triplet folders, speaker lists, batches and loaders; and what is said about files that cannot be used."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
from conftest import RATE, make_triplets

from ss import audio
from ss.audio import AudioError
from ss.datasets import (
    EvaluationBatches,
    TrainingBatches,
    Triplets,
    collate,
    find_triplets,
    loader,
    make_filenames,
    read_speakers,
)
from ss.errors import UserError
from ss.files import whole_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_triplets(tmp_path / "data", ["s0_a", "s1_b", "s2_c", "s0_d", "s1_e"])


def test_finds_wav_flac_and_opus(tmp_path: Path) -> None:
    wave = np.linspace(-0.5, 0.5, RATE, dtype=np.float32)
    for kind, extension in (("mixed", "wav"), ("target", "flac"), ("ref", "opus")):
        soundfile.write(tmp_path / f"a_1-{kind}.{extension}", wave, RATE, format="OGG" if extension == "opus" else None)
    (tmp_path / "notes.txt").write_text("not audio")
    (example,) = [Triplets(tmp_path)[0]]
    assert example.name == "a_1"
    np.testing.assert_allclose(example.mixture, example.target, atol=1e-4)
    assert len(example.ref) == RATE


def test_collate_pads_and_numbers_speakers(folder: Path) -> None:
    examples = Triplets(folder, speakers=["s2", "s0"])
    batch = collate([examples[i] for i in range(5)])
    assert batch.names == ("s0_a", "s0_d", "s1_b", "s1_e", "s2_c")
    assert batch.speakers.tolist() == [1, 1, -100, -100, 0]
    assert batch.mixture.shape == batch.target.shape == (5, int(batch.lengths.max()))
    for i, samples in enumerate(batch.lengths):
        np.testing.assert_array_equal(batch.mixture[i, :samples], examples[i].mixture)
        assert not batch.mixture[i, samples:].any()


def test_cuts_are_a_function_of_seed_epoch_and_index(folder: Path) -> None:
    examples, again = (Triplets(folder, max_length=0.3, ref_max_length=0.2, seed=1) for _ in range(2))
    whole = Triplets(folder)[1]
    first, second = examples[1, 1], examples[2, 1]
    assert len(first.mixture) == len(first.target) == 0.3 * RATE
    assert len(first.ref) == 0.2 * RATE
    np.testing.assert_array_equal(first.mixture, again[1, 1].mixture)
    assert not np.array_equal(first.mixture, second.mixture)
    windows = np.lib.stride_tricks.sliding_window_view(whole.mixture, len(first.mixture))
    (start,) = np.flatnonzero((windows == first.mixture).all(1))
    np.testing.assert_array_equal(whole.target[start : start + len(first.target)], first.target)  # cut at the same place
    np.testing.assert_array_equal(examples[1].mixture, whole.mixture[: len(first.mixture)])


def holds(source: np.ndarray, part: np.ndarray) -> bool:
    """Whether a wave is a scaled part of another."""
    windows = np.lib.stride_tricks.sliding_window_view(source, len(part))
    return bool((np.correlate(source, part, "valid") > 0.999 * np.linalg.norm(part) * np.linalg.norm(windows, axis=1)).any())


def test_remixing_makes_new_mixtures_of_the_same_targets(folder: Path) -> None:
    plain, examples = Triplets(folder), Triplets(folder, remix=1, remix_snr=(3, 3), seed=1)
    names = [triplet.name for triplet in examples.triplets]
    for epoch in (1, 2):
        example = examples[epoch, 0]
        np.testing.assert_array_equal(example.target, plain[0].target)
        interferer = example.mixture - example.target
        assert 10 * np.log10((example.target**2).mean() / (interferer**2).mean()) == pytest.approx(3, abs=0.01)
        sources = [plain[i].target for i in range(len(plain)) if not names[i].startswith("s0")]
        assert any(holds(source, interferer) for source in sources)
    np.testing.assert_array_equal(examples[1, 0].mixture, Triplets(folder, remix=1, remix_snr=(3, 3), seed=1)[1, 0].mixture)
    np.testing.assert_array_equal(examples[0].mixture, plain[0].mixture)


def test_a_cache_changes_nothing_and_is_shared_with_workers(folder: Path) -> None:
    options = {"max_length": 0.3, "remix": 0.5, "speed_share": 0.5, "seed": 1}
    plain = Triplets(folder, **options)
    for cache_mb in (0.1, 100):  # one file fits, or all
        examples = Triplets(folder, **options, cache_mb=cache_mb)
        batches = TrainingBatches(len(examples), 1, seed=0)
        for epoch in (1, 2):
            batches.start(epoch)
            for index, batch in zip((key for (key,) in batches), loader(examples, batches, 2), strict=True):
                np.testing.assert_array_equal(batch.mixture[0], plain[index].mixture)
                np.testing.assert_array_equal(batch.ref[0], plain[index].ref)
        if cache_mb == 100:
            for path in folder.iterdir():
                path.unlink()
            for index in range(len(examples)):
                assert len(examples[2, index].mixture)  # the workers have decoded it


def test_remixing_can_stay_within_a_corpus(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "data", ["a0_a", "a1_a", "b2_a", "b3_a"])
    plain, examples = Triplets(folder), Triplets(folder, max_length=0.3, remix=1, remix_within="^[a-z]", seed=1)
    for index, other in enumerate((1, 0, 3, 2)):
        for epoch in (1, 2, 3):
            example = examples[epoch, index]
            assert holds(plain[other].target, example.mixture - example.target)
    with pytest.raises(UserError, match="expected at least two target speakers to remix in a0, found one"):
        Triplets(folder, remix=1, remix_within=r"\w+")


def test_a_single_speaker_cannot_be_remixed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected at least two target speakers to remix, found one"):
        Triplets(make_triplets(tmp_path / "one", ["s0_a", "s0_b"]), remix=0.5)


def test_training_cuts_avoid_pauses(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "data", ["s0_a"], seconds=2)
    for kind in ("mixed", "target"):
        wave = audio.read(folder / f"s0_a-{kind}.wav", RATE)
        wave[RATE // 2 :] = 0
        audio.write(folder / f"s0_a-{kind}.wav", wave, RATE)
    examples = Triplets(folder, max_length=0.25)
    spoken = sum(examples[epoch, 0].target.any() for epoch in range(50))
    assert spoken >= 45  # a quarter of all places would do; eight are tried


def silenced(folder: Path, name: str, start: float = 0.0, stop: float = 99.0) -> Path:
    """Takes the target out of a triplet between two times in seconds."""
    mixture, target = (audio.read(folder / f"{name}-{kind}.wav", RATE) for kind in ("mixed", "target"))
    interferer, part = mixture - target, slice(round(start * RATE), round(stop * RATE))
    target[part] = 0
    audio.write(folder / f"{name}-target.wav", target, RATE)
    audio.write(folder / f"{name}-mixed.wav", target + interferer, RATE)
    return folder


def power(wave: np.ndarray) -> float:
    return float(np.square(wave, dtype=float).mean())


def test_remixing_an_absent_target_brings_another_interferer_as_loud(folder: Path) -> None:
    silenced(folder, "s0_a")
    plain, examples = Triplets(folder)[0], Triplets(folder, remix=1, seed=1)
    found = [examples[epoch, 0] for epoch in range(1, 6)]
    for example in found:
        assert not example.target.any()
        assert power(example.mixture) == pytest.approx(power(plain.mixture), rel=0.1)
        assert np.abs(np.corrcoef(example.mixture, plain.mixture)[0, 1]) < 0.9
    assert len({example.mixture.tobytes() for example in found}) > 1


def test_remixing_never_takes_a_silent_target_for_an_interferer(folder: Path) -> None:
    for name in ("s1_b", "s1_e"):
        silenced(folder, name)
    examples = Triplets(folder, remix=1, seed=1)
    for epoch in range(1, 9):
        for index in range(len(examples)):
            example = examples[epoch, index]
            assert power(example.mixture - example.target) > 1e-5
    silenced(folder, "s2_c")
    with pytest.raises(AudioError, match="expected targets of other speakers that speak, to remix s0_a with"):
        examples[1, 0]


def test_a_clean_mixture_stays_clean(folder: Path) -> None:
    audio.write(folder / "s0_a-mixed.wav", audio.read(folder / "s0_a-target.wav", RATE), RATE)
    examples = Triplets(folder, max_length=0.3, remix=1, gain_db=(-9, 9), seed=1)
    for epoch in range(1, 5):
        np.testing.assert_array_equal(examples[epoch, 0].mixture, examples[epoch, 0].target)
        assert not np.array_equal(examples[epoch, 1].mixture, examples[epoch, 1].target)


def test_cuts_of_an_absent_target_are_not_in_pauses_of_the_mixture(tmp_path: Path) -> None:
    folder = silenced(make_triplets(tmp_path / "data", ["s0_a"], seconds=2), "s0_a")
    mixture = audio.read(folder / "s0_a-mixed.wav", RATE)
    mixture[: 2 * RATE - 500] = 0
    audio.write(folder / "s0_a-mixed.wav", mixture, RATE)
    examples = Triplets(folder, max_length=0.1)
    assert all(examples[epoch, 0].mixture.any() for epoch in range(50))


def test_cuts_of_a_partly_absent_target_often_hold_its_silence(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "data", ["s0_a", "s1_b"], seconds=3)
    silenced(folder, "s0_a", 1.0, 2.5)
    examples = Triplets(folder, max_length=0.8, remix=1, remix_snr=(3, 3), seed=2)
    silent = []
    for epoch in range(60):
        example = examples[epoch, 0]
        active = example.target != 0
        silent.append(1 - active.mean())
        interferer = example.mixture - example.target
        assert power(interferer) > 1e-6
        if active.any():
            assert 10 * np.log10(power(example.target[active]) / power(interferer)) == pytest.approx(3, abs=0.01)
    assert 0.5 < np.mean(np.array(silent) > 0.1) < 1
    assert np.mean(np.array(silent) < 0.9) > 0.25


def pitch(wave: np.ndarray) -> float:
    """The loudest frequency in Hz."""
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * RATE)).argmax()) / 8


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def test_a_change_of_speed_makes_another_speaker_of_target_and_enrolment_alike(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "data", ["s0_a", "s1_b"], seconds=1)
    for kind, wave in (("target", tone(500)), ("mixed", tone(500) + tone(900)), ("ref", tone(300))):
        audio.write(folder / f"s0_a-{kind}.wav", wave, RATE)
    examples = Triplets(folder, speed=(0.8, 1.25), speed_share=0.5, speakers=["s0", "s1"])
    changed = 0
    for epoch in range(20):
        example = examples[epoch, 0]
        own = pitch(example.target) / 500
        other = pitch(example.mixture - example.target) / 900
        assert pitch(example.ref) / 300 == pytest.approx(own, abs=0.01)
        assert len(example.mixture) == len(example.target) == pytest.approx(RATE / max(own, other), rel=0.01)
        if example.speaker == 0:
            assert (own, other) == (1, 1)
        else:
            assert example.speaker == -100
            assert 0.79 < own < 1.26
            assert 0.79 < other < 1.26
            assert abs(own - other) > 1e-4
            changed += 1
    assert 5 <= changed <= 15


def test_a_change_of_speed_keeps_the_scene(folder: Path) -> None:
    silenced(folder, "s0_a")
    audio.write(folder / "s1_b-mixed.wav", audio.read(folder / "s1_b-target.wav", RATE), RATE)
    examples = Triplets(folder, remix=0.5, speed_share=1, seed=1)
    for epoch in range(1, 5):
        found = {example.name: example for example in (examples[epoch, index] for index in range(len(examples)))}
        absent, clean = found["s0_a"], found["s1_b"]
        assert not absent.target.any()
        assert absent.mixture.any()
        np.testing.assert_array_equal(clean.mixture, clean.target)
        assert absent.mixture.dtype == clean.ref.dtype == np.float32


def test_a_short_enrolment_stays_as_long_when_it_is_played_faster(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "data", ["s0_a", "s1_b"])
    for name, seconds in (("s0_a", 0.3), ("s1_b", 0.55)):
        audio.write(folder / f"{name}-ref.wav", tone(300, seconds), RATE)
    examples = Triplets(folder, speed=(1.2, 1.2), speed_share=1)
    assert len(examples[1, 0].ref) == 0.3 * RATE
    assert len(examples[1, 1].ref) == 0.5 * RATE
    assert pitch(examples[1, 1].ref) == pytest.approx(360, abs=3)


def test_levels_are_drawn_after_everything_else(folder: Path) -> None:
    options = {"max_length": 0.3, "ref_max_length": 0.2, "remix": 0.5, "seed": 1}
    plain, loud = Triplets(folder, **options), Triplets(folder, **options, gain_db=(-12, 6))
    gains = []
    for epoch in range(1, 9):
        before, after = plain[epoch, 1], loud[epoch, 1]
        pairs = [(getattr(before, kind), getattr(after, kind)) for kind in ("mixture", "target", "ref")]
        drawn = [10 * np.log10(power(b) / power(a)) for a, b in pairs]
        for (a, b), gain in zip(pairs, drawn, strict=True):
            np.testing.assert_allclose(b, a * 10 ** (gain / 20), rtol=1e-4, atol=1e-7)
            assert b.dtype == np.float32
        assert drawn[0] == pytest.approx(drawn[1], abs=1e-3)
        gains += [drawn[0], drawn[2]]
        np.testing.assert_array_equal(after.mixture, Triplets(folder, **options, gain_db=(-12, 6))[epoch, 1].mixture)
    assert len({round(gain, 3) for gain in gains}) == 16
    assert -12 <= min(gains) < -6
    assert 0 < max(gains) <= 6
    np.testing.assert_array_equal(loud[1].mixture, plain[1].mixture)


def test_speaker_list_keeps_numbers(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lists" / "speakers.txt"
    assert make_filenames(folder, path) == read_speakers(path) == ["s0", "s1", "s2"]
    with pytest.raises(UserError, match="expected at most 2 speakers .*, found 3"):
        make_filenames(folder, path, n_speakers=2)


def test_ids_of_speakers_may_have_spaces(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "train", ["s0_1", "s1_2"])
    for path in folder.iterdir():
        path.rename(folder / path.name.replace("s0", "Ann Lee").replace("s1", "John Smith"))
    assert (
        make_filenames(folder, tmp_path / "speakers.txt") == read_speakers(tmp_path / "speakers.txt") == ["Ann Lee", "John Smith"]
    )


def as_process(rank: int, n: int) -> mock._patch:
    return mock.patch.multiple("ss.distributed", rank=lambda: rank, world_size=lambda: n)


def test_a_speaker_list_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "speakers.txt").write_bytes("Zoë".encode("latin-1"))
    with pytest.raises(UserError, match=r"speakers\.txt: expected text in UTF-8"):
        read_speakers(tmp_path / "speakers.txt")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_evaluation_sees_each_example_once(size: int) -> None:
    lengths = [1, 2, 1, 1, 3, 2, 1]
    for n in (1, 2, 3):
        for may_pad in (False, True):
            seen = []
            for rank in range(n):
                with as_process(rank, n):
                    batches = list(EvaluationBatches(lengths, size, may_pad))
                assert all(len(batch) <= size and (may_pad or len({lengths[i] for i in batch}) == 1) for batch in batches)
                seen += [index for batch in batches for index in batch]
            assert sorted(seen) == list(range(7))


def test_evaluation_pads_examples_of_similar_length() -> None:
    assert list(EvaluationBatches([30, 11, 29, 10, 12], 2, may_pad=True)) == [[0, 2], [4, 1], [3]]


def test_training_batches_of_two_processes_are_those_of_one_with_a_double_batch() -> None:
    alone = TrainingBatches(11, 4, seed=5)
    shares = []
    for rank in (0, 1):
        with as_process(rank, 2):
            share = TrainingBatches(11, 2, seed=5)
            share.start(3)
            shares.append(list(share))
    alone.start(3)
    assert [a + b for a, b in zip(*shares, strict=True)] == list(alone)
    alone.start(3, heard=4)
    assert list(alone) == [a + b for a, b in zip(*shares, strict=True)][1:]
    alone.start(4)
    assert list(alone) != [a + b for a, b in zip(*shares, strict=True)]


def test_other_batches_of_other_processes_go_on_behind_what_was_heard() -> None:
    whole = TrainingBatches(16, 1, seed=5)
    whole.start(3)
    order = [index for ((_, index),) in whole]
    seen: list[int] = []
    for n, size, steps in ((1, 3, 2), (2, 2, 1), (3, 2, 1)):
        shares = []
        for rank in range(n):
            with as_process(rank, n):
                share = TrainingBatches(16, size, seed=5)
                share.start(3, heard=len(seen))
                shares.append(list(share)[:steps])
        seen += [index for step in zip(*shares, strict=True) for batch in step for _, index in batch]
    assert seen == order


@pytest.mark.parametrize("key", ["max_length", "ref_max_length"])
def test_a_length_of_nothing_is_refused(folder: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"{key}: expected more than 0, found 0"):
        Triplets(folder, **{key: 0})


def test_too_few_examples_for_a_batch() -> None:
    with pytest.raises(UserError, match="expected at least 4 training examples .*, found 3"):
        TrainingBatches(3, 4, seed=0)


def test_workers_give_the_same_batches(folder: Path) -> None:
    examples = Triplets(folder, max_length=0.3)
    found = []
    for workers in (0, 2):
        batches = TrainingBatches(len(examples), 2, seed=0)
        batches.start(1)
        found.append(list(loader(examples, batches, workers)))
    for a, b in zip(*found, strict=True):
        assert a.names == b.names
        np.testing.assert_array_equal(a.mixture, b.mixture)


def spoil(folder: Path, kind: str, wave: np.ndarray, rate: int = RATE, **more: str) -> Path:
    path = folder / f"s0_a-{kind}.wav"
    soundfile.write(path, wave, rate, **more)
    return path


def nan() -> np.ndarray:
    wave = np.zeros(100, np.float32)
    wave[3] = np.nan
    return wave


@pytest.mark.parametrize(
    ("wave", "rate", "subtype", "message"),
    [
        (np.zeros(100), 8000, None, "expected a sample rate of 16000 Hz, found 8000 Hz"),
        (np.zeros((100, 2)), RATE, None, "expected one channel, found 2"),
        (np.zeros(0), RATE, None, "expected audio, found no samples"),
        (nan(), RATE, "FLOAT", "expected finite samples, found 1 that are NaN or infinite"),
    ],
)
def test_unusable_audio_is_named(folder: Path, wave: np.ndarray, rate: int, subtype: str | None, message: str) -> None:
    path = spoil(folder, "ref", wave, rate, **({"subtype": subtype} if subtype else {}))
    with pytest.raises(AudioError, match=f"{path}: {message}"):
        Triplets(folder)[0]


@pytest.mark.parametrize("name", ["ref.wav", "ref.aiff"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, np.zeros((16000, 2)), RATE)
    path.write_bytes(path.read_bytes()[:-32000])
    with pytest.raises(AudioError, match=f"{path}: expected 1.000 s, as its header says, found 0.500 s: it is cut short"):
        audio.read(path, RATE, downmix=True)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_file_whose_writer_did_not_know_its_size_is_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, np.zeros(16000), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")  # as sox and ffmpeg write into a pipe
    path.write_bytes(content)
    assert len(audio.read(path, RATE)) == 16000


def test_telephone_recordings_are_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(3200), 8000, subtype="GSM610")
    assert audio.read_any(tmp_path / "call.wav", 8000).shape == (3200,)


def test_a_file_that_is_no_audio(folder: Path) -> None:
    (folder / "s0_a-ref.wav").write_bytes(b"nonsense")
    with pytest.raises(AudioError, match=r"s0_a-ref.wav: expected a readable audio file"):
        Triplets(folder)[0]


def test_mixture_and_target_of_different_length(folder: Path) -> None:
    spoil(folder, "target", np.zeros(100))
    with pytest.raises(AudioError, match=r"s0_a-target.wav: expected 11200 samples as in s0_a-mixed.wav, found 100"):
        Triplets(folder)[0]


@pytest.mark.parametrize("kind", ["mixed", "target", "ref"])
def test_missing_partner(folder: Path, kind: str) -> None:
    (folder / f"s1_b-{kind}.wav").unlink()
    with pytest.raises(AudioError, match=rf"s1_b-{kind}.\*: expected beside"):
        find_triplets(folder)


def test_two_files_of_one_kind(folder: Path) -> None:
    soundfile.write(folder / "s0_a-ref.flac", np.zeros(100), RATE)
    with pytest.raises(AudioError, match=r"s0_a-ref.wav: expected one ref file, but there is s0_a-ref.flac too"):
        find_triplets(folder)


def test_missing_or_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="expected a folder of triplets, but there is none"):
        find_triplets(tmp_path / "nothing")
    with pytest.raises(AudioError, match="expected files named <name>-mixed, -target and -ref"):
        find_triplets(tmp_path)


def test_a_written_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    audio.write(path, np.zeros(10, np.float32), RATE)
    with pytest.raises(ValueError, match="dtype"):
        audio.write(path, np.array(["no", "numbers"]), RATE)
    assert audio.n_samples(path) == 10
    assert list(tmp_path.glob("*.wav")) == [path]


def test_two_may_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / f"{'ä' * 125}.json"  # as long as a name may be
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # renamed last
    assert list(tmp_path.iterdir()) == [path]
