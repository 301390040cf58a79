"""scikit-learn's own checks at the defaults, life in its pipelines, and what a pickle holds: a fingerprint, no key."""

from __future__ import annotations

import copy
import io
import pickle
import re
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import (
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    check_transformer_preserve_dtypes,
    parametrize_with_checks,
)

from encoders import key_folder as key_folder_module
from encoders.dense import dense_cohort, encode_dense
from encoders.key_folder import KEYS_VARIABLE, current_key, find_key, key_folder
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.transformers import AliasingWarning, RandomProjectionTransformer, RandomQuantumTransformer
from pipeline.core.errors import ConfigError, EnvironmentProblem
from pipeline.core.keys.custody.keyring import rotate_key
from pipeline.core.keys.secrets import Secret, new_secret, read_secret, write_secret
from pipeline.core.protocols import Encoder

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "encode-in-a-pipeline.md"
Transformer = RandomQuantumTransformer | RandomProjectionTransformer
BOTH: list[type[Any]] = [RandomQuantumTransformer, RandomProjectionTransformer]
MATERIAL = bytes(range(32))


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key folder that does not exist yet, found by the environment."""
    folder = tmp_path / "keys"
    monkeypatch.setenv(KEYS_VARIABLE, str(folder))
    return folder


@pytest.fixture
def known_key(keys: Path) -> Secret:
    """A key of bytes that can be looked for."""
    write_secret(keys / "encoder.key", Secret(MATERIAL, "encoder"))
    return read_secret(keys / "encoder.key", "encoder")


def matrix(n: int = 60, features: int = 10) -> np.ndarray:
    return np.random.default_rng(0).random((n, features))


@parametrize_with_checks([RandomQuantumTransformer(), RandomProjectionTransformer()])
def test_scikit_learns_own_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AliasingWarning)  # the checks' data are not scaled
        check(estimator)


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    "check",
    [
        check_transformer_get_feature_names_out,
        check_transformer_get_feature_names_out_pandas,
        check_transformer_preserve_dtypes,
    ],
)
def test_scikit_learns_checks_of_names_and_types(make: type[Any], check: Callable[[str, Any], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AliasingWarning)
        check(make.__name__, make())


@pytest.mark.parametrize(
    ("transformer", "encoder"),
    [
        (RandomQuantumTransformer(), QuantumEncoder(axis="variables")),
        (
            RandomQuantumTransformer(n_qubits=3, n_layers=1, stride=2, correlations=True),
            QuantumEncoder(n_qubits=3, n_layers=1, axis="variables", stride=2, correlations=True),
        ),
        (RandomProjectionTransformer(), RandomProjectionEncoder(axis="variables")),
        (
            RandomProjectionTransformer(axis="record", n_components=3, distribution="sparse", density=0.5),
            RandomProjectionEncoder(axis="record", n_components=3, distribution="sparse", density=0.5),
        ),
    ],
)
def test_a_transformer_is_the_encoder_over_the_features(
    transformer: Transformer, encoder: Encoder, known_key: Secret
) -> None:
    x = matrix()
    found = transformer.fit_transform(x)
    expected = encode_dense(x, encoder.fit(dense_cohort(x), known_key))
    np.testing.assert_array_equal(found, expected.values)
    assert transformer.key_fingerprint_ == known_key.fingerprint
    assert transformer.public_spec_ == expected.spec
    assert transformer.padded_features_ == expected.padded_features
    assert tuple(transformer.get_feature_names_out()) == expected.columns


@pytest.mark.parametrize("make", BOTH)
def test_the_encoders_options_are_the_transformers(make: type[Any]) -> None:
    encoder = QuantumEncoder() if make is RandomQuantumTransformer else RandomProjectionEncoder()
    offered, options = make().get_params(), dict(vars(encoder))
    del offered["keys"]
    assert options.pop("axis") == "time"
    assert offered.pop("axis", "variables") == "variables"
    del options["key_scope"]  # one row has no channels that could have maps of their own
    assert offered == options


@pytest.mark.parametrize("make", BOTH)
def test_the_key_is_made_on_first_use_and_kept(make: type[Any], keys: Path, tmp_path: Path) -> None:
    x = matrix()
    first = make().fit(x)
    path = keys / "encoder.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.key_fingerprint_ == read_secret(path, "encoder").fingerprint
    np.testing.assert_array_equal(make().fit(x[:1]).transform(x), first.transform(x))
    elsewhere = make(keys=tmp_path / "other").fit(x)
    assert elsewhere.key_fingerprint_ != first.key_fingerprint_
    assert np.abs(elsewhere.transform(x) - first.transform(x)).max() > 1e-3
    assert [child.name for child in keys.iterdir()] == ["encoder.key"]


def test_the_key_folder_is_named_by_the_user_the_environment_or_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, "/named/by/environment")
    assert key_folder("/mine") == Path("/mine")
    assert key_folder() == Path("/named/by/environment")
    monkeypatch.delenv(KEYS_VARIABLE)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    for platform, folder in (
        (Unix, "/home/somebody/.config/decoct/keys"),
        (MacOS, "/home/somebody/Library/Application Support/decoct/keys"),
    ):
        monkeypatch.setattr("platformdirs.PlatformDirs", platform)
        assert key_folder().as_posix() == folder
    monkeypatch.setattr("platformdirs.PlatformDirs", Unix)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/configuration")
    assert key_folder() == Path("/configuration/decoct/keys")


def test_those_who_start_together_make_one_key(keys: Path) -> None:
    barrier, found = threading.Barrier(16), []

    def start() -> None:
        barrier.wait()
        found.append(current_key(keys, "encoder").fingerprint)

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [child.name for child in keys.iterdir()] == ["encoder.key"]


# ---- pickles --------------------------------------------------------------------------------------------------------


def secrets_of(transformer: Transformer, key: Secret) -> list[np.ndarray]:
    """The numbers that must not leave: the matrix, or the angles and what the closed form makes of them first."""
    encoder: Any = transformer._encoder()
    if isinstance(encoder, RandomProjectionEncoder):
        return [encoder.matrix(key)]
    angles = encoder.parameters(key).weights
    return [angles, np.cos(angles), np.sin(angles)]


def traces(numbers: np.ndarray) -> list[bytes]:
    """Each number as float64 and float32 in both byte orders, and as text of 8 digits and more."""
    found: list[bytes] = []
    for number in np.ravel(numbers):
        found += [np.array(number, kind).tobytes() for kind in ("<f8", ">f8")]
        found += [repr(float(number)).encode(), f"{number:.8f}".lstrip("-0").encode(), f"{number:.8g}".encode()]
    found += [np.ravel(numbers).astype(kind).tobytes() for kind in ("<f4", ">f4")]
    return found


def pickled(transformer: Transformer) -> list[bytes]:
    file = io.BytesIO()
    joblib.dump(transformer, file)
    return [*(pickle.dumps(transformer, protocol) for protocol in range(6)), file.getvalue()]


@pytest.mark.parametrize("make", BOTH)
def test_a_pickle_holds_no_key_and_nothing_expanded_from_it(
    make: type[Any], known_key: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    derive = Secret.derive
    monkeypatch.setattr(Secret, "derive", lambda self, label: asked.append(derive(self, label)) or asked[-1])
    transformer = make(noise_sd=0.1).fit(matrix())
    transformer.transform(matrix())
    monkeypatch.undo()
    monkeypatch.setenv(KEYS_VARIABLE, str(key_folder()))
    assert len(set(asked)) > 2  # the map's sub-key, the noise's, and what the fingerprint is the beginning of
    needles = [MATERIAL, *set(asked)]
    needles += [needle.hex().encode() for needle in needles]
    for numbers in secrets_of(transformer, known_key):
        needles += traces(numbers)
        assert traces(numbers)[0] in numbers.tobytes()  # the needles are such as would be found
    pickles = pickled(transformer)
    assert all(known_key.fingerprint.encode() in held for held in pickles)
    for held in [*pickles, repr(vars(transformer)).encode(), repr(transformer).encode()]:
        for needle in needles:
            assert needle not in held


@pytest.mark.parametrize("make", BOTH)
def test_a_pickle_finds_its_key_by_fingerprint(make: type[Any], known_key: Secret, keys: Path) -> None:
    x = matrix()
    transformer = make().fit(x)
    expected = transformer.transform(x)
    for again in (pickle.loads(pickle.dumps(transformer)), copy.deepcopy(transformer), copy.copy(transformer)):
        np.testing.assert_array_equal(again.transform(x), expected)
    sleeping = pickle.dumps(transformer)
    rotate_key(keys, "encoder")
    np.testing.assert_array_equal(pickle.loads(sleeping).transform(x), expected)
    renewed = make().fit(x)
    assert renewed.key_fingerprint_ != known_key.fingerprint
    assert np.abs(renewed.transform(x) - expected).max() > 1e-3


def test_a_pickle_wakes_up_in_another_process(known_key: Secret, tmp_path: Path) -> None:
    x = matrix(5, 6)
    transformer = RandomQuantumTransformer().fit(x)
    joblib.dump((transformer, x), tmp_path / "sleeping")
    wake = "import joblib; t, x = joblib.load('sleeping'); joblib.dump(t.transform(x), 'awake')"
    subprocess.run([sys.executable, "-c", wake], cwd=tmp_path, check=True, timeout=300)
    np.testing.assert_allclose(joblib.load(tmp_path / "awake"), transformer.transform(x), atol=1e-12)


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_an_old_pickle_opens_one_key_file_alone(
    passphrase: str | None, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key under a passphrase does not stand in the way of the old one."""
    sleeping = pickle.dumps(RandomProjectionTransformer().fit(matrix()))
    rotate_key(keys, "encoder", passphrase)
    opened: list[Path] = []
    read = key_folder_module.read_secret
    monkeypatch.setattr(key_folder_module, "read_secret", lambda *a: opened.append(a[0]) or read(*a))
    assert pickle.loads(sleeping).transform(matrix()).shape == (60, 12)
    assert [path.parent.name for path in opened] == ["retired"]


