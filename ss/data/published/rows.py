"""A published set as rows: which files a triplet is made of; and what reading its lists needs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ss.errors import UserError
from ss.files import read_text


@dataclass(frozen=True)
class Part:
    """A file below one of the roots; gain: a factor (librimix) or dB of its active level (wsj0_2mix_extr)."""

    path: str
    gain: float
    root: str = "speech"

    @property
    def utterance(self) -> str:
        """Its file's name without what it ends with."""
        return Path(self.path).stem


@dataclass(frozen=True)
class PublishedRow:
    """One triplet: the sum of `parts`, of which number `target` is the target. The enrolment is number `ref` of `ref_parts`, which
    give it its length."""

    name: str
    recipe: str
    sample_rate: int
    mode: str
    parts: tuple[Part, ...]
    target: int
    ref_parts: tuple[Part, ...]
    ref: int


def lines(path: str, form: str) -> Iterator[tuple[str, list[str]]]:
    """Where each line of a list is, and its words. Raises UserError for a line of another form."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if words := line.split():
            if len(words) != len(form.split()):
                raise UserError(f"{path}, line {number}: expected '{form}', found {line!r}")
            yield f"{path}, line {number}", words


def finite(text: str) -> float:
    """A word as a number. Raises ValueError for any that is not finite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {text}")
    return value


def same_speaker(where: str, target: str, enrolled: str) -> str:
    """The speaker. Raises UserError where the enrolment is of another than the target."""
    if target != enrolled:
        raise UserError(f"{where}: expected an enrolment of the target's speaker {target}, found one of {enrolled}")
    return target
