"""Core: records that do not leak, secrets that do not show, noise that only the secret's holder can replay."""

from __future__ import annotations

import dataclasses
import errno
import pickle
import sys
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from pipeline.core import threads
from pipeline.core.codec import from_parts, to_parts, to_plain
from pipeline.core.config import load_config, parse_config
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError, DataError, DecoctError, EnvironmentProblem
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret, new_secret, read_or_create_secret, read_secret, write_secret
from pipeline.core.redaction import scrubbed
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import Cohort, Provenance, Split, StaticVariable, Task, Variable

SENTINEL = 777.25


def small_cohort(**changes: object) -> Cohort:
    values = np.full((3, 2, 1), np.nan, dtype=np.float32)
    values[0, 0, 0] = SENTINEL
    fields: dict[str, object] = {
        "values": values,
        "observed": np.isfinite(values),
        "static": np.zeros((3, 1), np.float32),
        "labels": np.array([[0], [1], [np.nan]], np.float32),
        "stay_ids": np.array(["s1", "s2", "s3"]),
        "subject_ids": np.array(["p1", "p2", "p2"]),
        "split": np.array([0, 2, 2], np.int8),
        "variables": (Variable("HR", "bpm", 0, 300, 30, 180, 80),),
        "static_variables": (StaticVariable("age", "years", 0, 120, 15, 100, 60),),
        "tasks": (Task("death"),),
        "step_hours": 1.0,
        "provenance": Provenance("ingest", ("a" * 64,), {"x": [1, 2.5]}, "v", 3),
    }
    return Cohort(**(fields | changes))  # type: ignore[arg-type]


def test_codec_round_trip_is_the_identity() -> None:
    cohort = small_cohort()
    again = from_parts(Cohort, *to_parts(cohort))
    for item in dataclasses.fields(cohort):
        left, right = getattr(cohort, item.name), getattr(again, item.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
        else:
            assert left == right or (item.name == "provenance" and left.config == dict(right.config))


def test_numpy_values_become_plain_json() -> None:
    record = {"flag": np.True_, "n": np.int64(3), "x": np.float32(0.5), "nan": np.float64("nan"), "rows": np.eye(2)}
    plain = to_plain(record)
    assert plain == {"flag": True, "n": 3, "x": 0.5, "nan": None, "rows": [[1.0, 0.0], [0.0, 1.0]]}
    assert plain["flag"] is True


def test_repr_shows_shapes_and_no_value() -> None:
    text = repr(small_cohort())
    assert "float32[3, 2, 1]" in text
    assert "777" not in text
    assert "s1" not in text


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"stay_ids": np.array(["s1", "s1", "s3"])}, "more than once"),
        ({"split": np.array([0, 0, 2], np.int8)}, "1 subjects appear in more than one split"),
        ({"observed": np.zeros((3, 2, 1), bool)}, "exactly where observed"),
        ({"labels": np.zeros((2, 1), np.float32)}, "labels has shape"),
    ],
)
def test_a_broken_cohort_cannot_be_built(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        small_cohort(**changes)


def test_array_digest_ignores_memory_layout_but_not_shape() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert digest_array(array) == digest_array(np.asfortranarray(array)) == digest_array(array.astype(">f4"))
    assert digest_array(array) != digest_array(array.reshape(4, 3))


def test_secrets_are_kept_to_their_owner(tmp_path: Path) -> None:
    secret = new_secret("noise")
    path = tmp_path / "keys" / "noise.key"
    write_secret(path, secret)
    assert path.stat().st_mode & 0o777 == 0o600
    again = read_secret(path, "noise")
    assert (again.reveal(), again.made) == (secret.reveal(), secret.made)
    assert secret.reveal().hex() not in repr(secret) + str(secret)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)
    with pytest.raises(EnvironmentProblem, match="never overwritten"):
        write_secret(path, secret)
    with pytest.raises(EnvironmentProblem, match="purpose 'encoder'"):
        read_secret(path, "encoder")
    path.chmod(0o640)
    with pytest.raises(EnvironmentProblem, match="open to group or others"):
        read_secret(path, "noise")


def test_a_key_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves nothing; a disk without hard links gets the same file; who comes second reads the first's."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_links(*names: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(EnvironmentProblem, match="No space left"):
            write_secret(tmp_path / "keys" / "noise.key", new_secret("noise"))
    assert not list((tmp_path / "keys").iterdir())

    monkeypatch.setattr("os.link", no_links)
    first = read_or_create_secret(tmp_path / "keys" / "noise.key", "noise")
    answers = chain([False], repeat(True))  # not there when asked, but there when written: the race is lost
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda path: next(answers))
        assert read_or_create_secret(tmp_path / "keys" / "noise.key", "noise").reveal() == first.reveal()
    with pytest.raises(EnvironmentProblem, match="never overwritten"):
        write_secret(tmp_path / "keys" / "noise.key", new_secret("noise"))
    left = {path.name for path in (tmp_path / "keys").iterdir()}
    assert left == {"noise.key", "noise.seen", ".noise.seen.lock"}


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("decoct-secret v2", "decoct-secret v3", "not a version 2 key"),
        ("decoct-secret v2", "decoct-secret v1", "not a version 2 key"),
        ("\n0", "\n1", "does not have the fingerprint that it names"),
        ("\nmade ", "\nmade\n", "is damaged"),
        ("2026-01", "2026-13", "is damaged"),
        ("\n0", "\nx", "is damaged"),
    ],
)
def test_a_damaged_key_file_is_refused_without_showing_it(tmp_path: Path, old: str, new: str, rule: str) -> None:
    path = tmp_path / "noise.key"
    write_secret(path, Secret(bytes(32), "noise", made="2026-01-02"))
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(EnvironmentProblem, match=rule) as caught:
        read_secret(path, "noise")
    assert "0" * 32 not in str(caught.value)


