"""The pieces of benchmarks/encoding_paper*.py, on synthetic data."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.core.types import Split

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def part() -> Any:
    """Loads a module of the benchmark; scripts find one another by their own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    yield lambda name: importlib.import_module(name)
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def test_interval_over_splits_by_hand(part):
    found = part("encoding_paper_report").interval_over_splits([-0.01, 0.0, 0.01])
    plain, corrected = 4.30265 * 0.01 / 3**0.5, 4.30265 * 0.01 * (1 / 3 + 1600 / 5120) ** 0.5
    assert found["t_interval"] == pytest.approx([-plain, plain], abs=1e-4)
    assert found["corrected_interval"] == pytest.approx([-corrected, corrected], abs=1e-4)
    assert not found["t_within_margin"]  # .0248 is beyond .02
    assert part("encoding_paper_report").interval_over_splits([0.004, 0.005, 0.006])["t_within_margin"]
    assert "t_interval" not in part("encoding_paper_report").interval_over_splits([0.004, 0.005])


def test_paired_bootstrap_sees_what_is_there_and_nothing_else(part, random):
    report = part("encoding_paper_report")
    labels = (random.random(400) < 0.3).astype(np.float64)
    good, chance = labels + random.normal(size=(2, 400)), random.normal(size=(2, 400))
    nothing = report.paired_bootstrap(labels, good, good, "same")
    assert nothing["difference"] == 0
    assert nothing["interval"] == [0, 0]
    found = report.paired_bootstrap(labels, good, chance, "better")
    truth = np.mean([roc_auc_score(labels, s) for s in good]) - np.mean([roc_auc_score(labels, s) for s in chance])
    assert found["difference"] == pytest.approx(truth, abs=1e-4)
    assert found["interval"][0] < truth < found["interval"][1]
    assert not found["within_margin"]


def test_tied_scores_count_half(part, random):
    labels, scores = random.integers(0, 2, 60), random.integers(0, 4, (3, 60))
    expected = np.mean([roc_auc_score(labels, s) for s in scores])
    assert part("encoding_paper_report")._mean_auroc(labels, scores) == pytest.approx(expected)


def test_repeated_splits_hide_the_published_test_stays_where_they_should(part):
    inputs = part("encoding_paper_inputs")
    published = inputs.repeated_split(500, 0)
    for index in range(3):
        exploring = inputs.repeated_tuning_split(500, index)
        assert (exploring == Split.HELD_OUT).tolist() == (published == Split.HELD_OUT).tolist()
        assert np.bincount(inputs.repeated_split(500, index)).tolist() == np.bincount(published).tolist()
        assert (inputs.repeated_split(500, index) == published).all() == (index == 0)


