"""What makes a data set sound: the keys of `audit.yaml`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ss.data.scene import reject_unknown_keys

WHOLE = ("sample_rate", "clip_run", "num_workers")
NUMBERS = (*WHOLE, "min_len", "ref_min_len", "silent_db", "same", "sir_tolerance")


@dataclass(frozen=True)
class Settings:
    """What is held against the triplets.

    folders: of triplets, each with its manifest if it has one. sample_rate: Hz of all files; None: what most of them have.
    min_len, ref_min_len: seconds that mixtures and enrolments have at least. silent_db: dB of full scale below which the peak of
    silence is. clip_run: so many samples in a row at full scale are clipped. same: the correlation from which enrolment and target
    are of one recording. sir_tolerance: dB between the planned SIR and the one that is heard. disjoint: whether folders must not
    share target speakers. Raises ValueError for a value that cannot be.
    """

    folders: list[str]
    out_folder: str
    sample_rate: int | None = None
    min_len: float = 0.5
    ref_min_len: float = 1.0
    silent_db: float = -60.0
    clip_run: int = 3
    same: float = 0.8
    sir_tolerance: float = 0.5
    disjoint: bool = True
    num_workers: int = 1

    def __post_init__(self) -> None:
        several = [self.folders] if isinstance(self.folders, str) else self.folders or []
        object.__setattr__(self, "folders", list(map(str, several)))
        if not self.folders or len({Path(folder).resolve() for folder in self.folders}) < len(self.folders):
            raise ValueError(f"folders: expected one or several, each once, found {self.folders}")
        for key in NUMBERS:
            value, sign = getattr(self, key), -1 if key == "silent_db" else 1
            fits = isinstance(value, int if key in WHOLE else int | float) and value * sign > 0
            if not fits and (key, value) != ("sample_rate", None):
                what = "a whole number" if key in WHOLE else "a number"
                raise ValueError(f"{key}: expected {what} {'below' if sign < 0 else 'above'} 0, found {value}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """From the keys of a config. Raises ValueError for keys and values that cannot be."""
        return cls(**reject_unknown_keys(cls, config))
