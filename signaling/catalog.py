"""Requests that are answered from the store: plans, blobs, opening runs, lists and logs (spec 03 §4 and §5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from protocol.encoding import decode_json, encode_json
from protocol.envelope import PLAN_TYPE, RUN_TYPE, Envelope, Opened, open_envelope
from protocol.errors import ProtocolError
from protocol.identity import short
from protocol.manifest import PlanManifest, decode_manifest
from protocol.signaling import (
    BLOB_PART_BYTES,
    MAX_FRAME_BYTES,
    BlobNeed,
    BlobSlice,
    GetBlob,
    GetPlan,
    GetRun,
    ListPlans,
    ListRuns,
    Log,
    LogPage,
    Message,
    Offer,
    OpenRun,
    PlanReply,
    Plans,
    PlanStatus,
    PublishPlan,
    RunReply,
    Runs,
    RunStatus,
    codes,
    encode_blob_part,
    encode_message,
)
from protocol.terms import RunTerms, decode_terms
from signaling.engine import Engine
from signaling.errors import RefusedError
from signaling.initial_model import initial_model_digest
from signaling.run_phases import RunFacts
from signaling.store import NewPlan, NewRun, RunRow, Store

__all__ = ["CatalogRequest", "answer", "blob_parts"]

CatalogRequest = PublishPlan | GetPlan | GetBlob | ListPlans | OpenRun | GetRun | ListRuns | Log


async def answer(engine: Engine, peer: str, request: CatalogRequest) -> Message:
    """The reply to one request.

    Raises:
        RefusedError: it is refused.
    """
    match request:
        case PublishPlan():
            return await _publish_plan(engine, peer, request)
        case GetPlan():
            return await _get_plan(engine, request)
        case GetBlob():
            return await _get_blob(engine, request)
        case ListPlans():
            page, following = await engine.in_store(lambda store: store.plans(request.after, request.limit))
            return Plans(re=request.id, plans=page, next=following)
        case OpenRun():
            return await _open_run(engine, peer, request)
        case GetRun():
            return await _get_run(engine, peer, request)
        case ListRuns():
            return await _list_runs(engine, peer, request)
        case Log():
            return await _log(engine, peer, request)


async def blob_parts(engine: Engine, slice_: BlobSlice) -> AsyncIterator[bytes]:
    """The binary frames that follow a `blob_slice`, read one at a time."""
    at, end = slice_.offset, slice_.offset + slice_.length
    while at < end:
        size = min(BLOB_PART_BYTES, end - at)
        data = await engine.in_thread(partial(engine.blobs.read, slice_.digest, at, size))
        engine.metrics.blob_out.inc(len(data))
        yield encode_blob_part(slice_.digest, at, data)
        at += len(data)


def _opened(envelope: Envelope, kind: str, *, what: str, signer: str) -> Opened:
    opened = open_envelope(encode_json(envelope), kind, what=what)
    if opened.signer != signer:
        raise RefusedError(
            codes.NOT_ALLOWED,
            f"{what} {short(opened.digest)} is signed by {short(opened.signer)}, sent by {short(signer)}",
        )
    return opened


async def _publish_plan(engine: Engine, peer: str, request: PublishPlan) -> PlanStatus:
    authors = engine.config.authors
    if authors and peer not in authors:
        raise RefusedError(codes.NOT_ALLOWED, f"{short(peer)} is not among the authors this signaling server takes")
    try:
        opened = _opened(request.envelope, PLAN_TYPE, what="plan", signer=peer)
        manifest = decode_manifest(opened.payload)
    except ProtocolError as error:
        raise RefusedError(error.code, str(error)) from None
    known = await engine.in_store(lambda store: store.plan(opened.digest))
    if known is not None and known.author != peer:
        raise RefusedError(
            codes.NOT_ALLOWED,
            f"plan {manifest.name} is published by {short(known.author)} already, "
            f"{short(peer)} signed the same bytes",
        )
    if known is None:
        await _check_quota(engine, peer, manifest)
        plan = NewPlan(
            plan=opened.digest,
            author=peer,
            name=manifest.name,
            version=manifest.version,
            envelope=encode_json(request.envelope),
            blobs=tuple((blob.digest, blob.size) for blob in manifest.blobs),
            published_at=engine.now(),
        )
        await engine.in_store(lambda store: store.add_plan(plan))
    return PlanStatus(re=request.id, plan=opened.digest, missing=await _missing(engine, opened.digest, peer))


async def _missing(engine: Engine, plan: str, author: str) -> tuple[BlobNeed, ...]:
    missing = await engine.in_store(lambda store: store.missing_blobs(plan))
    for digest, size in missing:
        if size == 0:  # no frame carries zero bytes, and there is nothing to wait for
            await engine.in_thread(partial(engine.blobs.store_empty, digest))
            await engine.in_store(partial(Store.add_blob, digest=digest, size=0))
    sizes = [(digest, size) for digest, size in missing if size]
    offsets = await engine.in_thread(lambda: [engine.blobs.partial_size(digest, author) for digest, _ in sizes])
    return tuple(
        BlobNeed(digest=digest, size=size, offset=min(offset, size))
        for (digest, size), offset in zip(sizes, offsets, strict=True)
    )


async def _check_quota(engine: Engine, author: str, manifest: PlanManifest) -> None:
    limits = engine.config.limits
    size = sum(blob.size for blob in manifest.blobs)
    if size > limits.plan_bytes:
        raise RefusedError(
            codes.QUOTA_EXCEEDED,
            f"plan {manifest.name} has {size} bytes of blobs, at most {limits.plan_bytes} are taken",
        )
    count, held = await engine.in_store(lambda store: (store.plans_by(author), store.announced_bytes()))
    if count >= limits.plans_per_author:
        raise RefusedError(
            codes.QUOTA_EXCEEDED,
            f"{short(author)} has {count} plans here, at most {limits.plans_per_author} are taken",
        )
    if held + size > limits.store_bytes:
        raise RefusedError(
            codes.QUOTA_EXCEEDED,
            f"plan {manifest.name} has {size} bytes of blobs, {limits.store_bytes - held} are left here",
        )


async def _get_plan(engine: Engine, request: GetPlan) -> PlanReply:
    row = await engine.in_store(lambda store: store.plan(request.plan))
    if row is None:
        raise RefusedError(codes.UNKNOWN_PLAN, f"plan {short(request.plan)} is not known here")
    return PlanReply(re=request.id, plan=request.plan, envelope=_envelope(row.envelope))


async def _get_blob(engine: Engine, request: GetBlob) -> BlobSlice:
    size = await engine.in_store(lambda store: store.blob_size(request.digest))
    if size is None:
        raise RefusedError(codes.UNKNOWN_BLOB, f"blob {short(request.digest)} is not known here")
    if request.offset > size:
        raise RefusedError(
            codes.REFUSED, f"blob {short(request.digest)} has {size} bytes, asked for byte {request.offset}"
        )
    return BlobSlice(
        re=request.id,
        digest=request.digest,
        offset=request.offset,
        length=min(request.length, size - request.offset),
        size=size,
    )


async def _open_run(engine: Engine, peer: str, request: OpenRun) -> RunReply:
    try:
        opened = _opened(request.envelope, RUN_TYPE, what="run", signer=peer)
        terms = decode_terms(opened.payload)
    except ProtocolError as error:
        raise RefusedError(error.code, str(error)) from None
    row = await engine.in_store(lambda store: store.run(opened.digest))
    if row is None:
        facts = await _run_facts(engine, peer, request.envelope, opened, terms)
        model = await engine.in_thread(
            lambda: initial_model_digest(facts.manifest, engine.blobs, terms.server_optimizer)
        )
        run = NewRun(
            run=facts.run,
            plan=facts.plan,
            author=peer,
            name=terms.name,
            envelope=encode_json(request.envelope),
            rounds=terms.rounds,
            members=terms.members,
            model_digest=model,
            opened_at=facts.opened_at,
        )
        if await engine.in_store(lambda store: store.add_run(run)):
            engine.deliver(engine.registry.open_run(facts, model, engine.now()))
        return RunReply(re=request.id, status=engine.registry.machine(facts.run).status())
    return RunReply(re=request.id, status=_status(engine, row))


async def _run_facts(engine: Engine, peer: str, envelope: Envelope, opened: Opened, terms: RunTerms) -> RunFacts:
    limits, registry = engine.config.limits, engine.registry
    if registry.open_runs() >= limits.open_runs or registry.open_runs(peer) >= limits.open_runs_per_author:
        raise RefusedError(
            codes.QUOTA_EXCEEDED,
            f"{registry.open_runs()} runs are open, {registry.open_runs(peer)} by {short(peer)}; "
            f"at most {limits.open_runs} and {limits.open_runs_per_author} are taken",
        )
    row = await engine.in_store(lambda store: store.plan(terms.plan))
    if row is None:
        raise RefusedError(codes.UNKNOWN_PLAN, f"run {terms.name}: plan {short(terms.plan)} is not known here")
    if row.author != peer:
        raise RefusedError(
            codes.NOT_ALLOWED,
            f"run {terms.name}: plan {short(terms.plan)} is by {short(row.author)}; {short(peer)} cannot run it",
        )
    missing = await engine.in_store(lambda store: store.missing_blobs(terms.plan))
    if missing:
        raise RefusedError(
            codes.PLAN_INCOMPLETE, f"run {terms.name}: plan {short(terms.plan)} lacks {len(missing)} of its blobs"
        )
    manifest = decode_manifest(open_envelope(row.envelope, PLAN_TYPE, what="stored plan").payload)
    if "train" not in manifest.functions:
        raise RefusedError("bad-terms", f"run {terms.name}: plan {manifest.name} has no train function")
    facts = RunFacts(
        run=opened.digest,
        plan=terms.plan,
        author=peer,
        terms=terms,
        manifest=manifest,
        envelope=envelope,
        plan_envelope=_envelope(row.envelope),
        opened_at=engine.now(),
    )
    _check_offer_fits(facts)
    return facts


def _check_offer_fits(facts: RunFacts) -> None:
    offer = Offer(
        run=facts.run, envelope=facts.envelope, plan_envelope=facts.plan_envelope, round=0, model_digest=facts.plan
    )
    try:
        encode_message(offer)
    except ProtocolError as error:
        raise RefusedError(error.code, f"run {facts.terms.name}: its offer is too large: {error}") from None


async def _get_run(engine: Engine, peer: str, request: GetRun) -> RunReply:
    row = await _visible_run(engine, peer, request.run)
    return RunReply(re=request.id, status=_status(engine, row), envelope=_envelope(row.envelope))


async def _visible_run(engine: Engine, peer: str, run: str) -> RunRow:
    row = await engine.in_store(lambda store: store.run(run) if store.may_see(run, peer) else None)
    if row is None:
        raise RefusedError(codes.UNKNOWN_RUN, f"run {short(run)} is not known here")
    return row


async def _list_runs(engine: Engine, peer: str, request: ListRuns) -> Runs:
    rows, following = await engine.in_store(
        lambda store: store.runs(peer, request.plan, request.after, request.limit)
    )
    return Runs(re=request.id, runs=tuple(_status(engine, row) for row in rows), next=following)


async def _log(engine: Engine, peer: str, request: Log) -> LogPage:
    await _visible_run(engine, peer, request.run)
    entries, following = await engine.in_store(lambda store: store.log(request.run, request.first, request.limit))
    while True:
        page = LogPage(re=request.id, entries=entries, next=following)
        try:
            encode_message(page)
        except ProtocolError:
            # Large cohorts with large metrics: half a page fits where a whole one does not.
            half = max(1, len(entries) // 2)
            following, entries = entries[half].round, entries[:half]
        else:
            return page


def _envelope(data: bytes) -> Envelope:
    return decode_json(data, Envelope, what="stored envelope", max_bytes=MAX_FRAME_BYTES)


def _status(engine: Engine, row: RunRow) -> RunStatus:
    machine = engine.registry.runs.get(row.run)
    if machine is not None:
        return machine.status()
    return RunStatus(
        run=row.run,
        plan=row.plan,
        name=row.name,
        author=row.author,
        state=row.state,
        reason=row.reason,
        rounds=row.rounds,
        round=row.round,
        attempt=row.attempt,
        model_digest=row.model_digest,
        accepted=0,
        ready=0,
        opened_at=row.opened_at,
    )
