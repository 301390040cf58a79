"""What the byte scan looks for, in which forms, and the search itself."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.audit.scene import BytesScene
from pipeline.audit.statistics import poisson_tail

MIN_TOKEN = 4  # shorter identifiers occur in any text
CHANCE = 1e-3  # hits in random payload that are less likely than this by chance are counted as found
NUMBER_FORMS: Mapping[str, np.dtype] = {
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}
MIN_BINARY_NUMBER = 100_000  # smaller integers are sizes and counts in any binary file
MIN_BINARY_HITS = 3  # distinct identifiers in one file: a single one is as likely a size or an offset
DENSE = 0.05  # where more than this share of all numbers of a length are identifiers, a find means nothing
_WORD = re.compile(rb"[0-9A-Za-z_.\-]{4,}")
_WIDE_WORD = re.compile(rb"(?:[0-9A-Za-z_.\-]\x00){4,}")
_DIGITS = re.compile(rb"(?<![0-9])[0-9]{4,}(?![0-9])")
_DECIMAL = re.compile(rb"-?[0-9]*\.[0-9]+(?:e-?[0-9]*)?\.?")
_PATH = re.compile(rb"(?<![\w/.:-])/(?:home|Users|root|tmp|mnt|data|work|var|srv|opt|private|scratch)/[\w.\-/]+")
_WINDOWS_PATH = re.compile(rb"(?<![0-9A-Za-z])[A-Za-z]:\\{1,2}[\w.\-]{2,}[\w.\-\\ ]*")
_TRAILING_ZERO = re.compile(rb"\.0*$")
_PIECES = re.compile(rb"[_.\-]+")


@dataclass
class Hits:
    """What was found of one kind; never which identifier."""

    count: int = 0
    forms: set[str] = field(default_factory=set)
    files: dict[str, set[str]] = field(default_factory=dict)
    expected: float = 0.0  # number of hits that random payload would give
    by_chance: int = 0  # hits that such chance explains, not in `count`

    def add(self, file: str, form: str, times: int) -> None:
        """Count `times` hits of a form in a file."""
        if times:
            self.count += times
            self.forms.add(form)
            self.files.setdefault(file, set()).add(form)


@dataclass(frozen=True)
class Patterns:
    """Words and numbers per kind, and the secrets' byte forms."""

    words: Mapping[str, frozenset[bytes]] = field(repr=False)  # kind -> words in lower case
    numbers: Mapping[str, np.ndarray] = field(repr=False)  # kind -> sorted int64
    secrets: tuple[bytes, ...] = field(repr=False)
    skipped: Mapping[str, int]
    public: frozenset[bytes] = frozenset()  # numbers stated on purpose
    with_paths: bool = True

    def forms(self, kind: str) -> frozenset[str]:
        """The forms in which a kind is looked for."""
        if kind == "secrets":
            return frozenset({"raw", "hex", "base64"})
        if kind == "paths":
            return frozenset({"posix path", "windows path"})
        numbers = frozenset(NUMBER_FORMS) if len(self.numbers.get(kind, ())) else frozenset()
        return frozenset({"text", "utf-16"}) | numbers if self.size(kind) else frozenset()

    def size(self, kind: str) -> int:
        """How many different things are looked for."""
        if kind == "paths":
            return 2
        return len(self.secrets) if kind == "secrets" else len(self.words.get(kind, ()))

    def decoys(self, rng: np.random.Generator) -> Patterns:
        """As many invented patterns of the same shape: what the scan finds of them, it finds by accident."""
        words = {kind: frozenset(_invented(known, self.public, rng)) for kind, known in self.words.items()}
        numbers = {kind: _numbers(invented) for kind, invented in words.items()}
        return dataclasses.replace(
            self,
            words=words,
            numbers=numbers,
            secrets=tuple(rng.bytes(len(secret)) for secret in self.secrets),
            with_paths=False,
        )

    def planted(self) -> dict[str, bytes]:
        """Small files that hold every form of every kind once."""
        files = {"paths.txt": b"see /home/someone/cohort.csv or C:\\Users\\someone\\cohort.csv"}
        for kind, known in self.words.items():
            for word in sorted(known)[:1]:
                files[f"{kind}.json"] = b'{"key": "' + word + b'"}'
                files[f"{kind}-wide.bin"] = b"\xff\xff" + word.decode().encode("utf-16-le") + b"\xff\xff"
            few = self.numbers[kind][:MIN_BINARY_HITS]
            for form, dtype in NUMBER_FORMS.items():
                if len(few):
                    files[f"{kind}-{form}.bin"] = b"\xff" * 8 + few.astype(dtype).tobytes() + b"\xff" * 8
        for secret in self.secrets[:1]:
            files["raw.bin"] = b"\xff\xff" + secret + b"\xff"
            files["hex.txt"] = b"key: " + secret.hex().encode()
            files["base64.txt"] = b"key: " + base64.b64encode(b"x" + secret)
        return files


