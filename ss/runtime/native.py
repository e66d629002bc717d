"""An exported online model in the C library (libss/ss.h): several times faster than ONNX Runtime, on one thread.

Shapes: B streams, R samples of an enrolment, n samples that come, m samples that go, D conditions.
"""

import ctypes
import json
import os
import sys
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss.audio import Wave
from ss.errors import UserError, explain, require_file
from ss.runtime.stream import LOUDEST, Stream, check_shape, refuse_ended, repair, to_float, to_type

NAMES = {"darwin": "libss.dylib", "win32": "ss.dll"}
PACKAGED = Path(__file__).with_name(NAMES.get(sys.platform, "libss.so"))
VARIABLE = "SS_LIBRARY"  # of the environment: another library than the packaged one
VERSION = 2
HANDLE, SIZE, INT, TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p
FACTS = ("sample_rate", "hop", "delay", "latency", "shortest_enrolment", "n_conditions")
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ss_version": (INT, []),
    "ss_error": (TEXT, []),
    "ss_load": (HANDLE, [TEXT]),
    "ss_model_free": (None, [HANDLE]),
    **{f"ss_{fact}": (INT, [HANDLE]) for fact in FACTS},
    **{f"ss_{text}": (TEXT, [HANDLE]) for text in ("metadata", "kernel")},
    "ss_enroll": (INT, [HANDLE, HANDLE, SIZE, HANDLE]),
    "ss_voice_load": (INT, [HANDLE, TEXT, HANDLE]),
    "ss_stream_new": (HANDLE, [HANDLE, HANDLE]),
    "ss_stream_ready": (SIZE, [HANDLE, SIZE]),
    **{f"ss_stream_process{kind}": (SIZE, [HANDLE, HANDLE, SIZE, HANDLE]) for kind in ("", "_int16")},
    **{f"ss_stream_flush{kind}": (SIZE, [HANDLE, HANDLE]) for kind in ("", "_int16")},
    "ss_stream_step": (None, [HANDLE, HANDLE, SIZE, HANDLE]),
    "ss_stream_reset": (None, [HANDLE]),
    "ss_stream_repaired": (SIZE, [HANDLE]),
    "ss_stream_free": (None, [HANDLE]),
}


def find_library() -> Path | None:
    """The library of this installation, or the one that SS_LIBRARY names; None where there is none."""
    path = Path(os.environ.get(VARIABLE) or PACKAGED)
    return path if path.is_file() else None


@cache
def open_library(path: Path) -> Any:
    """The functions of a library. Raises UserError for a file that is none, or one of another version."""
    with explain(f"{path}: expected the C library of ss, but", OSError, AttributeError):
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    if (found := library.ss_version()) != VERSION:
        raise UserError(f"{path}: expected version {VERSION} of the C library, found {found}: install ss again")
    return library


class NativeModel:
    """A model in the C library, what `NativeExtractor` has beside `Extractor`. kernel: the vector instructions that it chose.

    Raises UserError where there is no library, and for a file that is no model.
    """

    online, classifies = True, False

    def __init__(self, path: Path) -> None:
        if (found := find_library()) is None:
            raise UserError(f"{PACKAGED}: expected the C library, but there is none: install ss where there is a C compiler")
        require_file(path, "a model for the C library", ": export the model again")
        self.library = library = open_library(found)
        self.pointer = library.ss_load(os.fsencode(path))
        if not self.pointer:
            raise UserError(f"{path}: {library.ss_error().decode()}")
        weakref.finalize(self, library.ss_model_free, self.pointer)
        facts = (getattr(library, f"ss_{fact}")(self.pointer) for fact in FACTS)
        self.sample_rate, self.hop, self.delay, self.latency, self.shortest_enrolment, self.n_conditions = facts
        self.window = self.hop
        self.metadata: dict[str, str] = json.loads(library.ss_metadata(self.pointer))
        self.kernel: str = library.ss_kernel(self.pointer).decode()

    def conditions_of(self, enrolments: Wave) -> Wave:
        """See Extractor. Raises UserError for enrolments that are too short, silent or not finite."""
        conditions = np.empty((len(enrolments), self.n_conditions), np.float32)
        for enrolment, row in zip(np.ascontiguousarray(enrolments), conditions, strict=True):
            if self.library.ss_enroll(self.pointer, enrolment.ctypes.data, len(enrolment), row.ctypes.data):
                raise UserError(self.library.ss_error().decode())
        return conditions

    def zeros(self, batch: int) -> Any:
        """So many new streams, which are opened by their first step."""
        return [None] * batch

    def step(self, chunk: Wave, conditions: Wave, states: Any) -> tuple[Wave, Any]:
        """See Extractor. The streams in `states` are at the end of this chunk afterwards: a step cannot be taken twice."""
        chunk, wave = np.ascontiguousarray(chunk), np.empty_like(chunk)
        states = [stream or NativeStream(self, speaker) for stream, speaker in zip(states, conditions, strict=True)]
        for stream, samples, out in zip(states, chunk, wave, strict=True):
            self.library.ss_stream_step(stream.pointer, samples.ctypes.data, len(samples) // self.hop, out.ctypes.data)
        return wave, states


class NativeStream(Stream):
    """One stream of a speaker [D] at the model's rate, all of it in the library, which frees it with this object; see Stream.

    Raises UserError for conditions that are none.
    """

    def __init__(self, model: NativeModel, speaker: Wave) -> None:
        if len(speaker) != model.n_conditions:
            raise UserError(f"expected {model.n_conditions} conditions, as this model's enroll gives them, got {len(speaker)}")
        self.model, self.library, self.sample_rate = model, model.library, model.sample_rate
        speaker = np.ascontiguousarray(speaker, np.float32)
        self.pointer = self.library.ss_stream_new(model.pointer, speaker.ctypes.data)
        if not self.pointer:
            raise UserError(self.library.ss_error().decode())
        weakref.finalize(self, self.library.ss_stream_free, self.pointer)
        self.reset()

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        refuse_ended(self.ended)
        given = np.asarray(samples)
        check_shape(given, "n")
        if given.ndim == 2:
            wave, bad = repair(to_float(given), LOUDEST)
            self.averaged += bad
            samples = wave.mean(1)
        else:
            samples = np.ascontiguousarray(given if given.dtype == np.int16 else to_float(given))
        process = self.library.ss_stream_process_int16 if samples.dtype == np.int16 else self.library.ss_stream_process
        out = np.empty(self.library.ss_stream_ready(self.pointer, len(samples)), samples.dtype)
        process(self.pointer, samples.ctypes.data, len(samples), out.ctypes.data)
        self.repaired, self.dtype = self.library.ss_stream_repaired(self.pointer) + self.averaged, given.dtype
        return out if out.dtype == self.dtype else to_type(out, self.dtype)

    def flush(self) -> NDArray[Any]:
        refuse_ended(self.ended)
        whole = self.dtype == np.int16
        self.ended, out = True, np.empty(self.model.hop + self.model.delay, np.int16 if whole else np.float32)
        flush = self.library.ss_stream_flush_int16 if whole else self.library.ss_stream_flush
        return out[: flush(self.pointer, out.ctypes.data)].astype(self.dtype, copy=False)

    def reset(self) -> None:
        self.library.ss_stream_reset(self.pointer)
        self.averaged, self.repaired, self.dtype, self.ended = 0, 0, np.dtype(np.float32), False
