"""DTLS whose datagrams go from the socket to the transport above, and back, without a queue or a task."""

# ruff: noqa: SLF001 (a subclass of a library's transports works on what those keep to themselves)

from __future__ import annotations

from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsParameters, RTCDtlsTransport, State
from OpenSSL import SSL

from python_node.mesh.fast_sctp.packets import run_now
from python_node.mesh.fast_sctp.receiving import FastSctpTransport

__all__ = ["FastDtlsTransport"]

_LEAST: Final = 19
_MOST: Final = 64
"""What begins with a byte between these is a DTLS record (RFC 7983)."""
_HEADER: Final = 13
"""Bytes of a record before its content; the last two are the content's length (RFC 6347 §4.1)."""
_RECORD_BYTES: Final = 1500


class FastDtlsTransport(RTCDtlsTransport):
    """DTLS whose datagrams do not pass through a queue once the session is up."""

    _stopped = False

    async def start(self, remoteParameters: RTCDtlsParameters) -> None:  # noqa: N803 (the library's name)
        """Make the session as the library does, then take datagrams straight from the sockets."""
        await super().start(remoteParameters)
        if self._state is not State.CONNECTED:
            return
        ice = self.transport._connection
        self._ice = ice
        ice.data_received = self._datagram
        for protocol in ice._protocols:
            protocol.datagram_received = _direct(protocol, self._datagram)

    async def stop(self) -> None:
        """End the session as the library does, and send nothing from now on: its state says so some steps later."""
        self._stopped = True
        await super().stop()

    def send_now(self, data: bytes) -> None:
        """Encrypt and send one SCTP packet; where the session or the path is gone, it is lost as any packet may be.

        The session's state tells of its end, once. Timers and tasks of the library still send until that was handled.
        """
        pair = self._ice._nominated.get(1) if self._state is State.CONNECTED and not self._stopped else None
        if pair is None:
            return
        ssl: Any = self._ssl
        ssl.send(data)
        pair.protocol.transport.sendto(ssl.bio_read(_RECORD_BYTES), pair.remote_addr)

    async def _send_data(self, data: bytes) -> None:
        self.send_now(data)

    def _datagram(self, data: bytes, _component: int) -> None:
        """Take a datagram that is no STUN message."""
        if self._state is not State.CONNECTED or self._stopped or not data or not _LEAST < data[0] < _MOST:
            return
        if not self._ice._queue.empty():
            # What came during the handshake still waits for the library's pump: stay behind it.
            self._ice._queue.put_nowait((data, 1))
            return
        ssl: Any = self._ssl
        ssl.bio_write(data)
        size = len(data)
        alone = size <= _RECORD_BYTES and size == _HEADER + int.from_bytes(data[_HEADER - 2 : _HEADER])
        more = self._take_record(ssl)
        while more and not alone:  # what stayed behind of several records in a datagram would stay in memory
            more = self._take_record(ssl)

    def _take_record(self, ssl: Any) -> bool:
        """Take what OpenSSL can decrypt; False where that is nothing, or all that is wanted."""
        try:
            plain = ssl.recv(_RECORD_BYTES)
        except SSL.ZeroReturnError:
            # The other side ended the session: the library's pump wakes up and reports it.
            self._ice._queue.put_nowait(None)
            return False
        except SSL.Error:
            # No application data: a handshake message of before, answered if OpenSSL has an answer, or a forgery.
            if self._ice._nominated:
                run_now(self._write_ssl())
            return False
        receiver = self._data_receiver
        if isinstance(receiver, FastSctpTransport):
            receiver.handle_packet(plain)
        elif receiver is not None:
            run_now(receiver._handle_data(plain))
        return not self._stopped


def _direct(protocol: Any, deliver: Any) -> Any:
    """A `datagram_received` that does not try to read DTLS records as STUN messages first (RFC 7983)."""
    library = type(protocol).datagram_received

    def datagram_received(data: bytes, addr: tuple[Any, ...]) -> None:
        if data and _LEAST < data[0] < _MOST:
            deliver(data, 1)
        else:
            library(protocol, data, addr)

    return datagram_received
