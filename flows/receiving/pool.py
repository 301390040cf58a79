"""Several institutions' bundles -> one training set, at whoever holds the bundles. No patient is needed.

Each bundle is verified. Private moments are added and samples drawn from the sum; rows (condensed sets, encoded
cohorts) are put together, each with its institution. The new folder holds plain arrays and a manifest that names the
sites, what each promised its patients, and what a sum assumes. It is a derived work: signed by nobody.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from condensation.private.condenser import samples_from_moments
from condensation.private.pooling import pooled
from flows.receiving.reception import take_note
from flows.receiving.unpack import read_arrays, write_arrays
from pipeline.core.digest import digest_bytes
from pipeline.core.errors import DataError, ReleaseRefused, UsageError
from pipeline.core.types import CondensedSet, Moments
from pipeline.sharing.bundle.payload import data_description, guarantee_description, method_description, payload_arrays
from pipeline.sharing.layout import TEACHER, payload_name
from pipeline.sharing.receive.pooling import SUM, Pool, pool_rows, pooled_beside, require_disjoint
from pipeline.sharing.receive.received import Received, receive

FORMAT: Final = "decoct-pooled/1"  # samples drawn from added moments
WITHOUT: Final = "_without_"  # before a site's place in `made_from`: the arrays of the sum without it
ROWS_FORMAT: Final = "decoct-pool/1"  # rows, each with its institution


def pool_bundles(
    bundles: Sequence[Path],
    roots: Sequence[Path],
    folder: Path,
    *,
    n_per_class: int,
    seed: int,
    hard_labels: bool,
    today: datetime.date,
    identity: Path | None = None,
    recipient: str | None = None,
) -> dict[str, Any]:
    """Verify the bundles and pool them by their kind into the new `folder`.

    Args:
        roots: one trust root for all bundles, or one for each, in their order.
        identity, recipient: as in `pipeline.sharing.receive.received.receive`.
        n_per_class, seed, hard_labels: how samples are drawn from added moments; rows stay as they were released.

    Returns:
        The manifest: `made_from` (a site each, with the `rows` it gave), `data`, `expires`, `production`, ...

    Raises:
        ReleaseRefused: a bundle does not verify, or is encrypted to others.
        UsageError: bundles of several kinds, a site twice, or the folder exists already.
        DataError: they do not belong together; the sentence names the first difference.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already and is not overwritten")
    if not bundles or len(roots) not in (1, len(bundles)):
        raise UsageError("name at least one bundle, and one trust root for all of them or one for each")
    of_each = [*roots] * (len(bundles) if len(roots) == 1 else 1)
    received = [
        taken(bundle, root, today=today, identity=identity, recipient=recipient)
        for bundle, root in zip(bundles, of_each, strict=True)
    ]
    if all(one.manifest["release"]["kind"] == "moments" for one in received):
        return _pool_moments(received, folder, n_per_class=n_per_class, seed=seed, hard_labels=hard_labels)
    return _pool_rows(received, folder)


def taken(bundle: Path, root: Path, *, today: datetime.date, **options: Any) -> Received:
    """A verified bundle, noted in the log and the state beside the trust root."""
    received = receive(bundle, root, today=today, **options)
    take_note("pool", received.bundle, root)
    return received


def _pool_rows(received: Sequence[Received], folder: Path) -> dict[str, Any]:
    one = pool_rows(received)
    arrays = {"features": one.features, "labels": one.labels, "institution": one.institution}
    beside, told = pooled_beside(received)
    arrays |= beside
    described = {name: value for name, value in one.data.items() if name != TEACHER or TEACHER in beside}
    made_from = [{**_source(item), "rows": len(item.features)} for item in received]
    manifest = {
        **_terms(ROWS_FORMAT, made_from, arrays),
        "kind": received[0].manifest["release"]["kind"],
        "data": described,
        "teacher": told,
    }
    write_arrays(arrays, manifest, folder)
    return manifest


