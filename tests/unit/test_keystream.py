"""The keystream: RFC 5869's vectors, and bytes that a second implementation in plain Python floats agrees with."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.keys import keystream, noise
from pipeline.core.keys.keystream import keystream_normal, keystream_uniform, keystream_words, normal_quantile
from pipeline.core.keys.subkeys import hkdf, hkdf_expand, hkdf_extract

SUBKEY = bytes(range(32))


def counted(first: int, last: int) -> bytes:
    return bytes(range(first, last + 1))


@pytest.mark.parametrize(
    ("material", "salt", "info", "prk", "okm"),
    [
        pytest.param(
            b"\x0b" * 22,
            counted(0x00, 0x0C),
            counted(0xF0, 0xF9),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="A.1",
        ),
        pytest.param(
            counted(0x00, 0x4F),
            counted(0x60, 0xAF),
            counted(0xB0, 0xFF),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275"
            "600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            id="A.2",
        ),
        pytest.param(
            b"\x0b" * 22,
            b"",
            b"",
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="A.3",
        ),
    ],
)
def test_hkdf_gives_the_vectors_of_rfc_5869(material: bytes, salt: bytes, info: bytes, prk: str, okm: str) -> None:
    assert hkdf_extract(salt, material).hex() == prk
    assert hkdf_expand(bytes.fromhex(prk), info, len(okm) // 2).hex() == okm
    assert hkdf(material, info, salt=salt, length=len(okm) // 2).hex() == okm


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=80), st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 300))
def test_hkdf_agrees_with_the_library_cryptography(material: bytes, salt: bytes, info: bytes, length: int) -> None:
    theirs = HKDF(algorithm=SHA256(), length=length, salt=salt or None, info=info).derive(material)
    assert hkdf(material, info, salt=salt, length=length) == theirs


@pytest.mark.parametrize("length", [0, 255 * 32 + 1])
def test_hkdf_refuses_a_length_that_it_does_not_define(length: int) -> None:
    with pytest.raises(EnvironmentProblem, match="8160"):
        hkdf(SUBKEY, b"", length=length)


def test_words_and_uniforms_are_what_the_page_says() -> None:
    stream = hashlib.shake_256(SUBKEY + b"v").digest(5 * 8)
    words = [int.from_bytes(stream[at : at + 8], "little") for at in range(0, 40, 8)]
    assert keystream_words(SUBKEY, "v", 5).tolist() == words
    assert keystream_uniform(SUBKEY, "v", (5,)).tolist() == [((word >> 12) + 0.5) / 2**52 for word in words]
    np.testing.assert_array_equal(keystream_uniform(SUBKEY, "v", (5, 1)), keystream_uniform(SUBKEY, "v", (5,))[:, None])
    with pytest.raises(EnvironmentProblem, match="32 bytes long"):
        keystream_words(SUBKEY[:31], "v", 1)


def test_the_extreme_words_stay_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([0, 2**64 - 1], dtype="<u8")
    monkeypatch.setattr(keystream, "keystream_words", lambda key, label, count: extremes)
    low, high = keystream_uniform(SUBKEY, "v", (2,))
    assert (low, high) == (2.0**-53, 1.0 - 2.0**-53)
    normals = keystream_normal(SUBKEY, "v", (2,))
    assert normals[0] == -normals[1]
    assert 8.2 < normals[1] < 8.21


def scalar_log(value: float) -> float:
    """As the page defines it, one Python float operation after the other."""
    mantissa, exponent = math.frexp(value)
    if mantissa < float.fromhex("0x1.6a09e667f3bcdp-1"):
        mantissa, exponent = mantissa * 2.0, exponent - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    t = s * s
    total = 1.0 / 23
    for odd in range(21, 2, -2):
        total = total * t + 1.0 / odd
    series = 2.0 * (total * t * s + s)
    return exponent * float.fromhex("0x1.62e42fefa3800p-1") + (
        exponent * float.fromhex("0x1.ef35793c76730p-45") + series
    )


def scalar_ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], at: float) -> float:
    above, below = 0.0, 0.0
    for top, bottom in zip(*polynomials, strict=True):
        above, below = above * at + top, below * at + bottom
    return above / below


def scalar_quantile(p: float) -> float:
    q = p - 0.5
    if abs(q) <= 0.425:
        return scalar_ratio(keystream._CENTRE, 0.180625 - q * q) * q
    r = math.sqrt(-scalar_log(min(p, 1.0 - p)))
    size = scalar_ratio(keystream._NEAR_TAIL, r - 1.6) if r <= 5.0 else scalar_ratio(keystream._FAR_TAIL, r - 5.0)
    return math.copysign(size, q)


def awkward_probabilities() -> np.ndarray:
    """Uniforms, both tails down to 2^-53, and the borders of the branches with their neighbours."""
    rng = np.random.default_rng(5)
    tails = 2.0 ** -rng.uniform(3, 53, 4000)
    borders = [0.075, 0.925, math.exp(-25), 1 - math.exp(-25), 0.5, 2.0**-53, 1 - 2.0**-53]
    near = [np.nextafter(border, side) for border in borders[:5] for side in (0.0, 1.0)]
    return np.concatenate([rng.random(8000), tails, 1.0 - tails, borders, near])


def test_normals_have_the_bytes_of_a_second_implementation() -> None:
    """Python's floats are IEEE doubles, one rounding per operation: equal bytes mean that numpy fused nothing."""
    p = awkward_probabilities()
    expected = np.array([scalar_quantile(value) for value in p.tolist()])
    assert normal_quantile(p).tobytes() == expected.tobytes()
    assert normal_quantile(p[:7].reshape(7, 1)).tobytes() == expected[:7].tobytes()


