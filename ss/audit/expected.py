"""What a manifest lets an audit expect of each triplet of a folder, as far as an audit can hold the waves against it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ss.mixing import manifest
from ss.mixing.corpus import Span
from ss.scenes import row as scenes

ABSENT = "absent"  # as names end that the scenes give


class Expected(NamedTuple):
    """What is known of a triplet before it is heard; None: nothing is.

    target: whether the target speaks at all; others: whether anything else is heard in the mixture. sir: dB of the target over the
    interferer, mean powers, each where it is; why_no_sir: why it is not known. shared: what enrolment and target both hold, else
    empty.
    """

    target: bool | None = None
    others: bool | None = None
    sir: float | None = None
    why_no_sir: str = "not in a manifest"
    shared: str = ""


def read_expected(folder: Path) -> dict[str, Expected]:
    """By name, what `manifest.csv` and `manifest.jsonl` in a folder say, if there. Raises ValueError for one that is none."""
    found: dict[str, Expected] = {}
    if (folder / manifest.FILE).exists():
        found |= {row.name: expected_of_mixture(row) for row in manifest.read(folder / manifest.FILE)}
    if (folder / scenes.FILE).exists():
        found |= {row.name: expected_of_scene(row) for row in scenes.read(folder / scenes.FILE)}
    return found


def expected_of_mixture(row: manifest.Row) -> Expected:
    """What a row of two-speaker mixing says. Its SIR is known where both speak all the time, and levels are not by loudness."""
    why = f"scene {row.scene}" if row.scene != "full" else "levels by loudness" if row.loudness is not None else ""
    speaks, others, sir = row.scene != "absent", row.scene != "clean", None if why else row.snr
    return Expected(speaks, others, sir, why, shared([row.target], [row.ref]) if speaks else "")


def expected_of_scene(row: scenes.Row) -> Expected:
    """What a row of scenes says. No SIR: levels are over each voice's own speech, which the sum of several does not tell."""
    target, ref = ([Span(piece.path, piece.start, piece.stop) for piece in voice.pieces] for voice in (row.target, row.enrolment))
    in_a_room = row.target.rir is not None or row.target.room is not None
    others: bool | None = bool(row.interferers) or row.noise is not None
    if not others and (not row.linear or (row.early_ms is not None and in_a_room)):
        others = None  # what a codec or a room adds to the mixture may be anything
    return Expected(bool(target), others, None, "a row of scenes", shared(target, ref))


def shared(target: Iterable[Span], ref: Iterable[Span]) -> str:
    """The first span of a file that both take something from, in words; empty where there is none."""
    for one in target:
        for other in ref:
            start, stop = max(one.start, other.start), min(one.stop, other.stop)
            if one.path == other.path and start < stop:
                return f"both from {one.path}, samples {start} to {stop}"
    return ""
