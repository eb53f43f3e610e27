"""The faster transports against loss, reordering, duplicates, the library's own transports, and hostile packets."""

import asyncio
import gc
import os
import random
import struct

import aiortc.rtcpeerconnection
import pytest
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from protocol.link import MessageKind
from python_node.mesh import MeshConfig
from python_node.mesh.fast_sctp import FastSctpTransport, installed, is_known_version, lending
from python_node.mesh.fast_sctp.packets import PacketError, split_packet

FAST, STOCK = MeshConfig(fast_sctp=True), MeshConfig(fast_sctp=False)


class BadNetwork:
    """A datagram transport that drops, repeats and delays by a seeded generator."""

    def __init__(self, transport, *, seed, drop, repeat, delay):
        self._transport = transport
        self._random = random.Random(seed)
        self._drop, self._repeat, self._delay = drop, repeat, delay
        self.dropped = 0

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def sendto(self, data, addr):
        if self._random.random() < self._drop:
            self.dropped += 1
            return
        for _ in range(2 if self._random.random() < self._repeat else 1):
            if self._random.random() < self._delay:
                asyncio.get_running_loop().call_later(
                    0.002 * self._random.random(), self._transport.sendto, data, addr
                )
            else:
                self._transport.sendto(data, addr)


def sctp_of(network, me, peer):
    return network.link(me, peer)._rtc._channel.transport


def spoil(network, me, peer, **how):
    protocols = sctp_of(network, me, peer).transport.transport._connection._protocols
    spoiled = []
    for index, protocol in enumerate(protocols):
        protocol.transport = BadNetwork(protocol.transport, seed=index, **how)
        spoiled.append(protocol.transport)
    return spoiled


async def two(network, first, second):
    a, b = network.add(1, config=first), network.add(2, config=second)
    results = await network.connect_all()
    assert [len(r.linked) for r in results] == [1, 1]
    for mesh in network.meshes.values():
        mesh.set_bulk_limit(1 << 22)
    return a, b


def messages_of(seed, count):
    generator = random.Random(seed)
    kinds = [MessageKind.CONTROL, MessageKind.BULK]
    plan = [(generator.choice(kinds), generator.choice([1, 200, 1172, 1173, 5000, 60000])) for _ in range(count)]
    return [(kind, generator.randbytes(size)) for kind, size in plan]


@pytest.mark.parametrize(("first", "second"), [(FAST, FAST), (FAST, STOCK), (STOCK, FAST)])
@pytest.mark.parametrize(
    "how",
    [
        {"drop": 0.0, "repeat": 0.0, "delay": 0.0},
        {"drop": 0.01, "repeat": 0.0, "delay": 0.0},
        {"drop": 0.0, "repeat": 0.1, "delay": 0.2},
        {"drop": 0.02, "repeat": 0.05, "delay": 0.1},
    ],
    ids=["clean", "loss", "disorder", "all"],
)
async def test_every_message_arrives_whole_and_in_order(network, first, second, how):
    a, b = await two(network, first, second)
    spoiled = spoil(network, a, b, **how) + spoil(network, b, a, **how)
    sent = {(a, b): messages_of(1, 60), (b, a): messages_of(2, 60)}
    for (sender, receiver), messages in sent.items():
        for kind, payload in messages:
            network.meshes[sender].send(receiver, kind, payload)
    await network.until(lambda: len(network.messages) == 120, timeout_s=60)
    for (sender, receiver), messages in sent.items():
        for kind in (MessageKind.CONTROL, MessageKind.BULK):
            got = [m[3] for m in network.messages if m[:3] == (receiver, sender, kind)]
            assert got == [payload for k, payload in messages if k is kind]
    assert bool(sum(s.dropped for s in spoiled)) == bool(how["drop"])


async def test_a_lost_last_packet_is_sent_again_without_more_traffic(network):
    a, b = await two(network, FAST, FAST)
    spoiled = spoil(network, a, b, drop=1.0, repeat=0, delay=0)
    network.meshes[a].send(b, MessageKind.CONTROL, b"only one")
    assert any(s.dropped for s in spoiled)
    for s in spoiled:
        s._drop = 0.0
    await network.until(lambda: network.messages, timeout_s=10)
    assert network.messages[0][3] == b"only one"


async def test_quiet_traffic_shares_its_packets_with_acknowledgements(network):
    a, b = await two(network, FAST, FAST)
    counts = dict.fromkeys((a, b), 0)
    for me, peer in ((a, b), (b, a)):
        sctp = sctp_of(network, me, peer)
        library = sctp._send_packet

        def counted(chunks, me=me, library=library):
            counts[me] += 1
            library(chunks)

        sctp._send_packet = counted
    for turn in range(50):
        sender, receiver = ((a, b), (b, a))[turn % 2]
        network.meshes[sender].send(receiver, MessageKind.CONTROL, bytes(200))
        await network.until(lambda turn=turn: len(network.messages) == turn + 1)
    assert sum(counts.values()) <= 60  # 50 messages; the library would send 100


