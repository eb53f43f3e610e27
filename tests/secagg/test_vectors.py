"""The Python primitives and decoders against spec/vectors, made by the slow reference."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocol.errors import ProtocolError
from protocol.identity import PeerId
from protocol.round.codec import Codec
from protocol.round.jobs import tail_bytes
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.secagg.keys import (
    agree,
    mask_key,
    open_share_box,
    private_key,
    public_key_of,
    seed_commitment,
    self_key,
    share_key,
)
from protocol.secagg.parameters import RoundParameters
from protocol.secagg.prg import MaskStream
from protocol.secagg.shamir import recover_secret, share_secret
from protocol.server_optimizer import ServerOptimizer
from tests.secagg.ring import packed, signed, unpacked

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"


def cases(name: str, result: str = "valid", **match: object) -> list[object]:
    found = json.loads((VECTORS / f"{name}.json").read_text())["cases"]
    chosen = [c for c in found if c["result"] == result and all(c["input"].get(k) == v for k, v in match.items())]
    return [pytest.param(c, id=c["id"]) for c in chosen]


def raw(case: dict, key: str) -> bytes:
    return bytes.fromhex(case["input"][key])


def derive(case: dict) -> str:
    given = case["input"]
    match given["derive"]:
        case "public":
            return public_key_of(raw(case, "private")).hex()
        case "commitment":
            return seed_commitment(raw(case, "seed")).hex()
        case "self":
            return self_key(raw(case, "t1"), raw(case, "seed"), given["index"]).hex()
        case kind:
            shared = agree(private_key(raw(case, "private")), raw(case, "public"), given["to"])
            if kind == "mask":
                return mask_key(raw(case, "t1"), shared, given["from"], given["to"]).hex()
            return share_key(raw(case, "t1"), shared, sender=given["from"], receiver=given["to"]).hex()


@pytest.mark.parametrize("case", cases("keys"))
def test_keys(case: dict) -> None:
    assert derive(case) in case["output"].values()


@pytest.mark.parametrize("case", cases("keys", "invalid"))
def test_refused_keys(case: dict) -> None:
    with pytest.raises(ProtocolError):
        derive(case)


@pytest.mark.parametrize("case", cases("prg"))
def test_mask_generator(case: dict) -> None:
    given = case["input"]
    start = given["start"] // 4 * 4
    out = np.empty(given["count"] + given["start"] - start, np.uint32)
    MaskStream(raw(case, "key"), start=start).fill(out.data.cast("B"))
    low = out[given["start"] - start :] & np.uint32((1 << given["ring_bits"]) - 1)
    assert low.tolist() == case["output"]["elements"]


@pytest.mark.parametrize("case", cases("packing", direction="pack"))
def test_packing(case: dict) -> None:
    values = np.array(case["input"]["elements"], np.uint32)
    assert packed(values, case["input"]["ring_bits"]).hex() == case["output"]["packed"]


@pytest.mark.parametrize("case", cases("packing", direction="unpack"))
def test_unpacking(case: dict) -> None:
    assert unpacked(raw(case, "packed"), case["input"]["ring_bits"]).tolist() == case["output"]["elements"]


@pytest.mark.parametrize("case", cases("shamir", do="share"))
def test_sharing(case: dict) -> None:
    given = case["input"]
    shares = share_secret(
        raw(case, "secret"),
        threshold=given["threshold"],
        indexes=list(range(given["peers"])),
        coefficients=raw(case, "coefficients"),
    )
    assert [shares[i].hex() for i in range(given["peers"])] == case["output"]["shares"]


@pytest.mark.parametrize("case", cases("shamir", do="recover"))
def test_recovering(case: dict) -> None:
    shares = {s["index"]: bytes.fromhex(s["share"]) for s in case["input"]["shares"]}
    chosen = dict(list(shares.items())[: case["input"]["threshold"]])
    assert recover_secret(chosen).hex() == case["output"]["secret"]


def open_box(case: dict) -> tuple[bytes, bytes]:
    given = case["input"]
    shared = agree(private_key(raw(case, "private")), raw(case, "public"), given["from"])
    key = share_key(raw(case, "t1"), shared, sender=given["from"], receiver=given["to"])
    return open_share_box(key, raw(case, "t1"), sender=given["from"], receiver=given["to"], box=raw(case, "box"))


@pytest.mark.parametrize("case", cases("boxes"))
def test_share_boxes(case: dict) -> None:
    b, sk = open_box(case)
    assert (b.hex(), sk.hex()) == (case["output"]["share_of_b"], case["output"]["share_of_sk"])


@pytest.mark.parametrize("case", cases("boxes", "invalid"))
def test_refused_share_boxes(case: dict) -> None:
    with pytest.raises(ProtocolError):
        open_box(case)


def applied(case: dict) -> tuple[np.ndarray, Aggregate]:
    given = case["input"]
    model = np.frombuffer(raw(case, "theta") + raw(case, "buffers") + raw(case, "moments"), "<f4")
    length = len(raw(case, "theta") + raw(case, "buffers")) // 4
    largest = (1 << (given["value_bits"] - 1)) - 1
    sums = signed(given["sums"], given["ring_bits"], survivors=given["survivors"], largest_value=largest)
    lost = ((length, length + 1),) if given["weight_lost"] else ()
    aggregate = Aggregate(sums=sums, survivors=frozenset(range(given["survivors"])), lost=lost)
    optimizer = msgspec.convert(given["optimizer"], ServerOptimizer)
    parameters = len(raw(case, "theta")) // 4
    new = apply_aggregate(
        model,
        aggregate,
        clip=given["clip"],
        largest_value=largest,
        optimizer=optimizer,
        parameter_count=parameters,
    )
    return new, aggregate


@pytest.mark.parametrize("case", cases("apply"))
def test_applying_gives_the_same_bits(case: dict) -> None:
    model, aggregate = applied(case)
    expected = case["output"]
    assert model.tobytes().hex() == expected["theta"] + expected["buffers"] + expected["moments"]
    assert model_digest(model) == expected["model_digest"]
    tail = aggregate.tail(len(expected["theta"] + expected["buffers"]) // 8)
    assert list(tail) == expected["tail"]
    assert hashlib.sha256(tail_bytes(tail)).hexdigest() == expected["tail_digest"]


@pytest.mark.parametrize("case", cases("apply", "invalid"))
def test_refused_aggregates(case: dict) -> None:
    with pytest.raises(ProtocolError):
        applied(case)


def transcript_parameters(given: dict) -> RoundParameters:
    p = given["parameters"]
    return RoundParameters(
        run_id=p["run_id"],
        round_id=given["round_id"],
        plan_digest=given["plan_digest"],
        model_digest=given["model_digest"],
        cohort=tuple(PeerId(peer) for peer in p["cohort"]),
        min_survivors=p["min_survivors"],
        ring_bits=p["ring_bits"],
        value_bits=p["value_bits"],
        replicas=p["replicas"],
        vector_length=p["elements"],
        clip=p["clip"],
    )


def signed_messages(result: str) -> list[object]:
    return [c for c in cases("signatures", result) if c.values[0]["input"]["bytes"][2:4] in ("01", "02", "05", "07")]


def codec_of(case: dict, peer: str, t0: str) -> Codec:
    """A codec of four peers in which the sender of the message is `peer`, bound to the case's T0."""
    data, context = raw(case, "bytes"), case["input"]["context"]
    others = [hashlib.sha256(bytes([i])).hexdigest() for i in range(context["peers"])]
    parameters = RoundParameters(
        run_id="00" * 32,
        round_id=context["round_id"],
        plan_digest="00" * 32,
        model_digest="00" * 32,
        cohort=tuple(PeerId(peer) for peer in sorted(others)),
        min_survivors=3,
        ring_bits=context["ring_bits"],
        value_bits=16,
        replicas=1,
        vector_length=context["elements"],
        clip=1.0,
    )
    sender = int.from_bytes(data[2:4], "little")
    cohort = tuple(PeerId(peer) if i == sender else key for i, key in enumerate(parameters.cohort))
    object.__setattr__(parameters, "cohort", cohort)
    parameters.__dict__["t0"] = bytes.fromhex(t0)
    return Codec(parameters)


