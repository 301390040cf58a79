"""Makes the test vectors of format 2: `python tests/golden/make_bundles.py FOLDER`, by hand when the format changes.

Every key in it is known to everybody: nothing that they sign means anything.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.codec import record_digest
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    LeakageReport,
    Moments,
    PrivacyGuarantee,
    Provenance,
    Task,
    UtilityReport,
    UtilityScore,
)
from pipeline.sharing.approval import approve, publish
from pipeline.sharing.bundle.write import ReleaseNotes, write_bundle
from pipeline.sharing.layout import ENVELOPE
from pipeline.sharing.policy.gate import Circumstances, admit, decide
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.sharing.receive.received import receive
from pipeline.sharing.receive.verify import read_folder
from pipeline.sharing.trust.keys import public_key, role_signer
from pipeline.sharing.trust.root import draft_root, parse_root, sign_root

ISSUED, TODAY = datetime.date(2026, 3, 1), datetime.date(2026, 3, 10)
SITE, RECIPIENT = "St. Elsewhere", "Hospital B"
QUERY = "a" * 64
AUTHOR, APPROVER, ROOT = (
    role_signer(Secret(bytes([number]) * 32, role)) for number, role in enumerate(("author", "approver", "root"), 1)
)
DRAWS = np.random.default_rng(2)
GUARANTEE = PrivacyGuarantee(
    1.0,
    1e-6,
    "stay",
    "add-or-remove-one",
    "dp-accounting 0.6",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
    ("scaling ranges",),
)
SHARED: dict[str, Any] = {
    "channels": ("heart_rate", "lactate"),
    "tasks": (Task("death", "died in hospital"),),
    "step_hours": 1.0,
    "transforms": ({"kind": "subjects", "known": False, "public": True}, {"kind": "public_ranges", "public": True}),
    "guarantee": GUARANTEE,
    "provenance": Provenance("condense", config={LEDGER_QUERIES: [QUERY]}),
}
CONDENSED = CondensedSet(
    features=DRAWS.random((40, 3, 2), dtype=np.float32),
    labels=np.tile(np.array([[0.0], [1.0]], dtype=np.float32), (20, 1)),
    method="private_moments",
    starts_from_records=False,
    **SHARED,
)
MOMENTS = Moments(
    gram=np.eye(3),
    signed_sums=DRAWS.normal(size=(1, 3)),
    signed_counts=np.array([1.5]),
    feature_map={"kind": "summary", "clip_norm": 1.0},
    feature_map_digest="f" * 64,
    n_steps=3,
    **SHARED,
)


def released(folder: Path, name: str, artefact: Any, notes: ReleaseNotes, root: Path) -> Path:
    """Proposed, approved and published as a site does it."""
    policy = load_policy("strict")
    figures = (("near_copies", "count", 0.0), ("density_membership", "auroc", 0.55))
    figures += (("density_membership", "tpr_at_1pct_fpr", 0.03),)
    results = tuple(
        AttackResult(
            attack, "T6", "p", what, high / 2, 0.0, high, 500, 0.0, 1.0, 1.0, True, "s", True, True, False, None
        )
        for attack, what, high in figures
    )
    report = LeakageReport("p", record_digest(artefact), results, (), True, Provenance("audit"))
    utility = UtilityReport((UtilityScore("p", "raw", "tcn", "death", "auroc", 0.8, 0.7, 0.9, 0.0, 1, 9, 9),), 1, "i")
    case = artefact, [report], utility, Circumstances(ledger={QUERY: GUARANTEE.events}, rules={})
    release = admit(policy, decide(policy, *case), *case)
    scratch, trusted = folder / ".scratch", parse_root(root.read_bytes(), "the root")
    proposal = write_bundle(
        release, scratch / name / "proposals", signer=AUTHOR, notes=notes, issued=ISSUED, scan=lambda files: None
    )
    checked: dict[str, Any] = {"root": trusted, "today": TODAY, "workspace": scratch / name, "revocations": None}
    approve(proposal, signer=APPROVER, **checked)
    return publish(proposal, folder, **checked)


def expected(bundle: Path, root: Path, identity: Path) -> dict[str, Any]:
    """What a verifier in another language must find."""
    files = read_folder(bundle)
    envelope = json.loads(files[ENVELOPE])
    statement = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)
    arrays = receive(bundle, root, today=TODAY, identity=identity, recipient=RECIPIENT).arrays
    return {
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        "statement_sha256": hashlib.sha256(statement).hexdigest(),
        "signed_bytes_sha256": hashlib.sha256(signed).hexdigest(),
        "signed_by": [signature["keyid"] for signature in envelope["signatures"]],
        "arrays": {
            name: {"shape": list(array.shape), "first_values": [float(value) for value in array.ravel()[:4]]}
            for name, array in sorted(arrays.items())
        },
        # the byte at `offset` of `file` exclusive-or `xor` makes a bundle that must be refused
        "refused": [
            {"file": name, "offset": len(data) // part, "xor": 1}
            for name, data in sorted(files.items())
            for part in (2, 3)
        ],
    }


def main() -> None:
    import pyrage

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    root, identity = folder / "root.json", folder / "identity.txt"
    keys = (
        public_key(AUTHOR, "Otto", role="author", site=SITE),
        public_key(APPROVER, "Ann", role="approver", site=SITE),
        public_key(ROOT, "Ruth", role="root"),
    )
    drafted = draft_root(
        keys,
        threshold=1,
        expires=datetime.date(2100, 1, 1),
        max_revocation_age_days=0,
        policies={"strict": load_policy("strict").digest},
    )
    root.write_bytes(sign_root(drafted, ROOT))
    mine = pyrage.x25519.Identity.generate()
    identity.write_text(f"{mine}\n", encoding="ascii")
    identity.chmod(0o600)
    plain = ReleaseNotes("plain", SITE, 1, "ODbL-1.0", data_use=("DUO:0000042", "DUO:0000021"))
    secret = ReleaseNotes(
        "encrypted", SITE, 2, "ODbL-1.0", recipients=(RECIPIENT,), recipient_keys={RECIPIENT: str(mine.to_public())}
    )
    made = [
        released(folder, "plain", CONDENSED, plain, root),
        released(folder, "encrypted", CONDENSED, secret, root),
        released(folder, "moments", MOMENTS, dataclasses.replace(plain, name="moments"), root),
    ]
    told = {
        "today": TODAY.isoformat(),
        "recipient": RECIPIENT,
        "bundles": {bundle.name: expected(bundle, root, identity) for bundle in made},
    }
    shutil.rmtree(folder / ".scratch")  # the site's side: proposals and its log
    (folder / "expected.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
