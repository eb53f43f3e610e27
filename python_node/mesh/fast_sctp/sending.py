"""Messages become DATA chunks and leave in bursts; what SACKs say about them (RFC 9260 §6.1, §7.2)."""

# ruff: noqa: SLF001 (a subclass of a library's transports works on what those keep to themselves)

from __future__ import annotations

import struct
from time import time
from typing import Final

from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    USERDATA_MAX_LENGTH,
    WEBRTC_BINARY,
    DataChunk,
    SackChunk,
)

from python_node.mesh.fast_sctp.acknowledging import AcknowledgingTransport
from python_node.mesh.fast_sctp.packets import (
    DATA,
    DATA_HEADER,
    HALF,
    IMMEDIATE,
    PACKET_BYTES,
    PADDING,
    SACK_BYTES,
    SACK_FIELDS,
    TSNS,
    OutgoingChunk,
    PacketError,
    newer,
    run_now,
)

__all__ = ["SendingTransport"]

_GAP: Final = struct.Struct("!HH")
_BURST_BYTES: Final = 32 * USERDATA_MAX_LENGTH
_FIRST_WINDOW_BYTES: Final = 10 * USERDATA_MAX_LENGTH
_WINDOW_BYTES: Final = 1 << 20
"""The congestion window grows no further than this."""
_NEAR_WINDOW_BYTES: Final = 64 << 10
_NEAR_S: Final = 0.01
"""Where a round trip takes less than this, the smaller window is plenty, and fits the kernel's socket buffers."""


class SendingTransport(AcknowledgingTransport):
    """SCTP with a short way for what is acknowledged in order; loss and partial reliability go the library's way."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._cwnd = _FIRST_WINDOW_BYTES
        self._peer_window = _WINDOW_BYTES
        self._flushing = False

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
                    run_now(super()._data_channel_flush())
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
            queue.append(OutgoingChunk(flags, tsn, stream_id, stream_seq, protocol, data[begin:end]))
            tsn = (tsn + 1) % TSNS
        self._local_tsn = tsn
        self._outbound_stream_seq[stream_id] = (stream_seq + 1) & 0xFFFF

    async def _transmit(self) -> None:
        self._transmit_now()

    def _transmit_now(self) -> None:
        if self._may_retransmit or self._forward_tsn_chunk is not None:
            run_now(super()._transmit())
            self._may_retransmit = any(chunk._retransmit for chunk in self._sent_queue)
            return
        queue = self._outbound_queue
        if not queue:
            return
        burst = 2 * USERDATA_MAX_LENGTH if self._fast_recovery_exit is not None else _BURST_BYTES
        window = min(self._flight_size + burst, self._cwnd, self._peer_window)
        now = time()
        while queue and self._flight_size < window:
            chunk = queue.popleft()
            self._sent_queue.append(chunk)
            self._flight_size_increase(chunk)
            chunk._sent_count += 1
            chunk._sent_time = now
            if queue and self._flight_size >= window:
                chunk.flags |= IMMEDIATE
            self._send_data_chunk(chunk)
            if self._t3_handle is None:
                self._t3_start()

    def _send_data_chunk(self, chunk: DataChunk) -> None:
        """Send one DATA chunk, and with it the acknowledgement that is due anyway where both fit."""
        data = chunk.user_data
        size = len(data)
        header = DATA_HEADER.pack(
            DATA, chunk.flags, 16 + size, chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol
        )
        parts = [header, data, PADDING[size % 4]]
        plain_sack = self._unacknowledged and not self._held and not self._sack_duplicates
        if plain_sack and size + 12 + 16 + SACK_BYTES <= PACKET_BYTES - 3:
            parts.insert(0, self._plain_sack())
        self._send_packet(b"".join(parts))

    def _sack_arrived(self, data: bytes, begin: int, end: int) -> None:
        cumulative, window, gaps, _duplicates = SACK_FIELDS.unpack_from(data, begin)
        before = self._last_sacked_tsn
        if (before - cumulative - 1) % TSNS < HALF - 1:
            return  # older than the last
        last = self._sent_queue[-1].tsn if self._sent_queue else before
        outstanding = (last - cumulative) % TSNS
        if outstanding >= HALF:
            raise PacketError(
                f"expected an acknowledgement of TSNs up to {last}, got {cumulative}, which was never sent"
            )
        if gaps:
            _check_gaps(gaps, outstanding, data, begin)
        self._peer_window = max(1, window)  # a window of nothing is asked by one chunk (RFC 9260 §6.1 A)
        if cumulative != before:
            self._expiries = 0
        unusual = gaps or self._may_retransmit or self._fast_recovery_exit is not None or self._forward_tsn_streams
        if unusual:
            self._may_retransmit = True
            run_now(self._receive_sack_chunk(SackChunk(body=data[begin:end])))
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
        while sent and not newer(sent[0].tsn, cumulative):
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


def _check_gaps(count: int, outstanding: int, data: bytes, begin: int) -> None:
    """The library walks through every TSN of every gap block: they must be of what was sent, and each there once."""
    named = 0
    for first, last in _GAP.iter_unpack(data[begin + SACK_FIELDS.size : begin + SACK_FIELDS.size + 4 * count]):
        named += last - first + 1
        if not 0 < first <= last <= outstanding or named > outstanding:
            raise PacketError(f"expected gap blocks within the {outstanding} TSNs outstanding, got {first} to {last}")
