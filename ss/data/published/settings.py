"""Which part of which published set is rebuilt, and from what."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ss.data.folder import Output
from ss.data.shards import check_folder
from ss.errors import UserError, reject_unknown_keys

CHOICES = {
    "recipe": ("librimix", "wsj0_2mix_extr"),
    "mode": ("min", "max"),
    "kind": ("mix_clean", "mix_both"),
    "sample_rate": (8000, 16000),
}


@dataclass(frozen=True)
class Roots:
    """Where the corpora are. speech: the folder that the paths of a list start from; noise: WHAM's, for mix_both."""

    speech: str
    noise: str | None = None


@dataclass(frozen=True, kw_only=True)
class Published(Output):
    """One part of a published set.

    recipe: of which set. metadata: its CSV file or list. enrolments: the map of librimix; lists of wsj0_2mix_extr name their own.
    kind: librimix without noise (mix_clean), for which there need not be any, or with (mix_both). mode: mixtures end with the
    shortest source (min) or the longest (max).
    Raises UserError for what there is not.
    """

    recipe: str
    metadata: str
    roots: Roots
    enrolments: str | None = None
    kind: str = "mix_clean"
    mode: str = "min"
    sample_rate: int = 16000

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise UserError(f"{key}: expected one of {', '.join(map(str, choices))}, found {getattr(self, key)}")
        if (self.enrolments is None) == (self.recipe == "librimix"):
            raise UserError(f"enrolments: expected a map for librimix, none for others, found {self.enrolments} for {self.recipe}")
        if self.kind == "mix_both" and (self.recipe != "librimix" or self.roots.noise is None):
            raise UserError(f"kind: expected librimix and roots.noise for mix_both, found {self.recipe} and {self.roots.noise}")
        for key, root in asdict(self.roots).items():
            if root is not None:
                check_folder(f"roots.{key}", root)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Published":
        """From the keys of a config. Raises UserError for keys and values that cannot be."""
        return cls(**{**reject_unknown_keys(cls, config), "roots": Roots(**reject_unknown_keys(Roots, config["roots"]))})