async def test_a_silent_receiver_acknowledges_within_the_delay(network):
    a, b = await two(network, FAST, FAST)
    network.meshes[a].send(b, MessageKind.CONTROL, b"alone")
    sctp = sctp_of(network, a, b)
    acknowledged = asyncio.Event()
    library = sctp._sack_arrived

    def arrived(data, begin, end):
        library(data, begin, end)
        acknowledged.set()

    sctp._sack_arrived = arrived
    await asyncio.wait_for(acknowledged.wait(), 60)
    assert not sctp._sent_queue
    assert sctp._flight_size == 0


async def test_fragments_without_end_close_the_link_before_they_fill_memory(network):
    a, b = await two(network, FAST, FAST)
    sctp = sctp_of(network, a, b)
    receiver = sctp_of(network, b, a)
    for number in range(1200):
        header = struct.pack("!BBHLHHL", 0, 2 if number == 0 else 0, 16 + 1172, sctp._local_tsn + number, 0, 50, 53)
        receiver.handle_packet(packet_for(receiver, header + bytes(1172)))
        if receiver._association_state is receiver.State.CLOSED:
            break
    assert number < 1000
    await network.until(lambda: any(x[0] == b and not x[2] for x in network.links))


def packet_for(receiver, chunks):
    common = struct.pack("!HHL", 5000, 5000, receiver._local_verification_tag)
    return common + struct.pack("<L", crc32c(common + b"\0\0\0\0" + chunks)) + chunks


@given(st.binary(max_size=100), st.booleans())
def test_arbitrary_packets_are_split_within_their_bounds_or_refused(data, valid):
    if valid and len(data) >= 12:
        data = data[:8] + struct.pack("<L", crc32c(data[:8] + b"\0\0\0\0" + data[12:])) + data[12:]
    try:
        found = split_packet(data)
    except PacketError:
        return
    assert found is None or all(12 < begin <= end <= len(data) for _, _, begin, end in found[1])


async def test_a_late_init_delivers_nothing_twice(network):
    a, b = await two(network, FAST, FAST)
    sender, receiver = sctp_of(network, a, b), sctp_of(network, b, a)
    network.meshes[a].send(b, MessageKind.CONTROL, b"once")
    await network.until(lambda: network.messages)
    before = receiver._last_received_tsn
    first = (before - 1) % 2**32
    init = struct.pack("!LLHHL", sender._local_verification_tag, 1 << 20, 100, 100, first)
    chunk = struct.pack("!BBH", 1, 0, 4 + len(init)) + init
    common = struct.pack("!HHL", 5000, 5000, 0)
    receiver.handle_packet(common + struct.pack("<L", crc32c(common + b"\0\0\0\0" + chunk)) + chunk)
    assert receiver._last_received_tsn == before
    network.meshes[a].send(b, MessageKind.CONTROL, b"twice")
    await network.until(lambda: len(network.messages) == 2)
    assert [m[3] for m in network.messages] == [b"once", b"twice"]


async def test_datagrams_of_the_handshake_stay_before_later_ones(network):
    a, b = await two(network, FAST, FAST)
    dtls = sctp_of(network, b, a).transport
    order = []
    library = dtls._data_receiver.handle_packet
    dtls._data_receiver.handle_packet = lambda plain: (order.append(plain), library(plain))
    queue = dtls._ice._queue
    queue.put_nowait((b"\x16 still waits", 1))  # not yet seen by the library's pump
    network.meshes[a].send(b, MessageKind.CONTROL, b"behind it")
    sizes = []
    put = queue.put_nowait
    queue.put_nowait = lambda item: (sizes.append(queue.qsize()), put(item))
    dtls._datagram(b"\x17later", 1)
    assert sizes == [1]
    assert not order
    await network.until(lambda: network.messages)


class Collector:
    """A datagram transport that keeps what is sent."""

    def __init__(self):
        self.sent = []

    def sendto(self, data, _addr):
        self.sent.append(data)


@pytest.mark.parametrize("size", [20, 1000])
async def test_several_records_in_one_datagram_leave_nothing_behind(network, size):
    """OpenSSL keeps what was not read: a peer could have it keep one datagram after the other."""
    a, b = await two(network, FAST, FAST)
    receiver = sctp_of(network, b, a).transport
    collector = Collector()
    protocols = sctp_of(network, a, b).transport.transport._connection._protocols
    sockets = [protocol.transport for protocol in protocols]
    for protocol in protocols:
        protocol.transport = collector
    for number in range(5):
        network.meshes[a].send(b, MessageKind.CONTROL, bytes([number]) * size)
    receiver._datagram(b"".join(collector.sent), 1)
    for protocol, socket in zip(protocols, sockets, strict=True):
        protocol.transport = socket
    assert [m[3] for m in network.messages] == [bytes([number]) * size for number in range(5)]


