"""Ed25519 cases about which implementations disagree (spec 02 §1): small orders, second encodings, the cofactor.

Each refused one would verify under some rule in use: without checks of small order, with y taken modulo the prime,
or with the equation multiplied by the cofactor.
"""

from __future__ import annotations

from typing import Any

from spec.reference.curve import (
    BASE,
    ORDER,
    PRIME,
    SMALL_ORDER,
    TORSION,
    Point,
    add,
    encode_point,
    multiply,
    scalar_of,
)
from spec.reference.judge import bad, good
from spec.reference.messages import decode, encode
from spec.reference.ops import context_of
from spec.reference.output import Case
from spec.reference.samples import Sampled
from spec.reference.signatures import signed_bytes

__all__ = ["curve_cases"]


def curve_cases(sample: Sampled) -> list[Case]:
    """One VOTE, signed by plain integers."""
    message = decode(sample.messages["vote"][0], context_of(sample.context))
    bare = {key: value for key, value in message.items() if key != "signature"}
    round_id, t0 = bytes.fromhex(sample.context["round_id"]), bytes.fromhex(sample.output["t0"])
    covered = signed_bytes(message, round_id, t0)
    secret, neutral = scalar_of(b"spec secret"), (0, 1)
    key = multiply(BASE, secret)

    def given(identity: bytes, r: bytes, s: int) -> dict[str, Any]:
        data = encode(bare | {"signature": (r + s.to_bytes(32, "little")).hex()}, round_id)
        fields = {"context": sample.context, "t0": sample.output["t0"], "t3": sample.output["t3"]}
        return fields | {"identity": identity.hex(), "bytes": data.hex()}

    def signed(identity: bytes, r_torsion: Point, *, count: int = 0, nonce: int | None = None) -> dict[str, Any]:
        k = scalar_of(b"spec nonce", count.to_bytes(4, "little")) if nonce is None else nonce
        r = encode_point(add(multiply(BASE, k), r_torsion))
        return given(identity, r, (k + scalar_of(r, identity, covered) * secret) % ORDER)

    def weak(identity: bytes) -> dict[str, Any]:
        """A signature that needs no secret: the key times h is the neutral point."""
        for count in range(64):
            k = scalar_of(b"spec nonce", count.to_bytes(4, "little"))
            r = encode_point(multiply(BASE, k))
            if scalar_of(r, identity, covered) % 8 == 0:
                return given(identity, r, k)
        raise AssertionError("no nonce found")

    def mixed(*, wanted: bool) -> dict[str, Any]:
        """A key with a torsion part: it drops out of the equation only where h is a multiple of eight."""
        identity = encode_point(add(key, TORSION))
        for count in range(64):
            case = signed(identity, neutral, count=count)
            r = bytes.fromhex(case["bytes"])[-64:-32]
            if (scalar_of(r, identity, covered) % 8 == 0) is wanted:
                return case
        raise AssertionError("no nonce found")

    def case(name: str, comment: str, fields: dict[str, Any]) -> Case:
        return bad("signatures", f"curve-{name}", comment, fields, "signature")

    cases = [
        good(
            "signatures",
            "curve-plain",
            "a key and a signature made by plain integers",
            signed(encode_point(key), neutral),
        ),
        good(
            "signatures",
            "curve-mixed-key",
            "a key with a torsion part that drops out: 8 divides h",
            mixed(wanted=True),
        ),
        case(
            "mixed-key-off",
            "the same key where 8 does not divide h: valid only with the cofactor",
            mixed(wanted=False),
        ),
        case("mixed-r", "R with a torsion part: valid only with the cofactor", signed(encode_point(key), TORSION)),
        case("small-r", "R is the neutral point", signed(encode_point(key), neutral, nonce=0)),
        case("no-point", "a key that is no point", signed((2).to_bytes(32, "little"), neutral)),
    ]
    for number, small in enumerate(sorted(SMALL_ORDER)):
        cases.append(case(f"small-key-{number}", "a key of small order signs everything", weak(small)))
    for name, y, sign_bit in (
        ("0", PRIME, 0),
        ("1", PRIME + 1, 0),
        ("1-signed", PRIME + 1, 1),
        ("neutral-signed", 1, 1),
    ):
        identity = (y | sign_bit << 255).to_bytes(32, "little")
        cases.append(case(f"odd-key-{name}", "a second encoding of a key of small order", weak(identity)))
    return cases
