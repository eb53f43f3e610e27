"""Set-up messages between peers that were named together (spec 03 §7)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocol.encoding import Hex64
from protocol.signaling.base import MAX_RELAY_BYTES, Event, Member, Reply, Request

__all__ = ["Introduce", "Introduced", "Introduction", "Relay", "RelayKind", "Relayed"]

RelayKind = Literal["offer", "answer", "candidate", "sealed"]
Payload = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_RELAY_BYTES)]


class Relay(Request, frozen=True, kw_only=True):
    """Hand `payload` to peer `to`. Not answered when delivered; else an error `not-in-cohort` or `peer-offline`.

    `via` is the round id of a cohort, or the id of an introduction, that names both peers.
    """

    to: Hex64
    via: Hex64
    kind: RelayKind
    payload: Payload


class Relayed(Event, frozen=True, kw_only=True):
    """What another peer sent; its identity was checked by the signaling server, which peers do not rely on."""

    sender: Hex64 = msgspec.field(name="from")
    via: Hex64
    kind: RelayKind
    payload: Payload


class Introduce(Request, frozen=True, kw_only=True):
    """Ask for peers that hold the current model of a run; for its author and for peers that accepted it."""

    run: Hex64


class Introduction(Reply, frozen=True, kw_only=True):
    """`holders` are online and may be reached through `relay` with this `via` for `seconds`."""

    via: Hex64
    run: Hex64
    round: int
    model_digest: Hex64
    holders: Annotated[tuple[Member, ...], msgspec.Meta(max_length=64)]
    seconds: float


class Introduced(Event, frozen=True, kw_only=True):
    """To each holder: `peer` will ask for the model; the holder's own policy decides whether it gets it."""

    via: Hex64
    run: Hex64
    peer: Member
    seconds: float
