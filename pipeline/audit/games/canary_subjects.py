"""T6, canaries: the lower bound on epsilon that calling the set's own mechanism gives, against the claim.

The figure that decides is by how much the lower bound exceeds the claim: 0, or the implementation is not what the
guarantee says and nothing it made may leave. The bound itself, and the largest that this audit could have found, are in
the summary and the detail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

from pipeline.audit.foreseen import Crowd
from pipeline.audit.games.release_game import CANARIES, CONFIDENCE, ROUNDS, Game, is_gaussian, play
from pipeline.audit.once import Piece
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import CondensedScene
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.types import AttackResult, AuditPiece, ThreatModel

STATISTIC: Final = "epsilon_above_claim"
GAME: Final = "game"


@final
@dataclass(frozen=True)
class CanarySubjects:
    """The game on releases, for sets and moments that carry a Gaussian claim."""

    rounds: int = ROUNDS

    name: ClassVar[str] = "canary_subjects"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene

    holds_back: ClassVar[bool] = True  # and needs a guarantee, which not every set has

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """The game's rounds, whoever is in the cohort."""
        return {STATISTIC: self.rounds}

    def unsupported(self, scene: Any) -> str | None:
        """Nothing claimed, nothing to call, or a claim that is not Gaussian."""
        if scene.condensed.guarantee is None:
            return "the set carries no privacy guarantee, so there is no claim to refute"
        if scene.mechanism is None:
            return "the mechanism that made the set was not handed to the audit"
        if not is_gaussian(scene.mechanism.guarantee):
            return "the claim rests on other events than Gaussian queries"
        return None

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """One result."""
        assert scene.mechanism is not None  # `unsupported` says so otherwise
        return (_result(scene, from_plain(Game, dict(scene.piece(self, seed, GAME).facts))),)

    def pieces(self, scene: CondensedScene, seed: int) -> Mapping[str, Piece]:
        """The game: on cohorts that the audit makes up, so that no stay and no set matters."""

        def played() -> AuditPiece:
            assert scene.mechanism is not None  # `unsupported` says so otherwise
            return AuditPiece(to_plain(play(scene.mechanism, seed=seed, rounds=self.rounds)))

        return {GAME: Piece(("mechanism",), played, {"rounds": self.rounds})}


def _result(scene: CondensedScene, game: Game) -> AttackResult:
    found, above = game.found, max(0.0, game.found.epsilon - game.claim)
    verdict = "the claim is refuted" if above else "the claim is not refuted"
    return result(
        scene,
        CanarySubjects,
        Figure(
            STATISTIC,
            above,
            n=found.rounds,
            powered=found.ceiling > game.claim,
            gates=True,
            ceiling=max(0.0, found.ceiling - game.claim),
            p_value=1.0 - CONFIDENCE if above else 1.0,
        ),
        Controls(
            max(0.0, game.quiet.epsilon - game.claim), max(0.0, game.planted.epsilon - game.claim), game.controls_held
        ),
        summary=f"Canaries put into the mechanism of {scene.artefact} show that its epsilon is at least "
        f"{found.epsilon:.2f}; it claims {game.claim:g}, so {verdict} (at most {found.ceiling:.2f} could have been "
        f"shown; half the noise would have shown {game.planted.epsilon:.2f}).",
        detail={
            "epsilon_lower_bound": round(found.epsilon, 4),
            "epsilon_claimed": game.claim,
            "epsilon_ceiling": round(found.ceiling, 4),
            "delta": game.delta,
            "confidence": CONFIDENCE,
            "half_the_noise_shows": round(game.planted.epsilon, 4),
            "without_canaries_shows": round(game.quiet.epsilon, 4),
            "rounds_won": found.won,
            "rounds": found.rounds,
            "canary": CANARIES[game.canary],
            "canaries_in_a_group": game.group,
            "score": game.score,
            "releases": game.releases,
            "assumes": "the claim's own Gaussian trade-off; everybody but the canaries known",
        },
    )
