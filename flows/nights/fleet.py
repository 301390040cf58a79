"""How the nights of many sites are, from the notices that they signed: one row for each site and configuration.

    ROOT.received/fleet.json   when the newest night seen of each ended, so that no older notice passes for it

The trust root says whose notices count, which sites there are, and which policies. A site without any notice is named
like one that has fallen silent. A notice that cannot be trusted is counted, and is never a reason to be calm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, final

from flows.nights.notices import MAX_BYTES, read_notice
from flows.nights.status import (
    CRITICAL,
    EXIT_CODES,
    MAX_AGE_HOURS,
    OK,
    SHARE_LEFT,
    WARNING,
    RunFigures,
    StatusLine,
    judged,
    worst,
)
from pipeline.core.errors import EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.core.files.locked import locked
from pipeline.core.files.whole import put_whole
from pipeline.sharing.canonical import canonical, read_canonical
from pipeline.sharing.receive.state import REVOCATIONS, STATE_FILE, check_root, load_state, memory_of
from pipeline.sharing.trust.keys import PURPOSE, TrustRoot
from pipeline.sharing.trust.revocation import Revocations, load_revocations, require_fresh
from pipeline.sharing.trust.root import load_trust_root, read_root, require_in_force

MEMORY: Final = "fleet.json"
FORMAT: Final = "decoct-fleet/1"
FIELDS: Final = (
    *("site", "run", "night", "state", "ended", "last_good", "decoct", "policy", "policy_digest"),
    *("verdict", "epsilon_left", "epsilon_budget", "release", "version"),
)
"""Of a notice, in a row."""

Name = tuple[str, str]  # a site, and a configuration of it
Notice = Mapping[str, Any]


@final
@dataclass(frozen=True)
class Row:
    """The newest notice of a site's configuration, or that there is none; `skew`: not the version that most run."""

    level: str
    told: str
    silent: bool
    skew: bool
    notice: Notice  # of `FIELDS`; "" and None where nothing is known


@final
@dataclass(frozen=True)
class Fleet:
    """Rows with the silent ones first, then the worst; `refused` is (file, why)."""

    findings: tuple[StatusLine, ...]
    rows: tuple[Row, ...]
    refused: tuple[tuple[str, str], ...]

    @property
    def level(self) -> str:
        """The worst of all rows and findings."""
        return worst([*(row.level for row in self.rows), *(finding.level for finding in self.findings)])


