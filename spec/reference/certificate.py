"""When a CERTIFICATE holds (spec 07 §7)."""

from __future__ import annotations

from dataclasses import dataclass

from spec.reference.messages import Context, Decoded, decode
from spec.reference.refused import Refused
from spec.reference.signatures import signed_bytes, verify

__all__ = ["Electorate", "check_certificate"]


@dataclass(frozen=True)
class Electorate:
    """What a peer of K holds a certificate against."""

    identities: list[bytes]
    masked: list[int]
    threshold: int
    bound: int
    t0: bytes
    t2: bytes


def check_certificate(data: bytes, context: Context, electorate: Electorate) -> Decoded:
    """The decoded certificate, once t votes on it have verified."""
    found = decode(data, context)
    if found["t2"] != electorate.t2.hex():
        raise Refused("t2", "07 §7", "the certificate is bound to another T2")
    survivors = found["survivors"]
    if not set(survivors) <= set(electorate.masked):
        raise Refused("survivors-masked", "07 §7", f"{survivors} is not within K = {electorate.masked}")
    if len(survivors) < electorate.bound:
        raise Refused("survivors-bound", "07 §7", f"expected {electorate.bound} survivors, got {len(survivors)}")
    if len(found["voters"]) < electorate.threshold:
        raise Refused("votes", "07 §7", f"expected {electorate.threshold} votes, got {len(found['voters'])}")
    for voter, signature in zip(found["voters"], found["signatures"], strict=True):
        vote = {key: found[key] for key in ("t2", "survivors", "root")} | {"type": "vote", "sender": voter}
        covered = signed_bytes(vote, context.round_id, electorate.t0)
        verify(electorate.identities[voter], bytes.fromhex(signature), covered)
    return found
