"""A release policy: a file that the site owns, and that says what may leave. Every rule carries its reason.

The file is TOML; a misspelt, missing or ill-typed key is refused, so that a typing error never loosens a rule.
Standard library only, but for the canonical JSON under the digest.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, final

from pipeline.core.errors import ConfigError, ReleaseRefused
from pipeline.sharing.canonical import canonical, folded, sha256_hex
from pipeline.sharing.layout import RELEASE_KINDS
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.figures import DecidingStatistic, may_decide

ANY: Final = "*"
FORMAT: Final = 2
THREAT_MODELS: Final = ("T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "bytes")
UNITS: Final = ("subject", "stay", "stay_if_no_subjects")
ON_REGRESSION: Final = ("block", "tell")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9])?")  # no look-alikes of other alphabets


@final
@dataclass(frozen=True)
class Limit:
    """A ceiling on the upper 95 % bound of one attack's statistic.

    `attack`, `statistic` may be "*": all without a limit of their own. `max_upper` None: no ceiling (in
    the file: "any"), the figure is printed and accepted. `min_n`: fewer observations than this show nothing.
    """

    attack: str
    statistic: str
    max_upper: float | None
    min_n: int
    why: str


@final
@dataclass(frozen=True)
class Policy:
    """What may leave; `whys` gives the reason of each table of the file."""

    name: str
    summary: str
    expires: str  # ISO date; from the day after it the gate stays shut until somebody has reviewed the policy
    production: bool  # false: trust roots refuse the bundle unless they say otherwise
    release_kinds: tuple[str, ...]
    allow_starts_from_records: bool
    refused_methods: tuple[str, ...]
    require_agreement: bool  # named recipients and a data-use agreement
    encrypted: bool  # the payload leaves only encrypted to its recipients' keys
    countersign: bool  # somebody has read what recipients recover, and has countersigned it
    valid_days: int
    most_per_period: int  # releases in the budget's period: each tells one bit of patients, that the gate passed
    approvals: int  # how many approvers must sign beside the author; 0 = a release is published at once
    revocation_days: int  # a receiver's list of revocations may be this old; 0 = none is asked for
    budget: Budget  # of the ledger, for everything that is released under the policy
    require_guarantee: bool
    max_epsilon: float
    max_delta: float
    units: tuple[str, ...]  # admissible units of a guarantee; "stay_if_no_subjects": where the source knows no people
    threat_models: Mapping[str, tuple[str, ...]]  # release kind -> each must have a figure that decides
    required: Mapping[str, tuple[str, ...]]  # release kind -> "attack" or "attack:statistic" that must have decided
    small_cell: int  # counts of people below this are never published
    on_regression: str  # worse than the last accepted release beyond its interval: "block", or only "tell"
    require_utility: bool
    rounding: float  # published bounds are rounded up to a multiple of this
    print_utility: bool
    limits: tuple[Limit, ...]
    whys: Mapping[str, str]

    @staticmethod
    def load(name_or_path: str | Path) -> Policy:
        """A shipped policy by its name, or one's own by its file. Raises as `load_policy`."""
        return load_policy(name_or_path)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON of all fields, reasons included."""
        return sha256_hex(canonical(dataclasses.asdict(self)))

    def limit(self, attack: str, statistic: str) -> Limit | None:
        """The most particular limit for this figure; None = the policy is silent about it."""
        known = {(limit.attack, limit.statistic): limit for limit in self.limits}
        asked = [(attack, statistic), (attack, ANY), (ANY, statistic), (ANY, ANY)]
        return next((known[pair] for pair in asked if pair in known), None)


def shipped_policies() -> tuple[str, ...]:
    """Names of the policies that come with Decoct."""
    folder = resources.files("pipeline.sharing") / "policies"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def shipped_digests(*, production: bool | None = None) -> dict[str, str]:
    """Name -> digest of the shipped policies, computed from their files: those for production, the others, or all."""
    shipped = (load_policy(name) for name in shipped_policies())
    return {each.name: each.digest for each in shipped if production in (None, each.production)}


def require_terms(policy: Policy, recipients: Sequence[str], agreement: str, recipient_keys: Mapping[str, str]) -> None:
    """Recipients, agreement and keys are there where the policy asks for them: known before anything is computed.

    Raises:
        ReleaseRefused: something is missing.
    """
    if policy.require_agreement and not (recipients and agreement.strip()):
        raise ReleaseRefused(f"policy {policy.name} releases only to named recipients under a data-use agreement")
    if policy.encrypted and not recipient_keys:
        raise ReleaseRefused(
            f"policy {policy.name} releases only encrypted payloads: give each recipient's age public key in "
            "[release.recipient_keys]"
        )


def load_policy(name_or_path: str | Path) -> Policy:
    """Read a shipped policy by name, or a policy file by its path (ending in .toml).

    Raises:
        ConfigError: no such policy, unreadable, or a key is unknown, missing or ill-typed; names file and key.
    """
    where = str(name_or_path)
    if not where.endswith(".toml"):
        if where not in shipped_policies():
            raise ConfigError(f"no policy is called {where!r}; shipped are {', '.join(shipped_policies())}")
        text = (resources.files("pipeline.sharing") / "policies" / f"{where}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"policy file {where} cannot be read as UTF-8 text") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"policy file {where} is not valid TOML: {error}") from None
    policy = parse_policy(raw, where)
    if where.endswith(".toml"):
        _require_own_name(policy, where)
    return policy


def _require_own_name(policy: Policy, where: str) -> None:
    """A site's own policy does not go by the name of one that everybody knows, however it is written."""
    for name in shipped_policies():
        if folded(policy.name) == folded(name) and policy.digest != load_policy(name).digest:
            raise ConfigError(
                f"policy file {where} calls itself {name} and is not the policy of that name that ships with Decoct: "
                "give it a name of its own"
            )


