"""Packets that come: chunks in order become messages at once, all else goes the library's way."""

from __future__ import annotations

from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    WEBRTC_BINARY,
    Chunk,
    DataChunk,
    InitChunk,
)

from python_node.mesh.fast_sctp.packets import DATA, DATA_FIELDS, IMMEDIATE, TSNS, run_now, split_packet
from python_node.mesh.fast_sctp.sending import SendingTransport

__all__ = ["FastSctpTransport"]


class FastSctpTransport(SendingTransport):
    """SCTP with a short way for data in order; every other packet goes the library's way."""

    def handle_packet(self, data: bytes) -> None:
        """Take one SCTP packet; only packets of DATA and SACK chunks go the short way."""
        chunks = split_packet(data)
        if chunks is None or self._last_received_tsn is None:
            run_now(self._handle_data(data))
            return
        tag, parts = chunks
        if tag != self._local_verification_tag:
            return
        for kind, flags, begin, end in parts:
            if kind == DATA:
                self._data_arrived(flags, data, begin, end)
            else:
                self._sack_arrived(data, begin, end)
        if self._sack_needed or self._unacknowledged >= self._ack_every:
            run_now(self._send_sack())
        elif self._unacknowledged and self._sack_timer is None:
            self._acknowledge_later()
        if self._advertised_rwnd < 0:
            # More unfinished messages than we ever offered to hold: this is no honest sender.
            run_now(self._abort())
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
        tsn, stream_id, stream_seq, protocol = DATA_FIELDS.unpack_from(data, begin)
        last: int = self._last_received_tsn or 0
        if tsn != (last + 1) % TSNS or self._sack_misordered:
            run_now(self._receive_data_chunk(DataChunk(flags=flags, body=data[begin:end])))
            return
        self._last_received_tsn = tsn
        self._unacknowledged += 1
        if flags & IMMEDIATE:
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
            run_now(self._reset_deferred_streams())

    def _deliver(self, stream_id: int, protocol: int, user_data: bytes) -> None:
        channel = self._data_channels.get(stream_id)
        if protocol == WEBRTC_BINARY and channel is not None:
            channel.emit("message", user_data)
        else:
            run_now(self._receive(stream_id, protocol, user_data))
