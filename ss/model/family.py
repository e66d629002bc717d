"""The SpEx+ family: each class is one extractor with a body of its own.

SpEx+ (Ge et al., 2020) hears three time scales; the Short models the shortest only, and their memory variants carry something
from chunk to chunk. All arguments are sizes, the same for every class:
n_channels filters and TCN channels, hidden_channels inside a block (a list: inside each, as pruning leaves them), out_channels
of the speaker embedding, *_kernel in samples, n_resnetblocks of the speaker encoder, n_speakers of the training set,
n_stacked_tcnblocks stacks of n_tcnblocks blocks; causal: no block looks ahead inside its chunk.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from ss.errors import UserError, require_choice
from ss.model.codec import SpeechDecoder, SpeechEncoder
from ss.model.extractor import Enrolling, SegmentExtractor, Separator, Stepping
from ss.model.speaker import SpeakerEncoder
from ss.model.stateful import Chain, FeatureMapScaling, GatedMemory, InputCache, SpecialChannels, StatefulLayer
from ss.model.tcn import Hidden, RecurrentStack, Stack, TCNBlock, check_widths, widths

ALONG = ("channels",)  # what memory is along, in this family


class Parts(NamedTuple):
    """Makes the layers of a body, all of the same sizes."""

    channels: int
    hidden: Iterator[int]
    embedding: int
    n_blocks: int
    causal: bool

    def stack(self, extra: int = 0) -> Stack:
        """A stack that takes `extra` channels more than it gives."""
        return Stack(self.channels + extra, self.hidden, self.channels, self.embedding, self.n_blocks, self.causal)

    def gated(self, memory: int, extra: int = 0) -> GatedMemory:
        """A stack with a gated memory of so many channels."""
        stack = self.stack(memory + extra)
        write = TCNBlock(self.channels, next(self.hidden), memory, 1, self.causal)
        return GatedMemory(stack, write, self.channels, memory)


Body: TypeAlias = Callable[[Parts, int], StatefulLayer]  # (parts, number of stacks) -> the body


def plain_body(parts: Parts, n_stacks: int) -> StatefulLayer:
    """Stacks that carry nothing."""
    return Chain(parts.stack() for _ in range(n_stacks))


def gru_body(parts: Parts, n_stacks: int, memory: int, version: int, frames: int | None) -> StatefulLayer:
    """The last stack is gated. Version 1: and all are cached; 2: and the first is cached; 3: and all are scaled."""
    if version not in (0, 1, 2) and not (version == 3 and frames):
        raise UserError(f"expected version 0, 1, 2, or 3 with time_dim, got version {version} with time_dim {frames}")

    def layer(index: int) -> StatefulLayer:
        cached = parts.channels if version == 1 or (version == 2 and index == 0) else 0
        inner = parts.stack(cached) if index < n_stacks - 1 else parts.gated(memory, cached)
        if version == 3 and frames:
            return FeatureMapScaling(inner, parts.channels, frames)
        return InputCache(inner, cached) if cached else inner

    return Chain(map(layer, range(n_stacks)))


class SpexPlusShort(SegmentExtractor):
    """The shortest scale only; the base of the memory variants, which give another body."""

    def __init__(
        self,
        n_channels: int,
        hidden_channels: Hidden,
        out_channels: int,
        short_kernel: int,
        n_resnetblocks: int,
        n_speakers: int,
        n_stacked_tcnblocks: int,
        n_tcnblocks: int,
        causal: bool = False,
        *,
        longer_kernels: tuple[int, ...] = (),
        body: Body = plain_body,
    ) -> None:
        parts = Parts(n_channels, widths(hidden_channels), out_channels, n_tcnblocks, causal)
        kernels = (short_kernel, *longer_kernels)
        super().__init__(n_channels, out_channels, kernels, n_resnetblocks, n_speakers, body(parts, n_stacked_tcnblocks))
        check_widths(hidden_channels, sum(isinstance(module, TCNBlock) for module in self.modules()))


class SpexPlus(SpexPlusShort):
    """SpEx+ with its three scales; carries nothing from chunk to chunk."""

    def __init__(self, *, middle_kernel: int, long_kernel: int, **sizes: Any) -> None:
        super().__init__(**sizes, longer_kernels=(middle_kernel, long_kernel))


class SpexPlusShortRNN(SpexPlusShort):
    """Carries one vector through the last stack."""

    def __init__(self, **sizes: Any) -> None:

        def body(parts: Parts, n_stacks: int) -> StatefulLayer:
            plain = [parts.stack() for _ in range(n_stacks - 1)]
            return Chain([*plain, RecurrentStack(parts.channels, parts.hidden, parts.embedding, parts.n_blocks, parts.causal)])

        super().__init__(**sizes, body=body)


class SpexPlusShortGRUModel(SpexPlusShort):
    """Carries a gated memory of memory_size channels; time_dim: frames of a chunk (version 3 only)."""

    def __init__(
        self, *, memory_size: int, version: int = 0, time_dim: int | None = None, dimension: str = "channels", **sizes: Any
    ) -> None:
        require_choice("dimension", dimension, ALONG)
        super().__init__(**sizes, body=partial(gru_body, memory=memory_size, version=version, frames=time_dim))


class SpexPlusShortCacheModel(SpexPlusShort):
    """Carries memory_size channels of every stack's input."""

    def __init__(self, *, memory_size: int, cache_type: str = "channels", **sizes: Any) -> None:
        require_choice("cache_type", cache_type, ALONG)
        super().__init__(**sizes, body=lambda parts, n: Chain(InputCache(parts.stack(memory_size), memory_size) for _ in range(n)))


