"""Shared by all tests: a quiet, deterministic surrounding, set before any heavy library is imported."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; and sums in one order

from flows.environment import quiet

quiet()
