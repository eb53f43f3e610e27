"""A session with a signaling server: its requests by name.

async with await SignalingSession.connect(url, identity) as session:
await session.register(datasets)
async for event in session.events(): ...
"""

from __future__ import annotations

import asyncio
from typing import Self

from protocol.envelope import Envelope
from protocol.identity import Identity
from protocol.manifest import DatasetSchema
from protocol.signaling import (
    Accept,
    Decline,
    Done,
    GetPlan,
    GetRun,
    Introduce,
    Introduction,
    ListPlans,
    ListRuns,
    Log,
    LogPage,
    MemberSignature,
    OpenRun,
    Place,
    PlanReply,
    Plans,
    PlanStatus,
    PublishPlan,
    Ready,
    Register,
    Result,
    RoundFailed,
    RunReply,
    Runs,
    RunStatus,
    StopRun,
    Unwatch,
    Watch,
    Withdraw,
    sign_sealing_key,
)
from python_node.signaling_core import SessionCore, SessionOptions
from python_node.signaling_handshake import Dial, dial

__all__ = ["SessionOptions", "SignalingSession"]


class SignalingSession(SessionCore):
    """One authenticated session that lives across reconnects. Made by `connect`; for one event loop."""

    @classmethod
    async def connect(
        cls,
        url: str,
        identity: Identity,
        *,
        expected_server: str | None = None,
        options: SessionOptions | None = None,
        where: Dial | None = None,
    ) -> Self:
        """Open a session with the signaling server at `url`; `where` gives more control over how it is dialled.

        Raises:
            SignalingDownError: it cannot be reached.
            SignalingRefusedError: it turned this peer away.
            SignalingUntrustedError: it is not the one expected.
        """
        session = cls(where or Dial(url=url, expected_server=expected_server), identity, options or SessionOptions())
        session._take(await dial(session._where, identity))
        session._task = asyncio.create_task(session._run(), name=f"signaling {url}")
        return session

    # --- author ------------------------------------------------------------------------------------------------

    async def publish_plan(self, envelope: Envelope) -> PlanStatus:
        """Announce a signed plan; tells which blobs are missing (see `python_node.signaling_blobs.publish`)."""
        return await self.request(PublishPlan(id=1, envelope=envelope), PlanStatus)

    async def open_run(self, envelope: Envelope) -> RunStatus:
        """Open a run of a complete plan."""
        return (await self.request(OpenRun(id=1, envelope=envelope), RunReply)).status

    async def stop_run(self, run: str, reason: str = "") -> None:
        """End a run of this author's."""
        await self.request(StopRun(id=1, run=run, reason=reason), Done)

    async def watch(self, run: str) -> RunReply:
        """Stream a run's changes and rounds into `events`, across reconnects."""
        return await self.request(Watch(id=1, run=run), RunReply)

    async def unwatch(self, run: str) -> None:
        """End what `watch` began."""
        await self.request(Unwatch(id=1, run=run), Done)

    # --- reading -----------------------------------------------------------------------------------------------

    async def get_plan(self, plan: str) -> Envelope:
        """A plan's envelope as its author signed it; the caller verifies it."""
        return (await self.request(GetPlan(id=1, plan=plan), PlanReply)).envelope

    async def list_plans(self, *, after: int = 0, limit: int = 50) -> Plans:
        """A page of the catalog."""
        return await self.request(ListPlans(id=1, after=after, limit=limit), Plans)

    async def get_run(self, run: str) -> RunReply:
        """A run's status and signed terms."""
        return await self.request(GetRun(id=1, run=run), RunReply)

    async def list_runs(self, *, plan: str | None = None, after: int = 0, limit: int = 50) -> Runs:
        """A page of the runs this peer may see."""
        return await self.request(ListRuns(id=1, plan=plan, after=after, limit=limit), Runs)

    async def log(self, run: str, *, first: int = 1, limit: int = 20) -> LogPage:
        """A page of a run's round log."""
        return await self.request(Log(id=1, run=run, first=first, limit=limit), LogPage)

    # --- node --------------------------------------------------------------------------------------------------

    async def register(
        self, datasets: tuple[DatasetSchema, ...], *, sealing_key: bytes | None = None, max_runs: int = 4
    ) -> None:
        """Advertise datasets; offers follow in `events`. `sealing_key` is an X25519 public key (32 bytes)."""
        signature = None if sealing_key is None else sign_sealing_key(self._identity, sealing_key)
        await self.request(
            Register(
                id=1,
                datasets=datasets,
                sealing_key=sealing_key,
                sealing_signature=signature,
                max_runs=max_runs,
            ),
            Done,
        )

    async def accept(self, run: str, *, dataset: str | None = None) -> RunStatus:
        """Consent to a run, across reconnects; tells where it stands, that is which model `ready` wants."""
        return (await self.request(Accept(id=1, run=run, dataset=dataset), RunReply)).status

    async def ready(self, run: str, *, round_number: int, model_digest: str) -> None:
        """Say that this node holds the model of `round_number` logged rounds.

        Raises:
            SignalingRefusedError: `stale-model` where the run is elsewhere by now.
        """
        await self.request(Ready(id=1, run=run, round=round_number, model_digest=model_digest), Done)

    async def decline(self, run: str, reason: str = "") -> None:
        """Do not consent to a run."""
        await self.request(Decline(id=1, run=run, reason=reason[:1024]), Done)

    async def withdraw(self, run: str) -> None:
        """Take consent back."""
        await self.request(Withdraw(id=1, run=run), Done)

    async def result(
        self,
        run: str,
        *,
        round_number: int,
        attempt: int,
        model_digest: str,
        survivors: tuple[int, ...],
        metrics: bytes,
        signatures: tuple[MemberSignature, ...],
        place: Place | None = None,
    ) -> None:
        """Report a round; repeated by itself after reconnects until the round is logged."""
        await self.request(
            Result(
                id=1,
                run=run,
                round=round_number,
                attempt=attempt,
                model_digest=model_digest,
                survivors=survivors,
                metrics=metrics,
                signatures=signatures,
                place=place,
            ),
            Done,
        )

    async def round_failed(
        self, run: str, *, round_number: int, attempt: int, reason: str, place: Place | None = None
    ) -> None:
        """Report that this node gave an attempt up."""
        await self.request(
            RoundFailed(id=1, run=run, round=round_number, attempt=attempt, reason=reason[:1024], place=place),
            Done,
        )

    async def introduce(self, run: str) -> Introduction:
        """Ask for online holders of a run's current model."""
        return await self.request(Introduce(id=1, run=run), Introduction)
