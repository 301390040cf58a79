"""The batched trainer against one plain network at a time, and what it promises about neighbours and missing labels."""

import numpy as np
import pytest
import torch

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.seeds import child_seed
from pipeline.grouping.batched_trainer import TrainerSettings, log_losses, null_losses, task_losses, train_groups

SETTINGS = TrainerSettings(hidden=(8, 6), max_epochs=6, patience=2, evaluate_every=1, batch_size=32)


@pytest.fixture(scope="module")
def stays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(150, 5)).astype(np.float32)
    labels = (3 * inputs[:, :3] + rng.normal(size=(150, 3)) > 0).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    return inputs, labels


PARTS = {"train": np.arange(80), "stopping": np.arange(80, 110), "scored": np.arange(110, 150)}
GROUPS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=bool)


def one_at_a_time(inputs: np.ndarray, labels: np.ndarray, members: np.ndarray, seed: int) -> np.ndarray:
    """The same training written as a torch.nn.Sequential; predictions of each task at its best epoch."""
    draws = torch.Generator().manual_seed(child_seed(seed, "grouping", "trainer"))
    layers: list[torch.nn.Module] = []
    for into, out in ((5, 8), (8, 6), (6, 3)):
        layer = torch.nn.Linear(into, out)
        bound = into**-0.5
        with torch.no_grad():
            layer.weight.copy_(((torch.rand(into, out, generator=draws) * 2 - 1) * bound).T)
            layer.bias.copy_(((torch.rand(1, out, generator=draws) * 2 - 1) * bound)[0])
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1.0)
    x, y = torch.tensor(inputs), torch.tensor(labels)
    null = torch.tensor(null_losses(labels, PARTS["train"]), dtype=torch.float32)
    best = torch.full((3,), torch.inf)
    kept = torch.full((40, 3), torch.nan)
    resting = 0

    def losses(rows: torch.Tensor) -> torch.Tensor:
        known = y[rows].isfinite()
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            network(x[rows]), y[rows].nan_to_num(0), reduction="none"
        )
        return (each * known).sum(0) / known.sum(0)

    inside = torch.tensor(members)
    for _ in range(SETTINGS.max_epochs):
        for rows in torch.randperm(80, generator=draws).split(32):
            optimiser.zero_grad()
            (losses(rows) / null)[inside].sum().backward()
            optimiser.step()
        with torch.no_grad():
            now = losses(torch.arange(80, 110))
            better = (now < best) & inside
            best = torch.where(better, now, best)
            kept = torch.where(better, network(x[110:150]), kept)
        resting = 0 if bool(better.any()) else resting + 1
        if resting == SETTINGS.patience:
            break
    return kept.numpy()


def test_every_group_trains_as_it_would_alone(stays: tuple[np.ndarray, np.ndarray]) -> None:
    inputs, labels = stays
    found = train_groups(inputs, labels, **PARTS, groups=GROUPS, seeds=(3, 4), settings=SETTINGS)
    for number, seed in enumerate((3, 4)):
        for row, members in enumerate(GROUPS):
            alone = one_at_a_time(inputs, labels, members, seed)
            np.testing.assert_allclose(found.logits[row, number], alone, atol=2e-5)


def test_same_seed_same_bits_and_tasks_outside_are_missing(stays: tuple[np.ndarray, np.ndarray]) -> None:
    inputs, labels = stays
    first, second = (
        train_groups(inputs, labels, **PARTS, groups=GROUPS, seeds=(0,), settings=SETTINGS) for _ in range(2)
    )
    assert first.logits.tobytes() == second.logits.tobytes()
    outside = np.broadcast_to(~GROUPS[:, None, None, :], first.logits.shape)
    assert np.array_equal(np.isnan(first.logits), outside)


def test_a_task_learns_and_more_epochs_do_not_change_what_has_converged(stays: tuple[np.ndarray, np.ndarray]) -> None:
    inputs, labels = stays
    runs = []
    for epochs in (300, 600):
        settings = TrainerSettings(hidden=(16,), learning_rate=3e-2, weight_decay=0.0, max_epochs=epochs, patience=2)
        found = train_groups(inputs, labels, **PARTS, groups=GROUPS, seeds=(0,), settings=settings)
        assert not found.at_limit.any()
        runs.append(found.logits)
        loss = np.nanmean(log_losses(found.logits, labels[PARTS["scored"]])[4, 0], axis=0)
        assert (loss < null_losses(labels, PARTS["train"])).all()
    assert runs[0].tobytes() == runs[1].tobytes()


def test_missing_labels_do_not_count() -> None:
    logits = torch.tensor([[[0.0], [3.0]]])
    half = task_losses(logits, torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0]]))
    assert half.item() == pytest.approx(np.log(2))


def test_losses_by_hand() -> None:
    assert log_losses(
        np.array([[0.0], [800.0]], dtype=np.float32), np.array([[1.0], [0.0]], dtype=np.float32)
    ).tolist() == [
        [pytest.approx(np.log(2))],
        [pytest.approx(800.0)],
    ]
    labels = np.array([[1, 0], [0, np.nan], [0, 1], [0, np.nan]], dtype=np.float32)
    quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(null_losses(labels, np.arange(4)), [quarter, np.log(2)])


def test_one_class_is_refused_without_a_value(stays: tuple[np.ndarray, np.ndarray]) -> None:
    inputs, labels = stays
    labels = labels.copy()
    labels[PARTS["stopping"], 1] = 1.0
    with pytest.raises(DataError, match="1 tasks have fewer than two classes among the stopping stays"):
        train_groups(inputs, labels, **PARTS, groups=GROUPS, seeds=(0,), settings=SETTINGS)
    only_first = GROUPS[:1]
    train_groups(inputs, labels, **PARTS, groups=only_first, seeds=(0,), settings=SETTINGS)
    with pytest.raises(DataError, match="without a task"):
        train_groups(inputs, labels, **PARTS, groups=np.zeros((1, 3), dtype=bool), seeds=(0,))
    with pytest.raises(ConfigError):
        TrainerSettings(patience=0)
