"""What a corpus of single speakers holds: who spoke which files, and how long they are (from headers, nothing is decoded)."""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ss import audio
from ss.data.shards import contents, file_of, is_packed


class Span(NamedTuple):
    """Samples start..stop of a file; the path is relative to the corpus."""

    path: str
    start: int
    stop: int


class Selection(Protocol):
    """Which files of a folder are asked for, and how speakers are drawn, see `ss.data.sources.Sources`."""

    @property
    def audios_dir(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def parts(self) -> str | Sequence[str] | None: ...
    @property
    def speakers(self) -> Sequence[str] | None: ...
    @property
    def exclude_speakers(self) -> Sequence[str] | None: ...
    @property
    def max_n_speakers(self) -> int | None: ...
    @property
    def random_state(self) -> int: ...
    @property
    def speaker_sampling(self) -> str: ...
    @property
    def speaker_group_regex(self) -> str | None: ...
    @property
    def split_single_utterances(self) -> bool: ...
    @property
    def min_len(self) -> float: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def num_workers(self) -> int: ...


class Corpus(NamedTuple):
    """The usable files of each speaker, both sorted, and why others cannot be read (messages that begin with the path)."""

    speakers: dict[str, tuple[Span, ...]]
    unreadable: tuple[str, ...]


def scan(settings: Selection) -> Corpus:
    """Finds the files under `audios_dir` that match `template`, in the given `parts`, and reads their headers.

    The template is a path with `*` and with names in braces: `{speaker}` says where the speaker's id is, `{part}` stands for
    each of `parts` (names or patterns), other names for anything. Files that are not audio by extension are passed over.
    Raises ValueError where a folder or speaker is not found, no file matches, or fewer than two speakers remain.
    """
    root, owned = settings.audios_dir, owners(settings)
    with ThreadPoolExecutor(settings.num_workers) as pool:
        headers = list(pool.map(_n_samples, (file_of(root, path) for _, path in owned)))
    speakers: dict[str, list[Span]] = {}
    for (speaker, path), header in zip(owned, headers, strict=True):
        if isinstance(header, int) and header >= settings.min_len * settings.sample_rate:
            speakers.setdefault(speaker, []).append(Span(path, 0, header))
    unreadable = tuple(header for header in headers if isinstance(header, str))
    if len(speakers) < 2:
        raise ValueError(
            f"{root}: expected at least two speakers with readable files of {settings.min_len} s or more, found "
            f"{len(speakers)} in {len(headers)} files, {len(unreadable)} of them unreadable"
            + "".join(f"; {why}" for why in unreadable[:1])
        )
    return Corpus({speaker: tuple(spans) for speaker, spans in speakers.items()}, unreadable)


def owners(selection: Selection) -> list[tuple[str, str]]:
    """(speaker, path) of the files that are asked for, sorted; see `scan`. Raises ValueError where there are none."""
    if not is_packed(selection.audios_dir) and not Path(selection.audios_dir).is_dir():
        raise ValueError(f"audios_dir: expected a folder, found none at {selection.audios_dir}")
    paths = _choose(_by_speaker(_find(selection), selection.template), selection)
    return [(speaker, path) for speaker in sorted(paths) for path in sorted(paths[speaker])]


def _find(settings: Selection) -> list[str]:
    """The audio files that match the template, relative to the corpus."""
    root = settings.audios_dir
    named = "{part}" in settings.template
    parts = [settings.parts] if isinstance(settings.parts, str) else settings.parts or ["*"]
    if settings.parts and not named:
        raise ValueError(f"template: expected {{part}} in it because parts are given, found {settings.template}")
    found: set[str] = set()
    for part in parts:
        pattern = re.sub(r"\{\w+\}", "*", settings.template.replace("{part}", part))
        matches = [path for path in _matches(root, pattern) if path.lower().endswith(audio.EXTENSIONS)]
        if not matches:
            raise ValueError(f"{root}: expected audio files ({' '.join(audio.EXTENSIONS)}) that match {pattern}, found none")
        found.update(matches)
    return sorted(found)


def _matches(root: str, pattern: str) -> list[str]:
    if not is_packed(root):
        return glob(pattern, root_dir=root)
    expression = re.compile("[^/]*".join(map(re.escape, pattern.split("*"))))
    return [name for name in contents(root) if expression.fullmatch(name)]


def _by_speaker(paths: Iterable[str], template: str) -> dict[str, list[str]]:
    """The paths of each speaker."""
    if "{speaker}" not in template:
        raise ValueError(f"template: expected {{speaker}} in it, found {template}")
    pattern = "".join(_token(token, seen) for seen, token in _tokens(template))
    speakers: dict[str, list[str]] = {}
    for path in paths:
        match = re.fullmatch(pattern, path)
        assert match, f"{path} was found by {template}"
        speakers.setdefault(match["speaker"], []).append(path)
    renamed = {_id(speaker): files for speaker, files in speakers.items()}
    if len(renamed) < len(speakers):
        raise ValueError("expected speakers whose ids differ by more than _ and -, found some that do not")
    return renamed


def _id(speaker: object) -> str:
    """A speaker's id as names of triplets have it: an underscore ends it there, so those inside become hyphens."""
    return str(speaker).replace("_", "-")


def _tokens(template: str) -> list[tuple[bool, str]]:
    """The template's names, stars and plain pieces in order, each with whether it stood before."""
    tokens = re.split(r"(\{\w+\}|\*)", template)
    return [(token in tokens[:place], token) for place, token in enumerate(tokens)]


def _token(token: str, seen: bool) -> str:
    """One piece of a template as a regular expression; a name that comes again must be the same again."""
    if token == "*":
        return "[^/]*"
    if not token.startswith("{"):
        return re.escape(token)
    return f"(?P={token[1:-1]})" if seen else f"(?P<{token[1:-1]}>[^/]+?)"


def _choose(paths: dict[str, list[str]], settings: Selection) -> dict[str, list[str]]:
    """Only the speakers that the settings ask for."""
    named = {key: set(map(_id, getattr(settings, key) or ())) for key in ("speakers", "exclude_speakers")}
    for key, ids in named.items():
        if missing := sorted(ids - set(paths)):
            raise ValueError(f"{key}: expected speakers of {settings.audios_dir}, not found there: {', '.join(missing)}")
    chosen = sorted((named["speakers"] or set(paths)) - named["exclude_speakers"])
    if settings.max_n_speakers is not None and settings.max_n_speakers < len(chosen):
        rng = np.random.default_rng(settings.random_state)
        chosen = [str(speaker) for speaker in rng.choice(chosen, settings.max_n_speakers, replace=False)]
    return {speaker: paths[speaker] for speaker in chosen}


def _n_samples(path: audio.File) -> int | str:
    """What the header says, or why it cannot be read."""
    try:
        return audio.n_samples(path)
    except audio.AudioError as error:
        return str(error)