def test_standardising_looks_at_training_stays_only(part, random):
    standardised = part("encoding_paper_inputs").standardised
    features = random.normal(3, 0.05, (40, 8, 3)).astype(np.float32)
    features[:, :, 2] = 0.25
    train = np.arange(20)
    done = standardised(features, train)
    windows = done[train].reshape(20 * 2, 4, 3)
    np.testing.assert_allclose(windows[..., :2].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(windows[..., :2].std(axis=0), 1, atol=1e-3)
    assert not done[:, :, 2].any()
    features[20:] *= 7
    assert np.array_equal(standardised(features, train)[train], done[train])


def test_training_keeps_its_best_epoch_and_repeats(part, random):
    models = part("encoding_paper_models")
    x = random.normal(size=(240, 8, 3)).astype(np.float32)
    y = (x[:, :, 0].mean(axis=1) > 0).astype(np.float32)
    parts = models.Parts((x[:160], y[:160]), (x[160:], y[160:]))
    runs = []
    for _ in range(2):
        network = models.fresh_network("TCN", x.shape, 3)
        selected = models.train_selected(network, parts, 3, max_epochs=6, patience=2)
        scores = models.predict(network, x[160:])[:, 0]
        assert roc_auc_score(y[160:], scores) == pytest.approx(selected.tuning_auroc)
        runs.append((selected, scores.tolist()))
    assert runs[0] == runs[1]
    assert runs[0][0].tuning_auroc > 0.8
    assert runs[0][0].epoch <= runs[0][0].epochs_run <= 6


def test_a_probe_reads_a_linear_attribute_and_leaves_missing_ones_out(part, random):
    probe = part("encoding_paper_models").probe_auroc
    x = random.normal(size=(400, 5))
    y = (x[:, 0] + x[:, 1] > 0).astype(np.float64)
    noise = (random.random(400) < 0.5).astype(np.float64)
    y[::9] = np.nan
    assert probe(x[:200], y[:200], x[200:], y[200:]) > 0.98
    assert abs(probe(x[:200], noise[:200], x[200:], noise[200:]) - 0.5) < 0.15  # sd of AUROC under chance: .041


def test_estimators_of_information_where_the_truth_is_known(part, random):
    info = part("encoding_paper_information")
    r = np.array([0.9])
    truth = -0.5 * np.log(1 - 0.81)
    assert info.ksg(*info.gaussian_pair(r, 2000, random)) == pytest.approx(truth, abs=0.1)
    assert info.ksg(*info.gaussian_pair(0 * r, 2000, random)) == pytest.approx(0, abs=0.1)
    low, high = (row["ksg"] for row in info.gaussian_ladder((1.0, 40.0), 400, 10, 0))
    assert low < high < 20  # the bias that the page shows


def test_the_binned_estimate_tells_a_shuffled_label_as_much_as_the_true_one(part, random):
    info = part("encoding_paper_information")
    labels = (random.random(300) < 0.2).astype(np.float64)
    codes = info.binned(random.normal(size=(300, 20)))
    assert info.entropy(codes) == pytest.approx(np.log(300))
    for these in (labels, random.permutation(labels)):
        assert info.binned_with_label(codes, these) == pytest.approx(info.entropy(labels))


def test_the_table_pairs_encoded_with_raw_by_split_and_seed(part):
    report = part("encoding_paper_report")
    death = np.tile([0.0, 1.0, 0.0], 20)
    held_out = part("encoding_paper_inputs").repeated_split(60, 0) == Split.HELD_OUT
    scores = (death[held_out] + np.linspace(0, 0.1, held_out.sum())).tolist()
    rows = [
        {"model": "TCN", "input": name, "split": split, "seed": 0, "key": 0, "part": "held_out"}
        | {"auroc": 0.8 + 0.01 * split - loss, "auprc": 0.5 - loss, "scores": scores}
        for name, loss in (("raw", 0.0), ("RP time", 0.01))
        for split in range(3)
    ]
    other_key = {**rows[-1], "key": 1, "auroc": 0.1}
    table = report.utility([*rows, other_key], death)
    assert table["raw"]["TCN"]["auroc"]["mean"] == pytest.approx(0.81)
    assert table["raw"]["TCN"]["auroc"]["split_sd"] == pytest.approx(0.01)
    assert table["RP time"]["TCN"]["minus_raw"]["auroc"]["mean"] == pytest.approx(-0.01)
    assert table["RP time"]["TCN"]["minus_raw"]["auroc"]["t_interval"] == pytest.approx([-0.01, -0.01])
    assert table["RP time"]["TCN"]["minus_raw"]["auroc_published_split"]["difference"] == 0


def test_a_page_keeps_its_words_and_gets_new_tables(part):
    tables = part("encoding_paper_tables")
    entry = {"auroc": {"mean": 0.8579, "split_sd": None, "n_trainings": 1}}
    found = {"mean": -0.001, "n_splits": 2, "t_interval": [-0.003, 0.001], "t_within_margin": True}
    encoded = {**entry, "minus_raw": {"auroc": found, "auroc_published_split": None}}
    ladder = [{"truth": 0.0, "ksg": -0.02}, {"truth": 40.0, "ksg": 5.98}]
    result = {
        "utility": {"raw": {"TCN": entry}, "RP time": {"TCN": encoded}},
        "settings_on_tuning_stays": {},
        "keys": {},
        "probes": {},
        "information_plane": {"networks": {}, "ksg_where_the_truth_is_known": ladder},
    }
    page = "Before.\n\n<!-- table {} -->\nold\n<!-- end -->\n\nAfter.\n"
    filled = tables.fill(page.format("auroc") + page.format("differences"), result)
    assert filled.count("Before.") == filled.count("After.") == 2
    assert "old" not in filled
    assert "| raw | .858 (one split; 1) |" in filled
    assert "| RP time | TCN | -.0010 | 2 | **[-.0030, +.0010]** | - | - |" in filled
    assert tables.fill(filled, result) == filled
    assert "| KSG says | -.02 | 5.98 |" in tables.fill(page.format("ladder"), result).replace("-0.02", "-.02")


def test_the_plan_starts_with_raw_and_names_every_cell_it_can_read_back(part):
    paper = part("encoding_paper")
    cells = list(paper.plan(2))
    assert {cell.input for cell in cells if cell.part == "held_out"} == set(paper.INPUTS)
    networks = [cell for cell in cells if cell.model in paper.NETWORKS]
    assert networks[0].input == paper.RAW
    assert all(paper.Cell(**{name: getattr(cell, name) for name in paper.FIELDS}) == cell for cell in cells)
