"""A folder of triplets from rows: renders what is not there yet, so that an interrupted run continues.

The folder holds `<name>-mixed`, `-target` and `-ref` files, a manifest (what each is made of) and `skipped.csv` (what could not be
made, and why). Nothing depends on the number of processes.
"""

import csv
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ss import audio
from ss.data import manifest
from ss.data.mixture import EXTENSIONS, Mixture
from ss.errors import UserError

KINDS = ("ref", "target", "mixed")  # in the order of writing: what has its mixture is complete
WAVES = tuple(f"-{kind}.{extension}" for kind in KINDS for extension in EXTENSIONS)
HALF_WRITTEN = ".part"  # as `ss.files.whole_file` ends what is not renamed yet
ROWS_AT_ONCE = 8  # that a process is given
ROWS_PER_BATCH = 32  # that a worker of a cluster is given
LOST = 3  # workers that may be lost over the same rows
SHOWN = 3  # differences at most


class Outcome(NamedTuple):
    """What became of a row; reason: why there is no mixture, or None."""

    name: str
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where triplets go, as files of which extension; by how many processes, or by the workers of a Dask scheduler at `cluster`.

    overwrite: start anew where other mixtures are. Raises UserError for a value out of range.
    """

    out_folder: str
    extension: str = "wav"
    num_workers: int = 1
    cluster: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.extension not in EXTENSIONS:
            raise UserError(f"extension: expected one of {', '.join(EXTENSIONS)}, found {self.extension}")
        if self.num_workers < 1:
            raise UserError(f"num_workers: expected more than 0, found {self.num_workers}")


Render = Callable[[Any], Mixture]  # of a row


def make(rows: Sequence[Any], render: Render, to: Output, about: str, unusable: Sequence[str]) -> None:
    """Makes the triplets that are not there yet, and says what was done.

    rows: dataclasses with a name and a sample_rate. render: one row, picklable. about: a line on the sources; unusable: why some
    of them are not used. Raises UserError where the folder holds other mixtures (and `overwrite` is not set), or where not one
    mixture could be made.
    """
    out = Path(to.out_folder)
    done = _prepare(out, rows, to.overwrite)
    print(about, flush=True)
    skipped = [("", reason) for reason in unusable]
    for reason in unusable:
        print(f"left out {reason}", file=sys.stderr)
    left = [row for row in rows if row.name not in done]
    with tqdm(render_all(left, render, to), "mixing", len(rows), initial=len(done)) as bar:
        for outcome in bar:
            if outcome.reason is not None:
                skipped.append((outcome.name, outcome.reason))
                tqdm.write(f"skipped {outcome.name}: {outcome.reason}", file=sys.stderr)
    _remove(out, (HALF_WRITTEN,))  # a worker that was lost leaves what it was writing
    _report(out, len(rows), len(done), skipped)


def render_all(rows: Sequence[Any], render: Render, to: Output) -> Iterator[Outcome]:
    """Renders the rows and writes their files, in `num_workers` processes or on a cluster; gives what became of each."""
    one = partial(_make, render=render, out=to.out_folder, extension=to.extension)
    if to.cluster is not None:
        yield from _on_cluster(one, rows, to.cluster)
        return
    workers = min(to.num_workers, len(rows))
    if workers <= 1:
        yield from map(one, rows)
        return
    pool = ProcessPoolExecutor(workers, initializer=_end_with_parent)
    try:
        yield from pool.map(one, rows, chunksize=ROWS_AT_ONCE)
    finally:
        pool.shutdown(cancel_futures=True)


def _on_cluster(one: Callable[[Any], Any], rows: Sequence[Any], address: str) -> Iterator[Any]:
    """What `one` gives for the rows, as they are done, by the workers of a Dask scheduler; those of a lost worker go to another.

    `dask scheduler` on one machine, `dask worker tcp://it:8786` on as many as there are; all see the corpus and the output folder
    under the same paths. What is written is whole or absent, so a row that is made twice does no harm.
    Raises UserError where Dask or the scheduler is not there.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise UserError("cluster: rendering on several machines needs Dask: pip install 'ss[cluster]'") from error
    try:
        client = Client(address)
    except OSError as error:
        raise UserError(f"cluster: expected a Dask scheduler at {address}, but: {error}") from error
    with client:
        batches = [rows[begin : begin + ROWS_PER_BATCH] for begin in range(0, len(rows), ROWS_PER_BATCH)]
        for done in as_completed(client.map(partial(_several, one), batches, pure=False, retries=LOST)):
            yield from done.result()


