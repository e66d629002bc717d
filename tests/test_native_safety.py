"""The C library under sanitizers, valgrind and a counter of allocations: models of random sizes, damaged files, any chunks."""

import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RATE, ROOT
from test_export import online
from test_native import HEADER, signed

from ss.export import export
from ss.export.native import model_bytes
from ss.runtime import Extractor

COMPILER = shutil.which(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
KERNELS = ("avx512vnni", "avx2", "sse2")
WORDS = 15  # options in a file


def build(target: str, folder: Path) -> Path:
    """A program of libss/Makefile. Skips the test where this compiler cannot make it."""
    command = ["make", "-s", "-C", str(ROOT / "libss"), f"OUT={folder}", f"{folder}/{target}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "check.c:" not in done.stderr, done.stderr
        assert "ss.c:" not in done.stderr, done.stderr
        pytest.skip(f"this compiler makes no {target}")
    return folder / target


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libss/check.c with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return build("check.sanitized", tmp_path_factory.mktemp("sanitized"))


def check(program: Path, files: list[Path], *before: str, kernel: str = "", seed: int = 1) -> list[str]:
    """What became of each file; the program must end well."""
    command = [*before, str(program), str(seed), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "SS_KERNEL": kernel})
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-6000:]
    rows = done.stdout.splitlines()
    assert len(rows) == len(files)
    return [row.split(": ", 1)[1] for row in rows]


