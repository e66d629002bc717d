"""The leaderboard: entries, what is kept of them, conditions, curves, and the whole command."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SIZES, WINDOWS, make_triplets, run, voice

from ss import audio, checkpoint
from ss.audio import Wave
from ss.audit.checks import read_expected
from ss.data import manifest
from ss.data.corpus import read_genders
from ss.data.packed import pack
from ss.errors import UserError
from ss.leaderboard.entries import OracleMask, Unprocessed, make_entry
from ss.leaderboard.report import curve, interval, summarize_scores
from ss.leaderboard.scoring import TestSet as Trial
from ss.leaderboard.scoring import digest_of_folder, pieces, read_conditions, score
from ss.metric import SISDR, Improvement, UtteranceScores
from ss.model import SpexPlusOnline
from ss.runtime.native import find_library


class Delayed:
    """An adapter whose output is its input, two hops late."""

    sample_rate, hop, delay, package = 16000, 40, 80, "numpy"

    def enroll(self, enrolment: Wave) -> None:
        """See Adapter."""
        self.late = np.zeros(self.delay, np.float32)

    def process(self, samples: Wave) -> Wave:
        """See Adapter."""
        assert samples.shape == (self.hop,)
        self.late = np.concatenate([self.late, samples])
        out, self.late = np.split(self.late, [self.hop])
        return out


class Refusing:
    """An adapter that cannot be made."""

    def __init__(self) -> None:
        raise ValueError("no weights")


class Counting(Unprocessed):
    """Fails on what it is told to, and notes what it was asked for."""

    fingerprint = "counting"
    asked: ClassVar[list[int]] = []

    def __init__(self, failing: Callable[[Wave], bool] = lambda mixture: False) -> None:
        self.failing = failing

    def estimate(self, mixture: Wave, ref: Wave, target: Wave) -> Wave:
        """See Entry."""
        self.asked.append(len(mixture))
        if self.failing(mixture):
            raise RuntimeError("too loud")
        return mixture


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Three mixtures and the quick metrics."""
    folder = make_triplets(tmp_path / "three", ["s1_a", "s2_b", "s3_c"])
    metrics = {"SI-SDR": SISDR(), "SI-SDRi": Improvement(SISDR())}
    return Trial("three", folder, digest_of_folder(folder), metrics, {"any": 1})


@pytest.mark.parametrize("is_complex", [False, True])
def test_a_mask_of_a_clean_mixture_changes_nothing(is_complex: bool) -> None:
    wave = voice(np.random.default_rng(0), 120, 5003)
    np.testing.assert_allclose(OracleMask(complex=is_complex).estimate(wave, wave, wave), wave, atol=1e-6)


def test_masks_are_bounds_in_order(trial: Trial) -> None:
    found = [
        np.mean([one.row.values["SI-SDRi"] for one in score("x", entry, trial, trial.folder / "kept", 30)])
        for entry in (OracleMask(complex=True), OracleMask(complex=False), Unprocessed())
    ]
    assert found[0] > found[1] + 3 > found[2] + 6
    assert found[2] == 0


def test_the_delay_of_an_adapter_is_taken_off_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")  # for the process that is timed
    entry = make_entry({"_target_": f"{__name__}.Delayed"})
    wave = voice(np.random.default_rng(0), 120, 5003)
    np.testing.assert_array_equal(entry.estimate(wave, wave, wave), wave)
    costs = entry.measure_costs()
    assert costs["latency_ms"] == 1000 * (Delayed.delay + Delayed.hop) / Delayed.sample_rate
    assert costs["chunk_ms"] == 10
    assert costs["real_time_factor"] > 0


@pytest.mark.skipif(find_library() is None, reason="the C library is not built")
def test_an_export_in_the_c_library_is_the_same_model() -> None:
    folder, rng = str(ROOT / "ss/pretrained/spexplus_online/float32"), np.random.default_rng(0)
    mixture, ref = voice(rng, 120, 16000) + voice(rng, 170, 16000), voice(rng, 120, 32000)
    native, graph = make_entry({"checkpoint": folder, "provider": "c"}), make_entry(folder)
    assert (native.about, graph.about) == ("C library", "ONNX Runtime")
    assert native.fingerprint != graph.fingerprint
    np.testing.assert_allclose(native.estimate(mixture, ref, ref), graph.estimate(mixture, ref, ref), atol=1e-4)


def test_an_oracle_is_enrolled_with_the_target() -> None:
    folder, rng = str(ROOT / "ss/pretrained/spexplus_online/float32"), np.random.default_rng(0)
    target, other, ref = voice(rng, 120, 32000), voice(rng, 170, 32000), voice(rng, 120, 48000)
    bound = make_entry({"_target_": "ss.leaderboard.entries.OracleEnrolment", "checkpoint": folder})
    expected = make_entry(folder).estimate(target + other, target, target)
    np.testing.assert_array_equal(bound.estimate(target + other, ref, target), expected)
    assert bound.is_bound


