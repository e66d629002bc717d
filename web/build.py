"""Puts the page together in one folder, which any static host serves: PYTHONPATH=. python3 web/build.py web/dist

`make web` builds the library first.
"""

import argparse
import hashlib
import shutil
from pathlib import Path

import numpy as np
import soundfile

from ss import audio
from ss.runtime.pretrained import NATIVE, find_model

ROOT = Path(__file__).parents[1]
PAGE = "index.html style.css icon.svg manifest.webmanifest page.js audio.js enrolment.js player.js spectrogram.js worklet.js"
PAGE += " library.js resample.js enroller.js"
WORKER = "service_worker.js"
SAMPLE_RATE = 16000
MOST_BYTES = 4_000_000  # of all files


def build(folder: Path, library: Path) -> None:
    """Writes the folder anew: page, library, the released model with int8 weights, and an example."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name in PAGE.split():
        shutil.copy(ROOT / "web" / name, folder)
    shutil.copyfile(library, folder / "libss.wasm")
    shutil.copyfile(find_model(precision="int8") / NATIVE, folder / NATIVE)
    write_example(folder)
    write_service_worker(folder)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    for name, size in sizes.items():
        print(f"{size:9,}  {name}")
    print(f"{sum(sizes.values()):9,}  bytes in {folder}")
    assert sum(sizes.values()) <= MOST_BYTES


def write_example(folder: Path) -> None:
    """A mixture of two voices, equally loud, and the enrolment of one of them, with the licences of the recordings."""
    speech = ROOT / "demo" / "speech"
    target, other = (audio.read(speech / f"{name}.flac", SAMPLE_RATE) for name in ("reader", "woman"))
    n_samples = min(len(target), len(other))
    target, other = target[:n_samples], other[:n_samples]
    mixture = 0.7 * (target + other * np.float32(np.linalg.norm(target) / np.linalg.norm(other)))
    soundfile.write(folder / "example-mixture.flac", mixture, SAMPLE_RATE, subtype="PCM_16")
    shutil.copyfile(speech / "reader-enrolment.flac", folder / "example-voice.flac")
    shutil.copyfile(speech / "README.md", folder / "example-licences.txt")


def write_service_worker(folder: Path) -> None:
    """The service worker, which keeps all files of the folder; its version is a sum of their content."""
    files = sorted(folder.iterdir())
    version = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()[:16]
    text = (ROOT / "web" / WORKER).read_text()
    text = text.replace("@VERSION@", version).replace("@FILES@", " ".join(path.name for path in files))
    (folder / WORKER).write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--library", type=Path, default=ROOT / "libss/build/libss.wasm")
    arguments = parser.parse_args()
    build(arguments.folder, arguments.library)
