"""An exported model in ONNX Runtime: enrols speakers and starts streams, whichever kind of model it is.

An online model runs in the C library instead where that is installed, see `ss.runtime.native`.

Shapes: B streams, R samples of an enrolment, n samples of a chunk, D conditions.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ss.audio import Wave
from ss.errors import UserError, explain, require_choice, require_file
from ss.runtime.enrolment import read_stretch
from ss.runtime.native import NativeModel, NativeStream, find_library
from ss.runtime.pretrained import NATIVE, find_model, graphs_in
from ss.runtime.stream import BatchStream, Stream, mono_float
from ss.runtime.voice import SUFFIX, Conditions

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = 1  # of the files; a runtime reads its own and older ones
BACKENDS = ("c", "onnxruntime")
CPU = "CPUExecutionProvider"
NO_LIBRARY = """\
the C library is not installed, so ONNX Runtime computes, at several times the cost: install ss again where there is a C compiler"""


Recording: TypeAlias = str | Path | NDArray[Any] | Conditions
Recordings: TypeAlias = Recording | list[Recording]


class Extractor:
    """A model. One of it serves any number of streams, also from several threads.

    sample_rate in Hz; hop, delay and latency in samples of it: a stream works in steps of `hop`, an output sample depends on
    input samples up to `latency` - 1 later than itself; `delay` is what a stream holds back until `flush`, beside unfinished hops.
    window: samples of the segments that a segment model takes, one every `hop`; the hop for an online model, which takes any number
    of hops (`online`). metadata: what the export says of the model and its training.
    """

    def __init__(self, enrolling: "InferenceSession", stepping: "InferenceSession") -> None:
        self.enrolling, self.stepping = enrolling, stepping
        self.metadata: dict[str, str] = stepping.get_modelmeta().custom_metadata_map
        facts = (int(self.metadata[key]) for key in ("sample_rate", "hop", "delay", "latency", "shortest_enrolment"))
        self.sample_rate, self.hop, self.delay, self.latency, self.shortest_enrolment = facts
        chunk, conditions, *states = stepping.get_inputs()
        self.online = not isinstance(chunk.shape[1], int)
        self.window: int = self.hop if self.online else chunk.shape[1]
        self.conditions, self.n_conditions = conditions.name, conditions.shape[1]
        self.shapes = {value.name: value.shape for value in states}
        self.fills: dict[str, float] = json.loads(self.metadata.get("fills", "{}"))
        self.classifies = "logits" in (value.name for value in enrolling.get_outputs())

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, precision: str = "float32", threads: int = 1, backend: str | None = None
    ) -> "Extractor":
        """The model that this package brings, or another one: a name, a folder or a URL (see `find_model`).

        precision: float32, or int8 for CPUs that multiply it natively. backend: see `load`. Raises UserError for what is missing or
        damaged.
        """
        return cls.load(find_model(source, precision), threads, backend=backend)

    @classmethod
    def load(cls, folder: str | Path, threads: int = 1, provider: str = CPU, backend: str | None = None) -> "Extractor":
        """The model in a folder that the export wrote. Raises UserError where a file is missing, foreign, or of another format.

        provider: ONNX Runtime's name of what computes. backend: "c", the C library, for an online model on one thread of a CPU; or
        "onnxruntime"; None: the C library where that and the model's file for it are there, and one thread of a CPU is wanted.
        """
        if backend is not None:
            require_choice("backend", backend, BACKENDS)
        path = Path(folder, NATIVE)
        if backend == "c" or (backend is None and threads == 1 and provider == CPU and path.is_file()):
            if backend == "c" or find_library():
                return NativeExtractor(path)
            logging.getLogger(__name__).warning(NO_LIBRARY)
        return cls(*(session(Path(folder, name), threads, provider) for name in graphs_in(folder)))

    def enroll(self, enrolment: Recordings, sample_rate: int | None = None) -> Conditions:
        """A recording of the speaker alone -> conditions for streams of this speaker.

        enrolment: a file, a stretch of one in seconds ("call.wav@3.0-7.5"), a stored voice ("anna.voice"), or samples [R] or
        [R,channels] of int16 or floats at sample_rate (None: the model's); of a list of these, the mean. Raises UserError for one
        that is too short, empty, silent or not finite, or a voice of another model, and AudioError for a file that cannot be read.
        """
        model, name = self.metadata.get("weights", ""), f"{enrolment}: " if isinstance(enrolment, str | Path) else ""
        if isinstance(enrolment, list) and enrolment:
            return Conditions(np.mean([self.enroll(one, sample_rate).values for one in enrolment], 0), model)
        if isinstance(enrolment, str | Path) and Path(enrolment).suffix == SUFFIX:
            enrolment = Conditions.load(enrolment)
        if isinstance(enrolment, Conditions):
            if enrolment.model not in ("", model):
                raise UserError(f"{name}expected a voice of this model, found one of another: enrol the speaker again")
            if (n := enrolment.values.shape[-1]) != self.n_conditions:
                raise UserError(f"{name}expected {self.n_conditions} conditions, as this model's enroll gives them, got {n}")
            return enrolment
        if isinstance(enrolment, str | Path):
            wave = mono_float(*read_stretch(enrolment), self.sample_rate)
        else:
            wave = mono_float(np.asarray(enrolment), sample_rate or self.sample_rate, self.sample_rate)
        if len(wave) < self.shortest_enrolment:
            seconds, least = len(wave) / self.sample_rate, self.shortest_enrolment / self.sample_rate
            raise UserError(f"{name}an enrolment of {seconds:.2f} seconds is too short: this model needs at least {least:.2f}")
        if not wave.any():
            raise UserError(f"{name}expected speech as enrolment, found silence")
        return Conditions(self.conditions_of(wave[None]), model)

    def stream(self, enrolment: Recordings, sample_rate: int | None = None) -> Stream:
        """A new stream of one speaker, of audio at `sample_rate` (None: the model's)."""
        return Stream(self, self.enroll(enrolment, sample_rate).values, sample_rate)

    def streams(self, enrolments: Sequence[Recordings], sample_rate: int | None = None) -> BatchStream:
        """One stream per enrolment, which advance together: one run of the model a call."""
        if not enrolments:
            raise UserError("expected at least one enrolment, got none")
        conditions = np.concatenate([self.enroll(enrolment, sample_rate).values for enrolment in enrolments])
        return BatchStream(self, conditions, sample_rate)

    def conditions_of(self, enrolments: Wave) -> Wave:
        """Enrolments [B,R] at the model's rate -> conditions [B,D]."""
        (conditions,) = self.enrolling.run([self.conditions], {"enrolment": enrolments})
        return conditions

    def classify(self, enrolments: Wave) -> Wave:
        """Enrolments [B,R] at the model's rate -> logits of the training speakers [B,n]; n is 0 where the export has none."""
        if not self.classifies:
            return np.zeros((len(enrolments), 0), np.float32)
        (logits,) = self.enrolling.run(["logits"], {"enrolment": enrolments})
        return logits

    def zeros(self, batch: int) -> Any:
        """The states of so many new streams."""
        sizes = {name: [n if isinstance(n, int) else batch for n in shape] for name, shape in self.shapes.items()}
        return {name: np.full(size, self.fills.get(name, 0), np.float32) for name, size in sizes.items()}

    def step(self, chunk: Wave, conditions: Wave, states: Any) -> tuple[Wave, Any]:
        """chunk [B,n], conditions [B,D], states -> a wave [B,n], the states after it.

        An online model takes whole hops, and the wave is that of `delay` samples earlier; a segment model takes one segment and
        gives its estimate, which `BatchStream` joins to those of its neighbours.
        """
        wave, *after = self.stepping.run(None, {"chunk": chunk, self.conditions: conditions, **states})
        return wave, dict(zip(states, after, strict=True))


class NativeExtractor(NativeModel, Extractor):
    """An online model in the C library; see Extractor and NativeModel."""

    def stream(self, enrolment: Recordings, sample_rate: int | None = None) -> Stream:
        """See Extractor; all of it is in the library where the rate is the model's."""
        if sample_rate in (None, self.sample_rate):
            return NativeStream(self, self.enroll(enrolment).values[0])
        return super().stream(enrolment, sample_rate)


def session(path: Path, threads: int, provider: str = CPU) -> "InferenceSession":
    """An exported file in ONNX Runtime. Raises UserError for one that cannot be used."""
    import onnxruntime  # not wanted by the streams of models in torch

    require_file(path, "a file of an exported model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with explain(f"{path}: expected an exported model, but ONNX Runtime says", Exception):  # its errors have no common class
        opened = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    metadata = opened.get_modelmeta().custom_metadata_map
    found = metadata.get("format", "")
    if found.isdigit() and int(found) > FORMAT:
        raise UserError(f"{path}: expected format {FORMAT} or older, found {found}: this model needs a newer version of ss")
    if not found.isdigit() or "hop" not in metadata:
        raise UserError(f"{path}: expected a model that ss exported, found another ONNX file, or one of an earlier version of ss")
    return opened
