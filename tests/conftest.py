"""Shared by all tests: telemetry off, Prefect quiet, before any heavy library is imported."""

from __future__ import annotations

from flows.environment import quiet

quiet()