_TABLES: Final[Mapping[str, Mapping[str, type]]] = {
    "release": {
        "kinds": list,
        "allow_starts_from_records": bool,
        "refused_methods": list,
        "require_agreement": bool,
        "encrypted": bool,
        "countersign": bool,
        "valid_days": int,
        "most_per_period": int,
        "why": str,
    },
    "approval": {"needed": int, "revocation_days": int, "why": str},
    "budget": {"epsilon": float, "delta": float, "period_days": int, "why": str},
    "guarantee": {"required": bool, "max_epsilon": float, "max_delta": float, "units": list, "why": str},
    "threat_models": {"condensed": list, "encoded": list, "moments": list, "why": str},
    "audit": {"condensed": list, "encoded": list, "moments": list, "small_cell": int, "why": str},
    "history": {"on_regression": str, "why": str},
    "utility": {"required": bool, "why": str},
    "card": {"rounding": float, "print_utility": bool, "why": str},
}


def parse_policy(raw: Mapping[str, Any], where: str) -> Policy:
    """Check a parsed policy file.

    Raises:
        ConfigError: as `load_policy`.
    """
    _check_format(raw, where)
    top = {"format": int, "name": str, "summary": str, "expires": datetime.date, "production": bool, "limits": list}
    _check(raw, {**top, **dict.fromkeys(_TABLES, dict)}, where, "")
    for table, keys in _TABLES.items():
        _check(raw[table], keys, where, f"{table}.")
    release, guarantee, threats, audit = raw["release"], raw["guarantee"], raw["threat_models"], raw["audit"]
    budget = raw["budget"]
    policy = Policy(
        name=raw["name"],
        summary=raw["summary"],
        expires=raw["expires"].isoformat(),
        production=raw["production"],
        release_kinds=_names(release["kinds"], where, "release.kinds"),
        allow_starts_from_records=release["allow_starts_from_records"],
        refused_methods=_names(release["refused_methods"], where, "release.refused_methods"),
        require_agreement=release["require_agreement"],
        encrypted=release["encrypted"],
        countersign=release["countersign"],
        valid_days=release["valid_days"],
        most_per_period=release["most_per_period"],
        approvals=raw["approval"]["needed"],
        revocation_days=raw["approval"]["revocation_days"],
        budget=Budget(float(budget["epsilon"]), float(budget["delta"]), budget["period_days"]),
        require_guarantee=guarantee["required"],
        max_epsilon=float(guarantee["max_epsilon"]),
        max_delta=float(guarantee["max_delta"]),
        units=_names(guarantee["units"], where, "guarantee.units"),
        threat_models={kind: _names(threats[kind], where, f"threat_models.{kind}") for kind in RELEASE_KINDS},
        required={kind: _names(audit[kind], where, f"audit.{kind}") for kind in RELEASE_KINDS},
        small_cell=audit["small_cell"],
        on_regression=raw["history"]["on_regression"],
        require_utility=raw["utility"]["required"],
        rounding=float(raw["card"]["rounding"]),
        print_utility=raw["card"]["print_utility"],
        limits=tuple(_limit(item, where, index) for index, item in enumerate(raw["limits"])),
        whys={table: raw[table]["why"] for table in _TABLES},
    )
    _check_rules(policy, where)
    return policy


def _check_format(raw: Mapping[str, Any], where: str) -> None:
    """One sentence for files of another format, before any key is looked at."""
    if raw.get("format") != FORMAT or isinstance(raw.get("format"), bool):
        raise ConfigError(
            f"policy file {where} is not of format {FORMAT}: start from a shipped policy of this version (it has "
            "format, expires, release.countersign, release.encrypted, guarantee.units, [threat_models] and [history]) "
            "and carry your limits over"
        )


