"""The most memory that a process needed, measured by the operating system (CPU) or torch's allocator (GPU)."""

from pathlib import Path

import torch

from ss.measure.alone import resident

_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory from here on: make it before the model, `restart` once that is loaded, ask for the `peak` at the end.

    On a CPU, resident memory above what the process held before the model; on a GPU, tensors that torch held, without CUDA's
    own context. Both include the weights. `restart` leaves out what loading needed for a moment (on a GPU and on Linux).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0 if device.type == "cuda" else resident("VmRSS")
        self.restart()  # or the peak would be of what the process did before

    def restart(self) -> None:
        """Forgets the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _CLEAR.exists():
            _CLEAR.write_text("5")  # sets the peak of resident memory to what it is now: proc(5)

    def peak(self) -> int:
        """Bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resident("VmHWM") - self.before
