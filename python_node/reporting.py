"""What a node tells of its attempts: results and failures to signaling, receipts to its owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from protocol.identity import Identity, short
from protocol.signaling import MemberSignature, RoundStart
from protocol.tail import read_tail
from python_node.attempt import AttemptReport
from python_node.membership import Membership, Terms
from python_node.policy import Decision
from python_node.receipts import CompletedRound, Receipt, receipt_time, seal_receipt
from python_node.signaling_errors import SignalingDownError, SignalingRefusedError, SignalingSessionError
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState

__all__ = ["Reporting"]

_log = structlog.get_logger("node")
_KEPT_FAILURES = 64


class Reporting:
    """Says how attempts ended, and remembers why this node gave some up.

    Args:
        session: told of results and failures.
        identity: signs receipts.
        state: keeps receipts.
        tell: the node's events.
    """

    def __init__(
        self, session: SignalingSession, identity: Identity, state: NodeState, *, tell: Callable[..., None]
    ) -> None:
        self._session = session
        self._identity = identity
        self._state = state
        self._tell: Callable[..., Any] = tell
        self._failures: dict[str, str] = {}
        """By round id, why this node gave an attempt up."""

    async def result(
        self, membership: Membership, start: RoundStart, report: AttemptReport, decision: Decision
    ) -> None:
        """A completed attempt: to signaling, again by itself until it is logged, and to the owner."""
        completed = report.completed
        assert completed is not None
        self._tell_completed(membership, start, report)
        try:
            await self._session.result(
                start.run,
                round_number=start.round,
                attempt=start.attempt,
                model_digest=completed.model_digest,
                survivors=tuple(sorted(completed.survivors)),
                metrics=report.tail,
                signatures=tuple(
                    MemberSignature(index=index, signature=signature)
                    for index, signature in sorted(completed.signatures.items())
                ),
                place=start.place,
            )
        except SignalingRefusedError as error:
            _log.warning("result refused", run=short(start.run), reason=str(error))
        except SignalingDownError as error:
            _log.warning("result waits for signaling", run=short(start.run), reason=str(error))
        if start.combining is not None:
            return  # what this node gave of its own is in its group's receipt
        done = CompletedRound(
            round=start.round,
            attempt=start.attempt,
            survivors=len(completed.survivors),
            model_digest=completed.model_digest,
            group=None if start.place is None else start.place.group,
        )
        await self.receipt(membership.run, decision, done)

    async def failure(self, start: RoundStart, reason: str) -> None:
        """An attempt that this node gave up."""
        self._failures[start.round_id] = reason
        if len(self._failures) > _KEPT_FAILURES:
            del self._failures[next(iter(self._failures))]
        try:
            await self._session.round_failed(
                start.run, round_number=start.round, attempt=start.attempt, reason=reason, place=start.place
            )
        except SignalingSessionError as error:
            _log.warning("failure not reported", run=short(start.run), reason=str(error))

    async def failure_again(self, start: RoundStart) -> None:
        """An attempt is named that this node gave up before: a signaling server that restarted forgot it."""
        if (known := self._failures.get(start.round_id)) is not None:
            await self.failure(start, known)

    async def receipt(self, terms: Terms, decision: Decision, completed: CompletedRound | None = None) -> None:
        """A signed record of a decision, or of a completed round under it."""
        receipt = Receipt(
            run=terms.run,
            plan=terms.terms.plan,
            author=terms.author,
            name=terms.terms.name,
            decision="accepted" if decision.accepted else "declined",
            rule=decision.rule,
            reason=decision.reason,
            dataset=decision.dataset,
            time=receipt_time(time.time()),
            completed=completed,
        )
        await asyncio.to_thread(lambda: self._state.save_receipt(seal_receipt(self._identity, receipt)))

    def _tell_completed(self, membership: Membership, start: RoundStart, report: AttemptReport) -> None:
        completed = report.completed
        assert completed is not None
        known: dict[str, Any] = {"model_digest": completed.model_digest}
        if report.total is None:
            metrics = read_tail(membership.plan.manifest, membership.run.terms, report.tail)
            known |= {"training": metrics.training, "held_out": metrics.held_out}
        elif start.place is not None:
            known = {"sum_digest": completed.model_digest, "group": start.place.group}
        self._tell(
            "round_completed" if report.total is None else "group_completed",
            run=start.run,
            round=start.round,
            attempt=start.attempt,
            survivors=len(completed.survivors),
            **known,
            seconds=report.seconds,
            bytes_sent=report.bytes_sent,
            bytes_received=report.bytes_received,
        )
