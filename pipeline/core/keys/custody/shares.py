"""A key among n custodians, any k of whom can bring it back: SLIP-39 (Shamir's scheme over words with a checksum).

k - 1 shares tell nothing about the key. The words are those of the SLIP-39 standard, one group, no passphrase, so that
any other tool of that standard joins them too; the lines above the words tell what they are shares of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.core.keys.custody.keyring import key_file
from pipeline.core.keys.custody.log import append_log, read_log
from pipeline.core.keys.secrets import VERSION, Secret, read_secret, write_secret

MOST: Final = 16  # SLIP-39's largest group
_HEADER: Final = "decoct-share v1"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")


@final
@dataclass(frozen=True, repr=False)
class Shares:
    """The texts for the custodians, words and all: to be written to files or printed, nowhere else."""

    fingerprint: str
    needed: int
    texts: tuple[str, ...]


def split_key(keys: Path, purpose: str, needed: int, of: int) -> Shares:
    """Make `of` shares of a key, any `needed` of which give it back; logged.

    Every call makes shares of a new set; those of two sets do not fit together.

    Raises:
        UsageError: not 2 <= needed <= of <= 16.
        EnvironmentProblem: the key cannot be read, or the log is broken.
    """
    if not 2 <= needed <= of <= MOST:
        raise UsageError(f"shares: at least 2 are needed, and there are at most {MOST}; not {needed} of {of}")
    secret = read_secret(key_file(keys, purpose), purpose)
    from shamir_mnemonic import generate_mnemonics

    words = generate_mnemonics(1, [(needed, of)], secret.reveal())[0]
    append_log(
        keys, "split", {"purpose": purpose, "fingerprint": secret.fingerprint, "needed": needed, "shares": len(words)}
    )
    head = f"{_HEADER}\npurpose {purpose}\nfingerprint {secret.fingerprint}\nmade {secret.made}\n"
    texts = (f"{head}share {n} of {of}, any {needed} give the key\n\n{line}\n" for n, line in enumerate(words, start=1))
    return Shares(secret.fingerprint, needed, tuple(texts))


def write_shares(folder: Path, purpose: str, shares: Shares) -> tuple[Path, ...]:
    """One file per custodian, closed to others, in `folder`; never overwrites.

    Raises:
        EnvironmentProblem: a file exists already or cannot be written.
    """
    total = len(shares.texts)
    paths = tuple(
        folder / f"{purpose}-{shares.fingerprint}-share-{number}-of-{total}.txt" for number in range(1, total + 1)
    )
    for path, text in zip(paths, shares.texts, strict=True):
        write_owner_file(path, text.encode("ascii"), "share")
    return paths


def join_shares(
    keys: Path, purpose: str, files: Sequence[Path], *, fingerprint: str = "", passphrase: str | None = None
) -> Secret:
    """Bring a key back from shares and write it where it belongs, unless that very key is there already; logged.

    Args:
        fingerprint: for files that hold bare words, copied from paper; otherwise it must be what the files say.

    Raises:
        EnvironmentProblem: a damaged share, too few, shares that do not fit together, another fingerprint than was
            told, or another key in place.
    """
    path = key_file(keys, purpose)
    read = [_read_share(file, purpose) for file in files]
    told = {found.fingerprint for found in read if found.fingerprint} | ({fingerprint} if fingerprint else set())
    if len(told) > 1:
        raise EnvironmentProblem("the shares are of different keys, by the given fingerprints")
    if not told:
        raise UsageError("words alone do not name their key: give its --fingerprint")
    secret = _recovered([found.words for found in read], purpose, told.pop(), max(found.made for found in read))
    if path.exists() and read_secret(path, purpose).fingerprint == secret.fingerprint:
        return secret
    read_log(keys)
    write_secret(path, secret, passphrase)
    append_log(keys, "join", {"purpose": purpose, "fingerprint": secret.fingerprint, "shares": len(read)})
    return secret


@final
@dataclass(frozen=True, repr=False)
class _Share:
    words: str
    fingerprint: str = ""
    made: str = ""


def _read_share(file: Path, purpose: str) -> _Share:
    """A share file as written by `write_shares`, or bare words; each share has a checksum, so damage is found here."""
    text = read_owner_file(file, "share").decode("utf-8", errors="replace")
    facts, words = "", text
    if text.startswith(_HEADER):
        facts, _, words = text.partition("\n\n")
    lines = dict(line.split(" ", 1) for line in facts.splitlines() if " " in line)
    share = _Share(" ".join(words.lower().split()), lines.get("fingerprint", ""), lines.get("made", ""))
    if lines and lines.get("purpose") != purpose:
        raise EnvironmentProblem(f"share {file} is not of a key for purpose {purpose!r}")
    if _parsed(share.words) is None or (lines and not _FINGERPRINT.fullmatch(share.fingerprint)):
        raise EnvironmentProblem(f"share {file} is damaged: a word or a line of it is not what was written")
    return share


def _recovered(words: Sequence[str], purpose: str, fingerprint: str, made: str) -> Secret:
    """The secret behind the words, of whichever key version has the fingerprint."""
    parsed = [_parsed(line) for line in words]
    needed = parsed[0].member_threshold if parsed else 0
    if len({share.group_parameters() for share in parsed}) != 1:
        raise EnvironmentProblem("the shares do not fit together: they are of different splits")
    distinct = {share.index: line for share, line in zip(parsed, words, strict=True)}
    if len(distinct) < needed:
        raise EnvironmentProblem(f"{needed} different shares are needed, and {len(distinct)} were given")
    material = _combined(list(distinct.values())[:needed])
    for version in range(VERSION, 0, -1):
        secret = Secret(material, purpose, version, made if version > 1 else "") if material else None
        if secret is not None and secret.fingerprint == fingerprint:
            return secret
    raise EnvironmentProblem(f"the shares do not give the key with fingerprint {fingerprint}; nothing was written")


def _parsed(words: str) -> Any:
    """The share as the library sees it; None if it is none (its own errors show words)."""
    from shamir_mnemonic import MnemonicError, Share

    try:
        return Share.from_mnemonic(words)
    except (MnemonicError, ValueError):
        return None


def _combined(words: Sequence[str]) -> bytes:
    from shamir_mnemonic import MnemonicError, combine_mnemonics

    try:
        return bytes(combine_mnemonics(words))
    except (MnemonicError, ValueError):
        return b""
