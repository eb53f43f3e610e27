"""Faster SCTP and DTLS transports for known versions of aiortc (docs/transport.md, spec 04 §7).

aiortc awaits once per packet, acknowledges each packet with a packet, walks its queues per packet and makes a timer
per acknowledgement. The subclasses here keep its state and its code for everything unusual (set-up, loss, reordering,
resets, timeouts) and take over the common path alone: data that arrives in order and is acknowledged in order.

- A datagram goes from the socket through DTLS to the data channel's handler in one call, without a queue or a task.
- Data is acknowledged every second packet (every fourth for a sender that marks the packets it waits for, RFC 7053),
  after 20 ms, or inside the next packet that carries data the other way (RFC 9260 §6.2, §6.10).
- Without loss up to 32 packets leave in one burst, and the window starts at ten (RFC 6928).
- The retransmission timer's deadline moves; the timer is not made anew. Its time doubles when it is over (§6.3.3),
  which the library leaves out.

aiortc's own coroutines never suspend after the DTLS handshake, since sending a datagram does not wait: `_run_now`
runs them to their end in place. If a version is not a known one, or the setting is off, the library's classes serve.
"""

# ruff: noqa: SLF001 (a subclass of a library's transports works on what those keep to themselves)

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from time import time
from typing import Any, Final

import aiortc.rtcpeerconnection as _connection_module
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcdtlstransport import RTCDtlsParameters, RTCDtlsTransport, State
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    SCTP_RTO_MAX,
    USERDATA_MAX_LENGTH,
    WEBRTC_BINARY,
    Chunk,
    DataChunk,
    InitChunk,
    RTCSctpTransport,
    SackChunk,
)
from google_crc32c import value as crc32c
from OpenSSL import SSL

__all__ = ["FastDtlsTransport", "FastSctpTransport", "installed", "is_known_version"]

_KNOWN: Final = {"aiortc": "1.16.", "aioice": "0.13."}
_TSNS: Final = 1 << 32
_HALF: Final = 1 << 31
_DATA: Final = 0
_SACK: Final = 3
_IMMEDIATE: Final = 0x08
"""DATA flag of RFC 7053: the sender waits for the acknowledgement."""
_PACKET_BYTES: Final = 1189
_SACK_BYTES: Final = 16
_SACK_DELAY_S: Final = 0.02
_BURST_BYTES: Final = 32 * USERDATA_MAX_LENGTH
_FIRST_WINDOW_BYTES: Final = 10 * USERDATA_MAX_LENGTH
_WINDOW_BYTES: Final = 1 << 20
"""The congestion window grows no further than this."""
_NEAR_WINDOW_BYTES: Final = 64 << 10
_NEAR_S: Final = 0.01
"""Where a round trip takes less than this, the smaller window is plenty, and fits the kernel's socket buffers."""

_RTO_FIRST_S: Final = 1.0
"""Retransmission timeout before anything was measured (RFC 9260 §16; the library takes 3 s)."""
_RTO_MIN_S: Final = 0.3
"""Never less than this; the library takes 1 s, TCP 0.2 s. Acknowledgements are late by 20 ms at most."""
_RTO_DOUBLED_S: Final = 2.0
"""Doubling ends here: a path that was away for some seconds is tried again before its link is dead (ADR 8)."""

_COMMON: Final = struct.Struct("!HHL")
_CHECKSUM: Final = struct.Struct("<L")
_CHUNK: Final = struct.Struct("!BBH")
_DATA_HEADER: Final = struct.Struct("!BBHLHHL")
_DATA_FIELDS: Final = struct.Struct("!LHHL")
_SACK_HEADER: Final = struct.Struct("!BBHLLHH")
_SACK_FIELDS: Final = struct.Struct("!LLHH")
_NO_CHECKSUM: Final = b"\0\0\0\0"
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


def is_known_version() -> bool:
    """Whether the installed aiortc and aioice are those these transports were written against."""
    return all(version(name).startswith(prefix) for name, prefix in _KNOWN.items())


