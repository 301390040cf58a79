"""Every option stands once: what a table of the configuration sets, a class takes, and the provenance tells."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.transformers import RandomProjectionTransformer, RandomQuantumTransformer
from flows import registry
from pipeline.core.config import CONDENSE_TABLES, ENCODE_TABLES, condense_table, parse_config
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.options.base import Options, option_types
from pipeline.core.options.condensers import CONDENSERS
from pipeline.core.options.encoders import ENCODERS
from pipeline.core.protocols import ignore_step
from pipeline.core.types import EncodedCohort, Provenance, Task

TABLES = {**CONDENSE_TABLES, **ENCODE_TABLES}
OPTIONS = {**CONDENSERS, **ENCODERS}
GROUP = {**dict.fromkeys(CONDENSERS, registry.CONDENSERS), **dict.fromkeys(ENCODERS, registry.ENCODERS)}
EVERY_OPTION = [(kind, name) for kind, options in OPTIONS.items() for name in option_types(options)]
WRONG: tuple[Any, ...] = (
    -1,
    0,
    0.0,
    -0.5,
    1.5,
    2.0,
    float("nan"),
    float("inf"),
    11,
    True,
    "x",
    "",
    [],
    ["x"],
    [0],
    [-1],
)
WRONG += ([1, 2], [1.0, 2.0], [0.5], {}, 10**9, 1e-13, ("tcn-a", 3), None)
SHORT: dict[str, dict[str, Any]] = {
    "distribution_matching": {"iterations": 1},
    "kernel_matching": {"iterations": 1, "pool_size": 1, "maps": ["summaries"]},
}


def cohort() -> EncodedCohort:
    draws = np.random.default_rng(0)
    return EncodedCohort(
        features=draws.uniform(size=(30, 6, 2)).astype(np.float32),
        labels=(np.arange(30) % 2).astype(np.float32)[:, None],
        subject_index=np.arange(30, dtype=np.int32),
        split=np.zeros(30, np.int8),
        channels=("a", "b"),
        tasks=(Task("task"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def asked(kind: str, **options: Any) -> dict[str, Any]:
    """A configuration with one table of that kind, and these options in it."""
    table = {"kind": kind, **options}
    tables = {"encode": {"raw": table}} if kind in ENCODERS else {"condense": {"c": table}}
    return {
        "name": "x",
        "source": {"kind": "embedded"},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"c": {"kind": "centroids"}},
        "release": {"artefact": "c", "licence": "CC0-1.0"},
        **tables,
    }


def by_table(kind: str, **options: Any) -> Any:
    config = parse_config(asked(kind, **options), "test", Path())
    return config.encode["raw"] if kind in ENCODERS else config.condense["c"]


@cache
def class_of(kind: str) -> type[Options]:
    made = registry.load(GROUP[kind], kind, {})
    assert isinstance(made, Options)
    return type(made)


def by_class(kind: str, **options: Any) -> Options:
    return class_of(kind)(**options)


def test_every_registered_name_has_its_options_and_no_other_has() -> None:
    assert set(CONDENSERS) == set(registry.names(registry.CONDENSERS))
    assert set(ENCODERS) == set(registry.names(registry.ENCODERS))


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_table_s_defaults_are_the_class_s_and_what_it_tells(kind: str) -> None:
    made = by_class(kind)
    assert isinstance(made, OPTIONS[kind])
    options = by_table(kind).options
    assert registry.load(GROUP[kind], kind, options) == made
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()} == made.told()
    own = {field.name for field in dataclasses.fields(made) if not field.metadata.get("beside")}
    assert own == set(option_types(OPTIONS[kind]))  # the class adds none that a table could not set


@pytest.mark.parametrize("kind", CONDENSERS)
def test_the_provenance_of_a_set_names_every_option(kind: str) -> None:
    options = SHORT.get(kind, {})
    table = condense_table(kind, **options)
    noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
    found = registry.condenser(table).condense(
        cohort(), n_per_class=3, seed=0, noise=noise, device="cpu", on_step=ignore_step
    )
    told = dict(found.provenance.config)
    assert set(table.options) | {"n_per_class"} <= set(told)
    beyond = {"largest_class", "noise_scale", "hard_labels"}  # constants and results of the methods that take no option
    assert set(told) <= set(table.options) | {"n_per_class"} | beyond
    presets = {"learning_rate", "ridge", "summary_ridge", "spread", "training_steps", "clip_norm"}
    for name, value in by_class(kind, **options).told().items():
        assert told[name] == value or (value is None and name in presets), name


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_public_specification_names_every_option(kind: str) -> None:
    spec = registry.encoder(by_table(kind)).fit(cohort(), Secret(bytes(32), "encoder")).public_spec()
    blurs = {"noise_sd", "shots"}  # told as the noise that they make
    assert set(by_table(kind).options) - blurs <= set(spec)


@pytest.mark.parametrize(("kind", "name"), EVERY_OPTION)
@settings(deadline=None, max_examples=30)
@given(value=st.sampled_from(WRONG) | st.integers() | st.floats() | st.text(max_size=3))
def test_a_table_and_a_class_take_the_same_values(kind: str, name: str, value: Any) -> None:
    """A table may read a text as the number that it spells, and a class may refuse more: two options that do not go
    together, or a network that nobody knows."""
    by_hand, read = taken(by_class, kind, name, value), taken(by_table, kind, name, value)
    if isinstance(by_hand, ConfigError):
        if f": {name} must be" not in str(by_hand):
            return
        assert len(repr(value)) < 6 or repr(value) not in str(by_hand)
        if not isinstance(read, ConfigError):
            again = taken(by_class, kind, name, read.options[name])
            assert not isinstance(again, ConfigError) or f": {name} must be" not in str(again)
    elif value is not None or not isinstance(read, ConfigError):
        assert read.options[name] == getattr(by_hand, name)


def taken(make: Callable[..., Any], kind: str, name: str, value: Any) -> Any:
    """What is made of it, or why not."""
    try:
        return make(kind, **{name: value})
    except ConfigError as refusal:
        return refusal


def test_the_transformers_defaults_are_the_encoders() -> None:
    """scikit-learn reads a signature, so that theirs has to be written out."""
    for transformer, kind in (
        (RandomQuantumTransformer(), "quantum"),
        (RandomProjectionTransformer(), "random_projection"),
    ):
        given_ = {name: value for name, value in transformer.get_params().items() if name not in ("keys", "axis")}
        assert given_ == {name: getattr(by_class(kind), name) for name in given_}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unknown(Options):
    length: Annotated[str, "a rule that nobody wrote down"] = "x"


def test_a_bound_that_cannot_be_checked_is_no_bound() -> None:
    with pytest.raises(TypeError, match="no option is checked by"):
        Unknown()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small(Options):
    side: Literal["left", "right"] = "left"
    pair: tuple[float, float] = (0.0, 1.0)


def test_lists_and_whole_numbers_are_taken_as_a_file_s() -> None:
    raw = tomllib.loads("pair = [0, 1]")
    assert Small(**raw) == Small()
    assert Small().told() == {"side": "left", "pair": [0.0, 1.0]}
    with pytest.raises(ConfigError, match="Small: side must be among left, right"):
        Small(side="up")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pair must be 2 values, each a number"):
        Small(pair=(0.0,))  # type: ignore[arg-type]