@pytest.mark.parametrize("make", BOTH)
def test_a_pickle_without_its_key_says_which_one_and_where(make: type[Any], known_key: Secret, keys: Path) -> None:
    sleeping = pickle.dumps(make().fit(matrix()))
    (keys / "encoder.key").unlink()
    write_secret(keys / "encoder.key", new_secret("encoder"))  # another one: never used instead
    (keys / "retired").mkdir()
    write_secret(keys / "retired" / f"encoder-{known_key.fingerprint}.key", new_secret("encoder"))  # misnamed
    awake = pickle.loads(sleeping)
    with pytest.raises(EnvironmentProblem) as problem:
        awake.transform(matrix())
    told = str(problem.value)
    assert known_key.fingerprint in told
    assert str(keys / "encoder.key") in told
    assert str(keys / "retired" / f"encoder-{known_key.fingerprint}.key") in told
    assert "\n" not in told
    with pytest.raises(EnvironmentProblem, match="encoder key"):
        find_key(keys / "nowhere", "encoder", known_key.fingerprint)
    write_secret(keys / "elsewhere" / "encoder.key", known_key)
    awake.set_params(keys=keys / "elsewhere")
    assert awake.transform(matrix()).shape == (60, 12)


@pytest.mark.parametrize("make", BOTH)
def test_options_changed_after_fitting_are_not_guessed(make: type[Any]) -> None:
    transformer = make().fit(matrix())
    for changed in (transformer, pickle.loads(pickle.dumps(transformer))):
        changed.set_params(noise_sd=0.5)
        with pytest.raises(ConfigError, match="fitted with other options"):
            changed.transform(matrix())
        changed.set_params(noise_sd=0.0)
        assert changed.transform(matrix()).shape == (60, 12)


