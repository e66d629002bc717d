"""Ctrl-C and SIGTERM, which ask a command to stop cleanly."""

import signal
import time
from types import FrameType

SLICE = 0.05  # seconds after which a waiting source sees that it should stop
INSIST = 1.0  # seconds between two signals after which the second one ends the process at once


class StopSignal:
    """Whether the user asked to end: SIGINT and SIGTERM set `requested` within the `with`, sources then end with what they hold.

    A second signal, a second later, ends the process at once, should an output be stuck.
    """

    requested = False
    since = 0.0

    def __enter__(self) -> "StopSignal":
        self.before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler: only notes it, as whatever runs must be finished first."""
        if self.requested and time.monotonic() - self.since > INSIST:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not self.requested:
            self.requested, self.since = True, time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Sleeps so long, or until a stop is requested; says whether it is."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))
        return self.requested