def _limit(raw: Any, where: str, index: int) -> Limit:
    keys: dict[str, type] = {"attack": str, "statistic": str, "min_n": int, "why": str}
    place = f"limits[{index}]."
    if not isinstance(raw, dict):
        raise ConfigError(f"policy file {where}: limits[{index}] must be a table")
    ceiling: Any = raw.get("max_upper")
    _check({key: value for key, value in raw.items() if key != "max_upper"}, keys, where, place)
    if ceiling != "any" and not (_is(ceiling, float) and math.isfinite(ceiling) and ceiling >= 0):
        raise ConfigError(f'policy file {where}: {place}max_upper must be a number of at least 0, or "any"')
    max_upper = None if ceiling == "any" else float(ceiling)
    return Limit(raw["attack"], raw["statistic"], max_upper, raw["min_n"], raw["why"])


def _check(raw: Any, keys: Mapping[str, type], where: str, place: str) -> None:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"policy file {where}: {place.rstrip('.')} must be a table")
    for key in raw:
        if key not in keys:
            raise ConfigError(f"policy file {where}: unknown key {place}{key}; known are {', '.join(sorted(keys))}")
    for key, kind in keys.items():
        if key not in raw:
            raise ConfigError(f"policy file {where}: key {place}{key} is missing")
        if not _is(raw[key], kind):
            raise ConfigError(f"policy file {where}: {place}{key} must be of type {kind.__name__}")


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is datetime.date:  # a date without a time: a time of day would need a zone
        return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _names(value: list[Any], where: str, key: str) -> tuple[str, ...]:
    if not all(isinstance(item, str) for item in value):
        raise ConfigError(f"policy file {where}: {key} must be a list of names")
    return tuple(value)


def _check_rules(policy: Policy, where: str) -> None:
    """Values that would make a policy say nothing, or something else than its author thinks."""
    pairs = [(limit.attack, limit.statistic) for limit in policy.limits]
    reasons = [*policy.whys.items(), *((f"limits[{i}]", limit.why) for i, limit in enumerate(policy.limits))]
    rules = {
        "name must be of ASCII letters, digits, blanks, dots, hyphens and underscores": _NAME.fullmatch(policy.name),
        "release.kinds must name at least one of condensed, encoded, moments, and nothing else": policy.release_kinds
        and set(policy.release_kinds) <= set(RELEASE_KINDS),
        "release.valid_days must be between 1 and 3660": 1 <= policy.valid_days <= 3660,
        "release.most_per_period must be at least 1": policy.most_per_period >= 1,
        "approval.needed must be between 0 and 15": 0 <= policy.approvals <= 15,
        "approval.revocation_days must be between 0 and 3660": 0 <= policy.revocation_days <= 3660,
        "budget.epsilon must be finite and at least 0": 0 <= policy.budget.epsilon < math.inf,
        "budget.delta must lie in (0, 1)": 0 < policy.budget.delta < 1,
        "budget.period_days must be at least 1": policy.budget.period_days >= 1,
        "guarantee.max_epsilon must be finite and at least 0": 0 <= policy.max_epsilon < math.inf,
        "guarantee.max_delta must lie in [0, 1)": 0 <= policy.max_delta < 1,
        f"guarantee.units must name some of {', '.join(UNITS)}": policy.units and set(policy.units) <= set(UNITS),
        f"threat_models must name some of {', '.join(THREAT_MODELS)}": all(
            set(names) <= set(THREAT_MODELS) for names in policy.threat_models.values()
        ),
        "audit.small_cell must be at least 1": policy.small_cell >= 1,
        f"history.on_regression must be one of {', '.join(ON_REGRESSION)}": policy.on_regression in ON_REGRESSION,
        "card.rounding must lie in [0.01, 0.5]": 0.01 <= policy.rounding <= 0.5,
        "limits must not name an attack and statistic twice": len(set(pairs)) == len(pairs),
        "limits need a min_n of at least 1": all(limit.min_n >= 1 for limit in policy.limits),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ConfigError(f"policy file {where}: {rule}")
    asked = [name.partition(":")[2] for names in policy.required.values() for name in names]
    for statistic in [*(limit.statistic for limit in policy.limits), *filter(None, asked)]:
        if statistic != ANY and not may_decide(statistic):
            raise ConfigError(
                f"policy file {where}: {statistic} can be shown and never decides; "
                f"what decides is one of {', '.join(DecidingStatistic)}"
            )
    for place, why in reasons:
        if not why.strip():
            raise ConfigError(f"policy file {where}: {place} gives no reason (why)")
    for kind in policy.release_kinds:
        if not policy.required[kind]:
            raise ConfigError(f"policy file {where}: audit.{kind} must name at least one attack, as {kind} may leave")
        if not policy.threat_models[kind]:
            raise ConfigError(f"policy file {where}: threat_models.{kind} must name at least one, as {kind} may leave")
