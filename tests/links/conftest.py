"""Meshes in one process over real WebRTC on this machine; signaling is a function call."""

import asyncio

import pytest

from protocol.errors import ProtocolError
from protocol.identity import Identity
from python_node.mesh import Mesh, MeshConfig


class Network:
    """Meshes by number, what each received, and a `tamper` hook in the place of the signaling server."""

    def __init__(self):
        self.meshes = {}
        self.identities = {}
        self.messages = []
        self.links = []
        self.signals = []
        self.refused = []
        self.tamper = None
        self._changed = asyncio.Event()

    def add(self, number, *, config=None, may_link=None):
        identity = Identity(bytes([number]) * 32)
        me = identity.peer_id

        async def send_signal(to, kind, payload):
            self.signals.append((me, to, kind, payload))
            relayed = self.tamper(me, to, kind, payload) if self.tamper else payload
            if relayed is None:
                return
            try:
                self.meshes[to].receive_signal(me, kind, relayed)
            except ProtocolError as error:
                self.refused.append(error)
                self._notify()

        def on_message(peer, kind, payload):
            self.messages.append((me, peer, kind, bytes(payload)))
            self._notify()

        def on_link(peer, up, reason):
            self.links.append((me, peer, up, reason))
            self._notify()

        mesh = Mesh(
            identity,
            send_signal=send_signal,
            on_message=on_message,
            on_link=on_link,
            config=config or MeshConfig(),
            may_link=may_link,
        )
        self.meshes[me] = mesh
        self.identities[me] = identity
        return me

    def pair(self, **options):
        """Two meshes; the first has the lower id."""
        return sorted(self.add(number, **options) for number in (1, 2))

    async def connect_all(self, timeout_s=60):
        everyone = list(self.meshes)
        return await asyncio.gather(
            *(mesh.connect([p for p in everyone if p != me], timeout_s=timeout_s) for me, mesh in self.meshes.items())
        )

    async def until(self, condition, timeout_s=60):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def close(self):
        await asyncio.gather(*(mesh.close() for mesh in self.meshes.values()))

    def link(self, me, peer):
        return self.meshes[me]._peers[peer].link

    def _notify(self):
        self._changed.set()


@pytest.fixture
async def network():
    net = Network()
    yield net
    await net.close()