def _pool_moments(
    received: Sequence[Received],
    folder: Path,
    *,
    n_per_class: int,
    seed: int,
    hard_labels: bool,
) -> dict[str, Any]:
    """Samples of the sum, and of each sum without one site, for `decoct evaluate`."""
    moments = [one.moments() for one in received]
    require_disjoint(received)

    def drawn(of: Sequence[Moments]) -> CondensedSet:
        return samples_from_moments(pooled(of), n_per_class=n_per_class, seed=seed, hard_labels=hard_labels)

    condensed = drawn(moments)
    release, arrays = method_description(condensed), dict(payload_arrays(condensed))
    for place in range(len(moments)) if len(moments) > 1 else ():
        rest = payload_arrays(drawn(moments[:place] + moments[place + 1 :]))
        arrays |= {f"{name}{WITHOUT}{place}": rest[name] for name in ("features", "labels")}
    manifest = {
        **_terms(FORMAT, [_source(one) for one in received], arrays),
        "seed": seed,
        "release": {**release, "options": {"n_per_class": n_per_class, "hard_labels": hard_labels}},
        "data": data_description(condensed),
        "guarantee": guarantee_description(condensed.guarantee),
    }
    write_arrays(arrays, manifest, folder)
    return manifest


def load_pool(folder: Path, *, today: datetime.date) -> Pool:
    """A pool's folder, with its arrays as they were written. Samples of added moments have one institution: the sum.

    Raises:
        UsageError: no pool's folder.
        DataError: the arrays are not those that its manifest describes.
        ReleaseRefused: one of its bundles has expired.
    """
    arrays, manifest = read_arrays(folder)
    if manifest.get("format") not in (FORMAT, ROWS_FORMAT):
        raise UsageError(f"{folder} is not a pool: make one with decoct pool")
    if {name: _digest(array) for name, array in arrays.items()} != manifest.get("digests"):
        raise DataError(f"the arrays in {folder} are not those that were pooled")
    if today.isoformat() > manifest["expires"]:
        raise ReleaseRefused(f"a bundle in {folder} expired on {manifest['expires']}; pool bundles that are in force")
    sites = tuple(source["site"] for source in manifest["made_from"])
    whole = np.zeros(len(arrays["features"]), dtype=np.int16)
    return Pool(
        features=arrays["features"],
        labels=arrays["labels"],
        institution=arrays.get("institution", whole),
        institutions=sites if "institution" in arrays else (SUM,),
        data=manifest["data"],
        sums_without={
            site: (arrays[f"features{WITHOUT}{place}"], arrays[f"labels{WITHOUT}{place}"])
            for place, site in enumerate(sites)
            if f"features{WITHOUT}{place}" in arrays
        },
    )


def _terms(name: str, made_from: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What holds for the whole pool: the strictest of what holds for its parts."""
    return {
        "format": name,
        "made_from": list(made_from),
        "expires": min(source["expires"] for source in made_from),
        "licences": sorted({source["licence"] for source in made_from}),
        "data_use": sorted({code for source in made_from for code in source["data_use"]}),
        "production": all(source["policy"]["production"] for source in made_from),
        "digests": {name: _digest(array) for name, array in arrays.items()},
    }


def _digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values."""
    whole = np.ascontiguousarray(array)
    return digest_bytes(f"{whole.dtype.str} {whole.shape} ".encode() + whole.tobytes())


def _source(received: Received) -> dict[str, Any]:
    """What the manifest says of one bundle: whose, under which terms, and what it promised its patients."""
    manifest: Mapping[str, Any] = received.manifest
    told = {name: manifest[name] for name in ("site", "name", "version", "issued", "expires", "licence", "recipients")}
    promised = manifest["guarantee"] or {}
    guarantee = {name: promised.get(name) for name in ("epsilon", "delta", "unit", "adjacency", "accountant")}
    signer = received.bundle.signed_by
    return {
        **told,
        **guarantee,
        "data_use": list(manifest.get("data_use", [])),
        "policy": dict(manifest["policy"]),
        "signed_by": {"name": signer.name, "keyid": signer.keyid},
        "payload_sha256": manifest["files"][payload_name(manifest)]["sha256"],
    }
