"""Where a model lies: in this package, in a folder or behind a URL. Every file is compared with its SHA-256 sum before it is used.

A release is a folder that `inferencing/release.py` made: `float32` and `int8` with the two graphs and the model for the C library
each, SHA256SUMS, and README.md, its card. Needs no torch, and a network for URLs only.
"""

import hashlib
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from ss.errors import UserError, explain, require_choice, require_file
from ss.files import user_cache, whole_file

ENROLL, STEP = "enroll.onnx", "step.onnx"
NATIVE = "model.ss"  # for the C library; beside the graphs of an online model
SEGMENT_GRU = "SpeakerHandler.onnx", "GRUMainModel.onnx"  # the same of the segment GRU model, under the names of its two halves
PRECISIONS = ("float32", "int8")
SUMS = "SHA256SUMS"  # as `sha256sum` writes and checks it
PACKAGED = Path(__file__).parents[1] / "pretrained"
DEFAULT = "spexplus_online"
PIN = "#sha256="
TIMEOUT = 60.0  # seconds in which a server has to send something


def find_model(source: str | Path | None = None, precision: str = "float32") -> Path:
    """The folder with the two graphs of a model.

    source: the name of a packaged model (None: the default one); the folder of a release or of an export; or the URL of a release's
    folder, which is downloaded once. A URL may end in `#sha256=` and the sum of its SHA256SUMS: then no other release is taken.
    precision: float32 or int8, of a release. Raises UserError for what is missing, damaged or not as its sum says.
    """
    require_choice("precision", precision, PRECISIONS)
    text = str(DEFAULT if source is None else source)
    if text.startswith(("http://", "https://")):
        return download(text, precision)
    names = sorted(path.parent.name for path in PACKAGED.glob(f"*/{SUMS}"))
    folder = PACKAGED / text if text in names else Path(text)
    if not folder.is_dir():
        raise UserError(f"{text}: expected a packaged model ({', '.join(names)}), a folder or a URL, but there is none")
    if not (folder / SUMS).is_file():  # an export
        if precision != PRECISIONS[0]:
            raise UserError(f"{folder}: expected a release with {SUMS} to choose {precision} from, found none")
        return folder
    sums = read_sums(folder / SUMS)
    for name in files(precision, sums):
        require_file(folder / name, "a file of the release")
        if (found := sum_of(folder / name)) != sums.get(name):
            raise UserError(f"{folder / name}: expected the SHA-256 sum {sums.get(name)} of {SUMS}, found {found}")
    if (native := folder / precision / NATIVE).exists() and f"{precision}/{NATIVE}" not in sums:
        raise UserError(f"{native}: expected only files that {SUMS} lists")
    return folder / precision


def graphs_in(folder: str | Path) -> tuple[str, str]:
    """The files of the export in a folder: the graph that enrols and the one that takes a step.

    Raises UserError for a folder with files of two models.
    """
    names = {path.name for path in Path(folder).glob("*.onnx")}
    if names & {ENROLL, STEP} and names & {*SEGMENT_GRU}:
        raise UserError(f"{folder}: expected the files of one model, found those of two: {', '.join(sorted(names))}")
    return SEGMENT_GRU if names & {*SEGMENT_GRU} else (ENROLL, STEP)


def files(precision: str, sums: dict[str, str]) -> list[str]:
    """The files of a precision, as SHA256SUMS names them; a model that the C library does not run has none for it."""
    *both, native = (f"{precision}/{name}" for name in (ENROLL, STEP, NATIVE))
    return [*both, native] if native in sums else both


def sum_of(path: Path) -> str:
    """The SHA-256 sum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_sums(path: Path) -> dict[str, str]:
    """The sums that a SHA256SUMS file lists, by name."""
    return {row[1]: row[0] for row in map(str.split, path.read_text().splitlines()) if len(row) == 2}


def download(url: str, precision: str) -> Path:
    """The folder of a precision of the release at a URL, in the cache: what is there and has its sum is not loaded again."""
    url, _, pin = url.partition(PIN)
    folder = user_cache() / hashlib.sha256(url.encode()).hexdigest()[:16]
    if not (folder / SUMS).is_file() or (pin and sum_of(folder / SUMS) != pin):
        fetch(f"{url}/{SUMS}", folder / SUMS, pin)
    sums = read_sums(folder / SUMS)
    if f"{precision}/{NATIVE}" not in sums:
        (folder / precision / NATIVE).unlink(missing_ok=True)  # of another release at this URL
    for name in files(precision, sums):
        if name not in sums:
            raise UserError(f"{url}/{SUMS}: expected the sum of {name}, found {', '.join(sums) or 'none'}")
        if not (folder / name).is_file() or sum_of(folder / name) != sums[name]:
            fetch(f"{url}/{name}", folder / name, sums[name])
    return folder / precision


def fetch(url: str, path: Path, expected: str) -> None:
    """Downloads a file, which is there once it has the SHA-256 sum that is expected ("": any). Raises UserError."""
    with explain(f"{url}: cannot be downloaded", OSError, HTTPException), whole_file(path) as aside:
        with urlopen(url, timeout=TIMEOUT) as answer, aside.open("wb") as file:
            shutil.copyfileobj(answer, file)
        if expected and (found := sum_of(aside)) != expected:
            raise UserError(f"{url}: expected the SHA-256 sum {expected}, found {found}: damaged, or another release")
