"""What a scene may be: the keys of a config of the group `scene`, checked. Every choice in it is drawn by the plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from ss.errors import UserError, reject_unknown_keys

Range: TypeAlias = tuple[float, float]
WholeRange: TypeAlias = tuple[int, int]

PATTERNS = ("full", "partial", "turns", "silent_start", "silent_middle", "silent_end", "absent", "alone")
CODECS = ("mulaw", "mp3", "vorbis", "opus")
MOST_INTERFERERS = 3
ABOVE_ZERO = ("seconds", "utterances", "turn", "speed", "pitch", "rt60")  # of the ranges


@dataclass(frozen=True)
class Enrolment:
    """How the target speaker is enrolled: `seconds` of `utterances` (None: all of these); a share with noise at `snr` dB, a share
    in a room. level: dB of full scale; None: the mixture's. speed: a factor by which it is played faster than the voice in the
    mixture; None: as fast. pitch: a factor by which it is higher, and as much faster, with the formants of the voice, as nobody
    speaks at the same pitch again; None: as high. equalizer: dB by which each octave is louder, as no two microphones sound alike;
    None: as recorded."""

    seconds: Range | None = (3.0, 3.0)
    utterances: WholeRange = (1, 1)
    noise_share: float = 0.0
    snr: Range = (5.0, 20.0)
    reverb_share: float = 0.0
    level: Range | None = None
    speed: Range | None = None
    pitch: Range | None = None
    equalizer: Range | None = None

    def __post_init__(self) -> None:
        check_ranges_and_shares(self)


@dataclass(frozen=True)
class Scene:
    """What is drawn for each mixture. A range is [low, high] and drawn from evenly; a share is a part of all mixtures.

    seconds: length of the mixture; None: that of the target's utterance. patterns: how often each of PATTERNS comes:
    `full`: all speak from beginning to end; `partial`: the target and the others overlap for `overlap` of the time;
    `turns`: one after the other, turns of `turn` seconds with `gap` seconds between (below 0: they overlap);
    `silent_start`, `silent_middle`, `silent_end`: the target is silent for `silence` of the time; `absent`: always;
    `alone`: nobody else speaks. interferers: how many, at most 3; in `fewest_share` of the mixtures as few as that allows.
    same_gender_share: in which part of the mixtures they have the target's gender, where that is known; same_pitch_share: in which
    part of the others they are of the tenth of all voices whose pitch is nearest to the target's.
    sir: dB of the target over each interferer, each over its own speech; sir_levels: one of these instead.
    speed_share, speed: a factor by which a voice is played faster: that makes another speaker of it.
    noise_share, snr: noise from files, dB of the target's speech over it. level: dB of full scale of the mixture's mean power.
    loudness: LUFS of the target instead (ITU-R BS.1770); then sir and snr are differences of loudness too.
    reverb_share: in a room, from files or, with `rt60` in seconds, a `simulated_share` of them simulated. early_ms: how much of its
    reverberation belongs to the target that is asked for; None: all of it. bandwidth_share, bandwidths: Hz that are left.
    codec_share, codecs and clip_share, clip_db (below the peak): what is done to the mixture alone.
    """

    seconds: Range | None = (3.0, 3.0)
    patterns: Mapping[str, float] = field(default_factory=lambda: {"full": 1.0})
    overlap: Range = (0.2, 0.8)
    silence: Range = (0.3, 0.7)
    turn: Range = (0.8, 3.0)
    gap: Range = (-0.3, 0.6)
    interferers: WholeRange = (1, 1)
    fewest_share: float = 0.0
    same_gender_share: float = 0.0
    same_pitch_share: float = 0.0
    sir: Range = (-5.0, 5.0)
    sir_levels: tuple[float, ...] | None = None
    speed_share: float = 0.0
    speed: Range = (0.9, 1.1)
    level: Range = (-30.0, -20.0)
    loudness: float | None = None
    noise_share: float = 0.0
    snr: Range = (0.0, 20.0)
    reverb_share: float = 0.0
    rt60: Range | None = None
    simulated_share: float = 1.0
    early_ms: float | None = None
    bandwidth_share: float = 0.0
    bandwidths: tuple[float, ...] = (4000.0,)
    codec_share: float = 0.0
    codecs: tuple[str, ...] = CODECS
    clip_share: float = 0.0
    clip_db: Range = (3.0, 12.0)
    enrolment: Enrolment = field(default_factory=Enrolment)

    def __post_init__(self) -> None:
        check_ranges_and_shares(self)
        for key, known in (("patterns", PATTERNS), ("codecs", CODECS)):
            if unknown := sorted(set(getattr(self, key)) - set(known)):
                raise UserError(f"{key}: expected some of {', '.join(known)}, found {', '.join(unknown)}")
        if not self.patterns or min(self.patterns.values()) < 0 or not sum(self.patterns.values()):
            raise UserError(f"patterns: expected weights of which one is above 0, found {dict(self.patterns)}")
        for key, most in (("interferers", MOST_INTERFERERS), ("overlap", 1), ("silence", 1)):
            low, high = getattr(self, key)
            if not 0 <= low <= high <= most:
                raise UserError(f"{key}: expected 0 to {most}, found {[low, high]}")
        if self.sir_levels is not None and not self.sir_levels:
            raise UserError("sir_levels: expected at least one level in dB, found none")

    @property
    def noisy(self) -> bool:
        """Whether there is ever noise."""
        return bool(self.noise_share or self.enrolment.noise_share)

    @property
    def uses_rirs(self) -> bool:
        """Whether a room ever comes from a file."""
        return bool(self.reverb_share or self.enrolment.reverb_share) and (self.rt60 is None or self.simulated_share < 1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> "Scene":
        """From the keys of a config. Raises UserError for none, and for keys and values that cannot be."""
        if config is None:
            raise UserError("scene: expected one of configs/groups/scene.yaml, e.g. scene=two_speakers, found none")
        enrolment = Enrolment(**reject_unknown_keys(Enrolment, config.get("enrolment") or {}))
        given = reject_unknown_keys(cls, config)
        lists = {key: tuple(given[key]) for key in ("bandwidths", "codecs", "sir_levels") if given.get(key) is not None}
        return cls(**{**given, **lists, "enrolment": enrolment})


def check_ranges_and_shares(config: Scene | Enrolment) -> None:
    """Makes [low, high] of each range a tuple, one number standing for both; raises UserError for what is no range or share."""
    for one in fields(config):
        key, value = one.name, getattr(config, one.name)
        if one.type in (Range, WholeRange) or (one.type == Range | None and value is not None):
            pair = (value, value) if isinstance(value, (int, float)) else tuple(value or ())
            if len(pair) != 2 or not pair[0] <= pair[1]:  # NaN is refused, too
                raise UserError(f"{key}: expected [low, high], found {value}")
            if key in ABOVE_ZERO and pair[0] <= 0:
                raise UserError(f"{key}: expected more than 0, found {list(pair)}")
            object.__setattr__(config, key, pair)
        if key.endswith("_share") and not 0 <= value <= 1:
            raise UserError(f"{key}: expected a part from 0 to 1, found {value}")
