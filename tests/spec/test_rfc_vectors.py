"""The reference's primitives against published vectors."""

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from spec.reference import apply, keys, packing, prg, quantise, shamir, signatures
from spec.reference.refused import Refused


def b(text):
    return bytes.fromhex(text)


# RFC 5869 appendix A, cases 1 to 3
HKDF = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("secret", "salt", "info", "size", "expected"), HKDF)
def test_hkdf_of_rfc_5869(secret, salt, info, size, expected):
    assert keys.hkdf_sha256(b(secret), salt=b(salt), info=b(info), size=size).hex() == expected


# RFC 7748 §5.2, two vectors, and §6.1
X25519 = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]


@pytest.mark.parametrize(("scalar", "point", "expected"), X25519)
def test_x25519_of_rfc_7748(scalar, point, expected):
    assert keys.x25519(b(scalar), b(point)).hex() == expected


def test_the_public_key_of_bob_in_rfc_7748_and_agreement():
    # §6.1
    alice = bytes(range(32))
    bob = b("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert keys.x25519(alice, keys.public_key(bob)) == keys.x25519(bob, keys.public_key(alice))
    assert keys.public_key(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


def test_x25519_iterated_a_thousand_times_as_in_rfc_7748():
    k = u = b"\x09" + bytes(31)
    for _ in range(1000):
        k, u = keys.x25519(k, u), k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@pytest.mark.parametrize("point", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255, 2**255 + 1])
def test_low_order_points_are_refused(point):
    with pytest.raises(Refused, match="zero-shared-secret"):
        keys.x25519(bytes(range(32)), point.to_bytes(32, "little"))


# RFC 8032 §7.1, tests 1 to 3
ED25519 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), ED25519)
def test_ed25519_of_rfc_8032(seed, public, message, signature):
    assert signatures.identity_key(b(seed)).hex() == public
    assert signatures.sign_bytes(b(seed), b(message)).hex() == signature
    signatures.verify(b(public), b(signature), b(message))
    with pytest.raises(Refused):
        signatures.verify(b(public), b(signature), b(message) + b"\x00")


def test_the_generator_starts_as_test_case_14_of_the_gcm_specification():
    # McGrew and Viega, appendix B: AES-256, key, nonce and plaintext zero
    assert prg.keystream(bytes(32), 0, 16).hex() == "cea7403d4d606b6e074ec5d3baf39d18"


@pytest.mark.parametrize("blocks", [1, 300, 5000])
def test_the_generator_is_what_gcm_and_ctr_make_of_zeros(blocks):
    key = hashlib.sha256(b"generator").digest()
    size = 16 * blocks
    assert prg.keystream(key, 0, size) == AESGCM(key).encrypt(bytes(12), bytes(size), None)[:size]
    ctr = Cipher(algorithms.AES256(key), modes.CTR(bytes(15) + b"\x02")).encryptor()
    assert prg.keystream(key, 0, size) == ctr.update(bytes(size))


@pytest.mark.parametrize(("start", "size"), [(0, 1), (1, 31), (15, 2), (16, 16), (33, 100)])
def test_the_generator_seeks(start, size):
    key = bytes(32)
    assert prg.keystream(key, start, size) == prg.keystream(key, 0, 200)[start : start + size]


def test_published_check_values_of_the_suite():
    t1 = hashlib.sha256(b"p2psa/1/test").digest()
    key = keys.mask_key(t1, bytes(range(32)), keys.public_key(bytes(range(32, 64))), 0, 1)
    assert key.hex() == "9b4038cd9f5b9fc494e29ad8c06ee037fafa07cfaa6fad862d345ef29e0604a6"
    assert prg.keystream(key, 0, 16).hex() == "3b052fecb0b8848e400a44ef54c29608"
    packed = packing.pack([1, 0xFFFFF, 0x12345, 0xABCDE, 0, 0, 0, 0], 20)
    assert packed[:10].hex(" ") == "01 00 f0 ff ff 45 23 e1 cd ab"


def test_the_field_is_that_of_fips_197():
    # FIPS 197 §4.2: {57} · {83} = {c1}; §4.2.1: {57} · {13} = {fe}
    assert shamir.multiply(0x57, 0x83) == 0xC1
    assert shamir.multiply(0x57, 0x13) == 0xFE
    assert all(shamir.multiply(a, shamir.invert(a)) == 1 for a in range(1, 256))


@pytest.mark.parametrize("seed", range(3))
def test_every_quorum_of_shares_recovers_and_fewer_fit_any_secret(seed):
    secret, coefficients = hashlib.sha256(bytes([seed])).digest(), hashlib.sha512(bytes([seed])).digest()
    shares = {i: shamir.share(secret, 3, i, coefficients) for i in range(5)}
    for chosen in ([0, 1, 2], [2, 3, 4], [0, 2, 4]):
        assert shamir.recover({i: shares[i] for i in chosen}, 3) == secret
    # two shares and any made-up third give a secret: they say nothing about the real one
    assert shamir.recover({0: shares[0], 1: shares[1], 2: bytes(32)}, 3) != secret


def test_quantising_is_unbiased_and_stays_within_one_level():
    for x in (0.0, 0.3, -0.3, 0.999, -1.0):
        levels = [
            quantise.quantise([x], [quantise.Metrics(1, [], [])], [r, 0], max_examples=1, clip=1.0, value_bits=8)[0]
            for r in range(0, 2**24, 2**14)
        ]
        assert sum(levels) / len(levels) == pytest.approx(x * 127, abs=1e-3)
        assert max(levels) - min(levels) <= 1


def test_a_ring_element_reads_as_signed():
    assert [apply.signed(value, 16) for value in (0, 1, 0x7FFF, 0x8000, 0xFFFF)] == [0, 1, 32767, -32768, -1]
