"""Dense data: summaries by hand, windows along the features, and what is left to learn from on real stays."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from encoders.dense import SUMMARIES, dense_cohort, encode_dense, static_channels, summaries
from encoders.identity import IdentityEncoder
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.windows import released_channels
from pipeline.core.digest import canonical_json
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Encoder
from pipeline.core.seeds import generator
from pipeline.core.types import Cohort, EncodedCohort, Provenance, Split, Task
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "encode-in-a-pipeline.md"
KEY = Secret(bytes(range(32)), "encoder")
NOISE_KEY = Secret(bytes(range(32, 64)), "noise")
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "quantum": lambda: QuantumEncoder(axis="variables"),
    "random_projection": lambda: RandomProjectionEncoder(axis="variables"),
}


def small(features: Any, channels: tuple[str, ...], *transforms: dict[str, Any]) -> EncodedCohort:
    x = np.asarray(features, dtype=np.float32)
    return EncodedCohort(
        features=x,
        labels=np.zeros((len(x), 1), np.float32),
        subject_index=np.arange(len(x), dtype=np.int32),
        split=np.zeros(len(x), np.int8),
        channels=channels,
        tasks=(Task("death"),),
        step_hours=2.0,
        transforms=({"kind": "scaling", "public": True}, *transforms),
        provenance=Provenance(stage="prepare"),
    )


def test_summaries_by_hand() -> None:
    cohort = small([[[0.2, 1.0], [0.6, 1.0], [0.4, 1.0], [0.8, 1.0]]], ("HR", "sex"))
    made = summaries(cohort, static=("sex",))
    assert made.channels == ("HR:mean", "HR:min", "HR:max", "HR:last", "HR:first", "HR:sd", "sex")
    np.testing.assert_allclose(made.features[0, 0], [0.5, 0.2, 0.8, 0.8, 0.2, 2 * np.sqrt(0.05), 1.0], rtol=1e-6)
    assert made.features.dtype == np.float32
    assert made.step_hours == 8.0
    assert made.transforms[:-1] == cohort.transforms
    assert json.loads(canonical_json(dict(made.transforms[-1]))) == {
        "kind": "summaries",
        "public": True,
        "statistics": list(SUMMARIES),
        "static": ["sex"],
        "n_steps": 4,
    }
    assert made.labels is cohort.labels


def test_summaries_stay_in_the_unit_interval_at_its_extremes() -> None:
    extremes = np.zeros((3, 48, 2), np.float32)
    extremes[0, ::2] = 1.0  # the largest standard deviation there is
    extremes[1] = 1.0
    made = summaries(small(extremes, ("HR", "K"))).features
    assert made.min() == 0.0
    assert made.max() == 1.0
    assert made[0, 0, SUMMARIES.index("sd")] == 1.0


def test_a_stay_is_summarised_alone_as_among_others() -> None:
    cohort = small(np.random.default_rng(1).random((20, 48, 3)), ("HR", "K", "Na"))
    np.testing.assert_array_equal(summaries(cohort).features[7:8], summaries(cohort.take(np.array([7]))).features)


@pytest.mark.parametrize("mode", ["encode", "release"])
def test_masks_become_shares_and_keep_their_treatment(mode: str) -> None:
    mask = {"kind": "missingness", "mode": mode, "public": True, "channels": ["observed:HR"]}
    cohort = small(np.array([[[0.5, 1.0], [0.5, 0.0], [0.5, 0.0], [0.5, 1.0]]]), ("HR", "observed:HR"), mask)
    made = summaries(cohort)
    assert made.channels[-1] == "observed:HR:mean"
    assert made.features[0, 0, -1] == 0.5
    released = ("observed:HR:mean",) if mode == "release" else ()
    assert released_channels(made) == released
    encoded = RandomProjectionEncoder(axis="variables").fit(made, KEY).encode(made)
    assert (encoded.channels[-1:] == released) is (mode == "release")
    if mode == "release":
        assert encoded.features[0, 0, -1] == 0.5


def test_what_cannot_be_summarised_is_refused() -> None:
    cohort = small([[[0.2, 1.0], [0.6, 0.0]]], ("HR", "sex"))
    with pytest.raises(DataError, match="1 of 1 static channels change"):
        summaries(cohort, static=("sex",))
    with pytest.raises(DataError, match="1 static channels are not in the cohort"):
        summaries(cohort, static=("age",))
    with pytest.raises(DataError, match="0 steps"):
        summaries(small(np.zeros((1, 0, 1)), ("HR",)))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("n_features", "padded"), [(1, 3), (4, 0), (5, 3), (12, 0), (0, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_windows_run_along_the_features(name: str, n_features: int, padded: int, dtype: Any) -> None:
    x = np.random.default_rng(2).random((30, n_features)).astype(dtype)
    fitted = ENCODERS[name]().fit(dense_cohort(x), KEY)
    encoding = encode_dense(x, fitted)
    assert encoding.padded_features == padded
    assert encoding.values.dtype == dtype
    assert encoding.values.shape == (30, len(encoding.columns)) == (30, n_features + padded)
    assert encoding.spec == fitted.public_spec()
    for window in range((n_features + padded) // 4):
        places = slice(4 * window, 4 * window + 4)
        part = x[:, places]
        alone = ENCODERS[name]().fit(dense_cohort(part), KEY)
        np.testing.assert_allclose(encode_dense(part, alone).values, encoding.values[:, places], atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_windows_may_overlap(name: str) -> None:
    x = np.random.default_rng(3).random((5, 9))
    encoder: Encoder = (
        QuantumEncoder(axis="variables", stride=2)
        if name == "quantum"
        else RandomProjectionEncoder(axis="variables", stride=2)
    )
    encoding = encode_dense(x, encoder.fit(dense_cohort(x), KEY))
    assert encoding.values.shape == (5, 4 * 4)
    assert encoding.padded_features == 1
    np.testing.assert_allclose(
        encoding.values[0, 4:8], encode_dense(np.roll(x, -2, 1), encoder.fit(dense_cohort(x), KEY)).values[0, :4]
    )


def test_the_whole_row_can_be_one_record() -> None:
    x = np.random.default_rng(3).random((5, 9))
    encoder = RandomProjectionEncoder(axis="record", distribution="orthogonal", n_components=6)
    encoding = encode_dense(x, encoder.fit(dense_cohort(x), KEY))
    assert encoding.values.shape == (5, 6)
    assert encoding.padded_features == 0
    np.testing.assert_allclose(encoding.values, x @ encoder.matrix(KEY, width=9).T)


def test_vectors_have_no_time() -> None:
    x = np.random.default_rng(4).random((5, 8))
    with pytest.raises(ConfigError, match="dense features have no time"):
        encode_dense(x, QuantumEncoder().fit(dense_cohort(x), KEY))
    unchanged = encode_dense(x, IdentityEncoder().fit(dense_cohort(x), KEY))
    np.testing.assert_array_equal(unchanged.values, x)
    with pytest.raises(DataError, match="two axes"):
        dense_cohort(x[0])
    with pytest.raises(DataError, match="fit it again"):
        encode_dense(x[:, :4], ENCODERS["quantum"]().fit(dense_cohort(x), KEY))


def test_noise_needs_its_source_and_replays() -> None:
    x = np.random.default_rng(5).random((400, 8))
    noisy = RandomProjectionEncoder(axis="variables", noise_sd=0.5).fit(dense_cohort(x), KEY)
    with pytest.raises(ConfigError, match="noise source"):
        encode_dense(x, noisy)
    first, again = (encode_dense(x, noisy, NoiseSource(NOISE_KEY, "x")).values for _ in range(2))
    np.testing.assert_array_equal(first, again)
    plain = encode_dense(x, ENCODERS["random_projection"]().fit(dense_cohort(x), KEY)).values
    # the sample deviation of 3,200 normals is within 5 / sqrt(2 * 3200) of .5, relatively, but for p < 1e-6
    assert np.std(first - plain) == pytest.approx(0.5, rel=5 / np.sqrt(2 * 3200))


# ---- Real stays: the figures of docs/how-to/encode-in-a-pipeline.md -------------------------------------------------

N_KEYS = 5
RESAMPLES = 500
COMPARED: dict[str, Callable[[], Encoder]] = {
    "projection": lambda: RandomProjectionEncoder(axis="variables"),
    "quantum, as published": lambda: QuantumEncoder(axis="variables", embedding_range=(0.0, 1.0)),
    "quantum": lambda: QuantumEncoder(axis="variables"),
}


@pytest.fixture(scope="module")
def real() -> tuple[EncodedCohort, EncodedCohort]:
    """PhysioNet 2012, A and B: (summaries with statics, statics alone)."""
    tables = read_source("embedded")
    split = np.where(generator(0, "dense split").random(tables.stays.height) < 0.7, Split.TRAIN, Split.HELD_OUT)
    cohort: Cohort
    cohort, _ = build_cohort(
        tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split.astype(np.int8)
    )
    prepared, static = prepare(cohort), static_channels(cohort)
    made = summaries(prepared, static)
    place = [made.channels.index(name) for name in static]
    alone = dataclasses.replace(made, features=made.features[:, :, place], channels=static)
    return made, alone


def predicted(cohort: EncodedCohort) -> np.ndarray:
    """Logistic regression of in-hospital death, on the held-out stays."""
    task = [t.name for t in cohort.tasks].index("in_hospital_death")
    train = cohort.split == int(Split.TRAIN)
    x, y = cohort.features[:, 0].astype(np.float64), cohort.labels[:, task]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x[train], y[train])
    return np.asarray(model.decision_function(x[~train]))


def auroc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    ranks, ones = rankdata(scores, axis=-1), labels == 1
    n = ones.sum(axis=-1)
    return np.asarray(((ranks * ones).sum(axis=-1) - n * (n + 1) / 2) / (n * (labels.shape[-1] - n)))


def comparison(cohort: EncodedCohort) -> dict[str, Any]:
    """AUROC as it is; by encoder the mean over keys of the paired difference, its 95 % bootstrap interval over the
    held-out stays, and the range over keys.
    """
    task = [t.name for t in cohort.tasks].index("in_hospital_death")
    labels = cohort.labels[cohort.split == int(Split.HELD_OUT), task]
    rows = generator(0, "dense bootstrap").integers(0, len(labels), (RESAMPLES, len(labels)))
    raw = predicted(cohort)
    result: dict[str, Any] = {"n_train": int((cohort.split == 0).sum()), "n_test": len(labels)}
    result["raw"] = float(auroc(raw, labels))
    for name, make in COMPARED.items():
        keys = [Secret(bytes([index]) * 32, "encoder") for index in range(N_KEYS)]
        encoded = [predicted(make().fit(cohort, key).encode(cohort)) for key in keys]
        by_key = [float(auroc(scores, labels)) - result["raw"] for scores in encoded]
        resampled = np.mean([auroc(scores[rows], labels[rows]) for scores in encoded], axis=0)
        low, high = np.quantile(resampled - auroc(raw[rows], labels[rows]), [0.025, 0.975])
        result[name] = [float(np.mean(by_key)), float(low), float(high), min(by_key), max(by_key)]
    return result


@pytest.mark.slow
def test_both_encoders_leave_dense_clinical_data_useful(
    real: tuple[EncodedCohort, EncodedCohort], capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's table is what comes out here, to .004 (another processor may round differently)."""
    page = PAGE.read_text(encoding="utf-8")
    for title, cohort in zip(("summaries", "statics alone"), real, strict=True):
        found = comparison(cohort)
        assert cohort.is_public_transform
        assert 0.0 <= cohort.features.min() <= cohort.features.max() <= 1.0
        shown = [found["raw"], *(figure for name in COMPARED for figure in found[name])]
        with capsys.disabled():
            print(f"\n{table_row(title, cohort, found)}")
        row = next(line for line in page.splitlines() if line.startswith(f"| {title},"))
        told = [float(number) for number in re.findall(r"-?\.\d{3}", row)]
        np.testing.assert_allclose(told, shown, atol=0.004)
        # as good as without encoding, but for statics in the circuit, which the page says
        for name in ("projection", "quantum") if title == "summaries" else ("projection",):
            low, high = found[name][1:3]
            assert -0.02 < low <= high < 0.02, name


def table_row(title: str, cohort: EncodedCohort, found: dict[str, Any]) -> str:
    """As it stands on the page."""
    cells = [f"{title}, {cohort.features.shape[2]} features", f"{found['raw']:.3f}"]
    for name in COMPARED:
        mean, low, high, smallest, largest = (f"{figure:.3f}" for figure in found[name])
        cells.append(f"{mean} [{low}, {high}] ({smallest} to {largest})")
    return "| " + " | ".join(cells).replace("0.", ".").replace("-.000", ".000") + " |"
