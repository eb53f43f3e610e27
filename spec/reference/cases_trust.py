"""Vectors of what a peer believes: signatures.json, adverts.json and certificates.json."""

from __future__ import annotations

from typing import Any

from spec.reference.cases_curve import curve_cases
from spec.reference.codec import H, bits
from spec.reference.curve import ORDER
from spec.reference.judge import bad, good
from spec.reference.messages import decode, encode
from spec.reference.ops import context_of
from spec.reference.output import Case, vector_file
from spec.reference.samples import Sampled, sampled
from spec.reference.signatures import sign, sign_bytes

__all__ = ["trust_files"]


def _flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def _malleable(signature: bytes) -> bytes:
    """The same R with S + order: RFC 8032 §5.1.7 refuses S outside [0, order)."""
    s = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + s.to_bytes(32, "little")


def signature_cases() -> Case:
    sample = sampled("no-drop")

    def given(data: bytes, signer: int) -> dict[str, Any]:
        fields = {"context": sample.context, "t0": sample.output["t0"], "t3": sample.output["t3"]}
        return fields | {"identity": sample.identities[signer].hex(), "bytes": data.hex()}

    cases = []
    for kind in ("advert", "decide", "commit", "vote", "result", "sum"):
        data = sample.messages[kind][0]
        signer = data[2]
        at = 14 if kind == "sum" else len(data) - 64
        other = _flip(data, len(data) - 1) if kind == "sum" else _flip(data, at - 9)
        stretched = data[:at] + _malleable(data[at : at + 64]) + data[at + 64 :]
        zero = data[:at] + bytes(64) + data[at + 64 :]
        whole = given(data, signer)
        renewed = {"context": sample.context | {"round_id": sample.context["round_id"][:16] + "00" * 24}}
        bound = renewed if kind == "result" else {"t0": H(b"other").hex()}
        cases += [
            good("signatures", kind, f"{kind.upper()} by its sender", whole),
            bad(
                "signatures",
                f"{kind}-other-signer",
                "held against another identity",
                given(data, (signer + 1) % 4),
                "signature",
            ),
            bad(
                "signatures",
                f"{kind}-changed",
                "one bit before (or hashed under) the signature",
                given(other, signer),
                "signature",
            ),
            bad("signatures", f"{kind}-bit", "one bit of the signature", given(_flip(data, at), signer), "signature"),
            bad("signatures", f"{kind}-malleable", "S + order in place of S", given(stretched, signer), "signature"),
            bad("signatures", f"{kind}-zero", "64 zero bytes", given(zero, signer), "signature"),
            bad("signatures", f"{kind}-other-round", "the same bytes in another round", whole | bound, "signature"),
        ]
    sum_ = sample.messages["sum"][0]
    moved = given(sum_, sum_[2]) | {"t3": H(b"other").hex()}
    cases.append(bad("signatures", "sum-other-t3", "a sum over other survivors", moved, "signature"))
    cases.append(_relabelled(sample))
    cases += curve_cases(sample)
    return vector_file("signatures", "07 §3", "Signed messages held against an identity, T0 and (SUM) T3", cases)


def _relabelled(sample: Sampled) -> Case:
    """A VOTE whose signature was made under the label of a COMMIT."""
    vote = decode(sample.messages["vote"][0], context_of(sample.context))
    signer = vote["sender"]
    bare = {key: value for key, value in vote.items() if key != "signature"}
    covered = (
        b"p2psa/1/commit"
        + bytes.fromhex(sample.output["t0"])
        + encode(bare, bytes.fromhex(sample.context["round_id"]))
    )
    wrong = sign_bytes(sample.seed(signer), covered)
    data = encode(bare | {"signature": wrong.hex()}, bytes.fromhex(sample.context["round_id"]))
    given = {"context": sample.context, "t0": sample.output["t0"], "t3": sample.output["t3"]}
    given |= {"identity": sample.identities[signer].hex(), "bytes": data.hex()}
    return bad("signatures", "vote-other-label", "signed under the label of a COMMIT", given, "signature")


