"""What a live run shows: levels, latency, time per block, lost blocks; constant memory, however long it runs.

Shapes: n samples, C channels.
"""

import math
import shutil
import sys
import time
from typing import Any

import numpy as np

from ss.audio import Wave
from ss.runtime.extractor import Extractor
from ss.runtime.live_io import Sink, Source
from ss.runtime.stream import Stream

QUIETEST = -100.0  # dBFS, where levels end: less is silence
FINEST, STEP, BINS = 1e-6, 1.01, 2000  # times are counted in bins from 1 us to 7 minutes, each 1% wider than the one before
REFRESH = 0.25  # seconds between two status lines
BAR, BAR_FLOOR = 8, -60.0  # characters of a bar, and the dBFS where that of a level begins


class Times:
    """Seconds that blocks took: their sum, their largest and, within 1%, their percentiles."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.total = self.largest = 0.0

    def add(self, seconds: float) -> None:
        """Counts one block."""
        place = math.ceil(math.log(max(seconds, FINEST) / FINEST) / math.log(STEP))
        self.counts[min(place, BINS - 1)] += 1
        self.total += seconds
        self.largest = max(self.largest, seconds)

    def percentile(self, percent: float) -> float:
        """The seconds that so many percent of the blocks did not exceed; 0 before the first one."""
        below = np.cumsum(self.counts)
        place = int(np.searchsorted(below, below[-1] * percent / 100)) if below[-1] else 0
        return min(FINEST * STEP**place, self.largest)


def measure_live_latency(extractor: Extractor, stream: Stream, source: Source, sink: Sink, block: int) -> dict[str, float]:
    """The latency of a new stream in blocks of so many samples, in ms: of the model; of whole blocks, resampling and what speakers
    hold; and what devices say they add.

    Measured with silence (a second, or twice the model's latency); the stream begins anew then. What goes out in time must be there
    when the next block has come: what the stream holds back at most and a block. That counts unfinished hops and resampling in; and
    the first steps of a session, which take longest, are over.
    """
    algorithmic, taken, given, held = extractor.latency / extractor.sample_rate, 0, 0, 0
    while taken < source.rate * max(1, 2 * algorithmic):
        given += len(stream.process(np.zeros(block, np.float32)))
        taken += block
        held = max(held, taken - given)
    stream.reset()
    buffering, device = (held + block) / source.rate + sink.buffered - algorithmic, source.latency + sink.latency
    return {"algorithmic_ms": 1000 * algorithmic, "buffering_ms": 1000 * buffering, "device_ms": 1000 * device}


def peak(wave: Wave) -> float:
    """The largest finite magnitude; 0 of nothing."""
    return float(np.abs(wave, where=np.isfinite(wave), out=np.zeros(wave.shape, np.float32)).max(initial=0))


def dbfs(amplitude: float) -> float:
    """An amplitude in dB of full scale."""
    return max(QUIETEST, 20 * math.log10(max(amplitude, 1e-9)))


def bar(part: float) -> str:
    """A part of a whole, 0 to 1, as a bar."""
    filled = round(BAR * min(1.0, max(0.0, part)))
    return "#" * filled + "." * (BAR - filled)


def show_line(line: str, end: str = "") -> None:
    """Puts a line in the place of the last one in a terminal, cut to its width; one that stays (`end`) is never cut."""
    if sys.stderr.isatty():
        line = "\r" + (line if end else line[: shutil.get_terminal_size().columns - 1]) + "\033[K"
    print(line, end=end, file=sys.stderr, flush=True)


def complain(kind: str, message: str) -> None:
    """A line on stderr, an "error" or a "warning"."""
    show_line(f"{kind}: {' '.join(message.split())}", end="\n")


class Meter:
    """Counts what passes, and shows it on stderr in a line that is kept up to date in a terminal."""

    def __init__(self, source: Source, sink: Sink, latency: dict[str, float], block: int, quiet: bool = False) -> None:
        self.source, self.sink, self.latency, self.block_seconds = source, sink, latency, block / source.rate
        self.shows, self.shown = sys.stderr.isatty() and not quiet, 0.0
        self.times, self.blocks, self.samples_in, self.samples_out = Times(), 0, 0, 0
        self.peaks, self.highest = np.zeros(2), np.zeros(2)  # in and out: since the last line, of all

    def count(self, heard: Wave, estimate: Wave, seconds: float) -> None:
        """One block [n] or [n,C] that was read (n is 0 at the end), the estimate [m] it gave and the seconds that took."""
        self.samples_in, self.samples_out = self.samples_in + len(heard), self.samples_out + len(estimate)
        self.peaks = np.maximum(self.peaks, (peak(heard), peak(estimate)))
        self.highest = np.maximum(self.highest, self.peaks)
        if len(heard):
            self.blocks += 1
            self.times.add(seconds)
        if not self.shows or time.monotonic() - self.shown <= REFRESH:
            return
        levels = zip(("in", "out"), map(dbfs, self.peaks), strict=True)
        bars = " ".join(f"{name} {level:4.0f} [{bar(1 - level / BAR_FLOOR)}]" for name, level in levels)
        r = self.report()
        show_line(
            f"{r['seconds']:.1f} s | {bars} dBFS | {r['algorithmic_ms']:.0f}+{r['latency_ms'] - r['algorithmic_ms']:.0f} ms"
            f" | dropped {self._lost()} | RTF {r['real_time_factor']:.3f} p99 {r['real_time_factor_p99']:.3f}"
        )
        self.shown, self.peaks = time.monotonic(), np.zeros(2)

    def _lost(self) -> str:
        return f"{self.source.dropped}/{self.sink.dropped + self.sink.skipped}"

    def report(self) -> dict[str, Any]:
        """All figures; times in milliseconds per block where the name says so."""
        heard = self.samples_in / self.source.rate
        percentiles = {f"p{p}": 1000 * self.times.percentile(p) for p in (50, 95, 99)}
        return {
            "seconds": heard,
            "samples_in": self.samples_in,
            "samples_out": self.samples_out,
            "rate": self.source.rate,
            "blocks": self.blocks,
            "block_ms": 1000 * self.block_seconds,
            "latency_ms": sum(self.latency.values()),
            **self.latency,
            "real_time_factor": self.times.total / heard if heard else 0.0,
            "real_time_factor_p99": self.times.percentile(99) / self.block_seconds,
            "ms_per_block": {**percentiles, "max": 1000 * self.times.largest},
            "dropped_blocks": {"input": self.source.dropped, "output": self.sink.dropped, "late": self.sink.skipped},
            "peak_dbfs": {"input": dbfs(self.highest[0]), "output": dbfs(self.highest[1])},
        }

    def summary(self) -> str:
        """The report in one line."""
        r = self.report()
        ms = r["ms_per_block"]
        return (
            f"{r['seconds']:.2f} s in {self.blocks} blocks of {r['block_ms']:.4g} ms; latency {r['latency_ms']:.1f} ms:"
            f" {r['algorithmic_ms']:.1f} algorithmic, {r['buffering_ms']:.1f} buffering, {r['device_ms']:.1f} devices;"
            f" RTF {r['real_time_factor']:.3f} (p99 {r['real_time_factor_p99']:.3f});"
            f" ms per block p50 {ms['p50']:.2f} p95 {ms['p95']:.2f} p99 {ms['p99']:.2f} max {ms['max']:.2f};"
            f" dropped blocks in/out {self._lost()}"
        )
