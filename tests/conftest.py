"""Shared by all tests, before any heavy library is imported: telemetry off, Prefect out of the user's home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flows.environment import quiet

_HOME = tempfile.TemporaryDirectory(prefix="decoct-tests-")
os.environ["PREFECT_HOME"] = str(Path(_HOME.name) / "prefect")
quiet()
