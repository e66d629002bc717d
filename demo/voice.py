"""Drawing voices: each is one speaker of the synthetic corpus, as different from the others as eSpeak allows.

A voice has an accent (the language whose rules read the text), a variant of its own (formants, glottal source, breath,
roughness, spectral tilt, pitch, speed) and a shift: what eSpeak renders is played faster or slower by that factor, which
scales formants, fricatives and pitch together, as a shorter or longer vocal tract and larynx do.
"""

from typing import NamedTuple

import numpy as np

SPLITS = ("train", "dev", "test")
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
# Languages whose rules read English words as if they were their own: other sounds and another melody.
FOREIGN: tuple[str, ...] = (
    "af",
    "ca",
    "cs",
    "cy",
    "da",
    "de",
    "es",
    "et",
    "eu",
    "fi",
    "fr",
    "ga",
    "hr",
    "hu",
    "id",
    "is",
    "it",
)
FOREIGN += ("la", "lt", "lv", "mt", "nb", "nl", "pl", "pt", "pt-br", "ro", "sk", "sl", "sq", "sv", "sw", "tr")


class Voice(NamedTuple):
    """One speaker.

    speaker: its id; split: train, dev or test; variant: what eSpeak's variant file says of the timbre.
    language: as eSpeak calls it; pitch: about its median F0, in Hz; speed: of its speech, 1 is eSpeak's own; shift: a factor.
    range: the ratio of the melody's upper end to its base.
    """

    speaker: str
    split: str
    language: str
    variant: str
    pitch: float
    range: float
    speed: float
    shift: float

    def variant_file(self) -> str:
        """The text of the variant file: the timbre, and the pitch and speed before the shift."""
        base = self.pitch / self.shift * 2 / (1 + self.range)
        return f"{self.variant}\npitch {base:.0f} {base * self.range:.0f}\nspeed {100 * self.speed / self.shift:.0f}"

    def row(self) -> list[str]:
        """The fields as text, for a table: numbers rounded, the variant on one line."""
        return [field.replace("\n", "; ") if isinstance(field, str) else f"{field:.3f}" for field in self]


def draw_voice(split: str, number: int, seed: int) -> Voice:
    """The voice of this number in a split, the same however many others there are."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    size = rng.uniform()  # 0: long vocal tract, low pitch; 1: short and high
    shift = np.clip(np.exp(-0.15 + 0.32 * size + rng.normal(0, 0.05)), 0.82, 1.26)
    pitch = np.clip(np.exp(np.log(85) + np.log(260 / 85) * size + rng.normal(0, 0.2)), 70, 330)
    language = rng.choice(ACCENTS) if rng.uniform() < 0.65 else rng.choice(FOREIGN)
    timbre = _draw_variant(rng)
    speaker = f"{split}{number:03d}"
    return Voice(speaker, split, str(language), timbre, pitch, rng.uniform(1.2, 1.9), rng.uniform(0.8, 1.15), shift)


def _draw_variant(rng: np.random.Generator) -> str:
    """The lines of a variant file about timbre: frequencies, strengths and widths in percent of eSpeak's own voice."""
    lines = [f"formant 0 100 {rng.uniform(70, 190):.0f} 100"]
    for formant in range(1, 6):
        hertz, strength, width = 100 * np.exp(rng.normal(0, 0.06)), rng.uniform(60, 150), rng.uniform(70, 160)
        lines.append(f"formant {formant} {np.clip(hertz, 86, 116):.0f} {strength:.0f} {width:.0f}")
    lines += [f"formant {formant} 100 {rng.uniform(20, 220):.0f} 100" for formant in range(6, 9)]
    lines.append(f"voicing {rng.uniform(75, 135):.0f}")
    lines.append(f"consonants {rng.uniform(70, 160):.0f} {rng.uniform(70, 150):.0f}")
    lines.append(f"flutter {rng.uniform(0, 20):.0f}")
    lines.append(f"roughness {rng.integers(0, 5)}")
    lines.append(f"intonation {rng.integers(1, 5)}")
    tilt = 255 * np.array([1, 0.7, 0.5, 0.5]) ** rng.uniform(0.1, 2)
    lines.append("tone " + " ".join(f"{hertz} {level:.0f}" for hertz, level in zip((600, 1200, 2000, 3000), tilt, strict=True)))
    if rng.uniform() < 0.4:
        breath = rng.uniform(5, 45) * np.array([1, 1, 1, 0.8, 0.6, 0.4, 0.3, 0.2])
        lines.append("breath " + " ".join(f"{level:.0f}" for level in breath))
    if rng.uniform() < 0.25:
        lines.append(f"klatt {rng.integers(3, 7)}")  # a source of eSpeak's other synthesiser (Klatt, 1980); 1 and 2 crackle
    return "\n".join(lines)
