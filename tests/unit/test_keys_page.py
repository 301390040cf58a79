"""docs/keys.md is the definition: every vector and every file printed there is computed again, from the page's text."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.core.digest import digest_bytes
from pipeline.core.keys import keystream
from pipeline.core.keys import passphrase as phrases
from pipeline.core.keys.custody.log import LOG_FILE, read_log
from pipeline.core.keys.discrete import keystream_discrete_normal
from pipeline.core.keys.keystream import keystream_normal, keystream_uniform, keystream_words, normal_quantile
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret, key_text, read_secret
from pipeline.core.keys.subkeys import hkdf_extract

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
SCALE = 6_700_000  # of the page's discrete normals
BLOCKS = re.findall(r"```([a-z-]+)\n(.*?\n)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def block(kind: str) -> str:
    (text,) = [text for found, text in BLOCKS if found == kind]
    return str(text)


def printed(kind: str) -> dict[str, str]:
    """The lines "name = value" of all blocks of a kind; an indented line goes on with the value."""
    joined = re.sub(r"\n +", " ", "".join(text for found, text in BLOCKS if found == kind))
    rows = [line.split(" = " if " = " in line else " =", 1) for line in joined.splitlines()]
    assert len({name for name, _ in rows}) == len(rows)
    return {name: value.strip() for name, value in rows}


def hex_of(values: np.ndarray) -> str:
    return " ".join(value.tobytes().hex() for value in np.asarray(values, "<f8").reshape(-1))


def whole(values: np.ndarray) -> str:
    return " ".join(map(str, values.reshape(-1).tolist()))


def test_every_vector_of_the_page_is_what_the_code_gives() -> None:
    vectors = printed("vectors")
    key = bytes.fromhex(vectors["key"])
    encoder, noise = Secret(key, "encoder"), NoiseSource(Secret(key, "noise"), "c")
    stream = encoder.derive("test")
    many = np.asarray(keystream_normal(stream, "many", (100_000,)), "<f8")
    words = keystream_words(stream, "words", 4).tolist()
    quantiles = {"2^-53": 2.0**-53, "1e-5": 1e-5, "0.075": 0.075, "0.3": 0.3, "1 - 2^-53": 1 - 2.0**-53}
    circuit, matrix = QuantumEncoder().parameters(encoder).weights, RandomProjectionEncoder().matrix(encoder)
    computed = {
        "key": bytes(range(32)).hex(),
        "extracted": hkdf_extract(b"", key).hex(),
        "subkey of test": stream.hex(),
        "fingerprint": encoder.fingerprint,
        "words of S, name words": " ".join(f"{word:016x}" for word in words),
        "uniforms of S, name uniforms": hex_of(keystream_uniform(stream, "uniforms", (4,))),
        "normals of S, name normals": hex_of(keystream_normal(stream, "normals", (4,))),
        "sha256 of the bytes of 100000 normals of S, name many": hashlib.sha256(many.tobytes()).hexdigest(),
        "discrete normals of S, name discrete, s 6700000": whole(
            keystream_discrete_normal(stream, "discrete", SCALE, (6,))
        ),
        "discrete normals of S, name discrete, s 3": whole(keystream_discrete_normal(stream, "discrete", 3, (20,))),
        "sha256 of the bytes of 100000 discrete normals of S, name many, s 6700000": hashlib.sha256(
            np.asarray(keystream_discrete_normal(stream, "many", SCALE, (100_000,)), "<i8").tobytes()
        ).hexdigest(),
        "discrete noise": whole(noise.discrete_normal({"part": "sums"}, SCALE, (2, 2))),
        "noise": hex_of(noise.normal({"part": "sums"}, 2.0, (2, 2))),
        "uniform noise": hex_of(noise.uniform({"part": "sums"}, (2, 2))),
        "angles, BasicEntanglerLayers, 4 qubits, 2 layers": hex_of(circuit),
        "matrix, gaussian, 4 x 4": hex_of(matrix),
        "log head": digest_bytes(block("log").splitlines()[-1].encode()),
    }
    computed |= {f"quantile of {name}": hex_of(normal_quantile(np.array([u]))) for name, u in quantiles.items()}
    labels = {name: value for name, value in vectors.items() if name.endswith(" label")}
    assert vectors == computed | labels


def test_the_labels_of_the_page_lead_to_the_encoders_parameters() -> None:
    """From the label to the numbers as a stranger would go, without asking the encoders."""
    vectors = printed("vectors")
    encoder = Secret(bytes.fromhex(vectors["key"]), "encoder")
    angles = float.fromhex("0x1.921fb54442d18p+2") * keystream_uniform(
        encoder.derive(vectors["quantum label"]), "angles", (2, 4)
    )
    assert hex_of(angles) == vectors["angles, BasicEntanglerLayers, 4 qubits, 2 layers"]
    normals = keystream_normal(encoder.derive(vectors["projection label"]), "matrix", (4, 4))
    assert hex_of(normals / np.sqrt(4.0)) == vectors["matrix, gaussian, 4 x 4"]


def test_the_coefficients_and_constants_of_the_page_are_those_of_the_code() -> None:
    told = {name: tuple(map(float, row.split())) for name, row in printed("coefficients").items()}
    pairs = (keystream._CENTRE, keystream._NEAR_TAIL, keystream._FAR_TAIL)
    used = {f"{letter}{n}": row for n, pair in enumerate(pairs, 1) for letter, row in zip("PQ", pair, strict=True)}
    assert told == used
    text = PAGE.read_text(encoding="utf-8")
    for constant in (keystream._SQRT_HALF, keystream._LN2_HIGH, keystream._LN2_LOW):
        assert constant.hex() in text


def test_the_key_files_of_the_page_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes.fromhex(printed("vectors")["key"])
    secret = Secret(key, "encoder", made="2026-11-22")
    assert block("key-file").encode() == key_text(secret)
    (said,) = re.findall(r"passphrase of this one is `([^`]+)`", PAGE.read_text(encoding="utf-8"))
    path = tmp_path / "encoder.key"
    path.write_text(block("sealed-file"))
    path.chmod(0o600)
    phrases._from_surroundings.cache_clear()
    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, said)
    try:
        assert read_secret(path, "encoder").reveal() == key
    finally:
        phrases._from_surroundings.cache_clear()


def test_the_sealed_file_of_the_page_opens_with_the_standard_library_and_one_cipher() -> None:
    """As the page describes it, without our code."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    head, _, body = block("sealed-file").encode().rpartition(b"sealed ")
    salt = bytes.fromhex(head.decode().splitlines()[-1].split()[1])
    key = hashlib.scrypt(b"correct horse battery", salt=salt, n=2**17, r=8, p=1, maxmem=2**28, dklen=32)
    opened = ChaCha20Poly1305(key).decrypt(bytes(12), bytes.fromhex(body.decode()), head)
    assert opened == block("key-file").encode()


def test_the_log_of_the_page_holds_together(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text(block("log"))
    log = read_log(tmp_path)
    assert log.head == printed("vectors")["log head"]
    assert [entry["what"] for entry in log.entries] == ["new", "new"]


def test_the_page_names_every_verb_and_variable() -> None:
    from flows.cli.keep.keys import keys_app

    text = PAGE.read_text(encoding="utf-8")
    for command in keys_app.registered_commands:
        assert f"decoct keys {command.name}" in text, command.name
    for variable in (phrases.PASSPHRASE_VARIABLE, phrases.DESCRIPTOR_VARIABLE):
        assert variable in text
