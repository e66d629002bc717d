"""What a manifest lets an audit expect of each triplet of a folder, as far as an audit can hold the waves against it."""

from collections.abc import Iterable
from math import floor
from pathlib import Path
from typing import NamedTuple

from ss.data import manifest
from ss.data.corpus import Span

ABSENT = "absent"  # as names end that the scenes give


class Expected(NamedTuple):
    """What is known of a triplet before it is heard; None: nothing is.

    target: whether the target speaks at all; others: whether anything else is heard in the mixture. sir: dB of the target over the
    interferer, mean powers, each while it speaks (`spoken`: when, of both); why_no_sir: why it is not known. shared: what enrolment
    and target both hold, else empty.
    """

    target: bool | None = None
    others: bool | None = None
    sir: float | None = None
    why_no_sir: str = "not in a manifest"
    shared: str = ""
    spoken: tuple[tuple[slice, ...], ...] = ()


def read_expected(folder: Path) -> dict[str, Expected]:
    """By name, what `manifest.jsonl` in a folder says, if there. Raises UserError for one that is none."""
    path = folder / manifest.FILE
    return {row.name: expected_of_row(row) for row in manifest.read(path)} if path.exists() else {}


def expected_of_row(row: manifest.Row) -> Expected:
    """What a row says. Its SIR is known where one other speaks and nothing else changes what is heard of both."""
    target, ref = ([Span(piece.path, piece.start, piece.stop) for piece in voice.pieces] for voice in (row.target, row.enrolment))
    in_a_room = row.target.rir is not None or row.target.room is not None
    others: bool | None = bool(row.interferers) or row.noise is not None
    if not others and (not row.linear or (row.early_ms is not None and in_a_room)):
        others = None  # what a codec or a room adds to the mixture may be anything
    reasons = {
        "no single interferer beside a target": len(row.interferers) != 1 or not target,
        "levels by loudness": row.loudness is not None,
        "in a room": in_a_room or any(voice.rir is not None or voice.room is not None for voice in row.interferers),
        "noise or a channel": row.noise is not None or row.bandwidth is not None or not row.linear,
    }
    why = next((reason for reason, holds in reasons.items() if holds), "")
    return Expected(
        target=bool(target),
        others=others,
        sir=None if why else row.interferers[0].level,
        why_no_sir=why,
        shared=shared(target, ref),
        spoken=() if why else (times_of(row.target), times_of(row.interferers[0])),
    )


def times_of(voice: manifest.Voice) -> tuple[slice, ...]:
    """When a voice speaks, in samples of the mixture."""
    return tuple(slice(piece.at, piece.at + floor((piece.stop - piece.start) / voice.speed)) for piece in voice.pieces)


def shared(target: Iterable[Span], ref: Iterable[Span]) -> str:
    """The first span of a file that both take something from, in words; empty where there is none."""
    for one in target:
        for other in ref:
            start, stop = max(one.start, other.start), min(one.stop, other.stop)
            if one.path == other.path and start < stop:
                return f"both from {one.path}, samples {start} to {stop}"
    return ""
