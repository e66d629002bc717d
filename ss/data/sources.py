"""Where the audio of scenes comes from: a corpus of single speakers, noise, and impulse responses of rooms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ss.data.scene_settings import Scene
from ss.errors import UserError, reject_unknown_keys, require_choices, require_positive


@dataclass(frozen=True)
class Sources:
    """audios_dir: the corpus, packed or not; its files are found by `template` and `parts` (see `ss.data.corpus.find_files`), or
    listed in `manifest`, a CSV or JSONL file with a path (below audios_dir) and a speaker in each line. Any sample rate: what
    differs is resampled.
    genders: a CSV or JSONL file with a `speaker` and a `gender` in each line, empty where it is not known (it may be the manifest).
    speakers, exclude_speakers, max_n_speakers: who is used: those named, but not those, and so many of them, drawn by random_state.
    split_single_utterances: a speaker's only utterance gives the target in one part, the enrolment in the other; else it only
    interferes.
    speaker_sampling: `uniform` draws every speaker equally often, `by_duration` in proportion to the recorded time.
    speaker_group_regex: a regular expression; the ids of target and interferers agree in what it matches first, so corpora with ids
    of their own are not mixed with each other.
    min_len: seconds of speech that a file has at least. trim_db: what is so far below a file's loudest part is no speech; None: all
    of it is. drop_pauses: what is no speech is left out also inside of an utterance, not only at its ends.
    noise, rirs: folders of files, packed or looked through with their subfolders. num_workers: processes that look into files.
    """

    audios_dir: str
    parts: str | Sequence[str] | None = None
    template: str = "{part}/{speaker}/{chapter}/*"
    manifest: str | None = None
    genders: str | None = None
    speakers: Sequence[str] | None = None
    exclude_speakers: Sequence[str] | None = None
    max_n_speakers: int | None = None
    split_single_utterances: bool = False
    speaker_sampling: Literal["uniform", "by_duration"] = "uniform"
    speaker_group_regex: str | None = None
    min_len: float = 1.0
    trim_db: float | None = 30.0
    drop_pauses: bool = False
    sample_rate: int = 16000
    random_state: int = 0
    noise: str | None = None
    rirs: str | None = None
    num_workers: int = 1

    def __post_init__(self) -> None:
        for key in ("parts", "speakers", "exclude_speakers"):  # so that sources can be compared and looked up
            if isinstance(getattr(self, key), list):
                object.__setattr__(self, key, tuple(getattr(self, key)))
        or_zero, or_none = ("min_len", "random_state"), ("trim_db", "max_n_speakers")
        require_positive(vars(self), "sample_rate", "num_workers", or_zero=or_zero, or_none=or_none)
        require_choices(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Sources":
        """From the keys of a config. Raises UserError for keys and values that cannot be."""
        return cls(**reject_unknown_keys(cls, config))


def check_sources(scene: Scene, sources: Sources) -> None:
    """Raises UserError for all that a scene asks for and the sources do not name."""
    needs = (
        (scene.same_gender_share, sources.genders, "genders (genders=<a CSV file with the columns speaker and gender>)"),
        (scene.noisy, sources.noise, "noise (noise=<a folder of files>)"),
        (scene.uses_rirs, sources.rirs, "rooms (rirs=<a folder of impulse responses>, or scene.rt60=[0.2,0.6] to simulate them)"),
    )
    if missing := [what for needed, given, what in needs if needed and given is None]:
        raise UserError(f"the scene asks for {', '.join(missing)}, found none")
