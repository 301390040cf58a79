"""Several institutions' private moments -> one condensed set, at whoever holds their bundles. No patient is needed.

Each bundle is verified, the sums are added, samples are drawn. The new folder holds plain arrays and a manifest that
names the sites, what each promised its patients, and what the sum assumes. It is a derived work: signed by nobody.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from condensation.pooling import pooled
from condensation.private import samples_from_moments
from flows.unpack import write_arrays
from pipeline.core.errors import UsageError
from pipeline.sharing.keys import load_trust_root
from pipeline.sharing.layout import PAYLOAD
from pipeline.sharing.payload import data_description, guarantee_description, method_description, payload_arrays
from pipeline.sharing.receive import Received, receive

FORMAT: Final = "decoct-pooled/1"


def pool(
    bundles: Sequence[Path],
    root: Path,
    folder: Path,
    *,
    n_per_class: int,
    seed: int,
    hard_labels: bool,
    today: datetime.date,
) -> dict[str, Any]:
    """Verify the bundles, add their moments, condense, and write arrays and manifest.json into the new `folder`.

    Returns:
        The manifest: `made_from` (a site each), `guarantee`, `release`, `data`, `expires`, `production`.

    Raises:
        ReleaseRefused: a bundle does not verify against the trust root.
        UsageError: a bundle holds no moments, a site is there twice, or the folder exists already.
        DataError: the sites' moments do not add up; the sentence says what differs.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already and is not overwritten")
    trusted = load_trust_root(root)
    received = [receive(bundle, trusted, today=today) for bundle in bundles]
    moments = [one.moments() for one in received]
    _require_disjoint(received)
    condensed = samples_from_moments(pooled(moments), n_per_class=n_per_class, seed=seed, hard_labels=hard_labels)
    made_from = [_source(one) for one in received]
    release = method_description(condensed)
    manifest = {
        "format": FORMAT,
        "made_from": made_from,
        "expires": min(source["expires"] for source in made_from),
        "licences": sorted({source["licence"] for source in made_from}),
        "production": all(source["policy"]["production"] for source in made_from),
        "seed": seed,
        "release": {**release, "options": {"n_per_class": n_per_class, "hard_labels": hard_labels}},
        "data": data_description(condensed),
        "guarantee": guarantee_description(condensed.guarantee),
    }
    write_arrays(payload_arrays(condensed), manifest, folder)
    return manifest


def _require_disjoint(received: Sequence[Received]) -> None:
    """Two releases of one site are about the same patients: their epsilons add up, and nobody is counted twice."""
    sites = [str(one.manifest["site"]) for one in received]
    payloads = [one.manifest["files"][PAYLOAD]["sha256"] for one in received]
    for number, site in enumerate(sites):
        if site in sites[:number] or payloads[number] in payloads[:number]:
            raise UsageError(
                f"{site} is there twice, and two releases of one site are about the same patients: "
                "give one bundle of each site"
            )


def _source(received: Received) -> dict[str, Any]:
    """What the manifest says of one bundle: whose, under which terms, and what it promised its patients."""
    manifest: Mapping[str, Any] = received.manifest
    told = {name: manifest[name] for name in ("site", "name", "version", "issued", "expires", "licence", "recipients")}
    guarantee = {name: manifest["guarantee"][name] for name in ("epsilon", "delta", "unit", "adjacency", "accountant")}
    signer = received.bundle.signed_by
    return {
        **told,
        **guarantee,
        "policy": dict(manifest["policy"]),
        "signed_by": {"name": signer.name, "keyid": signer.keyid},
        "payload_sha256": manifest["files"][PAYLOAD]["sha256"],
    }
