"""Many sites' signed notices: one table, the silent first; what nobody vouches for is counted, not believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cli.main import app
from flows.nights.fleet import MEMORY, Fleet, fleet
from flows.nights.night import GOOD, run_night
from flows.nights.notices import notice
from pipeline.core.config import parse_config
from pipeline.core.errors import DataError, EnvironmentProblem, Held, ReleaseRefused
from pipeline.core.keys.secrets import Secret, new_secret, write_secret
from pipeline.sharing.canonical import canonical
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.receive.state import REVOCATIONS, memory_of
from pipeline.sharing.trust.keys import public_key, role_signer
from pipeline.sharing.trust.revocation import draft_revocations, sign_revocations
from pipeline.sharing.trust.root import draft_root, sign_root

NOW = datetime(2026, 3, 31, 8, tzinfo=UTC)
STRICT = load_policy("strict").digest
SITES = tuple(f"site {number:03d}" for number in range(100))


def signer(number: int, role: str = "author") -> Any:
    return role_signer(Secret(bytes([number]) * 32, role))


def told(site: str, at: datetime, by: Any, **changes: Any) -> bytes:
    """A site's notice of one night, as it is sent."""
    ended_at = at.isoformat(timespec="seconds")
    night = {
        "night": f"{at:%Y%m%dT%H%M%S}-abcdef",
        "run": "icu",
        "started": (at - timedelta(hours=1)).isoformat(timespec="seconds"),
        "ended": ended_at,
        "state": "released",
        "exit_code": 0,
        "sentence": "it is released",
        "release": "icu-v1",
        "version": 1,
    }
    about = {
        "site": site,
        "decoct": "1.0+aaaaaaaaaaaa",
        "policy": "strict",
        "policy_digest": STRICT,
        "verdict": "PASS",
        "last_good": ended_at,
        "epsilon_left": 1.5,
        "epsilon_budget": 2.0,
    }
    marks = {"ingest": ["0123456789ab"]}
    return canonical(
        notice(
            night | {name: value for name, value in changes.items() if name in night},
            marks,
            about | {name: value for name, value in changes.items() if name in about},
            by,
        )
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A consortium's root that lists an author of each site."""
    keys = [public_key(signer(number), f"author {site}", site=site) for number, site in enumerate(SITES)]
    keys += [public_key(signer(200, "root"), "Ruth", role="root")]
    data = draft_root(
        keys, threshold=1, expires=NOW.date() + timedelta(days=300), policies={"strict": STRICT}, min_approvals=0,
        max_revocation_age_days=0,
    )  # fmt: skip
    path = tmp_path / "root.json"
    path.write_bytes(sign_root(data, signer(200, "root")))
    (tmp_path / "notices").mkdir()
    return path


def looked(root: Path, now: datetime = NOW) -> Fleet:
    return fleet(root.parent / "notices", root, now=now)


def put(root: Path, name: str, data: bytes) -> Path:
    path = root.parent / "notices" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def whole(root: Path) -> None:
    """A good notice of last night from every site."""
    for number, site in enumerate(SITES):
        put(root, f"{number}.json", told(site, NOW - timedelta(hours=5), signer(number)))


def test_a_hundred_sites_of_thirty_nights(root: Path) -> None:
    """Five sites have fallen silent, one never spoke, one was refused, one has little budget, one an own policy."""
    behind, silent, never = "0.9+bbbbbbbbbbbb", set(SITES[:5]), SITES[5]
    for number, site in enumerate(SITES):
        for age in range(30):
            if site == never or (site in silent and age < 3):
                continue
            odd: dict[str, Any] = {"decoct": behind} if number % 10 == 9 else {}
            if number == 6 and age == 0:
                odd = {"state": "refused", "exit_code": 13, "verdict": "FAIL", "last_good": "2026-03-30T03:00:00+00:00"}
            odd |= {"epsilon_left": 0.1} if number == 7 else {"policy_digest": "0" * 64} if number == 8 else {}
            put(root, f"{site}/{age}.json", told(site, NOW - timedelta(days=age, hours=5), signer(number), **odd))
    found = looked(root)
    assert (len(found.rows), found.level, found.refused) == (100, "CRITICAL", ())
    assert {row.notice["site"] for row in found.rows[:6]} == {*silent, never}
    assert all(row.silent and row.level == "CRITICAL" for row in found.rows[:6])
    by_site = {row.notice["site"]: row for row in found.rows}
    assert by_site[never].told == "no notice has come"
    assert "silent: no notice for 77 h" in by_site[SITES[0]].told
    assert (found.rows[6].notice["site"], found.rows[6].notice["verdict"]) == (SITES[6], "FAIL")
    assert [by_site[site].level for site in SITES[6:10]] == ["CRITICAL", "WARNING", "WARNING", "OK"]
    assert {site for site, row in by_site.items() if row.skew} == {SITES[number] for number in range(9, 100, 10)}
    assert by_site[SITES[50]].notice["ended"] == "2026-03-31T03:00:00+00:00"


def test_all_well_is_ok_and_one_site_less_is_not(root: Path) -> None:
    whole(root)
    assert looked(root).level == "OK"
    put(root, "3.json", b"")
    found = looked(root)
    assert found.level == "CRITICAL"
    assert found.rows[0].notice["site"] == SITES[3]
    assert found.rows[0].silent
    assert [file for file, _ in found.refused] == ["3.json"]


def _forged(good: dict[str, Any], data: st.DataObject) -> bytes:
    """As good as the notice, signed by another site's author, by an unlisted key, or by nobody."""
    other = data.draw(st.sampled_from((None, signer(1), signer(150))))
    return told(SITES[0], NOW - timedelta(hours=4), other)


def _altered(good: dict[str, Any], data: st.DataObject) -> bytes:
    """One field changed, taken out, or added; the signatures are as they were."""
    field = data.draw(st.sampled_from(sorted(set(good) - {"signatures"})))
    other = data.draw(st.sampled_from(("x", 3, 2.5, None, {}, "released", NOW.isoformat(timespec="seconds"))))
    if other == good[field]:
        del good[field]
    else:
        good[field] = other
    return canonical(good)


def _bytes_changed(good: dict[str, Any], data: st.DataObject) -> bytes:
    raw = bytearray(canonical(good))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    return bytes(raw)


def _respelt(good: dict[str, Any], data: st.DataObject) -> bytes:
    """The same meaning in other bytes, or signatures that are none."""
    signatures = good["signatures"]
    odd: list[Any] = [signatures * 2, [], {}, None, "x", [{"keyid": signatures[0]["keyid"], "sig": "AAAA"}]]
    choice = data.draw(st.integers(0, len(odd)))
    return json.dumps(good).encode() if choice == len(odd) else canonical(good | {"signatures": odd[choice]})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), tamper=st.sampled_from((_forged, _altered, _bytes_changed, _respelt)))
