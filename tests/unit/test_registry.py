"""Entry points of all groups: the product's own come first, and what cannot be meant is refused in one sentence."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from flows import registry
from pipeline.audit.run import DEFAULT_ATTACKS
from pipeline.audit.scene import BytesScene
from pipeline.core.errors import ConfigError
from pipeline.ingest.sources.readers import READERS
from pipeline.sharing.policy.rules import RULES


class Guest:
    name: ClassVar[str] = "guest"
    threat_model: ClassVar[str] = "bytes"
    scene_type: ClassVar[type] = BytesScene

    def unsupported(self, scene: Any) -> str | None:
        return None

    def run(self, scene: Any, seed: int) -> tuple[()]:
        return ()


def bring(monkeypatch: pytest.MonkeyPatch, group: str, **things: Any) -> None:
    """Beside what is installed, entry points of a module made up here."""
    module = ModuleType(f"made_up_{group.partition('.')[2]}_{'_'.join(things)}")
    module.__dict__.update(things)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    points = [EntryPoint(name, f"{module.__name__}:{name}", group) for name in things]
    installed = registry.entry_points

    def both(**asked: str) -> EntryPoints:
        return EntryPoints([*installed(**asked), *EntryPoints(points).select(**asked)])

    monkeypatch.setattr(registry, "entry_points", both)


def test_the_product_registers_what_it_ships() -> None:
    assert registry.attacks() == DEFAULT_ATTACKS
    assert registry.readers() == READERS
    assert registry.policy_rules() == RULES
    assert [registry.brought(group) for group in (registry.ATTACKS, registry.READERS, registry.RULES)] == [{}, {}, {}]


def test_guests_come_after_the_house(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest()
    bring(monkeypatch, registry.ATTACKS, aaa=(guest,))
    bring(monkeypatch, registry.READERS, aaa={"guest_book": dict})
    assert registry.attacks() == (*DEFAULT_ATTACKS, guest)
    assert list(registry.readers()) == [*READERS, "guest_book"]


class Impostor(Guest):
    name: ClassVar[str] = "density_membership"


@pytest.mark.parametrize(
    ("group", "thing", "told"),
    [
        (registry.ATTACKS, (Impostor(),), "'density_membership' is there twice"),
        (registry.ATTACKS, (Guest(), Guest()), "'guest' is there twice"),
        (registry.ATTACKS, ("no attack",), "'guest' holds something else"),
        (registry.ATTACKS, Guest(), "'guest' holds something else"),
        (registry.READERS, {"embedded": dict}, "'embedded' is there twice"),
        (registry.READERS, {"guest_book": "no function"}, "'guest' holds something else"),
        (registry.RULES, [dict], "'guest' holds something else"),
        (registry.RULES, {"decoct": dict}, "'decoct' is there twice"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_meant_is_refused(group: str, thing: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(monkeypatch, group, guest=thing)
    asked = {
        registry.ATTACKS: registry.attacks,
        registry.READERS: registry.readers,
        registry.RULES: registry.policy_rules,
    }
    with pytest.raises(ConfigError, match=told):
        asked[group]()


def test_an_entry_point_that_cannot_be_loaded_or_has_two_owners_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bring(monkeypatch, registry.ATTACKS, guest=(Guest(),))
    with monkeypatch.context() as patch:
        patch.delattr(sys.modules["made_up_attacks_guest"], "guest")
        with pytest.raises(ConfigError, match="'guest' cannot be loaded: AttributeError"):
            registry.attacks()
    bring(monkeypatch, registry.ATTACKS, decoct=(Guest(),))
    with pytest.raises(ConfigError, match="'decoct' has 2 owners"):
        registry.attacks()


def test_a_stages_key_knows_the_source_of_what_others_registered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of the package, as a plug-in may import from it; in whatever folder it lies."""

    def digests(folder: str, helper: str) -> dict[str, dict[str, str]]:
        package = tmp_path / folder / "guests"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "attack.py").write_text("from guests.helper import HELP\nATTACKS = ()\n")
        (package / "helper.py").write_text(helper)
        points = EntryPoints([EntryPoint("guest", "guests.attack:ATTACKS", registry.ATTACKS)])
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(package.parent))
            patch.setattr(registry, "entry_points", lambda **asked: points.select(**asked))
            patch.delitem(sys.modules, "guests", raising=False)
            return registry.brought.__wrapped__(registry.ATTACKS)

    first = digests("a", "HELP = 1")
    assert list(first) == [registry.ATTACKS]
    assert list(first[registry.ATTACKS]) == ["guest"]
    assert digests("b", "HELP = 1") == first
    assert digests("c", "HELP = 2") != first
