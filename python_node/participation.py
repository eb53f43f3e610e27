"""One run this node is in, from consent to its end: rounds one after the other, keeping up between them."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from protocol.errors import ProtocolError
from protocol.identity import short
from protocol.round.messages import round_tag
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import LogEntry, RoundAborted, RoundStart, RunStatus, compute_cohort_round_id
from python_node.attempt import UNTRAINED, UNWRITTEN
from python_node.context import NodeContext
from python_node.errors import NodeError, StateError
from python_node.membership import Membership
from python_node.policy import Decision
from python_node.signaling_errors import SignalingSessionError

__all__ = ["Participation"]

_log = structlog.get_logger("node")
_WAITING_STARTS = 4
_MOST_SEEN = 64


class Participation:
    """A node's part in one run while it is in it.

    Args:
        context: the node's.
        membership: the model it holds, and what it checks.
        decision: why its owner consents, and which dataset serves.
    """

    def __init__(self, context: NodeContext, membership: Membership, decision: Decision) -> None:
        self.membership = membership
        self._context = context
        self._decision = decision
        self._starts: asyncio.Queue[RoundStart] = asyncio.Queue(_WAITING_STARTS)
        self._logged: LogEntry | None = None
        self._told_end = False

    @property
    def run(self) -> str:
        """The run's id."""
        return self.membership.run.run

    def catch_up(self) -> None:
        """Soon hold the run's current model and be ready."""
        self._context.keeping_up.catch_up(self.membership)

    def announce(self, start: RoundStart) -> None:
        """An attempt begins: others may link from now on, and an earlier one of this run has no future."""
        try:
            self._context.switchboard.route(start.round_id, start.members)
        except ProtocolError as error:
            _log.warning("cohort refused", run=short(start.run), reason=str(error))  # `serve` reports it
        attempt = self.membership.attempt
        another = attempt is not None and attempt.parameters.round_id != start.round_id
        if attempt is not None and another and not self.membership.goes_on_with(start) and not attempt.led_to(start):
            attempt.abort("signaling named a later attempt")
        if self._starts.full():
            self._starts.get_nowait()  # named and replaced while another was under way
        self._starts.put_nowait(start)

    def close_attempt(self, event: RoundAborted) -> None:
        """Signaling closed an attempt."""
        self._context.tell(
            "round_aborted", run=event.run, round=event.round, attempt=event.attempt, reason=event.reason
        )
        round_id = compute_cohort_round_id(event.run, event.round, event.attempt, event.place)
        self.membership.abort(round_id, f"signaling closed it: {event.reason}")

    def logged(self, entry: LogEntry) -> None:
        """Signaling logged a round: get its model if this node missed it."""
        self._logged = entry
        membership = self.membership
        if membership.attempt is not None and membership.at_work and entry.round > membership.round + 1:
            # as after a sleep: the others are in a later round, and nobody is left to finish this one with
            membership.attempt.abort("a later round was logged")
        self._follow()

    def end(self, status: RunStatus) -> None:
        """Signaling said that the run is over; it says so again after a reconnect, the owner is told once."""
        self.membership.ended = True
        self.membership.rest()
        if not self._told_end:
            self._told_end = True
            self._context.tell("run_ended", run=self.run, state=status.state, reason=status.reason)

    async def serve(self) -> None:
        """Take part in the attempts that are announced, one after the other.

        Raises:
            StateError: the state folder could not be written.
            SignalingSessionError: the session ended.
        """
        context = self._context
        seen: deque[str] = deque(maxlen=_MOST_SEEN)
        while True:
            start = await self._starts.get()
            if start.round_id in seen:
                await context.reporting.failure_again(start)
                continue
            seen.append(start.round_id)
            try:
                await self._take(start)
            except ProtocolError as error:
                await self._failed(start, str(error), told=str(error))
            except SignalingSessionError:
                raise
            except Exception as error:
                # The state folder fails, and a node that cannot write its journal must not go on; or something
                # nobody foresaw, after which nothing serves this run any more. Either way the others are told.
                reason = str(error) if isinstance(error, NodeError) else type(error).__name__
                await context.reporting.failure(start, UNWRITTEN if isinstance(error, StateError) else reason)
                try:
                    await context.session.withdraw(start.run)
                except SignalingSessionError as gone:
                    _log.warning("withdrawal not reported", run=short(start.run), reason=str(gone))
                raise

    def close(self) -> None:
        """End what is under way and give its memory back."""
        if self.membership.attempt is not None:
            self.membership.attempt.abort("the node is stopping")
        self.membership.close()

    async def _take(self, start: RoundStart) -> None:
        context, membership = self._context, self.membership
        context.switchboard.route(start.round_id, start.members)
        parameters = membership.parameters(start)
        objection = None
        if not parameters.combines:  # delegates speak for groups; their owners judged those
            objection = context.policy.judge_cohort(parameters.cohort, own=context.identity.peer_id)
        if objection is not None:
            await self._withdraw(start, "min_known_peers", objection, told=objection)
        elif membership.harm is None:
            await self._take_part(start, parameters)
        if membership.harm is not None and not membership.ended:
            await self._withdraw(start, "max_memory_bytes", membership.harm, told=UNTRAINED)

    async def _take_part(self, start: RoundStart, parameters: RoundParameters) -> None:
        context, membership = self._context, self.membership
        attempt = membership.begin(start, parameters)
        place = {} if start.place is None else {"level": start.place.level, "group": start.place.group}
        context.tell(
            "round_started",
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            **place,
            cohort=len(start.members),
        )
        for peer, payload in context.early.take(round_tag(start.round_id)):
            attempt.receive(peer, payload, bulk=False)
        report = await attempt.run()
        for peer, reason in report.faults:
            _log.warning("message refused", peer=short(peer), round=start.round, reason=reason)
        if report.completed is None:
            await self._failed(start, report.failure or "", told=report.told or "")
            return
        membership.hold_sum(report, start)
        await membership.finish(report, start.round)
        membership.rest()
        await context.reporting.result(membership, start, report, self._decision)
        self._follow()

    async def _failed(self, start: RoundStart, reason: str, *, told: str) -> None:
        context = self._context
        context.tell("round_failed", run=start.run, round=start.round, attempt=start.attempt, reason=reason)
        await context.reporting.failure(start, told)
        if self.membership.harm is None:
            self.catch_up()  # also to be ready anew: signaling may have forgotten it meanwhile

    async def _withdraw(self, start: RoundStart, rule: str, objection: str, *, told: str) -> None:
        """Leave a run that the owner's policy allows no longer: the others can go on without this node."""
        context = self._context
        decision = Decision(accepted=False, rule=rule, reason=objection, dataset=self._decision.dataset)
        self.membership.ended = True
        self.membership.rest()
        await context.reporting.receipt(self.membership.run, decision)
        context.tell("withdrawn", run=start.run, round=start.round, rule=rule, reason=objection)
        await context.reporting.failure(start, told)
        await context.session.withdraw(start.run)

    def _follow(self) -> None:
        """A round was logged or an attempt ended: get the model if this node missed it."""
        membership, entry = self.membership, self._logged
        if entry is None or membership.at_work:
            return  # an attempt's own end comes back here
        if entry.round >= membership.round and entry.model_digest != membership.digest:
            self.catch_up()
