"""Prefect's temporary server, which it starts where no other is set, in a session of its own.

A terminal's Ctrl-C and its end go to all processes of a session's foreground group. A server among them is gone before
the run can tell it how it ended, and Prefect asks for minutes.
"""

from __future__ import annotations

import functools
import subprocess
from typing import Any, final

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

from flows.stopping import at_the_latest


def temporary_server_apart() -> None:
    """Where Prefect is set to no server, let it start its temporary one apart; it ends with this process."""
    if not PREFECT_API_URL.value():
        at_the_latest(_Apart().kill)  # Prefect keeps one for each port, and takes the one that is there


@final
class _Apart(SubprocessASGIServer):
    """Prefect's own server but for its session, which Prefect does not let one choose."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        popen = subprocess.Popen
        subprocess.Popen = functools.partial(popen, start_new_session=True)  # type: ignore[assignment,misc]
        try:
            return super()._run_uvicorn_command()
        finally:
            subprocess.Popen = popen  # type: ignore[misc]

    def kill(self) -> None:
        """End it without waiting for what it has open."""
        if self.server_process is not None:
            self.server_process.kill()
