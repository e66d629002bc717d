"""The eSpeak NG synthesiser through ctypes, with voices of our own.

The library and its data come from the package espeakng-loader. A voice is a language and a *variant*: a short text file that
says how the voice differs from the language's own (https://github.com/espeak-ng/espeak-ng/blob/master/docs/voices.md).

Shapes: S samples.
"""

import ctypes
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ss.errors import UserError

_SYNCHRONOUS, _VOLUME, _UTF8, _BY_CHARACTER = 2, 2, 1, 1  # values of speak_lib.h
_ON_AUDIO = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@contextmanager
def data_with(variants: Mapping[str, str]) -> Iterator[Path]:
    """A data folder of eSpeak, for as long as it is used, with these variants, name to text, and links to everything else.

    The names of the files begin with a dot: eSpeak lists all other files when it starts, and leaves out languages where there
    are more than 350 of them.
    """
    import espeakng_loader

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in Path(espeakng_loader.get_data_path()).iterdir():
            if item.name != "voices":
                (folder / item.name).symlink_to(item)
        place = folder / "voices" / "!v"
        place.mkdir(parents=True)
        for variant, text in variants.items():
            (place / f".{variant}").write_text(f"language variant\nname {variant}\n{text}\n")
        yield folder


class Espeak:
    """One synthesiser with one voice; a process can hold only one.

    Its oscillators and its random numbers run on from call to call, so the same calls in the same order are needed for the
    same samples: whoever wants them starts a fresh process.

    data: a folder of `data_with`; variant: one of its variants; language: UserError for one that eSpeak lacks.
    sample_rate: of what `say` returns, in Hz.
    """

    def __init__(self, data: Path, language: str, variant: str, seed: int) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _ON_AUDIO(self._on_audio)
        self.sample_rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0))
        assert self.sample_rate > 0, f"eSpeak could not start with the data in {data}"
        if self._library.espeak_SetVoiceByName(f"{language}+.{variant}".encode()):
            raise UserError(f"eSpeak has no language {language}")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._library.espeak_SetParameter(_VOLUME, 10, 0)  # at its default of 100 many a voice clips

    def _on_audio(self, wave: "ctypes._Pointer[ctypes.c_short]", n: int, _events: int | None) -> int:
        if n > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (n,)).copy())
        return 0

    def say(self, text: str) -> NDArray[np.float32]:
        """`text` [S] in -1..1."""
        self._chunks.clear()
        raw = text.encode()
        status = self._library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, _BY_CHARACTER, 0, _UTF8, None, None)
        assert status == 0, f"eSpeak failed with status {status} at {text!r}"
        wave = np.concatenate(self._chunks)
        assert np.abs(wave.astype(np.int32)).max() < 32767, f"eSpeak clipped at {text!r}"
        return wave.astype(np.float32) / np.float32(32768)
