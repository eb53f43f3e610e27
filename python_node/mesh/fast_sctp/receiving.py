"""Packets that come: data becomes messages in the order of its TSNs; set-up and resets go the library's way.

There is one channel, ordered and reliable, and the TSNs of a message's fragments follow each other (RFC 9260 §6.9).
So one message is unfinished at a time. What comes before something that is missing waits by its TSN, so much and no
more: what is beyond that is not acknowledged and comes again. Whatever no honest peer sends ends the association.
"""

from __future__ import annotations

from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    LOCAL_MAX_MESSAGE_SIZE,
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    AbortChunk,
    Chunk,
    ForwardTsnChunk,
    HeartbeatAckChunk,
    HeartbeatChunk,
    InitChunk,
)

from python_node.mesh.fast_sctp.packets import (
    DATA,
    DATA_FIELDS,
    HALF,
    IMMEDIATE,
    PACKET_BYTES,
    SACK,
    TSNS,
    PacketError,
    pack_chunk,
    parse_chunk,
    run_now,
    split_packet,
)
from python_node.mesh.fast_sctp.sending import SendingTransport

__all__ = ["FastSctpTransport"]

_WHOLE: Final = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
_MOST_HELD: Final = 2048
"""Chunks that wait for one that is missing; a window of 1 MiB is 895 full ones."""
_FARTHEST: Final = 0xFFFF - 1
"""How far ahead of what is missing a chunk may be: a SACK counts with 16 bits."""
_MOST_CONTROL: Final = 8
"""Chunks of a packet that are no data: each may be answered by a packet."""


