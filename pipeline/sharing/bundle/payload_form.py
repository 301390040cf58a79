"""The one form that a payload may have: header, order of rows, grid of values. What has two spellings can carry words.

A set of numbers with free low bits, free order or a free header holds more than it says: whole records in mantissas,
who was a member in the order of rows, text in a header. So every value lies on a grid that is as coarse as its meaning
allows, rows are sorted by their own bytes, and the header is the one that the manifest's description gives.

features  a multiple of 2^-12 of the channel's range, the power of two at or above its largest value, at least 1: finer
          than bedside measurements, and 11 bits coarser than float32
labels    in [0, 1], a multiple of 2^-10, of a binary task 0 or 1 unless the manifest says that labels are soft;
          missing = the one quiet NaN 0x7fc00000
label_shift, teacher  multiples of 2^-10, at most 2^10 in size: far below the noise of what they were computed from
moments   a multiple of 2^-10 of the noise that their guarantee states, rounded down to a power of two; a symmetric gram

Standard library only: the verifier imports it. The writer rounds with `pipeline.sharing.bundle.payload`.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pipeline.core import teacher_form
from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.layout import ARRAYS, PAYLOAD, SHIFT, TEACHER

FEATURE_BITS: Final = 12
LABEL_STEP: Final = 2.0**-10
NOISE_BITS: Final = 10
UNKNOWN_NOISE: Final = 2.0**-10  # of moments whose guarantee does not state its noise
MISSING: Final = 0x7FC00000
_DTYPES: Final[Mapping[str, tuple[str, str, int]]] = {"float32": ("F32", "I", 4), "float64": ("F64", "Q", 8)}
_ORDERED: Final[Mapping[str, int]] = {
    "features": 3,
    "labels": 2,
    SHIFT: 1,
    TEACHER: 2,
    "gram": 2,
    "signed_sums": 2,
    "signed_counts": 1,
}


def feature_step(peak: float) -> float:
    """The grid of a channel whose largest absolute value is `peak`."""
    mantissa, exponent = math.frexp(peak)
    return 2.0 ** (max(exponent - (mantissa == 0.5), 0) - FEATURE_BITS)


def moments_step(guarantee: Mapping[str, Any] | None) -> float:
    """The grid of moments, from the smallest noise scale among the events of their guarantee.

    Raises:
        ReleaseRefused: a scale that is none.
    """
    events = [] if guarantee is None else guarantee["events"]
    scales = [event["noise_scale"] for event in events if isinstance(event, Mapping) and "noise_scale" in event]
    if not all(type(scale) in (int, float) and 2.0**-20 <= scale <= 2.0**60 for scale in scales):
        raise ReleaseRefused("the guarantee states a scale of noise that is none")
    return float(2.0 ** (math.floor(math.log2(min(scales, default=UNKNOWN_NOISE * 2**NOISE_BITS))) - NOISE_BITS))


def header(arrays: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The first bytes of the safetensors file with these arrays (name -> dtype, shape): length, JSON, blanks up to 8.

    Raises:
        ReleaseRefused: a dtype or shape that no payload has.
    """
    told, start = {}, 0
    for name in sorted(arrays):
        shape, dtype = arrays[name].get("shape"), arrays[name].get("dtype")
        if (
            set(arrays[name]) != {"dtype", "shape"}
            or dtype != ("float32" if name in ARRAYS["condensed"] else "float64")
            or not isinstance(shape, list | tuple)
            or len(shape) != _ORDERED.get(name)
            or not all(type(size) is int and 0 <= size < 2**31 for size in shape)
        ):
            raise ReleaseRefused(f"the manifest gives the array {name} a type or a shape that no payload has")
        letters, _, width = _DTYPES[dtype]
        end = start + width * math.prod(shape)
        told[name] = {"dtype": letters, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(told, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def require_canonical(data: bytes, manifest: Mapping[str, Any]) -> None:
    """The payload, as it is before encryption, has the one form that the manifest's description allows.

    Raises:
        ReleaseRefused: another header, order of rows or grid, a value that is not finite, a label outside [0, 1]; one
            sentence says which.
    """
    described, kind = manifest["data"], manifest["release"]["kind"]
    arrays = described["arrays"]
    if not all(isinstance(told, Mapping) for told in arrays.values()):
        raise ReleaseRefused("the manifest does not describe the payload's arrays")
    head = header(arrays)
    sizes = {name: _DTYPES[told["dtype"]][2] * math.prod(told["shape"]) for name, told in arrays.items()}
    if data[: len(head)] != head or len(data) != len(head) + sum(sizes.values()):
        raise ReleaseRefused(
            f"{PAYLOAD} does not begin with the one header that the manifest's arrays have, or is longer"
        )
    parts, start = {}, len(head)
    for name in sorted(arrays):
        parts[name] = memoryview(data)[start : start + sizes[name]]
        start += sizes[name]
    shapes = {name: [int(size) for size in told["shape"]] for name, told in arrays.items()}
    if kind == "moments":
        _require_moments(parts, shapes, moments_step(manifest["guarantee"]))
        return
    if [*shapes["features"][1:], shapes["labels"][1]] != [
        described["n_steps"],
        len(described["channels"]),
        len(described["tasks"]),
    ] or shapes["features"][0] != shapes["labels"][0]:
        raise ReleaseRefused(f"{PAYLOAD} has other samples, steps, channels or tasks than the manifest says")
    _require_teacher(parts, shapes, described, manifest["guarantee"])
    _require_features(parts["features"], shapes["features"][2])
    hard = (
        [] if described.get("soft_labels") else [task.get("kind", "binary") == "binary" for task in described["tasks"]]
    )
    _require_labels(parts["labels"], hard)
    _require_sorted(parts["features"], parts["labels"], shapes["features"][0])


def _require_features(part: memoryview, channels: int) -> None:
    words = _words(part, "I")
    for channel in range(channels):
        values = _values(set(words[channel::channels]), "I", "features")
        if not _on_grid(values, feature_step(max(map(abs, values.values()), default=0.0))):
            raise ReleaseRefused(
                f"{PAYLOAD} is not in canonical form: features have decimals below 2^-{FEATURE_BITS} of their range"
            )


def _require_labels(part: memoryview, hard: Sequence[bool]) -> None:
    """`hard`: of each task, whether its labels are outcomes, and not shares or numbers; empty = none are."""
    words = _words(part, "I")
    values = _values(set(words) - {MISSING}, "I", "labels")
    if not all(0 <= value <= 1 for value in values.values()):
        raise ReleaseRefused(f"{PAYLOAD} holds labels outside of 0 to 1")
    if not _on_grid(values, LABEL_STEP):
        raise ReleaseRefused(f"{PAYLOAD} is not in canonical form: labels have decimals below 2^-10")
    for task, is_hard in enumerate(hard):
        if is_hard and not {values[word] for word in {*words[task :: len(hard)]} - {MISSING}} <= {0.0, 1.0}:
            raise ReleaseRefused(f"{PAYLOAD} holds labels between 0 and 1, and the manifest says that none is soft")


def _require_teacher(
    parts: Mapping[str, memoryview], shapes: Mapping[str, Sequence[int]], described: Mapping[str, Any], guarantee: Any
) -> None:
    """What stands beside a set: by tasks and channels, on its grid, of a version that is known, under a guarantee."""
    beside = {name for name in (SHIFT, TEACHER) if name in parts}
    if beside and guarantee is None:
        raise ReleaseRefused("the manifest gives no guarantee for a teacher or for how often events are")
    if (TEACHER in beside) != (TEACHER in described):
        raise ReleaseRefused(f"{PAYLOAD} holds a teacher that the manifest does not describe, or the other way round")

    tasks, channels = described["tasks"], described["channels"]
    if TEACHER in beside and (why := teacher_form.problem(described[TEACHER], channels, described["n_steps"])):
        raise ReleaseRefused(f"the description of the teacher {why}")
    features = teacher_form.n_features(described[TEACHER], channels) if TEACHER in beside else 0
    asked = {SHIFT: [len(tasks)], TEACHER: [len(tasks), 1 + features]}
    for name in beside:
        if shapes[name] != asked[name]:
            raise ReleaseRefused(f"the {name} in {PAYLOAD} is of other tasks or features than the manifest says")
        values = _values(set(_words(parts[name], "Q")), "Q", name)
        largest = max(map(abs, values.values()), default=0.0)
        if not _on_grid(values, teacher_form.STEP) or largest > teacher_form.LARGEST:
            raise ReleaseRefused(f"{PAYLOAD} is not in canonical form: {name} has decimals below 2^-10 or is too large")


def _require_moments(parts: Mapping[str, memoryview], shapes: Mapping[str, Sequence[int]], step: float) -> None:
    for name, part in parts.items():
        if not _on_grid(_values(set(_words(part, "Q")), "Q", name), step):
            raise ReleaseRefused(f"{PAYLOAD} is not in canonical form: {name} has decimals far below its noise")
    size, other = shapes["gram"]
    gram = _words(parts["gram"], "Q")
    rows = [gram[row * size : (row + 1) * size] for row in range(size)]
    if size != other or any(list(row) != list(gram[place::size]) for place, row in enumerate(rows)):
        raise ReleaseRefused(f"{PAYLOAD} holds a gram matrix that is not symmetric")


def _require_sorted(features: memoryview, labels: memoryview, rows: int) -> None:
    wide, narrow = (len(part) // rows if rows else 0 for part in (features, labels))
    last = b""
    for row in range(rows):
        key = bytes(features[row * wide : (row + 1) * wide]) + bytes(labels[row * narrow : (row + 1) * narrow])
        if key < last:
            raise ReleaseRefused(f"{PAYLOAD} is not in canonical form: its rows are not sorted by their own bytes")
        last = key


def _words(part: memoryview, code: Literal["I", "Q"]) -> Any:
    """The array's numbers as unsigned integers, so that each bit counts: -0 is not 0, and a NaN is one of many."""
    if sys.byteorder == "little":
        return part.cast(code)
    words = array(code, bytes(part))  # pragma: no cover - machines of the other byte order
    words.byteswap()
    return words


def _values(words: set[int], code: str, name: str) -> dict[int, float]:
    """Bit pattern -> number, of each pattern that occurs."""
    listed = list(words)
    numbers = struct.unpack(
        f"<{len(listed)}{'f' if code == 'I' else 'd'}", struct.pack(f"<{len(listed)}{code}", *listed)
    )
    if not all(map(math.isfinite, numbers)):
        raise ReleaseRefused(f"{PAYLOAD} holds {name} that are not finite numbers")
    return dict(zip(listed, numbers, strict=True))


def _on_grid(values: Mapping[int, float], step: float) -> bool:
    """All are multiples of `step`, a power of two, and zero is written as +0."""
    return all((value / step).is_integer() and (value != 0 or word == 0) for word, value in values.items())
