"""How segments of one length cover a signal, and how their outputs join: one definition for torch tensors and numpy arrays.

Shapes: B streams, W samples of a segment (`window`), P between the beginnings of two (`step`).
"""

from typing import Any


def n_segments(samples: int, window: int, step: int) -> int:
    """How many segments cover so many samples, the last one filled up with zeros; at least one."""
    return max(0, -(-(samples - window) // step)) + 1


def overlap_add(wave: Any, tail: Any, step: int) -> tuple[Any, Any]:
    """A segment's output [B,W] and the tail of the one before [B,W-P], [B,0] at first -> finished samples [B,P], its own tail.

    Where two segments overlap, their mean counts; so at most two may: W <= 2P.
    """
    head, rest = wave[:, :step], wave[:, step:]
    return (head + tail) / 2 if tail.shape[-1] else head, rest
