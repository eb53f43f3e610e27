"""Receipts: signed by the node, refused when a byte changes or another node signed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encoding import encode_json
from protocol.envelope import PLAN_TYPE, seal_envelope
from protocol.identity import Identity
from python_node.errors import ReceiptError
from python_node.receipts import (
    MAX_RECEIPT_BYTES,
    RECEIPT_TYPE,
    CompletedRound,
    Receipt,
    open_receipt,
    receipt_time,
    seal_receipt,
)

NODE = Identity(bytes(range(32)))
OTHER = Identity(bytes(32))


def receipt(**changes: Any) -> Receipt:
    base = Receipt(
        run="01" * 32,
        plan="02" * 32,
        author="03" * 32,
        name="digits",
        decision="accepted",
        rule="authors",
        reason="author 03030303 is allowed",
        dataset="digits",
        time=receipt_time(0),
    )
    return msgspec.structs.replace(base, **changes)


ROUND = CompletedRound(round=3, attempt=0, survivors=5, model_digest="04" * 32)


def test_receipt_comes_back_as_it_was_signed() -> None:
    for made in (receipt(), receipt(completed=ROUND), receipt(decision="declined", dataset=None)):
        assert open_receipt(seal_receipt(NODE, made), node=NODE.peer_id) == made


def test_receipt_of_another_node_is_refused() -> None:
    with pytest.raises(ReceiptError, match=f"signed by {OTHER.peer_id[:8]}, expected {NODE.peer_id[:8]}"):
        open_receipt(seal_receipt(OTHER, receipt()), node=NODE.peer_id)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_receipt_with_one_byte_changed_is_refused_or_says_the_same(at: int, flip: int) -> None:
    sealed = bytearray(seal_receipt(NODE, receipt()))
    sealed[at % len(sealed)] ^= flip
    try:
        opened = open_receipt(bytes(sealed), node=NODE.peer_id)
    except ReceiptError:
        return
    assert opened == receipt()  # unused bits of base64 may differ; what was signed may not


def test_other_signed_documents_are_no_receipts() -> None:
    payload = encode_json(receipt())
    with pytest.raises(ReceiptError, match="payload type"):
        open_receipt(seal_envelope(NODE, PLAN_TYPE, payload))
    with pytest.raises(ReceiptError):
        open_receipt(seal_envelope(NODE, RECEIPT_TYPE, b"{}"))
    with pytest.raises(ReceiptError, match="accepted"):
        open_receipt(b" " * (MAX_RECEIPT_BYTES + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": "declined", "completed": ROUND},
        {"decision": "perhaps"},
        {"time": "yesterday"},
        {"run": "12"},
        {"reason": "x" * 20_000},
        {"completed": msgspec.structs.replace(ROUND, survivors=-1)},
    ],
)
def test_receipt_out_of_range_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError):
        seal_receipt(NODE, receipt(**changes))


def test_time_is_utc_to_the_second() -> None:
    assert receipt_time(1_700_000_000.9) == "2023-11-14T22:13:20Z"
