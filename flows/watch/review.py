"""A look at a proposal by who is to approve it: what it says is derived again from the site's own store and ledger.

An approver who sees a bundle alone sees its author's words. With read access to the workspace, the store's key among
it, each line below is computed anew; what was written into the store or the bundle by hand does not come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from flows import registry
from flows.workspace.job import REPORT_PAGE, STORE_KEY, key_path, open_job
from pipeline.core.codec import from_plain
from pipeline.core.digest import digest_json
from pipeline.core.errors import DecoctError, ReleaseRefused
from pipeline.core.keys.secrets import read_secret
from pipeline.core.types import CondensedSet, EncodedCohort, LeakageReport, Moments, ReleaseRecord, UtilityReport
from pipeline.sharing.bundle.encryption import decrypted
from pipeline.sharing.bundle.payload import payload_bytes
from pipeline.sharing.canonical import canonical, read_canonical, sha256_hex
from pipeline.sharing.layout import ENVELOPE, LEAKAGE, MANIFEST, PAYLOAD_TYPE, POLICY, payload_name
from pipeline.sharing.policy import gate
from pipeline.sharing.policy.accounting import unreserved
from pipeline.sharing.policy.ledger import reserved_queries
from pipeline.sharing.policy.load import Policy
from pipeline.sharing.policy.recovery import recovery
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.sharing.receive.verify import read_folder
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import PublicKey
from pipeline.sharing.trust.log import append_log, read_log
from pipeline.sharing.trust.signing import statement_digest
from pipeline.store import USES, Link, Store

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # it lists no exports

ACT: Final = "review"
"""What the log calls the line of a review in which nothing was refused."""
SIGNED: Final = "application/vnd.decoct.review+json"

SEALED: Final = "derived again, payload not opened"
LEVELS: Final = ("none", SEALED, "derived again", "audited again")
_KINDS: Final[Mapping[str, type[gate.Artefact]]] = {
    kind.__name__: kind for kind in (CondensedSet, EncodedCohort, Moments)
}


@final
@dataclass(frozen=True)
class Line:
    """One thing that was derived again."""

    what: str
    held: bool
    told: str


@final
@dataclass(frozen=True)
class Review:
    """All lines, and where the site's own report lies; None = no run is known that made the bundle."""

    lines: tuple[Line, ...]
    report: Path | None
    level: str

    @property
    def held(self) -> bool:
        """Nothing was refused."""
        return all(line.held for line in self.lines)


@final
class _Site:
    """A workspace as an approver reads it, and the artefacts behind one bundle."""

    def __init__(self, bundle: Path, workspace: Path, identity: Path | None) -> None:
        self.files, self.workspace, self.name = read_folder(bundle), workspace, bundle.name
        self.identity = identity
        self.manifest = read_canonical(self.files[MANIFEST], MANIFEST)
        key = read_secret(key_path(workspace, STORE_KEY), STORE_KEY)
        self.store = Store(workspace / "store", key.derive("index"))
        self.links: dict[str, Link] = {digest: link for link in self.store.links() for digest in link.digests}
        self.release = next(
            (link for link in self.links.values() if link.stage == "release" and self._is_of(link)), None
        )

    def _is_of(self, link: Link) -> bool:
        return self.store.get(link.digests[0], ReleaseRecord).name == self.name

    def needed(self) -> Link:
        """The link of the release. Raises ReleaseRefused: the store has none under its key."""
        if self.release is None:
            raise ReleaseRefused("no link of the store's own says that this bundle was made here")
        return self.release

    def candidate(self) -> tuple[str, gate.Artefact]:
        """Digest and content of what was released."""
        digest = self.needed().parents[0]
        artefact: gate.Artefact = self.store.get(digest, _KINDS[self.store.kind_of(digest)])
        return digest, artefact

    def policy(self) -> Policy:
        """The policy in the bundle. Raises ReleaseRefused: it is not the one that the manifest names."""
        policy: Policy = from_plain(Policy, read_canonical(self.files[POLICY], POLICY))
        if policy.digest != self.manifest["policy"]["digest"]:
            raise ReleaseRefused(f"{POLICY} is not the policy whose digest the manifest names")
        return policy

    @property
    def sealed(self) -> bool:
        """Whether the payload is encrypted, and nobody gave an identity that opens it."""
        return bool(self.manifest["encryption"]) and self.identity is None

    def run_folder(self) -> Path | None:
        """The folder of the run that made the release."""
        key = self.needed().key
        uses = (path for path in sorted((self.workspace / "store" / USES).glob("*")) if key in path.read_text().split())
        return next((self.workspace / "runs" / path.name for path in uses), None)


