"""What is known of a mixture beside its audio: from the manifest in its folder, and a table of speakers.

A condition is a number (dB, seconds, a part, a minute) or a word; what nobody knows has none.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ss.data import manifest
from ss.errors import UserError

KnownConditions: TypeAlias = dict[str, float | str]
LABELS = {
    "sir": "SIR (dB)",
    "snr": "SNR of the noise (dB)",
    "enrolment_seconds": "length of the enrolment (s)",
    "enrolment_snr": "SNR of the enrolment (dB)",
    "overlap": "part of the time in which both speak",
    "genders": "genders",
    "minute": "minute of the session",
}


def read_genders(table: str | Path | None) -> dict[str, str]:
    """Gender by speaker, from a CSV file with these columns. Raises UserError for no such file and for other columns."""
    if table is None:
        return {}
    if not Path(table).is_file():
        raise UserError(f"{table}: expected a table of speakers, but there is no such file")
    with Path(table).open(newline="") as file:
        rows = csv.DictReader(file)
        if missing := {"speaker", "gender"} - set(rows.fieldnames or ()):
            raise UserError(f"{table}: expected columns speaker and gender, found no {' and no '.join(sorted(missing))}")
        return {row["speaker"]: row["gender"] for row in rows if row["gender"]}


def read_conditions(folder: str | Path, genders: Mapping[str, str]) -> dict[str, KnownConditions]:
    """Conditions by the mixture's name, of a folder's `manifest.jsonl`; of none, nothing.

    genders: whether those of target and interferers are the same is known where all are, and the interferers agree.
    """
    conditions: dict[str, KnownConditions] = {}
    path = Path(folder, manifest.FILE)
    for row in manifest.read(path) if path.is_file() else ():
        found = conditions[row.name] = {"scene": row.pattern, "enrolment_seconds": row.ref_samples / row.sample_rate}
        if row.interferers and row.target.pieces:
            found["sir"] = float(-10 * np.log10(sum(10 ** (-voice.level / 10) for voice in row.interferers)))
            spoken = np.zeros((2, row.samples), bool)  # where target and interferers are placed
            for where, voices in zip(spoken, ((row.target,), row.interferers), strict=True):
                for voice in voices:
                    for piece in voice.pieces:
                        where[piece.at :][: int((piece.stop - piece.start) / voice.speed)] = True
            found["overlap"] = float(spoken.all(0).mean())
        if row.noise:
            found["snr"] = row.noise.level
        if row.enrolment_noise:
            found["enrolment_snr"] = row.enrolment_noise.level
        own, others = genders.get(row.target.speaker), {genders.get(voice.speaker) for voice in row.interferers}
        if own and len(others) == 1 and None not in others:
            found["genders"] = f"both {own}" if own in others else "different"
    return conditions
