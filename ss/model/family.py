"""The SpEx+ family: each class is a body of layers under one extractor.

SpEx+ (Ge et al., 2020) works on whole utterances or on segments; the Short models use the shortest scale only, and their
memory variants carry something from segment to segment. All arguments are sizes: n_channels filters and TCN channels,
hidden_channels inside a block, out_channels of the speaker embedding, *_kernel samples, n_resnetblocks of the speaker encoder,
n_speakers of the training set, n_stacked_tcnblocks stacks of n_tcnblocks blocks. causal: no block looks ahead in its chunk.
"""

from torch import Tensor, nn

from ss.model.carried import Cached, Carried, Chain, Gated, Scaled, SpecialChannels, State
from ss.model.extractor import Extractor, SpeakerHead, Separator
from ss.model.codec import SpeechDecoder, SpeechEncoder
from ss.model.tcn import RecurrentStack, Stack, TCNBlock


def stack_of(n: int, hidden: int, speaker: int, n_blocks: int, causal: bool):
    """`stack(e)`: a stack that takes n+e channels in and gives n out."""

    def stack(extra: int = 0) -> Stack:
        return Stack(n + extra, hidden, n, speaker, n_blocks, causal)

    return stack


class SpexPlus(Extractor):
    """SpEx+ with its three scales: a chain of stacks that carries nothing."""

    def __init__(self, n_channels, hidden_channels, out_channels, short_kernel, middle_kernel, long_kernel, n_resnetblocks, n_speakers, n_stacked_tcnblocks, n_tcnblocks, causal=False):
        stack = stack_of(n_channels, hidden_channels, out_channels, n_tcnblocks, causal)
        super().__init__(n_channels, out_channels, (short_kernel, middle_kernel, long_kernel), n_resnetblocks, n_speakers, Chain(stack() for _ in range(n_stacked_tcnblocks)))


class SpexPlusShort(Extractor):
    def __init__(self, n_channels, hidden_channels, out_channels, short_kernel, n_resnetblocks, n_speakers, n_stacked_tcnblocks, n_tcnblocks, causal=False):
        stack = stack_of(n_channels, hidden_channels, out_channels, n_tcnblocks, causal)
        super().__init__(n_channels, out_channels, (short_kernel,), n_resnetblocks, n_speakers, Chain(stack() for _ in range(n_stacked_tcnblocks)))

class SpexPlusShortGRUModel(Extractor):
    def __init__(self, n_channels, hidden_channels, out_channels, short_kernel, n_resnetblocks, n_speakers, n_stacked_tcnblocks, n_tcnblocks, dimension='channels', memory_size=8, version=0, time_dim=None, causal=False):
        n=n_channels
        stack = stack_of(n, hidden_channels, out_channels, n_tcnblocks, causal)
        def gated(e=0):
            return Gated(stack(memory_size+e), TCNBlock(n, hidden_channels, memory_size, 1, causal), n, memory_size)
        S=n_stacked_tcnblocks
        if version==0: layers=[stack() for _ in range(S-1)]+[gated()]
        if version==1: layers=[Cached(stack(n),n) for _ in range(S-1)]+[Cached(gated(n),n)]
        if version==2: layers=[Cached(stack(n),n)]+[stack() for _ in range(S-2)]+[gated()]
        if version==3: layers=[Scaled(stack(),n,time_dim) for _ in range(S-1)]+[Scaled(gated(),n,time_dim)]
        super().__init__(n_channels, out_channels, (short_kernel,), n_resnetblocks, n_speakers, Chain(layers))

class SpexPlusShortCacheModel(Extractor):
    def __init__(self, n_channels, hidden_channels, out_channels, short_kernel, n_resnetblocks, n_speakers, n_stacked_tcnblocks, n_tcnblocks, cache_type, memory_size, causal=False):
        stack = stack_of(n_channels, hidden_channels, out_channels, n_tcnblocks, causal)
        super().__init__(n_channels, out_channels, (short_kernel,), n_resnetblocks, n_speakers, Chain(Cached(stack(memory_size),memory_size) for _ in range(n_stacked_tcnblocks)))

class SpexPlusShortSpecialChannelsModel(Extractor):
    def __init__(self, n_channels, hidden_channels, out_channels, short_kernel, n_resnetblocks, n_speakers, n_stacked_tcnblocks, n_tcnblocks, n_sp_channels, causal=False):
        n=n_channels+n_sp_channels
        stack = stack_of(n, hidden_channels, out_channels, n_tcnblocks, causal)
        super().__init__(n_channels, out_channels, (short_kernel,), n_resnetblocks, n_speakers, SpecialChannels(Chain(stack() for _ in range(n_stacked_tcnblocks)), n_sp_channels))

class SpexPlusShortRNN(Extractor):
    def __init__(self, n_channels, hidden_channels, out_channels, short_kernel, n_resnetblocks, n_speakers, n_stacked_tcnblocks, n_tcnblocks, causal=False):
        stack = stack_of(n_channels, hidden_channels, out_channels, n_tcnblocks, causal)
        super().__init__(n_channels, out_channels, (short_kernel,), n_resnetblocks, n_speakers, Chain([*(stack() for _ in range(n_stacked_tcnblocks-1)), RecurrentStack(n_channels, hidden_channels, out_channels, n_tcnblocks, causal)]))
