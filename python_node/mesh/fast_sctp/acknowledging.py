"""What came is acknowledged late, or inside a packet that goes the other way (RFC 9260 §6.2, §6.10)."""

from __future__ import annotations

from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsTransport
from google_crc32c import value as crc32c

from python_node.mesh.fast_sctp.packets import CHECKSUM, COMMON, NO_CHECKSUM, TSNS, pack_sack, pack_selective_sack
from python_node.mesh.fast_sctp.timers import TimedTransport

__all__ = ["AcknowledgingTransport"]

_SACK_DELAY_S: Final = 0.02
_WINDOW_BYTES: Final = 1 << 20
"""What is offered while nothing is kept."""
_MOST_GAPS: Final = 256
_MOST_DUPLICATES: Final = 32
"""So many of each are reported at most: a SACK fits into one packet."""


class AcknowledgingTransport(TimedTransport):
    """SCTP that sends fewer SACKs than packets come."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._ack_every = 2
        self._unacknowledged = 0
        self._sack_timer: Any = None
        self._held: dict[int, tuple[int, int, int, bytes]] = {}
        """By TSN what came before something that is missing: flags, stream, payload protocol, payload."""
        self._held_bytes = 0
        self._partial: bytearray | None = None
        """The message whose last fragment did not come yet."""

    def _acknowledge_now(self) -> None:
        """Send a SACK."""
        if not self._held and not self._sack_duplicates:
            self._send_packet(self._plain_sack())
            return
        duplicates = self._sack_duplicates[:_MOST_DUPLICATES]
        self._sack_duplicates.clear()
        self._unacknowledged = 0
        self._sack_needed = False
        kept = self._held_bytes + len(self._partial or b"")
        window = max(0, _WINDOW_BYTES - kept)
        self._send_packet(pack_selective_sack(self._last_received_tsn or 0, window, self._gaps(), duplicates))

    def _acknowledge_later(self) -> None:
        self._sack_timer = self._loop.call_later(_SACK_DELAY_S, self._sack_due)

    def _plain_sack(self) -> bytes:
        self._unacknowledged = 0
        self._sack_needed = False
        partial = self._partial
        window = _WINDOW_BYTES if partial is None else _WINDOW_BYTES - len(partial)
        return pack_sack(self._last_received_tsn or 0, window)

    def _gaps(self) -> list[tuple[int, int]]:
        """What is held, as runs of TSNs counted from the last before what is missing."""
        last = self._last_received_tsn or 0
        gaps: list[tuple[int, int]] = []
        first = end = 0
        for place in sorted((tsn - last) % TSNS for tsn in self._held):
            if place != end + 1:
                if first:
                    gaps.append((first, end))
                if len(gaps) == _MOST_GAPS:
                    return gaps
                first = place
            end = place
        return [*gaps, (first, end)] if first else gaps

    def _sack_due(self) -> None:
        self._sack_timer = None
        if self._unacknowledged and self._association_state is self.State.ESTABLISHED:
            self._acknowledge_now()

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
