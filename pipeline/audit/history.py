"""Every audit, kept in a database of the site: SQLite in the workspace, or PostgreSQL by URL, through SQLAlchemy.

Restricted like the reports in it: exact figures computed from patients. It holds no identifier, no key, no path. Four
tables: `audit` (one run of the audit), `report` (one artefact in it, with the report as canonical JSON), `result` and
`not_run` (its rows, for queries by others). Only `report.accepted`, the bundle that left with it, is set later.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pipeline.core.codec import from_plain, record_digest, to_plain
from pipeline.core.digest import canonical_json, digest_bytes
from pipeline.core.errors import DataError, EnvironmentProblem, UsageError
from pipeline.core.files.owner import OTHERS
from pipeline.core.files.seen import NOTHING, state_of
from pipeline.core.types import LeakageReport

FILE_NAME: Final = "audits.sqlite"
_WAIT_SECONDS: Final = 30  # for another process that is writing

_metadata = sa.MetaData()
_audit = sa.Table(
    "audit",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("recorded_at", sa.String(32), nullable=False),  # ISO 8601, UTC
    sa.Column("name", sa.String(200), nullable=False),  # of the run, or of the table that was audited
    sa.Column("source", sa.String(16), nullable=False),  # "run" or "tables"
    sa.Column("code_version", sa.String(80), nullable=False),
)
_report = sa.Table(
    "report",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("audit_id", sa.ForeignKey("audit.id"), nullable=False, index=True),
    sa.Column("artefact", sa.String(200), nullable=False, index=True),
    sa.Column("artefact_digest", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, index=True),
    sa.Column("controls_held", sa.Boolean, nullable=False),
    sa.Column("accepted", sa.String(200)),  # the bundle's name once it has left
    sa.Column("json", sa.Text, nullable=False),
)
_result = sa.Table(
    "result",
    _metadata,
    sa.Column("report_id", sa.ForeignKey("report.id"), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("attack", sa.String(80), nullable=False),
    sa.Column("threat_model", sa.String(8), nullable=False),
    sa.Column("statistic", sa.String(80), nullable=False),
    *(sa.Column(name, sa.Float) for name in ("rate", "low", "high", "control", "positive_control", "ceiling")),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("gates", sa.Boolean, nullable=False),
    sa.Column("powered", sa.Boolean),
    sa.Column("controls_held", sa.Boolean),
    sa.Column("summary", sa.Text, nullable=False),
)
_not_run = sa.Table(
    "not_run",
    _metadata,
    sa.Column("report_id", sa.ForeignKey("report.id"), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("attack", sa.String(80), nullable=False),
    sa.Column("threat_model", sa.String(8), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)


@final
@dataclass(frozen=True)
class Night:
    """One run of the audit; `accepted` `(report,)` the bundle that left with each report, or None."""

    id: int
    recorded_at: str
    name: str
    source: str
    reports: tuple[LeakageReport, ...]
    accepted: tuple[str | None, ...]


Noted = Callable[[str, str], AbstractContextManager[None]]
"""Given the states before and after, what surrounds the moment in which a change counts."""


def unnoted(_before: str, _after: str) -> AbstractContextManager[None]:
    """Of a history on which nothing is decided."""
    return nullcontext()


@final
class History:
    """The database; every call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def record(
        self,
        reports: Sequence[LeakageReport],
        *,
        name: str,
        source: str,
        now: datetime | None = None,
        noted: Noted = unnoted,
    ) -> int:
        """Keep one run of the audit; returns its number.

        Raises:
            EnvironmentProblem: the database cannot be written.
        """
        at = (now or datetime.now(tz=UTC)).astimezone(UTC).isoformat(timespec="seconds")
        version = next((report.provenance.code_version for report in reports), "")
        with self._change(name, noted) as connection:
            row = {"recorded_at": at, "name": name, "source": source, "code_version": version}
            number = _inserted(connection, _audit, row)
            for report in reports:
                _insert_report(connection, number, report)
        return number

    def accept(self, report_digest: str, bundle: str, *, name: str = "", noted: Noted = unnoted) -> None:
        """Mark the newest report of this digest, of the run of this `name` if given, as the one a bundle left with.

        Raises:
            EnvironmentProblem: there is none, or the database cannot be written.
        """
        named = (_audit.c.name == name,) if name else ()
        newest = sa.select(sa.func.max(_report.c.id)).join(_audit).where(_report.c.digest == report_digest, *named)
        with self._change(name, noted) as connection:
            done = connection.execute(
                sa.update(_report).where(_report.c.id == newest.scalar_subquery()).values(accepted=bundle)
            )
            if done.rowcount != 1:
                raise EnvironmentProblem(f"the audit history does not hold the audit with which {bundle} left")

    def holds(self, report_digest: str, *, name: str) -> bool:
        """Whether a report of this digest was kept for a run of this name."""
        asked = sa.select(_report.c.id).join(_audit).where(_report.c.digest == report_digest, _audit.c.name == name)
        with self._transaction() as connection:
            return connection.execute(asked.limit(1)).first() is not None

    def accepted(
        self, artefact: str, *, name: str, besides: str = "", waiting: Sequence[str] = ()
    ) -> tuple[LeakageReport, ...]:
        """The report of the run's last accepted release of an artefact of this name, as a tuple of one, or ().

        Not of the artefact with the digest `besides`, which is the one to be judged, and not of bundles that are still
        `waiting` for approval.
        """
        found = (
            sa.select(_report.c.json)
            .join(_audit)
            .where(
                _report.c.artefact == artefact,
                _audit.c.name == name,
                _report.c.accepted.not_in(waiting),  # NULL, which has not left, is in no list and not outside one
                _report.c.accepted.is_not(None),
                _report.c.artefact_digest != besides,
            )
            .order_by(_report.c.id.desc())
            .limit(1)
        )
        with self._transaction() as connection:
            return tuple(_read(text) for (text,) in connection.execute(found))

    def state(self, name: str) -> str:
        """What there is of the audits of a run of this name: how many reports, and a digest of which and what left."""
        with self._transaction() as connection:
            return _state(connection, name)

    def names(self) -> tuple[str, ...]:
        """Of all runs with an audit here."""
        found = sa.select(_audit.c.name).where(_audit.c.source == "run").distinct().order_by(_audit.c.name)
        with self._transaction() as connection:
            return tuple(row.name for row in connection.execute(found))

    def nights(self, *, artefact: str | None = None, last: int = 30) -> tuple[Night, ...]:
        """The newest audits, oldest first; only those that hold `artefact` and only its report, if given."""
        with self._transaction() as connection:
            asked = sa.select(_audit).order_by(_audit.c.id.desc())
            if artefact is not None:
                asked = asked.where(
                    _audit.c.id.in_(sa.select(_report.c.audit_id).where(_report.c.artefact == artefact))
                )
            rows = list(connection.execute(asked.limit(last)))
            return tuple(_night(connection, row, artefact) for row in reversed(rows))

    def night(self, number: int) -> Night:
        """One audit.

        Raises:
            UsageError: there is none of this number.
        """
        with self._transaction() as connection:
            row = connection.execute(sa.select(_audit).where(_audit.c.id == number)).first()
            if row is None:
                raise UsageError(f"the history holds no audit {number}; see decoct audit-history")
            return _night(connection, row, None)

    @contextmanager
    def _change(self, name: str, noted: Noted) -> Iterator[sa.Connection]:
        """A transaction that counts inside `noted`, which is told the states of this run's audits."""
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.update(_audit).where(sa.false()).values(name=name))  # so that SQLite locks
                before = _state(connection, name)
                yield connection
                with noted(before, _state(connection, name)):
                    connection.commit()
        except SQLAlchemyError as error:
            raise EnvironmentProblem(f"the audit history cannot be used: {type(error).__name__}") from None

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise EnvironmentProblem(f"the audit history cannot be used: {type(error).__name__}") from None