def test_no_forged_altered_or_unsigned_notice_is_believed(root: Path, data: st.DataObject, tamper: Any) -> None:
    good = told(SITES[0], NOW - timedelta(hours=5), signer(0))
    put(root, "bad.json", tamper(json.loads(good), data))
    memory = memory_of(root) / MEMORY
    before = memory.read_bytes() if memory.exists() else None
    found = looked(root)
    assert (len(found.refused), found.level) == (1, "CRITICAL")
    assert all(row.told == "no notice has come" for row in found.rows)
    assert before is None or memory.read_bytes() == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ages=st.lists(st.integers(1, 700), min_size=2, max_size=6, unique=True), copies=st.booleans())
def test_an_older_notice_never_passes_for_a_newer_one(root: Path, ages: list[int], copies: bool) -> None:
    shutil.rmtree(memory_of(root), ignore_errors=True)
    newest = min(ages)
    for age in sorted(ages, reverse=True):  # as they come, each in the place of the one before
        put(root, "0.json", told(SITES[0], NOW - timedelta(hours=age), signer(0)))
        assert not looked(root).refused
    put(root, "0.json", told(SITES[0], NOW - timedelta(hours=max(ages)), signer(0)))
    found = looked(root)
    assert [why for _, why in found.refused] == ["it is older than one that was here before"]
    row = next(row for row in found.rows if row.notice["site"] == SITES[0])
    assert (row.level, row.silent, row.notice["state"]) == ("CRITICAL", True, "")
    put(root, "0.json", told(SITES[0], NOW - timedelta(hours=newest), signer(0)))
    if copies:
        path = put(root, "copy.json", told(SITES[0], NOW - timedelta(hours=newest), signer(0), sentence="another"))
        assert len(looked(root).refused) == 1
        path.unlink()
    assert not looked(root).refused


