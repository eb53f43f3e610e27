"""The one file that knows aiortc: a peer connection with one data channel, in the words the mesh uses.

The channel is negotiated out of band (id 0, label "peerplan/1", ordered, reliable), so it opens with the SCTP
association and needs no message of its own. aiortc knows neither rollback nor ICE restart: a connection is used for
one attempt, and the mesh makes a fresh one instead.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import aioice.ice
import aioice.stun
import structlog
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import RTCCertificate
from aiortc.sdp import candidate_from_sdp
from cryptography.hazmat.primitives.hashes import SHA256

from protocol.errors import LinkError
from protocol.link import only_sha256
from python_node.mesh import fast_sctp
from python_node.mesh.config import IceServer

__all__ = ["CHANNEL_ID", "CHANNEL_LABEL", "Certificate", "RtcConnection", "RtcEvents"]

CHANNEL_LABEL: Final = "peerplan/1"
CHANNEL_ID: Final = 0
_CONNECT_ERRORS: Final = (ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError)
"""What aiortc raises on a session description it cannot use; it has no error of its own for that."""

_LEAVE_S: Final = 3.0
"""What is left of a connection after that is its place at a TURN server, which ends by itself."""
_ANSWER_S: Final = 4.5
"""The library waits for 5 s and then cancels the question."""
_log = structlog.get_logger("mesh")

_library_host_addresses = aioice.ice.get_host_addresses


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:  # noqa: FBT001 (the library's signature)
    """Addresses to gather candidates from: loopback where there is nothing else, so that one machine is enough."""
    found: list[str] = _library_host_addresses(use_ipv4, use_ipv6)
    return found or ["127.0.0.1"]


aioice.ice.get_host_addresses = _host_addresses

_library_parse_message = aioice.stun.parse_message


def _parse_message(data: bytes) -> aioice.stun.Message:
    """A STUN message. Anybody can send a malformed one; the library expects a ValueError of all that are none."""
    try:
        return _library_parse_message(data)
    except struct.error as error:
        raise ValueError(f"no whole STUN message: {error}") from None


aioice.stun.parse_message = _parse_message

_library_relayed_candidate = aioice.ice.relayed_candidate


async def _relayed_candidate(*, turn_server: tuple[str, int], **options: Any) -> Any:
    """Ask a TURN server for a relay. The library goes on without one and tells nobody why."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        return await _library_relayed_candidate(turn_server=turn_server, **options)
    except asyncio.CancelledError:
        if loop.time() - began > _ANSWER_S:
            _tell_of_relay(turn_server, f"no answer within {loop.time() - began:.0f} s")
        raise
    except Exception as error:
        _tell_of_relay(turn_server, str(error) or type(error).__name__)
        raise


@cache
def _tell_of_relay(server: tuple[str, int], reason: str) -> None:
    """Once per process: each attempt at a link asks again."""
    _log.warning("turn server gives no relay", server=f"{server[0]}:{server[1]}", reason=reason)


aioice.ice.relayed_candidate = _relayed_candidate


