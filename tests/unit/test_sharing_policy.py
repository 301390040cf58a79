"""Policy files: shipped ones load and differ as they say; a misspelt, missing or ill-typed key is refused by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.sharing.policy.load import load_policy, shipped_digests, shipped_policies

STRICT = (Path(__file__).parents[2] / "pipeline" / "sharing" / "policies" / "strict.toml").read_text()


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert STRICT.count(old) >= 1, old
    path = tmp_path / "house.toml"
    path.write_text(STRICT.replace(old, new, 1))
    return path


def test_the_shipped_policies_load() -> None:
    assert shipped_policies() == ("agreement", "demo", "research", "strict")
    digests = {load_policy(name).digest for name in shipped_policies()}
    assert len(digests) == 4
    assert all(load_policy(name).name == name for name in shipped_policies())


def test_rows_of_people_leave_only_under_the_agreement() -> None:
    with_rows = [name for name in shipped_policies() if "encoded" in load_policy(name).release_kinds]
    assert with_rows == ["agreement"]
    assert load_policy("agreement").require_agreement


def test_only_what_leaves_under_the_agreement_must_be_encrypted() -> None:
    assert [name for name in shipped_policies() if load_policy(name).encrypted] == ["agreement"]


def test_only_strict_and_agreement_are_for_production() -> None:
    assert [name for name in shipped_policies() if load_policy(name).production] == ["agreement", "strict"]


def test_sets_that_start_from_records_leave_only_under_the_agreement() -> None:
    assert [name for name in shipped_policies() if load_policy(name).allow_starts_from_records] == ["agreement"]


def test_no_policy_releases_random_real_stays() -> None:
    assert all("random_real" in load_policy(name).refused_methods for name in shipped_policies())


def test_the_demo_policy_is_never_looser_than_strict_but_for_the_figure_that_needs_many_people() -> None:
    strict, demo = load_policy("strict"), load_policy("demo")
    assert (demo.release_kinds, demo.require_guarantee) == (strict.release_kinds, strict.require_guarantee)
    assert (demo.max_epsilon, demo.max_delta) == (strict.max_epsilon, strict.max_delta)
    extra = set(demo.limits) - set(strict.limits)
    assert set(strict.limits) <= set(demo.limits)
    assert {limit.statistic for limit in extra} == {"tpr_at_smallest_fpr"}
    assert (demo.units, demo.threat_models) == (strict.units, strict.threat_models)


def test_the_strict_limit_on_members_found_is_what_its_epsilon_allows() -> None:
    """(epsilon, delta) implies TPR <= e^epsilon * FPR + delta; the limit rounds that up by less than 0.002."""
    strict = load_policy("strict")
    limit = strict.limit("density_membership", "tpr_at_1pct_fpr")
    assert limit is not None
    assert limit.max_upper is not None
    assert 0 <= limit.max_upper - (0.01 * math.exp(strict.max_epsilon) + strict.max_delta) < 0.002


def test_the_most_particular_limit_is_found() -> None:
    strict, agreement = load_policy("strict"), load_policy("agreement")
    assert strict.limit("anything", "count") is strict.limits[0]
    assert strict.limit("density_membership", "unheard_of") is None
    found = agreement.limit("known_key_inversion", "r2")
    assert found is not None
    assert found.max_upper is None


def test_a_path_loads_like_a_name(tmp_path: Path) -> None:
    path = tmp_path / "strict.toml"
    path.write_text(STRICT)
    assert load_policy(path).digest == load_policy("strict").digest


def test_the_digest_follows_every_rule(tmp_path: Path) -> None:
    path = changed(tmp_path, 'name = "strict"', 'name = "house"')
    house = load_policy(path).digest
    path.write_text(path.read_text().replace("max_epsilon = 2.0", "max_epsilon = 2.5"))
    assert len({load_policy(path).digest, house, load_policy("strict").digest}) == 3


@pytest.mark.parametrize(
    "name",
    ["strict", "Strict", "STRICT", "s trict", "strict.", "\uff53\uff54rict", "str\u200bict", "\u0455trict", "demo"],
)
def test_a_policy_that_only_calls_itself_strict_is_refused(name: str, tmp_path: Path) -> None:
    """The research policy's rules under another's name: whoever reads the verdict would take it for that one's."""
    raw = STRICT.replace('name = "strict"', f'name = "{name}"').replace("needed = 1", "needed = 0")
    (tmp_path / "strict.toml").write_text(raw, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not the policy of that name that ships|name must be of ASCII letters"):
        load_policy(tmp_path / "strict.toml")


def test_digests_of_shipped_policies_are_computed_from_their_files() -> None:
    assert shipped_digests() == {name: load_policy(name).digest for name in shipped_policies()}
    assert set(shipped_digests(production=True)) == {"agreement", "strict"}
    assert set(shipped_digests(production=False)) == {"demo", "research"}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("production = true", "prodcution = true", "unknown key prodcution"),
        ("production = true", "", "key production is missing"),
        ("production = true", "production = 1", "production must be of type bool"),
        ("max_epsilon = 2.0", "max_epsilom = 2.0", r"unknown key guarantee\.max_epsilom"),
        ("max_epsilon = 2.0", "max_epsilon = true", r"guarantee\.max_epsilon must be of type float"),
        ("max_epsilon = 2.0", "max_epsilon = inf", r"guarantee\.max_epsilon must be finite"),
        ("max_epsilon = 2.0", "max_epsilon = nan", r"guarantee\.max_epsilon must be finite"),
        ("max_delta = 1e-5", "max_delta = 1.0", r"guarantee\.max_delta must lie in"),
        ("encrypted = false", "", r"key release\.encrypted is missing"),
        ("encrypted = false", "encrypted = 0", r"release\.encrypted must be of type bool"),
        ("valid_days = 365", "valid_days = 0", r"release\.valid_days must be between"),
        ("most_per_period = 366", "most_per_period = 0", r"release\.most_per_period must be at least 1"),
        ('kinds = ["condensed", "moments"]', 'kinds = ["everything"]', r"release\.kinds must name"),
        ('kinds = ["condensed", "moments"]', 'kinds = ["encoded"]', r"audit\.encoded must name at least one attack"),
        ("max_upper = 0.60", "max_uper = 0.60", r"unknown key limits\[1\]\.max_uper"),
        ("max_upper = 0.60", 'max_upper = "all"', r"limits\[1\]\.max_upper must be a number"),
        ("max_upper = 0.60", "max_upper = nan", r"limits\[1\]\.max_upper must be a number"),
        ("max_upper = 0.60", "max_upper = -1", r"limits\[1\]\.max_upper must be a number"),
        ("min_n = 200", "min_n = 0", "min_n of at least 1"),
        ('statistic = "tpr_at_1pct_fpr"', 'statistic = "auroc"', "twice"),
        ("[utility]", "[utilty]", "unknown key utilty"),
        ("rounding = 0.05", "rounding = 0.0", r"card\.rounding must lie"),
        ('statistic = "auroc"', 'statistic = "closest_record_ratio"', "can be shown and never decides"),
        ('"near_copies:count"', '"near_copies:mutual_information"', "can be shown and never decides"),
        ("expires = 2028-06-30", 'expires = "2028-06-30"', "expires must be of type date"),
        ("expires = 2028-06-30", "expires = 2028-06-30T10:00:00", "expires must be of type date"),
        ('"stay_if_no_subjects"', '"household"', r"guarantee\.units must name"),
        ('on_regression = "tell"', 'on_regression = "shout"', r"history\.on_regression must be one of"),
        ('condensed = ["T6"]', 'condensed = ["T9"]', "threat_models must name"),
        ('condensed = ["T6"]', "condensed = []", r"threat_models\.condensed must name at least one"),
        ("format = 2", "format = 3", "not of format 2"),
        ("small_cell = 10", "small_cell = 0", r"audit\.small_cell must be at least 1"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 10


def test_every_rule_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "house.toml"
    path.write_text("\n".join('why = ""' if line.startswith("why") else line for line in STRICT.splitlines()))
    with pytest.raises(ConfigError, match="gives no reason"):
        load_policy(path)


def test_unknown_names_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no policy is called 'lenient'; shipped are agreement, demo"):
        load_policy("lenient")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_policy(tmp_path / "broken.toml")


def test_a_policy_of_the_first_format_gives_one_sentence(tmp_path: Path) -> None:
    new = ("format", "expires", "countersign", "units", "on_regression")
    old = "\n".join(line for line in STRICT.splitlines() if not line.startswith(new))
    (tmp_path / "old.toml").write_text(old)
    with pytest.raises(ConfigError, match=r"not of format 2: start from a shipped policy") as caught:
        load_policy(tmp_path / "old.toml")
    assert str(caught.value).count("policy file") == 1


def test_every_limit_of_a_shipped_policy_stands_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "policies.md").read_text(encoding="utf-8")
    for name in shipped_policies():
        for limit in load_policy(name).limits:
            shown = "any" if limit.max_upper is None else f"{limit.max_upper:g}"
            assert f"| {name} | {limit.attack} | {limit.statistic} | {shown} | {limit.min_n} |" in page, (name, limit)
