"""What a session tells its owner: the signaling server's events, and three of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from protocol.signaling import (
    Introduced,
    Offer,
    PeerBack,
    PeerGone,
    Relayed,
    RoundAborted,
    RoundLogged,
    RoundOpened,
    RoundStart,
    RunChanged,
)

__all__ = ["Disconnected", "Reconnected", "RelayFailed", "SessionEvent"]


@dataclass(frozen=True)
class Disconnected:
    """The connection was lost; the session is dialling again. Links between peers are not touched by this."""

    reason: str


@dataclass(frozen=True)
class Reconnected:
    """The session is back: registered, watching and consenting as before.

    For each run it consented to or watches, a `RunChanged` follows that tells where the run stands; a node then
    says `ready` anew, having fetched the model first if it was left behind.
    """


@dataclass(frozen=True)
class RelayFailed:
    """A `relay` was not delivered: `code` is "peer-offline" or "not-in-cohort"."""

    to: str
    via: str
    code: str
    message: str


SessionEvent: TypeAlias = (
    Offer
    | RoundStart
    | RoundAborted
    | RoundOpened
    | RoundLogged
    | RunChanged
    | PeerGone
    | PeerBack
    | Relayed
    | Introduced
    | Disconnected
    | Reconnected
    | RelayFailed
)
