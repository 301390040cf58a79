"""The audit log of a workspace: who did what with which release, and checkpoints by which others can hold it to that.

workspace/log/log.jsonl is append-only, a line per act, each holding the digest of the one before. A line is written
*before* the act that it tells of can be seen, so that a crash leaves a line too many, never one too few.

A checkpoint (origin, size, root) commits to all lines up to `size`: root is the Merkle tree hash of RFC 6962 over the
lines. Every release carries one under its signatures and a receipt echoes it, so that who keeps a receipt can tell a
log that was cut, changed or shown differently to somebody else. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, final

from pipeline.core.errors import ReleaseRefused
from pipeline.core.files.chained import Chain, read_chain, writing

FOLDER: Final = "log"
LOG_FILE: Final = "log.jsonl"
ORIGIN: Final = "decoct-log/"


@final
@dataclass(frozen=True)
class Checkpoint:
    """What a log looked like at one moment; `origin` names the log by the digest of its first line."""

    origin: str
    size: int
    root: str  # 64 hex digits

    def plain(self) -> dict[str, Any]:
        """As the manifest and the signed statement hold it."""
        return {"origin": self.origin, "size": self.size, "root": self.root}


def log_path(workspace: Path) -> Path:
    """Where a workspace keeps its log."""
    return workspace / FOLDER / LOG_FILE


def read_log(workspace: Path) -> Chain:
    """The workspace's log; empty if there is none.

    Raises:
        EnvironmentProblem: the chain is broken; the sentence says where.
    """
    return read_chain(log_path(workspace))


def append_log(workspace: Path, what: str, facts: Mapping[str, str | int]) -> Checkpoint:
    """Add a line, wait until it is on the disk, and return the checkpoint that includes it.

    Raises:
        EnvironmentProblem: the chain is broken already, or the disk refuses; nothing is written then.
    """
    with writing(log_path(workspace)) as log:
        log.append(what, facts)
        return checkpoint(log.chain)


def checkpoint(log: Chain, size: int | None = None) -> Checkpoint:
    """The checkpoint of the log's first `size` lines; None = all."""
    size = len(log.lines) if size is None else size
    return Checkpoint(ORIGIN + log.head_at(min(size, 1))[:16], size, merkle_root(log.lines[:size]))


def merkle_root(leaves: Sequence[bytes]) -> str:
    """The Merkle tree hash of RFC 6962, section 2.1, in hex."""
    subtrees: list[tuple[int, bytes]] = []  # (leaves below, hash) of complete subtrees, largest first
    for leaf in leaves:
        width, node = 1, sha256(b"\x00" + leaf).digest()
        while subtrees and subtrees[-1][0] == width:
            node = sha256(b"\x01" + subtrees.pop()[1] + node).digest()
            width *= 2
        subtrees.append((width, node))
    if not subtrees:
        return sha256(b"").hexdigest()
    node = subtrees.pop()[1]
    while subtrees:
        node = sha256(b"\x01" + subtrees.pop()[1] + node).digest()
    return node.hex()


def parse_checkpoint(raw: Any, where: str) -> Checkpoint:
    """A checkpoint from parsed JSON.

    Raises:
        ReleaseRefused: not one.
    """
    if not isinstance(raw, dict) or set(raw) != {"origin", "size", "root"}:
        raise ReleaseRefused(f"{where} does not hold a checkpoint of the site's log")
    origin, size, root = raw["origin"], raw["size"], raw["root"]
    if type(origin) is not str or type(root) is not str or type(size) is not int or size < 1 or len(root) != 64:
        raise ReleaseRefused(f"{where} holds a checkpoint with a value of the wrong type")
    if not origin.startswith(ORIGIN):
        raise ReleaseRefused(f"{where} holds a checkpoint of a log that this version does not know; it reads {ORIGIN}")
    return Checkpoint(origin, size, root)


def require_extends(log: Chain, seen: Checkpoint, where: str) -> None:
    """The log is what it was when `seen` was taken, and perhaps longer.

    Raises:
        ReleaseRefused: it is another log, shorter, or a line up to then was changed; one sentence says which.
    """
    if checkpoint(log, min(1, len(log.lines))).origin != seen.origin:
        raise ReleaseRefused(f"{where} was made by another log than this one, or this one was begun anew")
    if len(log.lines) < seen.size:
        raise ReleaseRefused(
            f"the log was cut: {where} saw {seen.size} lines of it, and it has {len(log.lines)}; "
            "perhaps a backup was restored"
        )
    if checkpoint(log, seen.size) != seen:
        raise ReleaseRefused(f"the log was rewritten: its first {seen.size} lines are not those that {where} saw")
