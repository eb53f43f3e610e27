"""One operation per vector file: JSON in, JSON out (spec/peer-under-test.md)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from spec.reference import (
    apply,
    certificate,
    envelopes,
    hold_out,
    keys,
    messages,
    packing,
    prg,
    quantise,
    shamir,
    signatures,
    transcript,
)
from spec.reference.codec import H
from spec.reference.refused import Refused

__all__ = ["OPS", "Json", "operation", "parameters_of", "perform", "raw"]

Json = dict[str, Any]
OPS: dict[str, Callable[[Json], Json]] = {}


def operation(name: str) -> Callable[[Callable[[Json], Json]], Callable[[Json], Json]]:
    """Register the function that answers `name`."""

    def register(function: Callable[[Json], Json]) -> Callable[[Json], Json]:
        OPS[name] = function
        return function

    return register


def perform(op: str, given: Json) -> Json:
    """The answer of a peer under test: valid with an output, or invalid with the rule that refused."""
    try:
        return {"result": "valid", "output": OPS[op](given)}
    except Refused as refusal:
        return {"result": "invalid", "rule": refusal.rule}


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def floats(text: str) -> list[float]:
    """Little-endian binary32 in hexadecimal, as binary64 numbers."""
    data = raw(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


@operation("keys")
def derive_key(g: Json) -> Json:
    if g["derive"] == "public":
        return {"public": keys.public_key(raw(g["private"])).hex()}
    if g["derive"] == "commitment":
        return {"commitment": H(b"p2psa/1/b", raw(g["seed"])).hex()}
    if g["derive"] == "self":
        return {"key": keys.self_mask_key(raw(g["t1"]), raw(g["seed"]), g["index"]).hex()}
    derive = {"mask": keys.mask_key, "share": keys.share_key}[g["derive"]]
    return {"key": derive(raw(g["t1"]), raw(g["private"]), raw(g["public"]), g["from"], g["to"]).hex()}


@operation("prg")
def expand(g: Json) -> Json:
    return {"elements": prg.elements(raw(g["key"]), g["start"], g["count"], g["ring_bits"])}


@operation("packing")
def pack(g: Json) -> Json:
    if g["direction"] == "pack":
        return {"packed": packing.pack(g["elements"], g["ring_bits"]).hex()}
    return {"elements": packing.unpack(raw(g["packed"]), g["count"], g["ring_bits"])}


@operation("shamir")
def share_or_recover(g: Json) -> Json:
    if g["do"] == "share":
        secret, coefficients = raw(g["secret"]), raw(g["coefficients"])
        return {"shares": [shamir.share(secret, g["threshold"], i, coefficients).hex() for i in range(g["peers"])]}
    shares: dict[int, bytes] = {}
    for entry in g["shares"]:
        if entry["index"] in shares:
            raise Refused("share-repeats", "07 §8", f"two shares of index {entry['index']}")
        shares[entry["index"]] = raw(entry["share"])
    return {"secret": shamir.recover(shares, g["threshold"]).hex()}


@operation("boxes")
def open_box(g: Json) -> Json:
    """Open the SHARE box that `from` sealed for `to`, with the receiver's private key."""
    t1, sender, receiver = raw(g["t1"]), g["from"], g["to"]
    key = keys.share_key(t1, raw(g["private"]), raw(g["public"]), sender, receiver)
    share_of_b, share_of_sk = keys.open_share(t1, key, sender, receiver, raw(g["box"]))
    return {"share_of_b": share_of_b.hex(), "share_of_sk": share_of_sk.hex()}


@operation("quantise")
def quantise_update(g: Json) -> Json:
    groups = [quantise.Metrics(x["weight"], x["means"], x["bounds"]) for x in g["groups"]]
    q = quantise.quantise(
        floats(g["update"]),
        groups,
        g["randoms"],
        max_examples=g["max_examples"],
        clip=g["clip"],
        value_bits=g["value_bits"],
    )
    return {"quantised": q}


def parameters_of(g: Json) -> transcript.Parameters:
    """Parameters as vectors write them; those of delegates name groups."""
    parameters = transcript.Parameters(
        min_survivors=g["min_survivors"],
        ring_bits=g["ring_bits"],
        value_bits=g["value_bits"],
        replicas=g["replicas"],
        elements=g["elements"],
        clip=g["clip"],
        run_id=raw(g["run_id"]),
        cohort=[raw(key) for key in g["cohort"]],
        multiplicity=g.get("multiplicity", 1),
        sources=g.get("sources", []),
    )
    if "sources" in g:
        parameters.check_combining()
    return parameters


