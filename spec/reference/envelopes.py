"""Opening a DSSE envelope (spec 02 §2), with the strict JSON of spec 01 §1."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from spec.reference.codec import H
from spec.reference.refused import Refused
from spec.reference.signatures import sign_bytes, verify

__all__ = ["open_envelope", "pre_authentication_encoding", "seal_envelope"]

MAX_ENVELOPE_BYTES = 4 << 20
HEX64 = re.compile(r"[0-9a-f]{64}")


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal_envelope(seed: bytes, keyid: str, payload_type: str, payload: bytes) -> dict[str, Any]:
    """The envelope as a JSON value."""
    signature = sign_bytes(seed, pre_authentication_encoding(payload_type, payload))
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def _fields(value: object, *names: str) -> list[Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise Refused("fields", "01 §1", f"expected exactly the fields {names}")
    return [value[name] for name in names]


def _bytes(text: object) -> bytes:
    try:
        if not isinstance(text, str):
            raise Refused("base64", "01 §1", "expected a string")
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Refused("base64", "01 §1", "not standard base64 with padding") from None


def open_envelope(data: bytes, payload_type: str) -> dict[str, str]:
    """Payload, digest and signer, in hexadecimal."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise Refused("size", "01 §1", f"{len(data)} bytes, at most {MAX_ENVELOPE_BYTES}")
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError:
        raise Refused("json", "01 §1", "no JSON in UTF-8") from None
    kind, encoded, signatures = _fields(value, "payloadType", "payload", "signatures")
    payload = _bytes(encoded)
    if not isinstance(signatures, list):
        raise Refused("fields", "01 §1", "signatures are a list")
    parsed = [_fields(signature, "keyid", "sig") for signature in signatures]
    found = [(keyid, _bytes(sig)) for keyid, sig in parsed]
    for keyid, _ in found:
        if not isinstance(keyid, str) or not HEX64.fullmatch(keyid):
            raise Refused("keyid", "01 §1", "expected 64 lower-case hexadecimal digits")
    if kind != payload_type:
        raise Refused("payload-type", "02 §2", f"expected {payload_type}")
    if len(found) != 1:
        raise Refused("signature-count", "02 §2", f"expected exactly 1 signature, got {len(found)}")
    keyid, signature = found[0]
    verify(bytes.fromhex(keyid), signature, pre_authentication_encoding(kind, payload))
    return {"payload": payload.hex(), "digest": H(payload).hex(), "signer": keyid}
