"""Plans and blobs: published once, whole, by their author alone."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
import pytest

from protocol.encoding import digest_of
from protocol.envelope import PLAN_TYPE, open_envelope
from protocol.signaling import BLOB_PART_BYTES, BlobProgress
from python_node.signaling_blobs import download_blob, publish
from python_node.signaling_errors import SignalingRefusedError, SignalingUntrustedError
from signaling import Limits
from tests.signaling.world import GRAPH, World, manifest, plan_envelope, run_envelope, terms

BIG = hashlib.shake_256(b"big").digest(3 * BLOB_PART_BYTES + 77)


async def refused(awaitable) -> SignalingRefusedError:
    with pytest.raises(SignalingRefusedError) as caught:
        await awaitable
    return caught.value


async def test_a_published_plan_is_fetched_bit_for_bit(world: World, tmp_path):
    author, reader = await world.author(), await world.node("reader")
    steps = []
    sealed = plan_envelope(author.identity, manifest(graph=BIG))
    plan = await publish(author.session, sealed, {digest_of(BIG): BIG}, progress=lambda *step: steps.append(step))
    assert steps[-1] == (digest_of(BIG), len(BIG), len(BIG))
    got = await reader.session.get_plan(plan)
    opened = open_envelope(msgspec.json.encode(got), PLAN_TYPE, what="plan")
    assert (opened.digest, opened.signer) == (plan, author.identity.peer_id)
    target = tmp_path / "blob"
    await download_blob(reader.session, digest_of(BIG), len(BIG), target)
    assert target.read_bytes() == BIG
    assert target.stat().st_mode & 0o077 == 0


async def test_a_tampered_plan_is_refused(world: World):
    author = await world.author()
    sealed = plan_envelope(author.identity)
    forged = msgspec.structs.replace(sealed, payload=sealed.payload.replace(b'"toy"', b'"tox"'))
    assert (await refused(author.session.publish_plan(forged))).code == "bad-signature"


async def test_a_plan_signed_by_somebody_else_is_refused(world: World):
    author, other = await world.author(), await world.node("other")
    error = await refused(other.session.publish_plan(plan_envelope(author.identity)))
    assert error.code == "not-allowed"


async def test_the_same_plan_signed_by_a_second_author_is_refused(world: World):
    author, other = await world.author(), await world.node("other")
    await author.session.publish_plan(plan_envelope(author.identity))
    error = await refused(other.session.publish_plan(plan_envelope(other.identity)))
    assert error.code == "not-allowed"


async def test_only_listed_authors_publish_where_there_is_a_list(make_world):
    async with make_world(authors=("ab" * 32,)) as world:
        author = await world.author()
        assert (await refused(author.session.publish_plan(plan_envelope(author.identity)))).code == "not-allowed"


async def test_a_run_is_refused_before_the_plan_is_complete(world: World):
    author = await world.author()
    status = await author.session.publish_plan(plan_envelope(author.identity))
    run = run_envelope(author.identity, terms(status.plan))
    assert (await refused(author.session.open_run(run))).code == "plan-incomplete"


async def test_a_run_of_another_authors_plan_is_refused(world: World):
    author, thief = await world.author(), await world.node("thief")
    plan = await publish(author.session, plan_envelope(author.identity), {digest_of(GRAPH): GRAPH})
    run = run_envelope(thief.identity, terms(plan))
    assert (await refused(thief.session.open_run(run))).code == "not-allowed"
    stolen = run_envelope(author.identity, terms(plan))
    assert (await refused(thief.session.open_run(stolen))).code == "not-allowed"


async def test_opening_the_same_run_twice_gives_one_run(world: World):
    author = await world.author()
    first = await world.open_run(author)
    second = await world.open_run(author)
    assert first == second
    assert len((await author.session.list_runs()).runs) == 1


async def upload(session, digest: str, *parts: tuple[int, bytes]):
    """Send parts by hand; the first refusal, or the last acknowledgement."""
    answers: asyncio.Queue = asyncio.Queue()
    session.on_progress(digest, answers.put_nowait)
    for offset, data in parts:
        await session.send_part(digest, offset, data)
        answer = await answers.get()
        if not isinstance(answer, BlobProgress):
            raise answer
    return answer


async def test_a_blob_with_another_digest_is_refused_and_can_be_sent_again(world: World):
    author = await world.author()
    status = await author.session.publish_plan(plan_envelope(author.identity))
    digest = digest_of(GRAPH)
    error = await refused(upload(author.session, digest, (0, bytes(len(GRAPH)))))
    assert error.code == "blob-mismatch"
    assert (await upload(author.session, digest, (0, GRAPH))).offset == len(GRAPH)
    assert (await author.session.publish_plan(plan_envelope(author.identity))).missing == ()
    assert status.missing[0].offset == 0


async def test_a_gap_or_too_many_bytes_in_an_upload_are_refused(world: World):
    author = await world.author()
    await author.session.publish_plan(plan_envelope(author.identity))
    digest = digest_of(GRAPH)
    assert (await refused(upload(author.session, digest, (7, b"x")))).code == "blob-mismatch"
    assert (await refused(upload(author.session, digest, (0, GRAPH + b"x")))).code == "blob-mismatch"


async def test_a_blob_no_plan_lists_is_refused(world: World):
    author, other = await world.author(), await world.node("other")
    await author.session.publish_plan(plan_envelope(author.identity))
    assert (await refused(upload(author.session, "ab" * 32, (0, b"x")))).code == "unknown-blob"
    assert (await refused(upload(other.session, digest_of(GRAPH), (0, GRAPH)))).code == "unknown-blob"


async def test_an_upload_resumes_where_a_broken_connection_and_a_restart_left_it(world: World):
    author = await world.author()
    sealed = plan_envelope(author.identity, manifest(graph=BIG))
    digest = digest_of(BIG)
    await author.session.publish_plan(sealed)
    await upload(author.session, digest, (0, BIG[:BLOB_PART_BYTES]))
    await author.close()
    await world.stop()
    await world.start()
    again = await world.author()
    (need,) = (await again.session.publish_plan(sealed)).missing
    assert need.offset == BLOB_PART_BYTES
    sent = []
    await publish(again.session, sealed, {digest: BIG}, progress=lambda _, done, __: sent.append(done))
    assert sent[0] == 2 * BLOB_PART_BYTES


async def test_an_upload_that_the_server_cuts_off_is_finished_after_the_reconnect(world: World):
    author = await world.author()
    sealed = plan_envelope(author.identity, manifest(graph=BIG))
    cut = False

    def cut_once(*_):
        nonlocal cut
        if not cut:
            cut = True
            author.session._opened.socket.transport.abort()

    plan = await publish(author.session, sealed, {digest_of(BIG): BIG}, progress=cut_once)
    assert cut
    assert (await author.session.publish_plan(sealed)).missing == ()
    assert (await author.session.list_plans()).plans[0].plan == plan


async def test_a_download_resumes_from_its_part_file(world: World, tmp_path):
    author = await world.author()
    await publish(author.session, plan_envelope(author.identity, manifest(graph=BIG)), {digest_of(BIG): BIG})
    (tmp_path / "blob.part").write_bytes(BIG[:100])
    steps = []
    await download_blob(
        author.session, digest_of(BIG), len(BIG), tmp_path / "blob", progress=lambda *s: steps.append(s)
    )
    assert (tmp_path / "blob").read_bytes() == BIG
    assert not (tmp_path / "blob.part").exists()


async def test_a_download_whose_start_was_spoilt_is_refused_and_started_over(world: World, tmp_path):
    author = await world.author()
    await publish(author.session, plan_envelope(author.identity, manifest(graph=BIG)), {digest_of(BIG): BIG})
    (tmp_path / "blob.part").write_bytes(b"spoilt")
    with pytest.raises(SignalingUntrustedError, match="has SHA-256"):
        await download_blob(author.session, digest_of(BIG), len(BIG), tmp_path / "blob")
    assert [path.name for path in tmp_path.iterdir()] == ["signal"]
    await download_blob(author.session, digest_of(BIG), len(BIG), tmp_path / "blob")


async def test_quotas_are_kept(make_world):
    async with make_world(limits=Limits(plan_bytes=1000)) as world:
        author = await world.author()
        error = await refused(author.session.publish_plan(plan_envelope(author.identity)))
        assert (error.code, "at most 1000" in str(error)) == ("quota-exceeded", True)
    async with make_world(limits=Limits(open_runs_per_author=1)) as world:
        author = await world.author()
        await world.open_run(author)
        with pytest.raises(SignalingRefusedError, match="quota-exceeded"):
            await world.open_run(author, nonce="11" * 32)


async def test_the_catalog_is_paged(world: World):
    author = await world.author()
    for number in range(5):
        await author.session.publish_plan(plan_envelope(author.identity, manifest(name=f"plan-{number}")))
    names, after = [], 0
    while after is not None:
        page = await author.session.list_plans(after=after, limit=2)
        names += [entry.name for entry in page.plans]
        after = page.next
    assert names == [f"plan-{number}" for number in range(5)]


async def test_unknown_things_are_named(world: World):
    reader = await world.node("reader")
    assert (await refused(reader.session.get_plan("ab" * 32))).code == "unknown-plan"
    assert (await refused(reader.session.get_run("ab" * 32))).code == "unknown-run"
    assert (await refused(reader.session.blob_slice("ab" * 32, 0, 10))).code == "unknown-blob"
