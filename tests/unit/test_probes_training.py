"""Training and the panel: fixed length, masks, soft labels, determinism, and that every model learns."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.files import mapped
from pipeline.probes.classical import SUMMARIES, fit_predict_logistic, split_soft_labels, summary_features
from pipeline.probes.networks import build_network
from pipeline.probes.panel import DETERMINISTIC_MODELS, MODELS, fit_predict
from pipeline.probes.training import (
    MAX_STEPS,
    MIN_STEPS,
    masked_loss,
    predict,
    train_network,
    train_selected,
    training_steps,
)

DEFAULTS = ("tcn", "lstm", "gru", "gradient_boosting", "logistic_regression")


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Series in [0, 1] whose first channel drifts upwards for the positives: AUROC 1 is in reach."""
    draw = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.float32)[:, None]
    features = 0.5 + 0.1 * draw.standard_normal((n, 8, 3)).astype(np.float32)
    features[:, :, 0] += 0.4 * labels * np.linspace(0, 1, 8, dtype=np.float32)
    return features.clip(0, 1), labels


def test_length_is_epochs_within_bounds() -> None:
    assert training_steps(80, 30) == MIN_STEPS  # 60 steps are lifted
    assert training_steps(640, 12) == 120
    assert training_steps(5120, 30) == MAX_STEPS


@pytest.mark.parametrize("model", [*DEFAULTS, "transformer", "lightgbm"])
def test_models_learn_a_planted_signal(model: str) -> None:
    x, y = planted(80, 1)
    test, truth = planted(200, 2)
    learned = fit_predict(model, x, y, test, epochs=30, seed=3)
    assert learned.shape == (200, 1)
    assert roc_auc_score(truth[:, 0], learned[:, 0]) > 0.9


