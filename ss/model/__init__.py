"""Extractors: the SpEx+ family as compositions of layers with explicit state."""

from ss.model.extractor import Extraction, Extractor
from ss.model.family import (
    SpexPlus,
    SpexPlusShort,
    SpexPlusShortCacheModel,
    SpexPlusShortGRUMainModel,
    SpexPlusShortGRUModel,
    SpexPlusShortRNN,
    SpexPlusShortSpeakerHandler,
    SpexPlusShortSpecialChannelsModel,
)

__all__ = [
    "Extraction",
    "Extractor",
    "SpexPlus",
    "SpexPlusShort",
    "SpexPlusShortCacheModel",
    "SpexPlusShortGRUMainModel",
    "SpexPlusShortGRUModel",
    "SpexPlusShortRNN",
    "SpexPlusShortSpeakerHandler",
    "SpexPlusShortSpecialChannelsModel",
]
