"""Decoct's public face: all that a user imports, each name loaded when it is asked for.

    from decoct import load
    X, y, weight = load("st-elsewhere-private-v1", "root.json").X_y("died")

Everything behind it may move from one release to the next; these names stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from decoct._owner import require_own_packages

if TYPE_CHECKING:
    from condensation.kernel_matching import KernelMatching as KernelMatching
    from condensation.private.condenser import PrivateMoments as PrivateMoments
    from condensation.private.teacher.condenser import PrivateTeacher as PrivateTeacher
    from encoders.dense import summaries as summaries
    from encoders.transformers import RandomProjectionTransformer as RandomProjectionTransformer
    from encoders.transformers import RandomQuantumTransformer as RandomQuantumTransformer
    from flows.direct.condense import condense as condense
    from flows.direct.example import example_cohort as example_cohort
    from flows.direct.workspace import Workspace as Workspace
    from flows.stages.attacks.tables import audit as audit
    from flows.stages.attacks.tables import audit_tables as audit_tables
    from pipeline.core.errors import DecoctError as DecoctError
    from pipeline.core.types import Cohort as Cohort
    from pipeline.core.types import CondensedSet as CondensedSet
    from pipeline.core.types import EncodedCohort as EncodedCohort
    from pipeline.ingest.cohort.scaling import prepare as prepare
    from pipeline.sharing.policy.load import Policy as Policy
    from pipeline.sharing.receive.loading import load as load
    from pipeline.sharing.receive.loading import read_bundle as read_bundle
    from pipeline.sharing.receive.loading import verify as verify

    __version__: str

_ROOMS: Final = {
    "Cohort": "pipeline.core.types",
    "CondensedSet": "pipeline.core.types",
    "DecoctError": "pipeline.core.errors",
    "EncodedCohort": "pipeline.core.types",
    "KernelMatching": "condensation.kernel_matching",
    "Policy": "pipeline.sharing.policy.load",
    "PrivateMoments": "condensation.private.condenser",
    "PrivateTeacher": "condensation.private.teacher.condenser",
    "RandomProjectionTransformer": "encoders.transformers",
    "RandomQuantumTransformer": "encoders.transformers",
    "Workspace": "flows.direct.workspace",
    "audit": "flows.stages.attacks.tables",
    "audit_tables": "flows.stages.attacks.tables",
    "condense": "flows.direct.condense",
    "example_cohort": "flows.direct.example",
    "load": "pipeline.sharing.receive.loading",
    "prepare": "pipeline.ingest.cohort.scaling",
    "read_bundle": "pipeline.sharing.receive.loading",
    "summaries": "encoders.dense",
    "verify": "pipeline.sharing.receive.loading",
}
"""Each name, and the module that it is loaded from."""

__all__ = sorted(_ROOMS)


def __getattr__(name: str) -> Any:
    """The name from its room.

    Raises:
        AttributeError: no such name. NotInstalled: it needs an extra that is not there; the sentence says which.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("decoct")
    if name not in _ROOMS:
        raise AttributeError(f"module 'decoct' has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module(_ROOMS[name]), name)
    except ImportError as error:
        from pipeline.core.extras import explained

        raise explained(error) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_ROOMS, "__version__"])


require_own_packages()