def fleet(folder: Path, root: Path, *, now: datetime, max_age_hours: float = MAX_AGE_HOURS) -> Fleet:
    """Read every notice below `folder` (`*.json`), and remember the newest beside the trust root.

    Raises:
        UsageError: there is no folder. ReleaseRefused: the root or its revocation list cannot be trusted.
        EnvironmentProblem: what is remembered is damaged, or cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of notices at {folder}")
    trusted = load_trust_root(root)
    check_root(load_state(memory_of(root) / STATE_FILE), trusted, read_root(root))
    require_in_force(trusted, now.date())
    listed = root.parent / REVOCATIONS
    revoked = load_revocations(listed, trusted) if listed.exists() else None
    with locked(memory_of(root) / f".{MEMORY}.lock"):
        seen = _remembered(memory_of(root) / MEMORY)
        newest, refused = _read(folder, trusted, frozenset() if revoked is None else revoked.keys, now)
        for name, (file, told) in newest.items():
            if name in seen and told["ended"] < seen[name]:
                refused.append((file, "it is older than one that was here before"))
            else:
                seen[name] = told["ended"]
        _remember(memory_of(root) / MEMORY, seen)
    common = Counter(told["decoct"] for _, told in newest.values()).most_common(1)
    most = timedelta(hours=max_age_hours)
    missing = {(key.site, "") for key in trusted.keys if key.role == PURPOSE} - {(site, "") for site, _ in seen}
    rows = [
        _row(name, newest[name][1] if name in newest else {}, seen.get(name), trusted, common, now, most)
        for name in {*seen, *missing}
    ]
    rows.sort(key=lambda row: (not row.silent, -EXIT_CODES[row.level], row.notice["site"], row.notice["run"]))
    return Fleet(_findings(trusted, revoked, refused, now), tuple(rows), tuple(refused))


def _read(
    folder: Path, root: TrustRoot, revoked: frozenset[str], now: datetime
) -> tuple[dict[Name, tuple[str, Notice]], list[tuple[str, str]]]:
    """The newest notice of each configuration with its file, and what was refused."""
    newest: dict[Name, tuple[str, Notice]] = {}
    refused: list[tuple[str, str]] = []
    nights = set[tuple[str, ...]]()
    for path in sorted(folder.rglob("*.json")):
        file = "".join(letter if letter.isprintable() else "?" for letter in path.relative_to(folder).as_posix())
        try:
            with path.open("rb") as stream:
                told = read_notice(stream.read(MAX_BYTES + 1), root, revoked, now)
        except (ReleaseRefused, OSError) as error:
            refused.append((file, str(error) if isinstance(error, ReleaseRefused) else "it cannot be read"))
            continue
        name = (told["site"], told["run"])
        if (*name, told["night"]) in nights:
            refused.append((file, "it is another notice of a night that there is one of already"))
        elif name not in newest or newest[name][1]["ended"] < told["ended"]:
            newest[name] = file, told
        nights.add((*name, told["night"]))
    return newest, refused


def _row(
    name: Name, told: Notice, seen: str | None, root: TrustRoot, common: list[tuple[str, int]], now: datetime,
    most: timedelta,
) -> Row:  # fmt: skip
    if not told or (seen is not None and told["ended"] < seen):
        why = "no notice has come" if seen is None else f"the notice of {seen[:16]} is gone, and none has come since"
        nothing = dict.fromkeys(FIELDS, "") | {"site": name[0], "run": name[1], "ended": seen or ""}
        return Row(CRITICAL, why, True, False, nothing | dict.fromkeys(("epsilon_left", "epsilon_budget", "version")))
    ended = datetime.fromisoformat(told["ended"])
    good = datetime.fromisoformat(told["last_good"]).timestamp() if told["last_good"] else None
    figures = RunFigures(
        told["run"], told["state"], told["exit_code"], ended.timestamp(), good, 0.0, {}, told["version"], ""
    )
    found = judged(figures, told["sentence"], now, most)
    lines = [(found.level, found.told)]
    if silent := now - ended > most:
        lines.insert(0, (CRITICAL, f"silent: no notice for {(now - ended).total_seconds() / 3600:.0f} h"))
    if told["policy_digest"] not in root.policies.values():
        lines.append((WARNING, f"policy {told['policy']!r} is none that the trust root pins"))
    if told["epsilon_left"] is not None and told["epsilon_left"] < SHARE_LEFT * (told["epsilon_budget"] or 0):
        lines.append((WARNING, f"epsilon {told['epsilon_left']:.1f} of {told['epsilon_budget']:g} left"))
    skew = told["decoct"] != common[0][0]
    return Row(
        worst(level for level, _ in lines),
        "; ".join(sentence for _, sentence in lines),
        silent,
        skew,
        {field: told[field] for field in FIELDS},
    )


def _findings(
    root: TrustRoot, revoked: Revocations | None, refused: list[tuple[str, str]], now: datetime
) -> tuple[StatusLine, ...]:
    told = f"{len(refused)} refused" + (f", the first is {refused[0][0]}: {refused[0][1]}" if refused else "")
    fresh = StatusLine("revocations", OK, "none are asked for, or the list is recent")
    try:
        require_fresh(revoked, root.max_revocation_age_days, now.date())
    except ReleaseRefused as why:
        fresh = StatusLine("revocations", WARNING, str(why))
    return StatusLine("notices", CRITICAL if refused else OK, told), fresh


def _remembered(path: Path) -> dict[Name, str]:
    try:
        state = read_canonical(path.read_bytes(), "it")
        if state.pop("format") != FORMAT:
            raise ReleaseRefused
        return {(site, run): str(when) for site, runs in state["newest"].items() for run, when in runs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ReleaseRefused, KeyError, AttributeError):
        raise EnvironmentProblem(
            f"{path} is damaged: take it away, and older notices pass for new ones until newer ones come"
        ) from None


def _remember(path: Path, seen: Mapping[Name, str]) -> None:
    newest: dict[str, dict[str, str]] = {}
    for (site, run), when in seen.items():
        newest.setdefault(site, {})[run] = when
    try:
        put_whole(path, canonical({"format": FORMAT, "newest": newest}))
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None
