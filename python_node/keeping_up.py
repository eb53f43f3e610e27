"""Keeping up with runs: a node holds each run's current model, fetches it where it missed rounds, and says so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from protocol.errors import LinkError, ProtocolError
from protocol.identity import short
from protocol.signaling import codes
from python_node.log_checking import check_entry, check_initial_model
from python_node.membership import Membership
from python_node.signaling_errors import SignalingDownError, SignalingRefusedError
from python_node.signaling_link import SignalingSession
from python_node.switchboard import Switchboard

__all__ = ["FINAL_STATES", "KeepingUp"]

_STALE_TRIES = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
FINAL_STATES = ("finished", "stopped", "failed")
"""Of a run that goes on no more."""


class KeepingUp:
    """At most one piece of work per run; a wish that comes while it is under way is looked at afterwards.

    Args:
        session: asked for a run's status, told of readiness.
        switchboard: fetches models from peers.
        spawn: starts a task that ends with the node.
        tell: the node's events.
    """

    def __init__(
        self,
        session: SignalingSession,
        switchboard: Switchboard,
        *,
        spawn: Callable[[Awaitable[None]], object],
        tell: Callable[..., None],
    ) -> None:
        self._session = session
        self._switchboard = switchboard
        self._spawn = spawn
        self._tell: Callable[..., Any] = tell
        self._wanted: set[str] = set()
        self._busy: set[str] = set()

    def catch_up(self, membership: Membership) -> None:
        """Soon hold the run's current model and be ready; tried again with pauses until it works."""
        run = membership.run.run
        self._wanted.add(run)
        if run not in self._busy:
            self._busy.add(run)
            self._spawn(self._work(membership))

    async def _work(self, membership: Membership) -> None:
        run = membership.run.run
        pause_s = _FIRST_PAUSE_S
        try:
            while run in self._wanted and not membership.closed:
                self._wanted.discard(run)
                if await self._try(membership):
                    pause_s = _FIRST_PAUSE_S
                    continue
                # No holder or no signaling now, and nothing need ever happen that would tell of their return.
                self._wanted.add(run)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load, no secret)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._busy.discard(run)

    async def _try(self, membership: Membership) -> bool:
        """False where another try may help."""
        run = membership.run.run
        try:
            for _ in range(_STALE_TRIES):
                if membership.at_work:
                    return True  # the attempt's own end comes back here
                try:
                    await self._be_ready(membership)
                except SignalingRefusedError as error:
                    if error.code != codes.STALE_MODEL:
                        raise
                else:
                    return True
        except (ProtocolError, SignalingRefusedError, SignalingDownError) as error:
            self._tell("behind", run=run, round=membership.round, reason=str(error))
            return isinstance(error, SignalingRefusedError) and error.code != codes.RATE_LIMITED
        return False

    async def _be_ready(self, membership: Membership) -> None:
        run = membership.run.run
        status = (await self._session.get_run(run)).status
        membership.ended = membership.ended or status.state in FINAL_STATES
        if status.state in FINAL_STATES and status.round == 0:
            return
        if (status.round, status.model_digest) != (membership.round, membership.digest):
            membership.check_round(status.round + 1)
            await self._fetch(membership)
        if status.state not in FINAL_STATES:
            await self._session.ready(run, round_number=membership.round, model_digest=membership.digest)
        self._tell("ready", run=run, round=membership.round)

    async def _fetch(self, membership: Membership) -> None:
        run = membership.run.run
        number, digest, data = await self._switchboard.fetch_model(run, total=membership.model_bytes)
        page = await self._session.log(run, first=max(1, number), limit=1)
        if number and not page.entries:
            raise LinkError(f"run {short(run)}: signaling names round {number} but has logged none")
        if number:
            check_entry(page.entries[0], run=run, number=number, digest=digest, terms=membership.run.terms)
            membership.check_delegates(page.entries[0])
        else:
            optimizer = membership.run.terms.server_optimizer
            await asyncio.to_thread(check_initial_model, membership.plan.manifest, optimizer, data)
        membership.check_round(number + 1)
        if membership.at_work:
            return  # an attempt's checkpoint is not taken from under it
        membership.hold(number, np.frombuffer(data, "<f4").astype(np.float32), digest)
        await asyncio.to_thread(membership.save)
        self._tell("fetched", run=run, round=number, model_digest=digest)
