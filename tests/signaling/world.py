"""A signaling server on a free port, and peers, plans and runs to use it with."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from typing import Self

from protocol.encoding import decode_json, digest_of
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, seal_envelope
from protocol.identity import Identity
from protocol.manifest import (
    Blob,
    DataField,
    DatasetSchema,
    Function,
    Metric,
    PlanManifest,
    Training,
    encode_manifest,
)
from protocol.signaling import MemberSignature, RoundStart, sign_result
from protocol.terms import LocalTraining, RunTerms, encode_terms
from python_node.signaling_blobs import publish
from python_node.signaling_core import SessionOptions
from python_node.signaling_link import SignalingSession
from signaling import Server, SignalingConfig, Timing, serve

QUICK = Timing(gather_s=0.5, settle_s=5.0, join_s=10.0, absence_s=10.0)
"""No test should wait for these to pass: on a machine with much to do, a reply may take seconds."""
OPTIONS = SessionOptions(request_timeout_s=10, first_backoff_s=0.02, longest_backoff_s=0.1)
GRAPH = bytes(range(256)) * 16


def identity(name: str) -> Identity:
    return Identity(hashlib.sha256(name.encode()).digest())


def dataset(name: str = "digits", *, width: int = 4) -> DatasetSchema:
    return DatasetSchema(
        name=name,
        fields=(
            DataField(name="x", dtype="float32", shape=(width,)),
            DataField(name="y", dtype="int64", shape=()),
        ),
    )


def manifest(*, graph: bytes = GRAPH, name: str = "toy", parameters: int = 0) -> PlanManifest:
    digest = digest_of(graph)
    return PlanManifest(
        name=name,
        version="1",
        opset=18,
        inputs=(DataField(name="x", dtype="float32", shape=(4,)),),
        targets=(DataField(name="y", dtype="int64", shape=()),),
        parameters=(),
        parameter_count=parameters,
        optimizer_count=0,
        buffer_count=0,
        metrics=(Metric(name="loss", bound=10.0),),
        training=Training(optimizer="sgd", learning_rate=0.1, batch_size=8),
        functions={"train": Function(graph=digest, inputs=(), outputs=())},
        initial={},
        blobs=(Blob(digest=digest, size=len(graph), role="graph"),),
    )


def envelope(data: bytes) -> Envelope:
    return decode_json(data, Envelope, what="test envelope", max_bytes=1 << 20)


def plan_envelope(author: Identity, plan: PlanManifest | None = None) -> Envelope:
    return envelope(seal_envelope(author, PLAN_TYPE, encode_manifest(plan or manifest())))


def terms(plan: str, *, nonce: str = "00" * 32, **changes) -> RunTerms:
    given = {
        "name": "toy-run",
        "plan": plan,
        "nonce": nonce,
        "rounds": 3,
        "cohort_size": 5,
        "min_cohort": 3,
        "min_survivors": 3,
        "value_bits": 12,
        "clip": 1.0,
        "retries": 2,
        "local": LocalTraining(batch_size=8, learning_rate=0.1),
    }
    return RunTerms(**{**given, **changes})


def run_envelope(author: Identity, run: RunTerms) -> Envelope:
    return envelope(seal_envelope(author, RUN_TYPE, encode_terms(run)))


def model_after(start: RoundStart) -> str:
    """What this world's peers agree that a round gives."""
    return hashlib.sha256(bytes.fromhex(start.model_digest) + start.round.to_bytes(4, "little")).hexdigest()


METRICS = json.dumps({"examples": 10, "loss": 0.5}).encode()


class Node:
    """A node that consents to everything, and rounds that take no time."""

    def __init__(self, session: SignalingSession, who: Identity) -> None:
        self.session = session
        self.identity = who
        self.seen: asyncio.Queue = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.session.events():
            self.seen.put_nowait(event)

    async def next(self, kind, *, within_s: float = 60):
        """The next event of a type; others before it are let go."""
        async with asyncio.timeout(within_s):
            while True:
                event = await self.seen.get()
                if isinstance(event, kind):
                    return event

    def signature(self, start: RoundStart, model: str, survivors, metrics=METRICS) -> MemberSignature:
        ids = [member.peer for member in start.members]
        return MemberSignature(
            index=ids.index(self.identity.peer_id),
            signature=sign_result(
                self.identity,
                round_id=start.round_id,
                model_digest=model,
                survivors=survivors,
                metrics=metrics,
            ),
        )

    async def report(self, start: RoundStart, *, model: str | None = None, survivors=None, signatures=None):
        model = model or model_after(start)
        survivors = tuple(range(len(start.members))) if survivors is None else survivors
        await self.session.result(
            start.run,
            round_number=start.round,
            attempt=start.attempt,
            model_digest=model,
            survivors=survivors,
            metrics=METRICS,
            signatures=signatures or (self.signature(start, model, survivors),),
        )

    async def join(self, run: str, *, round_number: int = 0, model: str) -> None:
        await self.session.accept(run)
        await self.session.ready(run, round_number=round_number, model_digest=model)

    async def close(self) -> None:
        await self.session.close()
        await self._reader


class World:
    """`async with`: a running server; everything opened through it is closed at the end."""

    def __init__(self, config: SignalingConfig) -> None:
        self.config = config
        self.server: Server | None = None
        self._nodes: list[Node] = []

    async def __aenter__(self) -> Self:
        self.server = await serve(self.config)
        port = int(self.server.url.rpartition(":")[2])
        self.config = dataclasses.replace(self.config, port=port)
        return self

    async def __aexit__(self, *_) -> None:
        for node in self._nodes:
            await node.close()
        if self.server is not None:
            await self.server.close()

    @property
    def url(self) -> str:
        return f"ws://{self.config.host}:{self.config.port}"

    async def stop(self) -> None:
        await self.server.close()
        self.server = None

    async def start(self) -> None:
        self.server = await serve(self.config)

    async def node(self, name: str, *, registered: bool = True, options=OPTIONS) -> Node:
        who = identity(name)
        node = Node(await SignalingSession.connect(self.url, who, options=options), who)
        self._nodes.append(node)
        if registered:
            await node.session.register((dataset(),), sealing_key=bytes(32))
        return node

    async def author(self) -> Node:
        return await self.node("author", registered=False)

    async def open_run(self, author: Node, **changes):
        plan = await publish(author.session, plan_envelope(author.identity), {digest_of(GRAPH): GRAPH})
        return await author.session.open_run(run_envelope(author.identity, terms(plan, **changes)))

    async def cohort(self, count: int, **changes):
        """An author, a run with room for just these nodes, and they, ready: all are in its first cohort."""
        author = await self.author()
        status = await self.open_run(author, **{"cohort_size": count, **changes})
        nodes = [await self.node(f"node-{i}") for i in range(count)]
        for node in nodes:
            await node.join(status.run, model=status.model_digest)
        return author, status, nodes
