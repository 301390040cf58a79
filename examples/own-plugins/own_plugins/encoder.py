"""Mirrors the channels that the key picks. It hides next to nothing: the audit says so."""

import dataclasses

import numpy as np


class MirrorEncoder:
    def fit(self, cohort, key):
        rng = np.random.default_rng(list(key.derive("mirror")))
        return Mirrored(rng.integers(0, 2, cohort.features.shape[2]).astype(bool), key.fingerprint)


@dataclasses.dataclass(frozen=True)
class Mirrored:
    flip: np.ndarray
    fingerprint: str

    def public_spec(self):
        spec = {"kind": "mirror", "public": True, "window": 1, "axis": "time", "key_scope": "per_channel"}
        return spec | {"key_fingerprint": self.fingerprint}

    def encode_array(self, features):
        return np.where(self.flip, 1 - features, features).astype(features.dtype)

    def encode(self, cohort, noise=None, device="cpu"):
        transforms = (*cohort.transforms, self.public_spec())
        return dataclasses.replace(cohort, features=self.encode_array(cohort.features), transforms=transforms)
