"""Draws docs/spectrogram.png: a mixture of two voices, what the released model takes out of it, and the target alone.

PYTHONPATH=. python3 demo/picture.py docs/spectrogram.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from clips import HOP, RANGE_DB, SAMPLE_RATE, spectrogram
from PIL import Image
from released import SPEECH, si_sdr

from ss import audio
from ss.runtime import Extractor


def draw(path: Path) -> None:
    """Writes the picture. The recordings and their licences are in demo/speech/README.md."""
    target, other, enrolment = (
        audio.read(SPEECH / f"{name}.flac", SAMPLE_RATE) for name in ("reader", "woman", "reader-enrolment")
    )
    n_samples = min(len(target), len(other))
    target, other = target[:n_samples], other[:n_samples]
    mixture = target + other * np.float32(np.linalg.norm(target) / np.linalg.norm(other))
    stream = Extractor.from_pretrained().stream(enrolment)
    estimate = np.concatenate([stream.process(mixture), stream.flush()])
    gain = si_sdr(estimate, target) - si_sdr(mixture, target)
    waves = {
        "Mixture: a man and a woman, equally loud": mixture,
        f"Estimate: the man, enrolled by another recording (SI-SDR {gain:+.1f} dB)": estimate,
        "Target: the man alone": target,
    }
    figure, axes = plt.subplots(3, 1, figsize=(8, 5), sharex=True, dpi=80, layout="constrained")
    for axis, (title, wave) in zip(axes, waves.items(), strict=True):
        levels = spectrogram(wave)
        extent = (0, levels.shape[1] * HOP / SAMPLE_RATE, 0, SAMPLE_RATE / 2000)
        axis.imshow(levels, aspect="auto", cmap="magma", extent=extent, vmin=0, vmax=255)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel(f"seconds (brightness: {RANGE_DB} dB below the loudest point of each)")
    figure.savefig(path)
    Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)  # a quarter of the bytes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    draw(parser.parse_args().out)