def test_a_bound_rounded_otherwise_is_no_other_encoder() -> None:
    """Another machine computes the leakage bound anew, and may differ in its last bit."""
    transformer = RandomQuantumTransformer(noise_sd=0.5).fit(matrix())
    awake = pickle.loads(pickle.dumps(transformer))
    awake.public_spec_["leakage_bound"] = {"rounded": "otherwise"}
    np.testing.assert_array_equal(awake.transform(matrix()), transformer.transform(matrix()))


# ---- values outside, noise ------------------------------------------------------------------------------------------


def test_values_outside_the_range_are_told_with_their_share() -> None:
    x = matrix(10, 10)
    transformer = RandomQuantumTransformer().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transformer.transform(x)
    x[0, 0], x[3, 3], x[9, 9] = -0.1, 1.5, 7.0
    with pytest.warns(AliasingWarning, match=r"^3 % of the values lie outside \[0, 1\]"):
        transformer.transform(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a projection is linear: nothing aliases
        RandomProjectionTransformer().fit(x).transform(x)


@pytest.mark.parametrize("make", BOTH)
def test_noise_comes_from_the_sites_key_and_the_matrix(make: type[Any], known_key: Secret, keys: Path) -> None:
    x = matrix(400, 8)
    plain = make().fit_transform(x)
    noisy = make(noise_sd=0.5).fit(x)
    first = noisy.transform(x)
    np.testing.assert_array_equal(noisy.transform(x), first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(noisy)).transform(x), first)
    # the sample deviation of 3,200 normals is within 5 / sqrt(2 * 3200) of .5, relatively, but for p < 1e-6
    assert np.std(first - plain) == pytest.approx(0.5, rel=5 / np.sqrt(2 * 3200))
    assert np.abs(noisy.transform(x[:200]) - first[:200]).max() > 0.5  # another matrix, other noise
    (keys / "noise.key").unlink()  # another site, with the same encoder's key
    assert np.abs(noisy.transform(x) - first).max() > 0.5


