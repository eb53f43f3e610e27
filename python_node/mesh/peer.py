"""Everything about one other peer: the attempt at a link, the link, and the wish to keep one (spec 04 §3).

Perfect negotiation without rollback: the peer with the lower id is the impolite one and offers first; the one with
the higher id is polite, offers after a grace period, and drops its own offer when one comes. An attempt that does not
end in a link is thrown away with its connection, and a link is replaced only after its successor said HELLO, so that
a replayed or broken offer cannot take a good link down.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from protocol.errors import LinkError, ProtocolError
from protocol.identity import PeerId, short
from protocol.link import LinkIdentity, MessageKind, Negotiation, NegotiationKind, Payload, seal_negotiation
from python_node.mesh.link import ByeCode, Link, LinkCounters, LinkEnd, LinkEvents
from python_node.mesh.rtc import Certificate, RtcConnection, RtcEvents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.identity import Identity
    from protocol.link import Limits
    from python_node.mesh.config import IceServer, MeshConfig
    from python_node.running_clock import RunningClock

__all__ = ["Peer", "PeerContext"]

_MAX_OFFERS = 4
"""How often the offer of one attempt is sent: the other side could have it sent without end by offers of its own."""


@dataclass(kw_only=True)
class PeerContext:
    """What all peers of a mesh share."""

    identity: Identity
    certificate: Certificate
    ice_servers: Sequence[IceServer]
    config: MeshConfig
    clock: RunningClock
    limits: Limits
    send_signal: Callable[[PeerId, NegotiationKind, bytes], Awaitable[None]]
    next_sequence: Callable[[], int]
    spawn: Callable[[Awaitable[None]], None]
    on_message: Callable[[PeerId, MessageKind, Payload], None]
    on_link: Callable[[PeerId, bool, str], None]


@dataclass(eq=False)
class _Attempt:
    """One connection on its way to become a link."""

    rtc: RtcConnection
    role: Literal["offerer", "answerer"]
    nonce: str
    settled: asyncio.Future[LinkError | None]
    offer: str = field(default="", repr=False)
    offers: int = 0
    """How often it was sent."""
    remote_nonce: str | None = None
    link: Link | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Peer:
    """The other end of at most one link, seen from this mesh."""

    def __init__(self, peer_id: PeerId, context: PeerContext) -> None:
        self.id = peer_id
        self._context = context
        self._config = context.config
        self._polite = context.identity.peer_id > peer_id
        self._attempt: _Attempt | None = None
        self._order = asyncio.Lock()
        self._waiting_signals = 0
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closing: list[Link] = []
        self.counters = LinkCounters()
        self.error: LinkError | None = None
        self.link: Link | None = None
        self.wanted = False

    def __repr__(self) -> str:
        return f"Peer({short(self.id)}, link={self.link!r})"

    @property
    def idle(self) -> bool:
        """Whether nothing is here, under way or wanted, so that the peer can be forgotten."""
        busy = self.link or self._attempt or self._closing or self._waiting_signals
        return not busy and not self.wanted

    def want(self) -> None:
        """Make a link and keep it: a lost one is made again for `reconnect_for_s`."""
        self.wanted = True
        if self.link is None and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def linked(self) -> None:
        """Wait for a link; returns without one when the mesh has given up."""
        while self.link is None and self._keeper is not None and not self._keeper.done():
            await self._changed.wait()

    def signal(self, document: Negotiation) -> None:
        """Take a verified negotiation document.

        Raises:
            LinkError: too many of this peer wait already.
        """
        if self._waiting_signals >= self._config.max_waiting_signals:
            raise LinkError(f"{self._what(document.kind)}: {self._waiting_signals} documents wait already")
        self._waiting_signals += 1
        self._context.spawn(self._handle(document))

    def undelivered(self) -> None:
        """Signaling could not bring our offer: do not wait for an answer to it."""
        attempt = self._attempt
        if attempt is not None and attempt.remote_nonce is None:
            self._settle(attempt, LinkError(f"{self._what('offer')}: signaling cannot reach the peer now"))

    def tick(self, now: float) -> None:
        """Look after the liveness of what is there."""
        for link in (self.link, self._attempt.link if self._attempt else None):
            if link is not None:
                link.tick(now)

    def signaling_lost(self) -> None:
        """Signaling has no session with the peer any more."""
        for link in (self.link, self._attempt.link if self._attempt else None):
            if link is not None:
                link.signaling_lost()

    def signaling_regained(self) -> None:
        """Signaling has a session with the peer again."""
        for link in (self.link, self._attempt.link if self._attempt else None):
            if link is not None:
                link.signaling_regained()

    def set_limits(self, limits: Limits) -> None:
        """Accept messages up to these sizes from now on."""
        for link in (self.link, self._attempt.link if self._attempt else None):
            if link is not None:
                link.set_limits(limits)

    async def close(self, reason: str) -> None:
        """End everything with this peer and wait until its transports are closed."""
        self.wanted = False
        if self._keeper is not None:
            self._keeper.cancel()
        if self._attempt is not None:
            self._settle(self._attempt, LinkError(f"{self._what('link')}: {reason}"))
        if self.link is not None:
            self.link.close(reason)
        await asyncio.gather(*(link.closed() for link in self._closing))

    # making a link

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._config.reconnect_for_s
        delay = self._config.offer_grace_s if self._polite else 0.0
        failures = 0
        try:
            while self.wanted and self.link is None and loop.time() < give_up:
                if self._attempt is None:
                    await self._pause(delay)
                if self._attempt is None and self.link is None:
                    await self._offer()
                if self._attempt is not None:
                    self.error = await asyncio.shield(self._attempt.settled) or self.error
                failures += 1
                backoff = min(self._config.backoff_max_s, self._config.backoff_first_s * 2.0 ** (failures - 1))
                delay = backoff * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)
            if self.link is None:
                self.wanted = False  # given up until the next `want`: it takes nobody's place meanwhile
        finally:
            self._notify()

    async def _pause(self, delay: float) -> None:
        """Wait; an attempt or a link that shows up meanwhile ends the wait."""
        loop = asyncio.get_running_loop()
        until = loop.time() + delay
        while self._attempt is None and self.link is None and (left := until - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    async def _offer(self) -> None:
        attempt = self._begin("offerer")
        try:
            attempt.offer = await attempt.rtc.create_offer()
            await self._send_offer(attempt)
        except Exception as error:  # noqa: BLE001 (the network or the caller's signaling: this attempt failed)
            self._settle(attempt, LinkError(f"{self._what('offer')}: {error!r}"))

    async def _send_offer(self, attempt: _Attempt) -> None:
        unanswered = attempt is self._attempt and attempt.offer and attempt.remote_nonce is None
        if unanswered and attempt.offers < _MAX_OFFERS:
            attempt.offers += 1
            await self._send("offer", attempt, attempt.offer)

    async def _handle(self, document: Negotiation) -> None:
        try:
            async with self._order:
                if document.kind == "offer":
                    await self._take_offer(document)
                elif document.kind == "answer":
                    await self._take_answer(document)
                else:
                    await self._take_candidate(document)
        finally:
            self._waiting_signals -= 1

    async def _take_offer(self, document: Negotiation) -> None:
        current = self._attempt
        if self.link is not None and document.nonce == self.link.view.remote_nonce:
            return  # It was sent once more, and led to a link already.
        if current is not None:
            if document.nonce == current.remote_nonce:
                return  # It was sent once more, and is being answered.
            if current.role == "offerer" and current.remote_nonce is None and not self._polite:
                # Glare: our offer stands, theirs is dropped by both sides. It is sent once more, since whoever
                # offers may be a new process that took the place of the one our offer went to.
                try:
                    await self._send_offer(current)
                except Exception as error:  # noqa: BLE001 (as in `_offer`)
                    self._settle(current, LinkError(f"{self._what('offer')}: {error!r}"))
                return
            self._settle(current, LinkError(f"{self._what('offer')}: the other side offered anew"))
        attempt = self._begin("answerer")
        attempt.remote_nonce = document.nonce
        try:
            body = await attempt.rtc.accept_offer(document.body)
            if attempt is self._attempt:
                await self._send("answer", attempt, body)
        except Exception as error:  # noqa: BLE001 (as above)
            self._settle(attempt, LinkError(f"{self._what('offer')}: {error!r}"))

    async def _take_answer(self, document: Negotiation) -> None:
        attempt = self._attempt
        if attempt is None or attempt.role != "offerer" or document.reply_to != attempt.nonce or attempt.remote_nonce:
            return  # An answer to an attempt that is over.
        attempt.remote_nonce = document.nonce
        try:
            await attempt.rtc.accept_answer(document.body)
        except LinkError as error:
            self._settle(attempt, LinkError(f"{self._what('answer')}: {error}"))

    async def _take_candidate(self, document: Negotiation) -> None:
        attempt = self._attempt
        if attempt is None or attempt.remote_nonce != document.nonce:
            return  # A candidate for an attempt that is over.
        try:
            await attempt.rtc.add_candidate(document.body)
        except LinkError as error:
            self._settle(attempt, LinkError(f"{self._what('candidate')}: {error}"))

    def _begin(self, role: Literal["offerer", "answerer"]) -> _Attempt:
        loop = asyncio.get_running_loop()
        events = RtcEvents(
            on_open=lambda: self._opened(attempt),
            on_data=lambda frame: attempt.link.receive(frame) if attempt.link else None,
            on_writable=lambda: attempt.link.writable() if attempt.link else None,
            on_closed=lambda reason: self._transport_ended(attempt, reason),
        )
        rtc = RtcConnection(
            self._context.certificate,
            ice_servers=self._context.ice_servers,
            low_bytes=self._config.channel_low_bytes,
            fast=self._config.fast_sctp,
            events=events,
        )
        attempt = _Attempt(rtc, role, secrets.token_hex(16), loop.create_future())
        late = LinkError(f"{self._what('link')}: not made within {self._config.link_timeout_s:g} s")
        attempt.timer = loop.call_later(self._config.link_timeout_s, self._settle, attempt, late)
        self._attempt = attempt
        self._notify()
        return attempt

    async def _send(self, kind: NegotiationKind, attempt: _Attempt, body: str) -> None:
        document = Negotiation(
            kind=kind,
            sender=self._context.identity.peer_id,
            receiver=self.id,
            nonce=attempt.nonce,
            reply_to=attempt.remote_nonce or "",
            sequence=self._context.next_sequence(),
            fingerprint=self._context.certificate.fingerprint,
            body=body,
        )
        await self._context.send_signal(self.id, kind, seal_negotiation(self._context.identity, document))

    # from channel to link

    def _opened(self, attempt: _Attempt) -> None:
        if attempt is not self._attempt or attempt.remote_nonce is None:
            return
        context = self._context
        try:
            view = LinkIdentity(
                local=context.identity.peer_id,
                remote=self.id,
                local_fingerprint=context.certificate.fingerprint,
                remote_fingerprint=attempt.rtc.remote_fingerprint(),
                local_nonce=attempt.nonce,
                remote_nonce=attempt.remote_nonce,
            )
            attempt.link = Link(
                attempt.rtc,
                view,
                context.identity,
                config=self._config,
                clock=context.clock,
                limits=context.limits,
                counters=self.counters,
                events=LinkEvents(
                    on_ready=lambda: self._ready(attempt),
                    on_message=lambda kind, payload: context.on_message(self.id, kind, payload),
                    on_end=lambda end: self._ended(attempt, end),
                ),
            )
        except ProtocolError as error:
            self._settle(attempt, LinkError(f"{self._what('link')}: {error}"))

    def _ready(self, attempt: _Attempt) -> None:
        if self.link is not None:
            self.link.close("replaced by a new link", code=ByeCode.REPLACED)
        self.link = attempt.link
        self._settle(attempt, None)
        self.error = None
        self._context.on_link(self.id, True, "linked")

    def _transport_ended(self, attempt: _Attempt, reason: str) -> None:
        if attempt.link is not None:
            attempt.link.channel_ended(reason)
        else:
            self._settle(attempt, LinkError(f"{self._what('link')}: {reason}"))

    def _ended(self, attempt: _Attempt, end: LinkEnd) -> None:
        link = attempt.link
        if link is None:
            self._settle(attempt, LinkError(f"{self._what('link')}: {end.reason}"))
            return
        self._closing.append(link)
        self._context.spawn(self._forget(link))
        if link is not self.link:
            self._settle(attempt, LinkError(f"{self._what('link')}: {end.reason}"))
            return
        self.link = None
        self.error = LinkError(f"{self._what('link')}: {end.reason}")
        self._notify()
        self._context.on_link(self.id, False, end.reason)
        if self.wanted and end.retry:
            self.want()

    async def _forget(self, link: Link) -> None:
        await link.closed()
        self._closing.remove(link)

    def _settle(self, attempt: _Attempt, error: LinkError | None) -> None:
        if attempt.settled.done():
            return
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.settled.set_result(error)
        if attempt is self._attempt:
            self._attempt = None
        if error is not None:
            self.error = error
            if attempt.link is not None:
                attempt.link.close(str(error), code=ByeCode.REFUSED)
            else:
                self._context.spawn(attempt.rtc.close())
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _what(self, step: str) -> str:
        return f"{step} between {short(self._context.identity.peer_id)} and {short(self.id)}"