def test_a_notice_that_is_taken_away_is_missed(root: Path) -> None:
    whole(root)
    looked(root)
    (root.parent / "notices" / "4.json").unlink()
    found = looked(root)
    assert (found.level, found.rows[0].notice["site"], found.rows[0].silent) == ("CRITICAL", SITES[4], True)
    assert "is gone" in found.rows[0].told


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ended": "2026-03-31T09:00:00+00:00"}, "future"),
        ({"ended": "2026-03-31T03:00:00"}, "wrong form"),
        ({"ended": "2026-03-31T05:00:00+02:00"}, "wrong form"),
        ({"state": "splendid"}, "wrong form"),
        ({"sentence": "\x1b[2J"}, "wrong form"),
        ({"version": True}, "wrong form"),
        ({"epsilon_left": "much"}, "wrong form"),
    ],
)
def test_what_the_site_itself_signed_is_held_to_its_form(root: Path, changes: Mapping[str, Any], why: str) -> None:
    put(root, "0.json", told(SITES[0], NOW - timedelta(hours=5), signer(0), **changes))
    assert [why in reason for _, reason in looked(root).refused] == [True]


def test_a_revoked_key_vouches_for_nothing_and_an_expired_root_for_nobody(root: Path) -> None:
    whole(root)
    key = public_key(signer(0), "").keyid
    listed = draft_revocations([key], [], version=1, issued=NOW.date())
    (root.parent / REVOCATIONS).write_bytes(sign_revocations(listed, signer(200, "root")))
    assert [why for _, why in looked(root).refused] == ["it is signed by a key that is revoked"]
    with pytest.raises(ReleaseRefused, match="expired"):
        looked(root, NOW + timedelta(days=400))


def test_a_damaged_memory_is_said_and_not_begun_anew(root: Path) -> None:
    whole(root)
    looked(root)
    (memory_of(root) / MEMORY).write_bytes(b"{}")
    with pytest.raises(EnvironmentProblem, match="is damaged"):
        looked(root)


def test_a_night_s_own_notice_is_read_and_only_an_existing_key_signs(tmp_path: Path) -> None:
    target = tmp_path / "notices" / "here.json"
    target.parent.mkdir()
    tables = {
        "name": "ward",
        "workspace": str(tmp_path / "work"),
        "source": {"kind": "embedded", "sets": ["a"]},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"private": {"kind": "private_moments"}},
        "release": {"artefact": "private", "policy": "strict", "site": "Here", "licence": "ODbL-1.0"},
        "night": {"notify_on": "all", "notify_command": ["tee", str(target)]},
    }
    plan = parse_config(tables, "a test", tmp_path)

    def ends(error: Exception) -> Any:
        def road(*_: object) -> None:
            raise error

        return road

    run_night(plan, ends(DataError("column HR holds 17 values")))
    assert json.loads(target.read_bytes())["signatures"] == []
    assert not (plan.workspace / "keys" / "author.key").exists()
    words = ["trust", "init", str(tmp_path / "root.json"), "--site", "Here", "--out", str(plan.workspace)]
    assert CliRunner().invoke(app, [*words, "--trial", "--policy", "strict"]).exit_code == 0
    asked = ["fleet", str(target.parent), "--root", str(tmp_path / "root.json")]
    answer = CliRunner().invoke(app, asked)
    assert (answer.exit_code, "it is not signed" in answer.stdout) == (2, True)
    run_night(plan, ends(DataError("column HR holds 17 values")))
    answer = CliRunner().invoke(app, asked)
    assert (answer.exit_code, "refused, exit code 11: column HR holds … values" in answer.stdout) == (2, True)
    assert run_night(plan, ends(Held("nothing new"))).state in GOOD
    answer = CliRunner().invoke(app, [*asked, "--json", "--page", str(tmp_path / "fleet.html")])
    told = json.loads(answer.stdout)
    assert (answer.exit_code, told["level"], told["rows"][0]["notice"]["site"]) == (0, "OK", "Here")
    page = (tmp_path / "fleet.html").read_text()
    assert "Here" in page
    assert STRICT[:12] in page
    assert str(tmp_path) not in page + answer.stdout + target.read_text()


def test_the_page_shows_a_site_s_words_as_words(root: Path) -> None:
    put(root, "0.json", told(SITES[0], NOW - timedelta(hours=5), signer(0), release="<b>", sentence="<script>x"))
    write_secret(root.parent / "other.key", new_secret("author"), noted=False)
    page = root.parent / "fleet.html"
    CliRunner().invoke(app, ["fleet", str(root.parent / "notices"), "--root", str(root), "--page", str(page)])
    assert "<script>" not in page.read_text()
