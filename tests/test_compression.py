"""Pruning: what is taken out, what stays the same, and that the limit is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES, WINDOWS, lively
from torch import nn
from torch.nn import functional as F

from ss.checkpoint import build
from ss.compression.constraints import Sparse, prunable, rounded_input, rounded_weight, sparsity, through_int8
from ss.compression.structured import (
    CHANNEL_GROUPS,
    Importance,
    Limits,
    choose_channels,
    count_macs,
    prunable_blocks,
    prune_channels,
)
from ss.errors import UserError
from ss.export import export
from ss.model import ExtractionModel
from ss.model.tcn import DepthwiseConv

ONLINE: dict[str, Any] = {"_target_": "ss.model.SpexPlusOnline", **SIZES, **WINDOWS, "memory": "none"}
SEGMENTS: dict[str, Any] = {"_target_": "ss.model.SpexPlusShortGRUModel", **SIZES, "short_kernel": 40, "memory_size": 4}
BOTH = pytest.mark.parametrize("config", [ONLINE, SEGMENTS], ids=["online", "segments"])


def model_of(config: dict[str, Any]) -> ExtractionModel:
    torch.manual_seed(0)
    return lively(build(config))


def audio() -> tuple[torch.Tensor, torch.Tensor]:
    """Three chunks of two mixtures, and two enrolments."""
    torch.manual_seed(1)
    return 0.1 * torch.randn(3, 2, 800), 0.1 * torch.randn(2, 2000)


def judged(model: ExtractionModel) -> Importance:
    importance = Importance(model)
    for _ in range(2):
        model.zero_grad()
        model(*audio()).waves[0].square().sum().backward()
        importance()
    return importance


@BOTH
def test_taking_out_nothing_changes_nothing(config: dict[str, Any]) -> None:
    model = model_of(config)
    same = prune_channels(model, config, judged(model), [24] * len(list(prunable_blocks(model)))).eval()
    with torch.no_grad():
        torch.testing.assert_close(same(*audio()).waves, model(*audio()).waves)


def test_channels_that_give_nothing_go_first_and_change_nothing() -> None:
    model = model_of(ONLINE)
    with torch.no_grad():
        for number, (_, block) in enumerate(prunable_blocks(model)):
            block.get_parameter("output.weight")[:, number::3] = 0
    importance = judged(model)
    small = prune_channels(model, ONLINE, importance, [16] * 6).eval()
    with torch.no_grad():
        torch.testing.assert_close(small(*audio()).waves, model(*audio()).waves)


def test_a_block_that_gives_nothing_can_go_whole() -> None:
    model = model_of(ONLINE)
    name, block = list(prunable_blocks(model))[4]
    with torch.no_grad():
        block.get_parameter("output.weight").zero_()
        block.get_parameter("output.bias").zero_()
    importance = judged(model)
    kept = choose_channels(ONLINE, importance, Limits(macs=0.99, drop_blocks=1, smallest=8))
    assert [n == 0 for n in kept] == [number == 4 for number in range(6)], name
    small = prune_channels(model, ONLINE, importance, [24, 24, 24, 24, 0, 24]).eval()
    with torch.no_grad():
        torch.testing.assert_close(small(*audio()).waves, model(*audio()).waves)
    assert len(small.init_state(torch.zeros(1, 12), 0)[3][1]) == len(model.init_state(torch.zeros(1, 12), 0)[3][1]) - 1


@BOTH
@pytest.mark.parametrize("limit", [0.9, 0.7])
def test_the_limit_is_kept_and_not_by_much(config: dict[str, Any], limit: float) -> None:
    model = model_of(config)
    kept = choose_channels(config, judged(model), Limits(macs=limit, smallest=4, multiple=2))
    left = count_macs({**config, "hidden_channels": kept}) / count_macs(config)
    assert limit - 0.1 < left <= limit
    assert all(4 <= n <= 24 and n % 2 == 0 for n in kept)
    small = prune_channels(model, config, judged(model), kept)
    for (_, block), n in zip(prunable_blocks(small), kept, strict=True):
        assert all(block.get_parameter(group.taken).shape[1] == n for group in CHANNEL_GROUPS[type(block)])


def test_a_limit_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(UserError, match=r"macs: 0.1 of the operations cannot be reached with at least 16 channels a block"):
        choose_channels(ONLINE, judged(model_of(ONLINE)), Limits(macs=0.1))
    for n in (6, -1):
        with pytest.raises(UserError, match=f"drop_blocks: expected 0 to 5 of the model's blocks, got {n}"):
            choose_channels(ONLINE, judged(model_of(ONLINE)), Limits(macs=0.1, drop_blocks=n))


def test_a_list_of_widths_must_be_as_long_as_there_are_blocks() -> None:
    with pytest.raises(UserError, match="hidden_channels: expected a number for each block, got only 2"):
        model_of({**SEGMENTS, "hidden_channels": [24, 24]})


@pytest.mark.parametrize("config", [ONLINE, SEGMENTS], ids=["online", "segments"])
def test_a_list_of_widths_may_not_be_longer_either(config: dict[str, Any]) -> None:
    blocks_in_it = 6 if config is ONLINE else 7
    assert model_of({**config, "hidden_channels": [24] * blocks_in_it})
    with pytest.raises(UserError, match=f"hidden_channels: expected a number for each of {blocks_in_it} blocks, got 9"):
        model_of({**config, "hidden_channels": [24] * 9})


def test_a_narrowed_model_exports(tmp_path: Path) -> None:
    assert export(model_of({**ONLINE, "hidden_channels": [24, 0, 8, 16, 24, 0]}), tmp_path) < 1e-4


@BOTH
def test_the_smallest_weights_are_zero_and_stay_so(config: dict[str, Any]) -> None:
    model = model_of(config).train()
    before = [weight.detach().abs().flatten() for weight in prunable(model)]
    sparse = Sparse(model, 0.3)
    old, gone = torch.cat(before), torch.cat([weight.flatten() == 0 for weight in sparse.weights])
    assert old[gone].max() <= old[~gone].min()
    assert sparsity(model) == pytest.approx(0.3, abs=1e-3)
    zeros = [weight == 0 for weight in sparse.weights]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    optimizer.register_step_post_hook(sparse.apply)
    for _ in range(3):
        optimizer.zero_grad()
        model(*audio()).waves[0].square().sum().backward()
        optimizer.step()
    assert all(torch.equal(weight == 0, before) for weight, before in zip(sparse.weights, zeros, strict=True))
    again = Sparse(model, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(again.masks, sparse.masks, strict=True))


def test_training_through_int8_rounds_depthwise_convolutions_too() -> None:
    """Like every other convolution of a step: the export quantizes them all."""
    torch.manual_seed(0)
    conv = DepthwiseConv(4, 3, 2, causal=True)
    model, x = nn.Sequential(conv), torch.randn(2, 4, 20)
    exact = conv(x).detach()
    through_int8(model)
    expected = F.conv1d(F.pad(rounded_input(x), (4, 0)), rounded_weight(conv.weight), conv.bias, dilation=2, groups=4)
    torch.testing.assert_close(model(x), expected)
    assert 1e-4 < (model(x) - exact).abs().max() < 0.1
    model(x).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.any()


def test_a_part_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="sparsity: expected a part of the weights, from 0 to below 1, got 1.5"):
        Sparse(model_of(ONLINE), 1.5)
