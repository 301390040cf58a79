"""T7: does a model that was trained on the set tell who is behind it? A record goes in, probabilities come out.

The attacker holds a person's whole record and the answers of one receiver's model. Scores (larger = member):

- the loss of the true labels, negated (Yeom et al., IEEE CSF 2018, arXiv 1709.01604);
- the likelihood ratio of the model to reference models that he trains on sets of his own patients: easy records are
  easy for every model (the offline test of RMIA, Zarifzadeh et al., ICML 2024, arXiv 2312.03262; its comparison with
  records of the population ranks people alike, because the model is one);
- that ratio in units of its spread over the reference models (Carlini et al., IEEE S&P 2022, arXiv 2112.03570).

The score, its sign and the thresholds are chosen on one half of the people and reported on the other, as for membership
in the set. How a receiver trains is handed in as a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np
import torch
from torch import nn

from pipeline.audit.once import Piece
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene, Receiver
from pipeline.audit.sets.membership import halves, judge
from pipeline.audit.sets.population import REFERENCE_SHARE
from pipeline.audit.sets.reached import FPR, Reached
from pipeline.audit.sets.summary_table import one_each
from pipeline.audit.statistics import smallest_fpr
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import AttackResult, AuditPiece, ThreatModel
from pipeline.probes.training import masked_loss

N_REFERENCES: Final = 3
MAX_TARGETS: Final = 2000  # of each kind
N_OVERFITTED: Final = 50  # members in the planted leak; of 100 a network of this size remembers less
HIDDEN: Final = 256  # of the planted leak's network: more weights than fifty people need
BY_HEART_STEPS: Final = 300
BY_HEART_RATE: Final = 3e-3
BY_HEART_POINTS: Final = 12  # of a series: every n-th step is enough to know a person by
FOUND: Final = 0.7  # AUROC that the planted leak must reach: with 50 members it has .80 +- .03
MIN_PROBABILITY: Final = 1e-4
REFERENCES: Final = "reference models"
MEMORISED: Final = "a model that memorised its patients"


@final
@dataclass(frozen=True, eq=False)
class Records:
    """One stay of each person with at least one known label: `(person, step, channel)` and `(person, task)`."""

    series: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Records:
        """The people at `rows`."""
        return Records(self.series[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.series)


@final
@dataclass(frozen=True, eq=False)
class People:
    """Members, others who are in nothing, and the attacker's own patients."""

    members: Records
    others: Records
    own: Records


def people(scene: CondensedScene, seed: int) -> People:
    """At most `MAX_TARGETS` members and others, one stay each; part of the holdout is the attacker's own."""
    rng = generator(seed, "audit", "model membership", "people")
    assert scene.member_labels is not None  # `unsupported` was asked
    assert scene.holdout_labels is not None
    inside = _labelled(scene.members, scene.member_labels, scene.member_subjects, rng)
    outside = _labelled(scene.holdout, scene.holdout_labels, scene.holdout_subjects, rng)
    n_own = int(REFERENCE_SHARE * len(outside))
    others = np.arange(n_own, len(outside))[:MAX_TARGETS]
    return People(
        inside.take(np.arange(len(inside))[:MAX_TARGETS]), outside.take(others), outside.take(np.arange(n_own))
    )


def _labelled(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, rng: np.random.Generator) -> Records:
    known = np.flatnonzero(np.isfinite(labels).any(axis=1))
    rows = known[one_each(subjects[known], rng)] if len(known) else known
    rows = rng.permutation(rows)
    return Records(np.asarray(series[rows]), labels[rows])


