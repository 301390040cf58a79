"""Where Prefect's server keeps the webhook's address and the mail host's password, for sites that keep secrets there.

    Webhook block  decoct-night-notices         instead of DECOCT_NIGHT_WEBHOOK
    Secret block   decoct-night-smtp-password   instead of DECOCT_NIGHT_SMTP_PASSWORD

What the environment says counts. The server encrypts blocks in its database, and gives them to whoever may ask it.
"""

from __future__ import annotations

import os
from typing import Final

from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook

from flows.nights.notify import PASSWORD, PASSWORD_FILE, WEBHOOK, keep

WEBHOOK_BLOCK: Final = "decoct-night-notices"
PASSWORD_BLOCK: Final = "decoct-night-smtp-password"


def notices() -> None:
    """Let this process's notices use the blocks that there are, where the environment says nothing."""
    if WEBHOOK not in os.environ and isinstance(block := _load(Webhook, WEBHOOK_BLOCK), Webhook):
        keep(WEBHOOK, block.url.get_secret_value())
    mails = PASSWORD in os.environ or PASSWORD_FILE in os.environ
    if not mails and isinstance(secret := _load(Secret, PASSWORD_BLOCK), Secret):
        keep(PASSWORD, str(secret.get()))


def _load(kind: type[Webhook] | type[Secret[str]], name: str) -> object:
    try:
        return kind.load(name)
    except Exception:  # there is none, or the server does not answer: nobody is told by it
        return None
