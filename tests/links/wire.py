"""Two of the faster SCTP transports without DTLS, ICE or sockets: packets and time move when the test says so."""

import asyncio
import heapq
import itertools
import struct

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from google_crc32c import value as crc32c

from python_node.mesh.fast_sctp import FastSctpTransport

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, ABORT, SHUTDOWN, ERROR = 0, 1, 2, 3, 4, 6, 7, 9
COOKIE_ECHO, RECONFIG, FORWARD_TSN = 10, 130, 192
FIRST, LAST, UNORDERED = 2, 1, 4
BINARY, TEXT, CHANNEL_OPEN = 53, 51, 50
PACKET_BYTES = 1189


class Clock:
    """Stands for the event loop's: timers fire in order when the test lets time pass."""

    def __init__(self):
        self.s = 1000.0
        self._timers = []
        self._numbers = itertools.count()

    def time(self):
        return self.s

    def call_later(self, delay_s, call, *args):
        timer = asyncio.TimerHandle(self.s + delay_s, call, args, asyncio.get_running_loop())
        heapq.heappush(self._timers, (timer.when(), next(self._numbers), timer))
        return timer

    async def run(self, seconds):
        end = self.s + seconds
        while self._timers and self._timers[0][0] <= end:
            self.s, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                timer._run()
                await settle()
        self.s = end


class Session:
    """Stands for the DTLS session: what is sent waits in `sent`, with the time."""

    state = "connected"

    def __init__(self, clock, role):
        self.clock = clock
        self._role = role
        self.sent = []

    def send_now(self, data):
        self.sent.append((self.clock.time(), data))

    async def _send_data(self, data):
        self.send_now(data)

    def _register_data_receiver(self, receiver):
        pass

    def _unregister_data_receiver(self, receiver):
        pass


class End:
    """One association with its one channel, and what came over it."""

    def __init__(self, clock, role):
        self.session = Session(clock, role)
        self.sctp = FastSctpTransport(self.session)
        self.sctp._loop = clock
        self.received = []
        self.closed = False
        self.channel = RTCDataChannel(self.sctp, RTCDataChannelParameters(label="peerplan/1", negotiated=True, id=0))
        self.channel.on("message", self.received.append)
        self.channel.on("close", self._close)

    def _close(self):
        self.closed = True

    def take(self):
        """What was sent since the last call."""
        taken, self.session.sent = self.session.sent, []
        return taken

    def deliver(self, chunks, *, tag=None):
        """A packet of these chunks comes, with the tag that an honest sender would put in."""
        tag = self.sctp._local_verification_tag if tag is None else tag
        common = struct.pack("!HHL", 5000, 5000, tag)
        self.sctp.handle_packet(common + struct.pack("<L", crc32c(common + bytes(4) + chunks)) + chunks)


class Wire:
    """Both ends, joined; `join` makes the association."""

    def __init__(self):
        self.clock = Clock()
        self.a, self.b = End(self.clock, "client"), End(self.clock, "server")

    async def join(self):
        for end in (self.a, self.b):
            await end.sctp.start(None, 5000)
        await self.carry()
        assert all(end.sctp.state == "connected" for end in (self.a, self.b))
        return self

    async def carry(self, *, lost=lambda _packet: False):
        """Bring every packet to the other end until nothing is under way."""
        await settle()
        while packets := [(self.b, p) for p in self.a.take()] + [(self.a, p) for p in self.b.take()]:
            for to, (_, packet) in packets:
                if not lost(packet):
                    to.sctp.handle_packet(packet)
            await settle()

    async def acknowledge(self):
        """Bring every packet to the other end, and what is then acknowledged late."""
        await self.carry()
        await self.clock.run(0.02)
        await self.carry()


async def settle():
    """Let the tasks run that the library makes."""
    for _ in range(3):
        await asyncio.sleep(0)


def chunks_of(packet):
    """Type, flags and body of each chunk."""
    at, found = 12, []
    while at < len(packet):
        kind, flags, size = struct.unpack_from("!BBH", packet, at)
        found.append((kind, flags, packet[at + 4 : at + size]))
        at += size + -size % 4
    return found


def chunk(kind, body=b"", flags=0):
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def data(tsn, payload=b"x", *, flags=FIRST | LAST, stream=0, protocol=BINARY):
    return chunk(DATA, struct.pack("!LHHL", tsn % 2**32, stream, 0, protocol) + payload, flags)


def sack(cumulative, *gaps, window=1 << 20):
    head = struct.pack("!LLHH", cumulative % 2**32, window, len(gaps), 0)
    return chunk(SACK, head + b"".join(struct.pack("!HH", *gap) for gap in gaps))


def next_tsn(wire):
    return (wire.a.sctp._last_received_tsn + 1) % 2**32


async def is_alive(wire):
    """Whether both directions still carry messages."""
    for sender, receiver in ((wire.a, wire.b), (wire.b, wire.a)):
        sender.channel.send(b"still here")
        await wire.acknowledge()
        if receiver.received[-1:] != [b"still here"]:
            return False
    return True


def held_bytes(end):
    """What a side keeps of messages that are not complete, its bookkeeping included."""
    sctp = end.sctp
    kept = sum(100 + len(held[-1]) for held in sctp._held.values()) + len(sctp._partial or b"")
    return kept + 40 * len(sctp._sack_duplicates) + 300 * len(sctp._inbound_streams)


def data_sent(end):
    return [body for _, packet in end.take() for kind, _, body in chunks_of(packet) if kind == DATA]


def last_sack(end):
    """Window, gap blocks and duplicates of the last acknowledgement."""
    packet = end.take()[-1][1]
    assert len(packet) <= PACKET_BYTES
    body = next(body for kind, _, body in chunks_of(packet) if kind == SACK)
    _, window, gaps, duplicates = struct.unpack_from("!LLHH", body)
    blocks = [struct.unpack_from("!HH", body, 12 + 4 * n) for n in range(gaps)]
    return window, blocks, [struct.unpack_from("!L", body, 12 + 4 * (gaps + n))[0] for n in range(duplicates)]