def patterns_of(scene: BytesScene) -> Patterns:
    """The scene's identifiers, secrets, dates and seeds, ready to be looked for.

    Numbers that the release states on purpose, and the files' own sizes, are not looked for.
    """
    public = frozenset(str(number).encode() for number in (*scene.public_numbers, *map(len, scene.files.values())))
    asked = {
        "identifiers": [str(name) for name in scene.identifiers],
        "dates": list(scene.dates),
        "seeds": [str(number) for number in scene.seeds],
    }
    words, skipped = {}, {}
    for kind, names in asked.items():
        known = {name.strip().lower().encode() for name in names} - public
        dense = {length for length, density in densities(frozenset(known)).items() if density > DENSE}
        words[kind] = frozenset(
            name for name in known if len(name) >= MIN_TOKEN and not (name.isdigit() and len(name) in dense)
        )
        skipped[kind] = len(known) - len(words[kind])
    return Patterns(
        words=words,
        numbers={kind: _numbers(known) for kind, known in words.items()},
        secrets=tuple(secret for secret in scene.secrets if len(secret) >= MIN_TOKEN),
        skipped=skipped,
        public=public,
    )


@dataclass(frozen=True)
class Content:
    """A file with its words, read once for all searches."""

    data: bytes
    is_text: bool
    is_wrapper: bool  # packed or encrypted: a number among its own bytes is there by chance
    is_column: bool  # an array: numbers start at multiples of their size
    words: list[bytes]
    wide: list[bytes]
    digits: list[bytes]


def read(data: bytes, is_wrapper: bool = False, is_column: bool = False) -> Content:
    """Split a file's bytes into the words that may be identifiers."""
    is_text = _is_text(data)
    wide = [match.replace(b"\x00", b"") for match in _WIDE_WORD.findall(data)]
    digits = [] if is_text else _DIGITS.findall(data)  # in binary content any byte may stand beside the digits
    return Content(data, is_text, is_wrapper, is_column, _WORD.findall(data), wide, digits)


def scan_files(files: Mapping[str, Content], patterns: Patterns) -> dict[str, Hits]:
    """Everything that is found, by kind."""
    found = {kind: Hits() for kind in ("identifiers", "secrets", "dates", "seeds", "paths")}
    for name, content in sorted(files.items()):
        for kind, known in patterns.words.items():
            if known:
                _scan_words(name, content, known, found[kind])
            if len(patterns.numbers[kind]) and not (content.is_text or content.is_wrapper):
                _scan_numbers(name, content, patterns.numbers[kind], found[kind])
        _scan_secrets(name, content.data, patterns.secrets, found["secrets"])
        if patterns.with_paths:
            found["paths"].add(name, "posix path", len(_PATH.findall(content.data)))
            windows = len(_WINDOWS_PATH.findall(content.data)) if content.is_text else 0
            found["paths"].add(name, "windows path", windows)
    return found


def shown_names(names: Iterable[str], patterns: Patterns) -> dict[str, str]:
    """Name -> what a report may call it: a name that holds what is looked for must not be said, so it gets a number."""
    shown = {}
    for number, name in enumerate(sorted(names), start=1):
        hits, content = Hits(), read(name.encode())
        for known in patterns.words.values():
            _scan_words(name, content, known, hits)
        shown[name] = f"file {number}" if hits.count else name
    return shown


def _is_text(data: bytes) -> bool:
    if b"\x00" in data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _scan_words(name: str, content: Content, known: frozenset[bytes], hits: Hits) -> None:
    for form, words in (("text", content.words), ("utf-16", content.wide)):
        found = [hit for word in words for hit in _identified(word, known)]
        if form == "text" and not content.is_text:
            found = [hit for hit in found if not hit.isdigit()] + _beyond_chance(content.digits, known, hits)
        hits.add(name, form, len(found))
    several = [word for word in known if not _is_plain(word)]
    lower = content.data.lower() if several else b""
    for word in several:
        edges = rb"(?<![0-9a-z])%s(?![0-9])" % re.escape(word)
        hits.add(name, "text", len(re.findall(edges, lower)) if word in lower else 0)
        hits.add(name, "utf-16", lower.count(word.decode().encode("utf-16-le")))


