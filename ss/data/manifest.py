"""Rows: all that makes a mixture, as plain data, and the mixture that comes of it. A manifest is a JSON object per line.

Places and lengths are in samples at the row's rate, levels in dB, paths relative to the folder they come from.
Shapes: S samples of mixture and target, R of the enrolment.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path
from typing import Any, NamedTuple

from ss.audio import PCM
from ss.errors import explain
from ss.files import Readable, read_text, whole_file

FILE = "manifest.jsonl"


class Mixture(NamedTuple):
    """What one row gives. others: the part of the target that is not asked for (its late reverberation), and noise [S]."""

    mixture: PCM  # [S]
    target: PCM  # [S]
    ref: PCM  # [R]
    interferers: tuple[PCM, ...] = ()
    others: tuple[PCM, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Samples start..stop of a file, heard from sample `at` on."""

    path: str
    start: int
    stop: int
    at: int


@dataclass(frozen=True)
class Room:
    """Where a voice stands in a shoebox of `size` metres with a reverberation of `rt60` seconds."""

    size: tuple[float, float, float]
    microphone: tuple[float, float, float]
    source: tuple[float, float, float]
    rt60: float


@dataclass(frozen=True)
class Voice:
    """A speaker: what is said when, `speed` times as fast; level: dB below the target's speech; rir: a file of the room's response,
    or room: a simulated one."""

    speaker: str
    pieces: tuple[Piece, ...]
    speed: float = 1.0
    level: float = 0.0
    rir: str | None = None
    room: Room | None = None

    def spoken(self) -> tuple[slice, ...]:
        """The samples of the mixture in which its pieces are."""
        return tuple(slice(piece.at, piece.at + floor((piece.stop - piece.start) / self.speed)) for piece in self.pieces)


@dataclass(frozen=True)
class Noise:
    """A file from sample `start` on, again from its beginning where it ends; level: dB below the target's speech."""

    path: str
    start: int
    level: float


@dataclass(frozen=True)
class Row:
    """One mixture of `samples`, its target (whose pieces are none where it is absent), and an enrolment of `ref_samples`.

    early_ms: what of the room belongs to the target that is asked for (None: all). bandwidth in Hz, codec, clip_db: what the
    channel does; the last two to the mixture alone. level: dB of full scale; loudness: LUFS of the target instead, if not None;
    ref_level: dB of full scale of the enrolment, None: as loud as the mixture; ref_pitch: the part of its speed that leaves its
    formants as they were, as a factor, None: none; ref_equalizer: dB for each octave of it.
    """

    name: str
    pattern: str
    sample_rate: int
    samples: int
    ref_samples: int
    target: Voice
    interferers: tuple[Voice, ...]
    enrolment: Voice
    noise: Noise | None = None
    enrolment_noise: Noise | None = None
    early_ms: float | None = None
    bandwidth: float | None = None
    codec: str | None = None
    clip_db: float | None = None
    level: float = -25.0
    loudness: float | None = None
    ref_level: float | None = None
    ref_pitch: float | None = None
    ref_equalizer: tuple[float, ...] | None = None

    @property
    def linear(self) -> bool:
        """Whether the mixture is the sum of its parts."""
        return self.codec is None and self.clip_db is None


def write(path: Path, lines: Iterable[str]) -> None:
    """Writes a manifest, or another list of lines, whole or not at all."""
    with whole_file(path) as aside, aside.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)


def to_line(row: Any) -> str:
    """A row, or another dataclass, as one line."""
    content = asdict(row)
    for key in ("ref_level", "ref_pitch", "ref_equalizer"):  # keys that came later: manifests from before stay as they are
        if content.get(key, 0) is None:
            del content[key]
    return json.dumps(content, separators=(",", ":"))


def read(path: Readable) -> list[Row]:
    """The rows of a manifest. Raises UserError with the file and line where it is not one."""
    rows = []
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path}, line {number}"
        with explain(f"{where}: expected a row of a manifest, but", KeyError, TypeError, ValueError, AttributeError):
            content = json.loads(text)
            for key in ("target", "enrolment"):
                content[key] = _voice(content[key])
            for key in ("noise", "enrolment_noise"):
                content[key] = content[key] and Noise(**content[key])
            if content.get("ref_equalizer") is not None:
                content["ref_equalizer"] = tuple(content["ref_equalizer"])
            rows.append(Row(**{**content, "interferers": tuple(map(_voice, content["interferers"]))}))
    return rows


def _voice(content: dict[str, Any]) -> Voice:
    room: dict[str, Any] | None = content["room"]
    if room is not None:
        room = {key: tuple(value) if isinstance(value, list) else value for key, value in room.items()}
    return Voice(**{**content, "pieces": tuple(Piece(**piece) for piece in content["pieces"]), "room": room and Room(**room)})
