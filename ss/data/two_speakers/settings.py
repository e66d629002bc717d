"""What a set of mixtures is made from and how: the keys of a config of `mixing/`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ss.data.sampling import check_speaker_sampling
from ss.data.scene import reject_unknown_keys
from ss.data.triplet import EXTENSIONS


@dataclass(frozen=True)
class Settings:
    """One set of mixtures. Lengths are in seconds; None switches a step off.

    audios_dir, parts, template: where the corpus is, see `ss.data.corpus.scan`.
    out_folder, extension: where the triplets go, as which files. nfiles: how many.
    snr_levels: dB, one is drawn for each. random_state: the seed of it all.
    absent_share, partly_absent_share, clean_share: which parts of the mixtures are of these scenes (`SCENES` of
    `ss.data.two_speakers.manifest`), drawn; the rest is `full`.
    audio_len: the length of mixture and target; None keeps whole targets. ref_max_len: the longest enrolment.
    min_len: shorter files are not used. trim_db: ends this far below the loudest part are cut off. vad_db: likewise inside.
    loudness: LUFS of the targets (ITU-R BS.1770); levels are then compared by loudness instead of energy.
    split_single_utterances: a speaker's only utterance gives a target in one half, an enrolment in the other; else it only
    interferes.
    speaker_sampling: `uniform` draws every speaker equally often, `by_duration` in proportion to the recorded time.
    speaker_group_regex: a regular expression; the ids of target and interferer agree in what it matches first, so corpora with ids
    of their own are not mixed with each other.
    speakers, exclude_speakers, max_n_speakers: who is used: those named, but not those, and so many of them, drawn.
    num_workers: processes; cluster: the address of a Dask scheduler whose workers do it instead; the result depends on neither.
    overwrite: start anew where other mixtures are.
    Raises ValueError for a value out of range.
    """

    audios_dir: str
    out_folder: str
    nfiles: int
    snr_levels: list[float]
    parts: str | list[str] | None = None
    template: str = "{part}/{speaker}/{chapter}/*"
    random_state: int = 0
    absent_share: float = 0.0
    partly_absent_share: float = 0.0
    clean_share: float = 0.0
    audio_len: float | None = None
    ref_max_len: float | None = None
    min_len: float = 1.0
    trim_db: float | None = None
    vad_db: float | None = None
    loudness: float | None = None
    split_single_utterances: bool = False
    speaker_sampling: str = "uniform"
    speaker_group_regex: str | None = None
    speakers: list[str] | None = None
    exclude_speakers: list[str] | None = None
    max_n_speakers: int | None = None
    sample_rate: int = 16000
    extension: str = "wav"
    num_workers: int = 1
    cluster: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for key in ("nfiles", "num_workers", "sample_rate", "audio_len", "ref_max_len", "trim_db", "vad_db", "max_n_speakers"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"{key}: expected more than 0, found {value}")
        if self.min_len < 0 or self.random_state < 0:
            raise ValueError(f"min_len and random_state: expected at least 0, found {self.min_len} and {self.random_state}")
        shares = self.shares()
        if min(shares.values()) < 0 or sum(shares.values()) > 1 + 1e-9:
            found = ", ".join(f"{scene}_share {share}" for scene, share in shares.items())
            raise ValueError(f"shares: expected at least 0 each and at most 1 together, found {found}")
        if not self.snr_levels:
            raise ValueError("snr_levels: expected at least one level in dB, found none")
        check_speaker_sampling(self.speaker_sampling)
        if self.extension not in EXTENSIONS:
            raise ValueError(f"extension: expected one of {', '.join(EXTENSIONS)}, found {self.extension}")

    def shares(self) -> dict[str, float]:
        """The part of the mixtures that each scene but `full` is given."""
        return {"absent": self.absent_share, "partly_absent": self.partly_absent_share, "clean": self.clean_share}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """From the keys of a config. Raises ValueError for a key that does not exist."""
        return cls(**reject_unknown_keys(cls, config))
