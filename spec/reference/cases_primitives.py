"""Vectors of single functions: keys, prg, packing, shamir, boxes, quantise."""

from __future__ import annotations

import struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from spec.reference import keys, shamir
from spec.reference.codec import H
from spec.reference.judge import bad, good
from spec.reference.output import Case, vector_file
from spec.reference.stream import Stream

__all__ = ["primitive_files"]

T1 = H(b"p2psa/1/test")
SK_A = bytes(range(32))
SK_B = bytes(range(32, 64))
LOW_ORDER = {
    "zero": bytes(32),
    "one": (1).to_bytes(32, "little"),
    "p-minus-1": (2**255 - 20).to_bytes(32, "little"),
    "p": (2**255 - 19).to_bytes(32, "little"),
    "p-plus-1": (2**255 - 18).to_bytes(32, "little"),
    "order-8-a": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "order-8-b": bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
}


def key_cases() -> Case:
    def mask(own: bytes, other: bytes, i: int, j: int) -> dict[str, Any]:
        public = keys.public_key(other).hex()
        return {"derive": "mask", "t1": T1.hex(), "private": own.hex(), "public": public, "from": i, "to": j}

    share = mask(SK_A, SK_B, 0, 1) | {"derive": "share"}
    back = mask(SK_B, SK_A, 1, 0) | {"derive": "share"}
    self_ = {"derive": "self", "t1": T1.hex(), "seed": SK_A.hex(), "index": 0}
    cases = [
        good("keys", "public-a", "public key of 00..1f", {"derive": "public", "private": SK_A.hex()}),
        good("keys", "public-b", "public key of 20..3f", {"derive": "public", "private": SK_B.hex()}),
        good("keys", "commitment", "H of the self-mask seed", {"derive": "commitment", "seed": SK_A.hex()}),
        good(
            "keys", "mask-0-1", "k_mask(0,1); see prg-check for its keystream", mask(SK_A, SK_B, 0, 1), "check-value"
        ),
        good("keys", "mask-1-0", "the other peer derives the same key", mask(SK_B, SK_A, 1, 0), "check-value"),
        good("keys", "mask-0-2", "another index gives another key", mask(SK_A, SK_B, 0, 2)),
        good("keys", "mask-63-5", "the smaller index comes first", mask(SK_A, SK_B, 63, 5)),
        good("keys", "share-0-1", "k_share(0,1), by the sender", share),
        good("keys", "share-0-1-receiver", "k_share(0,1), by the receiver", share | _swap()),
        good("keys", "share-1-0", "the other direction is another key", back),
        good("keys", "self-0", "k_self(0)", self_),
        good("keys", "self-63", "k_self(63)", self_ | {"index": 63}),
        good(
            "keys",
            "high-bit",
            "the top bit of a public key is ignored (RFC 7748 §5)",
            _high_bit(mask(SK_A, SK_B, 0, 1)),
        ),
    ]
    for name, point in LOW_ORDER.items():
        given = mask(SK_A, SK_B, 0, 1) | {"public": point.hex()}
        comment = f"public key is the low-order point {name}: the shared secret is all zero"
        cases.append(bad("keys", f"low-order-{name}", comment, given, "zero-shared-secret", "low-order"))
    given = share | {"public": bytes(32).hex()}
    cases.append(bad("keys", "share-low-order", "the same for share keys", given, "zero-shared-secret", "low-order"))
    return vector_file("keys", "07 §2", "X25519 and HKDF-SHA256 with salt T1", cases)


def _swap() -> dict[str, Any]:
    return {"private": SK_B.hex(), "public": keys.public_key(SK_A).hex()}


def _high_bit(given: dict[str, Any]) -> dict[str, Any]:
    point = bytearray.fromhex(given["public"])
    point[31] |= 0x80
    return given | {"public": point.hex()}


def prg_cases() -> Case:
    key = keys.mask_key(T1, SK_A, keys.public_key(SK_B), 0, 1).hex()

    def given(start: int, count: int, ring_bits: int) -> dict[str, Any]:
        return {"key": key, "start": start, "count": count, "ring_bits": ring_bits}

    cases = [good("prg", "check", "keystream 3b052fec b0b8848e 400a44ef 54c29608", given(0, 4, 32), "check-value")]
    cases += [good("prg", f"k{k}", f"{k} low bits of each element", given(0, 40, k)) for k in (16, 20, 24, 32)]
    cases += [
        good("prg", "seek-8", "a chunk that starts at element 8", given(8, 16, 20)),
        good("prg", "carry-byte", "counter passes 0xff: block 253 is counter 0x00ff", given(1008, 16, 32), "carry"),
        good("prg", "carry-2-bytes", "counter passes 0xffff", given(4 * 65532, 16, 24), "carry"),
        good("prg", "carry-3-bytes", "counter passes 0xffffff", given(4 * (2**24 - 4), 16, 16), "carry"),
        good("prg", "zero-key", "the key of 32 zero bytes", given(0, 8, 32) | {"key": bytes(32).hex()}),
    ]
    return vector_file("prg", "07 §2", "AES-256-CTR mask generator from element `start`", cases)


