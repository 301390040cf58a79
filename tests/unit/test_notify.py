"""Notices: to whom, when, and that nothing of a patient, a path or an exact figure is in one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.nights.notices import notice
from flows.nights.notify import WEBHOOK, notify
from pipeline.core.config import NightConfig
from pipeline.core.redaction import outward

NIGHT: dict[str, Any] = {
    "night": "20260101T020000-abc123",
    "run": "nightly",
    "started": "2026-01-01T02:00:00+00:00",
    "ended": "2026-01-01T02:10:00+00:00",
    "state": "refused",
    "exit_code": 11,
    "sentence": "/data/records/132539.txt: BUN: 3 of 900 break the rule; auroc 0.541 [0.459, 0.623]; site-v3 stays",
    "config": "c" * 64,
    "digests": {"ingest": ["a" * 64, "b" * 64]},
    "seconds": {"ingest": 3.0},
    "wall_seconds": 600.0,
    "release": "",
    "version": 0,
}
MARKS = {"ingest": ["0123456789ab", "ba9876543210"]}
ABOUT = {"site": "Here", "decoct": "0.1+ab", "policy": "strict", "last_good": "", "epsilon_left": 1.5}


def tell() -> dict[str, Any]:
    return notice(NIGHT, MARKS, ABOUT, None)


class Listener:
    """A web server on the loopback that keeps what it is sent, or sends its caller elsewhere."""

    def __init__(self, status: int) -> None:
        kept: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                kept.append(b"followed")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.kept, self.server = kept, HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/token-in-here"


@pytest.fixture(params=[200, 302, 500])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[int, Listener]]:
    found = Listener(request.param)
    yield request.param, found
    found.server.shutdown()
    found.server.server_close()


def test_a_notice_holds_no_path_no_figure_and_no_digest() -> None:
    told = tell()
    assert told["sentence"] == "… BUN: … of … break the rule; auroc … [… …]; site-v3 stays"
    assert told["marks"] == MARKS
    text = json.dumps(told)
    assert [word for word in ("a" * 8, "b" * 8, "c" * 8) if word in text] == []
    told = notice(NIGHT | {"sentence": f"artefact {'a3' * 6} is damaged, and so is {'4b' * 32}"}, {}, ABOUT, None)
    assert told["sentence"] == "artefact … is damaged, and so is …"
    told = tell()
    assert (told["exit_code"], told["state"], told["run"]) == (11, "refused", "nightly")
    assert "seconds" not in told
    for sentence in ("stay 132539", "7 stays", "C:\\data\\x", "12345678", "p132539.csv"):
        assert not {"132539", "7", "data", "12345678", "p132539"} & set(outward(sentence).replace(".", " ").split())


def test_the_command_reads_the_notice_and_no_shell_reads_the_command(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    target = tmp_path / "a $(touch never); b"
    settings = NightConfig(notify_command=(sys.executable, "-c", code, str(target)))
    assert notify(settings, NIGHT, tell, good=False) == ()
    assert json.loads(target.read_text()) == tell()
    assert not (tmp_path / "never").exists()


def test_a_good_night_is_told_only_to_who_wants_to_hear_it(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(tmp_path / "told"))
    notify(NightConfig(notify_command=command), NIGHT, tell, good=True)
    notify(NightConfig(notify_command=command, notify_on="never"), NIGHT, tell, good=False)
    assert not (tmp_path / "told").exists()
    notify(NightConfig(notify_command=command, notify_on="all"), NIGHT, tell, good=True)
    assert (tmp_path / "told").exists()


def test_the_webhook_is_sent_the_notice_and_a_redirect_is_not_followed(
    listener: tuple[int, Listener], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, server = listener
    monkeypatch.setenv(WEBHOOK, server.url)
    assert notify(NightConfig(), NIGHT, tell, good=False) == (() if status == 200 else ("webhook",))
    assert [json.loads(body) for body in server.kept] == [tell()]
    assert "token-in-here" not in capsys.readouterr().err


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1:1/x", "no address"])
def test_a_webhook_that_cannot_be_reached_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, url)
    assert notify(NightConfig(), NIGHT, tell, good=False) == ("webhook",)


def test_a_command_or_a_mail_host_that_is_not_there_changes_nothing() -> None:
    settings = NightConfig(
        notify_command=("/no/such/command",), mail_to=("on-call@hospital.invalid",), smtp_host="host.invalid"
    )
    assert notify(settings, NIGHT, tell, good=False) == ("command", "mail")
