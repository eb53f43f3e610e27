"""Receipts: the signed record of what a node was asked, what its owner's policy decided, and which rounds followed.

A receipt is a DSSE envelope by the node's identity. It leaves the node only where its owner hands it out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from protocol.encoding import Hex64, Name, decode_json, encode_json
from protocol.envelope import open_envelope, seal_envelope
from protocol.errors import ProtocolError
from protocol.identity import Identity, short
from protocol.terms import MAX_COHORT, MAX_COHORTS
from python_node.errors import ReceiptError

__all__ = [
    "MAX_RECEIPT_BYTES",
    "RECEIPT_TYPE",
    "CompletedRound",
    "Receipt",
    "open_receipt",
    "receipt_time",
    "seal_receipt",
]

RECEIPT_TYPE = "application/vnd.peerplan.receipt+json"
MAX_RECEIPT_BYTES = 64 << 10

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class CompletedRound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A round that ended in a model while this node took part: which attempt, how many survivors, which model.

    Of a round of many cohorts it is this node's own: `group` is its number, and the digest that of the group's sum.
    """

    round: _Count
    attempt: _Count
    survivors: Annotated[int, msgspec.Meta(ge=0, le=MAX_COHORT)]
    model_digest: Hex64
    group: Annotated[int, msgspec.Meta(ge=0, lt=MAX_COHORTS)] | None = None


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One decision, or one completed round under it.

    `run` and `plan` are digests of the exact signed bytes, `author` their signer, `name` the run's name; `rule` the
    policy key that decided, `time` UTC to the second.
    """

    format: Literal["peerplan-receipt/1"] = "peerplan-receipt/1"
    run: Hex64
    plan: Hex64
    author: Hex64
    name: Name
    decision: Literal["accepted", "declined"]
    rule: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Annotated[str, msgspec.Meta(max_length=16384)]
    dataset: Name | None = None
    time: _Time
    completed: CompletedRound | None = None


def receipt_time(unix_seconds: float) -> str:
    """A point in time as receipts write it: UTC, ISO 8601, to the second."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seal_receipt(identity: Identity, receipt: Receipt) -> bytes:
    """Sign a receipt; gives the envelope's JSON bytes.

    Raises:
        ReceiptError: a field is out of range, or a declined run has a completed round.
    """
    payload = encode_json(receipt)
    _parse(payload)
    return seal_envelope(identity, RECEIPT_TYPE, payload)


def open_receipt(data: bytes, *, node: str | None = None) -> Receipt:
    """Verify a receipt; `node`, where given, is the peer id that must have signed it.

    Raises:
        ReceiptError: no receipt, a signature that does not verify, or another signer.
    """
    try:
        opened = open_envelope(data, RECEIPT_TYPE, what="receipt", max_bytes=MAX_RECEIPT_BYTES)
    except ProtocolError as error:
        raise ReceiptError(str(error)) from None
    if node is not None and opened.signer != node:
        raise ReceiptError(f"receipt: signed by {short(opened.signer)}, expected {short(node)}")
    return _parse(opened.payload)


def _parse(payload: bytes) -> Receipt:
    try:
        receipt = decode_json(payload, Receipt, what="receipt", max_bytes=MAX_RECEIPT_BYTES)
    except ProtocolError as error:
        raise ReceiptError(str(error)) from None
    if receipt.decision == "declined" and receipt.completed is not None:
        raise ReceiptError(f"receipt: run {receipt.name} was declined, yet round {receipt.completed.round} completed")
    return receipt
