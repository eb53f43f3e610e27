"""A whole deployment in one process: a signaling server, nodes and an author, over real websockets and WebRTC."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from plans import Plan
from protocol.identity import Identity, PeerId
from protocol.signaling import RunStatus
from protocol.terms import Deadlines
from python_node.author import Author, make_terms
from python_node.datasets import Dataset
from python_node.mesh import MeshConfig
from python_node.node import Node, NodeEvent
from python_node.policy import Policy
from python_node.signaling_core import SessionOptions
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState
from signaling import Server, SignalingConfig, Timing, serve
from tests.e2e.data import dataset

TIMING = Timing(gather_s=0.3, settle_s=0.5, join_s=5.0, absence_s=3.0)
PATIENT = Timing(gather_s=20.0, settle_s=10.0, join_s=20.0, absence_s=10.0)
"""For tests in which everybody has to be in a cohort, on any machine: nothing waits this long if all come."""
TOGETHER = dataclasses.replace(TIMING, settle_s=10.0)
"""For tests of nodes in several programs: on a busy machine one of them may be the last by seconds, and must not miss
the next round for it."""
OPTIONS = SessionOptions(request_timeout_s=20, first_backoff_s=0.05, longest_backoff_s=0.2)
MESH = MeshConfig(ping_after_s=0.3, gone_after_s=1.5)
DEADLINES = Deadlines(
    link_ms=8_000,
    train_ms=10_000,
    advertise_ms=3_000,
    share_ms=3_000,
    commit_ms=3_000,
    consistency_ms=3_000,
    unmask_ms=3_000,
    sum_ms=3_000,
)
UNHURRIED = msgspec.structs.replace(
    DEADLINES,
    advertise_ms=20_000,
    share_ms=20_000,
    commit_ms=20_000,
    consistency_ms=20_000,
    unmask_ms=20_000,
    sum_ms=20_000,
)
"""For tests in which a leader that is only slow, since the machine is busy, must not be replaced."""
WITHIN_S = 120.0


class Diary:
    """What happened, in order, and a way to wait for more of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[NodeEvent] = []
        self._changed = asyncio.Event()

    def note(self, event: NodeEvent) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    def of(self, kind: str, **fields: Any) -> list[NodeEvent]:
        """Events of a kind whose fields have these values."""
        return [
            event
            for event in self.events
            if event.kind == kind and all(event.fields.get(key) == value for key, value in fields.items())
        ]

    async def until(self, *kinds: str, within_s: float = WITHIN_S, **fields: Any) -> NodeEvent:
        """The first event of one of these kinds with these values, now or later."""
        try:
            async with asyncio.timeout(within_s):
                while not (found := [event for kind in kinds for event in self.of(kind, **fields)]):
                    await self._changed.wait()
        except TimeoutError:
            seen = "; ".join(f"{e.kind} {e.fields}"[:200] for e in self.events[-12:])
            raise AssertionError(
                f"{self.name}: no {' or '.join(kinds)} {fields} within {within_s:g} s; last: {seen}"
            ) from None
        return found[0]


class Host:
    """One node and what it told its owner."""

    def __init__(self, name: str, session: SignalingSession, identity: Identity, state: NodeState) -> None:
        self.diary = Diary(name)
        self.session = session
        self.identity = identity
        self.state = state
        self.node: Node
        self.task: asyncio.Task[None]

    @property
    def peer(self) -> PeerId:
        return self.identity.peer_id

    @property
    def mesh(self):
        return self.node._switchboard.mesh

    def model(self, run: str):
        """The model this node holds: (round, digest, bytes)."""
        membership = self.node._runs[run].membership
        return membership.round, membership.digest, membership.model.tobytes()

    async def close(self) -> None:
        self.node.stop()
        try:
            await self.task
        finally:
            await self.session.close()
            self.state.close()


