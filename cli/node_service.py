"""A node as a process: connect, serve until told to stop, leave in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from protocol.identity import Identity, PeerId
from python_node.datasets import Dataset
from python_node.mesh import IceServer
from python_node.node import Node, NodeEvent
from python_node.policy import Policy
from python_node.signaling_errors import SignalingDownError
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState

__all__ = ["Listener", "NodeService", "serve_node"]

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0


@dataclass(frozen=True, kw_only=True)
class NodeService:
    """Everything a node process needs. `wait` tries a signaling server that is down again and again."""

    url: str
    expected_server: str | None
    state: Path
    policy: Policy
    datasets: Sequence[Dataset]
    threads: int
    training_seed: bytes | None = field(repr=False)
    ice_servers: Sequence[IceServer]
    wait: bool


class Listener(Protocol):
    """Who is told what a node does."""

    def start(self, peer: PeerId) -> None:
        """The node has an identity and is about to connect."""

    def show(self, event: NodeEvent) -> None:
        """Something happened; must not block."""


async def serve_node(service: NodeService, listener: Listener) -> None:
    """Serve until SIGTERM, SIGINT or the end of the session.

    Raises:
        StateError: the state folder cannot be used.
        SignalingSessionError: signaling is down (unless `wait`), refuses, or ended the session.
        BrokenPipeError: nobody reads what the listener writes.
    """
    with _stop_signals() as stopping, NodeState.open(service.state) as state:
        identity = state.identity()
        listener.start(identity.peer_id)
        session = await _connect(service, identity, listener, stopping)
        if session is None:
            return
        unread: list[BrokenPipeError] = []

        def tell(event: NodeEvent) -> None:
            try:
                listener.show(event)
            except BrokenPipeError as error:  # nobody reads any more: leave in order, not from within a round's task
                unread.append(error)
                stopping.set()

        async with session:
            node = Node(
                session,
                identity,
                state=state,
                policy=service.policy,
                datasets=service.datasets,
                threads=service.threads,
                training_seed=service.training_seed,
                ice_servers=service.ice_servers,
                on_event=tell,
            )
            await _run_until(node, stopping)
        if unread:
            raise unread[0]
        listener.show(NodeEvent("stopped"))


async def _run_until(node: Node, stopping: asyncio.Event) -> None:
    running = asyncio.ensure_future(node.run())
    told = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        node.stop()
        await running


async def _connect(
    service: NodeService, identity: Identity, listener: Listener, stopping: asyncio.Event
) -> SignalingSession | None:
    """A session, or None where the process was told to stop before there was one."""
    pause_s = _FIRST_WAIT_S
    while not stopping.is_set():
        try:
            return await SignalingSession.connect(service.url, identity, expected_server=service.expected_server)
        except SignalingDownError as error:
            if not service.wait:
                raise
            listener.show(NodeEvent("waiting", {"reason": str(error), "retry_s": pause_s}))
        try:
            await asyncio.wait_for(stopping.wait(), pause_s)
        except TimeoutError:
            pause_s = min(2 * pause_s, _LONGEST_WAIT_S)
    return None


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; a second one ends the process at once."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    caught: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        stopping.set()
        loop.remove_signal_handler(number)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
            caught.append(number)
    except NotImplementedError:  # Windows: KeyboardInterrupt ends the runner instead
        pass
    try:
        yield stopping
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