class SpexPlusShortSpecialChannelsModel(SpexPlusShort):
    """Carries n_sp_channels channels that go through all stacks."""

    def __init__(self, *, n_sp_channels: int, **sizes: Any) -> None:

        def body(parts: Parts, n_stacks: int) -> StatefulLayer:
            wider = parts._replace(channels=parts.channels + n_sp_channels)
            return SpecialChannels(plain_body(wider, n_stacks), n_sp_channels)

        super().__init__(**sizes, body=body)


class SpexPlusShortSpeakerHandler(Enrolling):
    """The enrolling half of the GRU model (version 0)."""

    def __init__(self, n_channels: int, out_channels: int, short_kernel: int, n_resnetblocks: int, n_speakers: int) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(n_channels, (short_kernel,))
        self.speaker_encoder = SpeakerEncoder(n_channels, n_channels, out_channels, n_resnetblocks)
        self.classifier = nn.Linear(out_channels, n_speakers)

    def forward(self, ref: Tensor) -> tuple[Tensor, Tensor]:
        """ref [B,S] -> (speaker [B,E], logits [B,n_speakers])."""
        speaker = self.enroll(ref)
        return speaker, self.classifier(speaker)


class SpexPlusShortGRUMainModel(Stepping):
    """The stepping half of the GRU model (version 0), its memory [B,m,T] in plain sight."""

    def __init__(
        self,
        n_channels: int,
        hidden_channels: Hidden,
        out_channels: int,
        short_kernel: int,
        n_stacked_tcnblocks: int,
        n_tcnblocks: int,
        memory_size: int,
        causal: bool = False,
    ) -> None:
        super().__init__()
        parts = Parts(n_channels, widths(hidden_channels), out_channels, n_tcnblocks, causal)
        self.encoder = SpeechEncoder(n_channels, (short_kernel,))
        self.separator = Separator(n_channels, 1, gru_body(parts, n_stacked_tcnblocks, memory_size, 0, None))
        self.decoder = SpeechDecoder(n_channels, (short_kernel,))

    def forward(self, chunk: Tensor, speaker: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """chunk [B,W], speaker [B,E], memory [B,m,T] (zeros at first) -> (wave [B,W], memory)."""
        _, (*stacks, (_, inner)) = self.init_state(speaker, chunk.shape[-1])
        waves, (_, after) = self.step(chunk, (speaker, (*stacks, (memory, inner))))
        return waves[0], after[-1][0]
