"""A node's part in one run: the model it holds, the rounds it trains in, what it reports and serves."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plans import HarmfulPlanError, Plan, PlanError, SignedPlan
from plans.large_models import is_large
from protocol.errors import ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.round.jobs import GroupSum, LocalUpdate
from protocol.round.messages import HEADER_BYTES
from protocol.secagg.apply import model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.server_optimizer import FEDAVG, ServerOptimizer, initial_moments
from protocol.signaling import LogEntry, RoundStart
from protocol.tail import tail_length
from protocol.terms import COMBINING_RING_BITS, RunTerms
from python_node.announcement import HeldSum, check_announcement, delegate_parameters, rival_round_ids
from python_node.attempt import Attempt, AttemptReport
from python_node.log_checking import check_own_delegates
from python_node.mesh import Mesh
from python_node.state import NodeState
from python_node.state.node_state import KEPT_CHECKPOINTS
from python_node.training import LocalTrainer, model_length

__all__ = ["BULK_OVERHEAD_BYTES", "Membership", "Terms", "initial_model"]

Model = NDArray[np.float32]

_CHECKPOINT_BYTES = 16 << 20
_MOST_CHECKPOINTS = 100
"""Of a small model more rounds are kept, so that who watches a fast run can still fetch each of them."""

_FEWEST_DELEGATES = 3
"""The smallest mask set of a cohort of delegates."""

BULK_OVERHEAD_BYTES = HEADER_BYTES + 2 + 64
"""Bytes of a bulk round message beyond its packed chunk."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A run as its author signed it."""

    run: str
    author: PeerId
    terms: RunTerms
    envelope: bytes


def initial_model(plan: Plan, optimizer: ServerOptimizer = FEDAVG) -> Model:
    """float32 [P + B + moments], without local parameters: what the first round starts from."""
    shared = plan.manifest.shared_count
    moments = [np.full(shared, value, np.float32) for value in initial_moments(optimizer)]
    return np.concatenate([plan.initial("theta")[:shared], plan.initial("buffers"), *moments])