@pytest.mark.parametrize("case", signed_messages("valid"))
def test_signed_messages(case: dict) -> None:
    codec = codec_of(case, case["input"]["identity"], case["input"]["t0"])
    received = codec.decode(raw(case, "bytes"), bulk=False)
    assert received.sender == int.from_bytes(raw(case, "bytes")[2:4], "little")


@pytest.mark.parametrize("case", signed_messages("invalid"))
def test_refused_signatures(case: dict) -> None:
    codec = codec_of(case, case["input"]["identity"], case["input"]["t0"])
    with pytest.raises(ProtocolError):
        codec.decode(raw(case, "bytes"), bulk=False)


def decode(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a message as a peer does that knows the mask set; what is refused is not refused for its signature."""
    monkeypatch.setattr("protocol.round.codec.verify", lambda *_: None)
    codec = codec_of(case, "11" * 32, "00" * 32)
    codec.know_chunks(codec._parameters.chunks(frozenset(range(case["input"]["context"]["masked"]))))
    codec.decode(raw(case, "bytes"), bulk=raw(case, "bytes")[1] >= 32)


@pytest.mark.parametrize("case", cases("messages", "valid"))
def test_messages_are_read(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(case, monkeypatch)


@pytest.mark.parametrize(  # one too short to name a sender is in test_decoder.py
    "case", [p for p in cases("messages", "invalid") if len(raw(p.values[0], "bytes")) >= 4]
)
def test_refused_messages(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProtocolError):
        decode(case, monkeypatch)


@pytest.mark.parametrize("case", cases("transcript"))
def test_transcript_digests(case: dict) -> None:
    given, expected = case["input"], case["output"]
    if "round_id" not in expected:
        pytest.skip("no round id in this case")
    parameters = transcript_parameters(given | {"round_id": expected["round_id"]})
    assert parameters.t0.hex() == expected["t0"]
