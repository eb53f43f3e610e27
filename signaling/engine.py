"""The registry's hands: one clock, one timer, one thread for the store, and what is sent only after it is stored."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog

from protocol.identity import short
from protocol.signaling import Error, Relayed, Request, RoundLogged, encode_message
from protocol.signaling.rounds import GoneReason
from signaling.blobs import BlobFolder
from signaling.config import SignalingConfig
from signaling.errors import RefusedError
from signaling.folder import Folder
from signaling.metrics import Metrics
from signaling.outbox import Outbox, Send
from signaling.registry import Registry
from signaling.restore import restore_runs
from signaling.store import Store

__all__ = ["Engine", "Link"]

_T = TypeVar("_T")
_log = structlog.get_logger("signaling")


class Link(Protocol):
    """An authenticated connection, as the engine needs it."""

    def push(self, text: str) -> None:
        """Hand a text frame to the transport at once, or drop the connection where too much is waiting."""

    def replace(self) -> None:
        """Close it: the same peer has connected again."""


class Engine:
    """Runs one registry on the running event loop."""

    def __init__(self, config: SignalingConfig, folder: Folder) -> None:
        self.config = config
        self.identity = folder.identity
        self.metrics = Metrics()
        self.blobs = BlobFolder(folder.blobs)
        self.registry = Registry(limits=config.limits, timing=config.timing, new_id=lambda: secrets.token_hex(32))
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the store does; the server then ends, since it must not announce what it cannot store."""
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._store_thread = ThreadPoolExecutor(1, "signaling-store")
        self._file_threads = ThreadPoolExecutor(2, "signaling-files")
        self._links: dict[str, Link] = {}
        self._queue: deque[Outbox] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._offset = time.time() - time.monotonic()
        self._closed = False

    def now(self) -> float:
        """Seconds since 1970; never jumps, whatever happens to the system's clock."""
        return self._offset + time.monotonic()

    async def start(self) -> None:
        """Open the store and take up the runs it holds.

        Raises:
            StoreError: it cannot be opened.
        """
        self._store = await self._loop.run_in_executor(
            self._store_thread, lambda: Store(self._folder.database, synchronous=self.config.synchronous)
        )
        kept = self.config.limits.ended_runs_in_memory
        stored = await self.in_store(lambda store: restore_runs(store, ended=kept))
        now = self.now()
        for item in stored:
            machine = self.registry.restore_run(item.facts, item.row.model_digest, round_number=item.row.round)
            machine.restore(item.attempts, state=item.row.state, reason=item.row.reason, now=now)
            self.registry.reindex(machine)
        self.metrics.gauge("peers", "Authenticated peers.", lambda: self.registry.online)
        self.metrics.gauge("nodes", "Peers registered as nodes.", lambda: self.registry.nodes)
        self.metrics.gauge("open_runs", "Runs waiting or running.", self.registry.open_runs)
        self._arm()

    async def close(self) -> None:
        """Store what is queued, then close the store. Connections must be closed before."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await self._flushing
        with contextlib.suppress(AttributeError):  # start() failed before the store was open
            await self._loop.run_in_executor(self._store_thread, self._store.close)
        self._store_thread.shutdown()
        self._file_threads.shutdown()
        self._folder.close()
        if not self.failed.done():
            self.failed.cancel()

    async def in_store(self, call: Callable[[Store], _T]) -> _T:
        """Run a blocking call on the store's thread."""
        return await self._loop.run_in_executor(self._store_thread, lambda: call(self._store))

    async def in_thread(self, call: Callable[[], _T]) -> _T:
        """Run another blocking call: files and hashes."""
        return await self._loop.run_in_executor(self._file_threads, call)

    # --- events ------------------------------------------------------------------------------------------------

    def connected(self, peer: str, link: Link) -> None:
        """An authenticated connection takes its peer's place."""
        older = self._links.get(peer)
        if older is not None:
            self.metrics.dropped.labels("replaced").inc()
            older.replace()
            self.disconnected(peer, older, "replaced")
        self._links[peer] = link
        self.deliver(self.registry.connected(peer))

    def disconnected(self, peer: str, link: Link, reason: GoneReason) -> None:
        """A connection ended; nothing happens where another has taken its place."""
        if self._links.get(peer) is link:
            del self._links[peer]
            self.deliver(self.registry.disconnected(peer, reason, self.now()))

    def perform(self, peer: str, request: Request) -> None:
        """Carry out a request of the registry's and send its reply or error."""
        try:
            out = self.registry.handle(peer, request, self.now())
        except RefusedError as error:
            self.refuse(peer, request.id, error)
            return
        self.deliver(out)

    def refuse(self, peer: str, request_id: int | None, error: RefusedError) -> None:
        """Tell a peer why not."""
        self.metrics.errors.labels(error.code).inc()
        _log.info("refused", peer=short(peer), code=error.code, reason=str(error))
        self._send(Send((peer,), Error(re=request_id, code=error.code, message=str(error)[:2048])))

    def deliver(self, out: Outbox) -> None:
        """Send now where nothing must be stored first and nothing is queued; relayed messages never wait."""
        urgent = len(out.sends) == 1 and isinstance(out.sends[0].message, Relayed)
        if urgent or not (out.writes or self._queue):
            for send in out.sends:
                self._send(send)
        else:
            self._queue.append(out)
            if self._flushing is None:
                self._flushing = self._loop.create_task(self._flush())
        if not urgent:
            self._arm()

    # --- inside ------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Store everything queued in one transaction, send it, and begin again until nothing is left."""
        try:
            while self._queue:
                batch = list(self._queue)
                writes = [write for out in batch for write in out.writes]
                if writes:
                    await self.in_store(functools.partial(Store.apply, writes=writes))
                for out in batch:
                    self._queue.popleft()
                    for send in out.sends:
                        self._send(send)
        except Exception as error:  # noqa: BLE001 (handed to whoever runs the server)
            _log.error("store failed", reason=str(error))
            if not self.failed.done():
                self.failed.set_exception(error)
        finally:
            self._flushing = None

    def _send(self, send: Send) -> None:
        links = [link for peer in send.peers if (link := self._links.get(peer)) is not None]
        if not links:
            return
        match send.message:
            case RoundLogged(entry=entry):
                _log.info("round logged", run=short(entry.run), round=entry.round, seconds=round(entry.seconds, 3))
                self.metrics.rounds.inc()
            case Relayed(payload=payload):
                self.metrics.relayed.inc(len(payload))
            case _:
                pass
        text = encode_message(send.message)
        for link in links:
            link.push(text)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        at = self.registry.next_deadline()
        if at is not None:
            self._timer = self._loop.call_later(max(0.0, at - self.now()), self._due)

    def _due(self) -> None:
        self._timer = None
        self.deliver(self.registry.timer(self.now()))
