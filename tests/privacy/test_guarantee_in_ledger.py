"""A guarantee is worth what was reserved for it: the gate looks into the ledger, not at what a set says of itself."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flows.stages.decide import circumstances
from flows.workspace.accounted import with_queries
from flows.workspace.job import new_job
from pipeline.core.codec import record_digest
from pipeline.core.config import Config
from pipeline.core.errors import BudgetError
from pipeline.core.types import CondensedSet, GateDecision
from pipeline.sharing.bundle.payload import public_options
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.gate import Circumstances, admit, decide
from pipeline.sharing.policy.ledger import People, ledger_path, reserve, reserved_queries
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.store import Made

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EVENTS = ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},)
QUERY = "a" * 64
Ledger = Mapping[str, Sequence[Mapping[str, Any]]]


@pytest.fixture(scope="module")
def sample() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("sample_release")
    sys.path.remove(str(BENCHMARKS))


def judged(sample: ModuleType, queries: object, ledger: Ledger) -> GateDecision:
    """The gate on the sample, as a run that noted these queries would have it judged."""
    good = sample.audited()
    config = {} if queries is None else {LEDGER_QUERIES: queries}
    provenance = dataclasses.replace(good.artefact.provenance, config=config)
    artefact: CondensedSet = dataclasses.replace(good.artefact, provenance=provenance)
    reports = [dataclasses.replace(report, artefact_digest=record_digest(artefact)) for report in good.reports]
    return decide(good.policy, artefact, reports, good.utility, Circumstances(ledger=ledger, rules={}))


def why(decision: GateDecision) -> str:
    assert decision.verdict == "FAIL"
    (reason,) = [reason for verdict, reason in decision.reasons if verdict != "PASS"]
    return reason


def test_what_was_reserved_passes(sample: ModuleType) -> None:
    assert judged(sample, [QUERY], {QUERY: EVENTS, "b" * 64: EVENTS}).verdict == "PASS"
    extra = tuple({**event, "noise_scale": 3.0, "query": "moments"} for event in EVENTS)
    assert judged(sample, [QUERY], {QUERY: extra}).verdict == "PASS"  # what only names an event costs nothing


@pytest.mark.parametrize("queries", [None, [], (), ""])
@pytest.mark.parametrize("ledger", [{}, {QUERY: EVENTS}])
def test_a_set_for_which_nothing_was_reserved_is_refused(sample: ModuleType, queries: object, ledger: Ledger) -> None:
    """A plug-in that claims epsilon 1 with fitting events, and drew no accounted noise."""
    assert "nothing was reserved in the ledger" in why(judged(sample, queries, ledger))


def test_no_default_lets_a_rule_be_skipped(sample: ModuleType) -> None:
    """The gate once took "nobody looked into a ledger" for an answer, and that was its default."""
    good = sample.audited()
    case = good.policy, good.artefact, good.reports, good.utility
    gate: Sequence[Callable[..., object]] = (decide, lambda *case: admit(good.policy, good.decision, *case[1:]))
    for asked in gate:
        with pytest.raises(TypeError, match="circumstances"):
            asked(*case)
    for left_out in ({}, {"ledger": {}}, {"rules": {}}):
        with pytest.raises(TypeError, match="required keyword-only"):
            Circumstances(**left_out)
    bare = dataclasses.replace(good.artefact, guarantee=None)
    reports = [dataclasses.replace(report, artefact_digest=record_digest(bare)) for report in good.reports]
    research = load_policy("research")  # asks for no guarantee: what claims none needs no ledger
    sentences = [told for _, told in decide(research, bare, reports, good.utility, sample.behind(bare)).reasons]
    assert not any("ledger" in told for told in sentences)


@pytest.mark.parametrize("queries", [["b" * 64], [QUERY, "b" * 64], [""], ["A" * 64], [1], [None]])
def test_a_query_that_the_ledger_does_not_hold_is_refused(sample: ModuleType, queries: list[object]) -> None:
    assert "not in this workspace's ledger" in why(judged(sample, queries, {QUERY: EVENTS}))


@pytest.mark.parametrize(
    "events",
    [
        (),
        (*EVENTS, *EVENTS),
        ({**EVENTS[0], "noise_multiplier": 4.2248},),
        ({**EVENTS[0], "event": "LaplaceDpEvent"},),
        ({"event": "GaussianDpEvent"},),
    ],
)
def test_other_events_than_were_reserved_are_refused(sample: ModuleType, events: tuple[Any, ...]) -> None:
    """Cheap noise reserved, and a dear guarantee stated; also the other way."""
    assert "other events than were reserved" in why(judged(sample, [QUERY], {QUERY: events}))


def test_the_gate_of_a_run_looks_into_its_workspaces_ledger(
    sample: ModuleType, tmp_path: Path, small_config: Callable[[Path], Config]
) -> None:
    job = new_job(small_config(tmp_path))
    good = sample.audited()
    candidate = Made((job.store.put(good.artefact),), 0.0, reused=False)
    assert circumstances(job, candidate).ledger == {}
    people = People(tuple(f"p{number}" for number in range(50)), "stay")
    reserve(tmp_path, QUERY, EVENTS, people, Budget(4.0, 1e-5, 365), "strict")
    found = circumstances(job, candidate).ledger
    assert {name: tuple(map(dict, events)) for name, events in found.items()} == {QUERY: EVENTS}
    with ledger_path(tmp_path).open("rb") as stream:
        whole = stream.readlines()
    ledger_path(tmp_path).write_bytes(whole[0])
    with pytest.raises(BudgetError, match="is not the ledger that the audit log last saw"):
        reserved_queries(tmp_path)


@pytest.fixture
def small_config() -> Callable[[Path], Config]:
    from pipeline.core.config import parse_config

    def make(workspace: Path) -> Config:
        tables = {
            "name": "small",
            "workspace": str(workspace),
            "source": {"kind": "embedded", "sets": ["a"], "max_stays": 100},
            "encode": {"raw": {"kind": "identity"}},
            "condense": {"private": {"kind": "private_moments"}},
            "release": {"artefact": "private", "policy": "strict", "site": "S", "licence": "ODbL-1.0"},
        }
        return parse_config(tables, "the test", workspace)

    return make


def test_names_of_queries_leave_with_no_bundle(sample: ModuleType) -> None:
    provenance = with_queries(sample.audited().artefact.provenance, [QUERY, QUERY, "b" * 64])
    assert provenance.config[LEDGER_QUERIES] == [QUERY, "b" * 64]
    assert public_options({**provenance.config, "epsilon": np.float64(1.0)}) == {"epsilon": 1.0}
    assert with_queries(provenance, []) is provenance