class FastSctpTransport(SendingTransport):
    """SCTP for one channel, with bounds on all that a peer can have it keep or do."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._partial_of = (0, 0)

    async def _handle_data(self, data: bytes) -> None:
        self.handle_packet(data)

    def handle_packet(self, data: bytes) -> None:
        """Take one SCTP packet."""
        if self._association_state is self.State.CLOSED:
            return
        try:
            split = split_packet(data)
            if split is not None:
                self._chunks_arrived(data, *split)
        except PacketError as error:
            self.refusal = f"the other side broke the rules of SCTP: {error}"
            run_now(self._abort())
            self._set_state(self.State.CLOSED)

    def _chunks_arrived(self, data: bytes, tag: int, chunks: list[tuple[int, int, int, int]]) -> None:
        if tag != self._local_verification_tag:
            if tag == 0 and len(chunks) == 1 and chunks[0][0] == InitChunk.type:
                self._control_arrived(InitChunk.type, chunks[0][1], data[chunks[0][2] : chunks[0][3]])
            return
        control = 0
        for kind, flags, begin, end in chunks:
            if kind == DATA:
                self._data_arrived(flags, data, begin, end)
                continue
            control += 1
            if control > _MOST_CONTROL:
                raise PacketError(f"expected at most {_MOST_CONTROL} chunks without data in a packet, got more")
            if kind == SACK:
                self._sack_arrived(data, begin, end)
            elif kind != InitChunk.type:
                self._control_arrived(kind, flags, data[begin:end])
                if self._association_state is self.State.CLOSED:
                    return
        if self._sack_needed or self._unacknowledged >= self._ack_every:
            self._acknowledge_now()
        elif self._unacknowledged and self._sack_timer is None:
            self._acknowledge_later()

    def _control_arrived(self, kind: int, flags: int, body: bytes) -> None:
        if kind == HeartbeatChunk.type:
            answer = pack_chunk(HeartbeatAckChunk.type, body)
            if len(answer) + 12 <= PACKET_BYTES:
                self._send_packet(answer)
        elif kind == AbortChunk.type:
            self._set_state(self.State.CLOSED)
        elif kind == ForwardTsnChunk.type:
            raise PacketError("expected all data of a reliable channel, got FORWARD TSN")
        elif kind != HeartbeatAckChunk.type and (chunk := parse_chunk(kind, flags, body)) is not None:
            run_now(self._receive_chunk(chunk))

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

    async def _reset_deferred_streams(self) -> None:
        """The other side closes the channel, which is all that the association is for: do not wait for an answer."""
        await super()._reset_deferred_streams()
        if any(channel.readyState == "closing" for channel in self._data_channels.values()):
            await self._abort()
            self._set_state(self.State.CLOSED)

    def _data_arrived(self, flags: int, data: bytes, begin: int, end: int) -> None:
        last = self._last_received_tsn
        if last is None:
            return
        tsn, stream_id, _, protocol = DATA_FIELDS.unpack_from(data, begin)
        ahead = (tsn - last - 1) % TSNS
        if ahead:
            self._hold(ahead, tsn, (flags, stream_id, protocol, data[begin + 12 : end]))
            return
        self._last_received_tsn = tsn
        self._unacknowledged += 1
        if flags & IMMEDIATE:
            self._ack_every = 4
            self._sack_needed = True
        channel = self._data_channels.get(stream_id)
        if protocol == WEBRTC_BINARY and flags & _WHOLE == _WHOLE and self._partial is None and channel is not None:
            channel.emit("message", data[begin + 12 : end])
        else:
            self._take(flags, stream_id, protocol, data[begin + 12 : end])
        if self._held:
            self._take_held()
        if self._reconfig_deferred is not None:
            run_now(self._reset_deferred_streams())

    def _hold(self, ahead: int, tsn: int, chunk: tuple[int, int, int, bytes]) -> None:
        """Keep what came before something that is missing, if it is new and there is room."""
        self._sack_needed = True
        if ahead >= HALF or tsn in self._held:
            self._sack_duplicates.append(tsn)
        elif ahead < _FARTHEST and len(self._held) < _MOST_HELD:
            self._held[tsn] = chunk
            self._held_bytes += len(chunk[3])

    def _take_held(self) -> None:
        """What was missing came: go on as far as there is something."""
        self._sack_needed = True
        tsn = ((self._last_received_tsn or 0) + 1) % TSNS
        while (chunk := self._held.pop(tsn, None)) is not None:
            self._last_received_tsn = tsn
            self._held_bytes -= len(chunk[3])
            self._take(*chunk)
            tsn = (tsn + 1) % TSNS

    def _take(self, flags: int, stream_id: int, protocol: int, data: bytes) -> None:
        """Put messages together; TSNs order what streams order, so numbers in a stream say nothing more."""
        partial = self._partial
        if partial is None:
            if flags & _WHOLE == _WHOLE:
                self._deliver(stream_id, protocol, data)
                return
            if not flags & SCTP_DATA_FIRST_FRAG:
                raise PacketError("expected the beginning of a message, got a fragment of one without beginning")
            self._partial, self._partial_of = bytearray(data), (stream_id, protocol)
            return
        if flags & SCTP_DATA_FIRST_FRAG or stream_id != self._partial_of[0]:
            began = f"stream {self._partial_of[0]}, got data on stream {stream_id} before the last one ended"
            raise PacketError(f"expected the rest of a message on {began}")
        partial += data
        if len(partial) > LOCAL_MAX_MESSAGE_SIZE:
            raise PacketError(f"expected a message of at most {LOCAL_MAX_MESSAGE_SIZE} bytes, got {len(partial)}")
        if flags & SCTP_DATA_LAST_FRAG:
            self._partial = None
            self._deliver(*self._partial_of, bytes(partial))

    def _deliver(self, stream_id: int, protocol: int, data: bytes) -> None:
        channel: Any = self._data_channels.get(stream_id)
        if channel is None:
            raise PacketError(
                f"expected data on stream {', '.join(map(str, self._data_channels))}, got stream {stream_id}"
            )
        if protocol == WEBRTC_BINARY:
            channel.emit("message", data)
        elif protocol == WEBRTC_BINARY_EMPTY:
            channel.emit("message", b"")
        else:
            raise PacketError(f"expected binary messages (payload protocol {WEBRTC_BINARY}), got protocol {protocol}")