@operation("transcript")
def bind(g: Json) -> Json:
    """Everything a round is bound to, from its announcement to its certificate."""
    p = parameters_of(g["parameters"])
    round_id = transcript.round_id(p.run_id, g["round"], g["attempt"])
    t0 = transcript.t0(round_id, raw(g["plan_digest"]), raw(g["model_digest"]), p)
    t1 = transcript.t1(t0, [raw(advert) for advert in g["adverts"]])
    t2 = transcript.t2(t1, g["masked"])
    commits = {entry["index"]: raw(entry["message"]) for entry in g["commits"]}
    root = transcript.commit_root(t2, commits)
    return {
        "round_id": round_id.hex(),
        "threshold": p.t,
        "bound": p.bound,
        "parameters": p.encode().hex(),
        "t0": t0.hex(),
        "leaders": [transcript.leader(t0, view, p.n) for view in range(p.n)],
        "t1": t1.hex(),
        "t2": t2.hex(),
        "chunks": [list(r) for r in messages.chunk_ranges(p.elements, len(g["masked"]))],
        "root": root.hex(),
        "t3": transcript.t3(t2, sorted(commits), root).hex(),
    }


def context_of(g: Json) -> messages.Context:
    return messages.Context(
        peers=g["peers"],
        round_id=raw(g["round_id"]),
        ring_bits=g["ring_bits"],
        elements=g["elements"],
        masked=g["masked"],
    )


@operation("messages")
def decode_message(g: Json) -> Json:
    return messages.decode(raw(g["bytes"]), context_of(g["context"]))


@operation("signatures")
def verify_message(g: Json) -> Json:
    """What the signature of a message covers, once it has verified by `identity`."""
    context, t0 = context_of(g["context"]), raw(g["t0"])
    message = messages.decode(raw(g["bytes"]), context)
    if message["type"] == "sum":
        packed = raw(message["packed"])
        covered = signatures.sum_signed_bytes(t0, raw(g["t3"]), message["chunk"], packed)
    else:
        covered = signatures.signed_bytes(message, context.round_id, t0)
    signatures.verify(raw(g["identity"]), raw(message["signature"]), covered)
    return {"covered": covered.hex()}


@operation("adverts")
def accept_advert(g: Json) -> Json:
    """Decide on one ADVERT (spec 07 §4): signature, T0, keys and the fingerprint of the live link."""
    context, t0 = context_of(g["context"]), raw(g["t0"])
    advert = messages.decode(raw(g["bytes"]), context)
    signatures.verify(
        raw(g["identity"]), raw(advert["signature"]), signatures.signed_bytes(advert, context.round_id, t0)
    )
    if advert["t0"] != g["t0"]:
        raise Refused("t0", "07 §4", "the advert is bound to another T0")
    known = [*g["keys_seen"], advert["mask_key"], advert["enc_key"]]
    if len(set(known)) != len(known):
        raise Refused("key-repeats", "07 §4", "a key of the round repeats")
    if advert["fingerprint"] != g["link_fingerprint"]:
        raise Refused("fingerprint", "07 §4", "the live link shows another certificate")
    return {"accepted": True}


@operation("apply")
def apply_sums(g: Json) -> Json:
    new = apply.apply_aggregate(
        raw(g["theta"]),
        raw(g["buffers"]),
        g["sums"],
        g["survivors"],
        clip=g["clip"],
        value_bits=g["value_bits"],
        ring_bits=g["ring_bits"],
        weight_lost=g["weight_lost"],
        optimizer=apply.Optimizer(**g["optimizer"]),
        moments=raw(g["moments"]),
    )
    return {
        "theta": new.theta.hex(),
        "buffers": new.buffers.hex(),
        "moments": new.moments.hex(),
        "tail": new.tail,
        "tail_digest": new.tail_digest.hex(),
        "model_digest": new.model_digest.hex(),
    }


@operation("certificates")
def judge_certificate(g: Json) -> Json:
    electorate = certificate.Electorate(
        identities=[raw(key) for key in g["identities"]],
        masked=g["masked"],
        threshold=g["threshold"],
        bound=g["bound"],
        t0=raw(g["t0"]),
        t2=raw(g["t2"]),
    )
    found = certificate.check_certificate(raw(g["bytes"]), context_of(g["context"]), electorate)
    return {name: found[name] for name in ("survivors", "root", "voters")}


@operation("envelopes")
def open_envelope(g: Json) -> Json:
    return dict(envelopes.open_envelope(raw(g["bytes"]), g["payload_type"]))


@operation("hold-out")
def hold_out_examples(g: Json) -> Json:
    return {"held": hold_out.held_examples(g["examples"], g["fraction"])}
