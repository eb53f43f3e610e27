"""The author's side: publish a plan, open a run, watch it, fetch its model from a peer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_data_path

from plans import Plan, SignedPlan, open_signed, verify
from protocol.encoding import decode_json, encode_json
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, open_envelope, seal_envelope
from protocol.errors import ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.link import Payload
from protocol.manifest import PlanManifest, decode_manifest
from protocol.server_optimizer import chosen_optimizer, moment_count
from protocol.signaling import (
    LogEntry,
    RoundLogged,
    RoundOpened,
    RunChanged,
    RunStatus,
)
from protocol.tail import Metrics, read_tail
from protocol.terms import Deadlines, LocalTraining, RunTerms, check_terms, decode_terms, encode_terms, threshold
from python_node import signaling_blobs
from python_node.log_checking import check_entry, check_initial_model
from python_node.loop import run as run_loop
from python_node.mesh import IceServer
from python_node.signaling_events import SessionEvent
from python_node.signaling_link import SignalingSession
from python_node.state import load_or_create_identity
from python_node.switchboard import Switchboard

__all__ = ["Author", "FetchedModel", "RunView", "default_identity_path", "make_terms", "publish"]

FINAL_STATES = ("finished", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run with its plan's manifest and signed terms, verified."""

    status: RunStatus
    terms: RunTerms
    manifest: PlanManifest

    def metrics(self, entry: LogEntry) -> Metrics:
        """A logged round's metrics."""
        return read_tail(self.manifest, self.terms, entry.metrics)


@dataclass(frozen=True, kw_only=True)
class FetchedModel:
    """A model from a peer, checked against the digest that a quorum of the run's peers signed.

    `values` is float32 [P + B]: shared parameters, then buffers. The digest is over the server optimizer's moments
    too, where it has any; they are not in `values`.
    """

    round: int
    digest: str
    values: NDArray[np.float32]


def default_identity_path() -> Path:
    """Where an author's key is kept unless told otherwise."""
    return user_data_path("peerplan") / "author.key"


def make_terms(
    plan: Plan,
    *,
    rounds: int,
    cohort_size: int = 10,
    min_cohort: int | None = None,
    cohorts: int = 1,
    min_survivors: int | None = None,
    name: str | None = None,
    epochs: int = 1,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    max_examples: int = 2048,
    weighting: str = "examples",
    clip: float = 1.0,
    ring_bits: int | None = None,
    value_bits: int | None = None,
    replicas: int = 1,
    members: Sequence[str] = (),
    evaluate: bool = True,
    retries: int = 5,
    deadlines: Deadlines | None = None,
    nonce: str | None = None,
    server_optimizer: str = "fedavg",
    server_learning_rate: float | None = None,
    server_beta1: float | None = None,
    server_beta2: float | None = None,
    server_tau: float | None = None,
) -> RunTerms:
    """Terms of a run with sound defaults: the ring that fits the cohort, the plan's own training settings.

    `min_cohort` is the cohort's threshold and at least 5 by default, `min_survivors` max(threshold, 5) but no more
    than `min_cohort`. With `cohorts` above one, as many are formed of the peers that are ready (spec 08). `clip`
    bounds one coordinate of an update. `nonce` is random; fixing it makes the run's ids, and with seeded nodes its
    training, repeatable. `server_optimizer` is how peers apply the mean update: fedavg adds it, fedavgm, fedadam and
    fedyogi keep moments of it (docs/plans.md).

    Raises:
        TermsError: the numbers contradict each other.
    """
    training = plan.manifest.training
    if training is None:
        raise ProtocolError(f"plan {plan.manifest.name}: has no train function, so there is nothing to run in rounds")
    if min_cohort is None:
        min_cohort = min(cohort_size, max(5, threshold(cohort_size)))
    if min_survivors is None:
        min_survivors = max(3, min(min_cohort, max(threshold(min_cohort), 5)))
    if value_bits is None:
        value_bits = 16 if ring_bits != 16 else 12
    if ring_bits is None:
        ring_bits = 20 if cohort_size <= 16 and value_bits <= 16 else 24 if value_bits <= 16 else 32
    terms = RunTerms(
        name=name or plan.manifest.name,
        plan=plan.digest,
        nonce=nonce or os.urandom(32).hex(),
        rounds=rounds,
        cohort_size=cohort_size,
        cohorts=cohorts,
        min_cohort=min_cohort,
        min_survivors=min_survivors,
        ring_bits=ring_bits,  # type: ignore[arg-type]  # decode_terms checks the values below
        value_bits=value_bits,
        clip=clip,
        replicas=replicas,  # type: ignore[arg-type]
        retries=retries,
        members=tuple(members),
        evaluate=evaluate,
        local=LocalTraining(
            epochs=epochs,
            batch_size=training.batch_size if batch_size is None else batch_size,
            learning_rate=training.learning_rate if learning_rate is None else learning_rate,
            max_examples=max_examples,
            weighting=weighting,  # type: ignore[arg-type]
        ),
        deadlines=deadlines or Deadlines(),
        server_optimizer=chosen_optimizer(
            server_optimizer,
            learning_rate=server_learning_rate,
            beta1=server_beta1,
            beta2=server_beta2,
            tau=server_tau,
        ),
    )
    check_terms(terms)
    return decode_terms(encode_terms(terms))


