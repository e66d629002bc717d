"""What an extractor weighs and how fast it is: parameters, multiply-accumulates, latency, time per chunk, memory."""

from ss.measure.cost import n_bytes, n_macs, n_parameters
from ss.measure.family import Family, measure_family
from ss.measure.job import measure
from ss.measure.latency import Latency, latency
from ss.measure.live import OnlineStream, SegmentStream, open_stream
from ss.measure.memory import PeakMemory
from ss.measure.parts import Part, Settings, Timing, parts, timing

__all__ = [
    "Family",
    "Latency",
    "OnlineStream",
    "Part",
    "PeakMemory",
    "SegmentStream",
    "Settings",
    "Timing",
    "latency",
    "measure",
    "measure_family",
    "n_bytes",
    "n_macs",
    "n_parameters",
    "open_stream",
    "parts",
    "timing",
]
