"""Faster SCTP and DTLS transports for known versions of aiortc (docs/transport.md, spec 04 §7).

aiortc awaits once per packet, acknowledges each packet with a packet, walks its queues per packet and makes a timer
per acknowledgement. The subclasses here keep its state and its code for set-up, resets and retransmissions, and take
over what comes, and what is acknowledged in order. They serve one ordered, reliable channel (spec 04 §1); a peer that
sends what does not belong there loses its link.

- A datagram goes from the socket through DTLS to the data channel's handler in one call, without a queue or a task.
- Data is acknowledged every second packet (every fourth for a sender that marks the packets it waits for, RFC 7053),
  after 20 ms, or inside the next packet that carries data the other way (RFC 9260 §6.2, §6.10).
- Without loss up to 32 packets leave in one burst, and the window starts at ten (RFC 6928).
- The retransmission timer's deadline moves; the timer is not made anew. Its time doubles when it is over (§6.3.3),
  which the library leaves out.

aiortc's own coroutines never suspend after the DTLS handshake, since sending a datagram does not wait: `run_now`
runs them to their end in place. If a version is not a known one, or the setting is off, the library's classes serve.

    lending.py        which versions are known; the names lent to `RTCPeerConnection`
    dtls.py           datagrams to packets and back
    packets.py        the layout of packets
    timers.py         retransmission timeout and its timer
    acknowledging.py  when and with what to acknowledge
    sending.py        messages to chunks, windows, what SACKs do
    receiving.py      chunks to messages; the transport as a whole
"""

from python_node.mesh.fast_sctp.dtls import FastDtlsTransport
from python_node.mesh.fast_sctp.lending import installed, is_known_version
from python_node.mesh.fast_sctp.receiving import FastSctpTransport

__all__ = ["FastDtlsTransport", "FastSctpTransport", "installed", "is_known_version"]