def packing_cases() -> Case:
    stream = Stream("packing")
    cases = []
    edge = [1, 0xFFFFF, 0x12345, 0xABCDE, 0, 0, 0, 0]
    given: dict[str, Any] = {"direction": "pack", "ring_bits": 20, "elements": edge}
    cases.append(good("packing", "check-20", "starts 01 00 f0 ff ff 45 23 e1 cd ab", given, "check-value"))
    for k in (16, 20, 24, 32):
        values = [0, 1, 2**k - 1, 2 ** (k - 1), *(stream.below(2**k) for _ in range(12))]
        packed = {"direction": "pack", "ring_bits": k, "elements": values}
        case = good("packing", f"pack-{k}", f"{k} bits", packed)
        data = case["output"]["packed"]
        unpack: dict[str, Any] = {"direction": "unpack", "ring_bits": k, "count": 16, "packed": data}
        cases += [case, good("packing", f"unpack-{k}", f"{k} bits, back", unpack)]
        cases += [
            bad("packing", f"short-{k}", "one byte short", unpack | {"packed": data[:-2]}, "pack-length"),
            bad("packing", f"long-{k}", "one byte too many", unpack | {"packed": data + "00"}, "pack-length"),
            bad(
                "packing",
                f"range-{k}",
                "2^k is not in the ring",
                packed | {"elements": [2**k] + [0] * 7},
                "pack-value",
            ),
        ]
    odd = {"direction": "pack", "ring_bits": 20, "elements": [0] * 7}
    cases += [
        bad("packing", "count", "7 elements", odd, "pack-count"),
        bad("packing", "ring", "a ring of 12 bits", odd | {"ring_bits": 12, "elements": [0] * 8}, "ring-bits"),
    ]
    return vector_file("packing", "07 §6", "Ring elements to bytes and back", cases)


def shamir_cases() -> Case:
    stream = Stream("shamir")
    cases = []
    for n, t in ((3, 3), (4, 3), (10, 7), (64, 43)):
        secret, coefficients = stream.take(32), stream.take(32 * (t - 1))
        given: dict[str, Any] = {"do": "share", "secret": secret.hex(), "threshold": t, "peers": n}
        given["coefficients"] = coefficients.hex()
        cases.append(good("shamir", f"share-{n}-{t}", f"{n} shares, {t} recover", given))
        last = [{"index": i, "share": shamir.share(secret, t, i, coefficients).hex()} for i in range(n - t, n)]
        back: dict[str, Any] = {"do": "recover", "threshold": t, "shares": last}
        cases.append(good("shamir", f"recover-{n}-{t}", "from the shares of the highest indexes", back))
        few, twice = back | {"shares": last[1:]}, back | {"shares": [*last[1:], last[1]]}
        cases += [
            bad("shamir", f"few-{n}-{t}", "one share short", few, "too-few-shares"),
            bad("shamir", f"twice-{n}-{t}", "one share given twice", twice, "share-repeats"),
        ]
    zero = {"do": "share", "secret": bytes(32).hex(), "threshold": 3, "peers": 4, "coefficients": bytes(64).hex()}
    counting = zero | {"secret": SK_A.hex(), "coefficients": bytes(range(64)).hex()}
    cases += [
        good("shamir", "zero", "secret and coefficients zero: every share is zero", zero),
        good("shamir", "counting", "shows the order of coefficients: power 1 is 00..1f, power 2 is 20..3f", counting),
        bad("shamir", "secret-31", "a secret of 31 bytes", zero | {"secret": bytes(31).hex()}, "secret-length"),
        bad(
            "shamir", "coefficients-63", "a byte is missing", zero | {"coefficients": bytes(63).hex()}, "coefficients"
        ),
    ]
    return vector_file("shamir", "07 §2", "Shamir over GF(2^8), 32 bytes at a time", cases)


