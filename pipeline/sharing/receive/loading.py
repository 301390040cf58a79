"""Three lines from a bundle to a trained model, for those who receive one.

    from decoct import load
    X, y, weight = load("st-elsewhere-private-v1", "root.json").X_y("died")
    model = LogisticRegression(max_iter=1000).fit(X, y, weight)

Loads numpy, safetensors, cryptography and rfc8785; torch when a torch data set is asked for, pyrage when the payload is
encrypted; nothing else of Decoct's. `verify` loads cryptography and rfc8785 alone.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.sharing.receive.verify import VerifiedBundle
from pipeline.sharing.receive.verify import verify as check

if TYPE_CHECKING:
    from pipeline.core.types import CondensedSet, Moments
    from pipeline.sharing.receive.received import Received


def verify(
    bundle: Path | str,
    root: Path | str,
    *,
    recipient: str | None = None,
    today: datetime.date | None = None,
) -> VerifiedBundle:
    """Check a bundle's folder against a trust root file: every byte, signature, approval, policy and date.

    The revocation list and what you received before are looked up beside the root. Nothing is written.

    Args:
        recipient: as in `load`.
        today: likewise.

    Returns:
        `.manifest`, `.signed_by`, `.approved_by`, and `.files`, the very bytes that were checked.

    Raises:
        ReleaseRefused: the bundle does not verify; one sentence says why.
    """
    return check(Path(bundle), Path(root), today=_day(today), recipient=recipient)


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
    from pipeline.sharing.receive.received import receive

    return receive(bundle, root, today=_day(today), identity=identity, recipient=recipient)


def read_bundle(
    bundle: Path | str,
    root: Path | str,
    *,
    identity: Path | str | None = None,
    recipient: str | None = None,
    today: datetime.date | None = None,
) -> CondensedSet | Moments:
    """`load` for a pipeline of one's own: the verified bundle as the data type that was released.

    Raises:
        UsageError: it holds encoded rows, which have no type without the site's records; `load` reads them.
        ReleaseRefused, DataError: as `load`.
    """
    received = load(bundle, root, identity=identity, recipient=recipient, today=today)
    return received.moments() if received.manifest["release"]["kind"] == "moments" else received.condensed_set()


def _day(today: datetime.date | None) -> datetime.date:
    return datetime.datetime.now(tz=datetime.UTC).date() if today is None else today
