"""`decoct serve`: the two files of the watch page over HTTP, and nothing else of the workspace.

There is no path to take apart: what is asked for is looked up in a table of three names. No query is read, no body, no
cookie; nothing is written. A request that names another host than this machine is refused, so that no page elsewhere
can read this one through the reader's browser (DNS rebinding).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, final

from flows.watch.page import FIGURES, FOLDER, PAGE
from pipeline.core.errors import EnvironmentProblem, UsageError

SERVED: Final = {
    "/": (PAGE, "text/html; charset=utf-8"),
    f"/{PAGE}": (PAGE, "text/html; charset=utf-8"),
    f"/{FIGURES}": (FIGURES, "application/json"),
}
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",  # the page itself allows one style sheet, by its digest
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
TIMEOUT_SECONDS: Final = 10
MAX_BYTES: Final = 32 << 20
BEYOND: Final = (
    "anybody who reaches this port can read the page, and whoever is on the way can, too: it asks for no password and "
    "is not encrypted; let only a proxy that does both reach it"
)


def is_loopback(host: str) -> bool:
    """Whether an address or name stands for this machine alone; a name counts only if it is localhost."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def open_server(workspace: Path, host: str, port: int, *, beyond: bool = False) -> ThreadingHTTPServer:
    """Bind, without serving yet; `server.server_address` then holds the port (asked for: 0 = any that is free).

    Raises:
        UsageError: there is no page yet, or the address is not of this machine alone and nobody said that it may.
        EnvironmentProblem: the address cannot be bound.
    """
    folder = workspace / FOLDER
    if not (folder / PAGE).is_file():
        raise UsageError(f"there is no watch page in {workspace}; make one with: decoct watch --out {workspace}")
    if not is_loopback(host) and not beyond:
        raise UsageError(f"{host} is not this machine alone: {BEYOND}; if that is so, add --beyond-this-machine")
    names = None if beyond else ("localhost", "127.0.0.1", "[::1]", host)
    try:
        return _Server(folder, host, port, names)
    except OSError as error:
        raise EnvironmentProblem(f"{host} port {port} cannot be served: {error.strerror}") from None


@final
class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, host: str, port: int, names: Iterable[str] | None) -> None:
        self.folder = folder
        self.names = None if names is None else frozenset(name.lower() for name in names)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """As the base's, without asking a name server for this machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away is no news."""


@final
class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "decoct"
    sys_version = ""
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Send a served file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send a served file's headers."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if not self._is_for_us():
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return
        known = SERVED.get(self.path)
        data = None if known is None else _content(self.server.folder / known[0])
        if known is None or data is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", known[1])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _is_for_us(self) -> bool:
        host = self.headers.get("Host", "").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return self.server.names is None or name in self.server.names

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_error(status)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A refusal in three words, whatever was asked: nothing of the request is repeated."""
        told = f"{HTTPStatus(code).phrase}\n".encode()
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    def end_headers(self) -> None:
        """The headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who looked when is not kept."""


def _content(path: Path) -> bytes | None:
    """The file as it is now, so that a page made anew each night is seen; None where it is not a plain file."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None