class Author:
    """An author on an open session: publishes, watches and fetches. Use as `async with Author.connect(...)`."""

    def __init__(
        self, session: SignalingSession, identity: Identity, *, ice_servers: Sequence[IceServer] = ()
    ) -> None:
        self.session = session
        self._identity = identity
        self._ice_servers = ice_servers
        self._switchboard: Switchboard | None = None
        self._events: asyncio.Queue[SessionEvent | None] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())
        self._reading.add_done_callback(lambda _task: self._events.put_nowait(None))

    @classmethod
    async def connect(
        cls,
        url: str,
        identity: Identity,
        *,
        expected_server: str | None = None,
        ice_servers: Sequence[IceServer] = (),
    ) -> Self:
        """Open a session for an author.

        Raises:
            SignalingSessionError: the server is down, refuses, or is not the expected one.
        """
        session = await SignalingSession.connect(url, identity, expected_server=expected_server)
        return cls(session, identity, ice_servers=ice_servers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End links and the session."""
        if self._switchboard is not None:
            await self._switchboard.close()
        await self.session.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def publish(
        self, plan: Plan, terms: RunTerms, *, progress: signaling_blobs.Progress | None = None
    ) -> RunStatus:
        """Sign where nobody has, upload what is missing, open the run.

        Raises:
            SignalingSessionError: refused or down.
            SignatureError: the plan is signed by somebody else.
        """
        signed = plan if isinstance(plan, SignedPlan) else plan.sign(self._identity)
        verify(signed, authors={self._identity.peer_id})
        envelope = decode_json(signed.envelope, Envelope, what="plan envelope", max_bytes=len(signed.envelope))
        await signaling_blobs.publish(self.session, envelope, dict(signed.blobs), progress=progress)
        sealed = seal_envelope(self._identity, RUN_TYPE, encode_terms(terms))
        return await self.session.open_run(decode_json(sealed, Envelope, what="run terms", max_bytes=len(sealed)))

    async def view(self, run: str) -> RunView:
        """A run with its terms and manifest, all signatures checked.

        Raises:
            ProtocolError: signaling shows terms or a plan that the author did not sign.
            SignalingSessionError: unknown run, refused, or down.
        """
        reply = await self.session.get_run(run)
        if reply.envelope is None:
            raise ProtocolError(f"run {short(run)}: signaling sent no terms")
        opened = open_envelope(encode_json(reply.envelope), RUN_TYPE, what="run terms")
        terms = decode_terms(opened.payload)
        plan = open_envelope(encode_json(await self.session.get_plan(terms.plan)), PLAN_TYPE, what="plan")
        if opened.digest != run or plan.digest != terms.plan or plan.signer != opened.signer:
            raise ProtocolError(f"run {short(run)}: signaling shows terms or a plan that do not belong to it")
        return RunView(status=reply.status, terms=terms, manifest=decode_manifest(plan.payload))

    async def fetch_plan(self, run: str, folder: Path) -> SignedPlan:
        """The run's plan with every blob, verified; `folder` keeps what was downloaded."""
        view = await self.view(run)
        envelope = encode_json(await self.session.get_plan(view.terms.plan))
        blobs = {}
        for blob in view.manifest.blobs:
            target = folder / blob.digest
            await signaling_blobs.download_blob(self.session, blob.digest, blob.size, target)
            blobs[blob.digest] = await asyncio.to_thread(target.read_bytes)
        return verify(open_signed(envelope, blobs))

    async def watch(self, run: str) -> AsyncIterator[RunChanged | RoundOpened | RoundLogged]:
        """Events of a run from its first logged round on, until it ends."""
        await self.session.watch(run)
        last = 0
        async for entry in self._entries(run, 1):
            last = entry.round
            yield RoundLogged(entry=entry)
        status = (await self.session.get_run(run)).status
        self._forget_stale(run)
        yield RunChanged(status=status)
        while status.state not in FINAL_STATES:
            event = await self._events.get()
            if event is None:
                return
            match event:
                case RunChanged() if event.status.run == run:
                    status = event.status
                    if status.state not in FINAL_STATES:
                        yield event
                case RoundOpened() if event.run == run:
                    yield event
                case RoundLogged() if event.entry.run == run and event.entry.round > last:
                    last = event.entry.round
                    yield event
                case _:
                    pass
        async for entry in self._entries(run, last + 1):
            yield RoundLogged(entry=entry)
        yield RunChanged(status=status)

    async def _entries(self, run: str, number: int) -> AsyncIterator[LogEntry]:
        """The log from round `number` on."""
        first: int | None = number
        while first is not None:
            page = await self.session.log(run, first=first)
            for entry in page.entries:
                yield entry
            if page.next is not None and page.next <= first:
                raise ProtocolError(f"run {short(run)}: after round {first} signaling's log goes on at {page.next}")
            first = page.next

    def _forget_stale(self, run: str) -> None:
        """Drop what came before the status that was just asked for; logged rounds stay."""
        for _ in range(self._events.qsize()):
            event = self._events.get_nowait()
            told = (isinstance(event, RunChanged) and event.status.run == run) or (
                isinstance(event, RoundOpened) and event.run == run
            )
            if not told:
                self._events.put_nowait(event)

    async def fetch(
        self,
        run: str,
        *,
        round_number: int | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> FetchedModel:
        """The run's model from a peer, checked against what a quorum signed (or the plan's initial model).

        By default the current one; `round_number` asks for that of an earlier round, of which peers keep a few.

        Raises:
            LinkError: no peer that holds it can be reached.
            SignatureError: the log does not carry a quorum's signatures for the digest.
        """
        view = await self.view(run)
        manifest, optimizer = view.manifest, view.terms.server_optimizer
        length = manifest.shared_count + manifest.buffer_count
        total = 4 * (length + moment_count(optimizer, manifest.shared_count))
        past = None
        if round_number is not None:
            past = (round_number, (await self._entry(run, round_number)).model_digest)
        number, digest, data = await self._board().fetch_model(run, total=total, past=past, progress=progress)
        if number:
            check_entry(await self._entry(run, number), run=run, number=number, digest=digest, terms=view.terms)
        else:
            check_initial_model(manifest, optimizer, data)
        values = np.frombuffer(data, "<f4", count=length).astype(np.float32)
        return FetchedModel(round=number, digest=digest, values=values)

    async def _entry(self, run: str, number: int) -> LogEntry:
        page = await self.session.log(run, first=number, limit=1)
        if not page.entries or page.entries[0].round != number:
            raise ProtocolError(f"run {short(run)}: signaling has logged no round {number}")
        return page.entries[0]

    def _board(self) -> Switchboard:
        if self._switchboard is None:
            self._switchboard = Switchboard(
                self.session,
                self._identity,
                on_round_message=_ignore_message,
                on_link=_ignore_link,
                on_unreachable=lambda _peer: None,
                lookup=lambda _run, _round, _digest: None,
                may_fetch=lambda _peer, _run: False,
                ice_servers=self._ice_servers,
            )
        return self._switchboard

    async def _read(self) -> None:
        async for event in self.session.events():
            if self._switchboard is not None:
                self._switchboard.handle(event)
            if isinstance(event, RunChanged | RoundOpened | RoundLogged):
                self._events.put_nowait(event)


def publish(
    plan: Plan,
    url: str,
    *,
    identity: Identity | None = None,
    terms: RunTerms | None = None,
    expected_server: str | None = None,
    progress: signaling_blobs.Progress | None = None,
    **options: Any,
) -> str:
    """Publish a plan and open a run of it; gives the run id. `options` are those of `make_terms`.

    Without `identity`, the author's key in the user's data folder is used, and made on first use.

    Raises:
        SignalingSessionError: the signaling server is down or refuses.
        TermsError: the options contradict each other.
    """
    key = identity or load_or_create_identity(default_identity_path())
    agreed = terms or make_terms(plan, **options)

    async def go() -> str:
        async with await Author.connect(url, key, expected_server=expected_server) as author:
            return (await author.publish(plan, agreed, progress=progress)).run

    return run_loop(go())


def _ignore_message(_peer: PeerId, _payload: Payload, _bulk: bool) -> None:  # noqa: FBT001 (a callback)
    """An author takes part in no round."""


def _ignore_link(_peer: PeerId, _up: bool, _reason: str) -> None:  # noqa: FBT001 (a callback)
    """Links matter to fetches alone, which see them end."""
