"""Three lines from a bundle to a trained model, for those who receive one.

    from pipeline.sharing import load
    X, y, weight = load("st-elsewhere-private-v1", "trust-root.json").X_y("died")
    model = LogisticRegression(max_iter=1000).fit(X, y, weight)

Loads numpy, safetensors, cryptography and rfc8785; torch when a torch data set is asked for, pyrage when the payload is
encrypted; nothing else of Decoct's.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from pipeline.sharing.receive.received import Received, receive


def load(
    bundle: Path | str,
    root: Path | str,
    *,
    identity: Path | str | None = None,
    recipient: str | None = None,
    today: datetime.date | None = None,
) -> Received:
    """Verify a bundle's folder against a trust root file and return its arrays with their meaning.

    Args:
        identity: your age identity file, for a payload that is encrypted to you.
        recipient: your institution's name, if the bundle is addressed to recipients.
        today: the day on which the bundle must be in force; by default today in UTC.

    Returns:
        `.features` float32 (sample, step, channel), `.labels` float32 (sample, task) with NaN = missing, `.channels`,
        `.tasks`, `.X_y(task)` for scikit-learn, `.torch_dataset(*tasks)` for torch, `.manifest`; a bundle of moments
        has `.moments()` instead.

    Raises:
        ReleaseRefused: the bundle does not verify, or is encrypted to others; one sentence says why.
        DataError: the signed payload is not what the signed manifest describes.
    """
    day = datetime.datetime.now(tz=datetime.UTC).date() if today is None else today
    return receive(bundle, root, today=day, identity=identity, recipient=recipient)
