"""Two of the faster SCTP transports without DTLS, ICE or sockets: packets and time move when the test says so."""

import asyncio
import heapq
import itertools
import struct

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from google_crc32c import value as crc32c

from python_node.mesh.fast_sctp import FastSctpTransport


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
