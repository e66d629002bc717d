"""Downloads: what servers may do (ranges, none, drops, refusals), that only what has its checksum is unpacked, and never a half."""

import hashlib
import importlib.util
import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pytest
from conftest import run

from ss.data import download as module
from ss.data.download import CORPORA, download
from ss.errors import UserError

pytestmark = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python does not unpack safely")
PARTS = ("dev-clean", "test-clean")
FILES = ("1/7/1-7-0000.flac", "1/7/1-7-0001.flac", "2/8/2-8-0000.flac")
WAVE = 60_000  # bytes of each file, which do not compress


def packed(members: dict[str, bytes]) -> bytes:
    """A .tar.gz of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def archive(part: str) -> bytes:
    """A part in LibriSpeech's layout."""
    random = Random(part)
    waves = {f"LibriSpeech/{part}/{name}": random.randbytes(WAVE) for name in FILES}
    return packed({"LibriSpeech/LICENSE.TXT": b"CC BY 4.0", "LibriSpeech/SPEAKERS.TXT": b"1 | F", **waves})


ARCHIVES = {part: archive(part) for part in PARTS}
SUMS = {part: hashlib.sha256(data).hexdigest() for part, data in ARCHIVES.items()}


class Server(ThreadingHTTPServer):
    """Sends `files`, from the asked byte on if `ranges`; each of the first answers is one of `fates`: cut after so many bytes, or,
    where negative, this status without a file. `asked` holds the Range of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"/12/{part}.tar.gz": data for part, data in ARCHIVES.items()}
        self.ranges, self.fates, self.asked = True, list[int](), list[str | None]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/12"


class Handler(BaseHTTPRequestHandler):
    """Answers of a Server."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        fate = self.server.fates.pop(0) if self.server.fates else None
        if fate is not None and fate < 0:
            self.send_error(-fate)
            return
        if self.path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[self.path]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][:fate])

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One that does as it should, until a test says otherwise."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def config(server: Server, tmp_path: Path) -> dict[str, Any]:
    """One part from the server."""
    return {
        "corpus": "librispeech",
        "parts": "dev-clean",
        "out_folder": str(tmp_path / "out"),
        "base_url": server.url,
        "retries": 2,
        "wait": 0,
        "checksums": SUMS,
    }


def names(config: dict[str, Any]) -> list[str]:
    """What lies in out_folder."""
    return sorted(path.name for path in Path(config["out_folder"]).iterdir())


