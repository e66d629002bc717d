"""What a corpus holds, found out once: who spoke which file, how long it is, at which rate, how high, and where there is speech.

The index is kept as a JSON line per file beside the user's other caches; a file is looked into again only if its size or its time
of change is another. Shapes: N samples of a file.
"""

import hashlib
import json
import logging
import math
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ss import audio
from ss.data import manifest
from ss.data.corpus import find_files
from ss.data.packed import contents, file_of, is_packed
from ss.data.pitch import median_pitch
from ss.data.processes import map_in_processes
from ss.data.sources import Sources
from ss.data.speech_activity import find_speech
from ss.files import user_cache

VERSION = 4  # of what is found out about a file
FILES_AT_ONCE = 16  # that a process is given


class IndexedFile(NamedTuple):
    """A file of a speaker. samples and speech (starts and stops) at its own sample_rate; pitch: the median in Hz, 0 if nothing is
    voiced; size and changed: as the disk says.

    fault: why it cannot be used, else empty.
    """

    path: str
    speaker: str
    size: int
    changed: int
    sample_rate: int = 0
    samples: int = 0
    pitch: float = 0.0
    speech: tuple[tuple[int, int], ...] = ()
    fault: str = ""


def index(sources: Sources) -> list[IndexedFile]:
    """The files of a corpus, by path. What was found before is not looked into again, if the index could be written."""
    root, kept = sources.audios_dir, index_path(sources)
    before: list[IndexedFile] = []
    with suppress(OSError, ValueError, TypeError, KeyError):  # there is none, or one of another version
        before = [IndexedFile(**{**entry, "speech": tuple(map(tuple, entry["speech"]))}) for entry in map(json.loads, kept.open())]
    known = {(file.path, file.size, file.changed): file for file in before}
    files = []
    for speaker, path in find_files(sources):
        size = changed = -1  # of a file that is listed and not there
        if is_packed(root):
            size, changed = contents(root).get(path, ("", 0, -1))[2], 0
        elif (place := Path(root, path)).exists():
            size, changed = place.stat().st_size, place.stat().st_mtime_ns
        files.append(IndexedFile(path, speaker, size, changed))
    fresh = [file for file in files if (file.path, file.size, file.changed) not in known]
    look_into = partial(look, root=root, trim_db=_threshold(sources))
    mapped = map_in_processes(look_into, fresh, sources.num_workers, FILES_AT_ONCE)
    for file in tqdm(mapped, "looking into files", len(fresh), disable=not fresh, leave=False):
        known[file.path, file.size, file.changed] = file
    if fresh:
        try:
            manifest.write(kept, (json.dumps(file._asdict()) for file in known.values()))
        except OSError as error:  # it only saves the next command time
            logging.getLogger(__name__).warning("no index of %s is kept: %s", root, error)
    return [known[file.path, file.size, file.changed]._replace(speaker=file.speaker) for file in files]


def look(file: IndexedFile, root: str, trim_db: float) -> IndexedFile:
    """Decodes a file: how long, at which rate, how high, and which parts are within `trim_db` of the loudest."""
    path = file_of(root, file.path)
    try:
        wave, rate = audio.read_whole(path, downmix=True)
    except audio.AudioError as error:
        return file._replace(fault=str(error))
    if not wave.any():
        return file._replace(fault=f"{path}: expected speech, found silence")
    pitch, speech = round(median_pitch(wave, rate), 1), find_speech(wave, trim_db, rate)
    return file._replace(sample_rate=rate, samples=len(wave), pitch=pitch, speech=speech)


def index_path(sources: Sources) -> Path:
    """Where the index of a corpus is kept."""
    root = sources.audios_dir if is_packed(sources.audios_dir) else Path(sources.audios_dir).resolve()
    name = hashlib.sha256(f"{VERSION} {root} {_threshold(sources)}".encode()).hexdigest()[:16]
    return user_cache() / f"index-{name}.jsonl"


def _threshold(sources: Sources) -> float:
    """dB below the loudest part of a file from where on there is no speech; infinite where all of it is speech."""
    return math.inf if sources.trim_db is None else float(sources.trim_db)
