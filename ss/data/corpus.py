"""Which files a corpus of single speakers has, and who speaks in them: found by a template of paths, or listed in a file."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ss import audio
from ss.data.shards import check_folder, contents, is_packed
from ss.data.sources import Sources
from ss.errors import UserError

PATH_COLUMNS, SPEAKER_COLUMNS = ("path", "file", "audio"), ("speaker", "speaker_id", "spk")


class Span(NamedTuple):
    """Samples start..stop of a file; the path is relative to the corpus."""

    path: str
    start: int
    stop: int


def find_files(sources: Sources) -> list[tuple[str, str]]:
    """(speaker, path) of the files that are asked for, sorted: those in the list `manifest`, or those that match `template`.

    The template is a path with `*` and with names in braces: `{speaker}` says where the speaker's id is, `{part}` stands for
    each of `parts` (names or patterns), other names for anything. Files that are not audio by extension are passed over.
    Raises UserError where a folder or speaker is not found, or no file matches.
    """
    check_folder("audios_dir", sources.audios_dir)
    if sources.manifest is None:
        paths = _group_by_speaker(_find(sources), sources.template)
    else:
        paths = {}
        for speaker, path in read_list(Path(sources.manifest)):
            paths.setdefault(speaker, []).append(path)
    chosen = _choose(paths, sources)
    return [(speaker, path) for speaker in sorted(chosen) for path in sorted(chosen[speaker])]


def _find(sources: Sources) -> list[str]:
    """The audio files that match the template, relative to the corpus."""
    root = sources.audios_dir
    named = "{part}" in sources.template
    parts = [sources.parts] if isinstance(sources.parts, str) else sources.parts or ["*"]
    if sources.parts and not named:
        raise UserError(f"template: expected {{part}} in it because parts are given, found {sources.template}")
    found: set[str] = set()
    for part in parts:
        pattern = re.sub(r"\{\w+\}", "*", sources.template.replace("{part}", part))
        matches = [path for path in _matches(root, pattern) if path.lower().endswith(audio.EXTENSIONS)]
        if not matches:
            raise UserError(f"{root}: expected audio files ({' '.join(audio.EXTENSIONS)}) that match {pattern}, found none")
        found.update(matches)
    return sorted(found)


def _matches(root: str, pattern: str) -> list[str]:
    if not is_packed(root):
        return glob(pattern, root_dir=root)
    expression = re.compile("[^/]*".join(map(re.escape, pattern.split("*"))))
    return [name for name in contents(root) if expression.fullmatch(name)]


def _group_by_speaker(paths: Iterable[str], template: str) -> dict[str, list[str]]:
    """The paths of each speaker."""
    if "{speaker}" not in template:
        raise UserError(f"template: expected {{speaker}} in it, found {template}")
    pattern = "".join(_to_regex(token, seen) for seen, token in _split_template(template))
    speakers: dict[str, list[str]] = {}
    for path in paths:
        match = re.fullmatch(pattern, path)
        assert match, f"{path} was found by {template}"
        speakers.setdefault(match["speaker"], []).append(path)
    renamed = {_id(speaker): files for speaker, files in speakers.items()}
    if len(renamed) < len(speakers):
        raise UserError("expected speakers whose ids differ by more than _ and -, found some that do not")
    return renamed


def _id(speaker: object) -> str:
    """A speaker's id as names of triplets have it: an underscore ends it there, so those inside become hyphens."""
    return str(speaker).replace("_", "-")


def _split_template(template: str) -> list[tuple[bool, str]]:
    """The template's names, stars and plain pieces in order, each with whether it stood before."""
    tokens = re.split(r"(\{\w+\}|\*)", template)
    return [(token in tokens[:place], token) for place, token in enumerate(tokens)]


def _to_regex(token: str, seen: bool) -> str:
    """One piece of a template as a regular expression; a name that comes again must be the same again."""
    if token == "*":
        return "[^/]*"
    if not token.startswith("{"):
        return re.escape(token)
    return f"(?P={token[1:-1]})" if seen else f"(?P<{token[1:-1]}>[^/]+?)"


def _choose(paths: dict[str, list[str]], sources: Sources) -> dict[str, list[str]]:
    """Only the speakers that the settings ask for."""
    named = {key: set(map(_id, getattr(sources, key) or ())) for key in ("speakers", "exclude_speakers")}
    for key, ids in named.items():
        if missing := sorted(ids - set(paths)):
            raise UserError(f"{key}: expected speakers of {sources.audios_dir}, not found there: {', '.join(missing)}")
    chosen = sorted((named["speakers"] or set(paths)) - named["exclude_speakers"])
    if sources.max_n_speakers is not None and sources.max_n_speakers < len(chosen):
        rng = np.random.default_rng(sources.random_state)
        chosen = [str(speaker) for speaker in rng.choice(chosen, sources.max_n_speakers, replace=False)]
    return {speaker: paths[speaker] for speaker in chosen}


def read_list(path: Path) -> Iterator[tuple[str, str]]:
    """(speaker, path) of the lines of a CSV or JSONL file. Raises UserError with the entry where one is missing, and for none."""
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, entry {number}"
        yield _speaker(line, where), _cell(line, PATH_COLUMNS, where)
    if not number:
        raise UserError(f"{path}: expected entries with a path and a speaker, found none")


def read_genders(path: Path) -> dict[str, str]:
    """The gender of each speaker of whom a CSV or JSONL file gives it. Raises UserError where it gives none, or two of one."""
    known: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, entry {number}"
        speaker, gender = _speaker(line, where), line.get("gender")
        if gender and known.setdefault(speaker, gender) != gender:
            raise UserError(f"{where}: expected {known[speaker]} as the gender of {speaker}, like before, found {gender}")
    if not known:
        raise UserError(f"{path}: expected a speaker and a gender in its lines, found no gender")
    return known


def _speaker(line: dict[str, Any], where: str) -> str:
    return _id(_cell(line, SPEAKER_COLUMNS, where))


def _cell(line: dict[str, Any], columns: Sequence[str], where: str) -> str:
    """What the first of these columns holds that there is."""
    name = next((column for column in columns if column in line), None)
    if name is None:
        raise UserError(f"{where}: expected {' or '.join(columns)}, found only {', '.join(sorted(map(str, line)))}")
    if line[name] in (None, ""):
        raise UserError(f"{where}: expected a {name}, found none")
    return str(line[name])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: expected a CSV or JSONL file, found none")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield from csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: expected a JSON object on each line, but: {error}") from error