def open_history(place: str | Path) -> History:
    """The history in a SQLite file (made with mode 0600), or behind a database URL.

    Raises:
        EnvironmentProblem: the file is open to group or others, the URL is none, its driver is not installed, or the
            database does not answer. The URL is never repeated: it may hold a password.
    """
    is_url = isinstance(place, str) and "://" in place
    if not is_url:
        _owner_only(Path(place))
    url: str | sa.URL = str(place) if is_url else sa.URL.create("sqlite", database=str(place))
    try:
        parsed = sa.make_url(url)
        options: dict[str, Any] = {"timeout": _WAIT_SECONDS} if parsed.get_backend_name() == "sqlite" else {}
        engine = sa.create_engine(parsed, connect_args=options, hide_parameters=True)
        _metadata.create_all(engine)
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(f"the audit history's database needs the driver {error.name}; install it") from None
    except (ArgumentError, NoSuchModuleError):
        raise EnvironmentProblem("the audit history's URL is not one that SQLAlchemy knows") from None
    except SQLAlchemyError as error:
        raise EnvironmentProblem(f"the audit history cannot be opened: {type(error).__name__}") from None
    return History(engine)


def _owner_only(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        mode = path.stat().st_mode
    except OSError as error:
        raise EnvironmentProblem(f"the audit history {path} cannot be opened: {error.strerror}") from None
    if stat.S_IMODE(mode) & OTHERS:
        raise EnvironmentProblem(f"the audit history {path} is open to group or others; run: chmod 600 {path}")


def _inserted(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> int:
    key = connection.execute(sa.insert(table).values(**row)).inserted_primary_key
    assert key is not None  # every table here numbers its rows
    return int(key[0])


def _insert_report(connection: sa.Connection, audit: int, report: LeakageReport) -> None:
    plain = to_plain(report)
    row = {
        "audit_id": audit,
        "artefact": report.artefact,
        "artefact_digest": report.artefact_digest,
        "digest": record_digest(report),
        "controls_held": report.controls_held,
        "json": canonical_json(plain).decode(),
    }
    number = _inserted(connection, _report, row)
    shared = {column.name for column in _result.columns} - {"report_id", "place"}
    rows = [
        {name: result[name] for name in shared} | {"report_id": number, "place": place}
        for place, result in enumerate(plain["results"])
    ]
    if rows:
        connection.execute(sa.insert(_result), rows)
    missing = [
        {"report_id": number, "place": place, **{name: item[name] for name in ("attack", "threat_model", "reason")}}
        for place, item in enumerate(plain["not_run"])
    ]
    if missing:
        connection.execute(sa.insert(_not_run), missing)


def _night(connection: sa.Connection, row: Any, artefact: str | None) -> Night:
    asked = sa.select(_report).where(_report.c.audit_id == row.id).order_by(_report.c.id)
    found = [item for item in connection.execute(asked) if artefact in (None, item.artefact)]
    return Night(
        row.id,
        row.recorded_at,
        row.name,
        row.source,
        tuple(_read(item.json) for item in found),
        tuple(item.accepted for item in found),
    )


def _state(connection: sa.Connection, name: str) -> str:
    found = (
        sa.select(_report.c.digest, _report.c.accepted, _report.c.json)
        .join(_audit)
        .where(_audit.c.name == name, _audit.c.source == "run")
        .order_by(_report.c.id)
    )
    rows = [[row.digest, row.accepted, digest_bytes(row.json.encode())] for row in connection.execute(found)]
    return state_of(f"{len(rows)} reports", canonical_json(rows)) if rows else NOTHING


def _read(text: str) -> LeakageReport:
    try:
        report: LeakageReport = from_plain(LeakageReport, json.loads(text))
    except DataError:
        raise EnvironmentProblem(
            "the audit history was kept by another version of Decoct: move it aside and begin a new one"
        ) from None
    return report
