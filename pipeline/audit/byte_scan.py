"""Every byte that would leave, searched for what must not: identifiers, keys, dates, seeds, paths of the machine.

Text is matched on word boundaries, binary content as text, as little-endian numbers and as hexadecimal or base64 forms
of the secrets; parquet, zip and gzip are opened and searched inside. Four-byte numbers occur in random payload by
chance: their expected number is computed and only a number of hits that chance does not explain is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from pipeline.audit.containers import opened
from pipeline.audit.patterns import Hits, Patterns, patterns_of, read, scan_files
from pipeline.audit.scene import BytesScene
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, LeakageReport, ThreatModel

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
        files, closed = opened(scene.files)
        contents = {name: read(data) for name, data in files.items()}
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
        return tuple(
            _result(scene, kind, patterns, found, decoys, planted, n_bytes, closed) for kind in KINDS if asked[kind]
        )


def scan_bytes(scene: BytesScene, *, seed: int) -> LeakageReport:
    """The byte scan alone as a report, for the moment before signing.

    Raises:
        DataError: there is nothing to scan or nothing to look for.
    """
    from pipeline.audit.run import audit  # the other way round at import time

    return audit([scene], seed=seed, attacks=(ByteScan(),))[0]


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
    share = len(planted[kind].forms) / max(1, len(patterns.forms(kind)))
    skipped = patterns.skipped.get(kind, 0)
    where = f" in {', '.join(sorted(hits.files))}" if hits.files else ""
    return AttackResult(
        attack=ByteScan.name,
        threat_model="bytes",
        artefact=scene.artefact,
        statistic="count",
        rate=float(hits.count),
        low=float(hits.count),  # all bytes were read: nothing is estimated
        high=float(hits.count),
        n=n_bytes,
        control=float(quiet.count),
        positive_control=share,
        ceiling=None,
        gates=True,
        summary=f"The {n_bytes} bytes of {scene.artefact} hold {hits.count} {kind} of the site{where}; of "
        f"planted forms {share:.0%} are found, of invented {kind} {quiet.count}.",
        detail={
            "kind": kind,
            "looked_for": patterns.size(kind),
            "forms": sorted(patterns.forms(kind)),
            "found_in": {name: sorted(forms) for name, forms in sorted(hits.files.items())},
            "expected_by_chance": round(hits.expected, 4),
            "by_chance": hits.by_chance,
            "too_short_to_look_for": skipped,
            "not_opened": list(closed),
            "controls_held": quiet.count == 0 and share == 1.0,
            "powered": not closed and patterns.size(kind) > 0,
        },
    )
