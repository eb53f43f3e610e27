"""Sending: what goes over which link, what goes again when a link comes back, and the list of actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.identity import Identity
from protocol.round.actions import Action, Misbehaviour, Persist, Send
from protocol.round.codec import Codec
from protocol.round.messages import BULK_TYPES, Chunk, Message, Received
from protocol.secagg.parameters import RoundParameters

__all__ = ["Link", "Post"]

_MAX_RESENDS = 16
"""Times everything is sent again to one peer: a link that flaps must not multiply the traffic without end."""


@dataclass
class Link:
    """What is known of the link to one other peer in this attempt.

    `outbox` holds everything for it in order: what was sent, or a chunk that is encoded when it is sent, so that the
    masked vector is kept once.
    """

    fingerprint: bytes | None = None
    up: bool = False
    lost: bool = False
    left: bool = False
    resends: int = 0
    outbox: list[Chunk | Send] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether waiting for this peer makes sense: a link that never opened may still open."""
        return not self.lost and not self.left


class Post:
    """Encodes, signs and addresses this peer's messages; own broadcasts come back through `on_own`."""

    def __init__(self, parameters: RoundParameters, identity: Identity, own_index: int) -> None:
        self.codec = Codec(parameters)
        self.links = {index: Link() for index in range(parameters.size) if index != own_index}
        self.actions: list[Action] = []
        self.gone: frozenset[int] = frozenset()
        self.audience: frozenset[int] | None = None
        self.on_own: Callable[[Received], None] = lambda _: None
        self._identity = identity
        self._own_index = own_index

    def open(self, index: int, fingerprint: bytes) -> None:
        """A link opened: everything that was meant for it goes out, in order and as before."""
        link = self.links[index]
        if link.up:
            link.fingerprint = fingerprint
            return
        link.fingerprint, link.up, link.lost = fingerprint, True, False
        self._note(index)
        link.resends += 1
        if link.resends > _MAX_RESENDS:
            self.leave(index)
            self.report(index, f"the link to peer {index} broke more than {_MAX_RESENDS} times")
            return
        self.actions += [self._to_send(index, item) for item in link.outbox]

    def close(self, index: int) -> None:
        """A link is gone; what is sent meanwhile waits."""
        self.links[index].up, self.links[index].lost = False, True
        self._note(index)

    def leave(self, index: int) -> None:
        """A peer left the attempt for good."""
        self.links[index].left = True
        self._note(index)

    def send(self, to: int, message: Message) -> None:
        """Send one message; to this peer itself it is handed over."""
        if to == self._own_index:
            self._own(message)
        elif isinstance(message, Chunk):
            self._put(to, message)
        else:
            self._put(to, Send(to, self.encode(message), type(message) in BULK_TYPES))

    def broadcast(self, message: Message, *, to_self: bool = True) -> bytes:
        """Send to everyone in the roster (the cohort before there is one), this peer included; gives the bytes."""
        raw = self.encode(message)
        self.relay_all(raw, bulk=type(message) in BULK_TYPES)
        if to_self:
            self.on_own(Received(sender=self._own_index, message=message, raw=raw))
        return raw

    def relay(self, to: int, raw: bytes | memoryview, *, bulk: bool) -> None:
        """Pass bytes on unchanged."""
        self._put(to, Send(to, bytes(raw), bulk))

    def relay_all(self, raw: bytes, *, bulk: bool, leave_out: frozenset[int] = frozenset()) -> None:
        """Pass bytes on to the audience."""
        for index in self.links:
            if (self.audience is None or index in self.audience) and index not in leave_out:
                self._put(index, Send(index, raw, bulk))

    def encode(self, message: Message) -> bytes:
        """Bytes of a message of this peer, signed where its type is."""
        return self.codec.encode(self._own_index, message, self._identity)

    def persist(self, entry: str, detail: str) -> None:
        """Have a line written to disk before anything that follows."""
        self.actions.append(Persist(entry, detail))

    def report(self, index: int, reason: str) -> None:
        """Tell the shell of a refused message."""
        self.actions.append(Misbehaviour(index, reason))

    def _note(self, index: int) -> None:
        self.gone = self.gone - {index} if self.links[index].live else self.gone | {index}

    def _own(self, message: Message) -> None:
        self.on_own(Received(sender=self._own_index, message=message, raw=self.encode(message)))

    def _put(self, to: int, item: Chunk | Send) -> None:
        link = self.links[to]
        link.outbox.append(item)
        if link.up:
            self.actions.append(self._to_send(to, item))

    def _to_send(self, to: int, item: Chunk | Send) -> Send:
        return Send(to, self.encode(item), bulk=True) if isinstance(item, Chunk) else item
