"""How long an acknowledgement is waited for (RFC 9260 §6.3): one timer whose deadline moves."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import SCTP_MAX_ASSOCIATION_RETRANS, SCTP_RTO_MAX, RTCSctpTransport

__all__ = ["TimedTransport"]

_RTO_FIRST_S: Final = 1.0
"""Retransmission timeout before anything was measured (RFC 9260 §16; the library takes 3 s)."""
_RTO_MIN_S: Final = 0.3
"""Never less than this; the library takes 1 s, TCP 0.2 s. Acknowledgements are late by 20 ms at most."""
_RTO_DOUBLED_S: Final = 2.0
"""Doubling ends here: a path that was away for some seconds is tried again before its link is dead (ADR 8)."""


class TimedTransport(RTCSctpTransport):
    """SCTP whose retransmission timer is not made anew for every packet, and waits longer each time it fires."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._rto = _RTO_FIRST_S
        self._t3_timer: Any = None
        self._t3_deadline = self._t3_timer_at = 0.0
        self._may_retransmit = False
        self._expiries = 0
        """How often the timer fired since something was acknowledged."""
        self.refusal = ""
        """What the other side did that ended the association; empty where it did not."""

    def _update_rto(self, R: float) -> None:  # noqa: N803 (the library's name)
        super()._update_rto(R)
        self._rto = min(max(_RTO_MIN_S, (self._srtt or R) + 4 * (self._rttvar or 0.0)), SCTP_RTO_MAX)

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if state is self.State.CLOSED:
            if self._t3_timer is not None:
                self._t3_timer.cancel()
            self._t3_timer = None

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
        self._expiries += 1
        if self._expiries > SCTP_MAX_ASSOCIATION_RETRANS:  # RFC 9260 §8.1
            self.refusal = f"the other side acknowledged nothing, though it was sent {self._expiries - 1} times again"
            self._set_state(self.State.CLOSED)
            return
        self._may_retransmit = True
        # RFC 9260 §6.3.3 E2; until the next measurement
        self._rto = max(self._rto, min(2 * self._rto, _RTO_DOUBLED_S))
        self._t3_expired()
