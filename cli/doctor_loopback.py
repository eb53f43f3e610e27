"""A link between two meshes in this process: the whole of WebRTC but the way between machines."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

from protocol.errors import LinkError, ProtocolError
from protocol.identity import Identity, PeerId
from protocol.link import MessageKind, NegotiationKind, Payload
from python_node.mesh import Mesh

__all__ = ["LoopbackResult", "measure_loopback"]

_MESSAGE_BYTES = 1 << 20
_MESSAGES = 16


@dataclass(frozen=True, kw_only=True)
class LoopbackResult:
    """Milliseconds until the link was open at both ends, and megabytes per second across it."""

    link_ms: float
    megabytes_per_s: float


async def measure_loopback(*, timeout_s: float = 10.0) -> LoopbackResult:
    """Link two meshes, send 16 MiB one way.

    Raises:
        LinkError: no link, or not everything arrived in time.
    """
    meshes: dict[PeerId, Mesh] = {}
    arrived, received = asyncio.Event(), 0
    refused: list[ProtocolError] = []

    def on_message(_peer: PeerId, _kind: MessageKind, payload: Payload) -> None:
        nonlocal received
        received += len(payload)
        if received >= _MESSAGES * _MESSAGE_BYTES:
            arrived.set()

    def make() -> PeerId:
        identity = Identity(os.urandom(32))

        async def send_signal(to: PeerId, kind: NegotiationKind, payload: bytes) -> None:
            try:
                meshes[to].receive_signal(identity.peer_id, kind, payload)
            except ProtocolError as error:
                refused.append(error)

        meshes[identity.peer_id] = Mesh(identity, send_signal=send_signal, on_message=on_message)
        return identity.peer_id

    here, there = make(), make()
    try:
        meshes[there].set_bulk_limit(_MESSAGE_BYTES)
        started = time.perf_counter()
        both = await asyncio.gather(
            meshes[here].connect([there], timeout_s=timeout_s), meshes[there].connect([here], timeout_s=timeout_s)
        )
        errors = [*refused, *(error for side in both for error in side.failed.values())]
        if errors:
            raise LinkError(f"a link within this process failed: {errors[0]}")
        linked = time.perf_counter()
        payload = os.urandom(_MESSAGE_BYTES)
        for _ in range(_MESSAGES):
            meshes[here].send(there, MessageKind.BULK, payload)
        try:
            await asyncio.wait_for(arrived.wait(), timeout_s)
        except TimeoutError:
            raise LinkError(
                f"a link within this process: {received} of {_MESSAGES * _MESSAGE_BYTES} bytes within {timeout_s:g} s"
            ) from None
        done = time.perf_counter()
    finally:
        await asyncio.gather(*(mesh.close() for mesh in meshes.values()))
    return LoopbackResult(
        link_ms=1000 * (linked - started), megabytes_per_s=_MESSAGES * _MESSAGE_BYTES / 1e6 / (done - linked)
    )
