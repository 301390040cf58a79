"""Randomness is an argument: one run seed, named children, so that adding a stage never moves another's draws.

These generators are for *public* randomness (initialisation, shuffles, bootstraps). Privacy noise never comes from
here: it is drawn from a site secret (`pipeline.core.keys.noise`).
"""

from __future__ import annotations

import hashlib

import numpy as np


def child_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the child named by `names`, stable over platforms and versions."""
    text = "/".join([str(int(seed)), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the child named by `names`."""
    return np.random.Generator(np.random.PCG64(child_seed(seed, *names)))
