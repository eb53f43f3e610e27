"""The reference's decoder on arbitrary and on damaged bytes: a decoded form that encodes back, or `Refused`."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import spec
from spec.reference.messages import TYPES, Context, decode, encode
from spec.reference.refused import Refused

CASES = json.loads((Path(spec.__file__).parent / "vectors" / "messages.json").read_text(encoding="ascii"))["cases"]
GIVEN = CASES[0]["input"]["context"]
ROUND_ID = bytes.fromhex(GIVEN["round_id"])
CONTEXT = Context(GIVEN["peers"], ROUND_ID, GIVEN["ring_bits"], GIVEN["elements"], GIVEN["masked"])
GOOD = [bytes.fromhex(case["input"]["bytes"]) for case in CASES if case["result"] == "valid"]


def check(data):
    try:
        message = decode(data, CONTEXT)
    except Refused:
        return
    assert encode(message, ROUND_ID) == data


def test_every_good_message_encodes_back_to_its_bytes():
    assert {data[1] for data in GOOD} == set(TYPES.values())
    for data in GOOD:
        assert encode(decode(data, CONTEXT), ROUND_ID) == data


@given(kind=st.sampled_from(sorted(TYPES.values())), sender=st.integers(0, 3), body=st.binary(max_size=400))
def test_noise_behind_a_good_header(kind, sender, body):
    check(bytes([1, kind, sender, 0]) + ROUND_ID[:8] + body)


@given(data=st.sampled_from(GOOD), at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 10_000))
def test_damaged_messages(data, at, value, cut):
    changed = bytearray(data)
    changed[at % len(data)] = value
    check(bytes(changed))
    check(bytes(changed[: cut % (len(data) + 1)]))