def put(config: dict[str, Any], name: str, data: bytes) -> Path:
    """Writes a file to out_folder."""
    path = Path(config["out_folder"], name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def assert_whole(config: dict[str, Any], part: str = "dev-clean") -> None:
    """The part lies there as it was packed, and nothing of it that is not whole."""
    folder = Path(config["out_folder"], part)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == list(FILES)
    random = Random(part)
    assert [(folder / name).read_bytes() for name in FILES] == [random.randbytes(WAVE) for _ in FILES]
    assert not [name for name in names(config) if name.endswith(".part")]


def test_command(server: Server, tmp_path: Path) -> None:
    sums = ",".join(f"{part}:'{total}'" for part, total in SUMS.items())
    common = ["-cn", "download", f"out_folder={tmp_path}/out", f"base_url={server.url}", f"checksums={{{sums}}}"]
    server.fates = [50_000]
    done = run("mixing/download.py", *common, "parts=[dev-clean,test-clean]", "wait=0")
    for part in PARTS:
        assert_whole({"out_folder": f"{tmp_path}/out"}, part)
        assert f"{part}: 3 files of 2 speakers are in {tmp_path}/out/{part}" in done.stdout
    assert "librispeech: CC BY 4.0, https://www.openslr.org/12" in done.stdout
    assert "an end after 50000 of" in done.stderr
    assert "downloading test-clean.tar.gz: 100%" in done.stderr
    assert names({"out_folder": f"{tmp_path}/out"}) == ["LICENSE.TXT", "SPEAKERS.TXT", *PARTS]

    done = run("mixing/download.py", *common, "parts=dev-other", check=False)
    assert done.returncode == 2
    assert "error: parts: expected some of dev-clean, test-clean, found dev-other" in done.stderr


def test_the_published_sums_are_those_of_torchaudio() -> None:
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        pytest.skip("torchaudio is not installed")
    text = Path(spec.origin).with_name("datasets").joinpath("librispeech.py").read_text()  # importing it may need its libraries
    assert dict(re.findall(r'/12/([\w-]+)\.tar\.gz": "([0-9a-f]{64})"', text)) == CORPORA["librispeech"].sums


def test_what_is_there_is_skipped(server: Server, config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    flac = put(config, "dev-clean/1/7/1-7-0000.flac", b"mine")
    assert download(config | {"parts": [*PARTS, "dev-clean"]}) is None
    assert flac.read_bytes() == b"mine"
    assert len(server.asked) == 1
    assert_whole(config, "test-clean")
    assert f"skipped dev-clean: {config['out_folder']}/dev-clean is there already" in capsys.readouterr().out


def test_an_empty_folder_is_not_the_part(config: dict[str, Any]) -> None:
    Path(config["out_folder"], "dev-clean").mkdir(parents=True)
    download(config)
    assert_whole(config)


def test_archives_may_be_kept_and_are_used_again(server: Server, config: dict[str, Any]) -> None:
    for keep in (True, True, False):
        shutil.rmtree(Path(config["out_folder"], "dev-clean"), ignore_errors=True)
        download(config | {"keep_archives": keep})
        assert_whole(config)
        assert ("dev-clean.tar.gz" in names(config)) == keep
    assert len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_is_resumed(server: Server, config: dict[str, Any], ranges: bool) -> None:
    server.ranges, server.fates = ranges, [70_000, 20_000, 80_000]
    download(config)
    assert_whole(config)
    starts = [70_000, 90_000, 170_000] if ranges else [70_000, 20_000, 80_000]
    assert server.asked == [None, *(f"bytes={start}-" for start in starts)]


@pytest.mark.parametrize("ranges", [True, False])
def test_the_next_call_goes_on(server: Server, config: dict[str, Any], ranges: bool) -> None:
    put(config, "dev-clean.tar.gz.part", ARCHIVES["dev-clean"][:100_000])
    server.ranges = ranges
    download(config)
    assert_whole(config)
    assert server.asked == ["bytes=100000-"]


def test_a_whole_file_that_was_not_renamed_is_not_sent_again(server: Server, config: dict[str, Any]) -> None:
    put(config, "dev-clean.tar.gz.part", ARCHIVES["dev-clean"])
    download(config)
    assert_whole(config)
    assert server.asked == [f"bytes={len(ARCHIVES['dev-clean'])}-"]


def test_retries_count_what_brings_nothing_new(server: Server, config: dict[str, Any]) -> None:
    server.fates = [0, -503, 10_000, -429, 0, 10_000, 0, 0]
    download(config)
    assert_whole(config)
    assert len(server.asked) == 9
    server.fates = [0, -503, 0]
    with pytest.raises(UserError, match=r"test-clean.tar.gz: expected the whole file, found an end .* gave up after 2 retries"):
        download(config | {"parts": "test-clean"})
    assert len(server.asked) == 12


def test_waits_are_doubled_until_something_comes(server: Server, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.fates = [-503, -503, 10_000, *[-503] * 8]
    download(config | {"wait": 0.5, "retries": 8})
    assert waits == [1, 2, 0.5, 1, 2, 4, 8, 16, 32, 32, 32]


def test_nobody_there_and_no_such_file_are_errors(server: Server, config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected a file, found 404 Not Found"):
        download(config | {"base_url": f"{server.url}/other/"})
    assert len(server.asked) == 1
    server.server_close()
    server.shutdown()
    with pytest.raises(UserError, match="expected the whole file, found .*Connection refused.*gave up after 2 retries"):
        download(config)
    assert names(config) == []


@pytest.mark.parametrize("begun", ["", "dev-clean.tar.gz.part", "dev-clean.tar.gz"])
def test_a_wrong_sum_is_an_error_and_begins_anew(server: Server, config: dict[str, Any], begun: str) -> None:
    if begun:
        put(config, begun, b"x" * 1000)  # of another file
    else:
        server.files["/12/dev-clean.tar.gz"] = ARCHIVES["test-clean"]
    with pytest.raises(
        ValueError, match=rf"dev-clean.tar.gz: expected the SHA-256 sum {SUMS['dev-clean']}, found [0-9a-f]{{64}}; "
    ):
        download(config)
    assert names(config) == []
    server.files["/12/dev-clean.tar.gz"] = ARCHIVES["dev-clean"]
    download(config)
    assert_whole(config)


def test_ctrl_c_keeps_what_has_come(
    server: Server, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = iter([ARCHIVES["dev-clean"][:30_000]])

    def receive(_: object) -> bytes:
        for piece in pieces:
            return piece
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "receive", receive)
        assert download(config) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert names(config) == ["dev-clean.tar.gz.part"]
    download(config)
    assert_whole(config)
    assert server.asked == [None, "bytes=30000-"]


def test_what_was_half_unpacked_is_not_the_part(server: Server, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    put(config, ".dev-clean.part/LibriSpeech/dev-clean/9/9/killed.flac", b"of a call that was killed")

    def extract(archive: Path) -> None:
        put(config, ".dev-clean.part/LibriSpeech/dev-clean/1/7/half.flac", b"")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.tarfile, "open", extract)
        assert download(config) == 130
    assert names(config) == ["dev-clean.tar.gz"]
    download(config)
    assert_whole(config)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            packed({"LibriSpeech/other/1/2/3.flac": b""}),
            r"expected LibriSpeech/dev-clean/<speaker>/<chapter>/\*.flac in it, found none",
        ),
        (packed({"../outside.flac": b""}), "expected an archive that can be unpacked, found .*outside the destination"),
        (b"no archive", "expected an archive that can be unpacked, found "),
        (ARCHIVES["dev-clean"][:100_000], "expected an archive that can be unpacked, found .*end"),
    ],
    ids=["other", "unsafe", "none", "truncated"],
)
def test_a_bad_archive_leaves_nothing(server: Server, config: dict[str, Any], data: bytes, message: str) -> None:
    server.files["/12/dev-clean.tar.gz"] = data
    with pytest.raises(UserError, match=message):
        download(config | {"checksums": {"dev-clean": hashlib.sha256(data).hexdigest()}})
    assert names(config) == ["dev-clean.tar.gz"]
    assert not Path(config["out_folder"], "../outside.flac").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": "timit"}, "corpus: expected one of librispeech, found timit"),
        ({"parts": ["dev-clean", "dev"], "checksums": None}, "expected some of dev-clean, .*, train-other-500, found dev$"),
        ({"parts": []}, "parts: expected some of dev-clean, test-clean, found none"),
        ({"base_url": "/data"}, "base_url: expected http://... or https://..., found /data"),
        ({"retries": -1}, "retries: expected at least 0, found -1"),
        ({"folder": "data"}, "unknown key folder: expected some of corpus, "),
        ({"out_folder": "/dev/null/data"}, "/dev/null/data: .*Not a directory"),
    ],
)
def test_errors_say_what_was_expected(server: Server, config: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        download(config | changes)
    assert server.asked == []
