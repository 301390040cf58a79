"""The receiver's own look at the policy: does what is in the bundle keep the rules that its signers signed?

The gate saw the patients' data, the receiver sees the bundle: every rule that the bundle alone can show is looked at
again, so that a site's own gate need not be believed. Imports: the standard library and rfc8785.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.canonical import canonical, is_spelt, read_canonical, sha256_hex
from pipeline.sharing.claims import follows
from pipeline.sharing.layout import LEAKAGE, LEAKAGE_FORMAT, POLICY, payload_name
from pipeline.sharing.policy.published import ceiling, fixed_audit

_AUDIT: Final = frozenset(
    {"format", "verdict", "policy", "rounding", "controls_held", "attacks", "not_run", "payload_sha256"}
)
_NAMES: Final = ("attack", "threat_model", "statistic")
ROOM: Final = 1e-6  # published bounds are written with six decimals
_NOT_RUN: Final = frozenset({"attack", "threat_model"})
_ROW: Final = frozenset({"attack", "threat_model", "statistic", "verdict", "limit", "upper_bound"})


def require_policy_kept(files: Mapping[str, bytes], manifest: Mapping[str, Any], accepted: Mapping[str, str]) -> None:
    """Hold the bundle against its policy.json, which must be the one that the trust root pins under that name.

    `accepted` is name -> digest; what a policy says of itself, its name among it, decides nothing.

    Raises:
        ReleaseRefused: the policy is not one that is accepted, not the one that was signed, or a rule is broken; one
            sentence says which.
    """
    policy, named = read_canonical(files[POLICY], POLICY), manifest["policy"]
    if sha256_hex(files[POLICY]) != named["digest"]:
        raise ReleaseRefused(f"{POLICY} is not the policy whose digest was signed")
    if named["name"] not in accepted:
        raise ReleaseRefused(f"the trust root does not accept releases under policy {named['name']}")
    if named["digest"] != accepted[named["name"]]:
        raise ReleaseRefused(f"the bundle's policy calls itself {named['name']} and is not the one that the root pins")
    try:
        broken = _broken(policy, manifest)
        leakage = read_canonical(files[LEAKAGE], LEAKAGE)
        broken = broken or _audit_broken(policy, manifest, leakage, files) or _audit_oversteps(policy, leakage)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ReleaseRefused(f"{POLICY}, {LEAKAGE} and the manifest do not fit together") from None
    if broken:
        raise ReleaseRefused(f"the bundle does not keep its own policy {named['name']}: {broken}")


def _broken(policy: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The first rule that kind, method, guarantee or terms break, in words; empty = none."""
    release, guarantee = manifest["release"], manifest["guarantee"]
    if guarantee is not None and not {type(guarantee["epsilon"]), type(guarantee["delta"])} <= {int, float}:
        raise TypeError
    issued, expires = (datetime.date.fromisoformat(manifest[name]) for name in ("issued", "expires"))
    rules = {
        "it does not say whether payloads leave encrypted": type(policy.get("encrypted")) is bool,
        "name or purpose are others": (policy["name"], policy["production"])
        == (manifest["policy"]["name"], manifest["policy"]["production"]),
        f"it does not release {release['kind']} data": release["kind"] in policy["release_kinds"],
        f"it never releases sets made by {release['method']}": release["method"] not in policy["refused_methods"],
        f"it expired on {policy['expires']}": issued <= datetime.date.fromisoformat(policy["expires"]),
        "it allows no samples that were started from real stays": policy["allow_starts_from_records"]
        or release["kind"] != "condensed"
        or release["starts_from_records"] is False,
        "it releases to named recipients only": not policy["require_agreement"] or bool(manifest["recipients"]),
        "it releases payloads that are encrypted to their recipients only": policy.get("encrypted") is False
        or bool(manifest["encryption"]),
        f"it allows {policy['valid_days']} days": (expires - issued).days <= policy["valid_days"],
        "it asks for a guarantee": guarantee is not None or not policy["require_guarantee"],
        "its guarantee does not follow from the events that it states": guarantee is None or follows(guarantee),
        "a transform is not public, so no guarantee covers it": guarantee is None
        or all(step["public"] is True for step in manifest["data"]["transforms"]),
        "it does not protect this unit": guarantee is None or _unit_admitted(policy, manifest),
        "its limit on epsilon or delta is lower": guarantee is None
        or (0 <= guarantee["epsilon"] <= policy["max_epsilon"] and 0 <= guarantee["delta"] <= policy["max_delta"]),
    }
    return next((rule for rule, kept in rules.items() if not kept), "")


