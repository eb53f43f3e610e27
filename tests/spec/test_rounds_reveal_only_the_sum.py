"""Properties of the written-down rounds, checked from their messages alone."""

import json
from pathlib import Path

import pytest

from spec.reference import output, packing
from spec.reference.messages import Context, decode

VECTORS = Path(output.__file__).resolve().parents[1] / "vectors"
ROUNDS = sorted(path.name for path in VECTORS.glob("round-*.json"))


@pytest.fixture(params=ROUNDS)
def case(request):
    return json.loads((VECTORS / request.param).read_text(encoding="ascii"))["cases"][0]


def decoded(case, *kinds):
    found, parameters = case["output"], case["input"]["announcement"]["parameters"]
    round_id, n = bytes.fromhex(found["round_id"]), len(case["input"]["peers"])
    context = Context(n, round_id, parameters["ring_bits"], parameters["elements"], len(found["masked"]))
    return [decode(bytes.fromhex(m["bytes"]), context) for m in found["messages"] if m["type"] in kinds]


def test_the_aggregate_is_the_sum_of_the_survivors_but_for_lost_chunks(case):
    found = case["output"]
    updates = [peer["quantised"] for peer in case["input"]["peers"] if peer["index"] in found["survivors"]]
    plain = [sum(column) for column in zip(*updates, strict=True)]
    for j in found["lost"]:
        start, end = found["chunks"][j]
        plain[start:end] = [0] * len(plain[start:end])
    assert found["aggregate"] == plain


def test_no_peer_is_revealed_twice(case):
    revealed = {}
    for message in decoded(case, "reveal"):
        if message["b"] is not None:
            revealed.setdefault(message["sender"], set()).add("b")
        for share in message["shares"]:
            revealed.setdefault(share["about"], set()).add(share["kind"])
    assert all(len(kinds) == 1 for kinds in revealed.values())
    assert {peer for peer, kinds in revealed.items() if kinds == {"b"}} == set(case["output"]["survivors"])


def packed(values, ring_bits):
    ring = [value % 2**ring_bits for value in values]
    return packing.pack(ring + [0] * (-len(ring) % 8), ring_bits).hex()


def test_no_plain_update_is_in_any_message(case):
    parameters = case["input"]["announcement"]["parameters"]
    sent = "".join(m["bytes"] for m in case["output"]["messages"])
    for peer in case["input"]["peers"]:
        own = [peer["quantised"], peer.get("group_sum", [])]  # a delegate's sum also where another puts it in
        own = [values for values in own if values != case["output"]["aggregate"]]  # all that is left: it is revealed
        texts = [peer.get("update", ""), *(packed(values, parameters["ring_bits"]) for values in own)]
        pieces = [text[at : at + 16] for text in texts for at in range(0, len(text) - 16, 16)]
        assert not any(piece in sent for piece in pieces if piece.strip("0"))
        for secret in ("identity_seed", "mask_private", "enc_private"):
            assert peer[secret] not in sent


def test_a_seed_is_only_sent_after_the_certificate_and_by_its_owner(case):
    messages = case["output"]["messages"]
    certified = next(i for i, m in enumerate(messages) if m["type"] == "certificate")
    for peer in case["input"]["peers"]:
        senders = [(i, m["from"]) for i, m in enumerate(messages) if peer["seed"] in m["bytes"]]
        assert all(i > certified and sender == peer["index"] for i, sender in senders)


def test_a_chunk_sent_again_has_the_same_bytes(case):
    chunks = {}
    for message in decoded(case, "chunk"):
        chunks.setdefault((message["sender"], message["chunk"]), set()).add(message["packed"])
    assert all(len(forms) == 1 for forms in chunks.values())


def test_all_that_stay_sign_the_same_result(case):
    results = decoded(case, "result")
    assert len(results) >= 3
    assert {r["model"] for r in results} == {case["output"]["model_digest"]}


def test_of_each_group_one_delegate_puts_the_sum_in_and_others_zeros(case):
    given, found = case["input"], case["output"]
    sources = given["announcement"]["parameters"].get("sources")
    if sources is None:
        assert not any("group_sum" in peer for peer in given["peers"])
        return
    for group in set(sources):
        delegates = [peer for peer in given["peers"] if sources[peer["index"]] == group]
        (total,) = {tuple(peer["group_sum"]) for peer in delegates}
        inside = [tuple(peer["quantised"]) for peer in delegates if peer["index"] in found["masked"]]
        assert inside == [total, *[(0,) * len(total)] * (len(inside) - 1)]
