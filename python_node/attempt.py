"""One attempt at a round: drives the p2psa/1 machine over the mesh, with the heavy work in threads.

The machine says what to do and in which order; here a `Persist` holds back everything after it until it is on disk.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocol.errors import LimitExceededError, LinkError, ProtocolError, RoundError
from protocol.identity import Identity, PeerId
from protocol.link import MessageKind
from protocol.round.actions import (
    Action,
    Completed,
    Failed,
    Misbehaviour,
    Persist,
    Revealed,
    Send,
    StageEntered,
    Work,
)
from protocol.round.combining import group_sum, group_sum_digest
from protocol.round.jobs import GroupSum, LocalUpdate, MaskJob, tail_bytes
from protocol.round.machine import RoundMachine, randomness_bytes
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.server_optimizer import ServerOptimizer, moment_count
from protocol.signaling import RoundStart
from protocol.terms import Deadlines
from python_node.errors import NodeError, StateError
from python_node.mesh import Mesh

__all__ = ["UNTRAINED", "UNWRITTEN", "Attempt", "AttemptReport", "Faults"]

UNWRITTEN = "this node cannot write its state"
"""What others are told of a full or broken disk; which folder and why is the owner's to know."""

UNTRAINED = "this node's training failed"
"""What others are told of it: ONNX Runtime's words hold numbers that an author's graph made of the owner's data."""

Model = NDArray[np.float32]
_EARLY_MESSAGES = 64


@dataclass(frozen=True, kw_only=True)
class AttemptReport:
    """How an attempt ended on this peer. `failure` is why it failed, and `told` what others may know of that.

    `model` and `tail` are set where `completed` is, or `total`, for a group among many cohorts; `seconds` by stage:
    link, train, mask, exchange, unmask, total;
    bytes are those of all links between the attempt's start and its end.
    """

    completed: Completed | None
    failure: str | None
    told: str | None
    model: Model | None
    total: GroupSum | None
    tail: bytes
    seconds: dict[str, float]
    bytes_sent: int
    bytes_received: int
    faults: tuple[tuple[PeerId, str], ...]


@dataclass
class Faults:
    """Messages of peers that were refused, newest last; bounded."""

    items: deque[tuple[PeerId, str]] = field(default_factory=lambda: deque(maxlen=64))


