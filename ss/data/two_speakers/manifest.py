"""The manifest: a CSV file with a row per mixture that holds all that makes it, so that rows can be kept and compared."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, get_type_hints

from ss.data.corpus import Span

FILE = "manifest.csv"
SCENES = ("full", "absent", "partly_absent", "clean")


class Row(NamedTuple):
    """One mixture: its name, its sources and what happens to them, as `ss.data.two_speakers.render` says.

    Paths are relative to the corpus; lengths are in seconds, spans in samples, levels in dB; None switches a step off. The seed
    says where cuts are made.
    Scenes: `full`, both speak; `absent`, the target is silent and the interferer alone is heard; `partly_absent`, the target is
    silent for a part of the time; `clean`, the target alone is heard. Manifests without this column are of full mixtures.
    """

    name: str
    target: Span
    interferer: Span
    ref: Span
    snr: float
    seed: int
    audio_len: float | None
    ref_max_len: float | None
    trim_db: float | None
    vad_db: float | None
    loudness: float | None
    sample_rate: int
    extension: str
    scene: str = "full"


KINDS = get_type_hints(Row)


def cells(row: Row) -> dict[str, str]:
    """The row by column; a span takes three (the path, _start and _stop), None is an empty cell."""
    flat: dict[str, str] = {}
    for field, value in row._asdict().items():
        if isinstance(value, Span):
            flat |= {field: value.path, f"{field}_start": str(value.start), f"{field}_stop": str(value.stop)}
        elif value is None or KINDS[field] in (str, int):
            flat[field] = "" if value is None else str(value)
        else:
            flat[field] = str(float(value))
    return flat


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows as a CSV file, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with aside.open("w", newline="") as file:
        table = csv.writer(file)
        for place, row in enumerate(rows):
            columns = cells(row)
            if not place:
                table.writerow(columns)
            table.writerow(columns.values())
    aside.replace(path)


def read(path: Path) -> list[Row]:
    """The rows of a manifest. Raises ValueError with the file and line where it is not one."""
    rows = []
    with path.open(newline="") as file:
        for line, columns in enumerate(csv.DictReader(file), start=2):
            try:
                row = Row._make(_value(columns, field, kind) for field, kind in KINDS.items())
                if row.scene not in SCENES:
                    raise ValueError(f"scene: expected one of {', '.join(SCENES)}, found {row.scene}")
                rows.append(row)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {line}: expected a row of a manifest, but: {error!r}") from error
    return rows


def _value(columns: dict[str, str], field: str, kind: object) -> object:
    """A field of a row from its cells."""
    cell = columns[field] if field in columns else Row._field_defaults[field]
    if kind is Span:
        return Span(cell, int(columns[f"{field}_start"]), int(columns[f"{field}_stop"]))
    if kind in (str, int):
        return cell if kind is str else int(cell)
    return None if cell == "" and kind is not float else float(cell)
