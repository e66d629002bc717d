"""Extractors: the SpEx+ family as compositions of layers with explicit state."""

from ss.model.extractor import Extraction, ExtractionModel, SegmentExtractor
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
from ss.model.online import SpexPlusOnline