class World:
    """`async with`: everything made through it is closed at the end. `options` are the signaling server's, `mesh`
    is how nodes watch their links."""

    def __init__(self, folder: Path, *, timing: Timing = TIMING, mesh: MeshConfig = MESH, **options: Any) -> None:
        self.config = SignalingConfig(folder=folder / "signaling", port=0, timing=timing, **options)
        self.folder = folder
        self.mesh = mesh
        self.server: Server | None = None
        self.author_identity = Identity(hashlib.sha256(b"author").digest())
        self.hosts: dict[str, Host] = {}
        self._authors: list[Author] = []

    async def __aenter__(self) -> Self:
        # What this process holds beside its nodes, torch above all, takes seconds to search for garbage on a busy
        # machine, more than some stages of tests may take; nodes of owners hold no such things.
        gc.collect()
        gc.freeze()
        await self.start_signaling()
        port = int(self.url.rpartition(":")[2])
        self.config = dataclasses.replace(self.config, port=port)
        return self

    async def __aexit__(self, *_: object) -> None:
        for author in self._authors:
            await author.close()
        await asyncio.gather(*(host.close() for host in self.hosts.values()))
        await self.stop_signaling()

    @property
    def url(self) -> str:
        if self.server is not None:
            return self.server.url
        return f"ws://{self.config.host}:{self.config.port}"

    async def start_signaling(self) -> None:
        self.server = await serve(self.config)

    async def stop_signaling(self) -> None:
        if self.server is not None:
            await self.server.close()
            self.server = None

    def policy(self, **changes: Any) -> Policy:
        given = {"authors": [self.author_identity.peer_id], "min_cohort": 3, "min_survivors": 3}
        return Policy(**{**given, **changes})

    async def node(
        self,
        name: str,
        *,
        policy: Policy | None = None,
        datasets: list[Dataset] | None = None,
        on_event: Callable[[NodeEvent], None] | None = None,
    ) -> Host:
        """A node that runs; the same name finds the same state folder again."""
        state = NodeState.open(self.folder / name)
        identity = state.identity()
        session = await SignalingSession.connect(self.url, identity, options=OPTIONS)
        host = Host(name, session, identity, state)

        def listen(event: NodeEvent) -> None:
            host.diary.note(event)
            if on_event is not None:
                on_event(event)

        seed = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
        host.node = Node(
            session,
            identity,
            state=state,
            policy=policy or self.policy(),
            datasets=[dataset(seed)] if datasets is None else datasets,
            mesh_config=self.mesh,
            on_event=listen,
        )
        host.task = asyncio.create_task(host.node.run(), name=f"node {name}")
        self.hosts[name] = host
        await host.diary.until("registered")
        return host

    async def nodes(self, count: int, *, first: int = 0) -> list[Host]:
        return [await self.node(f"node-{number}") for number in range(first, first + count)]

    async def author(self) -> Author:
        author = await Author.connect(self.url, self.author_identity)
        self._authors.append(author)
        return author

    async def publish(self, author: Author, plan: Plan, **changes: Any) -> RunStatus:
        return await author.publish(plan, terms(plan, **changes))


def terms(plan: Plan, **changes: Any):
    """Terms for small tests: three rounds, five peers at most, three at least."""
    given = {
        "rounds": 3,
        "cohort_size": 5,
        "min_cohort": 3,
        "min_survivors": 3,
        "max_examples": 128,
        "clip": 0.5,
        "learning_rate": 0.3,
        "deadlines": DEADLINES,
    }
    return make_terms(plan, **{**given, **changes})


async def finished(author: Author, run: str, *, within_s: float = WITHIN_S) -> RunStatus:
    """The status of a run that ended."""
    async with asyncio.timeout(within_s):
        async for event in author.watch(run):
            status = getattr(event, "status", None)
            if status is not None and status.state in ("finished", "stopped", "failed"):
                return status
    raise AssertionError(f"run {run[:8]}: the events ended before it did")


async def models(hosts: Iterable[Host], run: str, number: int):
    """What each host holds after a round: a quorum's signatures end a round before the slowest host has its model."""
    for host in hosts:
        await host.diary.until("round_completed", "fetched", run=run, round=number)
    return {host.model(run) for host in hosts}


async def whole_log(author: Author, run: str):
    """Every logged round."""
    entries, first = [], 1
    while first is not None:
        page = await author.session.log(run, first=first)
        entries += page.entries
        first = page.next
    return entries
