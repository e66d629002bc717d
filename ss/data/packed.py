"""Folders packed into tar shards, on a disk or behind any URL that fsspec knows: few large files instead of many small ones.

A packed folder holds `000000.tar`, `000001.tar`, ... and `shards.json`, which says where in them each file is. The shards are
ordinary archives (webdataset reads them too); with the index any file is one read of a range, so every order, split among
processes, and resume is as exact as on a folder. `simplecache::s3://...` keeps shards on the local disk.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from tqdm import tqdm

from ss.audio import EXTENSIONS, AudioError
from ss.data import manifest
from ss.errors import UserError, explain, import_extra, require_positive

INDEX = "shards.json"
KINDS = ("mixed", "target", "ref")  # of the files of a triplet
VERSION = 1


class Member(NamedTuple):
    """A file in a packed folder, to be used like a path: root is the folder or URL."""

    root: str
    name: str

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"

    def is_file(self) -> bool:
        """Whether it is there."""
        return self.name in contents(self.root)

    def read_bytes(self) -> bytes:
        """Its content. Raises OSError where it cannot be read."""
        if not self.is_file():
            raise FileNotFoundError(f"{self}: no such file in these shards")
        (shard, begin, size), (system, path) = contents(self.root)[self.name], storage(self.root)
        content: bytes = system.cat_file(f"{path}/{shard}", begin, begin + size)
        if len(content) != size:
            raise OSError(f"{self.root}/{shard}: expected {size} bytes from {begin} on, found {len(content)}")
        return content


Place: TypeAlias = Path | Member


def file_of(folder: str | Path, name: str) -> Place:
    """A file of a folder, packed or not."""
    return Member(str(folder), name) if is_packed(folder) else Path(folder, name)


@cache
def is_packed(folder: str | Path) -> bool:
    """Whether a folder is packed; what has a URL always is."""
    return "://" in str(folder) or Path(folder, INDEX).is_file()


def check_folder(key: str, folder: str | Path) -> None:
    """Raises UserError, naming the key, for a folder that is not there, packed or not."""
    if not is_packed(folder) and not Path(folder).is_dir():
        raise UserError(f"{key}: expected a folder, found none at {folder}")


@cache
def contents(root: str) -> dict[str, tuple[str, int, int]]:
    """Shard, first byte and size of every file, by name. Raises UserError where there is no index, or one of a newer version."""
    system, path = storage(root)
    with explain(f"{root}: expected a packed folder with {INDEX}, but", OSError, ValueError):
        index = json.loads(system.cat_file(f"{path}/{INDEX}"))
    if index["version"] > VERSION:
        raise UserError(f"{root}/{INDEX}: expected version {VERSION} or older, found {index['version']}")
    return {name: (shard, begin, size) for shard, members in index["shards"].items() for name, begin, size in members}


@cache
def storage(root: str) -> tuple[Any, str]:
    """fsspec's file system of a URL or folder, and the path in it. Raises UserError where fsspec is needed and not there."""
    fsspec = import_extra("fsspec", f"{root}: reading shards needs fsspec: pip install fsspec")
    with explain(f"{root}: expected a URL that fsspec can read here, but", ImportError, ValueError):  # s3:// needs s3fs
        system, path = fsspec.core.url_to_fs(root)
    return system, path.rstrip("/")


def triplet_files(folder: str | Path) -> dict[str, dict[str, list[Place]]]:
    """The files of a folder of triplets, packed or not, by the triplet's name and their kind (one of KINDS, `<name>-<kind>.wav`).

    Those of its subfolders do not count. Raises AudioError for a missing folder, and for none.
    """
    if not is_packed(folder) and not Path(folder).is_dir():
        raise AudioError(f"{folder}: expected a folder of triplets, but there is none")
    found: dict[str, dict[str, list[Place]]] = {}
    for file in sorted(contents(str(folder)) if is_packed(folder) else os.listdir(folder)):
        name, _, kind = PurePosixPath(file).stem.rpartition("-")
        if file.lower().endswith(EXTENSIONS) and kind in KINDS and not file.startswith(".") and "/" not in file:
            found.setdefault(name, {}).setdefault(kind, []).append(file_of(folder, file))
    if not found:
        raise AudioError(f"{folder}: expected files named <name>-mixed, -target and -ref ({', '.join(EXTENSIONS)}), found none")
    return found


def shard_of(path: object) -> str:
    """The shard that a file is in; empty for one that is in none."""
    return contents(path.root)[path.name][0] if isinstance(path, Member) else ""


def pack(config: Mapping[str, Any]) -> None:
    """Packs the audio files of `folder` and its subfolders into `out_folder`, in shards of about `megabytes`; prints what there is.

    The manifest of `folder` is packed too. Links are followed, hidden files left out. The order is drawn by `seed`, what belongs to
    one mixture staying together, so that any few shards are like the whole. Raises UserError for a folder without audio files, a
    seed below 0, and where `out_folder` holds anything.
    """
    folder, out = Path(config["folder"]), Path(config["out_folder"])
    require_positive(config, "megabytes", or_zero=["seed"])
    names = sorted(name for name in glob("**/*", root_dir=folder, recursive=True) if name.lower().endswith(EXTENSIONS))
    if not names:
        raise UserError(f"{folder}: expected audio files ({' '.join(EXTENSIONS)}), found none")
    together: dict[str, list[str]] = {}
    for name in names:
        together.setdefault(re.sub(rf"-({'|'.join(KINDS)})\.\w+$", "", name), []).append(name)
    groups = list(together.values())
    order = np.random.default_rng(config["seed"]).permutation(len(groups))
    listed = [[manifest.FILE]] if (folder / manifest.FILE).is_file() else []
    n_shards = write_shards(folder, [*(groups[i] for i in order), *listed], out, config["megabytes"])
    size = sum(path.stat().st_size for path in out.glob("*.tar"))
    print(f"{len(names)} files are in {n_shards} shards, {size / 1e6:.1f} MB, in {out}")


def write_shards(folder: Path, groups: Sequence[Sequence[str]], out: Path, megabytes: float) -> int:
    """Packs files of a folder in this order into shards of about so many megabytes; gives the number of shards.

    Those of a group are in one shard. Each file is added as anybody's, at no time, so that the same files give the same shards.
    The index is written last: a folder without one is not whole. Raises UserError where `out` holds anything.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UserError(f"{out}: expected an empty folder, found files in it")
    shards: dict[str, list[tuple[str, int, int]]] = {}
    with ExitStack() as opened, tqdm(groups, "packing") as bar:
        archive: tarfile.TarFile | None = None
        for names in bar:
            if archive is None or archive.offset > megabytes * 1e6:
                opened.close()
                shard = f"{len(shards):06d}.tar"
                archive = opened.enter_context(tarfile.open(out / shard, "w", format=tarfile.PAX_FORMAT))
                members = shards.setdefault(shard, [])
            for name in names:
                content, entry = (folder / name).read_bytes(), tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
                begin = archive.offset - -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                members.append((name, begin, entry.size))
    (out / INDEX).write_text(json.dumps({"version": VERSION, "shards": shards}))
    return len(shards)