def _audit_oversteps(policy: Mapping[str, Any], leakage: Mapping[str, Any]) -> str:
    """That the audit says more than this version's does, in words; empty = it does not."""
    rows, rest = leakage["attacks"], leakage["not_run"]
    if set(leakage) != _AUDIT or any(set(row) != _ROW for row in rows) or any(set(item) != _NOT_RUN for item in rest):
        return "its audit has missing or unknown fields"
    names = [tuple(row[name] for name in _NAMES) for row in rows]
    words = [*(word for name in names for word in name), *(word for item in rest for word in item.values())]
    if not all(map(is_spelt, words)) or names != sorted({*names}):
        return "its audit must list each figure once, by name"
    if canonical(leakage["rounding"]) not in (canonical(policy["rounding"]), canonical(None)):
        return "its audit is rounded otherwise"
    coarse = all(_is_coarse(row, policy["rounding"]) for row in rows)
    return "" if coarse else "its audit has a figure that is not rounded as the policy says"


def _is_coarse(row: Mapping[str, Any], step: float) -> bool:
    """Whether the bound is the limit, or a multiple of the policy's rounding; of a count, a number of few digits."""
    bound, limit = row["upper_bound"], row["limit"]
    if bool in (type(bound), type(limit)):
        return False
    unit = 1 if row["statistic"] == "count" else step
    return bool(bound == limit or abs(bound - round(bound / unit) * unit) < ROOM)


def _unit_admitted(policy: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether the guarantee's unit is one of the policy's; a stay where the source declares that it knows no people."""
    unit, units = manifest["guarantee"]["unit"], policy["units"]
    known = [step["known"] for step in manifest["data"]["transforms"] if step.get("kind") == "subjects"]
    no_people = bool(known) and all(each is False for each in known)
    return unit in units or (unit == "stay" and "stay_if_no_subjects" in units and no_people)


def _audit_broken(
    policy: Mapping[str, Any], manifest: Mapping[str, Any], leakage: Mapping[str, Any], files: Mapping[str, bytes]
) -> str:
    """The first rule that the audit breaks, in words; empty = none."""
    if leakage["format"] != LEAKAGE_FORMAT:
        return f"its audit is of a format that this version does not know; it reads {LEAKAGE_FORMAT}"
    if leakage["payload_sha256"] != sha256_hex(files[payload_name(manifest)]):
        return "its audit is a stale one, of another payload"
    if leakage["policy"] != policy["name"] or leakage["verdict"] != "PASS" or leakage["controls_held"] is not True:
        return "its audit did not pass under this policy"
    if manifest["guarantee"] is not None:
        fixed = {**fixed_audit(policy, manifest["release"]["kind"]), "payload_sha256": leakage["payload_sha256"]}
        return (
            ""
            if canonical(leakage) == canonical(fixed)
            else "beside a guarantee its audit may tell what follows from the policy, and no more"
        )
    for row in leakage["attacks"]:
        judged, limit = ceiling(policy, row["attack"], row["statistic"])
        if not judged or row["verdict"] != "PASS" or row["limit"] != limit:
            return f"the audit's figure of {row['attack']} was not judged by the policy's limit"
        if limit is not None and not 0 <= row["upper_bound"] <= limit:
            return f"the audit's figure of {row['attack']} is above the limit"
    shown = {name for row in leakage["attacks"] for name in (row["attack"], f"{row['attack']}:{row['statistic']}")}
    missing = [name for name in policy["required"][manifest["release"]["kind"]] if name not in shown]
    return f"the audit lacks the required {missing[0]}" if missing else ""
