"""What strangers can make a node keep: identities cost nothing, and announcing a message costs nothing."""

import hashlib
import resource
import struct
import sys

import pytest

from protocol.identity import Identity
from protocol.link import FrameDecoder, Limits, MessageKind
from python_node.mesh import Mesh
from python_node.mesh import mesh as mesh_module


async def nowhere(_peer, _kind, _payload):
    """Signaling that loses everything."""


async def test_peers_that_come_once_and_go_are_forgotten_and_their_bytes_stay_counted(monkeypatch):
    monkeypatch.setattr(mesh_module, "_MOST_PAST", 8)
    mesh = Mesh(Identity(b"m" * 32), send_signal=nowhere, on_message=lambda *_: None)
    for number in range(50):
        peer = mesh._peer(Identity(hashlib.sha256(bytes([number])).digest()).peer_id)
        peer.counters.bytes_received = 10
    mesh._drop_idle()
    assert len(mesh._past) <= 8
    assert mesh.total.bytes_received == 500
    await mesh.close()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB, and memory that is taken when it is written")
def test_large_messages_that_are_only_announced_take_hardly_any_memory():
    total = 64 << 20
    frame = struct.pack("<BBHII", 0x10 | MessageKind.BULK, 1, 0, 0, total) + bytes(2000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoders = [FrameDecoder(limits=Limits(bulk_bytes=total)) for _ in range(32)]
    for decoder in decoders:
        assert decoder.receive_data(frame) is None
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < total // 1024