def _several(one: Callable[[Any], Any], rows: Sequence[Any]) -> list[Any]:
    """Of a batch of rows."""
    return [one(row) for row in rows]


def _make(row: Any, render: Render, out: str, extension: str) -> Outcome:
    """Renders one row and writes its three files."""
    try:
        mixture = render(row)
    except audio.AudioError as error:
        return Outcome(row.name, str(error))
    write_triplet(row, mixture, out, extension)
    return Outcome(row.name, None)


def write_triplet(row: Any, mixture: Mixture, out: str, extension: str) -> None:
    """Writes the three files of a row."""
    for kind, wave in zip(KINDS, (mixture.ref, mixture.target, mixture.mixture), strict=True):
        audio.write(f"{out}/{row.name}-{kind}.{extension}", wave, row.sample_rate)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, even killed: nobody would take its results."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepare(out: Path, rows: Sequence[Any], overwrite: bool) -> set[str]:
    """Makes the folder ready and its manifest written; gives the names of the triplets that are there already."""
    out.mkdir(parents=True, exist_ok=True)
    _remove(out, (manifest.FILE, HALF_WRITTEN, *WAVES) if overwrite else (HALF_WRITTEN,))
    lines = list(map(manifest.to_line, rows))
    _check_same(out, lines)
    manifest.write(out / manifest.FILE, lines)
    present = {path.stem for path in _files(out, WAVES)}
    return {row.name for row in rows if all(f"{row.name}-{kind}" in present for kind in KINDS)}


def _remove(out: Path, ends: tuple[str, ...]) -> None:
    for path in _files(out, ends):
        path.unlink(missing_ok=True)  # a worker that was only taken for lost may have renamed it meanwhile


def _files(out: Path, ends: tuple[str, ...]) -> list[Path]:
    """The files of a folder whose names end so."""
    return [out / entry.name for entry in os.scandir(out) if entry.name.endswith(ends)]


def _check_same(out: Path, planned: Sequence[str]) -> None:
    """Raises UserError where the folder holds mixtures of another plan; a shorter one with the same beginning is continued."""
    path = out / manifest.FILE
    anew = "give another out_folder, or overwrite=true to delete these mixtures and start anew"
    if not path.exists():
        if _files(out, WAVES):
            raise UserError(f"{out}: expected {manifest.FILE} of its mixtures or an empty folder, found mixtures without; {anew}")
        return
    there = path.read_text().splitlines()
    if len(there) > len(planned):
        raise UserError(f"{path}: expected at most {len(planned)} mixtures (nfiles), found more; {anew}")
    for number, (old, new) in enumerate(zip(there, planned, strict=False), start=1):
        if old != new:
            try:
                before, now = dict(json.loads(old)), json.loads(new)
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}, line {number}: expected a row of a manifest, but: {error!r}") from error
            differing = [key for key in now if key not in before or before[key] != now[key]][:SHOWN]
            what = "; ".join(f"{key} {_brief(now[key])}, found {_brief(before.get(key))}" for key in differing)
            raise UserError(f"{path}, line {number}: expected {what}: the folder holds other mixtures; {anew}")


def _brief(value: object, most: int = 60) -> str:
    text = json.dumps(value)
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def _report(out: Path, n_rows: int, n_before: int, skipped: list[tuple[str, str]]) -> None:
    """Writes skipped.csv and says how it went. Raises UserError where there is not one mixture."""
    with (out / "skipped.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "reason"), *skipped])
    missing = sum(bool(name) for name, _ in skipped)
    print(f"{n_rows - missing} of {n_rows} mixtures are in {out}: {n_rows - missing - n_before} made now, {n_before} there before")
    if skipped:
        print(f"skipped: {missing} mixtures, {len(skipped) - missing} files of the sources: see {out / 'skipped.csv'}")
    if missing == n_rows:
        raise UserError(f"{out}: expected at least one mixture, but all {n_rows} were skipped; the first because {skipped[0][1]}")
