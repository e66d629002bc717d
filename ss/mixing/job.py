"""A folder of triplets from a corpus: plans, then renders what is not there yet, so that an interrupted run continues.

The folder holds `<name>-mixed`, `-target` and `-ref` files, `manifest.csv` (what each is made of) and `skipped.csv` (what could
not be made, and why). Nothing depends on the number of processes.
"""

import csv
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import zip_longest
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ss import audio
from ss.mixing import manifest
from ss.mixing.corpus import Corpus, scan
from ss.mixing.manifest import Row
from ss.mixing.plan import chances, plan
from ss.mixing.render import render
from ss.mixing.settings import EXTENSIONS, Settings

KINDS = ("ref", "target", "mixed")  # in the order of writing: what has its mixture is complete
WAVES = tuple(f"-{kind}.{extension}" for kind in KINDS for extension in EXTENSIONS)
HALF_WRITTEN = ".part"  # as `ss.audio.write` and the manifest end what they have not renamed yet
ROWS_AT_ONCE = 8  # that a process is given


class Outcome(NamedTuple):
    """What became of a row: the length of its mixture in samples, or why there is none."""

    name: str
    samples: int
    reason: str | None


def mix(config: dict[str, Any]) -> None:
    """Makes the mixtures that are not there yet, and says what was done. config: the fields of Settings.

    Raises ValueError where the settings or the corpus do not allow it, where the folder holds other mixtures (and `overwrite`
    is not set), or where not one mixture could be made.
    """
    settings = Settings.of(config)
    corpus = scan(settings)
    rows = plan(corpus, settings)
    out = Path(settings.out_folder)
    done = _prepare(out, rows, settings)
    print(_describe(corpus, settings), flush=True)
    skipped = [("", reason) for reason in corpus.unreadable]
    for reason in corpus.unreadable:
        print(f"left out {reason}", file=sys.stderr)
    with tqdm(render_all([row for row in rows if row.name not in done], settings), "mixing", len(rows), initial=len(done)) as bar:
        for outcome in bar:
            if outcome.reason is not None:
                skipped.append((outcome.name, outcome.reason))
                tqdm.write(f"skipped {outcome.name}: {outcome.reason}", file=sys.stderr)
    _report(out, len(rows), len(done), skipped)


def render_all(rows: list[Row], settings: Settings) -> Iterator[Outcome]:
    """Renders the rows and writes their files, in `num_workers` processes; the outcomes come in the order of the rows."""
    make = partial(_make, audios_dir=settings.audios_dir, out=settings.out_folder)
    workers = min(settings.num_workers, len(rows))
    if workers <= 1:
        yield from map(make, rows)
        return
    pool = ProcessPoolExecutor(workers, initializer=_end_with_parent)
    try:
        yield from pool.map(make, rows, chunksize=ROWS_AT_ONCE)
    finally:
        pool.shutdown(cancel_futures=True)


def _make(row: Row, audios_dir: str, out: str) -> Outcome:
    """Renders one row and writes its three files."""
    try:
        triplet = render(row, audios_dir)
    except audio.AudioError as error:
        return Outcome(row.name, 0, str(error))
    for kind, wave in zip(KINDS, (triplet.ref, triplet.target, triplet.mixture), strict=True):
        audio.write(f"{out}/{row.name}-{kind}.{row.extension}", wave, row.sample_rate)
    return Outcome(row.name, len(triplet.mixture), None)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, even killed: nobody would take its results."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepare(out: Path, rows: list[Row], settings: Settings) -> set[str]:
    """Makes the folder ready and its manifest written; gives the names of the triplets that are there already."""
    out.mkdir(parents=True, exist_ok=True)
    for path in _files(out, ("manifest.csv", HALF_WRITTEN, *WAVES) if settings.overwrite else (HALF_WRITTEN,)):
        path.unlink()
    _check_same(out, rows)
    manifest.write(out / "manifest.csv", rows)
    present = {path.name for path in _files(out, WAVES)}
    return {row.name for row in rows if all(f"{row.name}-{kind}.{row.extension}" in present for kind in KINDS)}


def _files(out: Path, ends: tuple[str, ...]) -> list[Path]:
    """The files of a folder whose names end so."""
    return [out / entry.name for entry in os.scandir(out) if entry.name.endswith(ends)]


def _check_same(out: Path, rows: list[Row]) -> None:
    """Raises ValueError where the folder holds mixtures of another plan; a shorter one with the same beginning is continued."""
    path = out / "manifest.csv"
    anew = "give another out_folder, or overwrite=true to delete these mixtures and start anew"
    if not path.exists():
        if _files(out, WAVES):
            raise ValueError(f"{out}: expected an empty folder or the manifest.csv of its mixtures, found mixtures without; {anew}")
        return
    for line, (old, new) in enumerate(zip_longest(manifest.read(path), rows), start=2):
        if old is None:
            return
        if new is None:
            raise ValueError(f"{path}: expected at most {len(rows)} mixtures (nfiles), found more; {anew}")
        if old != new:
            found, planned = manifest.cells(old), manifest.cells(new)
            differing = [f"{key} {planned[key]!r}, found {found[key]!r}" for key in planned if planned[key] != found[key]]
            raise ValueError(f"{path}, line {line}: expected {'; '.join(differing)}: the folder holds other mixtures; {anew}")


def _describe(corpus: Corpus, settings: Settings) -> str:
    """What the corpus offers, in one line."""
    single = sum(len(spans) == 1 for spans in corpus.speakers.values())
    return (
        f"{len(corpus.speakers)} speakers, {sum(map(len, corpus.speakers.values()))} files in {settings.audios_dir}; "
        f"{single} speakers have one file; {len(set(chances(corpus, settings).targets))} speakers can be the target"
    )


def _report(out: Path, n_rows: int, n_before: int, skipped: list[tuple[str, str]]) -> None:
    """Writes skipped.csv and says how it went. Raises ValueError where there is not one mixture."""
    with (out / "skipped.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "reason"), *skipped])
    missing = sum(bool(name) for name, _ in skipped)
    print(f"{n_rows - missing} of {n_rows} mixtures are in {out}: {n_rows - missing - n_before} made now, {n_before} there before")
    if skipped:
        sources = len({reason for _, reason in skipped})
        print(f"skipped: {missing} mixtures, for {sources} different reasons in the sources: see {out / 'skipped.csv'}")
    if missing == n_rows:
        raise ValueError(f"{out}: expected at least one mixture, but all {n_rows} were skipped; the first because {skipped[0][1]}")
