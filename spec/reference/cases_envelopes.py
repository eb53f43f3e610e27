"""Vectors of envelopes.json: DSSE envelopes good and bad."""

from __future__ import annotations

import base64
import json
from typing import Any

from spec.reference.envelopes import seal_envelope
from spec.reference.judge import bad, good
from spec.reference.output import Case, vector_file
from spec.reference.signatures import identity_key
from spec.reference.stream import Stream

__all__ = ["envelope_files"]

PLAN = "application/vnd.peerplan.plan+json"
RUN = "application/vnd.peerplan.run+json"


def _given(value: object, kind: str = PLAN) -> dict[str, Any]:
    return {"payload_type": kind, "bytes": json.dumps(value).encode().hex()}


def envelope_cases() -> Case:
    seed, other = Stream("author").take(32), identity_key(Stream("somebody").take(32)).hex()
    author = identity_key(seed).hex()
    whole = seal_envelope(seed, author, PLAN, b'{"format": "peerplan-plan/1"}')
    signature = whole["signatures"][0]
    padded = seal_envelope(seed, author, PLAN, b"four")

    def signed(**fields: object) -> dict[str, Any]:
        return whole | {"signatures": [signature | fields]}

    text = json.dumps(whole)
    cases = [
        good("envelopes", "plan", "a plan's envelope; the payload is taken as bytes", _given(whole)),
        good("envelopes", "run", "a run's envelope", _given(seal_envelope(seed, author, RUN, b"{}"), RUN)),
        good("envelopes", "empty", "an empty payload", _given(seal_envelope(seed, author, PLAN, b""))),
        good(
            "envelopes",
            "order",
            "fields in another order, white space between",
            _given(dict(reversed(whole.items()))),
        ),
        bad(
            "envelopes",
            "type",
            "terms where a plan is expected",
            _given(whole | {"payloadType": RUN}),
            "payload-type",
        ),
        bad(
            "envelopes",
            "type-signed",
            "a plan taken for terms",
            _given(whole | {"payloadType": RUN}, RUN),
            "signature",
        ),
        bad("envelopes", "payload", "another payload", _given(whole | {"payload": "e30="}), "signature"),
        bad("envelopes", "no-signature", "no signature", _given(whole | {"signatures": []}), "signature-count"),
        bad("envelopes", "two", "two signatures", _given(whole | {"signatures": [signature] * 2}), "signature-count"),
        bad("envelopes", "keyid", "held against another key", _given(signed(keyid=other)), "signature"),
        bad("envelopes", "keyid-upper", "upper-case digits", _given(signed(keyid=author.upper())), "keyid"),
        bad(
            "envelopes",
            "keyid-line-feed",
            "a line feed after the digits",
            _given(signed(keyid=author + "\n")),
            "keyid",
        ),
        bad("envelopes", "keyid-short", "62 digits", _given(signed(keyid=author[:62])), "keyid"),
        bad(
            "envelopes",
            "sig-zero",
            "64 zero bytes",
            _given(signed(sig=base64.b64encode(bytes(64)).decode())),
            "signature",
        ),
        bad("envelopes", "sig-empty", "no bytes", _given(signed(sig="")), "signature"),
        bad("envelopes", "extra", "a field that does not exist", _given(whole | {"note": ""}), "fields"),
        bad("envelopes", "extra-inside", "the same in a signature", _given(signed(note="")), "fields"),
        bad(
            "envelopes", "missing", "no payload", _given({k: v for k, v in whole.items() if k != "payload"}), "fields"
        ),
        bad("envelopes", "no-padding", "base64 without padding", _given(padded | {"payload": "Zm91cg"}), "base64"),
        bad("envelopes", "white-space", "base64 with a space", _given(padded | {"payload": "Zm91 cg=="}), "base64"),
        bad("envelopes", "url", "the alphabet of URLs", _given(padded | {"payload": "-_8="}), "base64"),
        bad(
            "envelopes",
            "after",
            "something after the value",
            _given(whole) | {"bytes": (text + "{}").encode().hex()},
            "json",
        ),
        bad(
            "envelopes",
            "bom",
            "a byte order mark",
            _given(whole) | {"bytes": ("\ufeff" + text).encode().hex()},
            "json",
        ),
        bad(
            "envelopes",
            "cut",
            "the last byte is missing",
            _given(whole) | {"bytes": text[:-1].encode().hex()},
            "json",
        ),
        bad(
            "envelopes",
            "utf-8",
            "a byte that is no UTF-8",
            _given(whole) | {"bytes": text.encode().hex() + "ff"},
            "json",
        ),
    ]
    return vector_file("envelopes", "02 §2", "Opening DSSE envelopes of an expected payload type", cases)


def envelope_files() -> dict[str, Case]:
    """Files by name."""
    return {"envelopes.json": envelope_cases()}
