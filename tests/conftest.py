"""Shared by all tests, before any heavy library is imported: telemetry off, nothing written to the user's home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flows.environment import quiet

_HOME = tempfile.TemporaryDirectory(prefix="decoct-tests-")
os.environ["PREFECT_HOME"] = str(Path(_HOME.name) / "prefect")
os.environ["MPLCONFIGDIR"] = str(Path(_HOME.name) / "matplotlib")
quiet()
