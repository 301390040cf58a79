"""Networks: shapes, seeded initialisation, causality and gradients of every name."""

from __future__ import annotations

import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.probes.networks import NETWORKS, build_network

PAPER = ("tcn-a", "tcn-b", "tcn-g", "lstm-a", "lstm-b", "rnn-a", "rnn-b", "vit-a", "vit-b", "trsf-a", "trsf-b")


def test_the_papers_eleven_networks_are_there() -> None:
    assert set(PAPER) < set(NETWORKS)


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
