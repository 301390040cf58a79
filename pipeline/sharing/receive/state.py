"""What a receiver remembers, so that nobody can hand it an older truth: releases, roots, revocations, logs seen.

A bundle that was right once stays rightly signed; only who remembers a later one sees that it is a step back. The
state is a JSON file of the receiver's own, replaced whole. `check` looks and never writes; `remember` looks and writes
under a lock. Imports: the standard library, rfc8785, cryptography.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused
from pipeline.core.files.locked import locked
from pipeline.core.files.noted import noted_state
from pipeline.core.files.seen import accept, changing, checked, name_of, states
from pipeline.core.files.whole import put_whole
from pipeline.sharing.canonical import canonical, read_canonical
from pipeline.sharing.trust.keys import PublicKey, TrustRoot
from pipeline.sharing.trust.log import parse_checkpoint
from pipeline.sharing.trust.revocation import Revocations
from pipeline.sharing.trust.root import require_successor

FORMAT: Final = "decoct-receiver/1"
REVOCATIONS: Final = "revocations.json"  # looked for beside the trust root
STATE_FILE: Final = "state.json"
EMPTY: Final[Mapping[str, Any]] = {"format": FORMAT, "releases": {}, "root": None, "revocations": 0}


def memory_of(root: Path) -> Path:
    """The folder beside a trust root's file in which its receiver's state, log and receipts are kept."""
    return root.with_name(f"{root.name}.received")


def load_state(path: Path) -> Mapping[str, Any]:
    """The state in `path`; an empty one where there is no file.

    Raises:
        ReleaseRefused: the file is not a state of this version, or not as it was left: remembering nothing would
            accept anything.
    """
    keys = _keys(path)
    try:
        if name_of(keys, path) in states(keys):
            data = checked(keys, name_of(keys, path), lambda: _read(path), noted_state)
        else:
            data = _read(path)  # of an earlier version, or handed over by somebody
    except EnvironmentProblem as why:
        raise ReleaseRefused(str(why)) from None
    if data is None:
        return EMPTY
    state = read_canonical(data, f"the receiver's state {path}")
    if set(state) != set(EMPTY) or state["format"] != FORMAT:
        raise ReleaseRefused(f"the receiver's state {path} is of a format that this version does not know")
    try:
        _require_shape(state)
    except (KeyError, TypeError, AttributeError):
        raise ReleaseRefused(f"the receiver's state {path} is damaged") from None
    return state


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        raise ReleaseRefused(f"the receiver's state {path} cannot be read") from None


def _keys(path: Path) -> Path:
    """Where the receiver's own files are noted: in the folder of that name beside the state."""
    return path.parent / "keys"


def _require_shape(state: Mapping[str, Any]) -> None:
    """Every value is of the type that the checks compare. Raises KeyError, TypeError or AttributeError."""
    numbers, texts = [state["revocations"]], []
    for name, seen in state["releases"].items():
        numbers.append(seen["version"])
        texts += [name, seen["statement"]]
        if seen["log"] is not None:
            parse_checkpoint(seen["log"], "the receiver's state")
    last = state["root"]
    if last is not None:
        numbers += [last["version"], last["threshold"]]
        texts += [last["digest"], *(key[name] for key in last["keys"] for name in ("keyid", "public", "name"))]
    if any(type(number) is not int for number in numbers) or any(type(text) is not str for text in texts):
        raise TypeError


def check_root(state: Mapping[str, Any], root: TrustRoot, data: bytes) -> None:
    """`data` (the file that `root` was read from) may follow the root that was used last.

    Raises:
        ReleaseRefused: an older one, another one of the same version, an unsigned one after a signed one, or a new one
            that too few of the last one's root keys have signed.
    """
    last = state["root"]
    if last is None:
        return
    if not root.digest:
        raise ReleaseRefused("a signed trust root was used here before, and one that nobody signed came now")
    if root.version < last["version"]:
        raise ReleaseRefused(f"the trust root is version {root.version}, and version {last['version']} was used before")
    if root.version == last["version"]:
        if root.digest != last["digest"]:
            raise ReleaseRefused(f"there are two trust roots of version {root.version}: somebody is replacing keys")
        return
    keys = tuple(PublicKey(key["keyid"], key["public"], key["name"], "root") for key in last["keys"])
    old = TrustRoot(keys=keys, version=last["version"], threshold=last["threshold"])
    require_successor(data, old, "the trust root")