@contextmanager
def installed(*, enabled: bool) -> Iterator[bool]:
    """Let connections made inside use the faster transports; yields whether they do."""
    if not enabled or not is_known_version():
        yield False
        return
    names = vars(_connection_module)
    before = {name: names[name] for name in ("RTCDtlsTransport", "RTCSctpTransport")}
    names.update(RTCDtlsTransport=FastDtlsTransport, RTCSctpTransport=FastSctpTransport)
    try:
        yield True
    finally:
        names.update(before)


def _run_now(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not suspend."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("a coroutine of aiortc waited where it never did: the version is not a known one")


def _newer(a: int, b: int) -> bool:
    """Whether TSN `a` is after `b` (RFC 1982 arithmetic)."""
    return 0 < (a - b) % _TSNS < _HALF


class _OutgoingChunk(DataChunk):
    """A DATA chunk to send; the book-keeping starts as class attributes, so that making one is cheap."""

    _abandoned = False
    _acked = False
    _expiry = None
    _in_flight = False
    _max_retransmits = None
    _misses = 0
    _retransmit = False
    _sent_count = 0
    _sent_time = None

    def __init__(
        self, flags: int, tsn: int, stream_id: int, stream_seq: int, protocol: int, user_data: bytes
    ) -> None:
        self.flags = flags
        self.tsn = tsn
        self.stream_id = stream_id
        self.stream_seq = stream_seq
        self.protocol = protocol
        self.user_data = user_data
        self._book_size = len(user_data)


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
        pair.protocol.transport.sendto(ssl.bio_read(1500), pair.remote_addr)

    async def _send_data(self, data: bytes) -> None:
        self.send_now(data)

    def _datagram(self, data: bytes, _component: int) -> None:
        """Take a datagram that is no STUN message."""
        if self._state is not State.CONNECTED or not 19 < data[0] < 64:
            return
        if not self._ice._queue.empty():
            # What came during the handshake still waits for the library's pump: stay behind it.
            self._ice._queue.put_nowait((data, 1))
            return
        ssl: Any = self._ssl
        try:
            ssl.bio_write(data)
            plain = ssl.recv(1500)
        except SSL.ZeroReturnError:
            # The other side ended the session: the library's pump wakes up and reports it.
            self._ice._queue.put_nowait(None)
            return
        except SSL.Error:
            # No application data: a handshake message of before, answered if OpenSSL has an answer, or a forgery.
            _run_now(self._write_ssl())
            return
        receiver = self._data_receiver
        if receiver is None:
            return
        if isinstance(receiver, FastSctpTransport):
            receiver.handle_packet(plain)
        else:
            _run_now(receiver._handle_data(plain))


def _direct(protocol: Any, deliver: Any) -> Any:
    """A `datagram_received` that does not try to read DTLS records as STUN messages first (RFC 7983)."""
    library = type(protocol).datagram_received

    def datagram_received(data: bytes, addr: tuple[Any, ...]) -> None:
        if data and 19 < data[0] < 64:
            deliver(data, 1)
        else:
            library(protocol, data, addr)

    return datagram_received


class FastSctpTransport(RTCSctpTransport):
    """SCTP with a short way for data in order; every other packet goes the library's way."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._cwnd = _FIRST_WINDOW_BYTES
        self._rto = _RTO_FIRST_S
        self._ack_every = 2
        self._unacknowledged = 0
        self._sack_timer: Any = None
        self._t3_timer: Any = None
        self._t3_deadline = self._t3_timer_at = 0.0
        self._may_retransmit = False
        self._flushing = False

    # receiving

    def handle_packet(self, data: bytes) -> None:
        """Take one SCTP packet; only packets of DATA and SACK chunks go the short way."""
        chunks = _split_packet(data)
        if chunks is None or self._last_received_tsn is None:
            _run_now(self._handle_data(data))
            return
        tag, parts = chunks
        if tag != self._local_verification_tag:
            return
        for kind, flags, begin, end in parts:
            if kind == _DATA:
                self._data_arrived(flags, data, begin, end)
            else:
                self._sack_arrived(data, begin, end)
        if self._sack_needed or self._unacknowledged >= self._ack_every:
            _run_now(self._send_sack())
        elif self._unacknowledged and self._sack_timer is None:
            self._sack_timer = self._loop.call_later(_SACK_DELAY_S, self._sack_due)
        if self._advertised_rwnd < 0:
            # More unfinished messages than we ever offered to hold: this is no honest sender.
            _run_now(self._abort())
            self._set_state(self.State.CLOSED)

    async def _receive_chunk(self, chunk: Chunk) -> None:
        """Both sides send INIT: one that comes late must not turn the reception back to its beginning.

        The library does so and would take data twice (RFC 9260 §5.2.2: such an INIT changes nothing).
        """
        if not isinstance(chunk, InitChunk):
            await super()._receive_chunk(chunk)
        elif self._association_state is not self.State.ESTABLISHED:
            tag, last, reset = self._remote_verification_tag, self._last_received_tsn, self._reconfig_response_seq
            await super()._receive_chunk(chunk)
            if last is not None and chunk.initiate_tag == tag:
                self._last_received_tsn, self._reconfig_response_seq = last, reset

    def _data_arrived(self, flags: int, data: bytes, begin: int, end: int) -> None:
        tsn, stream_id, stream_seq, protocol = _DATA_FIELDS.unpack_from(data, begin)
        last: int = self._last_received_tsn or 0
        if tsn != (last + 1) % _TSNS or self._sack_misordered:
            _run_now(self._receive_data_chunk(DataChunk(flags=flags, body=data[begin:end])))
            return
        self._last_received_tsn = tsn
        self._unacknowledged += 1
        if flags & _IMMEDIATE:
            self._ack_every = 4
            self._sack_needed = True
        stream = self._get_inbound_stream(stream_id)
        whole = flags & (SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG | SCTP_DATA_UNORDERED) == 3
        if whole and not stream.reassembly and stream_seq == stream.sequence_number:
            stream.sequence_number = (stream_seq + 1) & 0xFFFF
            self._deliver(stream_id, protocol, data[begin + 12 : end])
        else:
            chunk = DataChunk(flags=flags, body=data[begin:end])
            stream.add_chunk(chunk)
            self._advertised_rwnd -= len(chunk.user_data)
            # In order, a message is complete exactly when its last fragment comes: only then is it worth a look.
            if flags & (SCTP_DATA_LAST_FRAG | SCTP_DATA_UNORDERED):
                for message in stream.pop_messages():
                    self._advertised_rwnd += len(message[2])
                    self._deliver(*message)
        if self._reconfig_deferred is not None:
            _run_now(self._reset_deferred_streams())

    def _deliver(self, stream_id: int, protocol: int, user_data: bytes) -> None:
        channel = self._data_channels.get(stream_id)
        if protocol == WEBRTC_BINARY and channel is not None:
            channel.emit("message", user_data)
        else:
            _run_now(self._receive(stream_id, protocol, user_data))

    def _sack_arrived(self, data: bytes, begin: int, end: int) -> None:
        cumulative, _rwnd, gaps, _duplicates = _SACK_FIELDS.unpack_from(data, begin)
        unusual = gaps or self._may_retransmit or self._fast_recovery_exit is not None or self._forward_tsn_streams
        if unusual:
            self._may_retransmit = True
            _run_now(self._receive_sack_chunk(SackChunk(body=data[begin:end])))
            return
        if _newer(self._last_sacked_tsn, cumulative):
            return
        self._last_sacked_tsn = self._advanced_peer_ack_tsn = cumulative
        full = self._flight_size >= self._cwnd
        acknowledged = self._pop_acknowledged(cumulative)
        if acknowledged and full:
            self._grow_window(acknowledged)
        if not self._sent_queue:
            self._t3_cancel()
        elif acknowledged:
            self._t3_restart()
        self._flush_now()
        self._transmit_now()

    def _pop_acknowledged(self, cumulative: int) -> int:
        sent = self._sent_queue
        count = total = 0
        while sent and not _newer(sent[0].tsn, cumulative):
            chunk = sent.popleft()
            count += 1
            if not chunk._acked:
                total += chunk._book_size
            if chunk._in_flight:
                chunk._in_flight = False
                self._flight_size -= chunk._book_size
            if count == 1 and chunk._sent_count == 1 and chunk._sent_time is not None:
                self._update_rto(time() - chunk._sent_time)
        return total

    def _update_rto(self, R: float) -> None:  # noqa: N803 (the library's name)
        super()._update_rto(R)
        self._rto = min(max(_RTO_MIN_S, (self._srtt or R) + 4 * (self._rttvar or 0.0)), SCTP_RTO_MAX)

    def _grow_window(self, acknowledged: int) -> None:
        """Slow start counts bytes, since one SACK stands for several packets (RFC 3465, L = 4)."""
        near = self._srtt is not None and self._srtt < _NEAR_S
        if self._cwnd >= (_NEAR_WINDOW_BYTES if near else _WINDOW_BYTES):
            return
        if self._cwnd <= self._ssthresh:
            self._cwnd += min(acknowledged, 4 * USERDATA_MAX_LENGTH)
            return
        self._partial_bytes_acked += acknowledged
        if self._partial_bytes_acked >= self._cwnd:
            self._partial_bytes_acked -= self._cwnd
            self._cwnd += USERDATA_MAX_LENGTH

    # sending

    def _data_channel_send(self, channel: RTCDataChannel, data: bytes | str) -> None:
        partial = channel.maxRetransmits is not None or channel.maxPacketLifeTime is not None
        if not isinstance(data, bytes) or not data or partial or not channel.ordered or channel.id is None:
            super()._data_channel_send(channel, data)
            return
        limit = self._remote_max_message_size
        if limit and len(data) > limit:
            raise ValueError(f"cannot send {len(data)} bytes, the other side accepts {limit}")
        channel._addBufferedAmount(len(data))
        self._data_channel_queue.append((channel, WEBRTC_BINARY, data))
        self._flush_now()

    async def _data_channel_flush(self) -> None:
        self._flush_now()
        if self._reconfig_queue:
            await self._transmit_reconfig()

    def _flush_now(self) -> None:
        """Cut queued messages into chunks while nothing older waits. A handler that sends more is served in turn."""
        if self._flushing or self._association_state is not self.State.ESTABLISHED:
            return
        self._flushing = True
        try:
            while self._data_channel_queue and not self._outbound_queue:
                channel, protocol, data = self._data_channel_queue[0]
                if protocol != WEBRTC_BINARY or channel.id is None or not channel.ordered:
                    _run_now(super()._data_channel_flush())
                    continue
                self._data_channel_queue.popleft()
                self._enqueue_chunks(channel.id, protocol, data)
                self._transmit_now()
                channel._addBufferedAmount(-len(data))
        finally:
            self._flushing = False

    def _enqueue_chunks(self, stream_id: int, protocol: int, data: bytes) -> None:
        stream_seq = self._outbound_stream_seq.get(stream_id, 0)
        tsn = self._local_tsn
        size = len(data)
        queue = self._outbound_queue
        for begin in range(0, size, USERDATA_MAX_LENGTH):
            end = begin + USERDATA_MAX_LENGTH
            flags = (SCTP_DATA_FIRST_FRAG if not begin else 0) | (SCTP_DATA_LAST_FRAG if end >= size else 0)
            queue.append(_OutgoingChunk(flags, tsn, stream_id, stream_seq, protocol, data[begin:end]))
            tsn = (tsn + 1) % _TSNS
        self._local_tsn = tsn
        self._outbound_stream_seq[stream_id] = (stream_seq + 1) & 0xFFFF

    async def _transmit(self) -> None:
        self._transmit_now()

    def _transmit_now(self) -> None:
        if self._may_retransmit or self._forward_tsn_chunk is not None:
            _run_now(super()._transmit())
            self._may_retransmit = any(chunk._retransmit for chunk in self._sent_queue)
            return
        queue = self._outbound_queue
        if not queue:
            return
        burst = 2 * USERDATA_MAX_LENGTH if self._fast_recovery_exit is not None else _BURST_BYTES
        window = min(self._flight_size + burst, self._cwnd)
        now = time()
        while queue and self._flight_size < window:
            chunk = queue.popleft()
            self._sent_queue.append(chunk)
            self._flight_size_increase(chunk)
            chunk._sent_count += 1
            chunk._sent_time = now
            if queue and self._flight_size >= window:
                chunk.flags |= _IMMEDIATE
            self._send_data_chunk(chunk)
            if self._t3_handle is None:
                self._t3_start()

    def _send_data_chunk(self, chunk: DataChunk) -> None:
        """Send one DATA chunk, and with it the acknowledgement that is due anyway where both fit."""
        data = chunk.user_data
        size = len(data)
        header = _DATA_HEADER.pack(
            _DATA, chunk.flags, 16 + size, chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol
        )
        parts = [header, data, _PADDING[size % 4]]
        plain_sack = self._unacknowledged and not self._sack_misordered and not self._sack_duplicates
        if plain_sack and size + 12 + 16 + _SACK_BYTES <= _PACKET_BYTES - 3:
            parts.insert(0, self._plain_sack())
        self._send_packet(b"".join(parts))

    def _send_packet(self, chunks: bytes) -> None:
        common = _COMMON.pack(self._local_port, self._remote_port, self._remote_verification_tag)
        checksum = _CHECKSUM.pack(crc32c(common + _NO_CHECKSUM + chunks))
        transport: Any = self.transport
        transport.send_now(common + checksum + chunks)

    def _plain_sack(self) -> bytes:
        self._unacknowledged = 0
        self._sack_needed = False
        window = max(0, self._advertised_rwnd)
        return _SACK_HEADER.pack(_SACK, 0, _SACK_BYTES, self._last_received_tsn, window, 0, 0)

    async def _send_sack(self) -> None:
        if self._sack_misordered or self._sack_duplicates:
            await super()._send_sack()
            self._unacknowledged = 0
        else:
            self._send_packet(self._plain_sack())

    def _sack_due(self) -> None:
        self._sack_timer = None
        if self._unacknowledged and self._association_state is self.State.ESTABLISHED:
            _run_now(self._send_sack())

    # timers

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if state is self.State.CLOSED:
            for timer in (self._sack_timer, self._t3_timer):
                if timer is not None:
                    timer.cancel()
            self._sack_timer = self._t3_timer = None

    def _t3_start(self) -> None:
        """`_t3_handle` says whether T3 runs; the timer behind it may be older than its deadline."""
        self._t3_deadline = self._loop.time() + self._rto
        if self._t3_timer is not None and self._t3_timer_at > self._t3_deadline:
            self._t3_timer.cancel()
            self._t3_timer = None
        if self._t3_timer is None:
            self._t3_arm(self._rto)
        self._t3_handle = self._t3_timer

    def _t3_arm(self, delay_s: float) -> None:
        self._t3_timer_at = self._loop.time() + delay_s
        self._t3_timer = self._loop.call_later(delay_s, self._t3_fired)

    def _t3_restart(self) -> None:
        self._t3_start()

    def _t3_cancel(self) -> None:
        self._t3_handle = None

    def _t3_fired(self) -> None:
        self._t3_timer = None
        if self._t3_handle is None:
            return
        left = self._t3_deadline - self._loop.time()
        if left > 0:
            self._t3_arm(left)
            self._t3_handle = self._t3_timer
            return
        self._may_retransmit = True
        self._rto = max(
            self._rto, min(2 * self._rto, _RTO_DOUBLED_S)
        )  # RFC 9260 §6.3.3 E2; until the next measurement
        self._t3_expired()


def _split_packet(data: bytes) -> tuple[int, list[tuple[int, int, int, int]]] | None:
    """Verification tag and (type, flags, begin, end of the fields) per chunk; None unless all is DATA and SACK.

    None also for what is malformed: the library's parser then says so.
    """
    length = len(data)
    if length < 16:  # common header and one chunk header
        return None
    if _CHECKSUM.unpack_from(data, 8)[0] != crc32c(data[:8] + _NO_CHECKSUM + data[12:]):
        return None
    parts: list[tuple[int, int, int, int]] = []
    at = 12
    while at <= length - 4:
        kind, flags, size = _CHUNK.unpack_from(data, at)
        end = at + size
        if end > length or not _well_formed(kind, size, data, at):
            return None
        parts.append((kind, flags, at + 4, end))
        at = end + (-size % 4)
    return _COMMON.unpack_from(data)[2], parts


def _well_formed(kind: int, size: int, data: bytes, at: int) -> bool:
    if kind == _DATA:
        return size > 16  # its header and at least one byte
    if kind == _SACK and size >= _SACK_BYTES:
        _, _, gaps, duplicates = _SACK_FIELDS.unpack_from(data, at + 4)
        return bool(_SACK_BYTES + 4 * (gaps + duplicates) == size)
    return False
