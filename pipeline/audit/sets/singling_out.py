"""WP216's singling out: does the set yield a description that fits exactly one person, and is that person a member?

After Giomi et al. (arXiv 2211.10459): the attacker reads descriptions off the samples, such as "mean heart rate of at
least 110 and lowest sodium of at most 128", and hopes that each fits one record. The pool is all members and all of the
control; a description that fits exactly one record hits a member or one of the control, whose share is scaled up by
the number of members. Without the artefact he combines values of different people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from scipy import stats

from pipeline.audit.excess import STATISTIC, Arms, Excess, Hits, Told, best_variant, excess_result, reported
from pipeline.audit.foreseen import Crowd
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.summary_table import Table, Tables, tables
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

SIZES = (1, 2, 4, 8)  # columns in a description
DESCRIPTIONS = 1000  # of each kind and size, spread over the samples
CLOSE = 0.05  # "about the value": within so many standard deviations
SLACK = 1e-4  # standard deviations that are rounding
MIN_SAMPLES = 40
WIDEST = 0.05  # half of what the shipped policies allow at most
MOST = 100  # descriptions of one sample, however few samples there are


def unsupported_people(scene: CondensedScene) -> str | None:
    """Why a condensed set cannot be held against members and control, or None."""
    if len(scene.condensed.features) < MIN_SAMPLES:
        return f"the set holds fewer than {MIN_SAMPLES} samples: no excess of 0.1 could be excluded"
    return scene.lacks(subjects=10 * MIN_SUBJECTS)


def foreseen_excess(crowd: Crowd, clusters: int) -> dict[str, int]:
    """What an attack on people gives of so many clusters: those on which the best variant is not chosen."""
    can = crowd.samples >= MIN_SAMPLES and crowd.each(10 * MIN_SUBJECTS)
    return {STATISTIC: reported(clusters)} if can else {}


@dataclass(frozen=True)
class _Descriptions:
    """`columns` and `values` `(description, size)`: x is near the value, or beyond it away from the median."""

    columns: np.ndarray
    values: np.ndarray
    near: bool

    def fits(self, values: np.ndarray) -> np.ndarray:
        """`(description, record)` bool."""
        found = np.ones((len(self.columns), len(values)), bool)
        for place in range(self.columns.shape[1]):
            x, asked = values.T[self.columns[:, place]], self.values[:, place, None]
            if self.near:
                found &= np.abs(x - asked) <= CLOSE
            else:
                found &= np.where(asked > 0, x >= asked - SLACK, x <= asked + SLACK)
        return found


def _read_off(samples: np.ndarray, size: int, near: bool, rng: np.random.Generator) -> tuple[_Descriptions, np.ndarray]:
    """Descriptions of the samples by random columns, and which sample each is of."""
    each = min(MOST, max(1, DESCRIPTIONS // len(samples)))
    origin = np.repeat(np.arange(len(samples)), each)
    columns = rng.random((len(origin), samples.shape[1])).argsort(axis=1)[:, : min(size, samples.shape[1])]
    return _Descriptions(columns, samples[origin[:, None], columns], near), origin


def _mixed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every column of the samples shuffled by itself: values that occur, of no person."""
    return rng.permuted(samples, axis=0)


def attempts(samples: Table, members: Table, control: Table, population: Table, seed: int) -> dict[str, Arms]:
    """Every variant's descriptions, and whether each fits exactly one record, a member or one of the control."""
    rng = generator(seed, "audit", "singling out")
    pool = np.concatenate([members.values, control.values])
    few = population.values[rng.permutation(len(population))[: len(samples)]]
    found = {}
    for near in (False, True):
        for size in SIZES:
            described, origin = _read_off(samples.values, size, near, rng)
            guessed, guessed_of = _read_off(_mixed(few, rng), size, near, rng)
            inside, outside, whom = _isolated(described.fits(pool), len(members), origin)
            blind, _, met = _isolated(guessed.fits(pool), len(members), guessed_of)
            name = f"{size} {'values met nearly' if near else 'limits met'}"
            scale = len(members) / len(control)
            hits = Hits(inside, origin, whom), Hits(outside, origin, whom), Hits(blind, guessed_of, met)
            found[name] = Arms(*hits, scale)
    return found


def _isolated(fits: np.ndarray, n_members: int, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each description fits exactly one record, that is a member, or is one of the control; and which record.

    A record counts for one sample only, the first: an unusual one is met by descriptions of many samples, and counting
    it each time would take one person for many.
    """
    one = fits.sum(axis=1) == 1
    record = fits.argmax(axis=1)
    first = np.full(fits.shape[1], -1)
    first[record[one][::-1]] = origin[one][::-1]
    counted = one & (first[record] == origin)
    return counted & (record < n_members), counted & (record >= n_members), record


@final
@dataclass(frozen=True)
class SinglingOut:
    """Excess risk of being singled out by a description read off the set."""

    name: ClassVar[str] = "singling_out"
    threat_model: ClassVar[ThreatModel] = "T0"
    scene_type: ClassVar[type] = CondensedScene
    holds_back: ClassVar[bool] = True

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """The excess risk, over the samples that are described."""
        return foreseen_excess(crowd, crowd.samples)

    def unsupported(self, scene: Any) -> str | None:
        """Too few samples or subjects."""
        return unsupported_people(scene)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: the excess risk of the best kind of description."""
        parts = tables(scene, seed)

        def reached(samples: Table, name: str, members: Table | None = None) -> Any:
            inside = parts.members if members is None else members
            variants = attempts(samples, inside, parts.control, parts.population, seed)
            return best_variant(variants, generator(seed, "audit", "singling out", name))

        found, positive = reached(parts.samples, "set"), reached(planted(parts, seed), "planted")
        negative = reached(strangers(parts, seed), "strangers")
        people = {"n_members": len(parts.members), "n_others": len(parts.control)}
        told = Told("finds a description that fits exactly one person", "samples described", gates=True, widest=WIDEST)
        detail = {**people, "descriptions_of_a_sample": _each(parts), "wp216": "singling out"}
        p = by_people(found, *people.values())
        return (excess_result(scene, self, told, found, positive, negative, detail, p),)


def by_people(found: Excess, members: int, others: int) -> float:
    """One-sided: more of the different people who were singled out are members than by their number in the pool.

    Exact, given a set that does not depend on who is a member: the people whom it singles out are then as good as drawn
    from the pool. The interval of the excess knows less, because a description hits a member *or* another.
    """
    return float(stats.binom.sf(found.hit - 1, found.hit + found.hit_others, members / (members + others)))


def _each(parts: Tables) -> int:
    return min(MOST, max(1, DESCRIPTIONS // len(parts.samples)))


def planted(parts: Tables, seed: int, least: int = 80) -> Table:
    """As many members verbatim as there are samples (`least` if there are): the leak that must be found."""
    order = generator(seed, "audit", "planted members").permutation(len(parts.members))
    return parts.members.take(order[: max(least, len(parts.samples))])


def strangers(parts: Tables, seed: int, least: int = 80) -> Table:
    """A set of people who are neither members nor control."""
    order = generator(seed, "audit", "strangers").permutation(len(parts.population))
    return parts.population.take(order[: max(least, len(parts.samples))])