class Attempt:
    """A peer's part in one attempt. Make it when the cohort is named, feed it messages, await `run`."""

    def __init__(
        self,
        *,
        parameters: RoundParameters,
        identity: Identity,
        mesh: Mesh,
        deadlines: Deadlines,
        checkpoint: Model,
        optimizer: ServerOptimizer,
        parameter_count: int,
        record: Callable[[str, str, str], None],
        contribute: Callable[[], Awaitable[LocalUpdate | GroupSum]],
        group: bool = False,
    ) -> None:
        """Prepare; `record(round_id, entry, detail)` must be durable on return and is called in a thread.

        Args:
            parameters: the round's parameters, cohort included.
            identity: this peer.
            mesh: links to others.
            deadlines: from the run's terms.
            checkpoint: float32 [P + B + moments], the model that enters the round.
            optimizer: from the run's terms; what the aggregate is applied with.
            parameter_count: P.
            record: writes the journal.
            contribute: gives this peer's update, or its group's sum; started at once, in parallel with linking.
            group: the cohort's sum is one of several (spec 08): it is kept for a delegate to put in, not applied.
        """
        self.parameters = parameters
        self._mesh = mesh
        self._deadlines = deadlines
        self._checkpoint = checkpoint
        self._optimizer, self._parameter_count = optimizer, parameter_count
        self._model_length = len(checkpoint) - moment_count(optimizer, parameter_count)
        self._record = record
        self._contribute = contribute
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._machine = RoundMachine(
            parameters=parameters,
            identity=identity,
            fingerprint=bytes.fromhex(mesh.fingerprint),
            deadlines=deadlines,
            randomness=os.urandom(randomness_bytes(parameters)),
        )
        self._indexes = {peer: index for index, peer in enumerate(parameters.cohort) if peer != identity.peer_id}
        self._queue: deque[Action] = deque()
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[Completed | Failed] = self._loop.create_future()
        self._model: Model | None = None
        self._digest: str | None = None
        self._total: GroupSum | None = None
        self._tail = b""
        self._marks: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._faults = Faults()
        self._unwritten: StateError | None = None
        self._untrained: str | None = None
        self._gone: dict[PeerId, asyncio.Event] = {peer: asyncio.Event() for peer in self._indexes}

    @property
    def others(self) -> tuple[PeerId, ...]:
        """The cohort without this peer."""
        return tuple(self._indexes)

    def led_to(self, start: RoundStart) -> bool:
        """Whether a round begins with this attempt's result: the others agree, which is still on its way here."""
        return self._digest is not None and start.model_digest == self._digest

    @property
    def ended(self) -> bool:
        """Whether `run` has its outcome."""
        return self._ended.done()

    async def run(self) -> AttemptReport:
        """Link, start and wait for the end; the attempt goes on answering others until `close`.

        Raises:
            StateError: what had to be on disk first could not be written; the others were told that it failed.
        """
        begun = time.perf_counter()
        self._marks["begun"] = begun
        total = self._mesh.total
        sent, received = total.bytes_sent, total.bytes_received
        training = self._spawn(self._provide_update())
        await self._link()
        self._marks["linked"] = time.perf_counter()
        self._seconds["link"] = self._marks["linked"] - begun
        self._feed(self._machine.start)
        try:
            outcome = await self._ended
        finally:
            training.cancel()
        if self._unwritten is not None:
            raise self._unwritten
        self._seconds["total"] = time.perf_counter() - begun
        total = self._mesh.total
        failure = outcome.reason if isinstance(outcome, Failed) else None
        return AttemptReport(
            completed=outcome if isinstance(outcome, Completed) else None,
            failure=failure,
            told=UNTRAINED if failure is not None and failure == self._untrained else failure,
            model=self._model if isinstance(outcome, Completed) else None,
            total=self._total if isinstance(outcome, Completed) else None,
            tail=self._tail,
            seconds=self._stage_seconds(),
            bytes_sent=total.bytes_sent - sent,
            bytes_received=total.bytes_received - received,
            faults=tuple(self._faults.items),
        )

    def receive(self, peer: PeerId, payload: bytes | memoryview, *, bulk: bool) -> None:
        """A round message came from a peer; it may be from outside the cohort."""
        index = self._indexes.get(peer)
        if index is not None:
            self._feed(lambda now: self._machine.receive(index, payload, bulk=bulk, now=now))

    def link_changed(self, peer: PeerId, *, up: bool) -> None:
        """A link to a peer came or went."""
        index = self._indexes.get(peer)
        if index is None:
            return
        if up:
            try:
                fingerprint = bytes.fromhex(self._mesh.remote_fingerprint(peer))
            except LinkError:
                return  # it went again already; that has its own event
            self._feed(lambda now: self._machine.link_up(index, fingerprint, now))
        else:
            self._feed(lambda now: self._machine.link_down(index, now))

    def peer_gone(self, peer: PeerId) -> None:
        """Signaling lost a member: do not wait for a first link to it."""
        event = self._gone.get(peer)
        if event is not None:
            event.set()

    def abort(self, reason: str) -> None:
        """End the attempt from outside; others are told."""
        self._feed(lambda now: self._machine.fail(reason, now))

    def close(self) -> None:
        """Stop answering; whatever is under way is dropped."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._queue.clear()
        self._blocked = True
        if not self._ended.done():
            self._ended.set_result(Failed("the node stopped"))

    # Linking and training.

    async def _link(self) -> None:
        async def one(peer: PeerId) -> None:
            linking = asyncio.ensure_future(self._mesh.connect([peer], timeout_s=self._deadlines.link_ms / 1000))
            gone = asyncio.ensure_future(self._gone[peer].wait())
            await asyncio.wait({linking, gone}, return_when=asyncio.FIRST_COMPLETED)
            for task in (linking, gone):
                task.cancel()
            self.link_changed(peer, up=peer in self._mesh.linked)

        await asyncio.gather(*(one(peer) for peer in self._indexes))

    async def _provide_update(self) -> None:
        begun = time.perf_counter()
        try:
            update = await self._contribute()
        except ProtocolError as error:
            self._untrained = f"local training failed: {error}"
            self.abort(self._untrained)
            return
        self._seconds["train"] = time.perf_counter() - begun
        self._feed(lambda now: self._machine.provide_update(update, now))

    # The machine's actions.

    def _feed(self, call: Callable[[float], None]) -> None:
        call(self._mesh.clock.now())
        self._queue += self._machine.actions()
        self._work_off()
        self._set_timer()

    def _work_off(self) -> None:
        while self._queue and not self._blocked:
            action = self._queue.popleft()
            match action:
                case Send(to=to, data=data, bulk=bulk):
                    self._send(to, data, bulk=bulk)
                case Persist(entry=entry, detail=detail):
                    self._blocked = True
                    self._spawn(self._persist(entry, detail))
                case Work():
                    self._spawn(self._work(action))
                case Revealed(aggregate=aggregate):
                    self._spawn(self._take_sum(aggregate) if self._group else self._apply(aggregate))
                case StageEntered(stage=stage):
                    self._marks.setdefault(stage, time.perf_counter())
                case Misbehaviour(peer=index, reason=reason):
                    self._faults.items.append((self.parameters.cohort[index], reason))
                case Completed() | Failed():
                    if not self._ended.done():
                        self._ended.set_result(action)

    def _send(self, to: int, data: bytes, *, bulk: bool) -> None:
        peer = self.parameters.cohort[to]
        try:
            self._mesh.send(peer, MessageKind.BULK if bulk else MessageKind.CONTROL, data)
        except LinkError:
            return  # the link's end has its own event, and the machine sends again when the link is back
        except LimitExceededError as error:
            self._faults.items.append((peer, str(error)))
            self._loop.call_soon(lambda: self.link_changed(peer, up=False))

    async def _persist(self, entry: str, detail: str) -> None:
        await asyncio.to_thread(self._record, self.parameters.round_id, entry, detail)
        self._blocked = False
        self._feed(lambda _now: None)

    async def _work(self, work: Work) -> None:
        begun = time.perf_counter()
        outcome: object
        try:
            outcome = await asyncio.to_thread(work.job)
        except RoundError as error:
            outcome = error
        if isinstance(work.job, MaskJob):  # sums are part of the stages they happen in
            self._seconds["mask"] = time.perf_counter() - begun
        self._feed(lambda now: self._machine.finish_work(work.number, outcome, now))

    async def _take_sum(self, aggregate: Aggregate) -> None:
        """Among many cohorts, the sum is the result: nothing of one group is applied, and its metrics stay in it."""

        def take() -> tuple[GroupSum, str]:
            total = group_sum(aggregate, self.parameters, model_length=self._model_length)
            return total, group_sum_digest(total)

        self._total, digest = await asyncio.to_thread(take)
        self._feed(lambda now: self._machine.provide_result(digest, b"", now))

    async def _apply(self, aggregate: Aggregate) -> None:
        def apply() -> tuple[Model, str]:
            model = apply_aggregate(
                self._checkpoint,
                aggregate,
                clip=self.parameters.clip,
                largest_value=self.parameters.largest_contribution,
                optimizer=self._optimizer,
                parameter_count=self._parameter_count,
            )
            return model, model_digest(model)

        try:
            model, digest = await asyncio.to_thread(apply)
        except RoundError as error:
            self.abort(str(error))
            return
        self._model, self._digest = model, digest
        self._tail = tail_bytes(aggregate.tail(self._model_length))
        self._feed(lambda now: self._machine.provide_result(digest, self._tail, now))

    # Time.

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._machine.next_deadline()
        if due is not None:
            self._timer = self._loop.call_at(self._mesh.clock.when(due), self._tick)

    def _tick(self) -> None:
        self._feed(self._machine.tick)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # What waited for a write that failed must never leave; the others need not wait for this peer.
            self._queue.clear()
            self._blocked = False
            if isinstance(error, StateError):
                self._unwritten = error
                self.abort(UNWRITTEN)
                return
            self._loop.call_exception_handler({"message": "round attempt: a task failed", "exception": error})
            self.abort(f"{type(error).__name__}: {error}" if isinstance(error, NodeError) else type(error).__name__)

    def _stage_seconds(self) -> dict[str, float]:
        marks = self._marks
        end = marks["begun"] + self._seconds["total"]
        unmask, collect = marks.get("unmask", end), marks.get("collect", end)
        return {
            "link": round(self._seconds["link"], 6),
            "train": round(self._seconds.get("train", 0.0), 6),
            "mask": round(self._seconds.get("mask", 0.0), 6),
            "exchange": round(max(0.0, unmask - min(collect, unmask)), 6),
            "unmask": round(max(0.0, end - unmask), 6),
            "total": round(self._seconds["total"], 6),
        }