class Membership:
    """One run this node takes part in. `round` counts the rounds whose result `model` is.

    Args:
        run: terms and author.
        plan: validated.
        trainer: local work.
        identity: this peer.
        mesh: links.
        state: where checkpoints and the journal are kept.
    """

    def __init__(
        self, *, run: Terms, plan: SignedPlan, trainer: LocalTrainer, identity: Identity, mesh: Mesh, state: NodeState
    ) -> None:
        self.run = run
        self.plan = plan.without_start()
        self.round = 0
        self.model = initial_model(plan, run.terms.server_optimizer)
        self.digest: str = model_digest(self.model)
        self.reached = 0
        """The highest round this node ever held the result of; signaling cannot have an earlier one repeated."""
        self.ended = False
        """Whether signaling said that the run is over."""
        self.harm: str | None = None
        """What its plan did to the process that ran it, after which this node takes no more part."""
        self.attempt: Attempt | None = None
        self.closed = False
        self._aborted: deque[str] = deque(maxlen=16)
        self._training = asyncio.Lock()
        self._start: RoundStart | None = None
        self._held: HeldSum | None = None
        self._own_groups: dict[tuple[int, int], tuple[int, frozenset[PeerId]]] = {}
        """By round and attempt, number and members of the groups this node joined at its latest round."""
        self._previous: Attempt | None = None
        self._trainer = trainer
        self._identity = identity
        self._mesh = mesh
        self._state = state

    @property
    def at_work(self) -> bool:
        """Whether an attempt is under way."""
        return self.attempt is not None and not self.attempt.ended

    @property
    def model_bytes(self) -> int:
        """Bytes of the model on the wire."""
        return 4 * len(self.model)

    @property
    def bulk_limit(self) -> int:
        """Bytes of the largest bulk message this run's rounds may bring."""
        terms = self.run.terms
        elements = model_length(self.plan) + tail_length(self.plan.manifest, terms)
        chunk_bits = _chunk_elements(elements, terms.min_survivors) * terms.ring_bits
        if terms.cohorts > 1:
            chunk_bits = max(chunk_bits, _chunk_elements(elements, _FEWEST_DELEGATES) * COMBINING_RING_BITS)
        return BULK_OVERHEAD_BYTES + chunk_bits // 8

    def restore(self) -> None:
        """Take up the newest checkpoint on disk, if there is one that fits."""
        found = self._state.load_checkpoint(self.run.run)
        if found is not None and len(found[2]) == self.model_bytes:
            number, digest, data = found
            self.hold(number, np.frombuffer(data, "<f4").astype(np.float32), digest)
        if (local := self._state.local_values(self.run.run)) is not None:
            self._trainer.take_up(np.frombuffer(local, "<f4").astype(np.float32))

    def hold(self, number: int, model: Model, digest: str) -> None:
        """This is the model after `number` rounds, with its digest: hashing it here would hold up the event loop."""
        if number > self.round:
            self._trainer.adopt()
        self.round, self.model, self.digest = number, model, digest
        self.reached = max(self.reached, number)
        for key in [key for key in self._own_groups if key[0] < number]:
            del self._own_groups[key]

    def save(self) -> None:
        """Put the model and this node's local values on disk; blocks."""
        if len(self._trainer.local):
            self._state.save_local_values(self.run.run, self._trainer.local.astype("<f4").tobytes())
        keep = max(KEPT_CHECKPOINTS, min(_MOST_CHECKPOINTS, _CHECKPOINT_BYTES // max(1, self.model_bytes)))
        self._state.save_checkpoint(
            self.run.run, self.round, np.ascontiguousarray(self.model, "<f4").data, self.digest, keep=keep
        )

    def check_round(self, number: int) -> None:
        """Check that a round is none that this node has left behind (spec 06 §3).

        The last one may come again: its result may not have reached signaling.

        Raises:
            ProtocolError: a later round is finished here.
        """
        if number < self.reached:
            raise ProtocolError(
                f"run {short(self.run.run)}: signaling goes back to round {number}, this node finished {self.reached}"
            )

    def parameters(self, start: RoundStart) -> RoundParameters:
        """The parameters of an announced attempt, after checking the announcement against what this node holds.

        Raises:
            ProtocolError: another round, model or id than this node holds, or a cohort the terms do not allow.
        """
        terms, own = self.run.terms, self._identity.peer_id
        cohort = check_announcement(start, terms=terms, own=own)
        self.check_round(start.round)
        if (start.round, start.model_digest) != (self.round + 1, self.digest):
            raise ProtocolError(
                f"run {short(self.run.run)}: signaling names round {start.round} with model "
                f"{short(start.model_digest)}, this node holds round {self.round} with model {short(self.digest)}"
            )
        if start.round_id in self._aborted:
            raise ProtocolError(
                f"run {short(self.run.run)}: attempt {start.attempt} at round {start.round} is closed already"
            )
        if joined := next(filter(self._state.joined, rival_round_ids(start, terms)), None):
            raise ProtocolError(
                f"run {short(self.run.run)}: this node joined round id {short(joined)} before, "
                f"attempt {start.attempt} at round {start.round} allows no second cohort"
            )
        if start.combining is not None:
            return delegate_parameters(start, self._held, cohort=cohort, own=own, terms=terms)
        return RoundParameters(
            run_id=self.run.run,
            round_id=start.round_id,
            plan_digest=self.plan.digest,
            model_digest=self.digest,
            cohort=cohort,
            min_survivors=terms.min_survivors,
            ring_bits=terms.ring_bits,
            value_bits=terms.value_bits,
            replicas=terms.replicas,
            vector_length=model_length(self.plan) + tail_length(self.plan.manifest, terms),
            clip=terms.clip,
        )

    def begin(self, start: RoundStart, parameters: RoundParameters) -> Attempt:
        """The attempt's driver; the one before goes on answering until the next `begin`.

        Of a large model the round before does not: it holds twice the model, and who is late fetches the result.
        """
        held, self._held = self._held, None  # a sum is spoken for once, an older one never
        place = start.place
        if place is not None and place.level == 1:
            self._own_groups[start.round, start.attempt] = (place.group, frozenset(parameters.cohort))
        if self._previous is not None:
            self._previous.close()
        self._previous = self.attempt
        later = self._start is not None and self._start.round < start.round
        if self._previous is not None and later and is_large(self.plan.manifest):
            self._previous.close()
            self._previous = self.attempt = None
            gc.collect()  # attempts refer to themselves in many callbacks
        self.attempt = Attempt(
            parameters=parameters,
            identity=self._identity,
            mesh=self._mesh,
            deadlines=self.run.terms.deadlines,
            checkpoint=self.model,
            optimizer=self.run.terms.server_optimizer,
            parameter_count=self.plan.manifest.shared_count,
            record=self._state.record,
            contribute=_give(held.total) if parameters.combines and held else self._train(parameters.round_id),
            group=place is not None and place.level == 1,
        )
        self._start = start
        return self.attempt

    def goes_on_with(self, start: RoundStart) -> bool:
        """Whether a cohort is the next level of the attempt that this node works on."""
        now = self._start
        return (
            now is not None
            and start.combining is not None
            and now.combining is None
            and (now.round, now.attempt) == (start.round, start.attempt)
        )

    def check_delegates(self, entry: LogEntry) -> None:
        """Check a logged round against this node's own part in it, where it had one.

        Raises:
            ProtocolError: others spoke for its group than members of it.
        """
        if (own_group := self._own_groups.get((entry.round, entry.attempt))) is not None:
            group, cohort = own_group
            check_own_delegates(entry, own=self._identity.peer_id, group=group, cohort=cohort)

    def hold_sum(self, report: AttemptReport, start: RoundStart) -> None:
        """Keep the sum of this node's group for the case that it is named as a delegate."""
        if report.total is not None and start.place is not None and self.attempt is not None:
            self._held = HeldSum(
                round=start.round,
                attempt=start.attempt,
                group=start.place.group,
                parameters=self.attempt.parameters,
                total=report.total,
            )

    def attempts(self) -> tuple[Attempt, ...]:
        """The current attempt and the one before, which others may still ask."""
        return tuple(attempt for attempt in (self.attempt, self._previous) if attempt is not None)

    def abort(self, round_id: str, reason: str) -> None:
        """End an attempt, or keep it from beginning."""
        self._aborted.append(round_id)
        for attempt in self.attempts():
            if attempt.parameters.round_id == round_id:
                attempt.abort(reason)

    async def finish(self, report: AttemptReport, number: int) -> None:
        """Take over the model of a completed attempt at round `number` and put it on disk."""
        if report.model is not None and report.completed is not None:
            self.hold(number, report.model, report.completed.model_digest)
            await asyncio.to_thread(self.save)

    def rest(self) -> None:
        """If the run is over, end the process that trained for it."""
        if self.ended and not self.at_work:
            self._trainer.close()

    def close(self) -> None:
        """End whatever is under way."""
        self.closed = True
        self._trainer.close()
        for attempt in self.attempts():
            attempt.close()

    def _train(self, round_id: str) -> Callable[[], Awaitable[LocalUpdate]]:
        checkpoint = self.model[: model_length(self.plan)]

        async def train() -> LocalUpdate:
            stopped = False
            async with self._training:  # an aborted attempt's stretch of steps may not be over yet
                work = asyncio.ensure_future(
                    asyncio.to_thread(self._trainer.update, checkpoint, round_id, cancelled=lambda: stopped)
                )
                try:
                    return await asyncio.shield(work)
                except asyncio.CancelledError:
                    stopped = True
                    (ended,) = await asyncio.gather(work, return_exceptions=True)
                    self._note_harm(ended)
                    raise
                except PlanError as error:
                    self._note_harm(error)
                    raise ProtocolError(str(error)) from error

        return train

    def _note_harm(self, outcome: object) -> None:
        if isinstance(outcome, HarmfulPlanError):
            self.harm = str(outcome)


def _give(total: GroupSum) -> Callable[[], Awaitable[GroupSum]]:
    async def give() -> GroupSum:
        return total

    return give


def _chunk_elements(elements: int, owners: int) -> int:
    return -(-elements // (8 * owners)) * 8
