"""A host of LADSPA plugins, and what `python tests/ladspa_host.py PLUGIN FOLDER SEED` does with one under sanitizers."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HANDLE, NUMBER = ctypes.c_void_p, ctypes.c_ulong
ON, REST = 0, 1  # of the controls


class Descriptor(ctypes.Structure):
    _fields_ = (
        ("id", NUMBER),
        ("label", ctypes.c_char_p),
        ("properties", ctypes.c_int),
        *((name, ctypes.c_char_p) for name in ("name", "maker", "copyright")),
        ("n_ports", NUMBER),
        ("ports", ctypes.POINTER(ctypes.c_int)),
        ("port_names", ctypes.POINTER(ctypes.c_char_p)),
        ("ranges", HANDLE),
        ("data", HANDLE),
        ("instantiate", ctypes.CFUNCTYPE(HANDLE, HANDLE, NUMBER)),
        ("connect_port", ctypes.CFUNCTYPE(None, HANDLE, NUMBER, HANDLE)),
        ("activate", ctypes.CFUNCTYPE(None, HANDLE)),
        ("run", ctypes.CFUNCTYPE(None, HANDLE, NUMBER)),
        *((name, HANDLE) for name in ("run_adding", "set_run_adding_gain", "deactivate")),
        ("cleanup", ctypes.CFUNCTYPE(None, HANDLE)),
    )


class Host:
    """An instance of the plugin at a sample rate; controls: on, rest, and the latency in samples that it reports."""

    def __init__(self, plugin: Path, rate: int) -> None:
        library = ctypes.CDLL(str(plugin))
        library.ladspa_descriptor.restype = ctypes.POINTER(Descriptor)
        library.ladspa_descriptor.argtypes = [NUMBER]
        assert not library.ladspa_descriptor(1)
        pointer = library.ladspa_descriptor(0)
        self.descriptor = pointer.contents
        self.handle = self.descriptor.instantiate(pointer, rate)
        assert self.handle
        self.controls = np.array([1, 0, -1], np.float32)
        for i in range(3):
            self.descriptor.connect_port(self.handle, 2 + i, self.controls.ctypes.data + 4 * i)
        self.descriptor.activate(self.handle)

    def run(self, wave: np.ndarray, sizes: Iterator[int], in_place: bool = False) -> np.ndarray:
        """A wave [n] in blocks of these sizes -> as much."""
        wave = wave.astype(np.float32)
        out, begin = wave if in_place else np.full_like(wave, np.nan), 0
        while begin < len(wave):
            n = min(next(sizes), len(wave) - begin)
            for port, samples in enumerate((wave, out)):
                self.descriptor.connect_port(self.handle, port, samples.ctypes.data + 4 * begin)
            self.descriptor.run(self.handle, n)
            begin += n
        return out

    def close(self) -> None:
        self.descriptor.cleanup(self.handle)


def random_sizes(rng: np.random.Generator) -> Iterator[int]:
    """Sizes of blocks: none, one sample, odd ones, large ones."""
    while True:
        yield int(rng.choice([0, 1, int(rng.integers(1, 700)), 256, 1024, 8192]))


def bad_audio(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise with what no microphone should give: NaN, infinity, denormals, and far too loud samples."""
    wave = rng.standard_normal(n).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf, 1e-42, 3e38, -3e38, 0):
        wave[rng.integers(0, n, n // 20)] = value
    return wave


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """A file as it was, cut, empty, with wrong bytes, or something else."""
    changed, kind = bytearray(content), int(rng.integers(6))
    if kind == 1:
        return content[: int(rng.integers(len(content)))]
    if kind == 2:
        return rng.bytes(int(rng.integers(300)))
    if kind > 3:
        for place in rng.integers(0, len(changed), 3):
            changed[place] = int(rng.integers(256))
    return bytes(changed)


def fuzz(plugin: Path, folder: Path, seed: int) -> None:
    """Instances with random rates, blocks, controls and audio, and damaged files, of model.ss and me.voice in a folder."""
    rng = np.random.default_rng(seed)
    files = {"model": (folder / "model.ss").read_bytes(), "voice": (folder / "me.voice").read_bytes()}
    conf = folder / "ss" / "mic.conf"
    conf.parent.mkdir(exist_ok=True)
    os.environ |= {"XDG_CONFIG_HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    for name in ("SS_MODEL", "SS_VOICE"):
        os.environ.pop(name, None)
    worked = 0
    for _ in range(40):
        lines = b""
        for name, content in files.items():
            path = folder / f"damaged.{name}"
            path.write_bytes(content if rng.random() < 0.6 else damage(content, rng))
            lines += f"{name}={path}\n".encode()
        conf.write_bytes(lines if rng.random() < 0.7 else damage(lines * int(rng.integers(1, 200)), rng))
        rates = [0, 1, 3999, 4000, 8000, 11025, 16000, 44100, 47999, 48000, 96000, 384000, 768000, 768001, 2**40]
        hosts = [Host(plugin, int(rng.choice(rates))) for _ in range(int(rng.integers(1, 3)))]
        for _ in range(3):
            for host in hosts:
                host.controls[:2] = rng.choice([0, 1, 0.3, -1, 7, np.nan, np.inf, -np.inf, 1e-40], 2)
                out = host.run(bad_audio(rng, int(rng.integers(100, 9000))), random_sizes(rng), bool(rng.integers(2)))
                assert np.isfinite(out).all()
                worked += bool(out.any()) and host.controls[2] > 0
                if rng.random() < 0.2:
                    host.descriptor.activate(host.handle)
        for host in hosts:
            host.close()
    print(worked)


if __name__ == "__main__":
    fuzz(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
