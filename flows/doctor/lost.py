"""What of a workspace is not as it was left, and the one way to say that it is lost for good and that work goes on.

Every file whose absence would mean "nothing has happened yet" is noted beside the keys (`pipeline.core.files.seen`):
whoever reads one that is not as it was left stops. To go on without it is for the person in charge to say, by name; the
log holds that for good, and every later release a checkpoint of the log. What the file knew is known no more: after a
lost ledger earlier queries count for nothing, after a lost history nobody is compared with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from flows.workspace import accepted
from flows.workspace.history import AUDITS, HISTORY_URL, history_of, noted_as
from flows.workspace.removing.withdrawals import tell_log
from pipeline.audit.history import FILE_NAME
from pipeline.core.errors import DecoctError, UsageError
from pipeline.core.files.chained import found_chain
from pipeline.core.files.noted import noted_state
from pipeline.core.files.seen import NOTHING, accept, name_of, sentence, states, told
from pipeline.core.keys.custody.keyring import keys_of
from pipeline.core.keys.secrets import key_state
from pipeline.sharing.layout import PROPOSALS, RELEASES
from pipeline.sharing.policy.ledger import anchor, ledger_path
from pipeline.sharing.policy.opening import LOST, contradictions
from pipeline.sharing.trust.log import append_log, log_path

BUNDLES: Final = (f"{RELEASES}/", f"{PROPOSALS}/")


def missing(workspace: Path) -> Iterator[tuple[str, str]]:
    """Each file or bundle that is not as it was left, with a sentence.

    Raises:
        EnvironmentProblem: what was noted cannot be read.
    """
    keys = keys_of(workspace)
    known = states(keys)
    for name in dict.fromkeys((*known, *_expected(workspace))):
        try:
            state = _present(workspace, name)
        except DecoctError as why:
            yield name, str(why)
            continue
        if state not in known.get(name, (NOTHING,)):
            yield name, sentence(keys, name, known, state)
    try:
        yield from contradictions(workspace, found_chain(log_path(workspace)))
    except DecoctError:
        return  # told above


def declare_lost(workspace: Path, names: Sequence[str]) -> None:
    """Go on without what these files and bundles said; on the log first of all, if that is not what is lost.

    Raises:
        UsageError: one is as it was left. EnvironmentProblem: one is damaged and has to be moved away first, the log
            is not as it was left and not named, or the disk refuses.
    """
    known = {name for name, _ in missing(workspace)}
    if whole := [name for name in names if name not in known]:
        others = ", ".join(sorted(known)) or "none"
        raise UsageError(f"{whole[0]} is as it was left in {workspace}; what is not: {others}")
    keys, log = keys_of(workspace), name_of(keys_of(workspace), log_path(workspace))
    for name in sorted(names, key=lambda name: name != log):
        if name.startswith(BUNDLES):
            append_log(workspace, LOST, {"file": name})
            continue
        state = _present(workspace, name)
        was = states(keys).get(name, (NOTHING,))
        if name == log:
            accept(keys, name, state)
        append_log(workspace, LOST, {"file": name, "was": told(was[-1]), "now": told(state)})
        if name != log:
            accept(keys, name, state)
    ledger = ledger_path(workspace)
    if log in names:
        for bundle, _ in list(contradictions(workspace, found_chain(log_path(workspace)))):
            append_log(workspace, LOST, {"file": bundle})
        tell_log(workspace)
    if {log, name_of(keys, ledger)} & {*names}:
        anchor(workspace, found_chain(ledger))


def _expected(workspace: Path) -> Iterator[str]:
    """What may be here without a note: a workspace of an earlier version, or one whose note is gone."""
    keys = keys_of(workspace)
    nights = workspace / accepted.NIGHTS
    chains = (log_path(workspace), ledger_path(workspace), nights / accepted.ACCEPTED_FILE, nights / "nights.jsonl")
    for path in chains:  # pins and the keys' log may come with keys that were copied, and are believed as they are
        if path.exists():
            yield name_of(keys, path)
    if (workspace / FILE_NAME).exists():
        yield from map(noted_as, history_of(workspace).names())


def _present(workspace: Path, name: str) -> str:
    """The state of what is there now."""
    path = workspace / name
    if name.startswith(AUDITS):
        if HISTORY_URL not in os.environ and not (workspace / FILE_NAME).exists():
            return NOTHING  # and none is made by looking
        return history_of(workspace).state(name.removeprefix(AUDITS))
    if name.endswith(".jsonl"):
        return found_chain(path).state
    if name.endswith(".key"):
        return key_state(path)
    return noted_state(path.read_bytes() if path.exists() else None)