def review(bundle: Path, workspace: Path, *, again: bool = False, identity: Path | None = None) -> Review:
    """Derive again what the bundle says; `again`: attack the sealed cohort once more, which takes as long as an audit.

    An encrypted payload is opened by a recipient's `identity`, if one is given, and compared like any other. Else its
    bytes are compared with those that the run is on record for, and the level says that they were not opened.

    Raises:
        ReleaseRefused: not a bundle's folder. EnvironmentProblem: the store's key cannot be read.
    """
    site = _Site(bundle, workspace, identity)
    checks: dict[str, Callable[[_Site], str]] = {
        "links": _links,
        "files": _files,
        "payload": _payload,
        "ledger": _ledger,
        "audit": _audit,
        **({"audit again": _audit_again} if again else {}),
    }
    lines = tuple(_looked_at(what, check, site) for what, check in checks.items())
    folder = None if site.release is None else site.run_folder()
    level = SEALED if site.sealed else LEVELS[-1 if again else -2]
    return Review(lines, None if folder is None else folder / REPORT_PAGE, level)


def record(bundle: Path, workspace: Path, found: Review, signer: CryptoSigner) -> None:
    """Put a review in which nothing was refused on the log, signed by who made it, for their approval to name.

    Raises:
        EnvironmentProblem: the log cannot be written.
    """
    told = {"statement": statement_digest(read_folder(bundle)[ENVELOPE]), "level": found.level}
    ((keyid, signature),) = with_signature(_signed(told), signer).signatures.items()
    append_log(workspace, ACT, {**told, "by": keyid, "signature": signature.hex()})


def level_of(workspace: Path, statement: str, key: PublicKey) -> str:
    """By which level the holder of `key` has reviewed the bundle of this statement: the highest on the log, or "none".

    A line that they did not sign is somebody else's word, and who is to be checked can write on the log.

    Raises:
        EnvironmentProblem: the log is damaged.
    """
    lines = [entry for entry in read_log(workspace).entries if entry["what"] == ACT]
    found = [entry["level"] for entry in lines if entry.get("statement") == statement and _is_by(entry, key)]
    return max((level for level in found if level in LEVELS), key=LEVELS.index, default=LEVELS[0])


def _signed(told: Mapping[str, Any], signatures: Mapping[str, bytes] | None = None) -> Envelope:
    """What a review's line says, as its signature is over it."""
    return Envelope(SIGNED, canonical({name: told.get(name) for name in ("statement", "level")}), signatures or {})


def _is_by(entry: Mapping[str, Any], key: PublicKey) -> bool:
    try:
        return _signed(entry, {key.keyid: bytes.fromhex(entry["signature"])}).holds(key.keyid, key.public)
    except (KeyError, TypeError, ValueError):
        return False


def _looked_at(what: str, check: Callable[[_Site], str], site: _Site) -> Line:
    try:
        return Line(what, True, check(site))
    except DecoctError as why:
        return Line(what, False, str(why))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return Line(what, False, f"does not fit together: {type(error).__name__}")


def _links(site: _Site) -> str:
    """From the bundle back to the source, each link under the store's key, each artefact what its digest says."""
    waiting, seen = [*site.needed().parents], set[str]()
    stages = [site.needed().stage]
    while waiting:
        digest = waiting.pop()
        if digest in seen:
            continue
        seen.add(digest)
        link = site.links.get(digest)
        if link is None:
            what = f"{site.store.kind_of(digest)} {digest[:12]}"
            raise ReleaseRefused(f"{what} has no link under the store's key: nobody knows who made it")
        site.store.check(digest)
        stages.append(link.stage)
        waiting += link.parents
    for stage in ("ingest", "audit", "decide"):
        if stage not in stages:
            raise ReleaseRefused(f"no {stage} is among what the bundle was made from")
    return f"{len(seen)} artefacts from source to gate, each under the store's key and whole"


def _payload(site: _Site) -> str:
    """The bytes that leave are those of the artefact in the store."""
    _, artefact = site.candidate()
    name = payload_name(site.manifest)
    if site.sealed:
        return f"{name} is encrypted; what it holds was NOT compared: give a recipient's --identity"
    data = site.files[name]
    opened = decrypted(data, site.manifest, site.identity) if site.manifest["encryption"] else data
    if sha256_hex(payload_bytes(artefact)) != sha256_hex(opened):
        raise ReleaseRefused(f"{name} holds other bytes than the artefact in the store gives")
    return f"{name} is what the store's artefact gives, byte for byte"


