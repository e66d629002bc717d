"""Which files a corpus of single speakers has, and who speaks in them: found by a template of paths, or listed in a file."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ss import audio
from ss.data.packed import check_folder, contents, is_packed
from ss.data.sources import Sources
from ss.errors import UserError, as_list, explain, require_file

PATH_COLUMNS, SPEAKER_COLUMNS = ("path", "file", "audio"), ("speaker", "speaker_id", "spk")


class Span(NamedTuple):
    """Samples start..stop of a file; the path is relative to the corpus."""

    path: str
    start: int
    stop: int


def find_files(sources: Sources) -> list[tuple[str, str]]:
    """(speaker, path) of the files that are asked for, sorted: those in the list `manifest`, or those that match `template`.

    Raises UserError where a folder or speaker is not found, no file matches, or one is of two speakers.
    """
    check_folder("audios_dir", sources.audios_dir)
    speakers: dict[str, str] = {}  # by path: a file that is listed twice would be enrolment and target at once
    as_found: dict[str, str] = {}
    for found, path in find_by_template(sources) if sources.manifest is None else read_list(Path(sources.manifest)):
        speaker = clean_id(found)
        if (other := as_found.setdefault(speaker, found)) != found:
            raise UserError(f"expected speakers whose ids differ by more than _, - and /, found {other} and {found}")
        if speakers.setdefault(path, speaker) != speaker:
            raise UserError(f"{sources.manifest}: expected one speaker of {path}, found {speakers[path]} and {speaker}")
    known = set(as_found)
    named = {key: set(map(clean_id, getattr(sources, key) or ())) for key in ("speakers", "exclude_speakers")}
    for key, ids in named.items():
        if missing := sorted(ids - known):
            raise UserError(f"{key}: expected speakers of {sources.audios_dir}, not found there: {', '.join(missing)}")
    chosen = (named["speakers"] or known) - named["exclude_speakers"]
    if sources.max_n_speakers is not None and sources.max_n_speakers < len(chosen):
        rng = np.random.default_rng(sources.random_state)
        chosen = set(rng.choice(sorted(chosen), sources.max_n_speakers, replace=False).tolist())
    return sorted((speaker, path) for path, speaker in speakers.items() if speaker in chosen)


def find_by_template(sources: Sources) -> list[tuple[str, str]]:
    """(speaker, path) of the audio files that match the template, sorted by path.

    The template is a path with `*` and with names in braces: `{speaker}` says where the speaker's id is, `{part}` stands for
    each of `parts` (names or patterns), other names for anything; a name that comes again must be the same again. Files that are
    not audio by extension are passed over.
    """
    root, template = sources.audios_dir, sources.template
    if sources.parts and "{part}" not in template:
        raise UserError(f"template: expected {{part}} in it because parts are given (parts=null: no parts), found {template}")
    if "{speaker}" not in template:
        raise UserError(f"template: expected {{speaker}} in it, found {template}")
    found: set[str] = set()
    for part in as_list(sources.parts) or ["*"]:
        pattern = re.sub(r"\{\w+\}", "*", template.replace("{part}", part))
        if is_packed(root):
            matches = [name for name in contents(root) if PurePosixPath("/", name).match(f"/{pattern}")]
        else:
            matches = glob(pattern, root_dir=root)
        matches = [path for path in matches if path.lower().endswith(audio.EXTENSIONS)]
        if not matches:
            raise UserError(f"{root}: expected audio files ({' '.join(audio.EXTENSIONS)}) that match {pattern}, found none")
        found.update(matches)
    regex = re.escape(template).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    for name in set(re.findall(r"\{(\w+)\}", template)):
        place = re.escape(f"{{{name}}}")
        one = ".+?" if name == "part" else "[^/]+?"  # parts may lie in folders
        regex = regex.replace(place, f"(?P<{name}>{one})", 1).replace(place, f"(?P={name})")
    files = []
    for path in sorted(found):
        if not (match := re.fullmatch(regex, path)):
            raise UserError(f"template: expected no patterns but * and ?, found {template}")
        files.append((match["speaker"], path))
    return files


def clean_id(speaker: object) -> str:
    """A speaker's id as names of triplets have it: an underscore ends it there, and it is no folder, so these become hyphens."""
    return re.sub(r"[_/\\\0]", "-", str(speaker))


def read_list(path: Path) -> list[tuple[str, str]]:
    """(speaker, path) of the lines of a CSV or JSONL file. Raises UserError with the entry where one is missing, and for none."""
    table = read_table(path)
    files = [(read_cell(line, SPEAKER_COLUMNS, where), read_cell(line, PATH_COLUMNS, where)) for where, line in table]
    if not files:
        raise UserError(f"{path}: expected entries with a path and a speaker, found none")
    return files


def read_genders(path: Path) -> dict[str, str]:
    """The gender of each speaker of whom a CSV or JSONL file gives it. Raises UserError where it gives none, or two of one."""
    known: dict[str, str] = {}
    for where, line in read_table(path):
        speaker, gender = clean_id(read_cell(line, SPEAKER_COLUMNS, where)), line.get("gender")
        if gender and known.setdefault(speaker, gender) != gender:
            raise UserError(f"{where}: expected {known[speaker]} as the gender of {speaker}, like before, found {gender}")
    if not known:
        raise UserError(f"{path}: expected a speaker and a gender in its lines, found no gender")
    return known


def read_table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line of a CSV or JSONL file is, and the line. Raises UserError for no such file, and one that is not in UTF-8."""
    require_file(path, "a CSV or JSONL file")
    wanted = f"{path}: expected a CSV file, or a JSON object on each line, in UTF-8, but"
    with explain(wanted, json.JSONDecodeError, UnicodeDecodeError), path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file), start=1):
            yield f"{path}, entry {number}", line


def read_cell(line: dict[str, Any], columns: Sequence[str], where: str) -> str:
    """What the first of these columns holds that there is."""
    name = next((column for column in columns if column in line), None)
    if name is None:
        raise UserError(f"{where}: expected {' or '.join(columns)}, found only {', '.join(sorted(map(str, line)))}")
    if line[name] in (None, ""):
        raise UserError(f"{where}: expected a {name}, found none")
    return str(line[name])