def log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over a record's known tasks of y log p + (1 - y) log(1 - p): `(record,)`, the negative of its loss."""
    p = np.clip(probabilities.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    known = np.isfinite(labels)
    y = np.where(known, labels, 0.0)
    return np.asarray((known * (y * np.log(p) + (1 - y) * np.log1p(-p))).sum(axis=1) / known.sum(axis=1))


def scores(model: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
    """The attacker's scores from log-likelihoods of the model, `(record,)`, and references, `(reference, record)`."""
    usual = np.log(np.exp(references).mean(axis=0))
    spread = references.std(axis=0) + 0.1
    return {
        "loss": model,
        "likelihood ratio": model - usual,
        "standardised loss": (model - references.mean(axis=0)) / spread,
    }


def drawn(own: Records, n: int, rng: np.random.Generator) -> Records:
    """A set of the attacker's own patients as a receiver would get one: `n` records, half of either first label."""
    first = own.labels[:, 0]
    positive = np.flatnonzero(first >= 0.5)
    kinds = [rng.permutation(positive), rng.permutation(np.setdiff1d(np.arange(len(own)), positive))]
    rows = np.concatenate([kind[: max(1, n // 2)] for kind in kinds])
    return own.take(rng.permutation(rows))


@final
@dataclass(frozen=True)
class _Game:
    """Answers of models on the people who are asked about."""

    receiver: Receiver
    parts: People
    seed: int

    def answers(self, training: Records, asked: Records, name: str) -> np.ndarray:
        """Log-likelihoods of the asked people under a model that a receiver trained: `(record,)`."""
        seed = child_seed(self.seed, "audit", "model membership", name)
        return log_likelihood(self.receiver(training.series, training.labels, asked.series, seed), asked.labels)

    def judged(self, model: np.ndarray, members: Records, references: np.ndarray, name: str) -> Reached:
        """Members against others by a model's answers, `(member + other,)`, and those of references, a row each."""
        found = scores(model, references)
        inside = {score: values[: len(members)] for score, values in found.items()}
        outside = {score: values[len(members) :] for score, values in found.items()}
        rng = generator(self.seed, "audit", "model membership", "halves", name)
        return judge(inside, outside, halves(len(members), rng), halves(len(self.parts.others), rng))

    def references(self, asked: Records, n: int) -> np.ndarray:
        """`(reference, record)` under models of sets of `n` of the attacker's own patients."""
        found = []
        for number in range(N_REFERENCES):
            rng = generator(self.seed, "audit", "model membership", "reference", number)
            found.append(self.answers(drawn(self.parts.own, n, rng), asked, f"reference {number}"))
        return np.stack(found)


def _both(a: Records, b: Records) -> Records:
    return Records(np.concatenate([a.series, b.series]), np.concatenate([a.labels, b.labels]))


def overfitted(parts: People, seed: int) -> Reached:
    """The planted leak: a small network that has learnt fifty members by heart, against the same attack."""
    game = _Game(by_heart, parts, seed)
    members = parts.members.take(np.arange(min(N_OVERFITTED, len(parts.members))))
    answers = game.answers(members, _both(members, parts.others), "overfitted")
    return game.judged(answers, members, np.zeros((1, len(answers))), "overfitted")  # the loss alone must tell them


def by_heart(series: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """One hidden layer, trained far beyond what generalises: a `Receiver` that must be caught."""
    every = max(1, series.shape[1] // BY_HEART_POINTS)
    known, wanted = (torch.from_numpy(_standardised(part[:, ::every], series[:, ::every])) for part in (series, asked))
    truth = torch.from_numpy(labels.astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = nn.Sequential(nn.Linear(known.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, truth.shape[1]))
    optimizer = torch.optim.Adam(network.parameters(), lr=BY_HEART_RATE)
    for _ in range(BY_HEART_STEPS):
        loss = masked_loss(network(known), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        optimizer.step()
    with torch.no_grad():
        return np.asarray(torch.sigmoid(network(wanted)).numpy())


def _standardised(series: np.ndarray, by: np.ndarray) -> np.ndarray:
    """`(record, step * channel)` float32 in units of each channel's spread."""
    scaled = np.clip((series - by.mean(axis=(0, 1))) / (by.std(axis=(0, 1)) + 1e-6), -5, 5)
    return np.asarray(scaled.reshape(len(series), -1), np.float32)


@final
@dataclass(frozen=True)
class ModelMembership:
    """Membership of training subjects by the answers of a model trained on the set."""

    name: ClassVar[str] = "model_membership"
    threat_model: ClassVar[ThreatModel] = "T7"
    scene_type: ClassVar[type] = CondensedScene

    def unsupported(self, scene: Any) -> str | None:
        """No way to train a receiver's model, no labels, or too few subjects."""
        if scene.receiver is None or scene.member_labels is None or scene.holdout_labels is None:
            return "no way to train a receiver's model, or no labels of members and holdout, were given"
        if len(scene.condensed.features) == 0 or not np.isfinite(scene.condensed.labels).any():
            return "the set holds no labelled sample: no model can be trained on it"
        for labels, who in (
            (scene.member_labels, scene.member_subjects),
            (scene.holdout_labels, scene.holdout_subjects),
        ):
            if len(np.unique(who[np.isfinite(labels).any(axis=1)])) < 10 * MIN_SUBJECTS:
                return f"fewer than {10 * MIN_SUBJECTS} labelled subjects among members or holdout"
        return None

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """Two results: the AUROC, which decides, and TPR at 1 % FPR (or at the smallest rate that n supports).

        The latter is only shown: records that a model learnt by heart and records that are easy have equal losses, so
        that at 1 % even the planted leak is hardly named.
        """
        assert scene.receiver is not None  # `unsupported` says so otherwise
        parts = people(scene, seed)
        usual = scene.piece(self, seed, REFERENCES)
        shared = Records(scene.condensed.features, scene.condensed.labels)
        game = _Game(scene.receiver, parts, seed)
        answers = game.answers(shared, _both(parts.members, parts.others), "set")
        found = game.judged(answers, parts.members, usual.numbers, "set")
        positive = from_plain(Reached, dict(scene.piece(self, seed, MEMORISED).facts))
        return _results(scene, found, positive, from_plain(Reached, dict(usual.facts)))

    def pieces(self, scene: CondensedScene, seed: int) -> Mapping[str, Piece]:
        """The attacker's own models, of sets of the set's size, and what the others make of one; the planted leak.

        The network that memorises is the attack's own, and takes no receiver.
        """
        n = len(scene.condensed.features)

        def references() -> AuditPiece:
            assert scene.receiver is not None  # `unsupported` says so otherwise
            parts = people(scene, seed)
            game = _Game(scene.receiver, parts, seed)
            known = game.references(_both(parts.members, parts.others), n)
            return AuditPiece(to_plain(game.judged(known[0], parts.members, known[1:], "strangers")), known)

        def memorised() -> AuditPiece:
            return AuditPiece(to_plain(overfitted(people(scene, seed), seed)))

        return {
            REFERENCES: Piece(("source", "receiver"), references, {"samples": n}),
            MEMORISED: Piece(("source",), memorised),
        }


def _results(scene: CondensedScene, found: Reached, positive: Reached, negative: Reached) -> tuple[AttackResult, ...]:
    held = positive.auroc.value >= FOUND and positive.auroc.low > 0.5
    held = held and negative.auroc.at_most_a_coin and negative.names_nobody
    detail: dict[str, Any] = {
        **found.facts(),
        **found.not_measurable(FPR),
        "n_references": N_REFERENCES,
        "auroc_p_value": found.p_value,
        "smallest_supportable_fpr": round(smallest_fpr(found.others), 5),
        "positive_control": f"a small network that memorised {N_OVERFITTED} members",
    }

    def told(figure: Figure, what: str, control: float, planted: float, more: dict[str, Any]) -> AttackResult:
        return result(
            scene,
            ModelMembership,
            figure,
            Controls(control, planted, held),
            summary=f"Who has a model trained on {scene.artefact} and a patient's record tells training subjects from "
            f"others: {what} {figure.value} (n = {found.members} + {found.others} subjects); under a model of other "
            f"people {control:.2f}, under one that memorised its patients {planted:.2f}.",
            detail={**detail, **more},
        )

    share = f"share named at {found.fpr:.1%} false alarms"
    return (
        told(found.ranked(found.p_value), "AUROC", negative.auroc.value, positive.auroc.value, {}),
        told(found.named(gates=False), share, negative.tpr.value, positive.tpr.value, found.curve()),
    )