def _is_plain(word: bytes) -> bool:
    """One word without separators: anything else (a date, a full name) is searched for as a piece of text."""
    return bool(_WORD.fullmatch(word)) and not _PIECES.search(word)


def _identified(word: bytes, known: frozenset[bytes]) -> list[bytes]:
    """The identifiers that a word holds: itself, without a trailing ".0", or a piece (stay_142731.csv)."""
    lower = word.lower()
    if _DECIMAL.fullmatch(lower):
        whole = _TRAILING_ZERO.sub(b"", lower)
        return [whole] if whole in known else []
    return [piece for piece in _PIECES.split(lower) if piece in known]


def _beyond_chance(digits: list[bytes], known: frozenset[bytes], hits: Hits) -> list[bytes]:
    """Identifiers among the runs of digits in binary content, less those that random runs explain."""
    counted: list[bytes] = []
    for length, density in densities(known).items():
        runs = [run for run in digits if len(run) == length]
        found = [run for run in runs if run in known]
        hits.expected += density * len(runs)
        if density * len(runs) <= DENSE or poisson_tail(len(found), density * len(runs)) < CHANCE:
            counted += found
        else:
            hits.by_chance += len(found)
    return counted


def densities(known: frozenset[bytes]) -> dict[int, float]:
    """Share of all numbers of a length that are identifiers, for every length of a numeric identifier."""
    lengths = [len(word) for word in known if word.isdigit()]
    return {length: lengths.count(length) / (9 * 10 ** (length - 1)) for length in sorted(set(lengths))}


def _scan_numbers(name: str, content: Content, numbers: np.ndarray, hits: Hits) -> None:
    for form, dtype in NUMBER_FORMS.items():
        most = 2.0 ** (8 * dtype.itemsize - 1) if dtype.kind == "i" else np.inf
        known = np.unique(numbers[numbers < most].astype(dtype))
        if known.size == 0 or len(content.data) < dtype.itemsize:
            continue
        offsets = 1 if content.is_column else dtype.itemsize
        found = np.concatenate([_among(content.data, offset, dtype, known) for offset in range(offsets)])
        expected = len(content.data) * offsets / dtype.itemsize * known.size / 2.0 ** (8 * dtype.itemsize)
        hits.expected += expected
        several = len(np.unique(found)) >= min(MIN_BINARY_HITS, known.size)
        if several and poisson_tail(len(found), expected) < CHANCE:
            hits.add(name, form, len(found))
        else:
            hits.by_chance += len(found)


def _among(data: bytes, offset: int, dtype: np.dtype, known: np.ndarray) -> np.ndarray:
    words = np.frombuffer(data, dtype, count=(len(data) - offset) // dtype.itemsize, offset=offset)
    words = words[(words >= known[0]) & (words <= known[-1])]
    place = np.minimum(np.searchsorted(known, words), known.size - 1)
    matching: np.ndarray = words[known[place] == words]
    return matching


def _scan_secrets(name: str, data: bytes, secrets: tuple[bytes, ...], hits: Hits) -> None:
    lower = data.lower()
    for secret in secrets:
        hits.add(name, "raw", data.count(secret))
        hits.add(name, "hex", lower.count(secret.hex().encode()))
        for shift in range(3):  # base64 of a longer text that holds the secret at any offset
            text = base64.b64encode(b"\x00" * shift + secret)
            core = text[-(-shift * 8 // 6) : (shift + len(secret)) * 8 // 6]
            hits.add(name, "base64", data.count(core) + (data.count(_url(core)) if _url(core) != core else 0))


def _url(text: bytes) -> bytes:
    return text.replace(b"+", b"-").replace(b"/", b"_")


def _numbers(words: frozenset[bytes] | set[bytes]) -> np.ndarray:
    found = {int(word) for word in words if word.isdigit() and len(word) < 19}
    return np.array(sorted(number for number in found if number >= MIN_BINARY_NUMBER), np.int64)


def _invented(known: frozenset[bytes], public: frozenset[bytes], rng: np.random.Generator) -> set[bytes]:
    """As many words of the same lengths and kinds of character, none of them known or public."""
    invented: set[bytes] = set()
    for word in sorted(known):
        for _ in range(20):
            made = bytes(_alike(letter, rng) for letter in word)
            if made not in known and made not in public and made not in invented:
                invented.add(made)
                break
    return invented


def _alike(letter: int, rng: np.random.Generator) -> int:
    if 48 <= letter <= 57:
        return int(rng.integers(48, 58))
    return int(rng.integers(97, 123)) if 97 <= letter <= 122 else letter
