"""The signaling server as its own process: idle connections, relay rate and latency, and the turn of a round.

`python -m benchmarks.signaling [--json] [--connections N] [--messages N] [--rounds N] [--trips N] [--idle-s S]`
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import structlog

from benchmarks.measure import at_least, options_of, print_report, summary
from benchmarks.resident import cpu_s, memory
from protocol.encoding import Hex64, decode_json, digest_of
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, seal_envelope
from protocol.identity import Identity
from protocol.manifest import Blob as ListedBlob
from protocol.manifest import DataField, DatasetSchema, Function, PlanManifest, Training, encode_manifest
from protocol.signaling import MemberSignature, Relayed, RoundStart, sign_result
from protocol.terms import LocalTraining, RunTerms, encode_terms
from python_node.loop import run
from python_node.signaling_blobs import publish
from python_node.signaling_handshake import Dial, Opened, dial
from python_node.signaling_link import SignalingSession

GRAPH = b"a graph"
SERVER = """
import logging, sys, pathlib, structlog, signaling
structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)
config = signaling.SignalingConfig(
    folder=pathlib.Path(sys.argv[1]), port=0,
    limits=signaling.Limits(messages_per_s=1e6, message_burst=1_000_000, connections_per_address=100_000),
    timing=signaling.Timing(gather_s=0.2, heartbeat_s=15),
)
signaling.run(config, on_listening=lambda server: print(server.url, flush=True))
"""

_Event = TypeVar("_Event")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much of each is measured."""

    connections: int
    messages: int
    rounds: int
    trips: int
    idle_s: int


def fields() -> tuple[DataField, ...]:
    return (DataField(name="x", dtype="float32", shape=(4,)),)


async def idle(url: str, pid: int, count: int, window_s: int) -> dict[str, Any]:
    """Connect `count` peers at most 50 at a time, then watch the server do nothing."""
    before_mib, before_s = memory(pid, "VmRSS") / 1024**2, cpu_s(pid)
    began = time.perf_counter()
    gate = asyncio.Semaphore(50)

    async def one() -> Opened:
        async with gate:
            where = Dial(url=url, heartbeat_s=60, heartbeat_timeout_s=60, open_timeout_s=60)
            return await dial(where, Identity(secrets.token_bytes(32)))

    opened = await asyncio.gather(*(one() for _ in range(count)))
    took_s = time.perf_counter() - began
    connect_cpu_s = cpu_s(pid) - before_s
    after_mib = memory(pid, "VmRSS") / 1024**2
    idle_from_s = cpu_s(pid)
    await asyncio.sleep(window_s)  # the thing measured is doing nothing for this long
    idle_cpu_s = cpu_s(pid) - idle_from_s
    await asyncio.gather(*(item.socket.close() for item in opened))
    return {
        "connections": count,
        "connects_per_s": count / took_s,
        "server_cpu_ms_per_connect": 1e3 * connect_cpu_s / count,
        "server_kib_per_connection": 1024 * (after_mib - before_mib) / count,
        "server_rss_mib": after_mib,
        "server_cpu_share_idle": idle_cpu_s / window_s,
    }


