"""The node: answers offers by its owner's policy, takes part in rounds, serves models (spec 06)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from plans import PlanError, SignedPlan
from protocol.errors import LimitExceededError, ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.link import Payload
from protocol.round.messages import round_tag
from protocol.signaling import Offer, PeerGone, RoundAborted, RoundLogged, RoundStart, RunChanged
from python_node.attempt import Attempt
from python_node.context import NodeContext
from python_node.datasets import Dataset
from python_node.early_messages import EarlyMessages
from python_node.errors import NodeError, StateError
from python_node.keeping_up import FINAL_STATES, KeepingUp
from python_node.membership import Membership, Terms
from python_node.mesh import IceServer, MeshConfig
from python_node.offers import fetch_plan, open_offer
from python_node.participation import Participation
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
        self._runs: dict[str, Participation] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._considering: set[str] = set()
        self._early = EarlyMessages()
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
        self._context = NodeContext(
            session=session,
            identity=identity,
            policy=policy,
            switchboard=self._switchboard,
            early=self._early,
            reporting=Reporting(session, identity, state, tell=self._tell),
            keeping_up=KeepingUp(session, self._switchboard, spawn=self._spawn, tell=self._tell),
            tell=self._tell,
        )

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
        for part in self._runs.values():
            part.close()
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
                if run in self._runs:
                    self._runs[run].announce(event)
            case RoundAborted(run=run):
                if run in self._runs:
                    self._runs[run].close_attempt(event)
            case RoundLogged(entry=entry):
                if entry.run in self._runs:
                    self._runs[entry.run].logged(entry)
            case RunChanged(status=status):
                if status.state in FINAL_STATES and status.run in self._runs:
                    self._runs[status.run].end(status)
            case PeerGone(run=run, peer=peer):
                part = self._runs.get(run)
                if part is not None and part.membership.attempt is not None:
                    part.membership.attempt.peer_gone(PeerId(peer))
            case Reconnected():
                for part in self._runs.values():
                    part.catch_up()
            case _:
                pass

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
            known = self._runs.get(offer.run)
            if known is None:
                await self._consider_new(offer)
                return
            await self._session.accept(offer.run)
            known.catch_up()
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
                    memory_limit=self._policy.memory_limit,
                )
                try:
                    part = await self._join(terms, plan, trainer, decision)
                except BaseException:
                    trainer.close()
                    raise
        except (ProtocolError, PlanError, NodeError, OSError) as error:
            self._tell("offer_refused", run=offer.run, code=getattr(error, "code", "disk"), reason=str(error))
            await self._session.decline(offer.run, str(error))
            return
        await self._session.accept(terms.run, dataset=decision.dataset)
        part.catch_up()

    def _check_room(self, terms: Terms) -> None:
        """Let runs go that are over, so that memory does not grow with every run this node ever took part in.

        Raises:
            LimitExceededError: this node takes part in as many runs as it ever does.
        """
        members = {run: part.membership for run, part in self._runs.items()}
        ended = [run for run, item in members.items() if item.ended and not item.at_work]
        for run in ended[: max(0, len(ended) - _KEPT_ENDED)]:
            self._forget(run)
        if len(members) - len(ended) >= _MOST_RUNS:
            raise LimitExceededError(
                f"run {short(terms.run)}: this node takes part in {_MOST_RUNS} runs already, which is its most"
            )

    def _forget(self, run: str) -> None:
        self._serving.pop(run).cancel()
        self._runs.pop(run).close()

    async def _decline(self, terms: Terms, decision: Decision) -> None:
        await self._context.reporting.receipt(terms, decision)
        self._tell("declined", run=terms.run, name=terms.terms.name, rule=decision.rule, reason=decision.reason)
        await self._session.decline(terms.run, decision.reason)

    async def _join(self, terms: Terms, plan: SignedPlan, trainer: LocalTrainer, decision: Decision) -> Participation:
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
        await self._context.reporting.receipt(terms, decision)
        part = self._runs[terms.run] = Participation(self._context, membership, decision)
        self._switchboard.mesh.set_bulk_limit(max(part.membership.bulk_limit for part in self._runs.values()))
        self._serving[terms.run] = self._spawn(self._serve(part))
        self._tell(
            "accepted",
            run=terms.run,
            name=terms.terms.name,
            author=terms.author,
            dataset=decision.dataset,
            rule=decision.rule,
        )
        return part

    # Rounds.

    async def _serve(self, part: Participation) -> None:
        try:
            await part.serve()
        except StateError as error:
            self._unwritten = error
            self._stopped.set()
            raise

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
        return [attempt for part in self._runs.values() for attempt in part.membership.attempts()]

    # Models.

    def _lookup_model(self, run: str, number: int, digest: str) -> bytes | None:
        part = self._runs.get(run)
        if part is not None and (part.membership.round, part.membership.digest) == (number, digest):
            return part.membership.model.astype("<f4").tobytes()
        found = self._state.load_checkpoint(run, number)
        return found[2] if found is not None and found[1] == digest else None

    def _may_fetch(self, peer: PeerId, run: str) -> bool:
        """Its author and, where the author lists members, those alone; else whoever signaling introduced."""
        part = self._runs.get(run)
        if part is None or not self._policy.serve_models:
            return False
        signed = part.membership.run
        return not signed.terms.members or peer in signed.terms.members or peer == signed.author

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
