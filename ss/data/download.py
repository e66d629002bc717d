"""Downloads openly licensed corpora: goes on where a call was interrupted, and unpacks only what has its published checksum.

In `out_folder` lie `<part>/<speaker>/<chapter>/*.flac` once a part is whole, and until then `<part>.tar.gz.part` (what has come),
`<part>.tar.gz` (all of it) and `.<part>.part` (what is unpacked so far).
"""

import hashlib
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from ss.errors import STOPPED, UserError, reject_unknown_keys, require_choice, require_positive

HALF = ".part"  # what is not whole yet ends so
PIECE = 1 << 20  # bytes that are read at once
TIMEOUT = 60.0  # seconds in which a server has to send something
DOUBLINGS = 6  # of the time between two tries
PASSING = (408, 429, 500, 502, 503, 504)  # answers of a server that may soon have better ones
PARTIAL, NOTHING_BEYOND = 206, 416  # its answers when it sends from the asked byte on, and when the file ends before


class PublishedCorpus(NamedTuple):
    """Where a corpus may be used, the folder that its archives hold it in, and the SHA-256 sum of each part's `<part>.tar.gz`."""

    licence: str
    folder: str
    sums: Mapping[str, str]


CORPORA = {
    "librispeech": PublishedCorpus(
        "CC BY 4.0, https://www.openslr.org/12 (Panayotov, Chen, Povey and Khudanpur 2015)",
        "LibriSpeech",
        # as torchaudio (datasets/librispeech.py) and TensorFlow Datasets (url_checksums/librispeech.txt) publish them
        {
            "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
            "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
            "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
            "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
            "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
            "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
            "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
        },
    )
}
byte_bar = partial(tqdm, unit="B", unit_scale=True)


class NetworkError(Exception):
    """A connection that failed or ended early: the next one may do."""


@dataclass(frozen=True)
class Download:
    """What is downloaded, and how.

    corpus: a key of CORPORA. parts: of this corpus, one or several. out_folder: where they go.
    base_url: the folder of the archives, at the publisher's or a mirror. keep_archives: they are not deleted when unpacked.
    retries: how many connections in a row may bring nothing new. wait: seconds before the next one, doubled each time.
    checksums: the SHA-256 sum of each part instead of the published ones.
    Raises UserError for a corpus or part that there is not, or a value out of range.
    """

    corpus: str
    parts: str | Sequence[str]
    out_folder: str
    base_url: str
    keep_archives: bool = False
    retries: int = 5
    wait: float = 1.0
    checksums: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        require_choice("corpus", self.corpus, CORPORA)
        unknown = [str(part) for part in self.names if part not in self.sums]
        if unknown or not self.names:
            raise UserError(f"parts: expected some of {', '.join(self.sums)}, found {', '.join(unknown) or 'none'}")
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url: expected http://... or https://..., found {self.base_url}")
        require_positive(vars(self), or_zero=["retries", "wait"])

    @property
    def names(self) -> list[str]:
        """The parts, each once."""
        return list(dict.fromkeys(self.parts or ()))

    @property
    def sums(self) -> Mapping[str, str]:
        """The SHA-256 sum of each part that there is."""
        return CORPORA[self.corpus].sums if self.checksums is None else self.checksums


