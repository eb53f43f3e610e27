"""One link between two processes on this machine: set-up, round trip, throughput, and what a message costs.

`python -m benchmarks.links [--json] [--repeats N]`. The other process is this module again, with `--peer`; what
the two negotiate goes in lines over its stdin and stdout. Each figure is measured with the library's transports and
with the faster ones in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from benchmarks.measure import at_least, options_of, print_report, summary
from protocol.errors import LinkError
from protocol.identity import Identity, PeerId
from python_node import loop
from python_node.mesh import Mesh, MeshConfig, MessageKind

HERE, THERE = Identity(bytes([2]) * 32), Identity(bytes([1]) * 32)
SMALL_BYTES = 200
BURST = 10
"""Small messages that are sent before the other side's answer is waited for, as in a round with 11 peers."""
BULK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each thing is done."""

    links: int
    pings: int
    small: int
    bulks: int


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def peer(*, fast: bool) -> None:
    """The other side: echoes control messages, answers the last of some bulk, reports its CPU time when asked."""

    async def send_signal(_to: str, kind: str, payload: bytes) -> None:
        sys.stdout.write(json.dumps([kind, payload.hex()]) + "\n")
        sys.stdout.flush()

    def on_message(sender: PeerId, kind: MessageKind, payload: bytes | memoryview) -> None:
        wanted = bytes(payload[:1])
        if kind is MessageKind.BULK:
            if wanted == b"e":
                mesh.send(sender, MessageKind.CONTROL, b"all")
        elif wanted == b"c":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            mesh.send(sender, MessageKind.CONTROL, json.dumps([cpu_s(), usage.ru_maxrss]).encode())
        elif wanted == b"e":
            mesh.send(sender, MessageKind.CONTROL, bytes(payload))

    mesh = Mesh(THERE, send_signal=send_signal, on_message=on_message, config=MeshConfig(fast_sctp=fast))
    mesh.set_bulk_limit(BULK_BYTES)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        kind, payload = json.loads(line)
        mesh.receive_signal(HERE.peer_id, kind, bytes.fromhex(payload))
    await mesh.close()


class Bench:
    """This side: a mesh, the other process, and what came back."""

    def __init__(self, counts: Counts, *, fast: bool) -> None:
        self._counts = counts
        self._fast = fast
        self._expected_end = False
        self._answers: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        arguments = ["-m", "benchmarks.links", "--peer", *(["--fast"] if self._fast else [])]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_peer, self._from_peer = self._process.stdin, self._process.stdout
        self.mesh = Mesh(
            HERE,
            send_signal=self._send_signal,
            on_message=lambda _peer, _kind, payload: self._answers.put_nowait(bytes(payload)),
            on_link=self._on_link,
            config=MeshConfig(fast_sctp=self._fast),
        )
        self._pump = asyncio.create_task(self._relay())
        await self.mesh.connect([THERE.peer_id], timeout_s=30)  # The other process is up once this link is.
        return self

    async def __aexit__(self, *_: object) -> None:
        self._expected_end = True
        await self.mesh.close()
        self._to_peer.close()
        await self._process.wait()
        await self._pump

    async def _send_signal(self, _to: str, kind: str, payload: bytes) -> None:
        self._to_peer.write((json.dumps([kind, payload.hex()]) + "\n").encode())

    async def _relay(self) -> None:
        while line := await self._from_peer.readline():
            kind, payload = json.loads(line)
            self.mesh.receive_signal(THERE.peer_id, kind, bytes.fromhex(payload))

    def _on_link(self, _peer: str, up: bool, reason: str) -> None:  # noqa: FBT001 (the mesh's callback)
        if not up and not self._expected_end:
            self._answers.put_nowait(LinkError(reason))

    def send(self, payload: bytes, kind: MessageKind = MessageKind.CONTROL) -> None:
        """Send one message to the other process."""
        self.mesh.send(THERE.peer_id, kind, payload)

    async def answer(self) -> bytes:
        """The next message of the other process."""
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def their_cpu_and_memory(self) -> tuple[float, int]:
        """CPU seconds of the other process so far, and its peak memory in KiB."""
        self.send(b"c")
        cpu, peak_kib = json.loads(await self.answer())
        return cpu, peak_kib

    async def setup_ms(self) -> list[float]:
        """From nothing to a link that is proven, several times."""
        samples = []
        for _ in range(self._counts.links):
            self._expected_end = True
            await self.mesh.release([THERE.peer_id])
            self._expected_end = False
            began = time.perf_counter()
            result = await self.mesh.connect([THERE.peer_id], timeout_s=30)
            if result.failed:
                raise result.failed[THERE.peer_id]
            samples.append((time.perf_counter() - began) * 1e3)
        return samples

    async def round_trip_ms(self) -> list[float]:
        """One small message there and back."""
        samples = []
        for _ in range(self._counts.pings):
            began = time.perf_counter()
            self.send(b"e" + bytes(SMALL_BYTES - 1))
            await self.answer()
            samples.append((time.perf_counter() - began) * 1e3)
        return samples

    async def small_message_us(self) -> tuple[float, float]:
        """CPU per small message, sender and receiver: bursts one way, one answer per burst."""
        theirs, _ = await self.their_cpu_and_memory()
        mine = cpu_s()
        bursts = -(-self._counts.small // BURST)
        for _ in range(bursts):
            for _ in range(BURST - 1):
                self.send(b"-" + bytes(SMALL_BYTES - 1))
            self.send(b"e" + bytes(SMALL_BYTES - 1))
            await self.answer()
        mine = cpu_s() - mine
        theirs = (await self.their_cpu_and_memory())[0] - theirs
        return mine / (bursts * BURST) * 1e6, theirs / (bursts * BURST) * 1e6

    async def bulk(self) -> tuple[float, float, float]:
        """MB/s, and CPU in ms per MB of sender and receiver."""
        data = secrets.token_bytes(BULK_BYTES - 1)
        *rest, last = [b"-" + data] * (self._counts.bulks - 1) + [b"e" + data]
        theirs, _ = await self.their_cpu_and_memory()
        mine, began = cpu_s(), time.perf_counter()
        for block in rest:
            self.send(block, MessageKind.BULK)
        self.send(last, MessageKind.BULK)
        await self.answer()
        wall, mine = time.perf_counter() - began, cpu_s() - mine
        theirs = (await self.their_cpu_and_memory())[0] - theirs
        megabytes = self._counts.bulks * BULK_BYTES / 1e6
        return megabytes / wall, mine / megabytes * 1e3, theirs / megabytes * 1e3


async def measure(counts: Counts, *, fast: bool, repeats: int) -> dict[str, Any]:
    async with Bench(counts, fast=fast) as bench:
        setups = await bench.setup_ms()
        round_trips = await bench.round_trip_ms()
        small = [await bench.small_message_us() for _ in range(repeats)]
        bulk = [await bench.bulk() for _ in range(repeats)]
        peak_kib = (await bench.their_cpu_and_memory())[1]
    return {
        "setup_ms": summary(setups),
        "round_trip_ms": summary(round_trips),
        "small_sender_cpu_us": summary([s for s, _ in small]),
        "small_receiver_cpu_us": summary([r for _, r in small]),
        "mb_per_s": summary([b[0] for b in bulk]),
        "sender_cpu_ms_per_mb": summary([b[1] for b in bulk]),
        "receiver_cpu_ms_per_mb": summary([b[2] for b in bulk]),
        "receiver_peak_mib": round(peak_kib / 1024, 1),
    }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Medians, for people."""
    for name, row in figures.items():
        yield name
        for figure, value in row.items():
            shown = value if isinstance(value, float) else value["median"]
            yield f"  {figure:24} {shown:9.3f}"


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument(
        "--repeats", type=at_least(1), default=5, help="of small messages and bulk; default: %(default)s"
    )
    for name, count, help_text in (
        ("links", 5, "set-ups of the link"),
        ("pings", 300, "round trips"),
        ("small", 3000, "small messages per repeat"),
        ("bulks", 64, "messages of 1 MiB per repeat"),
    ):
        parser.add_argument(f"--{name}", type=at_least(1), default=count, help=f"{help_text}; default: %(default)s")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fast", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        loop.run(peer(fast=options.fast))
        return
    counts = Counts(links=options.links, pings=options.pings, small=options.small, bulks=options.bulks)
    figures = {
        name: loop.run(measure(counts, fast=fast, repeats=options.repeats))
        for name, fast in (("library_transports", False), ("faster_transports", True))
    }
    settings = {
        "event_loop": loop.loop_name(),
        "small_message_bytes": SMALL_BYTES,
        "burst": BURST,
        "bulk_bytes": BULK_BYTES,
        **asdict(counts),
    }
    print_report("links", settings=settings, figures=figures, as_json=options.json, lines=lines)


if __name__ == "__main__":
    main()
