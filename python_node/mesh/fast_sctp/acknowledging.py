"""What came is acknowledged late, or inside a packet that goes the other way (RFC 9260 §6.2, §6.10)."""

from __future__ import annotations

from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsTransport
from google_crc32c import value as crc32c

from python_node.mesh.fast_sctp.packets import CHECKSUM, COMMON, NO_CHECKSUM, pack_sack, run_now
from python_node.mesh.fast_sctp.timers import TimedTransport

__all__ = ["AcknowledgingTransport"]

_SACK_DELAY_S: Final = 0.02


class AcknowledgingTransport(TimedTransport):
    """SCTP that sends fewer SACKs than packets come."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._ack_every = 2
        self._unacknowledged = 0
        self._sack_timer: Any = None

    def _acknowledge_later(self) -> None:
        self._sack_timer = self._loop.call_later(_SACK_DELAY_S, self._sack_due)

    def _plain_sack(self) -> bytes:
        self._unacknowledged = 0
        self._sack_needed = False
        return pack_sack(self._last_received_tsn or 0, max(0, self._advertised_rwnd))

    async def _send_sack(self) -> None:
        if self._sack_misordered or self._sack_duplicates:
            await super()._send_sack()
            self._unacknowledged = 0
        else:
            self._send_packet(self._plain_sack())

    def _sack_due(self) -> None:
        self._sack_timer = None
        if self._unacknowledged and self._association_state is self.State.ESTABLISHED:
            run_now(self._send_sack())

    def _send_packet(self, chunks: bytes) -> None:
        common = COMMON.pack(self._local_port, self._remote_port, self._remote_verification_tag)
        checksum = CHECKSUM.pack(crc32c(common + NO_CHECKSUM + chunks))
        transport: Any = self.transport
        transport.send_now(common + checksum + chunks)

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if state is self.State.CLOSED and self._sack_timer is not None:
            self._sack_timer.cancel()
            self._sack_timer = None
