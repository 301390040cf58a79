"""What the models of `encoding_paper.py` are given: the stays, their repeated splits, and every encoding of them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from reference import reference_split
from sklearn.model_selection import train_test_split

from encoders.projection import SCHEME, RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.windows import encoding_of, window_blocks
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded

SEED: Final = 0
WINDOW: Final = 4
RAW: Final = "raw"
SEX: Final = "sex"
UNKNOWN_SEX: Final = 0.5  # what stands in for everybody's sex where it is withheld


@dataclass(frozen=True, eq=False, repr=False)
class Stays:
    """Prepared stays in [0, 1], P12-8000 order; `sex` is 1 male, 0 female, NaN not recorded."""

    cohort: EncodedCohort
    sex: np.ndarray

    @property
    def features(self) -> np.ndarray:
        return self.cohort.features

    def labels(self, task: str) -> np.ndarray:
        """0, 1, NaN = missing."""
        return self.cohort.labels[:, [t.name for t in self.cohort.tasks].index(task)]

    def without_sex(self) -> Stays:
        """The same stays with one constant for everybody's sex."""
        features = self.features.copy()
        features[:, :, self.cohort.channels.index(SEX)] = UNKNOWN_SEX
        return Stays(dataclasses.replace(self.cohort, features=features), self.sex)


def load() -> Stays:
    """The 8,000 embedded stays: 48 hourly steps, 44 channels, public ranges, carried forward, no masks."""
    tables = read_embedded()
    split = reference_split(tables.stays.height)
    cohort, _ = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)
    column = [static.name for static in cohort.static_variables].index(SEX)
    return Stays(prepare(cohort), cohort.static[:, column].copy())


def repeated_split(n_stays: int, index: int) -> np.ndarray:
    """Split 0 is the published one; the others are two random 20 % splits as well."""
    if index == 0:
        return reference_split(n_stays)
    rest, held_out = train_test_split(np.arange(n_stays), test_size=0.2, random_state=1000 + index)
    _, tuning = train_test_split(rest, test_size=0.2, random_state=1000 + index)
    split = np.full(n_stays, int(Split.TRAIN), np.int8)
    split[tuning], split[held_out] = int(Split.TUNING), int(Split.HELD_OUT)
    return split


def repeated_tuning_split(n_stays: int, index: int) -> np.ndarray:
    """The published split without its held-out stays, the rest parted anew into train and tuning (0: as published)."""
    split = reference_split(n_stays)
    if index:
        rest = np.flatnonzero(split != Split.HELD_OUT)
        train, tuning = train_test_split(rest, test_size=0.2, random_state=2000 + index)
        split[train], split[tuning] = int(Split.TRAIN), int(Split.TUNING)
    return split


def benchmark_key(index: int) -> Secret:
    """A key that everybody knows: index as 32 bytes. A benchmark's key is no secret."""
    return Secret(index.to_bytes(32, "little"), "encoder")


Encoding = Callable[[EncodedCohort, Secret], np.ndarray]


def _quantum(low: float, high: float, **options: Any) -> Encoding:
    """RQE; a value v becomes the angle pi (low + (high - low) v). Another range has other angles under the same key."""

    def encode(cohort: EncodedCohort, key: Secret) -> np.ndarray:
        return QuantumEncoder(embedding_range=(low, high), **options).fit(cohort, key).encode_array(cohort.features)

    return encode


def _projection(**options: Any) -> Encoding:
    def encode(cohort: EncodedCohort, key: Secret) -> np.ndarray:
        return RandomProjectionEncoder(**options).fit(cohort, key).encode_array(cohort.features)

    return encode


