"""Altered bundles, and nonsense under true signatures: `python benchmarks/fuzz_bundle.py [--minutes 10]`.

First, bytes: one random change (a flipped, cut, doubled, inserted or moved stretch) of one random file; all must be
refused. Then, structure: a random place of manifest, policy, audit, statement, envelope, trust root, revocation list,
receipt or receiver's state becomes a random JSON value, *signed by the right people*, so that what lies behind the
signature is reached; each must be accepted or refused in one sentence: no crash, no hang, and no file is written.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import json
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import rfc8785
from reference import machine
from sample_release import SIGNERS, TODAY, audited, propose, released, root_bytes, trusted

from pipeline.core.errors import DecoctError, ReleaseRefused
from pipeline.sharing.layout import ENVELOPE, LEAKAGE, MANIFEST, PAYLOAD_TYPE, POLICY, PREDICATE_KEYS
from pipeline.sharing.receive.receipt import read_receipt, receipt_bytes
from pipeline.sharing.receive.received import read_arrays
from pipeline.sharing.receive.state import check, check_root, load_state, remember
from pipeline.sharing.receive.verify import VerifiedBundle, read_folder, verify, verify_files
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.revocation import KIND as REVOCATIONS
from pipeline.sharing.trust.revocation import draft_revocations, load_revocations, sign_revocations
from pipeline.sharing.trust.root import KIND as ROOT
from pipeline.sharing.trust.root import load_trust_root
from pipeline.sharing.trust.signing import make_statement

HANG_SECONDS = 20
ODD = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**53,
    -(2**53),
    0.5,
    1e308,
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "\x00",
    "ä" * 300,
)
PARTS = (MANIFEST, POLICY, LEAKAGE, "statement", ENVELOPE, "root", "revocations", "receipt", "state")


class Sample:
    """A good release and everything that a receiver holds beside it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        bundle = released(base, propose(base, audited(), 1))
        self.files = read_folder(bundle)
        self.verified = verify(bundle, trusted(), today=TODAY)
        (base / "root.json").write_bytes(root_bytes())
        listed = draft_revocations(["a" * 64], ["St. Elsewhere/set/9"], version=1, issued=TODAY)
        (base / "list.json").write_bytes(sign_revocations(listed, SIGNERS["root"]))
        (base / "receipt.json").write_bytes(receipt_bytes(self.verified, TODAY))
        manifest, statement = self.verified.manifest, self.verified.statement
        remember(base / "state.json", trusted(), root_bytes(), manifest, statement, None)

    def spoilt(self, data: bytes, name: str) -> Path:
        """A file with other bytes, where nobody else looks."""
        path = self.base / f"spoilt-{name}"
        path.write_bytes(data)
        return path


def altered_bytes(data: bytes, draws: random.Random) -> bytes:
    """`data` with one change; never the same bytes."""
    if not data:
        return b"x"
    place = draws.randrange(len(data))
    end = min(len(data), place + draws.randint(1, 64))
    made = {
        "flip": data[:place] + bytes([data[place] ^ (1 << draws.randrange(8))]) + data[place + 1 :],
        "cut": data[:place] + data[end:],
        "double": data[:end] + data[place:],
        "insert": data[:place] + draws.randbytes(draws.randint(1, 64)) + data[place:],
        "move": data[place:] + data[:place],
    }
    changed = made[draws.choice(sorted(made))]
    return changed if changed != data else data + b"\n"


def odd_value(draws: random.Random, depth: int = 0) -> Any:
    """Any JSON value, ill-chosen."""
    kind = draws.randrange(6 if depth < 3 else 4)
    if kind == 4:
        return [odd_value(draws, depth + 1) for _ in range(draws.randrange(4))]
    if kind == 5:
        return {str(odd_value(draws, 3)): odd_value(draws, depth + 1) for _ in range(draws.randrange(4))}
    return draws.choice(ODD)


def altered_value(value: Any, draws: random.Random) -> Any:
    """`value` with one random place changed, removed, doubled or renamed."""
    if not isinstance(value, dict | list) or not value or draws.random() < 0.1:
        return odd_value(draws)
    if isinstance(value, list):
        place = draws.randrange(len(value))
        head, item, tail = value[:place], value[place], value[place + 1 :]
        middle = draws.choice([[altered_value(item, draws)], [], [item, item]])
        return [*head, *middle, *tail]
    key = draws.choice(sorted(value))
    what = draws.randrange(8)
    if what == 0:
        return {name: item for name, item in value.items() if name != key}
    if what == 1:
        return {**value, str(odd_value(draws, 3)): odd_value(draws)}
    return {**value, key: altered_value(value[key], draws)}


def bytes_case(sample: Sample, draws: random.Random) -> str:
    """One altered byte stretch of one file; returns "refused", or raises."""
    name = draws.choice(sorted(sample.files))
    files = {**sample.files, name: altered_bytes(sample.files[name], draws)}
    try:
        verify_files(files, trusted(), today=TODAY)
    except ReleaseRefused:
        return "refused"
    raise AssertionError(f"an altered {name} was accepted")


def structure_case(sample: Sample, draws: random.Random) -> str:
    """One odd value under true signatures; returns "accepted" or "refused", or raises whatever crashed."""
    part = draws.choice(PARTS)
    try:
        _CASES.get(part, _bundle_case)(sample, part, draws)
    except DecoctError as refusal:
        if "\n" in str(refusal) or not str(refusal):
            raise AssertionError(f"a refusal of {part} is not one sentence") from refusal
        return "refused"
    except (ValueError, RecursionError) as error:
        if type(error).__module__.startswith("rfc8785"):  # our own writer has no canonical form for the odd value
            return "refused"
        raise
    return "accepted"


