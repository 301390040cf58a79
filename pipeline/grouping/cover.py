"""Which trained groups to serve: the best cover of all tasks by at most `max_groups` of them, with proof.

Every task is served by the one opened group in which it scored best: a p-median problem, as in Standley et al. (2020)
and Fifty et al. (2021). Three steps: greedy and swap give a first cover; the Lagrangian bound (assignment relaxed)
says by how much it could be beaten and which groups cannot be part of a better one; HiGHS, started from the first
cover, settles the rest. The bound and the gap come back with the answer. Groups may overlap; for disjoint groups see
`pipeline.grouping.partition`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float64

from pipeline.core.errors import DataError

_ROUNDS: Final = 400  # of the subgradient method
_TIE: Final = 1e-9


@final
@dataclass(frozen=True)
class Cover:
    """Opened groups (rows of the candidates), who serves each task, and how good that is at least and at most."""

    opened: tuple[int, ...]
    serves: tuple[int, ...]  # per task, the opened group that serves it
    objective: float  # sum of the tasks' values, less the price of the opened groups
    bound: float  # no cover is better than this

    @property
    def gap(self) -> float:
        """How much better another cover could be; 0 = proven best."""
        return max(0.0, self.bound - self.objective)


@final
@dataclass(frozen=True)
class Limits:
    """What a group may be: its size, pairs of tasks that are learned together, and pairs that never are."""

    largest: int | None = None
    must_link: tuple[tuple[int, int], ...] = ()
    cannot_link: tuple[tuple[int, int], ...] = ()

    def allow(self, groups: Bool[np.ndarray, "group task"]) -> Bool[np.ndarray, " group"]:
        """Which groups keep to them."""
        allowed = np.ones(len(groups), dtype=bool) if self.largest is None else groups.sum(axis=1) <= self.largest
        for first, second in self.must_link:
            allowed &= groups[:, first] == groups[:, second]
        for first, second in self.cannot_link:
            allowed &= ~(groups[:, first] & groups[:, second])
        return np.asarray(allowed)

    def smallest(self, n_tasks: int) -> tuple[tuple[int, ...], ...]:
        """The smallest groups there can be: every task with those that it must be with."""
        group = list(range(n_tasks))
        for first, second in self.must_link:
            old, new = group[second], group[first]
            group = [new if one == old else one for one in group]
        return tuple(tuple(t for t in range(n_tasks) if group[t] == one) for one in dict.fromkeys(group))


def best_cover(
    values: Float64[np.ndarray, "group task"],
    *,
    max_groups: int,
    price: float = 0.0,
    seconds: float = 60.0,
) -> Cover:
    """The cover of largest summed value.

    Args:
        values: how well each task does in each candidate group; NaN = the task is not in the group.
        price: what serving one more group costs, in units of the values.
        seconds: limit for HiGHS; the gap says what is left open.

    Raises:
        DataError: no cover by `max_groups` candidates exists, or `max_groups` < 1.
    """
    if max_groups < 1 or not bool(np.isfinite(values).any(axis=0).all()):
        raise DataError("a cover needs max_groups >= 1 and, for each task, a candidate group that holds it")
    member = np.isfinite(values)
    filled = np.where(member, values, -np.inf)
    start = _improved(filled, _greedy(filled, max_groups, price), max_groups, price)
    lowest = _objective(filled, start, price)
    bound, promising = _lagrangian(filled, max_groups, price, lowest)
    kept = np.union1d(np.flatnonzero(promising), np.array(start, dtype=np.int64))
    if bound - lowest > _TIE * max(1.0, abs(lowest)) or not np.isfinite(lowest):
        opened, proven = _exact(
            filled[kept], [int(np.searchsorted(kept, one)) for one in start], max_groups, price, seconds
        )
        found = tuple(int(kept[one]) for one in opened)
        if not np.isfinite(lowest) or _objective(filled, found, price) > lowest:
            start = found
        bound = min(bound, max(proven, _objective(filled, start, price)))
    serves = tuple(int(np.array(start)[column]) for column in filled[list(start)].argmax(axis=0))
    used = tuple(sorted(set(serves)))
    return Cover(used, serves, _objective(filled, used, price), max(bound, _objective(filled, used, price)))


def _objective(filled: np.ndarray, opened: tuple[int, ...], price: float) -> float:
    return float(filled[list(opened)].max(axis=0).sum() - price * len(opened)) if opened else -np.inf


def _greedy(filled: np.ndarray, max_groups: int, price: float) -> tuple[int, ...]:
    """Open the group that helps most, again and again; a task without a group counts far below any value."""
    floor = float(filled[np.isfinite(filled)].min()) - 1e3 * (1.0 + float(np.ptp(filled[np.isfinite(filled)])))
    safe = np.where(np.isfinite(filled), filled, floor)
    now = np.full(filled.shape[1], floor)
    opened: list[int] = []
    while len(opened) < max_groups:
        gains = np.maximum(safe, now).sum(axis=1) - now.sum() - price
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        opened.append(best)
        now = np.maximum(now, safe[best])
    return tuple(opened)


def _improved(filled: np.ndarray, opened: tuple[int, ...], max_groups: int, price: float) -> tuple[int, ...]:
    """Swap one opened group for another, or close one, while that helps."""
    best = _objective(filled, opened, price)
    improving = True
    while improving:
        improving = False
        for place in range(len(opened)):
            rest = opened[:place] + opened[place + 1 :]
            served = filled[list(rest)].max(axis=0) if rest else np.full(filled.shape[1], -np.inf)
            totals = np.maximum(filled, served).sum(axis=1) - price * len(opened)
            candidate = int(totals.argmax())
            if totals[candidate] > best + _TIE:
                opened, best, improving = (*rest, candidate), float(totals[candidate]), True
            if rest and _objective(filled, rest, price) > best + _TIE:
                opened, best, improving = rest, _objective(filled, rest, price), True
                break
    return opened


def _lagrangian(
    filled: np.ndarray, max_groups: int, price: float, lowest: float
) -> tuple[float, Bool[np.ndarray, " group"]]:
    """The least upper bound that was met, and the groups that a cover better than `lowest` may still hold.

    For multipliers u, every cover is worth at most sum u + the `max_groups` largest positive group scores, a group's
    score being sum over its tasks of max(0, value - u) - price.
    """
    u = filled.max(axis=0).copy()
    spread = float(np.ptp(filled[np.isfinite(filled)])) or 1.0
    best, best_scores, best_edge, step = np.inf, np.zeros(len(filled)), 0.0, 1.0
    for _ in range(_ROUNDS):
        scores = np.maximum(filled - u, 0).sum(axis=1) - price
        top = np.argsort(-scores, kind="stable")[:max_groups]
        top = top[scores[top] > 0]
        bound = float(u.sum() + scores[top].sum())
        if bound < best - _TIE:
            edge = float(np.sort(scores)[-max_groups]) if len(scores) >= max_groups else 0.0
            best, best_scores, best_edge = bound, scores, max(edge, 0.0)
        else:
            step *= 0.97
        slope = 1.0 - (filled[top] > u).sum(axis=0) if len(top) else np.ones(len(u))
        norm = float(slope @ slope)
        if norm == 0:
            break
        target = lowest if np.isfinite(lowest) else bound - spread
        u = u - step * max(bound - target, 1e-12) / norm * slope
    forced = best - best_edge + np.minimum(best_scores, best_edge)
    return best, np.asarray(forced > lowest + _TIE) | ~np.isfinite(lowest)


def _exact(
    filled: np.ndarray, start: list[int], max_groups: int, price: float, seconds: float
) -> tuple[tuple[int, ...], float]:
    """HiGHS on variables y (group opened) and x (group serves task); opened groups and the proven bound."""
    import highspy  # loaded where used: the affinity-only road does not need a solver

    rows, columns = np.nonzero(np.isfinite(filled))
    n_groups, n_tasks, n_pairs = len(filled), filled.shape[1], len(rows)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = n_groups + n_pairs, n_tasks + n_pairs + 1
    model.col_cost_ = np.concatenate([np.full(n_groups, -price), filled[rows, columns]])
    model.col_lower_, model.col_upper_ = np.zeros(model.num_col_), np.ones(model.num_col_)
    model.sense_ = highspy.ObjSense.kMaximize
    model.integrality_ = [highspy.HighsVarType.kInteger] * n_groups + [highspy.HighsVarType.kContinuous] * n_pairs
    model.row_lower_ = np.concatenate([np.ones(n_tasks), np.full(n_pairs, -highspy.kHighsInf), [0.0]])
    model.row_upper_ = np.concatenate([np.ones(n_tasks), np.zeros(n_pairs), [float(max_groups)]])
    pair = np.arange(n_pairs)
    entry_rows = np.concatenate([columns, n_tasks + pair, n_tasks + pair, np.full(n_groups, n_tasks + n_pairs)])
    entry_columns = np.concatenate([n_groups + pair, n_groups + pair, rows, np.arange(n_groups)])
    entries = np.concatenate([np.ones(n_pairs), np.ones(n_pairs), -np.ones(n_pairs), np.ones(n_groups)])
    order = np.argsort(entry_columns, kind="stable")
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.searchsorted(entry_columns[order], np.arange(model.num_col_ + 1)).astype(np.int32)
    model.a_matrix_.index_ = entry_rows[order].astype(np.int32)
    model.a_matrix_.value_ = entries[order]
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # highspy has no annotation here
    for option, value in (("output_flag", False), ("time_limit", seconds), ("threads", 1), ("random_seed", 0)):
        solver.setOptionValue(option, value)
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("mip_abs_gap", _TIE)
    solver.passModel(model)
    if start:
        opened = np.isin(np.arange(n_groups), start)
        first = highspy.HighsSolution()
        server = np.array(start)[filled[start].argmax(axis=0)]
        first.col_value = [*opened.astype(float), *(server[columns] == rows).astype(float)]
        solver.setSolution(first)
    solver.run()
    status, info = solver.getModelStatus(), solver.getInfo()
    values = np.array(solver.getSolution().col_value)
    if status == highspy.HighsModelStatus.kInfeasible or len(values) == 0:
        raise DataError(f"no {max_groups} of the candidate groups cover all {n_tasks} tasks")
    return tuple(np.flatnonzero(values[:n_groups] > 0.5).tolist()), float(info.mip_dual_bound)
