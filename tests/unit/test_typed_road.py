"""What feeds what is held by types: inputs in the wrong order do not pass mypy; the table is in the road's order."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

from flows import run

HEAD = """
from flows import run
from flows.stages.artefacts import Candidate, Encoded, Prepared
from pipeline.core.types import (
    Cohort, CondensedSet, GateDecision, Grouping, LeakageReport, ReleaseRecord, UtilityReport
)
from pipeline.core.types.drift import DriftReport
from pipeline.store import Made

def wrong(
    step: run.Walker, cohort: Made[Cohort], judged: Made[DriftReport], prepared: Made[Prepared],
    encoded: dict[str, Made[Encoded]], condensed: dict[str, Made[CondensedSet]], groups: Made[Grouping] | None,
    chosen: Made[Candidate], leakage: Made[LeakageReport], scores: Made[UtilityReport],
    decision: Made[GateDecision], released: Made[ReleaseRecord] | None,
) -> None:
"""
RIGHT = (
    "step(run.VALIDATE_COHORT, 'cohort', cohort)",
    "step(run.ENOUGH_NEW, cohort, judged)",
    "step(run.ENCODE, 'raw', prepared)",
    "step(run.CONDENSE, 'private', encoded['raw'], groups)",
    "step(run.VALIDATE, 'raw', encoded['raw'])",
    "step(run.UTILITY, encoded, condensed)",
    "step(run.AUDIT, prepared, encoded, condensed, chosen)",
    "step(run.DECIDE, chosen, leakage, scores)",
    "step(run.RELEASE, cohort, chosen, leakage, scores, decision)",
    "step(run.ACCEPT, cohort, judged, released)",
    "step.each({'private': run.CONDENSE.of('private', encoded['raw'], groups)})",
)
WRONG = (
    "step(run.VALIDATE_COHORT, cohort, 'cohort')",
    "step(run.VALIDATE, 'leakage', leakage)",
    "step(run.ENOUGH_NEW, judged, cohort)",
    "step(run.PREPARE, prepared)",
    "step(run.ENCODE, 'raw', encoded['raw'])",
    "step(run.ENCODE, 'raw', cohort)",
    "step(run.GROUP, encoded['raw'])",
    "step(run.CONDENSE, 'private', prepared, groups)",
    "step(run.CONDENSE, 'private', groups, encoded['raw'])",
    "step(run.UTILITY, condensed, encoded)",
    "step(run.FLOOR, leakage, step.made)",
    "step(run.CANDIDATE, condensed, encoded)",
    "step(run.AUDIT, chosen, encoded, condensed, prepared)",
    "step(run.AUDIT, prepared, condensed, encoded, chosen)",
    "step(run.DECIDE, leakage, chosen, scores)",
    "step(run.DECIDE, chosen, scores, leakage)",
    "step(run.RELEASE, cohort, leakage, chosen, scores, decision)",
    "step(run.RELEASE, cohort, chosen, leakage, decision, scores)",
    "step(run.RELEASE, prepared, chosen, leakage, scores, decision)",
    "step(run.ACCEPT, judged, cohort, released)",
    "step(run.ENFORCE, chosen, scores, leakage, decision)",
    "step(run.ENFORCE, encoded['raw'], leakage, scores, decision)",
    "step.each({'private': run.CONDENSE.of('private', prepared, groups)})",
)


@pytest.mark.slow
def test_inputs_in_the_wrong_order_do_not_type_check(tmp_path: Path) -> None:
    snippet = tmp_path / "swapped.py"
    snippet.write_text(HEAD + "".join(f"    {line}\n" for line in (*RIGHT, *WRONG)))
    config = Path(run.__file__).parents[1] / "pyproject.toml"
    told, problems, _ = api.run(["--strict", "--config-file", str(config), "--no-error-summary", str(snippet)])
    assert not problems
    faulty = {int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line and "swapped.py" in line}
    lines = snippet.read_text().splitlines()
    first = len(lines) - len(WRONG)
    assert {lines[number - 1].strip() for number in faulty} == set(WRONG)
    assert faulty == set(range(first + 1, len(lines) + 1))


TABLE = [stage for stage in vars(run).values() if isinstance(stage, run.Stage)]


def test_a_verb_s_stages_stand_after_those_of_earlier_verbs() -> None:
    """So that leaving out all later ones leaves out nothing that is needed; gates are asked by the last verb alone."""
    verbs = [run.VERBS.index(stage.verb) for stage in TABLE if not stage.gate]
    assert verbs == sorted(verbs)
    assert set(verbs) == set(range(len(run.VERBS)))
    assert {stage.verb for stage in TABLE if stage.gate} == {run.VERBS[-1]}
    assert [stage.name for stage in TABLE if stage.gate] == ["drift", "enough new", "releasable", "floor"]


def test_inputs_by_name_are_refused() -> None:
    step = run.Walker(lambda label, stage, inputs: None)
    with pytest.raises(TypeError, match="in their order"):
        step(run.PREPARE, cohort=None)
    assert run.ENCODE.label(("raw", None)) == "encode raw"
    assert run.PREPARE.label((None,)) == "prepare"
