"""The watch page in a real browser, opened from the disk: it is styled, complete, and breaks no rule of its own."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.watch.page import write_watch

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--enable-logging=stderr", "--dump-dom"),
]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_the_page_and_complains_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    page = write_watch(tmp_path / "work", now=datetime(2026, 11, 23, tzinfo=UTC))
    command = [str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "Scheduled runs and releases" in answer.stdout
    assert answer.stdout.count("<h2") == 8
    assert "CONSOLE" not in answer.stderr  # where a browser says what it refused to load or to style
    assert "Refused to" not in answer.stderr
