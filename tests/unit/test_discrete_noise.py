"""The discrete Gaussian: the very law, the same bytes as a second implementation, and nothing hung on a float."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.keys import discrete
from pipeline.core.keys.discrete import LARGEST_SCALE, TAIL, keystream_discrete_normal
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret

SUBKEY = bytes(range(32))
SCALES = (1, 2, 3, 7, 1000, 12_345_678, (1 << 33) - 1, LARGEST_SCALE)


# --- a second implementation, from the page alone ---------------------------------------------------------------------


def bell(exponent: Fraction) -> Fraction:
    """exp(-exponent) to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return Fraction((-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp())


def words(label: str, number: int) -> list[int]:
    stream = hashlib.shake_256(SUBKEY + label.encode()).digest(8 * number)
    return [int.from_bytes(stream[at : at + 8], "little") for at in range(0, 8 * number, 8)]


def by_the_page(label: str, scale: int, wanted: int) -> list[int]:
    """As docs/keys.md says, one Python integer after the other."""
    low = max(scale.bit_length() - 3, 0)
    heights = [bell(Fraction((x << low) ** 2, 2 * scale**2)) for x in range(64)]
    level = math.floor(Fraction(2**14 - 128) / sum(heights))
    shares = [math.floor(level * height + Fraction(1, 2**64)) + 1 for height in (*heights, 2 * heights[-1])]
    shares[0] += 2**14 - sum(shares)
    found: list[int] = []
    for turn in count():
        left = wanted - len(found)
        if not left:
            return found
        asked = min(left + left // 8 + 32, 8192)
        for place, word in enumerate(words(f"{label}/{turn}", asked)):
            top, x = word >> 50, 0
            while top >= shares[x]:
                top, x = top - shares[x], x + 1
            bits = f"{word:064b}"[14 : 63 - low] + "".join(f"{w:064b}" for w in words(f"{label}/{turn}/{place}", 6))
            chance = Fraction(level, shares[x])
            if x == 64:
                zeros = bits.index("1")
                x, chance, bits = x + zeros, chance * 2 ** (zeros + 1), bits[zeros + 1 :]
            size, sign = (x << low) + word % (1 << low), word >> low & 1
            uniform = Fraction(int(bits[:160], 2), 1 << 160)
            if uniform < chance * bell(Fraction(size**2, 2 * scale**2)) and not (sign and not size):
                found.append(-size if sign else size)
                if len(found) == wanted:
                    return found
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_a_second_implementation_draws_the_same(scale: int) -> None:
    assert keystream_discrete_normal(SUBKEY, "v", scale, (100,)).tolist() == by_the_page("v", scale, 100)


def test_the_screen_in_floating_point_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every proposal decided in exact arithmetic gives the same draws: no machine's rounding can change one."""
    screened = [keystream_discrete_normal(SUBKEY, "s", scale, (300,)) for scale in SCALES]
    monkeypatch.setattr(discrete, "MARGIN", 2.0)
    for scale, drawn in zip(SCALES, screened, strict=True):
        np.testing.assert_array_equal(keystream_discrete_normal(SUBKEY, "s", scale, (300,)), drawn)


# --- the proof's steps ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, LARGEST_SCALE))
def test_no_chance_is_above_one_and_few_proposals_are_lost(scale: int) -> None:
    """share[x] >= level exp(...) at the start of each x, so everywhere in it; beyond the table by the halving."""
    table = discrete._table(scale)
    assert sum(table.shares) == 2**14 == len(table.places)
    for x in range(TAIL):
        assert table.level * bell(Fraction((x << table.low) ** 2, 2 * scale**2)) <= table.shares[x]
    tail = [bell(Fraction(((TAIL + g) << table.low) ** 2, 2 * scale**2)) for g in range(3)]
    assert all(table.level * height * 2 ** (g + 1) <= table.shares[TAIL] for g, height in enumerate(tail))
    assert all(after * 2 <= before for before, after in pairwise(tail))
    accepted = scale * math.sqrt(math.pi / 2) * table.level / 2.0 ** (14 + table.low)  # zeros of one sign not counted
    assert accepted > (0.85 if scale > 2 else 0.7)
    assert table.digits >= 5


@pytest.mark.parametrize("scale", [3, 12_345_678, LARGEST_SCALE])
def test_numbers_far_out_can_be_drawn(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 8.2 scales, where normals from 52 bits end: a word that proposes one is accepted at uniform 0."""
    table = discrete._table(scale)
    monkeypatch.setattr(discrete, "keystream_words", lambda key, label, asked: np.zeros(asked, "<u8"))
    low = table.low
    for x, g in ((63, 0), (TAIL, 0), (TAIL, 2)):
        index = int(np.flatnonzero(table.places == x)[0])
        one = 1 << 49 - g if x == TAIL else 0  # ends the zeros that are counted
        word = index << 50 | one | 1 << low | (1 << low) - 1
        wanted = -(((x + g) << low) + (1 << low) - 1)
        assert discrete._decided(SUBKEY, "t", table, word) == wanted < -8.2 * scale
        assert discrete._decided(SUBKEY, "t", table, word | 1 << 48 - g) is None  # of a half, or a quarter


@pytest.mark.parametrize("scale", [0, -3, LARGEST_SCALE + 1])
def test_a_scale_out_of_range_is_refused(scale: int) -> None:
    with pytest.raises(EnvironmentProblem, match="scale of 1 to"):
        keystream_discrete_normal(SUBKEY, "v", scale, (1,))


# --- the law, by its draws. Every bound has a chance of about 1e-6 to be broken by a right sampler. -------------------


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_small_scales_by_chi_square(scale: int) -> None:
    """Each whole number within five scales is a cell, and what is beyond on either side."""
    n, reach = 300_000, 5 * scale
    drawn = keystream_discrete_normal(SUBKEY, "chi", scale, (n,))
    places = np.arange(-40 * scale, 40 * scale + 1)
    law = np.exp(-((places / scale) ** 2) / 2)
    law /= law.sum()
    inner = np.abs(places) <= reach
    chance = np.concatenate([law[inner], [law[places < -reach].sum(), law[places > reach].sum()]])
    near = np.bincount(drawn[np.abs(drawn) <= reach] + reach, minlength=2 * reach + 1)
    seen = np.concatenate([near, [(drawn < -reach).sum(), (drawn > reach).sum()]])
    kept = n * chance >= 5  # the chi-square law wants some in each cell; the rest is one cell
    chance, seen = (np.append(values[kept], values[~kept].sum()) for values in (chance, seen))
    statistic = float(((seen - n * chance) ** 2 / (n * chance)).sum())
    assert stats.chi2.sf(statistic, len(chance) - 1) > 1e-6
    assert stats.chi2.cdf(statistic, len(chance) - 1) > 1e-6


@pytest.mark.parametrize("scale", [12_345_678, (1 << 24) + 1, 1 << 40])
def test_large_scales_have_moments_tails_and_low_bits_of_the_law(scale: int) -> None:
    """At such a scale moments are the normal's to 1e-15, and low bits uniform to exp(-2 pi^2 scale^2)."""
    n = 200_000
    drawn = keystream_discrete_normal(SUBKEY, "law", scale, (n,))
    z = drawn / scale
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(spread / n), power
    cells = np.bincount(np.minimum((stats.norm.cdf(z) * 400).astype(int), 399), minlength=400)
    assert 1e-6 < stats.chi2.sf(float(((cells - n / 400) ** 2).sum() / (n / 400)), 399) < 1 - 1e-6
    for far in (3.0, 4.0):
        inside = stats.binom(n, float(stats.norm.sf(far)))
        for seen in ((z > far).sum(), (z < -far).sum()):
            assert inside.ppf(1e-6) <= seen <= inside.ppf(1 - 1e-6)
    low = np.bincount(drawn % 256, minlength=256)
    assert 1e-6 < stats.chi2.sf(float(((low - n / 256) ** 2).sum() / (n / 256)), 255) < 1 - 1e-6
    assert abs(int((drawn > 0).sum()) - int((drawn < 0).sum())) < 5 * math.sqrt(n)
    for lag in (1, 2, 7):
        assert abs(float((z[lag:] * z[:-lag]).mean())) < 5 / math.sqrt(n - lag)


# --- the noise source -------------------------------------------------------------------------------------------------


def test_the_same_question_replays_the_noise_and_every_other_draws_its_own() -> None:
    secret, other = Secret(SUBKEY, "noise"), Secret(bytes(32), "noise")
    source = NoiseSource(secret, "c1")
    first = source.discrete_normal({"q": 1}, 1 << 30, (5,))
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, NoiseSource(secret, "c1").discrete_normal({"q": 1}, 1 << 30, (5,)))
    for found in (
        NoiseSource(secret, "c2").discrete_normal({"q": 1}, 1 << 30, (5,)),
        NoiseSource(other, "c1").discrete_normal({"q": 1}, 1 << 30, (5,)),
        source.discrete_normal({"q": 2}, 1 << 30, (5,)),
        source.discrete_normal({"q": 1}, (1 << 30) + 1, (5,)),
        source.discrete_normal({"q": 1}, 1 << 30, (5, 1)).ravel(),
        np.rint(source.normal({"q": 1}, float(1 << 30), (5,))).astype(np.int64),
    ):
        assert not np.any(np.abs(found - first) < 8)