def download(config: Mapping[str, Any]) -> int | None:
    """Downloads, checks and unpacks the parts that are not there yet, and says what was done. config: the fields of Download.

    Gives an exit code: None, or STOPPED after Ctrl-C, which leaves what has come for the next call. Raises UserError where
    the settings, the server, the checksum of an archive or the disk do not allow it.
    """
    settings = Download(**reject_unknown_keys(Download, config))
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"expected Python 3.10.12, 3.11.4 or later, which unpack safely, found {sys.version.split()[0]}")
    corpus, out = CORPORA[settings.corpus], Path(settings.out_folder)
    print(f"{settings.corpus}: {corpus.licence}", flush=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for part in settings.names:
            folder, archive = out / part, out / f"{part}.tar.gz"
            if folder.is_dir() and any(folder.iterdir()):
                print(f"skipped {part}: {folder} is there already", flush=True)
                continue
            if not archive.exists():
                fetch(f"{settings.base_url.rstrip('/')}/{archive.name}", archive, settings.retries, settings.wait)
            check(archive, settings.sums[part])
            unpack(archive, folder, corpus.folder)
            if not settings.keep_archives:
                archive.unlink()
            files = list(folder.glob("*/*/*.flac"))
            print(f"{part}: {len(files)} files of {len({path.parts[-3] for path in files})} speakers are in {folder}", flush=True)
    except OSError as error:  # the disk is full, or may not be written: those of the network are `NetworkError`
        raise UserError(f"{out}: {error}") from error
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return STOPPED
    return None


def fetch(url: str, path: Path, retries: int, wait: float) -> None:
    """Downloads a file to `<path>.part`, going on after what is there, and renames it when it is whole.

    wait: seconds before another try, doubled each time, and as it was once something new has come.
    Raises UserError where the server does not have the file, or where `retries` more tries in a row brought nothing new.
    """
    half, failures = path.with_name(path.name + HALF), 0
    furthest = size_of(half)
    while True:
        try:
            fetch_rest(url, half)
            break
        except NetworkError as dropped:
            came = size_of(half)  # a server that always starts anew may bring less than another time
            failures, furthest = (0 if came > furthest else failures + 1), max(came, furthest)
            if failures > retries:
                raise UserError(f"{url}: expected the whole file, found {dropped}; gave up after {retries} retries") from None
            tqdm.write(f"{url}: {dropped}; trying again", file=sys.stderr)
            time.sleep(wait * 2 ** min(failures, DOUBLINGS))
    half.rename(path)


def size_of(path: Path) -> int:
    """The bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def fetch_rest(url: str, half: Path) -> None:
    """Downloads what comes after the bytes that are in `half`; all of it where the server cannot begin there.

    Raises NetworkError where another try may do, and UserError where the server does not have the file.
    """
    start = size_of(half)
    try:
        response: HTTPResponse = urlopen(Request(url, headers={"Range": f"bytes={start}-"} if start else {}), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == NOTHING_BEYOND and start:
            return  # the file is whole, or not the one that was begun: the checksum will tell
        if error.code in PASSING:
            raise NetworkError(f"{error.code} {error.reason}") from None
        raise UserError(f"{url}: expected a file, found {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise NetworkError(str(error) or repr(error)) from None
    start = start if response.status == PARTIAL else 0
    total = None if response.length is None else start + response.length
    bar = byte_bar(desc=f"downloading {half.stem}", total=total, initial=start)
    with response, bar, half.open("ab" if start else "wb") as file:
        while piece := receive(response):
            file.write(piece)
            bar.update(len(piece))
        came = file.tell()
    if total is not None and came != total:
        raise NetworkError(f"an end after {came} of {total} bytes")


def receive(response: HTTPResponse) -> bytes:
    """What has arrived, at most PIECE bytes; none at the end. Raises NetworkError."""
    try:
        return response.read1(PIECE)
    except (OSError, HTTPException) as error:
        raise NetworkError(str(error) or repr(error)) from None


def check(path: Path, expected: str) -> None:
    """Compares a file's SHA-256 sum. Deletes a file with another and raises UserError: the next call begins anew."""
    digest = hashlib.sha256()
    with path.open("rb") as file, byte_bar(desc=f"checking {path.name}", total=size_of(path)) as bar:
        while piece := file.read(PIECE):
            digest.update(piece)
            bar.update(len(piece))
    if (found := digest.hexdigest()) != expected:
        path.unlink()
        raise UserError(f"{path}: expected the SHA-256 sum {expected}, found {found}; deleted it: the next call downloads it anew")


def unpack(archive: Path, folder: Path, top: str) -> None:
    """Unpacks an archive's `<top>/<name of folder>` as `folder`, which is there when it is whole and not before.

    The texts beside it (licence, speakers, chapters, books) go beside `folder`. Raises UserError for an archive that is damaged,
    holds no such folder, or would write anywhere else.
    """
    aside = folder.with_name(f".{folder.name}{HALF}")
    shutil.rmtree(aside, ignore_errors=True)  # of a call that was killed
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(aside, tqdm(tar, f"unpacking {archive.name}", unit=" files"), filter="data")
        whole = aside / top / folder.name
        if not any(whole.glob("*/*/*.flac")):
            raise UserError(f"{archive}: expected {top}/{folder.name}/<speaker>/<chapter>/*.flac in it, found none")
        for text in (aside / top).glob("*.TXT"):
            text.replace(folder.with_name(text.name))
        whole.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: expected an archive that can be unpacked, found {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