def test_what_was_scored_is_not_scored_again(trial: Trial, tmp_path: Path) -> None:
    Counting.asked.clear()
    first = score("x", Counting(), trial, tmp_path / "kept", 30)
    assert len(Counting.asked) == 3
    assert score("another name", Counting(), trial, tmp_path / "kept", 30) == first
    assert len(Counting.asked) == 3
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(kept.read_text()[:-20])  # as a crash leaves it
    assert score("x", Counting(), trial, tmp_path / "kept", 30) == first
    assert len(Counting.asked) == 4
    assert score("x", Counting(), trial, tmp_path / "kept", 30) == first
    audio.write(trial.folder / "s1_a-ref.wav", np.ones(9000, np.float32) / 2, 16000)
    changed = trial._replace(digest=digest_of_folder(trial.folder))
    score("x", Counting(), changed, tmp_path / "kept", 30)
    assert len(Counting.asked) == 7


def test_an_entry_that_fails_has_a_reason_and_no_value(trial: Trial, tmp_path: Path) -> None:
    longest = max(audio.n_samples(path) for path in trial.folder.glob("*-mixed.wav"))
    found = score("x", Counting(lambda mixture: len(mixture) == longest), trial, tmp_path / "kept", 30)
    assert [sorted(one.row.values) for one in found] == [["SI-SDR", "SI-SDRi"]] * 2 + [[]]
    assert set(found[2].row.missing) == {"SI-SDR", "SI-SDRi"}
    assert "too loud" in found[2].row.missing["SI-SDRi"]
    again = score("x", Counting(), trial, tmp_path / "kept", 30)  # what made it fail is mended: it is asked again
    assert again[:2] == found[:2]
    assert sorted(again[2].row.values) == ["SI-SDR", "SI-SDRi"]
    assert score("x", Counting(lambda mixture: True), trial, tmp_path / "kept", 30) == again


def test_long_utterances_are_scored_in_pieces(trial: Trial, tmp_path: Path) -> None:
    assert pieces(100, 100) == pieces(100, 1000) == [slice(0, 100)]
    assert pieces(249, 100) == [slice(0, 100), slice(100, 249)]
    assert pieces(250, 100) == [slice(0, 100), slice(100, 200), slice(200, 250)]
    found = score("x", Counting(), trial, tmp_path / "kept", 0.25)
    assert [one.start for one in found if one.name == "s1_a"] == [0.0, 0.25, 0.5]
    calls = score("x", Counting(), trial._replace(calls=True, config={"any": 2}), tmp_path / "kept", 0.25)
    assert [one.start for one in calls if one.name == "s1_a"] == [None, 0.0, 0.25, 0.5]
    assert summarize_scores(calls)["SI-SDR"]["count"] == 3
    assert score("x", Counting(), trial._replace(calls=True, config={"any": 2}), tmp_path / "kept", 0.25) == calls


def test_conditions_of_scenes(tmp_path: Path) -> None:
    def spoken(speaker: str, level: float, *times: tuple[int, int]) -> manifest.Voice:
        return manifest.Voice(speaker, tuple(manifest.Piece("x", 0, stop - start, start) for start, stop in times), level=level)

    row = manifest.Row(
        name="a_1",
        pattern="partial",
        sample_rate=16000,
        samples=1000,
        ref_samples=80000,
        target=spoken("a", 0.0, (0, 500)),
        interferers=(spoken("b", 3.0, (300, 400)), spoken("c", 3.0, (450, 1000))),
        enrolment=spoken("a", 0.0, (0, 80000)),
        noise=manifest.Noise("n", 0, 12.5),
        level=-25.0,
        ref_level=-37.0,
    )
    alone = replace(row, name="a_2", pattern="full", interferers=row.interferers[:1], noise=None)
    manifest.write(tmp_path / manifest.FILE, map(manifest.to_line, (row, alone)))
    rng = np.random.default_rng(0)
    tones = {"target": 220, "other": 110, "ref": 220 * 2 ** (2 / 12)}
    waves = {kind: voice(rng, hz, 16000) for kind, hz in tones.items()}
    waves["mixed"] = waves["target"] + waves.pop("other")
    for kind, wave in waves.items():
        soundfile.write(tmp_path / f"a_2-{kind}.wav", wave, 16000, "FLOAT")
    conditions = read_conditions(tmp_path, {"a": "f", "b": "m", "c": "m"})
    assert conditions["a_2"]["pitch"] == pytest.approx(12, abs=0.3)
    assert conditions["a_2"]["enrolment_pitch"] == pytest.approx(2, abs=0.3)
    found = conditions["a_1"]
    assert found.pop("sir") == pytest.approx(3 - 10 * np.log10(2))
    assert found == {
        "scene": "partial",
        "enrolment_seconds": 5.0,
        "overlap": 0.15,
        "snr": 12.5,
        "genders": "different",
        "enrolment_level": -12.0,
    }
    assert "genders" not in read_conditions(tmp_path, {"a": "f", "b": "m", "c": "f"})["a_1"]


