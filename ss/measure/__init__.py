"""What an extractor weighs and how fast it is: parameters, multiply-accumulates, time per chunk, memory."""

from ss.measure.cost import n_bytes, n_macs, n_parameters
from ss.measure.job import measure
from ss.measure.memory import PeakMemory
from ss.measure.parts import Part, Settings, Timing, parts, timing

__all__ = ["Part", "PeakMemory", "Settings", "Timing", "measure", "n_bytes", "n_macs", "n_parameters", "parts", "timing"]
