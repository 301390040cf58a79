"""Condense without a run: an encoded cohort in, a few samples out; for trying methods out."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import numpy as np

from flows import registry
from flows.compute.devices import device as chosen_device
from flows.environment import code_version
from pipeline.core.codec import record_digest
from pipeline.core.errors import BudgetError, ConfigError, DataError
from pipeline.core.extras import require_site
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Condenser, OnStep, ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Split

NO_ACCOUNT: Final = (
    "this method draws privacy noise, which is paid from a site's budget and drawn from its key: "
    "name it in a [condense.NAME] table and call decoct condense"
)


def condense(
    encoded: EncodedCohort,
    method: str | Condenser = "kernel_matching",
    *,
    n_per_class: int = 40,
    seed: int = 0,
    device: str = "auto",
    on_step: OnStep = ignore_step,
    **options: Any,
) -> CondensedSet:
    """The training stays of `encoded` as a few synthetic samples, half of each class of the first task.

    The set carries no guarantee, and nothing is released by making it: `decoct run` audits, decides and signs.

    Args:
        method: the name of an installed condenser (an entry point of `decoct.condensers`), or one that was made.
        options: of the method that is named, as a [condense.NAME] table has them.
        on_step: called as (step done, steps in all, loss).

    Raises:
        BudgetError: a method that draws privacy noise, which needs a workspace's key and account.
        ConfigError: no such method, or it does not take the options.
        DataError: no training stays, or too few of a class.
    """
    require_site()
    if not isinstance(method, str) and options:
        raise ConfigError("options go with a method's name; one that was made has its own")
    training = encoded.part(Split.TRAIN)
    if not len(training.features):
        raise DataError("the encoded cohort has no training stays")
    known = cast(Condenser, registry.load(registry.CONDENSERS, method, options) if isinstance(method, str) else method)
    digest = record_digest(training)
    codes = np.unique(training.subject_index, return_inverse=True)[1].astype(np.int32)
    made = known.condense(
        dataclasses.replace(training, subject_index=codes),
        n_per_class=n_per_class,
        seed=seed,
        noise=NoiseSource(Secret(secrets.token_bytes(32), "noise"), digest, _refuse),
        device=chosen_device(device),
        on_step=on_step,
    )
    told = dataclasses.replace(made.provenance, parents=(digest,), code_version=code_version())
    return dataclasses.replace(made, provenance=told)


def _refuse(query: str, events: Sequence[Mapping[str, Any]]) -> NoReturn:
    """The ledger of a process that keeps none: no noise is ever drawn."""
    raise BudgetError(NO_ACCOUNT)