class Cohort:
    """An author's run and `count` ready members."""

    def __init__(self, url: str, count: int, rounds: int) -> None:
        self.url, self.count, self.rounds = url, count, rounds
        self.sessions: list[SignalingSession] = []

    async def __aenter__(self) -> Self:
        author = Identity(secrets.token_bytes(32))
        owner = await SignalingSession.connect(self.url, author)
        self.owner = owner
        plan = self._plan()
        sealed = seal_envelope(author, PLAN_TYPE, encode_manifest(plan))
        digest = await publish(owner, self._envelope(sealed), {digest_of(GRAPH): GRAPH})
        terms = RunTerms(
            name="bench", plan=digest, nonce=secrets.token_hex(32), rounds=self.rounds, cohort_size=self.count,
            min_cohort=3, min_survivors=3, value_bits=12, clip=1.0,
            local=LocalTraining(batch_size=8, learning_rate=0.1),
        )  # fmt: skip
        status = await owner.open_run(self._envelope(seal_envelope(author, RUN_TYPE, encode_terms(terms))))
        self.ids = [Identity(secrets.token_bytes(32)) for _ in range(self.count)]
        for who in self.ids:
            session = await SignalingSession.connect(self.url, who)
            await session.register((DatasetSchema(name="d", fields=fields()),))
            await session.accept(status.run)
            await session.ready(status.run, round_number=0, model_digest=status.model_digest)
            self.sessions.append(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in [*self.sessions, self.owner]:
            await session.close()

    def _plan(self) -> PlanManifest:
        graph: Hex64 = digest_of(GRAPH)
        return PlanManifest(
            name="bench", version=secrets.token_hex(4), opset=18, inputs=fields(), targets=(), parameters=(),
            parameter_count=0,
            optimizer_count=0, buffer_count=0, metrics=(),
            training=Training(optimizer="sgd", learning_rate=0.1, batch_size=8),
            functions={"train": Function(graph=graph, inputs=(), outputs=())}, initial={},
            blobs=(ListedBlob(digest=graph, size=len(GRAPH), role="graph"),),
        )  # fmt: skip

    @staticmethod
    def _envelope(data: bytes) -> Envelope:
        return decode_json(data, Envelope, what="envelope", max_bytes=1 << 20)


async def next_of(session: SignalingSession, kind: type[_Event]) -> _Event:
    async for event in session.events():
        if isinstance(event, kind):
            return event
    raise RuntimeError("the session ended")


async def relays(url: str, pid: int, messages: int, size: int, round_trips: int) -> dict[str, Any]:
    """One member sends to another, with at most 64 underway; then one message at a time, there and back."""
    async with Cohort(url, 3, 1) as cohort:
        start = await next_of(cohort.sessions[0], RoundStart)
        a, b = cohort.sessions[:2]
        payload, underway = secrets.token_bytes(size), asyncio.Semaphore(64)

        async def receive() -> None:
            left = messages
            async for event in b.events():
                if isinstance(event, Relayed):
                    underway.release()
                    left -= 1
                    if not left:
                        return

        receiver = asyncio.create_task(receive())
        cpu, began = cpu_s(pid), time.perf_counter()
        for _ in range(messages):
            await underway.acquire()
            a.relay(b.peer_id, start.round_id, "sealed", payload)
        await receiver
        took_s, cpu = time.perf_counter() - began, cpu_s(pid) - cpu
        trips = []
        for _ in range(round_trips):
            at = time.perf_counter()
            a.relay(b.peer_id, start.round_id, "sealed", payload)
            await next_of(b, Relayed)
            b.relay(a.peer_id, start.round_id, "sealed", payload)
            await next_of(a, Relayed)
            trips.append(1e3 * (time.perf_counter() - at))
        return {
            "payload_bytes": size,
            "relayed_per_s": messages / took_s,
            "server_cpu_us_per_message": 1e6 * cpu / messages,
            "there_and_back_ms": summary(trips),
        }


async def turns(url: str, count: int, rounds: int) -> dict[str, Any]:
    """Members report as soon as a round starts: what is left is the signaling server's share of a round."""
    async with Cohort(url, count, rounds) as cohort:
        starts: list[float] = []

        async def member(session: SignalingSession, who: Identity) -> None:
            done = 0
            async for event in session.events():
                if isinstance(event, RoundStart):
                    if session is cohort.sessions[0]:
                        starts.append(time.perf_counter())
                    await report(session, who, event)
                    done += 1
                    if done == rounds:
                        return

        await asyncio.gather(*(member(s, i) for s, i in zip(cohort.sessions, cohort.ids, strict=True)))
        gaps = [1e3 * (b - a) for a, b in itertools.pairwise(starts)]
        return {"members": count, "round_ms": summary(gaps)}


async def report(session: SignalingSession, who: Identity, start: RoundStart) -> None:
    survivors = tuple(range(len(start.members)))
    model = digest_of(start.round_id.encode())
    index = [item.peer for item in start.members].index(who.peer_id)
    signature = sign_result(who, round_id=start.round_id, model_digest=model, survivors=survivors, metrics=b"{}")
    await session.result(
        start.run, round_number=start.round, attempt=start.attempt, model_digest=model, survivors=survivors,
        metrics=b"{}", signatures=(MemberSignature(index=index, signature=signature),),
    )  # fmt: skip


async def measure(url: str, pid: int, counts: Counts) -> dict[str, Any]:
    return {
        # first: later on, freed memory would be reused
        "idle": await idle(url, pid, counts.connections, counts.idle_s),
        "turn_of_5": await turns(url, 5, counts.rounds),
        "relay_1k": await relays(url, pid, counts.messages, 1024, counts.trips),
        "relay_16k": await relays(url, pid, -(-counts.messages // 4), 16 << 10, counts.trips),
    }


def beside_a_server(counts: Counts) -> dict[str, Any]:
    """Start the server's process, measure, and stop it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * counts.connections + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted)), hard))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SERVER, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                if not url:
                    raise RuntimeError(f"the server ended at its start with status {process.wait()}")
                return run(measure(url, process.pid, counts))
            finally:
                process.terminate()


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--connections", type=at_least(1), default=1000, help="idle ones; default: %(default)s")
    parser.add_argument(
        "--messages", type=at_least(1), default=20_000, help="of 1 KiB, a quarter as many of 16; default: %(default)s"
    )
    parser.add_argument("--rounds", type=at_least(2), default=50, help="that are turned; default: %(default)s")
    parser.add_argument("--trips", type=at_least(1), default=300, help="there and back; default: %(default)s")
    parser.add_argument(
        "--idle-s", type=at_least(1), default=20, help="seconds the server is watched idle; default: %(default)s"
    )
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    counts = Counts(**{name: getattr(options, name) for name in Counts.__dataclass_fields__})
    figures = beside_a_server(counts)
    settings = asdict(counts) | {"server": "own process, loopback, no TLS, SQLite FULL"}
    print_report("signaling", settings=settings, figures=figures, as_json=options.json)


if __name__ == "__main__":
    main()
