"""Round messages that come before this peer knows of their round: others may be told of it a little earlier."""

from __future__ import annotations

from collections import deque

from protocol.identity import PeerId
from protocol.link import Payload

__all__ = ["EarlyMessages"]

_MESSAGES, _BYTES, _PEERS = 32, 1024, 256


class EarlyMessages:
    """What fits one start of a round. Adverts, rosters and shares are small; anything larger cannot come before this
    peer has spoken. Bounded for each peer apart, so that nobody's flood takes the place of another's advert.
    """

    def __init__(self) -> None:
        self._kept: dict[PeerId, deque[tuple[bytes, bytes]]] = {}

    def keep(self, peer: PeerId, tag: bytes, payload: Payload) -> None:
        """Keep a control message of the round that a tag names, in place of the oldest of that peer."""
        if len(payload) > _BYTES:
            return
        self._kept.setdefault(peer, deque(maxlen=_MESSAGES)).append((tag, bytes(payload)))
        if len(self._kept) > _PEERS:
            del self._kept[next(iter(self._kept))]

    def take(self, tag: bytes) -> list[tuple[PeerId, bytes]]:
        """The messages of a round, in the order each peer sent them; they are not kept any longer."""
        taken = []
        for peer, waiting in self._kept.items():
            for item in [item for item in waiting if item[0] == tag]:
                waiting.remove(item)
                taken.append((peer, item[1]))
        return taken

    def count(self, peer: PeerId) -> int:
        """How many messages of a peer are kept."""
        return len(self._kept.get(peer, ()))
