"""Two usual estimates of mutual information, each beside what it says where the truth is known. All in nats.

A network's embedding is a function of its input: for continuous inputs I(input; embedding) is infinite, and what an
estimator prints is its own resolution (Saxe et al., ICLR 2018; Goldfeld et al., ICML 2019). The controls show it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma
from sklearn.decomposition import PCA

BINS: Final = 30
NEIGHBOURS: Final = 3
DIMENSIONS: Final = 10


def ksg(x: np.ndarray, y: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Kraskov, Stoegbauer & Grassberger (Phys Rev E 69:066138, 2004), estimator 1; `(n, a)` and `(n, b)`."""
    joint = np.concatenate([x, y], axis=1)
    radius = cKDTree(joint).query(joint, k + 1, p=np.inf)[0][:, -1]
    inside = np.nextafter(radius, 0)  # strictly closer than the k-th neighbour
    counts = [cKDTree(z).query_ball_point(z, inside, p=np.inf, return_length=True) for z in (x, y)]
    return float(digamma(k) + digamma(len(x)) - np.mean(digamma(counts[0]) + digamma(counts[1])))


def binned(x: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Units cut into equal bins (Shwartz-Ziv & Tishby, arXiv 1703.00810): a code per row, `(n,)`."""
    low, span = x.min(axis=0), np.ptp(x, axis=0)
    cells = np.floor((x - low) / np.where(span > 0, span, 1) * bins).clip(0, bins - 1).astype(np.int8)
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)


def entropy(codes: np.ndarray) -> float:
    """Plug-in entropy of a code, at most log n."""
    share = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(-(share * np.log(share)).sum())


def binned_with_label(codes: np.ndarray, labels: np.ndarray) -> float:
    """I(code; label) = H(code) - H(code | label)."""
    within = sum(float(np.mean(labels == c)) * entropy(codes[labels == c]) for c in np.unique(labels))
    return entropy(codes) - within


def components(x: np.ndarray, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Principal components, each of deviation 1."""
    scores = PCA(min(dimensions, x.shape[1]), random_state=0).fit_transform(x.reshape(len(x), -1))
    return scores / scores.std(axis=0)


def canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample canonical correlations, largest first."""
    q = [np.linalg.qr(z - z.mean(axis=0))[0] for z in (x, y)]
    return np.linalg.svd(q[0].T @ q[1], compute_uv=False).clip(0, 1 - 1e-12)


def gaussian_pair(correlations: np.ndarray, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian x, y with these canonical correlations: I(x; y) = -sum log(1 - r^2) / 2, exactly."""
    x, noise = random.standard_normal((2, n, len(correlations)))
    return x, correlations * x + np.sqrt(1 - correlations**2) * noise


def information(
    features: np.ndarray, hidden: np.ndarray, labels: np.ndarray, random: np.random.Generator
) -> dict[str, Any]:
    """The information plane's two coordinates for one network, and the same estimators under known truth."""
    x, t = components(features.reshape(len(features), -1)), components(hidden)
    correlations = canonical_correlations(x, t)
    truth = float(-0.5 * np.log1p(-(correlations**2)).sum())
    shuffled, codes = random.permutation(len(x)), binned(hidden)
    return {
        "n": len(x),
        "dimensions": [x.shape[1], t.shape[1]],
        "input_embedding_ksg": ksg(x, t),
        "input_embedding_ksg_shuffled_truth_0": ksg(x, t[shuffled]),
        "gaussian_same_correlations_truth": truth,
        "gaussian_same_correlations_ksg": ksg(*gaussian_pair(correlations, len(x), random)),
        "input_embedding_binned": entropy(codes),
        "input_embedding_binned_ceiling_log_n": float(np.log(len(x))),
        "embedding_label_binned": binned_with_label(codes, labels),
        "embedding_shuffled_label_binned_truth_0": binned_with_label(codes, labels[shuffled]),
        "label_entropy": entropy(labels),
    }


def gaussian_ladder(truths: tuple[float, ...], n: int, dimensions: int, seed: int) -> list[dict[str, float]]:
    """KSG where the mutual information is known: Gaussian pairs, all canonical correlations alike."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for truth in truths:
        r = np.full(dimensions, np.sqrt(-np.expm1(-2 * truth / dimensions)))
        rows.append({"truth": truth, "ksg": ksg(*gaussian_pair(r, n, random))})
    return rows