def advert_cases() -> Case:
    sample = sampled("no-drop")
    data = sample.messages["advert"][1]
    advert = decode(data, context_of(sample.context))
    other = decode(sample.messages["advert"][0], context_of(sample.context))
    round_id, t0 = bytes.fromhex(sample.context["round_id"]), bytes.fromhex(sample.output["t0"])
    seen = [other["mask_key"], other["enc_key"]]
    base: dict[str, Any] = {"context": sample.context, "t0": t0.hex(), "identity": sample.identities[1].hex()}
    base |= {"keys_seen": seen, "link_fingerprint": advert["fingerprint"], "bytes": data.hex()}

    def changed(**fields: str) -> dict[str, Any]:
        bare = {key: value for key, value in (advert | fields).items() if key != "signature"}
        return base | {"bytes": encode(sign(bare, sample.seed(1), round_id, t0), round_id).hex()}

    cases = [
        good("adverts", "good", "an advert that is taken", base),
        bad("adverts", "t0", "another T0: other plan, model, terms or cohort", changed(t0=H(b"other").hex()), "t0"),
        bad("adverts", "same-keys", "mask and enc key are one", changed(enc_key=advert["mask_key"]), "key-repeats"),
        bad("adverts", "stolen-mask", "mask key of peer 0", changed(mask_key=other["mask_key"]), "key-repeats"),
        bad(
            "adverts",
            "stolen-enc",
            "mask key that is the enc key of peer 0",
            changed(mask_key=other["enc_key"]),
            "key-repeats",
        ),
        bad(
            "adverts",
            "fingerprint",
            "the link shows another certificate",
            base | {"link_fingerprint": H(b"x").hex()},
            "fingerprint",
        ),
        bad(
            "adverts",
            "signer",
            "signed by another peer",
            base | {"identity": sample.identities[0].hex()},
            "signature",
        ),
        bad(
            "adverts",
            "unsigned-change",
            "the fingerprint is changed after signing",
            base | {"bytes": _flip(data, 140).hex()},
            "signature",
        ),
    ]
    return vector_file("adverts", "07 §4", "Taking an ADVERT", cases)


def certificate_cases() -> Case:
    full, dropped = sampled("no-drop"), sampled("drop-after-masking")

    def base(sample: Sampled) -> dict[str, Any]:
        parameters = sample.play.announcement.parameters
        given: dict[str, Any] = {"context": sample.context, "t0": sample.output["t0"], "t2": sample.output["t2"]}
        given |= {"identities": [key.hex() for key in sample.identities], "masked": sample.output["masked"]}
        given |= {"threshold": parameters.t, "bound": parameters.bound}
        return given | {"bytes": sample.messages["certificate"][0].hex()}

    def made(
        survivors: list[int], voters: list[int], *, signers: list[int] | None = None, **fields: str
    ) -> dict[str, Any]:
        claim = {"t2": full.output["t2"], "survivors": survivors, "root": H(b"root").hex()} | fields
        votes = []
        for voter, signer in zip(voters, signers or voters, strict=True):
            vote = claim | {"type": "vote", "sender": voter}
            votes.append(sign(vote, full.seed(signer), round_id, t0)["signature"])
        whole = claim | {"type": "certificate", "sender": 0, "voters": voters, "signatures": votes}
        return base(full) | {"bytes": encode(whole, round_id).hex()}

    round_id, t0 = bytes.fromhex(full.context["round_id"]), bytes.fromhex(full.output["t0"])
    whole = bytes.fromhex(base(full)["bytes"])
    extra = whole[:84] + bits([0, 1, 2]) + whole[92:]
    everyone = [0, 1, 2, 3]
    raised = made([0, 1, 2], everyone) | {"bound": 4}
    cases = [
        good("certificates", "all", "four votes on four survivors", base(full)),
        good("certificates", "three", "three votes on three survivors", base(dropped)),
        good("certificates", "quorum", "exactly t = 3 votes", made(everyone, [0, 2, 3])),
        bad("certificates", "two-votes", "t - 1 votes", made(everyone, [0, 2]), "votes"),
        bad("certificates", "no-votes", "no votes", made(everyone, []), "votes"),
        bad(
            "certificates",
            "stand-in",
            "the vote of 3 is signed by 2",
            made(everyone, [0, 2, 3], signers=[0, 2, 2]),
            "signature",
        ),
        bad(
            "certificates",
            "one-bad",
            "three good votes and one bad",
            made(everyone, everyone, signers=[0, 1, 2, 0]),
            "signature",
        ),
        bad(
            "certificates",
            "vote-bit",
            "one bit of a vote",
            base(full) | {"bytes": _flip(whole, 100).hex()},
            "signature",
        ),
        bad(
            "certificates",
            "root",
            "the root is changed after the votes",
            base(full) | {"bytes": _flip(whole, 60).hex()},
            "signature",
        ),
        bad("certificates", "t2", "votes on another T2", made(everyone, everyone, t2=H(b"other").hex()), "t2"),
        bad("certificates", "few", "two survivors", made([0, 1], everyone), "survivors-bound"),
        bad("certificates", "under-u-min", "three survivors where u_min is 4", raised, "survivors-bound"),
        bad(
            "certificates",
            "outsider",
            "a survivor that is not in K",
            made(everyone, everyone) | {"masked": [0, 1, 2]},
            "survivors-masked",
        ),
        bad("certificates", "count", "four signatures, three voters", base(full) | {"bytes": extra.hex()}, "length"),
        bad(
            "certificates", "other-t0", "votes of another round", base(full) | {"t0": H(b"other").hex()}, "signature"
        ),
    ]
    return vector_file("certificates", "07 §7", "Quorum certificates held against a cohort, K and T2", cases)


def trust_files() -> dict[str, Case]:
    """Files by name."""
    return {
        "signatures.json": signature_cases(),
        "adverts.json": advert_cases(),
        "certificates.json": certificate_cases(),
    }