def check(
    state: Mapping[str, Any], manifest: Mapping[str, Any], statement: str, revocations: Revocations | None
) -> None:
    """A verified bundle and list may follow what was seen before.

    Raises:
        ReleaseRefused: a rollback, two releases of one version, an older revocation list, or a log that is not the one
            that was seen before; one sentence says which.
    """
    name = f"{manifest['site']}/{manifest['name']}"
    seen = state["releases"].get(name)
    if seen is not None and manifest["version"] < seen["version"]:
        raise ReleaseRefused(
            f"version {manifest['version']} of {name} is older than {seen['version']}, which was received before"
        )
    if seen is not None and manifest["version"] == seen["version"] and statement != seen["statement"]:
        raise ReleaseRefused(f"there are two different releases {name} of version {seen['version']}")
    if (0 if revocations is None else revocations.version) < state["revocations"]:
        raise ReleaseRefused(
            f"the revocation list is older than version {state['revocations']}, which was used before, or missing"
        )
    _check_log(state, manifest)


def remember(
    path: Path,
    root: TrustRoot,
    data: bytes,
    manifest: Mapping[str, Any],
    statement: str,
    revocations: Revocations | None,
) -> None:
    """Check once more and write what is now known, in one step under a lock.

    Raises:
        ReleaseRefused: as `check` and `check_root`. EnvironmentProblem: the state cannot be written.
    """
    with locked(path.parent / f".{path.name}.lock"):
        state = load_state(path)
        check_root(state, root, data)
        check(state, manifest, statement, revocations)
        release = {"version": manifest["version"], "statement": statement, "log": manifest.get("log")}
        known = {
            "format": FORMAT,
            "releases": {**state["releases"], f"{manifest['site']}/{manifest['name']}": release},
            "root": _told(root) if root.digest else state["root"],
            "revocations": state["revocations"] if revocations is None else revocations.version,
        }
        keys, name = _keys(path), name_of(_keys(path), path)
        before = noted_state(_read(path))
        if name not in states(keys):
            accept(keys, name, before)
        with changing(keys, name, before, noted_state(canonical(known))):
            try:
                put_whole(path, canonical(known))
            except OSError as error:
                raise EnvironmentProblem(f"the receiver's state {path} cannot be written: {error.strerror}") from None


def _check_log(state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """The site's log went on from what it showed before. That its lines are the same, only the log itself can prove."""
    site, told = manifest["site"], manifest.get("log")
    for name, seen in state["releases"].items():
        if seen["log"] is None or not name.startswith(f"{site}/"):
            continue
        if told is None:
            raise ReleaseRefused(f"{site} has shown its log before, and this release carries no checkpoint of it")
        last, now = parse_checkpoint(seen["log"], "the receiver's state"), parse_checkpoint(told, "the manifest")
        newer = name == f"{site}/{manifest['name']}" and manifest["version"] > seen["version"]
        if now.origin != last.origin:
            raise ReleaseRefused(f"the log of {site} was begun anew, or is another one: ask the site")
        if (now.size == last.size and now.root != last.root) or (newer and now.size <= last.size):
            raise ReleaseRefused(f"the log of {site} is not the one that was shown before: it was cut or split")


def _told(root: TrustRoot) -> dict[str, Any]:
    keys = [{"keyid": k.keyid, "public": k.public, "name": k.name} for k in root.keys if k.role == "root"]
    return {"version": root.version, "digest": root.digest, "threshold": root.threshold, "keys": keys}
