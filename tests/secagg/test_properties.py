"""Properties of the primitives, against slow and exact models."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import RoundError
from protocol.secagg.apply import Aggregate, apply_aggregate
from protocol.secagg.keys import RoundSecrets, close_share_box, mask_key, open_share_box, self_key
from protocol.secagg.masking import SignedKey, mask_update, unmask_sum
from protocol.secagg.prg import TILE, MaskStream, by_ctr, by_gcm
from protocol.secagg.quantise import Quantised, WholeNumbers
from protocol.secagg.shamir import coefficient_bytes, expected_share, recover_secret, share_secret
from tests.secagg.ring import read_whole, signed, unpacked

RINGS = [16, 20, 24, 32]


def some(label: str, size: int) -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


@pytest.mark.parametrize("start", [0, 4, 8, TILE - 4, TILE, 3 * TILE + 16])
def test_mask_stream_seeks_to_the_same_elements(start: int) -> None:
    key = some("seek", 32)
    whole = np.empty(start + 64, np.uint32)
    stream = MaskStream(key)
    for at in range(0, len(whole), TILE):
        stream.fill(whole[at : at + TILE].data.cast("B"))
    part = np.empty(64, np.uint32)
    MaskStream(key, start=start).fill(part.data.cast("B"))
    assert np.array_equal(part, whole[start:])


def test_both_forms_of_the_keystream_give_the_same_bytes() -> None:
    forms = by_ctr(some("forms", 32), 0), by_gcm(some("forms", 32))
    for length in (16, 4 * TILE, 4, 4 * TILE + 12, 100_000):
        first, second = (form.update(bytes(length)) for form in forms)
        assert first == second
    assert forms[0].update(bytes(16)) != bytes(16)


@settings(max_examples=25)
@given(st.sampled_from(RINGS), st.integers(3, 6), st.integers(0, 2), st.sampled_from([8, 96, TILE + 8]), st.randoms())
def test_masks_cancel_over_any_survivor_set(
    ring_bits: int, n: int, lost: int, length: int, rng: random.Random
) -> None:
    t1, modulus = some("t1", 32), 1 << ring_bits
    secrets = [RoundSecrets(some(f"{n} secrets {i}", 96)) for i in range(n)]
    dropouts = set(rng.sample(range(n), min(lost, n - 1)))
    survivors = [i for i in range(n) if i not in dropouts]
    plain = [np.array([rng.randrange(modulus) for _ in range(8)] * (length // 8), np.uint32) for _ in range(n)]
    bounds = [(0, length - 8), (length - 8, length)] if length > 8 else [(0, 8)]
    masked = []
    for u in range(n):
        keys = [SignedKey(self_key(t1, secrets[u].self_mask_seed, u), add=True)]
        for v in range(n):
            if v != u:
                shared, _ = secrets[u].agree_with(secrets[v].mask_public, secrets[v].enc_public, v)
                keys.append(SignedKey(mask_key(t1, shared, u, v), add=v > u))
        elements = WholeNumbers(plain[u].view(np.int32))
        masked.append(mask_update(elements, keys, ring_bits=ring_bits, chunk_bounds=bounds))
    off = [SignedKey(self_key(t1, secrets[u].self_mask_seed, u), add=False) for u in survivors]
    for w in sorted(dropouts):
        for u in survivors:
            shared, _ = secrets[w].agree_with(secrets[u].mask_public, secrets[u].enc_public, u)
            off.append(SignedKey(mask_key(t1, shared, w, u), add=w < u))
    for chunk, (start, end) in enumerate(bounds):
        total = unmask_sum([masked[u].chunks[chunk] for u in survivors], off, ring_bits=ring_bits, start=start)
        expected = np.sum([plain[u][start:end].astype(np.uint64) for u in survivors], axis=0) % modulus
        assert np.array_equal(unpacked(total, ring_bits), expected)
        assert hashlib.sha256(masked[0].chunks[chunk]).digest() == masked[0].digests[chunk]


@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7)])
def test_every_subset_of_t_shares_recovers_and_no_smaller_one_tells(n: int, threshold: int) -> None:
    secret, coefficients = some("secret", 32), some("coefficients", coefficient_bytes(threshold))
    shares = share_secret(secret, threshold=threshold, indexes=list(range(n)), coefficients=coefficients)
    for chosen in itertools.combinations(range(n), threshold):
        subset = {i: shares[i] for i in chosen}
        assert recover_secret(subset) == secret
        assert all(expected_share(subset, i) == shares[i] for i in range(n))
    fewer = {i: shares[i] for i in range(threshold - 1)}
    assert recover_secret(fewer) != secret
    # with t - 1 shares every secret is possible: some share of the next peer leads to it
    other = some("other", 32)
    other_shares = {-1: other} | fewer  # x = 0 carries the secret itself
    assert recover_secret(fewer | {threshold - 1: expected_share(other_shares, threshold - 1)}) == other


def test_shares_of_64_peers_recover_from_any_43() -> None:
    secret, coefficients = some("secret", 32), some("c64", coefficient_bytes(43))
    shares = share_secret(secret, threshold=43, indexes=list(range(64)), coefficients=coefficients)
    rng = random.Random(1)
    for _ in range(20):
        assert recover_secret({i: shares[i] for i in rng.sample(range(64), 43)}) == secret


@given(st.integers(0, 63), st.integers(0, 63), st.binary(min_size=0, max_size=100))
def test_box_that_nobody_closed_does_not_open(sender: int, receiver: int, box: bytes) -> None:
    with pytest.raises(RoundError):
        open_share_box(some("k", 32), some("t1", 32), sender=sender, receiver=receiver, box=box)


def test_box_holding_the_share_of_another_point_is_refused() -> None:
    key, t1 = some("k", 32), some("t1", 32)
    plain = bytes([9]) + bytes(64)
    box = AESGCM(key).encrypt(bytes(12), plain, t1 + b"\0\0\1\0")
    with pytest.raises(RoundError, match="another share"):
        open_share_box(key, t1, sender=0, receiver=1, box=box)
    good = close_share_box(key, t1, sender=0, receiver=1, seed_share=bytes(32), key_share=bytes(32))
    assert open_share_box(key, t1, sender=0, receiver=1, box=good) == (bytes(32), bytes(32))
    with pytest.raises(RoundError, match="does not decrypt"):
        open_share_box(key, t1, sender=1, receiver=0, box=good)


def slow_quantise(x: float, weight: float, clip: float, largest: int, r24: int) -> int:
    """Spec 07 section 10 in binary64, one value."""
    scaled = min(max(x * weight, -clip), clip) * (largest / clip)
    return min(max(math.floor(scaled + r24 * 2.0**-24), -largest), largest)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=30),
    st.floats(0.001, 1.0),
    st.sampled_from([0.0125, 0.1, 1.0, 2.5]),
    st.sampled_from([8, 12, 16, 24, 28]),
    st.integers(0, 2**32),
)
def test_quantising_equals_its_slow_model(
    values: list[float], weight: float, clip: float, value_bits: int, seed: int
) -> None:
    key, largest = some(str(seed), 32), (1 << (value_bits - 1)) - 1
    keystream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(4 * len(values)))
    randoms = [int.from_bytes(keystream[4 * i : 4 * i + 4], "little") >> 8 for i in range(len(values))]
    update = np.array(values, np.float32)
    elements = Quantised(update, (), weight_fraction=weight, clip=clip, largest_value=largest, rounding_key=key)
    out = read_whole(elements, -(-(len(values) + 1) // 8) * 8).view(np.int32)
    expected = [slow_quantise(float(x), weight, clip, largest, r) for x, r in zip(update, randoms, strict=True)]
    assert out[: len(values)].tolist() == expected
    assert abs(out).max() <= largest
    assert out[len(values)] == math.floor(weight * largest + 0.5)
    assert not out[len(values) + 1 :].any()


def test_weights_in_the_tail_are_rounded_to_nearest() -> None:
    tails = set()
    for seed in range(40):
        elements = Quantised(
            np.zeros(5, np.float32),
            (0.3, 17 / 64, 0.3),
            weight_fraction=0.5,
            clip=1.0,
            largest_value=127,
            rounding_key=some(f"weights {seed}", 32),
            weights_at=(1,),
        )
        out = read_whole(elements, 16).view(np.int32)
        assert out[5] == 64
        assert out[7] == math.floor(17 / 64 * 127 + 0.5)
        tails.add((int(out[6]), int(out[8])))
    assert tails == {(38, 38), (38, 39), (39, 38), (39, 39)}


def test_rounding_is_unbiased() -> None:
    count, largest = 200_000, 32_767
    update = np.full(count, 0.3 / largest, np.float32)  # three tenths of a step
    key = some("unbiased", 32)
    elements = Quantised(update, (), weight_fraction=1.0, clip=1.0, largest_value=largest, rounding_key=key)
    out = read_whole(elements, count + 8)[:count]
    assert set(np.unique(out).tolist()) == {0, 1}
    # the standard deviation of the mean is 0.001
    assert abs(float(out.mean()) - 0.3) < 0.005


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 20_000, TILE + 4])
def test_diverged_update_is_refused(bad: float, at: int) -> None:
    update = np.zeros(TILE + 5, np.float32)
    update[at] = bad
    elements = Quantised(update, (), weight_fraction=1.0, clip=1.0, largest_value=127, rounding_key=bytes(32))
    with pytest.raises(RoundError, match="NaN or infinity"):
        mask_update(elements, [], ring_bits=16, chunk_bounds=[(0, TILE + 8)])


@pytest.mark.parametrize("length", [TILE - 3, TILE - 1, TILE, TILE + 1, 2 * TILE - 2])
def test_tail_comes_after_the_update_wherever_a_tile_ends(length: int) -> None:
    key, tail = some("tail", 32), tuple(i / 8 for i in range(8))
    update = np.linspace(-1, 1, length, dtype=np.float32)
    given = {"weight_fraction": 1.0, "clip": 1.0, "largest_value": 32_767, "rounding_key": key}
    out = read_whole(Quantised(update, tail, **given), 3 * TILE).view(np.int32)
    keystream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(4 * (length + 8)))
    randoms = [int(word) >> 8 for word in np.frombuffer(keystream, "<u4")]
    expected = [slow_quantise(float(x), 1.0, 1.0, 32_767, r) for x, r in zip(update, randoms, strict=False)]
    expected.append(32_767)
    expected += [slow_quantise(x, 1.0, 1.0, 32_767, r) for x, r in zip(tail, randoms[length:], strict=True)]
    assert out[: length + 9].tolist() == expected
    assert not out[length + 9 :].any()


@pytest.mark.parametrize("ring_bits", RINGS)
def test_sum_out_of_range_is_refused_at_its_first_step(ring_bits: int) -> None:
    largest = 127
    for value, fits in [
        (3 * largest, True),
        (3 * largest + 1, False),
        (-3 * largest, True),
        (-3 * largest - 1, False),
    ]:
        elements = [value % (1 << ring_bits)]
        if fits:
            assert signed(elements, ring_bits, survivors=3, largest_value=largest).tolist() == [value]
        else:
            with pytest.raises(RoundError, match="out of range"):
                signed(elements, ring_bits, survivors=3, largest_value=largest)


def rounded(value: Fraction) -> float:
    """A fraction in binary64, correctly rounded."""
    return value.numerator / value.denominator


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(-(2**21), 2**21)), min_size=1, max_size=20),
    st.sampled_from([0.0125, 0.1, 1.0, 3.7]),
    st.integers(1, 2**21),
)
def test_applying_equals_exact_fractions_rounded_at_every_step(
    items: list[tuple[float, int]], clip: float, weight: int
) -> None:
    model = np.array([old for old, _ in items], np.float32)
    sums = np.array([*(s for _, s in items), weight], np.int32)
    new = apply_aggregate(model, Aggregate(sums=sums, survivors=frozenset(range(64))), clip=clip, largest_value=2**15)
    for i, (_, s) in enumerate(items):
        product = rounded(Fraction(s) * Fraction(clip))
        step = rounded(Fraction(product) / weight)
        total = rounded(Fraction(float(model[i])) + Fraction(step))
        assert new[i] == np.float32(total)


def test_lost_weight_makes_the_step_shorter_never_longer() -> None:
    sums = np.array([10] * 8 + [7], np.int32)
    whole = Aggregate(sums=sums, survivors=frozenset(range(3)))
    lost = Aggregate(sums=sums, survivors=frozenset(range(3)), lost=((8, 16),))
    assert lost.weight(8, 127) == 3 * 127 > whole.weight(8, 127) == 7