def _redrawn(cohort: EncodedCohort, key: Secret) -> np.ndarray:
    """As the published notebook: a matrix for every window of four variables, here by the stay's and window's place."""
    fitted = RandomProjectionEncoder(axis="variables").fit(cohort, key)
    features, geometry, law = cohort.features, fitted.geometry, fitted.law
    stream = key.derive(f"{SCHEME}/variables/gaussian/{law.width}/{geometry.stride}/{law.components}/fresh")
    encoded = encoding_of(features, geometry, law.components)
    slots = geometry.slots(encoded, law.components)
    n_lanes = slots.shape[3]
    at_once = max(1, (1 << 16) // max(1, law.components * law.width * n_lanes))
    for stay in range(len(features)):
        alone = features[stay : stay + 1]
        for _, columns, block in window_blocks(alone, geometry, at_once * law.width * n_lanes, "constant"):
            count = block.shape[1] * n_lanes
            matrices = law.draw(stream, f"stay {stay} window {columns.start}", count)
            products = matrices.astype(features.dtype) @ block[0].transpose(0, 2, 1).reshape(count, law.width, 1)
            slots[stay, columns] = products.reshape(-1, n_lanes, law.components).transpose(0, 2, 1)
    return encoded


INPUTS: Final[Mapping[str, Encoding]] = {
    RAW: lambda cohort, key: cohort.features,
    "RQE (0, 1)": _quantum(0.0, 1.0),
    "RQE (0, .5)": _quantum(0.0, 0.5),
    "RP time": _projection(),
    "RP time, orthogonal": _projection(distribution="orthogonal"),
    "RP variables": _projection(axis="variables"),
    "RP variables, orthogonal": _projection(axis="variables", distribution="orthogonal"),
    "RP fresh": _redrawn,
}
"""Name -> encoding. "RQE (0, 1)" is the paper's; "RP fresh" its notebook's, a new matrix for every window."""

SETTINGS: Final[Mapping[str, Encoding]] = {
    **INPUTS,
    **{
        f"RQE ({low:g}, {high:g})".replace("0.", "."): _quantum(low, high)
        for low, high in ((0.1, 0.9), (0.05, 0.45), (0.1, 0.4), (0.125, 0.375), (0, 0.25), (0.2, 0.3), (0.25, 0.75))
    },
    "RQE (0, .5), 1 layer": _quantum(0.0, 0.5, n_layers=1),
    "RQE (0, .5), 3 layers": _quantum(0.0, 0.5, n_layers=3),
    "RQE (0, 1), RandomLayers, 1 layer": _quantum(0.0, 1.0, template="RandomLayers", n_layers=1),
    "RQE (0, .5), RandomLayers, 1 layer": _quantum(0.0, 0.5, template="RandomLayers", n_layers=1),
    "RQE (0, 1), StronglyEntanglingLayers": _quantum(0.0, 1.0, template="StronglyEntanglingLayers"),
    "RQE (0, .5), StronglyEntanglingLayers": _quantum(0.0, 0.5, template="StronglyEntanglingLayers"),
}
"""What was tried on tuning stays before `INPUTS` were settled on."""


def encoded(stays: Stays, name: str, key: int) -> np.ndarray:
    """The input of that name under that key: float32 `(stay, step, channel)`."""
    return SETTINGS[name](stays.cohort, benchmark_key(key))


def digest(features: np.ndarray) -> str:
    """Which encoding this was, to four decimals: rows of one journal must not mix two."""
    return hashlib.sha256(np.round(features[:50].astype(np.float64), 4).tobytes()).hexdigest()[:16]


def standardised(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean 0, deviation 1 over the training stays, for each channel and position in the window.

    The window is public. Some keys shrink an output to a deviation of .05, and the outputs of one window have different
    means; a receiver would do the same. Every input is treated so, the raw one too.
    """
    stays, steps, channels = features.shape
    windows = features.reshape(stays, steps // WINDOW, WINDOW * channels)
    mean = windows[train].mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    deviation = windows[train].std(axis=(0, 1), dtype=np.float64).astype(np.float32)
    deviation[deviation < 1e-6] = 1.0  # a channel that is constant in training tells nothing
    return ((windows - mean) / deviation).reshape(features.shape)


def summaries(features: np.ndarray) -> np.ndarray:
    """Mean, deviation, last, least and largest over windows of each channel and position: `(stay, 20 x channel)`."""
    windows = features.reshape(len(features), -1, WINDOW * features.shape[2])
    blocks = (windows.mean(1), windows.std(1), windows[:, -1], windows.min(1), windows.max(1))
    return np.concatenate(blocks, axis=1).astype(np.float64)
