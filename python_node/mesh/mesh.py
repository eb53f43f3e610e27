"""Authenticated links to many peers, made through any signaling and kept across rounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol.errors import LimitExceededError, LinkError
from protocol.identity import Identity, PeerId, short
from protocol.link import Limits, MessageKind, NegotiationKind, Payload, ReplayGuard, open_negotiation
from python_node.mesh.config import IceServer, MeshConfig
from python_node.mesh.ice_servers import check_ice_servers
from python_node.mesh.link import Link, LinkCounters
from python_node.mesh.peer import Peer, PeerContext
from python_node.mesh.rtc import Certificate
from python_node.running_clock import RunningClock

__all__ = ["Connected", "Mesh"]

_APPLICATION_KINDS: Final = frozenset({MessageKind.CONTROL, MessageKind.BULK, MessageKind.MODEL})
_MOST_PAST: Final = 1024
"""Peers without a link whose counters are kept apart; ids cost nothing, so what is kept by id has a bound."""


@dataclass(frozen=True, kw_only=True)
class Connected:
    """What `Mesh.connect` came to: the linked peers, and for each other one the last thing that went wrong."""

    linked: frozenset[PeerId]
    failed: dict[PeerId, LinkError] = field(default_factory=dict)


class Mesh:
    """All links of one node. Every method and callback runs on the event loop the mesh was made in.

    Args:
        identity: This node's long-term key.
        send_signal: Brings one signed document to a peer; called as `(to_peer, kind, payload)`.
        on_message: Called for each message as `(peer, kind, payload)`; must not block.
        on_link: Called when a link is up or down as `(peer, up, reason)`; must not block.
        ice_servers: STUN and TURN; none are needed on one machine or a LAN.
        config: Times and bounds.
        may_link: Who may link to this node without being asked; by default everybody signaling lets through.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        send_signal: Callable[[PeerId, NegotiationKind, bytes], Awaitable[None]],
        on_message: Callable[[PeerId, MessageKind, Payload], None],
        on_link: Callable[[PeerId, bool, str], None] | None = None,
        ice_servers: Sequence[IceServer] = (),
        config: MeshConfig | None = None,
        may_link: Callable[[PeerId], bool] | None = None,
    ) -> None:
        self._identity = identity
        check_ice_servers(ice_servers)
        self._config = config or MeshConfig()
        self._may_link = may_link
        self._guard = ReplayGuard()
        self._peers: dict[PeerId, Peer] = {}
        self._past: dict[PeerId, LinkCounters] = {}
        self._forgotten = LinkCounters()
        self._tasks: set[asyncio.Future[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._sequence = 0
        self._closed = False
        self._tick_s = min(self._config.ping_after_s, self._config.gone_after_s, self._config.dead_after_s) / 3
        self.clock = RunningClock(self._loop.time, beat_s=self._tick_s)
        """Read at every tick; attempts at rounds go by it too."""
        self._context = PeerContext(
            identity=identity,
            certificate=Certificate(),
            ice_servers=ice_servers,
            config=self._config,
            clock=self.clock,
            limits=Limits(model_bytes=self._config.model_message_bytes),
            send_signal=send_signal,
            next_sequence=self._next_sequence,
            spawn=self._spawn,
            on_message=on_message,
            on_link=on_link or (lambda _peer, _up, _reason: None),
        )
        self._ticker = self._loop.call_later(self._tick_s, self._tick)

    def __repr__(self) -> str:
        return f"Mesh({short(self._identity.peer_id)}, {len(self.linked)} links)"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of this process's DTLS certificate, 64 lower-case hexadecimal digits."""
        return self._context.certificate.fingerprint

    @property
    def linked(self) -> frozenset[PeerId]:
        """The peers a link is open to."""
        return frozenset(peer_id for peer_id, peer in self._peers.items() if peer.link is not None)

    @property
    def total(self) -> LinkCounters:
        """Traffic with all peers since the mesh was made."""
        all_counters = [self._forgotten, *self._past.values(), *(peer.counters for peer in self._peers.values())]
        return LinkCounters(
            bytes_sent=sum(x.bytes_sent for x in all_counters),
            bytes_received=sum(x.bytes_received for x in all_counters),
            frames_sent=sum(x.frames_sent for x in all_counters),
            frames_received=sum(x.frames_received for x in all_counters),
        )

    def counters(self, peer: PeerId) -> LinkCounters:
        """Traffic with one peer over all its links; live, so copy it to keep it."""
        found = self._peers.get(peer)
        return found.counters if found is not None else self._past.get(peer, LinkCounters())

    def remote_fingerprint(self, peer: PeerId) -> str:
        """SHA-256 of the certificate the open link to `peer` was made with, as DTLS reports it.

        Raises:
            LinkError: there is no link.
        """
        return self._link(peer).view.remote_fingerprint

    def rtt_s(self, peer: PeerId) -> float | None:
        """The last measured round trip in seconds; None while nothing was measured or no link is open."""
        found = self._peers.get(peer)
        return found.link.rtt_s if found is not None and found.link is not None else None

    def set_bulk_limit(self, max_bytes: int) -> None:
        """Accept bulk messages of at most so many bytes on every link; 0, as at first, refuses them."""
        limits = Limits(bulk_bytes=max_bytes, model_bytes=self._config.model_message_bytes)
        self._context.limits = limits
        for peer in self._peers.values():
            peer.set_limits(limits)

    async def connect(self, peers: Iterable[PeerId], *, timeout_s: float) -> Connected:
        """Link to all these peers at once, reusing what is open; they stay wanted until `release` or `close`.

        Raises:
            LinkError: the mesh is closed, or one of the peers is this node.
            LimitExceededError: more peers than `max_links`.
        """
        wanted: list[Peer] = []
        asked = tuple(dict.fromkeys(peers))
        if len(asked) > self._config.max_links:
            raise LimitExceededError(
                f"{len(asked)} peers to be linked, no room for more than {self._config.max_links}"
            )
        for peer_id in asked:
            peer = self._peer(peer_id, asked_here=True)
            self._peers[peer_id] = self._peers.pop(peer_id)  # in order of when they were wanted last
            peer.want()
            wanted.append(peer)
        waiting = [asyncio.ensure_future(peer.linked()) for peer in wanted if peer.link is None]
        if waiting:
            try:
                await asyncio.wait(waiting, timeout=timeout_s)
            finally:
                for task in waiting:
                    task.cancel()
        failed = {p.id: p.error or self._no_answer(p.id, timeout_s) for p in wanted if p.link is None}
        return Connected(linked=frozenset(p.id for p in wanted if p.link is not None), failed=failed)

    async def release(self, peers: Iterable[PeerId], *, reason: str = "no longer needed") -> None:
        """Close the links to these peers and stop wanting them."""
        known = [self._peers[peer] for peer in peers if peer in self._peers]
        await asyncio.gather(*(peer.close(reason) for peer in known))
        self._drop_idle()

    def receive_signal(self, from_peer: PeerId, kind: NegotiationKind, payload: bytes) -> None:
        """Take a document that signaling brought; negotiation goes on in the background.

        Raises:
            ProtocolError: it is forged, changed, replayed, not for this node or not allowed; nothing came of it.
        """
        if self._closed:
            raise LinkError(f"link {kind} from {short(from_peer)}: {self!r} is closed")
        document = open_negotiation(payload, sender=from_peer, receiver=self._identity.peer_id, kind=kind)
        self._guard.admit(document, now_ms=_now_ms())
        known = self._peers.get(from_peer)
        if known is None or not known.wanted:
            if self._may_link is not None and not self._may_link(from_peer):
                raise LinkError(f"link {kind} from {short(from_peer)}: {short(self._identity.peer_id)} refuses links")
            if known is None and kind != "offer":
                raise LinkError(f"link {kind} from {short(from_peer)}: no attempt of {self!r} waits for it")
        self._peer(from_peer).signal(document)

    def undelivered(self, peer: PeerId) -> None:
        """Signaling could not bring a peer what this node sent it: do not wait for an answer."""
        found = self._peers.get(peer)
        if found is not None:
            found.undelivered()

    def signaling_lost(self, peer: PeerId) -> None:
        """Signaling has no session with a peer any more: if it is silent, it is not only slow."""
        found = self._peers.get(peer)
        if found is not None:
            found.signaling_lost()

    def signaling_regained(self, peer: PeerId) -> None:
        """Signaling has a session with a peer after all, or again: if it is silent, it may only be slow."""
        found = self._peers.get(peer)
        if found is not None:
            found.signaling_regained()

    def send(self, peer: PeerId, kind: MessageKind, payload: Payload, *, priority: int | None = None) -> None:
        """Queue one message; the payload must not change until `drain`.

        Control goes before bulk and bulk before model unless `priority` (higher first; 2, 1 and 0 by default) says
        otherwise; within a kind the order holds.

        Raises:
            LinkError: no link is open to the peer, or the kind is the mesh's own.
            LimitExceededError: too much waits for this peer, or a control message is above 64 KiB.
        """
        if kind not in _APPLICATION_KINDS:
            raise LinkError(f"{kind.name} messages are the mesh's own")
        if kind is MessageKind.CONTROL and len(payload) > Limits().of(kind):
            raise LimitExceededError(f"control message of {len(payload)} bytes, limit {Limits().of(kind)}")
        self._link(peer).send(kind, payload, priority=priority)

    async def drain(self, peer: PeerId) -> None:
        """Wait until what was sent to `peer` has left the queue.

        Raises:
            LinkError: there is no link, or it ended before.
        """
        await self._link(peer).drain()

    async def close(self, reason: str = "going") -> None:
        """End every link and attempt, and wait until their transports are closed."""
        self._closed = True
        self._ticker.cancel()
        await asyncio.gather(*(peer.close(reason) for peer in self._peers.values()))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _link(self, peer: PeerId) -> Link:
        found = self._peers.get(peer)
        if found is None or found.link is None:
            because = f": {found.error}" if found is not None and found.error is not None else ""
            raise LinkError(f"no link between {short(self._identity.peer_id)} and {short(peer)}{because}")
        return found.link

    def _peer(self, peer_id: PeerId, *, asked_here: bool = False) -> Peer:
        found = self._peers.get(peer_id)
        if found is not None:
            return found
        if self._closed:
            raise LinkError(f"{self!r} is closed")
        if peer_id == self._identity.peer_id:
            raise LinkError(f"{short(peer_id)} cannot link to itself")
        self._drop_idle()
        if len(self._peers) >= self._config.max_links and asked_here:
            self._make_room(peer_id)
        elif len(self._peers) >= self._config.max_links:
            raise LimitExceededError(f"{len(self._peers)} peers are linked or linking, no room for {short(peer_id)}")
        peer = self._peers[peer_id] = Peer(peer_id, self._context)
        peer.counters = self._past.pop(peer_id, peer.counters)
        return peer

    def _drop_idle(self) -> None:
        for peer_id in [peer_id for peer_id, peer in self._peers.items() if peer.idle]:
            self._past[peer_id] = self._peers.pop(peer_id).counters
        while len(self._past) > _MOST_PAST:
            self._forgotten.add(self._past.pop(next(iter(self._past))))

    def _make_room(self, newcomer: PeerId) -> None:
        """End a link that only the other side wants, or else the one that was wanted here longest ago.

        So peers that fetch models, and cohorts of long ago, keep no round from linking.
        """
        peers = self._peers.values()
        peer = next((peer for peer in peers if not peer.wanted), next(iter(peers)))
        self._past[peer.id] = self._peers.pop(peer.id).counters
        self._spawn(peer.close(f"its place is needed for {short(newcomer)}"))

    def _no_answer(self, peer: PeerId, timeout_s: float) -> LinkError:
        return LinkError(
            f"link between {short(self._identity.peer_id)} and {short(peer)}: none within {timeout_s:g} s"
        )

    def _next_sequence(self) -> int:
        self._sequence = max(self._sequence + 1, _now_ms())
        return self._sequence

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": f"{self!r}: background task failed", "exception": error})

    def _tick(self) -> None:
        now = self.clock.now()
        self._ticker = self._loop.call_later(self._tick_s, self._tick)
        for peer in list(self._peers.values()):
            peer.tick(now)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