def random_model(rng: np.random.Generator) -> dict[str, Any]:
    """Arguments of a small online model of random form."""

    def number(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    hop = number(3, 40)
    synthesis = number(hop, 2 * hop)
    factors = [2 * n for n in range(synthesis // 2 + 1, 120) if n not in (67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113)]
    stacks, blocks = number(1, 3), number(1, 5)
    hidden = number(1, 40) if rng.random() < 0.5 else [number(0, 2) * number(1, 20) for _ in range(stacks * blocks)]
    return {
        "n_channels": number(1, 40),
        "hidden_channels": hidden,
        "out_channels": number(1, 40),
        "kernels": sorted(int(rng.choice(factors)) for _ in range(number(1, 3))),
        "synthesis_kernel": synthesis,
        "hop": hop,
        "n_resnetblocks": number(0, 3),
        "n_speakers": 3,
        "n_stacked_tcnblocks": stacks,
        "n_tcnblocks": blocks,
        "taps": number(1, 4),
        "memory": str(rng.choice(["none", "lstm", "gru", "linear"])),
        "lookahead": number(0, 3),
        "complex_mask": bool(rng.random() < 0.5),
    }


def write_models(folder: Path, seed: int, n: int) -> list[Path]:
    """Files of models of random forms, every other one in int8."""
    rng, paths = np.random.default_rng(seed), []
    for i in range(n):
        model = online(**random_model(rng))
        paths.append(folder / f"{seed}-{i}.ss")
        paths[-1].write_bytes(model_bytes(model, RATE, int8=i % 2 == 1))
    return paths


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with something else in it, whose size and checksum are right again, so that more than those is tested."""
    kind, changed = int(rng.integers(5)), bytearray(content)
    if kind == 0:  # an option
        place = HEADER + 4 * int(rng.integers(WORDS))
        word = int(rng.choice([0, 1, 2, 3, 5, 16, 17, 255, 4096, 65536, 2**31 - 1, 2**31, 2**32 - 1]))
        changed[place : place + 4] = struct.pack("<I", word)
    elif kind == 1:  # sizes of windows and blocks
        place = HEADER + 4 * (WORDS + int(rng.integers(8)))
        changed[place : place + 4] = struct.pack("<I", int(rng.choice([0, 1, 2, 62, 134, 32768, 40000, 2**32 - 2])))
    elif kind == 2:  # weights: finite, but as large as can be, and others
        for place in rng.integers(len(changed) // 8, len(changed) // 4, 50):
            changed[4 * place : 4 * place + 4] = struct.pack("<f", float(rng.choice([3e38, -3e38, 1e30, 1e-40, -1e10])))
    elif kind == 3:
        for place in rng.integers(HEADER, len(changed), 30):
            changed[place] = int(rng.integers(256))
    else:
        cut = int(rng.integers(len(changed)))
        changed = changed[:cut] + changed[cut + int(rng.integers(1, 9)) :]
    return signed(bytes(changed)) if len(changed) >= HEADER else bytes(changed)


def fuzz(sanitized: Path, folder: Path, seed: int, n: int) -> None:
    """Models of random forms and damaged files of them, in the sanitized library, with all vector instructions."""
    rng, models = np.random.default_rng(seed), write_models(folder, seed, n)
    damaged = []
    for i, path in enumerate(models * 6):
        damaged.append(folder / f"damaged-{seed}-{i}.ss")
        damaged[-1].write_bytes(damage(path.read_bytes(), rng))
    for kernel in KERNELS:
        assert check(sanitized, models, kernel=kernel, seed=seed) == ["ran"] * len(models)
        became = check(sanitized, damaged, kernel=kernel, seed=seed)
        assert len({*became}) >= 3  # some run, some are refused for this or that
    for path in (*models, *damaged):
        path.unlink()


def test_random_models_and_damaged_files_under_sanitizers(sanitized: Path, tmp_path: Path) -> None:
    fuzz(sanitized, tmp_path, 0, 8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_more_random_models_and_damaged_files_under_sanitizers(sanitized: Path, tmp_path: Path, seed: int) -> None:
    fuzz(sanitized, tmp_path, seed, 20)


def test_files_without_a_right_checksum_under_sanitizers(sanitized: Path, tmp_path: Path) -> None:
    (model,), rng = write_models(tmp_path, 0, 1), np.random.default_rng(0)
    content, paths = model.read_bytes(), []
    for i in range(50):
        paths.append(tmp_path / f"{i}.bin")
        cut = int(rng.integers(len(content))) if i % 2 else int(rng.integers(200))
        paths[-1].write_bytes(content[:cut] if i % 4 < 2 else bytes(content[:cut]) + rng.bytes(64))
    assert "ran" not in check(sanitized, [*paths, tmp_path / "nowhere", tmp_path])


def test_damaged_voices_under_sanitizers(sanitized: Path, tmp_path: Path) -> None:
    model, rng, paths = online(memory="lstm"), np.random.default_rng(0), list[Path]()
    export(model, tmp_path / "exported")
    extractor = Extractor.load(tmp_path / "exported", backend="onnxruntime")
    extractor.enroll(rng.standard_normal(9 * extractor.shortest_enrolment, np.float32)).save(tmp_path / "whole.voice")
    content = (tmp_path / "whole.voice").read_bytes()
    for i in range(100):
        changed = bytearray(content[: int(rng.integers(len(content) + 1))] if i % 2 else content)
        for place in rng.integers(16, 60, i % 3):
            changed[place : place + 1] = rng.bytes(1)
        changed[12:16] = struct.pack("<I", zlib.crc32(changed[16:]))
        paths.append(tmp_path / f"{i}.voice")
        paths[-1].write_bytes(changed)
    model_file, voices = tmp_path / "exported" / "model.ss", [tmp_path / "whole.voice", *paths, tmp_path / "nowhere.voice"]
    ran, whole, *became = check(sanitized, [model_file, *voices])
    assert (ran, whole) == ("ran", "a voice")
    assert {*became} >= {
        "expected a voice of this model, found one of another: enrol the speaker again",
        "the voice file cannot be read",
    }


def test_a_step_allocates_nothing(tmp_path: Path) -> None:
    program = build("check.counted", tmp_path)
    models = write_models(tmp_path, 5, 12)
    for kernel in KERNELS:
        assert check(program, models, kernel=kernel) == ["ran"] * len(models)
    symbols = subprocess.run(["nm", str(program)], capture_output=True, text=True, check=True).stdout
    assert "__wrap_malloc" in symbols  # calls are counted indeed


def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("needs valgrind")
    program, models = build("check", tmp_path), write_models(tmp_path, 6, 4)
    how = ("--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=all")
    assert check(program, models, valgrind, *how) == ["ran"] * len(models)
