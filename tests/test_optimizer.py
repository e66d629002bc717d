"""Muon: its steps on matrices, AdamW's on everything else, and going on from a saved state."""

import copy

import pytest
import torch
from torch import nn

from ss.optimizer import Muon


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(6, 10, 1), nn.PReLU(), nn.Conv1d(10, 4, 3))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 6, 5, generator=generator)
        loss = (net(x)[:, :, 0] - x[:, :4].cumsum(-1)[:, :, 2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_step_of_a_matrix_is_orthogonal_and_as_large_as_adamws() -> None:
    net = model()
    before = net[0].weight.detach().clone()
    train(net, Muon(net.parameters(), lr=0.1, weight_decay=0), 1)
    step = (net[0].weight.detach() - before).flatten(1) / 0.1
    values = torch.linalg.svdvals(step) / (0.2 * 10**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert 0.1 < step.square().mean().sqrt() < 0.3


def test_what_is_no_matrix_takes_the_steps_of_adamw() -> None:
    nets = [model(), model()]
    chosen = [[net[0].bias, net[1].weight, net[2].weight] for net in nets]  # the last one multiplies more than one frame
    options = {"lr": 1e-2, "weight_decay": 0.1}
    losses = [train(nets[0], Muon(chosen[0], **options), 20), train(nets[1], torch.optim.AdamW(chosen[1], **options), 20)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] != losses[0][0]


def test_goes_on_from_a_saved_state_as_if_never_stopped() -> None:
    net = model()
    optimizer = Muon(net.parameters(), lr=1e-2)
    train(net, optimizer, 5)
    again = copy.deepcopy(net)
    other = Muon(again.parameters(), lr=1e-2)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(net, optimizer, 5, seed=1) == train(again, other, 5, seed=1)


def test_learns() -> None:
    net = model()
    losses = train(net, Muon(net.parameters(), lr=2e-2), 300)
    assert sum(losses[-20:]) < 0.4 * sum(losses[:20])
    assert all(parameter.isfinite().all() for parameter in net.parameters())


def test_a_matrix_without_gradient_stays_still() -> None:
    net = model()
    before = net[0].weight.detach().clone()
    net[0].weight.requires_grad_(False)
    train(net, Muon(net.parameters(), lr=1e-2), 3)
    assert torch.equal(net[0].weight, before)
    net = model()
    net[0].weight.grad = torch.zeros_like(net[0].weight)
    Muon([net[0].weight], lr=1e-2, weight_decay=0).step()
    assert torch.equal(net[0].weight, before)


def test_equal_shapes_together_step_as_each_alone() -> None:
    torch.manual_seed(0)
    shapes = [(6, 10), (10, 6, 1), (6, 10), (4, 4), (6,)]
    together = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [nn.Parameter(parameter.detach().clone()) for parameter in together]
    optimizers = [Muon(together, lr=0.1), *(Muon([parameter], lr=0.1) for parameter in alone)]
    for _ in range(3):
        for a, b in zip(together, alone, strict=True):
            a.grad = b.grad = torch.randn_like(a)
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_blocks_are_made_orthogonal_one_by_one() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(12, 4))
    blocks = [nn.Parameter(block.detach().clone()) for block in weight.split(3)]
    weight.blocks = 4  # type: ignore[attr-defined]
    weight.grad = torch.randn_like(weight)
    for block, grad in zip(blocks, weight.grad.split(3), strict=True):
        block.grad = grad
    Muon([weight], lr=0.1).step()
    Muon(blocks, lr=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.cat([block.detach() for block in blocks]))


def test_steps_are_those_of_torchs_muon() -> None:
    torch_muon = getattr(torch.optim, "Muon", None)
    if torch_muon is None:
        pytest.skip("torch.optim.Muon came with torch 2.9")
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(24, 40))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.95}
    optimizers = [Muon([ours], **options), torch_muon([theirs], **options, adjust_lr_fn="match_rms_adamw")]
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn_like(ours)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)  # of steps of 0.02 on average, theirs rounded to bfloat16
