"""Signaling and mesh put together: who may be reached by which way, sealed negotiation, models from other peers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from protocol.errors import LinkError, ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.link import MessageKind, NegotiationKind, Payload
from protocol.sealing import SealingKey, seal
from protocol.signaling import Introduced, Member, PeerBack, PeerGone, Relayed, RoundStart, check_sealing_key, codes
from python_node.mesh import IceServer, Mesh, MeshConfig
from python_node.models import ModelExchange
from python_node.signaling_events import RelayFailed, SessionEvent
from python_node.signaling_link import SignalingSession

__all__ = ["Switchboard"]

_log = structlog.get_logger("node")
_FETCH_SILENCE_S = 10.0
_MAX_ROUTES = 1024


@dataclass(frozen=True)
class _Route:
    """How a peer is reached through signaling: the cohort or introduction that names it, and its sealing key."""

    via: str
    sealing_key: bytes | None


class Switchboard:
    """One session, one mesh, and what goes between them. For one event loop.

    Args:
        session: signaling.
        identity: this peer.
        on_round_message: `(peer, payload, bulk)` for messages of rounds; must not block.
        on_link: `(peer, up, reason)`.
        on_unreachable: a peer signaling cannot reach now.
        lookup: bytes of a model this peer holds, by run, round and digest; called in a thread.
        may_fetch: whether a peer may have models of a run.
        ice_servers: STUN and TURN.
        config: of the mesh.
    """

    def __init__(
        self,
        session: SignalingSession,
        identity: Identity,
        *,
        on_round_message: Callable[[PeerId, Payload, bool], None],
        on_link: Callable[[PeerId, bool, str], None],
        on_unreachable: Callable[[PeerId], None],
        lookup: Callable[[str, int, str], bytes | None],
        may_fetch: Callable[[PeerId, str], bool],
        ice_servers: Sequence[IceServer] = (),
        config: MeshConfig | None = None,
    ) -> None:
        self._session = session
        self._identity = identity
        self._on_round_message = on_round_message
        self._on_link = on_link
        self._on_unreachable = on_unreachable
        self._routes: dict[PeerId, _Route] = {}
        self._sealing = SealingKey(os.urandom(32))
        self.mesh = Mesh(
            identity,
            send_signal=self._send_signal,
            on_message=self._on_message,
            on_link=self._link_changed,
            ice_servers=ice_servers,
            config=config,
            may_link=lambda peer: peer in self._routes,
        )
        self.models = ModelExchange(self.mesh, lookup=lookup, may_fetch=may_fetch)

    @property
    def sealing_key(self) -> bytes:
        """The X25519 key others seal their negotiation to."""
        return self._sealing.public

    def route(self, via: str, members: Iterable[Member]) -> None:
        """These peers may be reached, and may reach this one, by way of a cohort or an introduction.

        Raises:
            SignatureError: a sealing key that its peer did not sign: signaling tries to read along.
        """
        for member in members:
            if member.peer == self._identity.peer_id:
                continue
            if member.sealing_key is not None:
                check_sealing_key(member.peer, member.sealing_key, member.sealing_signature or b"")
            self._routes.pop(PeerId(member.peer), None)
            self._routes[PeerId(member.peer)] = _Route(via, member.sealing_key)
        while len(self._routes) > _MAX_ROUTES:
            del self._routes[next(iter(self._routes))]

    def handle(self, event: SessionEvent) -> None:
        """Take the session's events that concern links; others are ignored."""
        match event:
            case Relayed(sender=sender, kind=kind, payload=payload):
                try:
                    document: tuple[str, bytes] = (kind, payload)
                    if kind == "sealed":
                        document = self._sealing.open(payload, sender=sender, receiver=self._identity.peer_id)
                    self.mesh.receive_signal(PeerId(sender), document[0], document[1])  # type: ignore[arg-type]
                except ProtocolError as error:
                    _log.warning("negotiation refused", peer=short(sender), reason=str(error))
            case Introduced(via=via, peer=member):
                try:
                    self.route(via, [member])
                except ProtocolError as error:
                    _log.warning("introduction refused", peer=short(member.peer), reason=str(error))
            case RelayFailed(to=to, code=code):
                _log.info("relay failed", peer=short(to), code=code)
                self.mesh.undelivered(PeerId(to))
                if code == codes.PEER_OFFLINE:
                    # "not-in-cohort" only says that a newer cohort was named: the peer may be there, and the mesh
                    # tries again by that one.
                    self._on_unreachable(PeerId(to))
            case PeerGone(peer=gone):
                self.mesh.signaling_lost(PeerId(gone))
            case PeerBack(peer=back):
                self.mesh.signaling_regained(PeerId(back))
            case RoundStart(members=members):
                # A cohort is named of peers with sessions; who came back between two cohorts has no other notice.
                for member in members:
                    self.mesh.signaling_regained(PeerId(member.peer))
            case _:
                pass

    async def fetch_model(
        self,
        run: str,
        *,
        total: int,
        past: tuple[int, str] | None = None,
        timeout_s: float = 30.0,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> tuple[int, str, bytes]:
        """The run's current model from any peer that holds it: logged rounds, digest, bytes checked against it.

        `past` asks for the model of an earlier round and its digest instead; peers keep a few.

        Raises:
            LinkError: nobody online holds it, or every holder failed; the reasons are in the message.
            SignalingSessionError: signaling refused or is down.
        """
        introduction = await self._session.introduce(run)
        self.route(introduction.via, introduction.holders)
        holders = [PeerId(member.peer) for member in introduction.holders if member.peer != self._identity.peer_id]
        number, digest = past or (introduction.round, introduction.model_digest)
        linked = self.mesh.linked
        holders.sort(key=lambda peer: (peer not in linked, random.random()))  # noqa: S311 (spreads load, no secret)
        failures = []
        for holder in holders:
            try:
                connected = await self.mesh.connect([holder], timeout_s=timeout_s)
                if holder in connected.failed:
                    raise connected.failed[holder]
                data = await self.models.fetch(
                    holder,
                    run=run,
                    round_number=number,
                    digest=digest,
                    total=total,
                    timeout_s=_FETCH_SILENCE_S,
                    progress=progress,
                )
            except LinkError as error:
                failures.append(f"{short(holder)}: {error}")
                continue
            return number, digest, data
        reasons = "; ".join(failures) or "no peer that holds it is online"
        raise LinkError(f"run {short(run)}: no model of round {number} to be had ({reasons})")

    async def close(self) -> None:
        """End links and transfers."""
        await self.models.close()
        await self.mesh.close()

    async def _send_signal(self, peer: PeerId, kind: NegotiationKind, payload: bytes) -> None:
        route = self._routes.get(peer)
        if route is None:
            self._on_unreachable(peer)
            return
        if route.sealing_key is None:
            self._session.relay(peer, route.via, kind, payload)
            return
        box = seal(
            route.sealing_key,
            kind,
            payload,
            sender=self._identity.peer_id,
            receiver=peer,
            randomness=os.urandom(32),
        )
        self._session.relay(peer, route.via, "sealed", box)

    def _on_message(self, peer: PeerId, kind: MessageKind, payload: Payload) -> None:
        if kind is not MessageKind.MODEL:
            self._on_round_message(peer, payload, kind is MessageKind.BULK)
            return
        try:
            self.models.receive(peer, payload)
        except ProtocolError as error:
            _log.warning("model message refused", peer=short(peer), reason=str(error))

    def _link_changed(self, peer: PeerId, up: bool, reason: str) -> None:  # noqa: FBT001 (the mesh's callback)
        _log.info("link up" if up else "link down", peer=short(peer), reason=reason)
        if not up:
            self.models.link_down(peer, reason)
        self._on_link(peer, up, reason)