def _files(site: _Site) -> str:
    """Every file, card and licence among them, is the one that the run is on record for, as its author signed it."""
    written = site.store.get(site.needed().digests[0], ReleaseRecord).digest
    envelope = open_envelope(site.files[ENVELOPE], PAYLOAD_TYPE, ENVELOPE)
    for keyid, signature in envelope.signatures.items():  # approvers have added theirs since
        alone = replace(envelope, signatures={keyid: signature}).data()
        if digest_json({name: sha256_hex(data) for name, data in {**site.files, ENVELOPE: alone}.items()}) == written:
            return f"all {len(site.files)} files are as the run wrote them"
    raise ReleaseRefused("the bundle holds other files than the run that made it is on record for")


def _ledger(site: _Site) -> str:
    """The guarantee rests on what was reserved; the bundle states the same one."""
    _, artefact = site.candidate()
    guarantee = None if isinstance(artefact, EncodedCohort) else artefact.guarantee
    stated = site.manifest["guarantee"]
    told = ("epsilon", "delta", "unit")
    if (stated and [stated[name] for name in told]) != (guarantee and [getattr(guarantee, name) for name in told]):
        raise ReleaseRefused("the bundle states another guarantee than its artefact has")
    if guarantee is None:
        return "no guarantee is stated, so nothing has to be reserved"
    queries = [str(name) for name in artefact.provenance.config.get(LEDGER_QUERIES) or ()]
    if why := unreserved(guarantee, queries, reserved_queries(site.workspace)):
        raise ReleaseRefused(why)
    return f"{len(queries)} queries are reserved with the events of epsilon {guarantee.epsilon:g}"


def _reports(site: _Site) -> tuple[LeakageReport, ...]:
    digest, _ = site.candidate()
    decided = site.links[site.needed().parents[1]]
    kept = [parent for parent in decided.parents if site.store.kind_of(parent) == "LeakageReport"]
    reports = (site.store.get(parent, LeakageReport) for parent in kept)
    return tuple(report for report in reports if report.artefact_digest == digest)


def _decided(site: _Site, reports: tuple[LeakageReport, ...]) -> str:
    """The gate's verdict, from these reports, under the policy in the bundle. Raises ReleaseRefused: not PASS."""
    decided = site.links[site.needed().parents[1]]
    utility = next(parent for parent in decided.parents if site.store.kind_of(parent) == "UtilityReport")
    policy, (_, artefact) = site.policy(), site.candidate()
    around = gate.Circumstances(
        ledger=reserved_queries(site.workspace),
        rules=registry.policy_rules(),
        accepted=(),  # what was released before is compared by the site's own gate
        countersigned=recovery(policy, reports).code if policy.countersign else "",
    )
    found = gate.decide(policy, artefact, reports, site.store.get(utility, UtilityReport), around)
    if found.verdict != "PASS":
        reasons = "; ".join(reason for verdict, reason in found.reasons if verdict != "PASS")
        raise ReleaseRefused(f"the gate says {found.verdict}: {reasons}")
    return f"PASS under policy {policy.name} from {len(reports)} report, {len(found.reasons)} reasons"


def _audit(site: _Site) -> str:
    """The verdict that the bundle states is the gate's, from the audit's own report."""
    told = _decided(site, _reports(site))
    stated = read_canonical(site.files[LEAKAGE], LEAKAGE)
    if (stated["verdict"], stated["policy"]) != ("PASS", site.policy().name):
        raise ReleaseRefused(f"{LEAKAGE} states another verdict")
    return told


def _audit_again(site: _Site) -> str:
    """Every attack once more, on the cohort in the store."""
    from flows.run import walk_until

    folder = site.run_folder()
    if folder is None:
        raise ReleaseRefused("the run that made it is no longer known here, so its audit cannot be made again")
    job = open_job(str(folder), resume=False)  # which may remember another place, where the workspace once lay
    job = replace(job, config=job.config.model_copy(update={"workspace": site.workspace.resolve()}))
    made = walk_until(job, "audit")["audit"]
    digest, _ = site.candidate()
    reports = (site.store.get(each, LeakageReport) for each in made.digests)
    return _decided(site, tuple(report for report in reports if report.artefact_digest == digest))
