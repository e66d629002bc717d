"""What a corpus holds, found out once: who spoke which file, how long it is, at which rate, and where in it there is speech.

The index is kept as a JSON line per file beside the user's other caches; a file is looked into again only if its size or its time
of change is another. Shapes: N samples of a file.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ss import audio
from ss.audio import AudioError
from ss.data.corpus import find_files
from ss.data.shards import contents, file_of, is_packed
from ss.data.sources import Sources
from ss.data.speech import BLOCK, active

VERSION = 3  # of what is found out about a file
FILES_AT_ONCE = 16  # that a process is given


class File(NamedTuple):
    """A file of a speaker. samples and speech (starts and stops) at its own sample_rate; size and changed: as the disk says.

    fault: why it cannot be used, else empty.
    """

    path: str
    speaker: str
    size: int
    changed: int
    sample_rate: int = 0
    samples: int = 0
    speech: tuple[tuple[int, int], ...] = ()
    fault: str = ""


def index(sources: Sources) -> list[File]:
    """The files of a corpus, by path. What was found before is not looked into again."""
    root, kept = sources.audios_dir, cache_of(sources)
    known = {(file.path, file.size, file.changed): file for file in read(kept)}
    files = [_seen(root, speaker, path) for speaker, path in find_files(sources)]
    fresh = [file for file in files if file[:1] + file[2:4] not in known]
    looked = partial(look, root=root, trim_db=threshold(sources))
    with _mapped(sources.num_workers, len(fresh)) as mapped:
        done = list(tqdm(mapped(looked, fresh), "looking into files", len(fresh), disable=not fresh, leave=False))
    known |= {(file.path, file.size, file.changed): file for file in done}
    files = [known[file[:1] + file[2:4]]._replace(speaker=file.speaker) for file in files]
    if fresh:
        write(kept, known.values())
    return files


def look(file: File, root: str, trim_db: float) -> File:
    """Decodes a file: how long, at which rate, and which parts are within `trim_db` of the loudest."""
    path = file_of(root, file.path)
    try:
        rate = audio.sample_rate_of(path)
        wave = audio.read(path, rate, downmix=True)
        if len(wave) != audio.n_samples(path):
            raise AudioError(f"{path}: expected {audio.n_samples(path)} samples, as it says, found {len(wave)}")
    except AudioError as error:
        return file._replace(fault=str(error))
    if not wave.any():
        return file._replace(fault=f"{path}: expected speech, found silence")
    blocks, size = active(wave, trim_db, rate), round(BLOCK * rate)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blocks, [0]]))) * size
    speech = tuple((int(a), int(min(b, len(wave)))) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return file._replace(sample_rate=rate, samples=len(wave), speech=speech)


def cache_of(sources: Sources) -> Path:
    """Where the index of a corpus is kept: below $XDG_CACHE_HOME, or ~/.cache."""
    root = sources.audios_dir if is_packed(sources.audios_dir) else Path(sources.audios_dir).resolve()
    name = hashlib.sha256(f"{VERSION} {root} {threshold(sources)}".encode()).hexdigest()[:16]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ss" / f"index-{name}.jsonl"


def threshold(sources: Sources) -> float:
    """dB below the loudest part of a file from where on there is no speech; infinite where all of it is speech."""
    return math.inf if sources.trim_db is None else float(sources.trim_db)


def read(path: Path) -> list[File]:
    """The index in a file; empty where there is none, or it is of another version."""
    try:
        return [File(**{**entry, "speech": tuple(map(tuple, entry["speech"]))}) for entry in map(json.loads, path.open())]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def write(path: Path, files: Iterable[File]) -> None:
    """Keeps an index, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    aside.write_text("".join(f"{json.dumps(file._asdict())}\n" for file in files))
    aside.replace(path)


def _seen(root: str, speaker: str, path: str) -> File:
    if is_packed(root):
        return File(path, speaker, contents(root)[path][2], 0)
    try:
        stat = Path(root, path).stat()
    except OSError:
        return File(path, speaker, -1, -1)
    return File(path, speaker, stat.st_size, stat.st_mtime_ns)


class _mapped:  # noqa: N801
    """`map` over processes, or here where one is enough."""

    def __init__(self, workers: int, n: int) -> None:
        self.pool = ProcessPoolExecutor(workers) if workers > 1 and n > FILES_AT_ONCE else None

    def __enter__(self) -> Any:
        return partial(self.pool.map, chunksize=FILES_AT_ONCE) if self.pool else map

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)
