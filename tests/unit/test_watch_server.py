"""The server: two files, this machine, nothing else of the workspace, whatever is asked for."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.watch.serve import HEADERS, is_loopback, open_server
from pipeline.core.errors import EnvironmentProblem, UsageError


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for folder in ("watch", "keys", "runs/nightly"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "watch" / "index.html").write_text("<!doctype html><title>the page</title>")
    (tmp_path / "watch" / "figures.json").write_text("{}")
    (tmp_path / "watch" / "other.txt").write_text("SECRET beside the page")
    (tmp_path / "keys" / "encoder.key").write_text("SECRET key")
    (tmp_path / "runs" / "nightly" / "report.html").write_text("SECRET report")
    return tmp_path


@pytest.fixture
def port(workspace: Path) -> Iterator[int]:
    server = open_server(workspace, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/index.html", "text/html"), ("/figures.json", "application/json")]
)
def test_the_page_and_its_figures_are_served(port: int, path: str, kind: str) -> None:
    status, headers, body = ask(port, path)
    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert len(body) == int(headers["content-length"])
    assert ask(port, path, "HEAD")[0::2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/other.txt",
        "/watch/index.html",
        "/../keys/encoder.key",
        "/..%2fkeys%2fencoder.key",
        "/%2e%2e/keys/encoder.key",
        "/....//keys/encoder.key",
        "/..\\keys\\encoder.key",
        "//keys/encoder.key",
        "/index.html/../../keys/encoder.key",
        "/./index.html",
        "/index.html?x=1",
        "/index.html#x",
        "/index.html%00",
        "/INDEX.HTML",
        "/runs/nightly/report.html",
        "/.",
        "/..",
        "../keys/encoder.key",
        "http://127.0.0.1/keys/encoder.key",
        "*",
    ],
)
def test_no_other_name_leads_anywhere(port: int, path: str) -> None:
    status, headers, body = ask(port, path)
    assert status == 404
    assert b"SECRET" not in body
    assert body == b"Not Found\n"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_nothing_but_reading_is_answered(port: int, workspace: Path, method: str) -> None:
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    status, headers, body = ask(port, "/", method)
    assert status == 501
    assert b"page" not in body
    assert headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("path", ["/", "/absent"])
def test_every_answer_carries_the_headers(port: int, path: str) -> None:
    headers = ask(port, path)[1]
    assert {name: headers.get(name.lower()) for name in HEADERS} == HEADERS
    assert headers["cache-control"] == "no-store"
    assert "python" not in headers["server"].lower()
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8717", 200),
        ("LOCALHOST", 200),
        ("[::1]:8717", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("", 421),
    ],
)
def test_a_request_that_names_another_host_is_refused(port: int, host: str, status: int) -> None:
    assert ask(port, "/", Host=host)[0] == status


def test_a_link_out_of_the_folder_is_not_followed(port: int, workspace: Path) -> None:
    (workspace / "watch" / "figures.json").unlink()
    (workspace / "watch" / "figures.json").symlink_to(workspace / "keys" / "encoder.key")
    assert ask(port, "/figures.json")[0] == 404


def test_a_page_made_anew_is_seen(port: int, workspace: Path) -> None:
    (workspace / "watch" / "index.html").write_text("tonight's")
    assert ask(port, "/")[2] == b"tonight's"


def test_rubbish_and_silence_do_not_stop_it(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as idle:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as rude:
            rude.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
            told = rude.recv(1000)
        assert b"nonsense" not in told
        assert ask(port, "/")[0] == 200
        idle.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "this-hospital.example"])
def test_beyond_this_machine_needs_a_flag_and_says_what_it_means(workspace: Path, host: str) -> None:
    with pytest.raises(UsageError, match="no password and is not encrypted"):
        open_server(workspace, host, 0)


def test_with_the_flag_it_listens(workspace: Path) -> None:
    with open_server(workspace, "0.0.0.0", 0, beyond=True) as server:
        assert server.server_address[1] > 0


def test_what_counts_as_this_machine() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", ""))


def test_without_a_page_or_a_port_it_says_so(tmp_path: Path, workspace: Path) -> None:
    with pytest.raises(UsageError, match="decoct watch"):
        open_server(tmp_path / "absent", "127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EnvironmentProblem, match="cannot be served"):
        open_server(workspace, "127.0.0.1", taken.getsockname()[1])
