"""A voice: what a model must know of a speaker, in memory and in a file, so that the recording need not be kept.

A file has the magic `ss-voice`, a version (uint32), the CRC-32 of what follows, the model's `weights` (32 hex digits) and the
conditions in float32, all little-endian. libss reads it too (`ss_voice_load`).
"""

import os
import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ss.audio import Wave
from ss.errors import UserError, explain
from ss.files import whole_file

MAGIC, VERSION, SUFFIX = b"ss-voice", 1, ".voice"
HEADER, DIGITS = 16, 32  # bytes
LARGEST = 1 << 24  # bytes of a file


class Conditions(NamedTuple):
    """What a stream must know of its speaker: values [1,D] float32. Plain numbers, which may be kept instead of the recording.

    model: what the export says of its `weights`; "" for one of a version that said nothing.
    """

    values: Wave
    model: str = ""

    def save(self, path: str | Path) -> None:
        """Writes a voice file. Raises UserError for conditions of a model without `weights`, and for another suffix."""
        if Path(path).suffix != SUFFIX:
            raise UserError(f"{path}: expected a name that ends in {SUFFIX}")
        if len(self.model) != DIGITS:
            raise UserError(f"{path}: expected conditions of a model that says what its weights are: export it again")
        body = self.model.encode() + self.values.astype("<f4").tobytes()
        with whole_file(Path(path)) as aside:
            aside.write_bytes(MAGIC + struct.pack("<II", VERSION, zlib.crc32(body)) + body)

    @classmethod
    def load(cls, path: str | Path) -> "Conditions":
        """The content of a voice file. Raises UserError for one that is none, is damaged or needs a newer version."""
        with explain(f"{path}: expected a stored voice, but it cannot be read", OSError), Path(path).open("rb") as file:
            content = file.read(LARGEST)
        header, body = content[:HEADER], content[HEADER:]
        if len(body) <= DIGITS or len(body) % 4 or not header.startswith(MAGIC):
            raise UserError(f"{path}: expected a stored voice, found another file")
        version, checksum = struct.unpack("<II", header[len(MAGIC) :])
        if version != VERSION:
            raise UserError(f"{path}: expected a voice of format {VERSION}, found {version}: it needs another version of ss")
        values = np.frombuffer(body, "<f4", offset=DIGITS).astype(np.float32)
        if zlib.crc32(body) != checksum or not np.isfinite(values).all() or not body[:DIGITS].isalnum():
            raise UserError(f"{path}: expected the checksum that the file says: it is damaged")
        return cls(values[None], body[:DIGITS].decode())


def voice_path(name: str) -> Path:
    """Where the voice of a name lies for this user. Raises UserError for a name that is no word of letters, digits, - and _."""
    if not re.fullmatch(r"[\w-]{1,64}", name):
        raise UserError(f"expected a voice's name of letters, digits, - and _, got {name!r}")
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "ss" / "voices" / f"{name}{SUFFIX}"
