"""A folder of triplets from rows: renders what is not there yet, so that an interrupted run continues.

The folder holds `<name>-mixed`, `-target` and `-ref` files, a manifest (what each is made of) and `skipped.csv` (what could not be
made, and why). Nothing depends on the number of processes.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tqdm import tqdm

from ss import audio
from ss.data import manifest
from ss.data.manifest import Mixture
from ss.data.processes import map_in_processes
from ss.errors import UserError, import_extra, require_choices, require_positive
from ss.files import sole_owner

Extension: TypeAlias = Literal["wav", "flac"]  # of the files
KINDS = ("ref", "target", "mixed")  # in the order of writing: what has its mixture is complete
WAVES = tuple(f"-{kind}.{extension}" for kind in KINDS for extension in get_args(Extension))
HALF_WRITTEN = ".part"  # as `ss.files.whole_file` ends what is not renamed yet
ROWS_AT_ONCE = 8  # that a process is given
ROWS_PER_BATCH = 32  # that a worker of a cluster is given
LOST = 3  # workers that may be lost over the same rows
SHOWN, LONGEST = 3, 60  # differences at most, and letters of each
Render: TypeAlias = Callable[[Any], Mixture]  # of a row, picklable
Outcome: TypeAlias = tuple[str, str | None]  # the name of a row, and why there is no mixture of it, or None


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where triplets go, as files of which extension; by how many processes, or by the workers of a Dask scheduler at `cluster`.

    overwrite: start anew where other mixtures are. Raises UserError for a value out of range.
    """

    out_folder: str
    extension: Extension = "wav"
    num_workers: int = 1
    cluster: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_choices(self)
        require_positive(vars(self), "num_workers")


def make(rows: Sequence[Any], render: Render, to: Output, about: str, unusable: Sequence[str]) -> int:
    """Makes the triplets that are not there yet, and says what was done. Gives how many of the rows are in the folder then.

    rows: dataclasses with a name and a sample_rate. about: a line on the sources; unusable: why some of them are not used. Raises
    UserError where the folder holds other mixtures (and `overwrite` is not set), where another run is at work in it, or where not
    one mixture could be made.
    """
    out = Path(to.out_folder)
    with sole_owner(out):  # or what one removes as half-written, another is writing
        remove(out, (manifest.FILE, HALF_WRITTEN, *WAVES) if to.overwrite else (HALF_WRITTEN,))
        lines = list(map(manifest.to_line, rows))
        check_same_plan(out, lines)
        manifest.write(out / manifest.FILE, lines)
        present = {path.stem for path in list_files(out, WAVES)}
        left = [row for row in rows if not all(f"{row.name}-{kind}" in present for kind in KINDS)]
        n_before = len(rows) - len(left)
        print(about, flush=True)
        for reason in unusable:
            print(f"left out {reason}", file=sys.stderr)
        skipped = [("", reason) for reason in unusable]
        one = partial(render_to_files, render=render, to=to)
        if to.cluster is None:
            outcomes = map_in_processes(one, left, to.num_workers, ROWS_AT_ONCE)
        else:
            outcomes = render_on_cluster(one, left, to.cluster)
        with tqdm(outcomes, "mixing", len(rows), initial=n_before) as bar:
            for name, why in bar:
                if why is not None:
                    skipped.append((name, why))
                    tqdm.write(f"skipped {name}: {why}", file=sys.stderr)
        remove(out, (HALF_WRITTEN,))  # a worker that was lost leaves what it was writing
        with (out / "skipped.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("name", "reason"), *skipped])
        missing = len(skipped) - len(unusable)
        n_made = len(rows) - missing
        print(f"{n_made} of {len(rows)} mixtures are in {out}: {n_made - n_before} made now, {n_before} there before")
        if skipped:
            print(f"skipped: {missing} mixtures, {len(unusable)} files of the sources: see {out / 'skipped.csv'}")
        if not n_made:
            raise UserError(
                f"{out}: expected at least one mixture, but all {missing} were skipped; the first because {skipped[0][1]}"
            )
        return n_made


def list_files(out: Path, ends: tuple[str, ...]) -> list[Path]:
    """The files of a folder whose names end so."""
    return [out / entry.name for entry in os.scandir(out) if entry.name.endswith(ends)]


def remove(out: Path, ends: tuple[str, ...]) -> None:
    """Deletes the files of a folder whose names end so."""
    for path in list_files(out, ends):
        path.unlink(missing_ok=True)  # a worker that was only taken for lost may have renamed it meanwhile


def check_same_plan(out: Path, planned: Sequence[str]) -> None:
    """Raises UserError where the folder holds mixtures of another plan; a shorter one with the same beginning is continued."""
    path = out / manifest.FILE
    anew = "give another out_folder, or overwrite=true to delete these mixtures and start anew"
    if not path.exists():
        if list_files(out, WAVES):
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
            what = "; ".join(f"{key} {brief(now[key])}, found {brief(before.get(key))}" for key in differing)
            raise UserError(f"{path}, line {number}: expected {what}: the folder holds other mixtures; {anew}")


def brief(value: object) -> str:
    """A value as text that is not too long."""
    text = json.dumps(value)
    return repr(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def render_to_files(row: Any, render: Render, to: Output) -> Outcome:
    """Renders one row and writes its three files."""
    try:
        write_triplet(row, render(row), to.out_folder, to.extension)
    except audio.AudioError as error:
        return row.name, str(error)
    return row.name, None


def write_triplet(row: Any, mixture: Mixture, out: str, extension: str) -> None:
    """Writes the three files of a row."""
    for kind, wave in zip(KINDS, (mixture.ref, mixture.target, mixture.mixture), strict=True):
        audio.write(f"{out}/{row.name}-{kind}.{extension}", wave, row.sample_rate)


def render_on_cluster(one: Callable[[Any], Outcome], rows: Sequence[Any], address: str) -> Iterator[Outcome]:
    """What `one` gives for the rows, as they are done, by the workers of a Dask scheduler; those of a lost worker go to another.

    `dask scheduler` on one machine, `dask worker tcp://it:8786` on as many as there are; all see the corpus and the output folder
    under the same paths. What is written is whole or absent, so a row that is made twice does no harm.
    Raises UserError where Dask or the scheduler is not there.
    """
    dask = import_extra("distributed", "cluster: rendering on several machines needs Dask: pip install 'ss[cluster]'")
    try:
        client = dask.Client(address)
    except OSError as error:
        raise UserError(f"cluster: expected a Dask scheduler at {address}, but: {error}") from error
    with client:
        batches = [rows[begin : begin + ROWS_PER_BATCH] for begin in range(0, len(rows), ROWS_PER_BATCH)]
        for done in dask.as_completed(client.map(lambda batch: list(map(one, batch)), batches, pure=False, retries=LOST)):
            yield from done.result()
