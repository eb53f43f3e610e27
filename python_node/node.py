"""The node: answers offers by its owner's policy, takes part in rounds, serves models (spec 06)."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from plans import PlanError, SignedPlan
from protocol.errors import LimitExceededError, ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.link import Payload
from protocol.round.messages import round_tag
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import (
    LogEntry,
    Offer,
    PeerGone,
    RoundAborted,
    RoundLogged,
    RoundStart,
    RunChanged,
    compute_cohort_round_id,
)
from python_node.attempt import UNWRITTEN, Attempt
from python_node.datasets import Dataset
from python_node.early_messages import EarlyMessages
from python_node.errors import NodeError, StateError
from python_node.keeping_up import KeepingUp
from python_node.membership import Membership, Terms
from python_node.mesh import IceServer, MeshConfig
from python_node.offers import fetch_plan, open_offer
from python_node.policy import Decision, Policy
from python_node.reporting import Reporting
from python_node.signaling_errors import SignalingDownError, SignalingRefusedError, SignalingSessionError
from python_node.signaling_events import Reconnected, SessionEvent
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState
from python_node.switchboard import Switchboard
from python_node.training import LocalTrainer

__all__ = ["Node", "NodeEvent"]

_log = structlog.get_logger("node")
_MOST_OFFERS = 64
"""Offers looked at together; others are offered again when this node registers again."""
_MOST_RUNS = 32
"""Runs accepted and not over; each holds a model and its graphs in memory."""
_KEPT_ENDED = 8
"""Runs that are over and whose model this node goes on serving."""
_WAITING_STARTS = 4
_FINAL = ("finished", "stopped", "failed")
_EXPECTED = (SignalingSessionError,)


@dataclass(frozen=True)
class NodeEvent:
    """Something an owner may want to see; `fields` hold no data, update or secret."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


