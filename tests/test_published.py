"""Published sets: the bits of the original script, the levels of P.56, and that nothing is made of the wrong files unseen."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import run
from numpy.typing import NDArray
from scipy.signal import freqz, resample_poly

from ss.data.published import Published, active_power, band, plan, rebuild
from ss.datasets.triplets import Triplets
from ss.errors import UserError

RATE = 16000
LENGTHS = {"11-2-0000": 21001, "11-3-0001": 17500, "22-5-0003": 18999, "22-5-0004": 16400, "33-1-0000": 30007}
MIXTURES = [("11-2-0000", "22-5-0003"), ("22-5-0004", "33-1-0000"), ("33-1-0000", "11-3-0001"), ("22-5-0003", "11-3-0001")]
# the same speaker from either place, a target in its own mixture, and a target that is its own enrolment, as the published map has
ENROLMENTS = [(0, 0, "s2", 2), (0, 1, "s1", 1), (1, 0, "s2", 0), (1, 1, "s1", 2), (2, 0, "s1", 2), (2, 1, "s2", 3), (3, 0, "s2", 0)]
COLUMNS = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"
EXTR = "wsj0/si_tr_s/01a/01aa010b.wav 1.44762 wsj0/si_tr_s/20a/20aa010p.wav -1.44762 wsj0/si_tr_s/01a/01ao0305.wav"
EXTR_NAME = "01a_01aa010b_1.4476_20aa010p_-1.4476_01ao0305"


def speech(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Speech-like noise [n]: syllables of 0.1 s in changing loudness, and pauses."""
    return rng.standard_normal(n).clip(-3, 3) * np.repeat(rng.choice([0, 0.02, 0.1, 0.2], n // 1600 + 1), 1600)[:n]


def put(path: Path, wave: NDArray[np.float64], rate: int = RATE) -> None:
    """Writes a file of a corpus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="PCM_16")


def flac(utterance: str) -> str:
    """Where LibriSpeech has it."""
    speaker, chapter, _ = utterance.split("-")
    return f"test-clean/{speaker}/{chapter}/{utterance}.flac"


def make_librimix(root: Path) -> Path:
    """LibriSpeech, WHAM with noises that are long, in stereo and short, metadata and map, all tiny."""
    rng = np.random.default_rng(0)
    for utterance, n in LENGTHS.items():
        put(root / "LibriSpeech" / flac(utterance), speech(rng, n))
    for number, n in enumerate((40000, 19000, 9000, 8100)):
        noise = 0.1 * rng.standard_normal((n, 2))
        put(root / f"wham/tt/{number}.wav", noise if number == 1 else noise[:, 0])
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS.split(","))
        for number, (first, second) in enumerate(MIXTURES):
            one, two, three = np.exp(rng.normal(0, 0.6, 3)) * (20 if number == 3 else 1)  # that one clips
            table.writerow([f"{first}_{second}", flac(first), one, flac(second), two, f"tt/{number}.wav", three])
    names = ["_".join(pair) for pair in MIXTURES]
    lines = [f"{names[one]} {MIXTURES[one][target]} {source}/{names[other]}" for one, target, source, other in ENROLMENTS]
    (root / "map").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def librimix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that no test changes."""
    return make_librimix(tmp_path_factory.mktemp("librimix"))


def librimix_config(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """The keys of mixing/configs/libri2mix.yaml that must be given, and others."""
    roots = {"speech": str(root / "LibriSpeech"), "noise": str(root / "wham")}
    lists = {"metadata": str(root / "metadata.csv"), "enrolments": str(root / "map")}
    return {"recipe": "librimix", **lists, "roots": roots, "out_folder": str(out), **changes}


def original(root: Path, out: Path, rate: int, mode: str) -> None:
    """What create_librimix_from_metadata.py does, step by step: folders s1, s2, mix_clean and mix_both."""
    with (root / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        waves = [soundfile.read(root / "LibriSpeech" / row[f"source_{n}_path"], dtype="float32")[0] for n in (1, 2)]
        longest = max(len(wave) for wave in waves)
        noise = soundfile.read(root / "wham" / row["noise_path"], dtype="float32", stop=longest)[0]
        noise = noise[:, 0] if noise.ndim == 2 else noise
        beginning, window = noise, np.hanning(16001)
        while len(noise) < longest:
            head, tail = noise[: len(noise) - 8001], noise[len(noise) - 8001 :]
            crossed = np.multiply(tail, window[8000::-1]) + np.multiply(beginning[:8001], window[:8001])
            noise = np.concatenate((head, crossed, beginning[8001:]))
        gains = [float(row[key]) for key in ("source_1_gain", "source_2_gain", "noise_gain")]
        waves = [resample_poly(wave * gain, rate, 16000) for wave, gain in zip([*waves, noise[:longest]], gains, strict=True)]
        lengths = [len(wave) for wave in waves]
        if mode == "min":
            waves = [wave[: min(lengths)] for wave in waves]
        else:
            waves = [np.pad(wave, (0, max(lengths) - len(wave)), mode="constant") for wave in waves]
        mixtures = {"s1": waves[:1], "s2": waves[1:2], "mix_clean": waves[:2], "mix_both": waves}
        for folder, parts in mixtures.items():
            mixture = np.zeros_like(parts[0])
            for part in parts:
                mixture += part
            (out / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(out / folder / f"{row['mixture_ID']}.wav", mixture, rate)


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_librimix_has_the_bytes_of_the_original(librimix: Path, tmp_path: Path, rate: int, mode: str) -> None:
    original(librimix, tmp_path, rate, mode)
    for kind in ("mix_clean", "mix_both"):
        out = tmp_path / f"ours_{kind}"
        assert rebuild(librimix_config(librimix, out, kind=kind, mode=mode, sample_rate=rate)) == 0
        for mixture, target, source, other in ENROLMENTS:
            name, others = "_".join(MIXTURES[mixture]), "_".join(MIXTURES[other])
            ours = out / f"{MIXTURES[mixture][target].split('-')[0]}_{name}"
            for what, theirs in (("mixed", f"{kind}/{name}"), ("target", f"s{1 + target}/{name}"), ("ref", f"{source}/{others}")):
                found, expected = Path(f"{ours}-{what}.wav"), tmp_path / f"{theirs}.wav"
                assert found.read_bytes() == expected.read_bytes(), f"{found} is not {expected}"
        assert len(list(out.glob("*.wav"))) == 3 * len(ENROLMENTS)
    clipped, _ = soundfile.read(tmp_path / f"mix_both/{'_'.join(MIXTURES[3])}.wav", dtype="int16")
    assert clipped.max() == 32767


def test_command_makes_triplets_without_noise_and_goes_on(librimix: Path, tmp_path: Path) -> None:
    words = [f"metadata={librimix}/metadata.csv", f"enrolments={librimix}/map", f"out_folder={tmp_path}", "num_workers=2"]
    arguments = ["mixing/rebuild.py", "-cn", "libri2mix", f"roots.speech={librimix}/LibriSpeech", *words]
    done = run(*arguments)
    assert "7 triplets of 3 target speakers" in done.stdout
    assert "4 enrolled by the very utterance that is the target" in done.stdout
    assert "7 of 7 mixtures are in" in done.stdout
    assert "mixing: 100%" in done.stderr
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    triplets = Triplets(tmp_path)
    assert {triplet.name.split("_")[0] for triplet in triplets.triplets} == {"11", "22", "33"}
    assert all(len(example.mixture) == len(example.target) for example in map(triplets.__getitem__, range(7)))

    gone = sorted(tmp_path.glob("*-mixed.wav"))[2:5]
    for path in gone:
        path.unlink()
    (tmp_path / ".22_x-ref.wav.1.part").write_text("half written")
    assert "3 made now, 4 there before" in run(*arguments).stdout
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused = run(*arguments, "mode=max", check=False)
    assert refused.returncode == 2
    assert "expected mode '\"max\"', found '\"min\"'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert run(*arguments, "mode=max", "overwrite=true").returncode == 0


def test_what_is_missing_is_named_and_tells_by_the_exit_code(librimix: Path, tmp_path: Path) -> None:
    root = shutil.copytree(librimix, tmp_path / "copy")
    lost, broken = root / "LibriSpeech" / flac("33-1-0000"), root / "wham/tt/0.wav"
    lost.unlink()
    put(broken, np.zeros(40000), rate=8000)
    config = librimix_config(root, tmp_path / "out", kind="mix_both")
    lists = [f"{key}={config[key]}" for key in ("metadata", "enrolments", "out_folder", "kind")]
    arguments = ["mixing/rebuild.py", "-cn", "libri2mix", *lists, *(f"roots.{key}={root}" for key, root in config["roots"].items())]
    done = run(*arguments, check=False)
    assert done.returncode == 1
    assert f"{lost}: expected a readable audio file" in done.stderr
    assert f"{broken}: expected a sample rate of 16000 Hz, found 8000 Hz" in done.stderr
    assert "1 of 7 mixtures are in" in done.stdout
    shutil.copytree(librimix, root, dirs_exist_ok=True)
    assert "6 made now, 1 there before" in run(*arguments).stdout
    assert rebuild(config) == 0
    lost.write_bytes(lost.read_bytes()[:5000])
    (root / "map").write_text(f"{'_'.join(MIXTURES[1])} 33-1-0000 s1/{'_'.join(MIXTURES[2])}\n" * 2)
    with pytest.raises(UserError, match=r"all 1 were skipped; the first: .*33-1-0000.flac: expected"):
        rebuild(config | {"out_folder": str(tmp_path / "none")})


def test_three_speakers_are_mixed_too(librimix: Path, tmp_path: Path) -> None:
    utterances = ["11-2-0000", "22-5-0003", "33-1-0000"]
    columns = ",".join(f"source_{n}_path,source_{n}_gain" for n in (1, 2, 3))
    cells = ",".join(f"{flac(utterance)},0.5" for utterance in utterances)
    (tmp_path / "csv").write_text(f"mixture_ID,{columns},noise_path,noise_gain\nm,{cells},tt/0.wav,1\n")
    (tmp_path / "map").write_text("m 33-1-0000 s3/m\n")
    lists = {"metadata": str(tmp_path / "csv"), "enrolments": str(tmp_path / "map")}
    assert rebuild(librimix_config(librimix, tmp_path / "out", **lists)) == 0
    mixture, target = (soundfile.read(tmp_path / f"out/33_m-{kind}.wav", dtype="int16")[0] for kind in ("mixed", "target"))
    sources = [soundfile.read(librimix / "LibriSpeech" / flac(utterance))[0][:18999] for utterance in utterances]
    assert np.abs(mixture / 32768 - sum(sources) / 2).max() < 1.01 / 32768
    assert np.abs(target / 32768 - sources[2] / 2).max() < 1.01 / 32768


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "librimax"}, "recipe: expected one of librimix, wsj0_2mix_extr, found librimax"),
        ({"sample_rate": 44100}, "sample_rate: expected one of 8000, 16000, found 44100"),
        ({"mode": "mid"}, "mode: expected one of min, max, found mid"),
        ({"kind": "mix_single"}, "kind: expected one of mix_clean, mix_both"),
        ({"num_workers": 0}, "num_workers: expected more than 0"),
        ({"enrolments": None}, "enrolments: expected a map for librimix"),
        ({"recipe": "wsj0_2mix_extr"}, "enrolments: expected a map for librimix, none for others"),
        ({"kind": "mix_both", "roots": {"speech": "/"}}, "kind: expected librimix and roots.noise for mix_both"),
        ({"roots": {"speech": "/nowhere"}}, "roots.speech: expected a folder, found none at /nowhere"),
        ({"roots": {"speech": "/", "wham": "/"}}, "unknown key wham: expected some of speech, noise"),
        ({"limit": 3}, "unknown key limit"),
    ],
)
def test_settings_say_what_was_expected(librimix: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rebuild(librimix_config(librimix, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


M0 = "11-2-0000_22-5-0003"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "map: expected a line for each triplet, found none"),
        (f"{M0} 11-2-0000", "map, line 1: expected 'mixture_ID utterance_ID s1/mixture_ID'"),
        (
            f"{M0} 11-2-0000 s1/{M0}\nx 11-2-0000 s1/{M0}",
            r"map, line 2: expected a mixture of .*metadata.csv.* found x 11-2-0000 s1",
        ),
        (f"{M0} 33-1-0000 s1/{M0}", "map, line 1: expected a mixture of .*, one of its utterances"),
        (f"{M0} 11-2-0000 s3/{M0}", "map, line 1: .* and a source of such a mixture"),
        (f"{M0} 11-2-0000 s2/{M0}", "map, line 1: expected an enrolment of the target's speaker 11, found one of 22"),
        (f"{M0} 11-2-0000 s1/{M0}\n{M0} 11-2-0000 s2/33-1-0000_11-3-0001", f"expected one triplet 11_{M0}, found two that differ"),
    ],
)
def test_maps_say_what_was_expected(librimix: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map").write_text(text)
    with pytest.raises(UserError, match=message):
        rebuild(librimix_config(librimix, tmp_path / "out", enrolments=str(tmp_path / "map")))


def test_lists_say_what_was_expected(librimix: Path, tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    for text in ("a,b\n1,2\n", f"{COLUMNS}\nm,p,loud,q,1,n,1\n", f"{COLUMNS}\nm,p,nan,q,1,n,1\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"metadata.csv, line 2: expected the columns mixture_ID, source_1_path"):
            rebuild(librimix_config(librimix, tmp_path / "out", metadata=str(path)))
    assert rebuild(librimix_config(librimix, tmp_path / "out")) == 0
    (tmp_path / "out/manifest.jsonl").write_text(json.dumps({"name": "x"}) + "\n")
    with pytest.raises(UserError, match=r"manifest.jsonl, line 1: expected name .*, found '\"x\"'"):
        rebuild(librimix_config(librimix, tmp_path / "out"))


@pytest.fixture(scope="module")
def wsj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WSJ0 with three utterances, and a list of one triplet."""
    root, rng = tmp_path_factory.mktemp("wsj"), np.random.default_rng(1)
    for path, n, level in zip(EXTR.split()[::2], (20001, 25000, 40003), (0.3, 1, 0.05), strict=True):
        put(root / path, level * speech(rng, n))
    (root / "mix_2_spk_tr_extr.txt").write_text(EXTR + "\n")
    return root


def wsj_config(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """The keys of mixing/configs/wsj0_2mix_extr.yaml."""
    given = {"metadata": str(root / "mix_2_spk_tr_extr.txt"), "roots": {"speech": str(root)}, "out_folder": str(out)}
    return {"recipe": "wsj0_2mix_extr", **given, "mode": "max", "sample_rate": 8000, **changes}


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_wsj0_2mix_extr_follows_its_steps(wsj: Path, tmp_path: Path, rate: int, mode: str) -> None:
    assert rebuild(wsj_config(wsj, tmp_path, mode=mode, sample_rate=rate)) == 0
    waves = []
    for path, snr in zip(EXTR.split()[::2], (1.44762, -1.44762, 0), strict=True):
        wave = resample_poly(soundfile.read(wsj / path)[0], rate, 16000)
        waves.append(wave / math.sqrt(active_power(wave, rate)) * 10 ** (snr / 20))
    target, other, ref = waves
    n = (min if mode == "min" else max)(len(target), len(other))
    assert n == math.ceil((20001 if mode == "min" else 25000) * rate / 16000)
    target, other = (np.append(wave, np.zeros(n))[:n] for wave in (target, other))
    loudest = max(np.abs(wave).max() for wave in (target + other, target, other, ref))
    for kind, wave in (("mixed", target + other), ("target", target), ("ref", ref)):
        found, found_rate = soundfile.read(tmp_path / f"{EXTR_NAME}-{kind}.wav", dtype="int16")
        assert found_rate == rate
        assert np.array_equal(found, np.rint(wave / loudest * 0.9 * 32768))


def test_command_rebuilds_wsj0_2mix_extr(wsj: Path, tmp_path: Path) -> None:
    where = [f"metadata={wsj}/mix_2_spk_tr_extr.txt", f"roots.speech={wsj}", f"out_folder={tmp_path}"]
    assert "1 of 1 mixtures are in" in run("mixing/rebuild.py", "-cn", "wsj0_2mix_extr", *where).stdout
    info = soundfile.info(tmp_path / f"{EXTR_NAME}-mixed.wav")
    assert (info.samplerate, info.frames, info.subtype) == (8000, 12500, "PCM_16")


def test_lists_of_wsj0_2mix_extr_are_checked(wsj: Path, tmp_path: Path) -> None:
    path = tmp_path / "list"
    for text, message in (
        (EXTR.replace(" 1.44762", ""), "list, line 1: expected 'target.wav SNR interferer.wav SNR enrolment.wav'"),
        (EXTR.replace(" 1.44762", " loud"), "list, line 1: expected levels in dB as words 2 and 4, found loud and -1.44762"),
        (EXTR.replace("01ao0305", "02bo0305"), "list, line 1: expected an enrolment of the target's speaker 01a, found one of 02b"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            rebuild(wsj_config(wsj, tmp_path / "out", metadata=str(path)))
    path.write_text(EXTR.replace(" wsj0", " /wsj0"))
    assert len(plan(Published.from_config(wsj_config(wsj, tmp_path, metadata=str(path))))) == 1
    silent = shutil.copytree(wsj, tmp_path / "silent")
    put(silent / EXTR.split()[4], np.zeros(RATE))
    with pytest.raises(UserError, match=r"01ao0305.wav: expected speech, found silence"):
        rebuild(wsj_config(silent, tmp_path / "out"))


def p56(wave: NDArray[np.float64], rate: int) -> float:
    """Method B of P.56 as its text goes, sample by sample, in dB: fixed thresholds of 6 dB, each with its own hangover."""
    pole, hangover = math.exp(-1 / (rate * 0.03)), round(0.2 * rate)
    thresholds = 2.0 ** -np.arange(15, 0, -1)
    active, silent = np.zeros(15), np.full(15, hangover)
    smooth = envelope = 0.0
    for sample in np.abs(wave):
        smooth = pole * smooth + (1 - pole) * sample
        envelope = pole * envelope + (1 - pole) * smooth
        silent = np.where(envelope >= thresholds, 0, silent + 1)
        active += silent <= hangover
    heard = active > 0
    levels = 10 * np.log10(np.square(wave).sum() / active[heard])
    return float(np.interp(-15.9, (20 * np.log10(thresholds[heard]) - levels), levels))


@pytest.mark.parametrize("rate", [8000, 16000])
def test_levels_are_those_of_p56(rate: int) -> None:
    rng = np.random.default_rng(2)
    for loud in (0.01, 0.1, 1):
        syllables = np.repeat(rng.choice([0, 0, 0, 0.1, 0.2], 40), rate // 10)
        tone = np.sin(2 * np.pi * 1000 / rate * np.arange(len(syllables)))  # in the middle of the band: no filter changes it
        wave = loud * syllables * tone
        assert 10 * math.log10(active_power(wave, rate)) == pytest.approx(p56(wave, rate), abs=0.25)
        assert active_power(3 * wave, rate) == pytest.approx(9 * active_power(wave, rate), rel=0.02)
    steady = np.sin(2 * np.pi * 1000 / rate * np.arange(2 * rate))
    spoken = np.concatenate([np.zeros(3 * rate), steady, np.zeros(3 * rate)])
    assert 10 * math.log10(active_power(steady, rate)) == pytest.approx(10 * math.log10(0.5), abs=0.1)
    assert 10 * math.log10(active_power(spoken, rate)) == pytest.approx(10 * math.log10(0.5 * 2 / 2.2), abs=0.2)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_levels_are_of_the_telephoneband(rate: int) -> None:

    impulse = np.zeros(1 << 16)
    impulse[0] = 1
    hertz = np.array([50, 79, 200, 1000, 3000] + ([5500, 7000] if rate == 16000 else []))
    gains = 20 * np.log10(np.abs(freqz(band(impulse, rate), worN=hertz, fs=rate)[1]))
    assert gains[:2].max() <= -49.9
    assert gains[2] == pytest.approx(-0.25, abs=1e-3)
    assert np.abs(gains[3:5]).max() < 0.05
    if rate == 16000:
        assert gains[5] == pytest.approx(-0.25, abs=1e-3)
        assert gains[6] <= -49.9
