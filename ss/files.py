"""Files and folders that are whole or absent, folders that one process has for itself, or of different names, and text in UTF-8."""

import os
import platform
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from ss.errors import UserError, as_list


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to: what is there goes to `path` at the end, and is removed where something went wrong.

    So nobody ever meets half a file, and an interrupted write leaves the former one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")  # nobody else's, and no longer than names may be
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *names: str) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `folder` at the end, whole; where something went wrong, the former stays.

    names: patterns of what the former may hold. Raises UserError where it holds anything else, OSError where it cannot be replaced.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True) as aside:
        made, former = Path(aside, "made"), Path(aside, "former.old")
        made.mkdir()
        yield made
        if folder.is_dir():
            if foreign := sorted(path.name for path in folder.iterdir() if not any(map(path.match, names))):
                raise UserError(f"{folder}: expected no folder, an empty one, or an export to replace; found {foreign[0]} in it")
            folder.rename(former)
        try:
            made.rename(folder)
        except OSError:
            if former.exists():
                former.rename(folder)
            raise


def user_cache() -> Path:
    """Where this software keeps what can be made or downloaded again: below $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ss")


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """While this process is inside, no other run may be here with the same folder. Raises UserError where one is.

    It locks `folder/lock`. The lock is the process's own (POSIX, not `flock`): it ends with it, however it ends, and
    its workers, which may outlive it by seconds, do not hold it.
    """
    import fcntl  # which Windows lacks, where all else of this module works

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(f"{folder}: expected no other run in this folder, found {file.read().strip()} at work") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def folders_by_name(folders: str | Iterable[str]) -> dict[str, Path]:
    """Folders by their names. Raises UserError for two of the same name."""
    found: dict[str, Path] = {}
    for folder in map(Path, as_list(folders)):
        if found.setdefault(folder.name, folder) is not folder:
            raise UserError(f"folders: expected different names, found {found[folder.name]} and {folder}")
    return found


class Readable(Protocol):
    """A path, or a file in an archive."""

    def read_bytes(self) -> bytes: ...


def read_text(path: Readable) -> str:
    """The content of a text file. Raises UserError for one that is not UTF-8, and FileNotFoundError."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, found another encoding or no text at all: {error}") from error