@pytest.mark.parametrize("config", [FAST, STOCK])
async def test_malformed_stun_messages_of_anybody_change_nothing(network, config):
    """The library expected 8 bytes of a tie-breaker, got 4, and raised into the event loop."""
    a, b = await two(network, config, config)
    message = struct.pack("!HHI12sHHI", 1, 8, 0x2112A442, bytes(12), 0x802A, 4, 0)
    for protocol in sctp_of(network, b, a).transport.transport._connection._protocols:
        protocol.datagram_received(message, ("192.0.2.1", 9))
    network.meshes[a].send(b, MessageKind.CONTROL, b"still here")
    await network.until(lambda: network.messages)


async def test_empty_and_short_datagrams_change_nothing(network):
    a, b = await two(network, FAST, FAST)
    for data in (b"", b"\x17", b"\x17" * 12, b"\x17\xfe\xfd" + bytes(10), bytes(60_000)):
        sctp_of(network, b, a).transport._datagram(data, 1)
    network.meshes[a].send(b, MessageKind.CONTROL, b"still here")
    await network.until(lambda: network.messages)


async def test_hostile_packets_leave_the_link_alive(network):
    a, b = await two(network, FAST, FAST)
    receiver = sctp_of(network, b, a)
    generator = random.Random(3)
    for _ in range(300):
        size = generator.randrange(0, 40)
        chunk = bytes([generator.choice([3, 192, 4, 130, 200]), generator.randrange(256)])
        chunk += struct.pack("!H", generator.randrange(60)) + generator.randbytes(size)
        wrong_tag = packet_for(receiver, chunk)
        receiver.handle_packet(wrong_tag[:4] + b"\1\2\3\4" + wrong_tag[8:])  # and so the checksum is wrong too
        receiver.handle_packet(generator.randbytes(size))
    network.meshes[a].send(b, MessageKind.CONTROL, b"still here")
    await network.until(lambda: network.messages)


def test_the_names_are_lent_and_given_back(monkeypatch):
    module = aiortc.rtcpeerconnection
    library = module.RTCSctpTransport
    assert is_known_version()
    with installed(enabled=True) as used:
        assert used
        assert module.RTCSctpTransport is FastSctpTransport
    assert module.RTCSctpTransport is library
    with installed(enabled=False) as used:
        assert not used
        assert module.RTCSctpTransport is library
    monkeypatch.setattr(lending, "version", lambda _name: "2.0.0")
    with installed(enabled=True) as used:
        assert not used
        assert module.RTCSctpTransport is library


async def test_the_setting_decides_which_transport_a_link_uses(network):
    a, b = await two(network, FAST, STOCK)
    assert isinstance(sctp_of(network, a, b), FastSctpTransport)
    assert not isinstance(sctp_of(network, b, a), FastSctpTransport)
    data = os.urandom(1 << 20)
    network.meshes[a].send(b, MessageKind.BULK, data)
    network.meshes[b].send(a, MessageKind.BULK, data)
    await network.until(lambda: len(network.messages) == 2)
    assert [m[3] for m in network.messages] == [data, data]


async def dtls_alone(rtc):
    await rtc._channel.transport.transport.stop()


async def sockets_alone(rtc):
    await rtc._channel.transport.transport.transport._connection.close()


async def all_of_it(rtc):
    await rtc._pc.close()


@pytest.mark.parametrize(
    ("side", "end"),
    [
        ("sender", all_of_it),
        ("sender", dtls_alone),
        ("sender", sockets_alone),
        ("receiver", all_of_it),
        ("receiver", dtls_alone),
    ],
)
async def test_a_link_that_closes_during_a_send_ends_once_and_nothing_else_is_reported(network, side, end):
    """Retransmissions are under way, and more is sent at every step of the way down."""
    a, b = await two(network, FAST, FAST)
    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, report: reported.append(report))
    spoil(network, a, b, drop=1.0, repeat=0, delay=0)
    mesh = network.meshes[a]
    rtc = network.link(*((a, b) if side == "sender" else (b, a)))._rtc
    sctp = sctp_of(network, a, b)
    mesh.send(b, MessageKind.BULK, bytes(1 << 20))
    sctp._t3_deadline = loop.time()
    sctp._t3_fired()
    closing = asyncio.ensure_future(end(rtc))
    async with asyncio.timeout(60):
        while mesh.linked:
            mesh.send(b, MessageKind.CONTROL, b"still there")
            await asyncio.sleep(0)
    sctp._t3_deadline, sctp._t3_handle = loop.time(), True
    sctp._t3_fired()
    await closing
    ends = [link for link in network.links if link[0] == a and not link[2]]
    assert len(ends) == 1
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []
