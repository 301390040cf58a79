"""Every byte that would leave, searched for what must not: identifiers, keys, dates, seeds, paths of the machine.

Text is matched on word boundaries, binary content as text and as little-endian numbers, secrets also in hexadecimal and
base64; parquet, safetensors, zip and gzip are opened and searched inside. Four-byte numbers occur in random payload by
chance: their expected number is computed, and only hits that chance does not explain are counted. Identifiers that are
short, or so many that most numbers of their length are one, are not looked for; the result then says so and is
under-powered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from pipeline.audit.bytes.containers import is_hidden, opened
from pipeline.audit.bytes.patterns import Hits, Patterns, patterns_of, read, scan_files, shown_names
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import BytesScene
from pipeline.audit.statistics import poisson_tail
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

KINDS = ("identifiers", "secrets", "dates", "seeds", "paths")


@final
@dataclass(frozen=True)
class ByteScan:
    """Counts what was found, kind by kind."""

    name: ClassVar[str] = "byte_scan"
    threat_model: ClassVar[ThreatModel] = "bytes"
    scene_type: ClassVar[type] = BytesScene

    def unsupported(self, scene: Any) -> str | None:
        """No file, or nothing to look for."""
        if not scene.files:
            return "there is no file to scan"
        if not (scene.identifiers or scene.secrets):
            return "neither identifiers nor secrets were given to look for"
        return None

    def run(self, scene: BytesScene, seed: int) -> tuple[AttackResult, ...]:
        """One result per kind that was asked for; paths are always looked for."""
        patterns = patterns_of(scene)
        inside = opened(scene.files)
        shown = shown_names(inside.files, patterns)
        contents = {
            shown[name]: read(data, name in inside.wrappers or is_hidden(data), name in inside.columns)
            for name, data in inside.files.items()
        }
        found = scan_files(contents, patterns)
        decoys = scan_files(contents, patterns.decoys(generator(seed, "audit", "decoys")))
        planted = scan_files({name: read(data) for name, data in patterns.planted().items()}, patterns)
        asked = {
            "identifiers": bool(scene.identifiers),
            "secrets": bool(scene.secrets),
            "dates": bool(scene.dates),
            "seeds": bool(scene.seeds),
            "paths": True,
        }
        n_bytes = sum(len(data) for data in scene.files.values())
        closed = tuple(shown[name] for name in inside.closed)
        return tuple(
            _result(scene, kind, patterns, found, decoys, planted, n_bytes, closed) for kind in KINDS if asked[kind]
        )


def _result(
    scene: BytesScene,
    kind: str,
    patterns: Patterns,
    found: Mapping[str, Hits],
    decoys: Mapping[str, Hits],
    planted: Mapping[str, Hits],
    n_bytes: int,
    closed: tuple[str, ...],
) -> AttackResult:
    hits, quiet = found[kind], decoys[kind]
    forms = patterns.forms(kind)
    share = len(planted[kind].forms) / len(forms) if forms else None
    skipped = patterns.skipped.get(kind, 0)
    expected = round(hits.expected, 4)
    return result(
        scene,
        ByteScan,
        Figure(
            "count",
            float(hits.count),  # all bytes were read: nothing is estimated
            n=n_bytes,
            powered=not closed and patterns.size(kind) > 0 and skipped == 0,
            gates=True,
            ceiling=None,
            p_value=poisson_tail(hits.count, expected) if hits.count > 0 else 1.0,
        ),
        Controls(float(quiet.count), share, quiet.count == 0 and share in (1.0, None)),
        summary=_sentence(scene.artefact, n_bytes, kind, hits, share, quiet.count),
        detail={
            "kind": kind,
            "looked_for": patterns.size(kind),
            "forms": sorted(forms),
            "found_in": {name: sorted(forms) for name, forms in sorted(hits.files.items())},
            "expected_by_chance": expected,
            "by_chance": hits.by_chance,
            "too_common_to_look_for": skipped,
            "not_opened": list(closed),
        },
    )


def _sentence(artefact: str, n_bytes: int, kind: str, hits: Hits, planted: float | None, invented: int) -> str:
    if planted is None:
        return f"The {kind} of the site are too short or too common as numbers to be looked for in {artefact}."
    where = f" in {', '.join(sorted(hits.files))}" if hits.files else ""
    return (
        f"The {n_bytes} bytes of {artefact} hold {hits.count} {kind} of the site{where}; of planted forms "
        f"{planted:.0%} are found, of invented {kind} {invented}."
    )
