"""The page of figures is what the kept results say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    asked = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "page.py", "--check"], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