def test_tables_of_speakers(tmp_path: Path) -> None:
    assert read_conditions(tmp_path, {}) == {}
    table = tmp_path / "speakers.csv"
    table.write_text("speaker,gender\nanna,f\nbea,f\ncarl,\n")
    assert read_genders(table) == {"anna": "f", "bea": "f"}
    table.write_text("name\nanna\n")
    with pytest.raises(UserError, match="expected speaker or .*, found only name"):
        read_genders(table)


def test_curves_and_intervals() -> None:
    known = [
        ({"sir": x, "genders": word}, UtteranceScores({"SI-SDRi": y}, {}))
        for x, word, y in ((-5, "b", 1), (-1, "a", 3), (0, "a", 6), (9, "b", 7))
    ]
    known += [({"sir": 6.0}, UtteranceScores({}, {"SI-SDRi": "why"})), ({}, UtteranceScores({"SI-SDRi": 50.0}, {}))]
    assert curve("sir", [-5, 0, 5, 7, 9, 10], known) == [
        {"x": -3, "mean": 2, "low": None, "high": None, "count": 2},
        {"x": 0, "mean": 6, "low": None, "high": None, "count": 1},
        {"x": 6, "mean": None, "low": None, "high": None, "count": 0},
        {"x": 9, "mean": 7, "low": None, "high": None, "count": 1},
    ]
    assert [(point["x"], point["mean"], point["count"]) for point in curve("genders", None, known)] == [("a", 4.5, 2), ("b", 4, 2)]
    values = np.random.default_rng(0).normal(3, 2, 400).tolist()
    found = interval(values)
    assert found == interval(values)
    assert found["low"] == pytest.approx(found["mean"] - 1.96 * 2 / 20, abs=0.06)
    assert found["high"] == pytest.approx(found["mean"] + 1.96 * 2 / 20, abs=0.06)


def test_entries_that_are_not_there(tmp_path: Path) -> None:
    for config in (str(tmp_path), {"checkpoint": str(tmp_path / "none.pth")}, {"_target_": "nowhere.Nothing"}):
        with pytest.raises(UserError, match="expected"):
            make_entry(config)


def test_a_packed_folder_is_the_same_test(trial: Trial, tmp_path: Path) -> None:
    voice = manifest.Voice("s1", (manifest.Piece("x", 0, 8000, 0),))
    row = manifest.Row("s1_a", "full", 16000, 16000, 8000, voice, (voice,), voice)
    manifest.write(trial.folder / manifest.FILE, [manifest.to_line(row)])
    pack({"folder": trial.folder, "out_folder": tmp_path / "packed", "seed": 0, "megabytes": 1})
    assert digest_of_folder(tmp_path / "packed") == digest_of_folder(trial.folder)
    conditions = read_conditions(tmp_path / "packed", {})
    assert conditions == read_conditions(trial.folder, {})
    assert conditions["s1_a"]["sir"] == 0
    assert read_expected(str(tmp_path / "packed")) == read_expected(str(trial.folder)) != {}


def test_no_test_at_all_is_refused(tmp_path: Path) -> None:
    done = run("testing/leaderboard.py", "-cn", "leaderboard", "folders=[]", f"out_folder={tmp_path}", check=False)
    assert "error: folders: expected some of triplets, found none" in done.stderr


def test_a_folder_of_another_sample_rate_is_refused(tmp_path: Path) -> None:
    for kind in ("mixed", "target", "ref"):
        audio.write(tmp_path / "eight" / f"s1_a-{kind}.wav", voice(np.random.default_rng(0), 120, 8000), 8000)
    done = run("testing/leaderboard.py", f"folders={tmp_path}/eight", f"out_folder={tmp_path}/out", check=False)
    assert done.returncode == 2
    assert f"error: {tmp_path}/eight: expected 16000 Hz, which metrics and bounds are for, found 8000 Hz\n" in done.stderr