@pytest.mark.parametrize("model", ["rnn-b", "gradient_boosting", "lightgbm", "logistic_regression"])
def test_the_same_seed_gives_the_same_bits_and_moves_no_global_generator(model: str) -> None:
    x, y = planted(30, 1)
    before = torch.random.get_rng_state()
    first, again, other = (fit_predict(model, x, y, x, epochs=1, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (model in DETERMINISTIC_MODELS)
    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_is_seeded_too() -> None:
    x, y = planted(30, 1)
    first, again = (fit_predict("transformer", x, y, x, epochs=1, seed=4) for _ in range(2))
    assert np.array_equal(first, again)


def test_missing_labels_take_no_part() -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    labels = torch.tensor([[1.0, float("nan")], [float("nan"), 0.25]])
    # by hand: -log sigmoid(.3) = .554355; soft .25 at logit .5: log(1 + e^.5) - .25 * .5 = .849077
    assert masked_loss(logits, labels).item() == pytest.approx((0.554355 + 0.849077) / 2, abs=1e-5)
    assert masked_loss(logits, torch.full((2, 2), float("nan"))).item() == 0
    x, y = planted(60, 1)
    two = np.concatenate([y, np.where(np.arange(60)[:, None] < 30, 1 - y, np.nan)], axis=1).astype(np.float32)
    for model in ("rnn-b", "logistic_regression", "gradient_boosting", "lightgbm"):
        scores = fit_predict(model, x, two, x, epochs=30, seed=0)
        assert roc_auc_score(y[:, 0], scores[:, 0]) > 0.9
        assert roc_auc_score(1 - y[:, 0], scores[:, 1]) > 0.9


def test_soft_labels_are_weights() -> None:
    x, y, weights = split_soft_labels(np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([1.0, 0.25, 0.0, np.nan]))
    assert x[:, 0].tolist() == [1, 2, 2, 3]
    assert y.tolist() == [1, 1, 0, 0]
    assert weights.tolist() == [1, 0.25, 0.75, 1]


def test_a_model_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    x, y = planted(30, 1)
    with pytest.raises(ConfigError, match=r"decoct\[lightgbm\]"):
        fit_predict("lightgbm", x, y, x, epochs=1, seed=0)


def test_one_class_predicts_its_share() -> None:
    x, _ = planted(10, 1)
    summaries = summary_features(x)
    assert fit_predict_logistic(summaries, np.ones((10, 1)), summaries, 0).tolist() == [[1.0]] * 10


def test_summary_features_by_hand() -> None:
    x = np.array([[[0.0], [3.0], [1.0], [2.0]]])
    values = dict(zip(SUMMARIES, summary_features(x)[0], strict=True))
    assert values == pytest.approx({"last": 2, "mean": 1.5, "min": 0, "max": 3, "sd": np.sqrt(1.25), "change": 2})


def test_steps_are_reported_and_the_network_ends_in_eval_mode() -> None:
    x, y = planted(80, 1)
    network = build_network("rnn-b", n_channels=3, n_steps=8, n_tasks=1, seed=0)
    seen: list[tuple[int, int]] = []
    train_network(network, x, y, epochs=1, seed=0, on_step=lambda i, n, loss: seen.append((i, n)))
    assert seen == [(i, MIN_STEPS) for i in range(1, MIN_STEPS + 1)]
    assert not network.training
    assert np.allclose(predict(network, x[:1]), predict(network, x)[:1], atol=1e-6)


def test_what_cannot_be_trained_is_refused() -> None:
    x, y = planted(8, 1)
    with pytest.raises(ConfigError, match="logistic_regression"):
        fit_predict("forest", x, y, x, epochs=1, seed=0)
    with pytest.raises(DataError, match="known label"):
        fit_predict("gru", x, y * np.nan, x, epochs=1, seed=0)
    with pytest.raises(DataError, match=r"\(sample, task\)"):
        fit_predict("gru", x, y[:4], x, epochs=1, seed=0)
    assert set(DEFAULTS) < set(MODELS)


@pytest.mark.filterwarnings("error:.*not writable:UserWarning")
@pytest.mark.parametrize("model", ["rnn-b", "logistic_regression"])
def test_stays_in_a_file_teach_what_stays_in_memory_teach(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = planted(70, 1)
    x.tofile(tmp_path / "x")
    file = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
    held = fit_predict(model, x, y, x, epochs=1, seed=1)
    monkeypatch.setattr(mapped, "CHUNK_BYTES", 1000)
    assert np.array_equal(held, fit_predict(model, file, y, file, epochs=1, seed=1))
    assert np.array_equal(summary_features(x), summary_features(file))
    assert summary_features(x[:0]).shape == (0, 18)


def test_the_published_evaluator_keeps_the_epoch_that_is_best_on_real_stays() -> None:
    """Tuning stays whose labels are those of the samples, or their opposite: the last epochs, or the earliest."""
    x, y = planted(80, 1)
    real, truth = planted(60, 2)
    scores = {}
    for turned in (False, True):
        network = build_network("published-tcn-b", n_channels=3, n_steps=8, n_tasks=1, seed=0)
        labels = 1 - truth if turned else truth
        chosen = train_selected(network, x, y, (real, labels), epochs=6, seed=1)
        found = predict(network, real)
        scores[turned] = roc_auc_score(truth[:, 0], found[:, 0])
        same = build_network("published-tcn-b", n_channels=3, n_steps=8, n_tasks=1, seed=0)
        assert train_selected(same, x, y, (real, labels), epochs=chosen, seed=1) == chosen  # the best of those before
        np.testing.assert_array_equal(predict(same, real), found)
    assert scores[False] > scores[True] + 0.1


def test_the_published_evaluator_trains_for_its_epochs_and_no_longer() -> None:
    x, y = planted(80, 1)
    seen: list[tuple[int, int]] = []

    def look(done: int, steps: int, loss: float) -> None:
        seen.append((done, steps))

    fit_predict("rnn-b", x, y, x, epochs=3, seed=1, tuning=(x, y), on_step=look)
    assert seen == [(step, 6) for step in range(1, 7)]  # two steps an epoch, of 64 samples and 16; no least length


def test_the_published_evaluator_moves_no_global_generator_and_needs_both_classes() -> None:
    x, y = planted(30, 1)
    before = torch.random.get_rng_state()
    fit_predict("published-trsf-a", x, y, x, epochs=2, seed=0, tuning=(x, y))
    with pytest.raises(DataError, match="both classes"):
        fit_predict("rnn-b", x, y, x, epochs=1, seed=0, tuning=(x, y * 0))
    with pytest.raises(DataError, match="at least one known label"):
        fit_predict("rnn-b", x, y * np.nan, x, epochs=1, seed=0, tuning=(x, y))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_training_that_is_broken_off_gives_the_global_generators_back() -> None:
    x, y = planted(30, 1)
    before = torch.random.get_rng_state()

    def stop(done: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fit_predict("transformer", x, y, x, epochs=1, seed=0, on_step=stop)
    assert caught.traceback  # whose frames would keep an open training alive
    assert torch.equal(before, torch.random.get_rng_state())
