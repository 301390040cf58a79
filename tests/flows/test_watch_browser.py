"""The watch page in a real browser, served by `decoct serve`: it is styled, complete, and breaks no rule of its own."""

from __future__ import annotations

import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.watch.page import write_watch
from flows.watch.serve import open_server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--enable-logging=stderr", "--dump-dom"),
]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_the_page_and_complains_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    write_watch(tmp_path / "work", now=datetime(2026, 11, 23, tzinfo=UTC))
    with open_server(tmp_path / "work", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        command = [str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", address]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        server.shutdown()
        thread.join(timeout=30)
    assert "What the nights came to" in answer.stdout
    assert answer.stdout.count("<h2") == 8
    assert "CONSOLE" not in answer.stderr  # where a browser says what it refused to load or to style
    assert "Refused to" not in answer.stderr