def test_noise_replays_for_the_same_query_only() -> None:
    secret, other = new_secret("noise"), new_secret("noise")
    source = NoiseSource(secret, "c1")
    first = source.normal({"q": 1}, 2.0, (5,))
    np.testing.assert_array_equal(first, NoiseSource(secret, "c1").normal({"q": 1}, 2.0, (5,)))
    for changed in (
        NoiseSource(secret, "c2").normal({"q": 1}, 2.0, (5,)),
        NoiseSource(other, "c1").normal({"q": 1}, 2.0, (5,)),
        source.normal({"q": 2}, 2.0, (5,)),
        source.normal({"q": 1}, 2.5, (5,)) * 2.0 / 2.5,
    ):
        assert not np.any(np.isclose(first, changed))


def test_uniform_noise_replays_and_is_not_the_normals_of_the_query() -> None:
    source = NoiseSource(new_secret("noise"), "c1")
    first = source.uniform({"q": 1}, (3, 2))
    assert first.shape == (3, 2)
    assert np.all((first > 0) & (first < 1))
    np.testing.assert_array_equal(first, source.uniform({"q": 1}, (3, 2)))
    assert not np.any(np.isclose(first, source.uniform({"q": 2}, (3, 2))))
    assert not np.any(np.isclose(ndtri(first), source.normal({"q": 1}, 1.0, (3, 2))))


def test_children_of_a_seed_are_named_and_stable() -> None:
    """The first value is SHA-256's of "1/a", the second PCG64's: neither may move with a version or a machine."""
    assert child_seed(1, "a") == 4_453_716_986_992_266_975
    assert generator(1, "a").bit_generator.random_raw() == 2_378_837_280_355_678_318
    assert len({child_seed(*path) for path in ((1, "a"), (1, "b"), (2, "b"), (1, "a", 0))}) == 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("column hr: 3 values are text"), "column hr: 3 values are text"),
        (OSError(errno.ENOSPC, "No space left on device", "/secret/path"), "disk is full"),
        (ValueError(f"patient has {SENTINEL}"), "ValueError in "),
    ],
)
def test_only_clean_sentences_leave_a_stage(error: Exception, expected: str) -> None:
    with pytest.raises(DecoctError) as caught, scrubbed("encode"):
        raise error
    assert expected in str(caught.value)
    assert str(SENTINEL) not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_failure_names_its_places_and_keeps_no_frame() -> None:
    """Frames hold the arrays that a stage worked on; whoever walks the suppressed context must find none."""

    def inner() -> None:
        raise ValueError(f"patient has {SENTINEL}") from KeyError(SENTINEL)

    places = r"ValueError in inner \(test_core\.py:\d+\) in test_a_f\w+ \("
    with pytest.raises(DecoctError, match=places) as caught, scrubbed("encode"):
        inner()
    original = caught.value.__context__
    assert original is not None
    assert (original.__traceback__, original.__cause__, original.__context__) == (None, None, None)


def config_table(**changes: object) -> dict[str, object]:
    return {
        "name": "t",
        "source": {"kind": "embedded"},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"c": {"kind": "centroids"}},
        "release": {"artefact": "c", "licence": "CC0-1.0"},
    } | changes


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seeed": 1}, "seeed"),
        ({"condense": {"c": {"kind": "centroids", "iput": "raw"}}}, "iput"),
        ({"condense": {"c": {"kind": "centroids", "input": "rqe"}}}, r"condense\.c\.input"),
        ({"release": {"artefact": "d", "licence": "CC0-1.0"}}, r"release\.artefact"),
        ({"condense": {"c": {"kind": "centroids", "tasks": "group"}}}, r"needs a \[group\] table"),
        ({"condense": {"c": {"kind": "private_moments", "tasks": "group"}}, "group": {}}, "privacy account"),
        ({"condense": {"c": {"kind": "private_teacher", "tasks": "group"}}, "group": {}}, "privacy account"),
    ],
)
def test_a_misspelt_or_contradictory_config_names_its_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_config(config_table(**changes), "c.toml", Path("."))


def test_config_errors_never_echo_values(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "ok"\nseed = "hunter2"\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "hunter2" not in str(caught.value)
    assert "seed" in str(caught.value)


def test_split_names_are_those_of_meds() -> None:
    assert [split.name.lower() for split in Split] == ["train", "tuning", "held_out"]


def test_a_secret_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(EnvironmentProblem):
        Secret(b"short", "noise")


def test_a_thread_limit_within_another_reads_the_process_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a library came since, which may bring threads of its own."""
    set_: list[int] = []
    limits = threads.threadpool_limits

    def counted(limits_: int) -> object:
        set_.append(limits_)
        return limits(limits=limits_)

    monkeypatch.setattr(threads, "threadpool_limits", lambda limits: counted(limits))

    @threads.single_threaded
    def inner() -> int:
        return max(pool["num_threads"] for pool in threads.threadpool_info())

    @threads.single_threaded
    def outer(load: bool) -> int:
        if load:
            monkeypatch.setitem(sys.modules, "a_library_that_is_loaded_late", threads)
        return max(inner(), inner())

    assert outer(False) == 1
    assert len(set_) == 1
    assert outer(True) == 1
    assert len(set_) == 3
    assert outer(False) == 1
    assert len(set_) == 4