class Certificate:
    """The DTLS certificate of this process (EC P-256, self-signed, thirty days)."""

    def __init__(self) -> None:
        self.rtc = RTCCertificate.generateCertificate()
        self.fingerprint: str = self.rtc._cert.fingerprint(SHA256()).hex()  # noqa: SLF001
        """SHA-256 of the DER certificate, 64 lower-case hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class RtcEvents:
    """What a connection reports; every call comes from the event loop."""

    on_open: Callable[[], None]
    on_data: Callable[[bytes], None]
    on_writable: Callable[[], None]
    on_closed: Callable[[str], None]


class RtcConnection:
    """One attempt at a peer connection, and the data channel it ends in."""

    def __init__(
        self,
        certificate: Certificate,
        *,
        ice_servers: Sequence[IceServer],
        low_bytes: int,
        fast: bool,
        events: RtcEvents,
    ) -> None:
        servers = [
            RTCIceServer(urls=list(server.urls), username=server.username, credential=server.credential)
            for server in ice_servers
        ]
        with fast_sctp.installed(enabled=fast):
            self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
            # One certificate for all links of a process: the fingerprint is signed into each round's advert.
            setattr(self._pc, "_RTCPeerConnection__certificates", [certificate.rtc])  # noqa: B010 (mypy: a private name)
            self._channel = self._pc.createDataChannel(CHANNEL_LABEL, negotiated=True, id=CHANNEL_ID)
        self._events = events
        self._closing: asyncio.Task[None] | None = None
        self._resolving: set[asyncio.Task[None]] = set()
        self._over = False
        self._channel.bufferedAmountLowThreshold = low_bytes
        self._channel.on("open", events.on_open)
        self._channel.on("message", self._received)
        self._channel.on("bufferedamountlow", events.on_writable)
        self._channel.on("close", self._channel_closed)
        self._pc.on("connectionstatechange", self._state_changed)

    async def create_offer(self) -> str:
        """Gather candidates and give the offer."""
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return only_sha256(self._pc.localDescription.sdp)

    async def accept_offer(self, sdp: str) -> str:
        """Take the other side's offer and give the answer.

        Raises:
            LinkError: the description cannot be used.
        """
        await self._set_remote("offer", sdp)
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        return only_sha256(self._pc.localDescription.sdp)

    async def accept_answer(self, sdp: str) -> None:
        """Take the other side's answer to one's offer.

        Raises:
            LinkError: the description cannot be used.
        """
        await self._set_remote("answer", sdp)

    async def add_candidate(self, line: str) -> None:
        """Take one more candidate of the other side ("candidate:..."); "" says there are no more.

        Raises:
            LinkError: the line is no candidate.
        """
        if not line:
            await self._pc.addIceCandidate(None)
            return
        try:
            candidate = candidate_from_sdp(line.removeprefix("candidate:"))
            candidate.sdpMLineIndex = 0
            await self._pc.addIceCandidate(candidate)
        except _CONNECT_ERRORS as error:
            raise LinkError(f"candidate {line[:80]!r} cannot be used: {error}") from None

    def remote_fingerprint(self) -> str:
        """SHA-256 of the certificate the DTLS session was made with, as the transport reports it.

        Raises:
            LinkError: there is no DTLS session.
        """
        session = self._channel.transport.transport._ssl  # noqa: SLF001
        certificate = session.get_peer_certificate(as_cryptography=True) if session else None
        if certificate is None:
            raise LinkError("the DTLS session reports no certificate of the other side")
        return str(certificate.fingerprint(SHA256()).hex())

    @property
    def max_message_bytes(self) -> int:
        """The largest message the other side accepts; 0 in its description means any size."""
        announced: int = self._channel.transport._remote_max_message_size  # noqa: SLF001
        return announced or 1 << 30

    @property
    def buffered_bytes(self) -> int:
        """Bytes handed to the channel and not yet to its transport."""
        return int(self._channel.bufferedAmount)

    @property
    def usable(self) -> bool:
        """Whether the channel is open."""
        return not self._over and self._channel.readyState == "open"

    def send(self, frame: bytes) -> None:
        """Send one message on the open channel."""
        self._channel.send(frame)

    def close(self) -> asyncio.Task[None]:
        """Close everything; the task ends when it is done. Nothing is reported afterwards."""
        self._over = True
        if self._closing is None:
            for task in self._resolving:
                task.cancel()
            self._closing = asyncio.get_running_loop().create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        """Take leave of a TURN server too, but of one that does not answer not for the minute the library would."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self._pc.close()

    async def _set_remote(self, kind: str, sdp: str) -> None:
        direct, named, complete = _split_candidates(sdp)
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=direct, type=kind))
        except _CONNECT_ERRORS as error:
            raise LinkError(f"the {kind} cannot be used: {error}") from None
        if named:
            # Names ending in ".local" are looked up beside the connection set-up, never before it.
            task = asyncio.get_running_loop().create_task(self._add_named(named, complete=complete))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _add_named(self, lines: list[str], *, complete: bool) -> None:
        try:
            await asyncio.gather(*(self.add_candidate(line) for line in lines))
            if complete:
                await self.add_candidate("")
        except (LinkError, OSError):
            # No multicast here: the other side's checks still reach us, or its other candidates do.
            return

    def _received(self, data: bytes | str) -> None:
        if self._over:
            return
        if isinstance(data, str):
            self._ended("text came on a binary channel")
            return
        self._events.on_data(data)

    def _channel_closed(self) -> None:
        self._ended(getattr(self._channel.transport, "refusal", "") or "the data channel was closed")

    def _state_changed(self) -> None:
        if self._pc.connectionState in {"failed", "closed"}:
            self._ended(f"the connection is {self._pc.connectionState}")

    def _ended(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._events.on_closed(reason)


def _split_candidates(sdp: str) -> tuple[str, list[str], bool]:
    """Take candidates with ".local" names out of a description: (rest, their lines, were all candidates given)."""
    kept: list[str] = []
    named: list[str] = []
    lines = sdp.splitlines(keepends=True)
    for line in lines:
        if line.startswith("a=candidate:") and ".local " in line:
            named.append(line.strip().removeprefix("a="))
        else:
            kept.append(line)
    if not named:
        return sdp, named, True
    end = [line for line in kept if line.startswith("a=end-of-candidates")]
    return "".join(line for line in kept if line not in end), named, bool(end)
