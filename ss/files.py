"""Files that are whole or absent, and text that is UTF-8."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ss.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to: what is there goes to `path` at the end, and is removed where something went wrong.

    So nobody ever meets half a file, and an interrupted write leaves the former one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_text(path: str | Path) -> str:
    """The content of a text file. Raises UserError for one that is not UTF-8, and FileNotFoundError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, found another encoding or no text at all: {error}") from error
