"""Networks: shapes, seeded initialisation, causality and gradients of every name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.probes.attention import AttentionBlock, Dropout
from pipeline.probes.networks import NETWORKS, build_network
from pipeline.probes.published import _PReLU

PARAMETERS = {  # of the authors' networks on their 47 channels with one output
    "tcn-a": 648_001,
    "tcn-b": 50_177,
    "tcn-g": 917_505,
    "lstm-a": 312_577,
    "lstm-b": 90_753,
    "rnn-a": 78_337,
    "rnn-b": 22_785,
    "vit-a": 783_670,
    "vit-b": 783_670,
    "trsf-a": 391_859,
    "trsf-b": 394_995,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_papers_eleven_networks_have_their_authors_sizes_and_ours_stand_beside(name: str) -> None:
    published = build_network(f"published-{name}", n_channels=47, n_steps=48, n_tasks=1, seed=0)
    assert sum(parameter.numel() for parameter in published.parameters()) == PARAMETERS[name]
    ours = build_network(name, n_channels=47, n_steps=48, n_tasks=1, seed=0)
    recurrent = name.startswith(("lstm", "rnn"))
    assert (str(published) == str(ours)) == recurrent


@pytest.mark.parametrize("name", ["tcn-a", "tcn-b", "tcn-g"])
def test_published_convolutions_look_both_ways_and_read_out_the_mean(name: str) -> None:
    network = build_network(f"published-{name}", n_channels=2, n_steps=60, n_tasks=1, seed=0).eval()
    x = torch.rand(1, 60, 2, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 30] += 1
    blocks = network.trunk.blocks  # type: ignore[union-attr]  # torch types submodules as Tensor | Module
    y, after = (blocks(series.transpose(1, 2)[:, :, None])[:, :, 0] for series in (x, changed))  # type: ignore[operator]
    moved = (y - after).abs().sum(dim=1)[0] > 0
    reach = 3 * (int(name != "tcn-b") + 1 + int(name == "tcn-a")) * 2  # both convolutions of dilations 1 and 2
    assert torch.equal(moved.nonzero().flatten(), torch.arange(30 - reach, 31 + reach))
    torch.testing.assert_close(network.embed(x), y.mean(dim=2))
    kinds = [type(module) for module in network.modules()]
    n_branches = {"tcn-a": 3, "tcn-b": 1, "tcn-g": 2}[name]
    assert kinds.count(nn.BatchNorm2d) == 4 * n_branches
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.5}


@pytest.mark.parametrize("name", ["vit-a", "vit-b", "trsf-a", "trsf-b"])
def test_published_transformers_know_no_order_of_steps_and_ours_do(name: str) -> None:
    x = torch.rand(2, 9, 5, generator=torch.Generator().manual_seed(0))
    reordered = x.flip(1)
    published, ours = (
        build_network(prefix + name, n_channels=5, n_steps=9, n_tasks=1, seed=0).eval() for prefix in ("published-", "")
    )
    torch.testing.assert_close(published(x), published(reordered))
    assert not torch.allclose(ours(x), ours(reordered))


def test_attention_with_folded_weights_is_attention_by_head() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(width=6, heads=3, head_width=8, feed_forward=4, dropout=0.0).double()
    z = torch.rand(2, 5, 6, dtype=torch.float64)
    for first in (None, 1):
        torch.testing.assert_close(block._folded(z, first), block._by_head(z, first))
    torch.testing.assert_close(block(z, 2), block(z)[:, :2])


def test_the_product_with_the_slope_is_torchs_prelu() -> None:
    ours, torchs = _PReLU(3), nn.PReLU(3)
    found = []
    for module in (ours, torchs):
        module.weight.data = torch.tensor([0.25, -0.5, 2.0])
        x = torch.linspace(-2, 2, 30).view(2, 3, 1, 5).requires_grad_()
        y = module(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, module.weight))))
    torch.testing.assert_close(*found)


def test_dropout_tosses_a_fair_coin_for_every_value() -> None:
    dropout, other = Dropout(0.5), Dropout(0.25)
    for x in (torch.ones(100, 31, 13), torch.ones(31, 1, 100, 13).permute(2, 3, 1, 0)):
        torch.manual_seed(3)
        first, again = dropout(x), dropout(x)
        torch.manual_seed(3)
        assert torch.equal(dropout(x), first)
        assert set(first.unique().tolist()) == {0.0, 2.0}
        for found in (first.mean(), (first * again).mean(), (first[1:] * first[:-1]).mean()):  # 1 if independent
            assert abs(float(found) - 1) < 5 * (3 / x.numel()) ** 0.5
        assert first.stride() == x.stride()
        assert float(first.mean(dim=0).std()) > 0.05  # no value of a batch shares its coin
    assert torch.equal(dropout.eval()(x), x)
    assert abs(float((other(x) == 0).float().mean()) - 0.25) < 0.02


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_steps", [1, 10])
def test_shapes_and_gradients_reach_every_input(name: str, n_steps: int) -> None:
    network = build_network(name, n_channels=3, n_steps=n_steps, n_tasks=2, seed=1).eval()
    x = torch.rand(4, n_steps, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert network.embed(x).shape == (4, network.width)
    assert network(x).shape == (4, 2)
    network(x).square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=(0, 2)) > 0).all()), "some step does not reach the logits"


@pytest.mark.parametrize("name", ["tcn-a", "lstm-b", "vit-b"])
def test_initialisation_depends_on_the_seed_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        build_network(name, n_channels=3, n_steps=8, n_tasks=1, seed=seed).state_dict() for seed in (5, 5, 6)
    )
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator moved"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_convolutions_are_causal() -> None:
    network = build_network("tcn", n_channels=2, n_steps=12, n_tasks=1, seed=0)
    stack = network.trunk.stacks[0]  # type: ignore[union-attr,index]  # torch types submodules as Tensor | Module
    x = torch.rand(1, 2, 12, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :, 6:] += 1
    assert torch.equal(stack(x)[:, :, :6], stack(changed)[:, :, :6])
    assert not torch.equal(stack(x)[:, :, 6:], stack(changed)[:, :, 6:])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tcn-a"):
        build_network("tcn-z", n_channels=1, n_steps=1, n_tasks=1, seed=0)