def _bundle_case(sample: Sample, part: str, draws: random.Random) -> None:
    files = dict(sample.files)
    manifest, policy, leakage = (json.loads(files[name]) for name in (MANIFEST, POLICY, LEAKAGE))
    if part == ENVELOPE:
        verify_files(
            {**files, ENVELOPE: rfc8785.dumps(altered_value(json.loads(files[ENVELOPE]), draws))},
            trusted(),
            today=TODAY,
        )
        return
    if part == POLICY:
        policy = altered_value(policy, draws)
    if part == LEAKAGE:
        leakage = altered_value(leakage, draws)
    files |= {POLICY: rfc8785.dumps(policy), LEAKAGE: rfc8785.dumps(leakage)}
    manifest["policy"]["digest"] = sha256(files[POLICY]).hexdigest()
    described = {
        n: {"bytes": len(d), "sha256": sha256(d).hexdigest()} for n, d in files.items() if n in manifest["files"]
    }
    manifest["files"] = described
    if part == MANIFEST:
        manifest = altered_value(manifest, draws)
    files[MANIFEST] = rfc8785.dumps(manifest)
    told = {key: manifest[key] for key in PREDICATE_KEYS if isinstance(manifest, dict) and key in manifest}
    statement: Any = make_statement({name: data for name, data in files.items() if name != ENVELOPE}, told)
    if part == "statement":
        statement = altered_value(statement, draws)
    files[ENVELOPE] = _signed(PAYLOAD_TYPE, statement, "author", "approver")
    pinned = {"strict": sha256(files[POLICY]).hexdigest()}  # so that what lies behind the pin is reached
    found = verify_files(files, dataclasses.replace(trusted(), policies=pinned), today=TODAY)
    read_arrays(VerifiedBundle(sample.base, found[0], files, found[1], found[2]))


def _root_case(sample: Sample, part: str, draws: random.Random) -> None:
    content = json.loads(open_envelope(root_bytes(), ROOT, part).payload)
    path = sample.spoilt(_signed(ROOT, altered_value(content, draws), "root"), part)
    root = load_trust_root(path)
    check_root(load_state(sample.base / "state.json"), root, path.read_bytes())
    verify_files(sample.files, root, today=TODAY)


def _list_case(sample: Sample, part: str, draws: random.Random) -> None:
    content = json.loads(open_envelope((sample.base / "list.json").read_bytes(), REVOCATIONS, part).payload)
    path = sample.spoilt(_signed(REVOCATIONS, altered_value(content, draws), "root"), part)
    verify_files(sample.files, trusted(), today=TODAY, revocations=load_revocations(path, trusted()))


def _receipt_case(sample: Sample, part: str, draws: random.Random) -> None:
    content = json.loads((sample.base / "receipt.json").read_bytes())
    if draws.random() < 0.7:
        envelope = json.loads(base64.b64decode(content["envelope"]))
        statement = json.loads(base64.b64decode(envelope["payload"]))
        signed = _signed(PAYLOAD_TYPE, altered_value(statement, draws), "author")
        content["envelope"] = base64.b64encode(signed).decode()
    else:
        content = altered_value(content, draws)
    read_receipt(sample.spoilt(rfc8785.dumps(content), part))


def _state_case(sample: Sample, part: str, draws: random.Random) -> None:
    content = altered_value(json.loads((sample.base / "state.json").read_bytes()), draws)
    state = load_state(sample.spoilt(rfc8785.dumps(content), part))
    check_root(state, trusted(), root_bytes())
    check(state, sample.verified.manifest, sample.verified.statement, None)


_CASES: dict[str, Callable[[Sample, str, random.Random], None]] = {
    "root": _root_case,
    "revocations": _list_case,
    "receipt": _receipt_case,
    "state": _state_case,
}


def _signed(kind: str, content: Any, *roles: str) -> bytes:
    envelope = Envelope(kind, rfc8785.dumps(content), {})
    for role in roles:
        envelope = with_signature(envelope, SIGNERS[role])
    return envelope.data()


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """Raise when a case takes too long."""

    def stop(*_: object) -> None:
        raise AssertionError(f"a case took longer than {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_cases(
    sample: Sample, case: Callable[[Sample, random.Random], str], draws: random.Random, go_on: Callable[[int], bool]
) -> Counter[str]:
    """Run cases while `go_on`; nothing but the spoilt files of this benchmark may appear on the disk."""
    before = {path for path in sample.base.rglob("*") if not path.name.startswith("spoilt-")}
    found: Counter[str] = Counter()
    while go_on(sum(found.values())):
        with no_hang():
            found[case(sample, draws)] += 1
    after = {path for path in sample.base.rglob("*") if not path.name.startswith("spoilt-")}
    assert before == after, "a file appeared or vanished"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long structure is altered")
    parser.add_argument("--mutations", type=int, default=10_000, help="how many byte stretches are altered")
    parser.add_argument("--good", type=int, default=1_000, help="how many good bundles must be accepted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draws = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        sample = Sample(Path(folder))
        altered = run_cases(sample, bytes_case, draws, lambda done: done < options.mutations)
        end = time.monotonic() + 60 * options.minutes
        odd = run_cases(sample, structure_case, draws, lambda done: time.monotonic() < end)
        good = 0
        for seed in range(options.good):
            place = Path(folder) / "good" / str(seed)
            bundle = released(place, propose(place, audited(seed, samples=2 + 2 * (seed % 50), steps=1 + seed % 7), 1))
            verify(bundle, trusted(), today=TODAY)
            good += 1
    result = {"altered": altered, "odd_under_true_signatures": odd, "good_accepted": good, "minutes": options.minutes}
    print(json.dumps(result | {"machine": machine()}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result | {"machine": machine()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
