"""The notice by mail, against a mail host on the loopback: what is sent, encrypted how, and when nothing is."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from flows.nights import night as night_module
from flows.nights.night import read_record, run_night
from flows.nights.notices import notice
from flows.nights.notify import PASSWORD, PASSWORD_FILE, WEBHOOK, notify
from pipeline.core.config import NightConfig, parse_config
from pipeline.core.errors import DataError
from pipeline.core.files.chained import read_chain

NIGHT: dict[str, Any] = {
    "night": "20260101T020000-abc123",
    "run": "nightly",
    "started": "2026-01-01T02:00:00+00:00",
    "ended": "2026-01-01T02:10:00+00:00",
    "state": "refused",
    "exit_code": 11,
    "sentence": "/data/records/132539.txt: BUN: 3 of 900 break the rule",
    "config": "c" * 64,
    "digests": {"ingest": ["a" * 64]},
    "release": "",
    "version": 0,
}
MARKS = {"ingest": ["0123456789ab", "ba9876543210"]}


def tell() -> dict[str, Any]:
    return notice(NIGHT, MARKS, {"site": "Here"}, None)


class MailHost(socketserver.ThreadingTCPServer):
    """Speaks enough of SMTP (RFC 5321, 3207, 4954) to take one mail; keeps what it was told."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None = None, refuses: str = "", greeting: str = "220 ready") -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.context, self.refuses, self.greeting = context, refuses, greeting
        self.at_once = False  # encrypted from the first byte (RFC 8314)
        self.mails: list[EmailMessage] = []
        self.said: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        host = cast("MailHost", self.server)
        encrypted = host.at_once
        if encrypted and not self.encrypt(host):
            return
        self.answer(host.greeting)
        while line := self.rfile.readline().decode().strip():
            verb = line.split(" ")[0].upper()
            host.said.append(("tls " if encrypted else "") + line)
            if host.refuses and line.upper().startswith(host.refuses):
                self.answer("550 no")
            elif verb == "EHLO":
                offers = ["STARTTLS"] if host.context and not encrypted else []
                for offer in ["localhost", *offers]:
                    self.answer(f"250-{offer}")
                self.answer("250 AUTH PLAIN")
            elif verb == "STARTTLS" and host.context:
                self.answer("220 go ahead")
                if not self.encrypt(host):
                    return
                encrypted = True
            elif verb == "AUTH":
                self.answer("235 welcome")
            elif verb == "DATA":
                self.answer("354 go on")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                host.mails.append(message_from_bytes(b"".join(lines), policy=policy.default))
                self.answer("250 taken")
            elif verb == "QUIT":
                self.answer("221 bye")
                return
            else:
                self.answer("250 fine")

    def encrypt(self, host: MailHost) -> bool:
        assert host.context is not None
        try:
            self.connection = host.context.wrap_socket(self.connection, server_side=True)
        except OSError:  # the other side does not trust the certificate
            return False
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        return True

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def answer(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of the loopback, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(tz=UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "mail.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*plain))
    return path


@pytest.fixture
def encrypting(certificate: Path) -> Iterator[MailHost]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    host = MailHost(context)
    yield host
    host.shutdown()
    host.server_close()


@pytest.fixture
def plain() -> Iterator[MailHost]:
    host = MailHost()
    yield host
    host.shutdown()
    host.server_close()


def settings(host: MailHost, **more: Any) -> NightConfig:
    return NightConfig(
        mail_to=("on-call@hospital.example", "second@hospital.example"),
        mail_from="decoct@hospital.example",
        smtp_host="127.0.0.1",
        smtp_port=host.port,
        **more,
    )


def test_the_mail_holds_the_notice_and_nothing_else_of_the_night(plain: MailHost) -> None:
    assert notify(settings(plain), NIGHT, tell, good=False) == ()
    (mail,) = plain.mails
    assert mail["Subject"] == "decoct nightly: refused (exit code 11)"
    assert mail["To"] == "on-call@hospital.example, second@hospital.example"
    assert mail["Message-ID"].endswith("@hospital.example>")
    assert mail["Auto-Submitted"] == "auto-generated"
    sentence, told = mail.get_content().replace("\r\n", "\n").strip().split("\n\n")
    assert sentence == "… BUN: … of … break the rule"
    assert json.loads(told) == tell()
    assert "132539" not in mail.as_string()
    assert [line for line in plain.said if line.startswith("rcpt")] == [
        "rcpt TO:<on-call@hospital.example>",
        "rcpt TO:<second@hospital.example>",
    ]


@pytest.mark.parametrize(("kept_in", "security"), [("environment", "starttls"), ("file", "starttls"), ("file", "tls")])
def test_the_password_is_sent_under_encryption_only(
    encrypting: MailHost,
    certificate: Path,
    kept_in: str,
    security: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # how a site trusts its own authority
    if kept_in == "environment":
        monkeypatch.setenv(PASSWORD, "open sesame")
    else:
        (tmp_path / "password").write_text("open sesame\n", encoding="utf-8")
        (tmp_path / "password").chmod(0o600)
        monkeypatch.setenv(PASSWORD_FILE, str(tmp_path / "password"))
    encrypting.at_once = security == "tls"
    assert notify(settings(encrypting, smtp_security=security, smtp_user="decoct"), NIGHT, tell, good=False) == ()
    assert len(encrypting.mails) == 1
    (login,) = [line for line in encrypting.said if "AUTH" in line]
    assert login == "tls AUTH PLAIN " + base64.b64encode(b"\0decoct\0open sesame").decode()


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_nothing_is_sent_to_a_host_whose_certificate_is_not_trusted(
    encrypting: MailHost, security: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PASSWORD, "open sesame")
    encrypting.at_once = security == "tls"
    assert notify(settings(encrypting, smtp_security=security, smtp_user="decoct"), NIGHT, tell, good=False) == (
        "mail",
    )
    assert not encrypting.mails
    assert not [line for line in encrypting.said if "AUTH" in line or "rcpt" in line]
    assert "was not delivered: SSLCertVerificationError" in capsys.readouterr().err


def test_nothing_is_sent_where_encryption_is_asked_for_and_not_offered(plain: MailHost) -> None:
    assert notify(settings(plain, smtp_security="starttls"), NIGHT, tell, good=False) == ("mail",)
    assert not plain.mails


@pytest.mark.parametrize("missing", ["no password", "a file that others read"])
def test_without_a_password_nothing_is_sent(
    encrypting: MailHost, certificate: Path, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    if missing == "a file that others read":
        (tmp_path / "password").write_text("open sesame", encoding="utf-8")
        (tmp_path / "password").chmod(0o644)
        monkeypatch.setenv(PASSWORD_FILE, str(tmp_path / "password"))
    assert notify(settings(encrypting, smtp_security="starttls", smtp_user="decoct"), NIGHT, tell, good=False) == (
        "mail",
    )
    assert not encrypting.mails


def test_one_recipient_that_is_refused_is_a_notice_not_delivered() -> None:
    host = MailHost(refuses="RCPT TO:<SECOND")
    assert notify(settings(host), NIGHT, tell, good=False) == ("mail",)
    assert len(host.mails) == 1
    host.shutdown()
    host.server_close()


def test_a_password_is_never_configured_to_go_in_the_clear() -> None:
    with pytest.raises(ValidationError, match="smtp_user sends a password"):
        NightConfig(smtp_user="decoct", smtp_host="mail.hospital.example")
    NightConfig(smtp_user="decoct", smtp_host="localhost")
    NightConfig(smtp_user="decoct", smtp_host="mail.hospital.example", smtp_security="tls")


def test_a_mail_that_is_not_delivered_is_on_record_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = MailHost(greeting="554 not today")
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{host.port}/")  # answers, and not in HTTP
    tables = {
        "name": "nightly",
        "workspace": str(tmp_path / "work"),
        "source": {"kind": "embedded", "max_stays": 10},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"private": {"kind": "private_moments", "n_per_class": 5}},
        "release": {"artefact": "private", "licence": "ODbL-1.0"},
        "night": {"mail_to": ["on-call@hospital.example"], "smtp_host": "127.0.0.1", "smtp_port": host.port},
    }
    config = parse_config(tables, "the test", tmp_path)

    def broken(_: object, __: object) -> None:
        raise DataError("a column is missing")

    night = run_night(config, broken)
    assert (night.state, night.exit_code) == ("refused", 11)
    assert read_record(config.workspace) == (night,)
    entries = read_chain(config.workspace / "nights" / night_module.RECORD_FILE).entries
    assert [(entry["what"], entry.get("ways")) for entry in entries] == [
        ("night", None),
        ("notice not delivered", ["webhook", "mail"]),
    ]
    host.shutdown()
    host.server_close()
