"""A whole table in other units: a monotone function of every column, fitted to the pairs of rows that match."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import optimize, stats

from pipeline.audit.sets.disguises.views import MIN_CHANNELS, MIN_STEPS, Space, distances
from pipeline.audit.sets.distances import Nearest, nearest

MIN_ROWS: Final = 20  # of a set that is fitted column by column
FITS: Final = 4
CLEAR: Final = 0.5  # first over second distance of a pair that is fitted to, if fewer than half are as clear
MOST_STRETCHED: Final = 2.0  # of a column, by one fit: a set does not shrink onto one record


def may_align(space: Space, steps: int, rows: int) -> bool:
    """Whether `aligned` tells anything: enough columns and rows to fit; series have their shapes instead."""
    return steps < MIN_STEPS and len(space.free) >= MIN_CHANNELS and rows >= MIN_ROWS


def aligned(queries: np.ndarray, members: np.ndarray, space: Space) -> Nearest:
    """A monotone function of every column fitted to the pairs of rows that match, in turn, until the set lies on them.

    The whole set shares the fit. It begins with ranks of the values in their column, which no such function changes,
    and with each column upright or upside down as its correlations with the others say, or all the other way.
    """
    own, theirs = (rows[..., space.free].reshape(len(rows), -1) for rows in (queries, members))
    told = np.ptp(own, axis=0) > 0  # a column of one value lies on nothing
    own, theirs = _by_rank(own[:, told]), _by_rank(theirs[:, told])
    if told.sum() < MIN_CHANNELS:
        return Nearest(np.ones(len(queries)), np.ones(len(queries)), np.zeros(len(queries), np.intp))
    own = own * _signs(own, theirs)
    found = [_fitted(sign * own, theirs) for sign in (1.0, -1.0)]
    return min(found, key=lambda item: float(np.median(item.first)))


def _by_rank(rows: np.ndarray) -> np.ndarray:
    """Normal scores of each column (Blom 1958)."""
    return np.asarray(stats.norm.ppf((stats.rankdata(rows, axis=0) - 0.375) / (len(rows) + 0.25)))


def _signs(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Which columns to turn over, `(column,)`, so that correlations agree: the first eigenvector of their product."""
    agree = _correlations(own) * _correlations(theirs)
    np.fill_diagonal(agree, 0)
    return np.asarray(np.where(np.linalg.eigh(agree)[1][:, -1] < 0, -1.0, 1.0))


def _correlations(rows: np.ndarray) -> np.ndarray:
    apart = rows - rows.mean(axis=0)
    length = np.sqrt((apart**2).sum(axis=0))
    apart = np.divide(apart, length, out=np.zeros_like(apart), where=length > 0)
    return np.asarray(apart.T @ apart)


def _fitted(own: np.ndarray, theirs: np.ndarray) -> Nearest:
    found = nearest(distances(own, theirs))
    for _ in range(FITS):
        closeness = found.first / np.maximum(found.second, 1e-12)
        told = closeness <= max(CLEAR, float(np.quantile(closeness, 0.5)))
        pairs = theirs[found.index[told]]
        own = np.stack([_monotone(*column) for column in zip(own.T, own[told].T, pairs.T, strict=True)], axis=1)
        found = nearest(distances(own, theirs))
    return found


def _monotone(own: np.ndarray, some: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """A column through the monotone function that takes some of it to what is wanted, as wide as that is, `(row,)`.

    A least squares fit shrinks what does not match, until everything lies on one record: hence the width.
    """
    sign = -1.0 if float((some - some.mean()) @ (wanted - wanted.mean())) < 0 else 1.0
    places, which = np.unique(sign * some, return_inverse=True)
    weight = np.bincount(which)
    fit = optimize.isotonic_regression(np.bincount(which, wanted) / weight, weights=weight).x
    wide, want, had = float(fit[which].std()), float(wanted.std()), float(some.std())
    width = min(max(want, had / MOST_STRETCHED), had * MOST_STRETCHED)
    middle = float(fit[which].mean())
    fit = middle + (fit - middle) * (width / wide) if wide > 0 else middle + (places - places.mean())
    return np.asarray(np.interp(sign * own, places, fit))