def test_the_coefficients_are_those_of_as_241() -> None:
    """CPython carries the same algorithm; a mistyped digit would show as a difference far above the rounding."""
    import statistics

    inverse = statistics.NormalDist().inv_cdf
    p = awkward_probabilities()
    expected = np.array([inverse(value) for value in p.tolist()])
    np.testing.assert_allclose(normal_quantile(p), expected, rtol=8e-16, atol=0)


def test_the_quantile_is_as_exact_as_scipys() -> None:
    """Both are within about 3e-16 + 4 roundings of the truth: together below 1.5e-15, seen 8e-16."""
    p = awkward_probabilities()
    np.testing.assert_allclose(normal_quantile(p), ndtri(p), rtol=1.5e-15, atol=0)


def test_the_quantile_is_odd_and_rises() -> None:
    p = awkward_probabilities()
    lattice = np.floor(p * 2.0**52) / 2.0**52 + 2.0**-53  # 1 - p is exact there
    np.testing.assert_array_equal(normal_quantile(1.0 - lattice), -normal_quantile(lattice))
    grid = normal_quantile(np.linspace(1e-9, 1 - 1e-9, 1_000_001))
    assert np.all(np.diff(grid) > 0)
    for border in (0.075, 0.925, math.exp(-25), 1 - math.exp(-25)):
        steps = border + np.spacing(border) * np.arange(-300, 301)
        values = normal_quantile(steps)
        assert np.diff(values).min() >= -2 * np.spacing(np.abs(values[0]))  # level but for the last bit


def test_normals_do_not_depend_on_how_they_are_cut_up() -> None:
    many = keystream_normal(SUBKEY, "n", (3, 20_001))
    np.testing.assert_array_equal(many.reshape(-1), normal_quantile(keystream_uniform(SUBKEY, "n", (60_003,))))
    np.testing.assert_array_equal(many[0, :5], keystream_normal(SUBKEY, "n", (5,)))


def test_normals_are_normal() -> None:
    """Standard errors of mean, variance, third and fourth moment of n normals, five of each; Kolmogorov's at 1e-6."""
    n = 200_000
    draws = keystream_normal(SUBKEY, "law", (n,))
    assert abs(draws.mean()) < 5 / math.sqrt(n)
    assert abs((draws**2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((draws**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((draws**4).mean() - 3) < 5 * math.sqrt(96 / n)
    uniforms = np.sort(keystream_uniform(SUBKEY, "law", (n,)))
    distance = np.abs(uniforms - (np.arange(n) + 0.5) / n).max() + 0.5 / n
    assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * n))


def test_the_old_names_are_the_new_functions() -> None:
    assert noise.keystream_normal is keystream_normal
    assert noise.keystream_uniform is keystream_uniform
    assert noise.keystream_words is keystream_words


def test_a_bare_machine_expands_keys() -> None:
    """Neither scipy nor any of ours but the errors: numpy and the standard library are enough."""
    code = (
        "import sys\nfrom pipeline.core.keys.noise import NoiseSource\nfrom pipeline.core.keys.secrets import Secret\n"
        "NoiseSource(Secret(bytes(32), 'noise'), 'c').normal(1, 1.0, (3,))\n"
        "heavy = {'scipy', 'torch', 'pyrage', 'cryptography', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