def test_shots_are_means_of_outcomes(known_key: Secret) -> None:
    measured = RandomQuantumTransformer(shots=10).fit_transform(matrix())
    np.testing.assert_allclose(measured * 5, np.round(measured * 5), atol=1e-9)


# ---- life in scikit-learn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH)
def test_frames_in_and_out(make: type[Any]) -> None:
    frame = pd.DataFrame(matrix(), columns=[f"lab_{index}" for index in range(10)])
    transformer = make().set_output(transform="pandas").fit(frame)
    assert list(transformer.feature_names_in_) == list(frame.columns)
    out = transformer.transform(frame)
    assert list(out.columns) == list(transformer.get_feature_names_out())
    assert len(set(out.columns)) == 12
    np.testing.assert_array_equal(out.to_numpy(), make().fit_transform(frame.to_numpy()))
    with pytest.raises(ValueError, match="feature names should match"):
        transformer.transform(frame.rename(columns={"lab_0": "lab_99"}))


def test_columns_grids_and_several_workers(keys: Path) -> None:
    """Two workers meet an empty key folder; all folds end up under one key."""
    x = matrix(80, 8)
    frame = pd.DataFrame(x, columns=[f"lab_{index}" for index in range(8)])
    frame["unit"] = np.where(x[:, 0] > 0.5, "CCU", "MICU")
    label = (x[:, 0] + x[:, 5] > 1).astype(int)
    columns = ColumnTransformer(
        [
            ("quantum", RandomQuantumTransformer(), [f"lab_{index}" for index in range(4)]),
            ("projected", RandomProjectionTransformer(), [f"lab_{index}" for index in range(4, 8)]),
            ("unit", OneHotEncoder(), ["unit"]),
        ]
    )
    grid = {"columntransformer__quantum__n_layers": [1, 2], "columntransformer__projected__window": [2, 4]}
    search = GridSearchCV(make_pipeline(columns, LogisticRegression()), grid, cv=2, n_jobs=2, error_score="raise")
    with joblib.parallel_config("threading"):  # processes would first import everything again
        search.fit(frame, label)
    assert len(search.cv_results_["params"]) == 4
    names = search.best_estimator_[0].get_feature_names_out()
    assert [name.split("__")[0] for name in names] == ["quantum"] * 4 + ["projected"] * 4 + ["unit"] * 2
    fingerprint = read_secret(keys / "encoder.key", "encoder").fingerprint
    assert search.best_estimator_[0].named_transformers_["quantum"].key_fingerprint_ == fingerprint
    assert [child.name for child in keys.iterdir()] == ["encoder.key"]


@pytest.mark.parametrize("make", BOTH)
def test_a_clone_is_unfitted_and_learns_the_same(make: type[Any]) -> None:
    x = matrix()
    transformer = make(noise_sd=0.25).fit(x)
    copied = clone(transformer)
    assert not hasattr(copied, "key_fingerprint_")
    assert copied.get_params() == transformer.get_params()
    np.testing.assert_array_equal(copied.fit_transform(x), transformer.transform(x))


def test_a_rotation_changes_no_ridge_model() -> None:
    """An orthogonal projection keeps every scalar product, and a penalised linear model depends on those alone."""
    x = np.random.default_rng(1).random((400, 8))
    label = (x[:, 0] + x[:, 5] > 1).astype(int)
    rotation = RandomProjectionTransformer(distribution="orthogonal")
    plain, encoded = LogisticRegression(tol=1e-10), make_pipeline(rotation, LogisticRegression(tol=1e-10))
    shown = [cross_val_predict(model, x, label, cv=4, method="predict_proba") for model in (plain, encoded)]
    np.testing.assert_allclose(*shown, atol=1e-4)
    assert np.std(shown[0][:, 1]) > 0.2


def test_the_pages_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of the page, one after the other, as a reader would."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_a_pennylane_user_gets_the_circuit_and_draws_it_without_the_key(known_key: Secret) -> None:
    qml = pytest.importorskip("pennylane")
    x = matrix(3, 4)
    transformer = RandomQuantumTransformer(embedding_range=(0.1, 0.4)).fit(x)
    qnode = transformer.qnode()
    found = np.stack([qnode(np.pi * (0.1 + 0.3 * row)) for row in x])
    np.testing.assert_allclose(found, transformer.transform(x), atol=1e-12)
    drawn = qml.draw(qnode, decimals=None, show_matrices=False)(x[0])
    assert "BasicEntanglerLayers" in drawn
    assert "." not in drawn  # no number: neither weights nor a patient's angles
