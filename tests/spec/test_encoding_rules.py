"""What spec 01 and 02 say, held against the code that decodes."""

import base64
import json
from pathlib import Path

import pytest

import spec
from protocol.encoding import Reader, Writer, decode_json, parse_hex
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, open_envelope, pre_authentication_encoding, seal_envelope
from protocol.errors import EncodingError, LimitExceededError, SignatureError
from protocol.identity import Identity, verify
from protocol.manifest import Blob, DataField, DatasetSchema

IDENTITY = Identity(bytes(range(32)))


def decode(text, kind=Blob):
    return decode_json(text, kind, what="test document", max_bytes=1000)


GOOD = {"digest": "a" * 64, "size": 1, "role": "theta"}


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "a" * 64 + "\n"},
        {"digest": "A" * 64},
        {"digest": "a" * 63},
        {"role": "theta\n"},
        {"role": ""},
        {"role": "-theta"},
        {"role": "a" * 129},
        {"role": "thäta"},
        {"size": 1.0},
        {"size": True},
        {"size": "1"},
        {"size": -1},
        {"extra": 1},
    ],
)
def test_a_field_outside_its_form_is_refused(change):
    assert decode(json.dumps(GOOD)).size == 1
    with pytest.raises(EncodingError):
        decode(json.dumps(GOOD | change))


@pytest.mark.parametrize(
    "text", ["", "{", "[1]x", "\ufeff{}", "NaN", "[" * 5000, '{"digest": 1e999}', b'{"digest": "\xff"}']
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises((EncodingError, LimitExceededError)):
        decode(text)


def test_a_document_above_its_bound_is_refused_before_it_is_parsed():
    with pytest.raises(LimitExceededError, match="test document: 1001 bytes, at most 1000"):
        decode("x" * 1001)


def test_an_unbounded_dataset_is_refused():
    fields = [{"name": f"f{i}", "dtype": "float32", "shape": []} for i in range(65)]
    with pytest.raises(EncodingError):
        decode_json(json.dumps({"name": "d", "fields": fields}), DatasetSchema, what="dataset", max_bytes=1 << 20)
    field = {"name": "f", "dtype": "float32", "shape": [1] * 9}
    with pytest.raises(EncodingError):
        decode(json.dumps(field), DataField)


@pytest.mark.parametrize("text", ["AA", "-_8=", "A A==", "AA==\\n", "AA==AA=="])
def test_base64_is_standard_padded_and_without_white_space(text):
    document = f'{{"payloadType": "t", "payload": "{text}", "signatures": []}}'
    with pytest.raises(EncodingError):
        decode(document, Envelope)


def test_a_peer_id_has_exactly_one_form():
    assert parse_hex(IDENTITY.peer_id, what="peer id") == IDENTITY.public_key
    for wrong in (IDENTITY.peer_id.upper(), IDENTITY.peer_id + "\n", " " + IDENTITY.peer_id[1:], ""):
        with pytest.raises(EncodingError, match="peer id"):
            parse_hex(wrong, what="peer id")


def test_integers_are_little_endian_and_bounded():
    assert bytes(Writer().uint(0x0102, 2).uint(3, 8).raw(b"x")) == b"\x02\x01" + b"\x03" + bytes(7) + b"x"
    with pytest.raises(EncodingError):
        Writer().uint(256, 1)
    with pytest.raises(EncodingError, match="expected 4 more bytes, got 3"):
        Reader(bytes(3), what="frame").uint(4)
    with pytest.raises(EncodingError, match="1 bytes too many"):
        Reader(bytes(1), what="frame").end()


def test_the_pre_authentication_encoding_is_that_of_dsse():
    # protocol.md of secure-systems-lab/dsse: the example of its appendix
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == expected


def envelope(**changes):
    return json.dumps(json.loads(seal_envelope(IDENTITY, PLAN_TYPE, b"{}")) | changes).encode()


def test_an_envelope_opens_to_the_exact_bytes_and_their_signer():
    opened = open_envelope(envelope(), PLAN_TYPE, what="plan")
    assert (opened.payload, opened.signer) == (b"{}", IDENTITY.peer_id)


def test_an_envelope_of_another_type_or_content_is_refused():
    other = Identity(bytes(32))
    signature = json.loads(envelope())["signatures"][0]
    faults = [
        (envelope(), RUN_TYPE),
        (envelope(payloadType=RUN_TYPE), RUN_TYPE),
        (envelope(payload=base64.b64encode(b"{ }").decode()), PLAN_TYPE),
        (envelope(signatures=[]), PLAN_TYPE),
        (envelope(signatures=[signature, signature]), PLAN_TYPE),
        (envelope(signatures=[signature | {"keyid": other.peer_id}]), PLAN_TYPE),
        (envelope(signatures=[signature | {"sig": base64.b64encode(bytes(64)).decode()}]), PLAN_TYPE),
        (envelope(signatures=[signature | {"sig": ""}]), PLAN_TYPE),
    ]
    for data, kind in faults:
        with pytest.raises(SignatureError, match="plan"):
            open_envelope(data, kind, what="plan")


ENVELOPES = json.loads((Path(spec.__file__).parent / "vectors" / "envelopes.json").read_text(encoding="ascii"))[
    "cases"
]


@pytest.mark.parametrize("case", ENVELOPES, ids=lambda case: case["id"])
def test_the_package_opens_the_envelopes_of_the_vectors(case):
    data, kind = bytes.fromhex(case["input"]["bytes"]), case["input"]["payload_type"]
    if case["result"] == "invalid":
        with pytest.raises((EncodingError, SignatureError)):
            open_envelope(data, kind, what="vector")
        return
    opened = open_envelope(data, kind, what="vector")
    found = {"payload": opened.payload.hex(), "digest": opened.digest, "signer": opened.signer}
    assert found == case["output"]


def test_a_signature_is_bound_to_its_label():
    signature = IDENTITY.sign("peerplan/auth/1", b"nonce")
    verify(IDENTITY.peer_id, "peerplan/auth/1", b"nonce", signature)
    with pytest.raises(SignatureError):
        verify(IDENTITY.peer_id, "peerplan/link/1", b"nonce", signature)


def test_the_secret_seed_is_in_no_text_form_of_an_identity():
    seed = bytes(range(32))
    assert seed.hex() not in repr(IDENTITY) + str(IDENTITY)
    assert IDENTITY.seed() == seed