class Node:
    """A node on an open session. `run` returns when the session ends or `stop` was called.

    Args:
        session: signaling, connected.
        identity: this peer.
        state: checkpoints, journal, receipts.
        policy: the owner's.
        datasets: the owner's.
        threads: processor cores for local training.
        training_seed: fixes the order of examples, for runs that are to be repeated; random by default.
        ice_servers: STUN and TURN.
        on_event: told of offers, rounds and ends; must not block.
    """

    def __init__(
        self,
        session: SignalingSession,
        identity: Identity,
        *,
        state: NodeState,
        policy: Policy,
        datasets: Sequence[Dataset],
        threads: int = 1,
        training_seed: bytes | None = None,
        ice_servers: Sequence[IceServer] = (),
        mesh_config: MeshConfig | None = None,
        on_event: Callable[[NodeEvent], None] = lambda _event: None,
    ) -> None:
        self._session = session
        self._identity = identity
        self._state = state
        self._policy = policy
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self._threads = threads
        self._training_seed = training_seed or os.urandom(32)
        self._on_event = on_event
        self._memberships: dict[str, Membership] = {}
        self._considering: set[str] = set()
        self._decisions: dict[str, Decision] = {}
        self._starts: dict[str, asyncio.Queue[RoundStart]] = {}
        self._logged: dict[str, LogEntry] = {}
        self._early = EarlyMessages()
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._fetching_plan = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._unwritten: Exception | None = None
        self._switchboard = Switchboard(
            session,
            identity,
            on_round_message=self._on_round_message,
            on_link=self._on_link,
            on_unreachable=self._on_unreachable,
            lookup=self._lookup_model,
            may_fetch=self._may_fetch,
            ice_servers=ice_servers,
            config=mesh_config,
        )
        self._reporting = Reporting(session, identity, state, tell=self._tell)
        self._keeping_up = KeepingUp(session, self._switchboard, spawn=self._spawn, tell=self._tell)

    async def run(self) -> None:
        """Register and serve until `stop` or the end of the session.

        Raises:
            SignalingSessionError: the session ended for another reason than `stop`.
            StateError: the state folder could not be written in a round; the node left its runs.
        """
        await self._session.register(
            tuple(
                dataset.schema(reveal_examples=self._policy.share_example_counts)
                for dataset in self._datasets.values()
            ),
            sealing_key=self._switchboard.sealing_key,
        )
        self._tell(
            "registered",
            peer=self._identity.peer_id,
            datasets=list(self._datasets),
            fields={name: dataset.describe() for name, dataset in self._datasets.items()},
        )
        reading = self._spawn(self._read_events())
        stopping = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
        finally:
            stopping.cancel()
            await self._close()
        if self._unwritten is not None:
            raise self._unwritten

    def stop(self) -> None:
        """End `run` after telling the others."""
        self._stopped.set()

    async def _close(self) -> None:
        for membership in self._memberships.values():
            if membership.attempt is not None:
                membership.attempt.abort("the node is stopping")
            membership.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._switchboard.close()

    # Events of the session.

    async def _read_events(self) -> None:
        async for event in self._session.events():
            self._switchboard.handle(event)
            self._handle(event)

    def _handle(self, event: SessionEvent) -> None:
        match event:
            case Offer():
                self._offered(event)
            case RoundStart(run=run):
                if run in self._starts:
                    self._announced(event)
            case RoundAborted(run=run, round=number, attempt=attempt, reason=reason, place=place):
                membership = self._memberships.get(run)
                if membership is not None:
                    self._tell("round_aborted", run=run, round=number, attempt=attempt, reason=reason)
                    round_id = compute_cohort_round_id(run, number, attempt, place)
                    membership.abort(round_id, f"signaling closed it: {reason}")
            case RoundLogged(entry=entry):
                if entry.run in self._memberships:
                    self._logged[entry.run] = entry
                    self._follow(entry.run)
            case RunChanged(status=status):
                if status.state in _FINAL and status.run in self._memberships:
                    self._memberships[status.run].ended = True
                    self._tell("run_ended", run=status.run, state=status.state, reason=status.reason)
            case PeerGone(run=run, peer=peer):
                membership = self._memberships.get(run)
                if membership is not None and membership.attempt is not None:
                    membership.attempt.peer_gone(PeerId(peer))
            case Reconnected():
                for membership in self._memberships.values():
                    self._keeping_up.catch_up(membership)
            case _:
                pass

    def _announced(self, start: RoundStart) -> None:
        """An attempt begins: others may link from now on, and an earlier one of that run has no future."""
        try:
            self._switchboard.route(start.round_id, start.members)
        except ProtocolError as error:
            _log.warning("cohort refused", run=short(start.run), reason=str(error))  # `_serve` reports it
        membership = self._memberships[start.run]
        attempt = membership.attempt
        another = attempt is not None and attempt.parameters.round_id != start.round_id
        if attempt is not None and another and not membership.goes_on_with(start) and not attempt.led_to(start):
            attempt.abort("signaling named a later attempt")
        starts = self._starts[start.run]
        if starts.full():
            starts.get_nowait()  # named and replaced while another was under way
        starts.put_nowait(start)

    # Offers.

    def _offered(self, offer: Offer) -> None:
        if offer.run in self._considering:
            return  # offered again after a reconnect, while the plan was on its way
        if len(self._considering) >= _MOST_OFFERS:
            _log.warning("offer not looked at", run=short(offer.run), waiting=len(self._considering))
            return
        self._considering.add(offer.run)
        self._spawn(self._consider(offer))

    async def _consider(self, offer: Offer) -> None:
        try:
            known = self._memberships.get(offer.run)
            if known is None:
                await self._consider_new(offer)
                return
            await self._session.accept(offer.run)
            self._keeping_up.catch_up(known)
        finally:
            self._considering.discard(offer.run)

    async def _consider_new(self, offer: Offer) -> None:
        try:
            terms, manifest, plan_envelope = open_offer(offer)
            schemas = [dataset.schema() for dataset in self._datasets.values()]
            decision = self._policy.decide(
                terms=terms.terms, author=terms.author, manifest=manifest, datasets=schemas
            )
            if not decision.accepted or decision.dataset is None:
                await self._decline(terms, decision)
                return
            async with self._fetching_plan:  # one plan in memory at a time, however many are offered
                self._check_room(terms)
                plan = await fetch_plan(self._session, self._state, manifest, plan_envelope)
                trainer = await asyncio.to_thread(
                    LocalTrainer,
                    plan,
                    terms.terms,
                    self._datasets[decision.dataset],
                    threads=self._threads,
                    node_seed=self._training_seed,
                )
                membership = await self._join(terms, plan, trainer, decision)
        except (ProtocolError, PlanError, NodeError, OSError) as error:
            self._tell("offer_refused", run=offer.run, code=getattr(error, "code", "disk"), reason=str(error))
            await self._session.decline(offer.run, str(error))
            return
        await self._session.accept(terms.run, dataset=decision.dataset)
        self._keeping_up.catch_up(membership)

    def _check_room(self, terms: Terms) -> None:
        """Let runs go that are over, so that memory does not grow with every run this node ever took part in.

        Raises:
            LimitExceededError: this node takes part in as many runs as it ever does.
        """
        ended = [run for run, item in self._memberships.items() if item.ended and not item.at_work]
        for run in ended[: max(0, len(ended) - _KEPT_ENDED)]:
            self._forget(run)
        if len(self._memberships) - len(ended) >= _MOST_RUNS:
            raise LimitExceededError(
                f"run {short(terms.run)}: this node takes part in {_MOST_RUNS} runs already, which is its most"
            )

    def _forget(self, run: str) -> None:
        self._serving.pop(run).cancel()
        self._memberships.pop(run).close()
        for kept in (self._starts, self._logged, self._decisions):
            kept.pop(run, None)

    async def _decline(self, terms: Terms, decision: Decision) -> None:
        await self._reporting.receipt(terms, decision)
        self._tell("declined", run=terms.run, name=terms.terms.name, rule=decision.rule, reason=decision.reason)
        await self._session.decline(terms.run, decision.reason)

    async def _join(self, terms: Terms, plan: SignedPlan, trainer: LocalTrainer, decision: Decision) -> Membership:
        membership = await asyncio.to_thread(
            Membership,
            run=terms,
            plan=plan,
            trainer=trainer,
            identity=self._identity,
            mesh=self._switchboard.mesh,
            state=self._state,
        )
        await asyncio.to_thread(membership.restore)
        await asyncio.to_thread(
            self._state.save_run, terms.run, terms.envelope, plan.envelope, decision.dataset or ""
        )
        await self._reporting.receipt(terms, decision)
        self._decisions[terms.run] = decision
        self._memberships[terms.run] = membership
        self._starts[terms.run] = asyncio.Queue(_WAITING_STARTS)
        self._switchboard.mesh.set_bulk_limit(max(item.bulk_limit for item in self._memberships.values()))
        self._serving[terms.run] = self._spawn(self._serve(membership))
        self._tell(
            "accepted",
            run=terms.run,
            name=terms.terms.name,
            author=terms.author,
            dataset=decision.dataset,
            rule=decision.rule,
        )
        return membership

    # Rounds.

    async def _serve(self, membership: Membership) -> None:
        starts = self._starts[membership.run.run]
        seen: deque[str] = deque(maxlen=64)
        while True:
            start = await starts.get()
            if start.round_id in seen:
                await self._reporting.failure_again(start)
                continue
            seen.append(start.round_id)
            try:
                self._switchboard.route(start.round_id, start.members)
                parameters = membership.parameters(start)
                objection = None
                if not parameters.combines:  # delegates speak for groups; their owners judged those
                    objection = self._policy.judge_cohort(parameters.cohort, own=self._identity.peer_id)
                if objection is None:
                    await self._take_part(membership, start, parameters)
                else:
                    await self._withdraw(membership, start, objection)
            except ProtocolError as error:
                self._tell("round_failed", run=start.run, round=start.round, attempt=start.attempt, reason=str(error))
                await self._reporting.failure(start, str(error))
                self._keeping_up.catch_up(membership)
            except SignalingSessionError:
                raise
            except Exception as error:
                # The state folder fails, and a node that cannot write its journal must not go on; or something
                # nobody foresaw, after which nothing serves this run any more. Either way the others are told.
                unwritten = isinstance(error, StateError)
                reason = str(error) if isinstance(error, NodeError) else type(error).__name__
                try:
                    await self._reporting.failure(start, UNWRITTEN if unwritten else reason)
                    await self._session.withdraw(start.run)
                finally:
                    if unwritten:
                        self._unwritten = error
                        self._stopped.set()
                raise

    async def _withdraw(self, membership: Membership, start: RoundStart, objection: str) -> None:
        """Leave a run whose cohort the owner's policy does not allow: the others can go on without this node."""
        dataset = self._decisions[start.run].dataset
        decision = Decision(accepted=False, rule="min_known_peers", reason=objection, dataset=dataset)
        membership.ended = True
        await self._reporting.receipt(membership.run, decision)
        self._tell("withdrawn", run=start.run, round=start.round, rule=decision.rule, reason=objection)
        await self._reporting.failure(start, objection)
        await self._session.withdraw(start.run)

    async def _take_part(self, membership: Membership, start: RoundStart, parameters: RoundParameters) -> None:
        attempt = membership.begin(start, parameters)
        place = {} if start.place is None else {"level": start.place.level, "group": start.place.group}
        self._tell(
            "round_started",
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            **place,
            cohort=len(start.members),
        )
        tag = round_tag(start.round_id)
        for peer, payload in self._early.take(tag):
            attempt.receive(peer, payload, bulk=False)
        report = await attempt.run()
        for peer, reason in report.faults:
            _log.warning("message refused", peer=short(peer), round=start.round, reason=reason)
        if report.completed is None:
            self._tell("round_failed", run=start.run, round=start.round, attempt=start.attempt, reason=report.failure)
            await self._reporting.failure(start, report.failure or "")
            self._keeping_up.catch_up(membership)  # also to be ready anew: signaling may have forgotten it meanwhile
            return
        membership.hold_sum(report, start)
        await membership.finish(report, start.round)
        await self._reporting.result(membership, start, report, self._decisions[start.run])
        self._follow(start.run)

    def _follow(self, run: str) -> None:
        """A round was logged or an attempt ended: get the model if this node missed it."""
        membership, entry = self._memberships[run], self._logged.get(run)
        if entry is None or membership.at_work:
            return  # an attempt's own end comes back here
        if entry.round >= membership.round and entry.model_digest != membership.digest:
            self._keeping_up.catch_up(membership)

    # Links.

    def _on_round_message(self, peer: PeerId, payload: Payload, bulk: bool) -> None:  # noqa: FBT001 (a callback)
        tag = bytes(payload[4:12])
        for attempt in self._attempts():
            if round_tag(attempt.parameters.round_id) == tag:
                attempt.receive(peer, payload, bulk=bulk)
                return
        if not bulk:
            self._early.keep(peer, tag, payload)

    def _on_link(self, peer: PeerId, up: bool, _reason: str) -> None:  # noqa: FBT001 (a callback)
        for attempt in self._attempts():
            attempt.link_changed(peer, up=up)

    def _on_unreachable(self, peer: PeerId) -> None:
        for attempt in self._attempts():
            attempt.peer_gone(peer)

    def _attempts(self) -> list[Attempt]:
        return [attempt for membership in self._memberships.values() for attempt in membership.attempts()]

    # Models.

    def _lookup_model(self, run: str, number: int, digest: str) -> bytes | None:
        membership = self._memberships.get(run)
        if membership is not None and (membership.round, membership.digest) == (number, digest):
            return membership.model.astype("<f4").tobytes()
        found = self._state.load_checkpoint(run, number)
        return found[2] if found is not None and found[1] == digest else None

    def _may_fetch(self, peer: PeerId, run: str) -> bool:
        """Its author and, where the author lists members, those alone; else whoever signaling introduced."""
        membership = self._memberships.get(run)
        if membership is None or not self._policy.serve_models:
            return False
        members = membership.run.terms.members
        return not members or peer in members or peer == membership.run.author

    # Small things.

    def _tell(self, kind: str, **fields: Any) -> None:
        self._on_event(NodeEvent(kind, fields))

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, _EXPECTED):
            context = {"message": f"node {short(self._identity.peer_id)}: a task failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except SignalingSessionError as error:
            if self._stopped.is_set():
                return
            self._tell("signaling", code=getattr(error, "code", "signaling-down"), reason=str(error))
            if not isinstance(error, SignalingRefusedError | SignalingDownError):
                raise
        except NodeError as error:
            self._tell("error", code=error.code, reason=str(error))
