"""Tells people how a night ended, by a command, a webhook, a mail: marks and sentences of ours, nothing of a patient.

What is secret is in the environment, never in the configuration: the webhook's address, as it may hold a token
(DECOCT_NIGHT_WEBHOOK), and the password of the mail host (DECOCT_NIGHT_SMTP_PASSWORD, or the path of a file that only
its owner reads in DECOCT_NIGHT_SMTP_PASSWORD_FILE). Each way is tried once, and waits `WAIT_SECONDS` for an answer at
most; a notice that cannot be delivered is told on stderr and changes nothing about the night.
"""

from __future__ import annotations

import functools
import os
import smtplib
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flows.progress import say
from pipeline.core.config import NightConfig
from pipeline.core.errors import DecoctError, EnvironmentProblem
from pipeline.core.files.owner import read_owner_file
from pipeline.core.redaction import outward
from pipeline.sharing.canonical import canonical

WEBHOOK: Final = "DECOCT_NIGHT_WEBHOOK"
PASSWORD: Final = "DECOCT_NIGHT_SMTP_PASSWORD"
PASSWORD_FILE: Final = "DECOCT_NIGHT_SMTP_PASSWORD_FILE"
SMTP_PORTS: Final = {"none": 25, "starttls": 587, "tls": 465}
WAIT_SECONDS: Final = 20

_kept: Final[dict[str, str]] = {}  # what another place of this process knows instead of the environment


def keep(name: str, secret: str) -> None:
    """Let notices of this process use `secret` where the environment has no `name`; no child process sees it."""
    _kept[name] = secret


def notify(
    settings: NightConfig, night: Mapping[str, Any], told: Callable[[], Mapping[str, Any]], *, good: bool
) -> tuple[str, ...]:
    """Tell everybody that [night] and the environment name; returns the ways that failed, by name.

    Args:
        told: makes the notice (`flows.nights.notices`), which takes seconds; not called where nobody is told.
    """
    if settings.notify_on == "never" or (settings.notify_on == "failure" and good):
        return ()
    notice = functools.cache(lambda: canonical(told()).decode())
    failed = []
    for name, send in _ways(settings, notice, night):
        try:
            send()
        except Exception as error:  # whatever the other side does, the night's own end counts
            why = str(error) if isinstance(error, DecoctError) else type(error).__name__  # others' text may hold a URL
            say(f"  the notice by {name} was not delivered: {why}")
            failed.append(name)
    return tuple(failed)


def _ways(
    settings: NightConfig, notice: Callable[[], str], night: Mapping[str, Any]
) -> list[tuple[str, Callable[[], None]]]:
    ways: list[tuple[str, Callable[[], None]]] = []
    if settings.notify_command:
        ways.append(("command", lambda: _run(settings.notify_command, notice())))
    if url := os.environ.get(WEBHOOK) or _kept.get(WEBHOOK):
        ways.append(("webhook", lambda: _post(url, notice())))
    if settings.mail_to:
        ways.append(("mail", lambda: _mail(settings, notice(), night)))
    return ways


def _run(command: tuple[str, ...], text: str) -> None:
    """The command gets the notice on its standard input, and no shell reads it."""
    subprocess.run(
        command, input=text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        timeout=WAIT_SECONDS,
    )  # fmt: skip


def _post(url: str, text: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("not a web address")
    request = urllib.request.Request(url, text.encode(), {"Content-Type": "application/json"}, method="POST")
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(request, timeout=WAIT_SECONDS):
        pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A notice goes to the address that was given, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _mail(settings: NightConfig, text: str, night: Mapping[str, Any]) -> None:
    message = EmailMessage()
    message["Subject"] = f"decoct {night['run']}: {night['state']} (exit code {night['exit_code']})"
    message["From"], message["To"] = settings.mail_from, ", ".join(settings.mail_to)
    message["Date"] = format_datetime(datetime.now(tz=UTC))
    message["Message-ID"] = make_msgid(domain=settings.mail_from.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: out-of-office replies stay away
    message.set_content(f"{outward(str(night['sentence']))}\n\n{text}\n")
    with _mail_host(settings) as server:
        if settings.smtp_user:
            server.login(settings.smtp_user, _password())
        if refused := server.send_message(message):
            raise smtplib.SMTPRecipientsRefused(refused)


def _mail_host(settings: NightConfig) -> smtplib.SMTP:
    """Connected, and encrypted as the configuration says, with a certificate that the machine trusts; never less."""
    host, port = settings.smtp_host, settings.smtp_port or SMTP_PORTS[settings.smtp_security]
    if settings.smtp_security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=WAIT_SECONDS, context=ssl.create_default_context())
    server = smtplib.SMTP(host, port, timeout=WAIT_SECONDS)
    if settings.smtp_security == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _password() -> str:
    if path := os.environ.get(PASSWORD_FILE):
        return read_owner_file(Path(path), "the mail host's password").decode().rstrip("\r\n")
    if password := os.environ.get(PASSWORD) or _kept.get(PASSWORD):
        return password
    raise EnvironmentProblem(f"night.smtp_user needs a password in {PASSWORD} or {PASSWORD_FILE}")
