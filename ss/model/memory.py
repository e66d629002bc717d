"""Frame-recurrent memories for the online models: what a stream remembers beyond the reach of its convolutions.

MEMORIES, at the end, names those that a config can ask for; `ss/export/layers.py` and
`ss/export/native.py` write them for the runtimes.

Shapes: B batch, T frames, C channels. Frames come before channels here: x [B,T,C].
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ss.model.stateful import State, StatefulLayer
from ss.model.tcn import Norm


class GRU(StatefulLayer):
    """x + a gated recurrent unit over frames (Cho et al., 2014). Carries: its hidden vector [B,C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru, self.channels, self.carries = nn.GRU(channels, channels, batch_first=True), channels, (channels,)

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        y, last = self.gru(x, state[None])
        return x + y, last[0]


class LSTM(StatefulLayer):
    """x + a product of a long short-term memory over frames (Hochreiter & Schmidhuber, 1997), behind a norm. Carries: [B,2,C].

    The product starts at zero, so that the layer may be added to a model that is trained already; the memory keeps what it hears
    for a few frames to start with. Of all recurrences over frames this is the one that CPUs train fast (oneDNN's kernel).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.lstm = Norm(channels), nn.LSTM(channels, channels, batch_first=True)
        self.channels, self.carries = channels, (2, channels)
        for name in ("ih_l0", "hh_l0"):
            nn.init.ones_(self.lstm.get_parameter(f"bias_{name}")[channels : 2 * channels])  # the forget gate's
            setattr(self.lstm.get_parameter(f"weight_{name}"), "blocks", 4)  # noqa: B010 (each gate is a matrix, see ss.optimizer.Muon)
        self.output = nn.Linear(channels, channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, cell = state.transpose(0, 1).contiguous().split(1)
        y, last = self.lstm(self.norm(x), (hidden, cell))
        return x + self.output(y), torch.cat(last).transpose(0, 1)


class LinearRecurrence(StatefulLayer):
    """x + a gated linear recurrence over frames: h = a * h + (1 - a) * v, with a and v from the frame alone.

    As nothing but products and sums connects the frames, a whole utterance takes one matrix product and one light pass
    (minimal GRU: Feng et al., "Were RNNs all we needed?", 2024). Carries: h [B,C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.carries = channels, (channels,)
        self.inputs, self.output = nn.Linear(channels, 2 * channels), nn.Linear(channels, channels)
        nn.init.uniform_(self.inputs.bias[:channels], 1, 4)  # memories of 4 to 55 frames to start with

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        gate, value = self.inputs(x).chunk(2, -1)
        h = recurrence(gate, value, state)
        return x + self.output(h), h[:, -1]


def recurrence(gate: Tensor, value: Tensor, first: Tensor) -> Tensor:
    """gate before its sigmoid and value [B,T,C], the state before [B,C] -> h [B,T,C]."""
    wide = torch.promote_types(gate.dtype, torch.float32)  # under autocast, sums of bf16 would forget too soon
    keep = gate.to(wide).sigmoid().transpose(0, 1).contiguous()
    return _Recurrence.apply(keep, (1 - keep) * value.transpose(0, 1), first.to(wide)).transpose(0, 1)


class _Recurrence(torch.autograd.Function):
    """h[t] = a[t] h[t-1] + b[t], frames first [T,B,C]: one light operation a frame, its gradient the same backwards."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        h, last = torch.empty_like(b), first
        for t in range(len(a)):
            last = torch.addcmul(b[t], a[t], last, out=h[t])
        ctx.save_for_backward(a, h, first)
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, h, first = ctx.saved_tensors
        total = grads[0].clone()
        for t in range(len(a) - 1, 0, -1):
            total[t - 1].addcmul_(a[t], total[t])
        before = torch.cat([first[None], h[:-1]])
        return total * before, total, a[0] * total[0]


MEMORIES: dict[str, Callable[[int], StatefulLayer]] = {"gru": GRU, "linear": LinearRecurrence, "lstm": LSTM}