def test_the_command(tmp_path: Path) -> None:
    model = SpexPlusOnline(**{**SIZES, **WINDOWS})
    config = {"model": {"_target_": "ss.model.SpexPlusOnline", **SIZES, **WINDOWS}, "streamer": {"_target_": "ss.streamer.Whole"}}
    checkpoint.save(tmp_path / "ours.pth", {"config": config, "model": model.state_dict()})
    folder = make_triplets(tmp_path / "two", [f"s{i}_{i}" for i in range(8)], seconds=0.6)
    calls = make_triplets(tmp_path / "calls", ["s1_a"], seconds=3)
    target = audio.read(calls / "s1_a-target.wav", 16000)
    target[:16000] = target[32000:] = 0
    audio.write(calls / "s1_a-target.wav", target, 16000)
    document = tmp_path / "document.md"
    document.write_text("Kept.\n\n## Results\n\nOld.\n")
    arguments = [
        *("-cn", "leaderboard", f"folders=[{folder},{calls}]", "quick=[]", "piece_seconds=2"),
        *(f"out_folder={tmp_path / 'out'}", f"document={document}"),
        *(
            "entries.open-voicefilter-lite=null",
            "entries.released=null",
            "entries.released_int8=null",
            f"+entries.ours={tmp_path / 'ours.pth'}",
            "+only.ours=[t*]",
            "+curves.both={of: [two, calls], condition: minute, edges: [1, 2]}",
        ),
    ]
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    broken = [f"+entries.refusing={{_target_: {__name__}.Refusing}}", f"+entries.broken={tmp_path / 'broken.pth'}"]
    done = run("testing/leaderboard.py", *arguments, f"+entries.gone={tmp_path / 'gone.pth'}", *broken, check=False)
    assert done.returncode == 1, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert next(iter(results["entries"])) == "oracle, complex mask"
    assert "gone.pth" in results["entries"]["gone"]["failed"]
    assert "ValueError: no weights" in results["entries"]["refusing"]["failed"]
    assert "broken.pth" in results["entries"]["broken"]["failed"]
    summaries = results["tests"]["two"]["summaries"]
    assert set(summaries) == {"mixture", "oracle, real mask", "oracle, complex mask", "ours"}
    assert "ours" not in results["tests"]["calls"]["summaries"]
    in_calls = results["tests"]["calls"]["summaries"]["oracle, complex mask"]
    assert in_calls["pause-dB"]["mean"] < -20
    assert in_calls["muted"] == {"mean": 0, "median": 0, "count": 1, "missing": 0, "reasons": {}}
    assert results["curves"]["muted in calls"]["entries"]["mixture"] == [{"x": 1, "mean": 0, "low": None, "high": None, "count": 1}]
    assert {"mixture"} < set(results["curves"]["both"]["entries"]) == set(summaries) - {"ours"}  # it knows one of the two only
    assert summaries["mixture"]["SI-SDRi"]["mean"] == summaries["mixture"]["SI-SDRi"]["below_0"] == 0
    assert len(results["utterances"]["two"]["ours"]) == summaries["ours"]["SI-SDR"]["count"] == 8
    costs = results["entries"]["ours"]["costs"]
    assert costs["latency_ms"] == 1000 * WINDOWS["synthesis_kernel"] / 16000  # type: ignore[operator]
    assert costs["peak_bytes"] > costs["model_bytes"] > 0
    text = document.read_text()
    assert text.startswith("Kept.\n\n## Results\n\n|")
    head, ours = (re.search(rf"^\| {name} \|.*$", text, re.M)[0].split(" | ") for name in ("", "ours"))  # type: ignore[index]
    assert ours[head.index("calls: muted")] == "-"
    assert "Old." not in text
    assert text.split("## Results\n\n")[1] == (tmp_path / "out" / "leaderboard.md").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|url\((?!#)|@import|<script""", page)
    assert "gone.pth" in page


def test_fixed_test_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["split,speaker,utterance,seconds"]
    for speaker in ("so1", "so2", "so3", "cv1"):
        for number in range(4):
            path = tmp_path / "corpus" / "speech" / "test" / speaker / "read" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.write(path, voice(rng, 120, 32000), 16000)
            rows.append(f"test,{speaker},{number},2.0")
    (tmp_path / "corpus" / "speech" / "utterances.csv").write_text("\n".join(rows))
    arguments = ["-cn", "test_sets", f"corpus={tmp_path / 'corpus'}", f"out_folder={tmp_path / 'sets'}", "only=[so]"]
    done = run("testing/make_test_sets.py", *arguments, "sets.so.mix='nfiles=3 random_state=5'", XDG_CACHE_HOME=str(tmp_path))
    assert "speakers=[so1,so2,so3]" in done.stdout
    found = manifest.read(tmp_path / "sets" / "so" / manifest.FILE)
    assert len(found) == 3
    assert all(3.9 < row.ref_samples / row.sample_rate <= 5 for row in found)  # files of 2 s, and pauses
    refused = run("testing/make_test_sets.py", *arguments, "+sets.so.min_seconds=9", check=False)
    assert "expected speakers like so*" in refused.stderr