def box_cases() -> Case:
    stream = Stream("boxes")
    first, second = stream.take(32), stream.take(32)
    key = keys.share_key(T1, SK_A, keys.public_key(SK_B), 0, 1)
    box = keys.seal_share(T1, key, 0, 1, first, second)
    wrong_x = AESGCM(key).encrypt(bytes(12), b"\x01" + first + second, T1 + bytes([0, 0, 1, 0]))
    given: dict[str, Any] = {"t1": T1.hex(), "private": SK_B.hex(), "public": keys.public_key(SK_A).hex()}
    given |= {"from": 0, "to": 1, "box": box.hex()}

    def flipped(at: int) -> dict[str, Any]:
        changed = bytearray(box)
        changed[at] ^= 1
        return given | {"box": changed.hex()}

    cases = [
        good("boxes", "open", "peer 1 opens what peer 0 sealed", given),
        bad("boxes", "first-byte", "a bit of the ciphertext is flipped", flipped(0), "share-box"),
        bad("boxes", "last-byte", "a bit of the tag is flipped", flipped(80), "share-box"),
        bad("boxes", "other-t1", "boxed under another T1", given | {"t1": H(b"other").hex()}, "share-box"),
        bad(
            "boxes", "reflected", "taken for a box of the other direction", given | {"from": 1, "to": 0}, "share-box"
        ),
        bad("boxes", "other-sender", "taken for a box of peer 2", given | {"from": 2}, "share-box"),
        bad("boxes", "x", "x is 1, not g + 1 = 2", given | {"box": wrong_x.hex()}, "share-x"),
    ]
    return vector_file("boxes", "07 §5", "Opening the AES-256-GCM box of a SHARE", cases)


def _f32(values: list[float]) -> str:
    return struct.pack(f"<{len(values)}f", *values).hex()


def quantise_cases() -> Case:
    stream = Stream("quantise")
    edge = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 1e-30, -1e-30, 2.0**-149, 3.4028234663852886e38, 1 / 3]
    randoms = [0, 0, 0, 0, 2**24 - 1, 2**24 - 1, 0, 2**24 - 1, 2**24 - 1, 0, 1, 2**23, 2**23, 0, 5, 2**24 - 1]
    group = {"weight": 100, "means": [0.25, 7.5], "bounds": [1.0, 5.0]}
    base: dict[str, Any] = {"update": _f32(edge), "groups": [group], "randoms": randoms}
    base |= {"max_examples": 100, "clip": 1.0, "value_bits": 16}
    cases = [good("quantise", "edges", "zero, the clip, beyond it, subnormals; full weight", base)]
    for k, v in ((16, 12), (20, 16), (24, 16), (32, 24), (32, 28)):
        values = [(stream.below(2**24) - 2**23) / 2**23 * 0.02 for _ in range(24)]
        given = base | {"update": _f32(values), "clip": 0.0125, "value_bits": v, "max_examples": 32767}
        given["groups"] = [
            {"weight": 288, "means": [2.302585, 0.125], "bounds": [20.0, 1.0]},
            {"weight": 72, "means": [-1.5, 0.9], "bounds": [20.0, 1.0]},
        ]
        given["randoms"] = [stream.below(2**24) for _ in range(30)]
        cases.append(good("quantise", f"v{v}-k{k}", f"{v}-bit values, with held-out metrics", given))
    none = base | {"groups": [group | {"weight": 0}]}
    no_held_out = base | {
        "groups": [group, {"weight": 0, "means": [0.0], "bounds": [1.0]}],
        "randoms": [*randoms, 0, 0],
    }
    tail: dict[str, Any] = {"update": "", "groups": [], "randoms": [0], "max_examples": 32767, "clip": 0.01}
    tail["value_bits"] = 16
    for weight in (1, 2, 288, 16383, 32766, 32767):
        given = tail | {"groups": [{"weight": weight, "means": [], "bounds": []}]}
        comment = f"weight {weight} of 32767 is exactly {weight}"
        cases.append(good("quantise", f"weight-{weight}", comment, given, "weight"))
    over = tail | {"groups": [{"weight": 32768, "means": [], "bounds": []}]}
    cases += [
        bad("quantise", "weight-none", "no examples to train on", none, "weight-range"),
        good("quantise", "held-out-none", "no held-out examples: their part of the tail is zero", no_held_out),
        bad("quantise", "nan", "a coordinate is not a number", base | {"update": "0000c07f" * 13}, "not-finite"),
        bad("quantise", "infinity", "a coordinate is infinite", base | {"update": "0000807f" * 13}, "not-finite"),
        bad("quantise", "over-weight", "more examples than max_examples", over, "weight-range"),
    ]
    return vector_file("quantise", "07 §10", "Update (binary32) and metrics to integers, with fixed randoms", cases)


def primitive_files() -> dict[str, Case]:
    """Files by name."""
    return {
        "keys.json": key_cases(),
        "prg.json": prg_cases(),
        "packing.json": packing_cases(),
        "shamir.json": shamir_cases(),
        "boxes.json": box_cases(),
        "quantise.json": quantise_cases(),
    }
