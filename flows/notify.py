"""Tells people how a night ended, by a command, a webhook, a mail: digests and sentences of ours, nothing of a patient.

The webhook's address may hold a token, so it is in the environment (DECOCT_NIGHT_WEBHOOK), never in the configuration.
Each way is tried once and may take `WAIT_SECONDS`; a notice that cannot be delivered is told on stderr and changes
nothing about the night, which is on record by then.
"""

from __future__ import annotations

import json
import os
import re
import smtplib
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import urlsplit

from flows.progress import say
from pipeline.core.config import NightConfig

WEBHOOK: Final = "DECOCT_NIGHT_WEBHOOK"
WAIT_SECONDS: Final = 20
TOLD: Final = ("night", "run", "started", "ended", "state", "exit_code", "sentence", "config", "release", "version")
PREFIX: Final = 12
_PATH: Final = re.compile(r"\S*[/\\]\S*|\S+\.(?:txt|csv|gz|parquet|psv|json|toml)\b")
_NUMBER: Final = re.compile(r"(?<![\w-])\d[\w.,-]*")


def notice(night: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent: the fields `TOLD` of a night's record, and the digest of what each stage made, shortened."""
    told = {name: night[name] for name in TOLD} | {"sentence": outward(str(night["sentence"]))}
    digests = {label: [digest[:PREFIX] for digest in found] for label, found in night["digests"].items()}
    return {"schema": "decoct/night/1", **told, "digests": digests}


def outward(sentence: str) -> str:
    """A sentence fit to leave the machine: without paths, as a file may be named by a stay, and without any figure."""
    return _NUMBER.sub("…", _PATH.sub("…", sentence))


def notify(settings: NightConfig, night: Mapping[str, Any], *, good: bool) -> tuple[str, ...]:
    """Tell everybody that [night] and the environment name; returns the ways that failed, by name."""
    if settings.notify_on == "never" or (settings.notify_on == "failure" and good):
        return ()
    text = json.dumps(notice(night), sort_keys=True)
    failed = []
    for name, send in _ways(settings, text, night):
        try:
            send()
        except (OSError, subprocess.SubprocessError, smtplib.SMTPException, ValueError) as error:
            say(f"  the notice by {name} was not delivered: {type(error).__name__}")  # an error's text may hold a URL
            failed.append(name)
    return tuple(failed)


def _ways(settings: NightConfig, text: str, night: Mapping[str, Any]) -> list[tuple[str, Callable[[], None]]]:
    ways: list[tuple[str, Callable[[], None]]] = []
    if settings.notify_command:
        ways.append(("command", lambda: _run(settings.notify_command, text)))
    if url := os.environ.get(WEBHOOK):
        ways.append(("webhook", lambda: _post(url, text)))
    if settings.mail_to:
        ways.append(("mail", lambda: _mail(settings, text, night)))
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
    message.set_content(f"{outward(str(night['sentence']))}\n\n{text}\n")
    with smtplib.SMTP(settings.smtp_host, timeout=WAIT_SECONDS) as server:
        server.send_message(message)
