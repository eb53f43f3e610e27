"""Peers and signaling servers that lie, flood, stall or send nonsense."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import urllib.error
import urllib.request

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from protocol.signaling import (
    Challenge,
    Error,
    GetBlob,
    GetRun,
    PeerGone,
    RoundStart,
    decode_from_peer,
    decode_from_server,
    encode_message,
    sign_authenticate,
    sign_welcome,
)
from python_node.signaling_core import SessionOptions
from python_node.signaling_errors import (
    SignalingDownError,
    SignalingEndedError,
    SignalingRefusedError,
    SignalingUntrustedError,
)
from python_node.signaling_link import SignalingSession
from signaling import ConfigError, Limits, StoreError, Timing, serve
from tests.signaling.world import OPTIONS, World, identity


async def authenticated(world: World, name: str = "raw", **options):
    """A bare websocket past the handshake."""
    socket = await connect(world.url, proxy=None, compression=None, **options)
    challenge = decode_from_server(await socket.recv())
    await socket.send(
        encode_message(sign_authenticate(identity(name), challenge, version=1, nonce=bytes(32), audience="x:1"))
    )
    await socket.recv()
    return socket


async def last_words(socket) -> Error:
    """The error a connection ends with."""
    error = decode_from_server(await socket.recv())
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    return error


async def test_an_answer_signed_by_another_key_is_refused(world: World):
    async with connect(world.url, proxy=None) as socket:
        challenge = decode_from_server(await socket.recv())
        answer = sign_authenticate(identity("me"), challenge, version=1, nonce=bytes(32), audience="x:1")
        forged = msgspec.structs.replace(answer, peer=identity("you").peer_id)
        await socket.send(encode_message(forged))
        assert (await last_words(socket)).code == "bad-signature"


async def test_an_answer_to_an_earlier_challenge_is_refused(world: World):
    async with connect(world.url, proxy=None) as first, connect(world.url, proxy=None) as second:
        old = decode_from_server(await first.recv())
        await second.recv()
        answer = sign_authenticate(identity("me"), old, version=1, nonce=bytes(32), audience="x:1")
        await second.send(encode_message(answer))
        assert (await last_words(second)).code == "bad-signature"


async def test_a_handshake_for_another_host_is_refused(make_world):
    async with make_world(audiences=("signal.example:443",)) as world:
        with pytest.raises(SignalingRefusedError, match="wrong-audience"):
            await SignalingSession.connect(world.url, identity("me"))


async def test_a_silent_connection_is_closed_after_the_deadline(make_world):
    async with make_world(timing=Timing(authenticate_s=0.1)) as world, connect(world.url, proxy=None) as socket:
        await socket.recv()
        assert (await last_words(socket)).code == "not-authenticated"


async def test_requests_before_the_handshake_are_refused(world: World):
    async with connect(world.url, proxy=None) as socket:
        await socket.recv()
        await socket.send(encode_message(GetRun(id=1, run="00" * 32)))
        assert (await last_words(socket)).code == "not-authenticated"


async def test_large_frames_are_refused_sooner_before_the_handshake_than_after(world: World):
    async with connect(world.url, proxy=None) as socket:
        await socket.recv()
        await socket.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 1009
    socket = await authenticated(world)
    await socket.send("x" * 5000)
    assert (await last_words(socket)).code == "malformed-message"
    socket = await authenticated(world)
    await socket.send(bytes((256 << 10) + 1))
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "{}", '{"type":"nothing"}', "[" * 5000, '{"type":"watch","id":0,"run":"0"}', "\u0000"],
)
async def test_text_that_is_no_request_ends_the_connection_with_one_error(world: World, text: str):
    socket = await authenticated(world)
    await socket.send(text)
    assert (await last_words(socket)).code == "malformed-message"


async def test_a_malformed_request_with_an_id_is_answered_and_the_connection_lives(world: World):
    socket = await authenticated(world)
    await socket.send(json.dumps({"type": "watch", "id": 7, "run": "no hex"}))
    error = decode_from_server(await socket.recv())
    assert (error.re, error.code) == (7, "malformed-message")
    await socket.send(encode_message(GetRun(id=8, run="00" * 32)))
    assert decode_from_server(await socket.recv()).code == "unknown-run"
    await socket.close()


async def test_a_slow_reader_is_dropped_and_nobody_else_waits(make_world):
    async with make_world(limits=Limits(pending_bytes=1 << 20)) as world:
        _, _, nodes = await world.cohort(3, cohort_size=3)
        start = await nodes[0].next(RoundStart)
        stalled = nodes[1].session._opened.socket
        stalled.transport.pause_reading()
        gone = asyncio.create_task(nodes[0].next(PeerGone))
        while not gone.done():
            nodes[0].session.relay(nodes[1].identity.peer_id, start.round_id, "sealed", bytes(32 << 10))
            await nodes[0].session.list_plans()
        assert gone.result().peer == nodes[1].identity.peer_id
        stalled.transport.abort()


async def test_a_newer_connection_of_the_same_identity_replaces_the_older(world: World):
    older = await SignalingSession.connect(world.url, identity("twin"), options=OPTIONS)
    newer = await SignalingSession.connect(world.url, identity("twin"), options=OPTIONS)
    with pytest.raises(SignalingEndedError, match="connected from elsewhere"):
        async for _ in older.events():
            pass
    await newer.list_plans()
    await newer.close()
    await older.close()


async def test_connections_beyond_the_limit_are_turned_away(make_world):
    async with make_world(limits=Limits(connections=1)) as world, connect(world.url, proxy=None):
        with pytest.raises(InvalidStatus) as refused:
            await connect(world.url, proxy=None)
        assert refused.value.response.status_code == 503
    async with make_world(limits=Limits(connections_per_address=1)) as world, connect(world.url, proxy=None):
        with pytest.raises(SignalingDownError, match="429"):
            await SignalingSession.connect(world.url, identity("me"))


async def test_a_pinned_server_with_another_identity_is_not_trusted(world: World):
    with pytest.raises(SignalingUntrustedError, match="expected abababab"):
        await SignalingSession.connect(world.url, identity("me"), expected_server="ab" * 32)
    session = await SignalingSession.connect(world.url, identity("me"), expected_server=world.server.peer_id)
    await session.close()


async def test_a_server_without_the_key_it_names_is_not_trusted():
    real, thief = identity("real server"), identity("thief")

    async def lie(socket):
        challenge = Challenge(versions=(1,), nonce=bytes(32), server=real.peer_id, name="x")
        await socket.send(encode_message(challenge))
        answer = decode_from_peer(await socket.recv())
        await socket.send(encode_message(sign_welcome(thief, challenge, answer)))
        await socket.wait_closed()

    async with serve_websockets(lie, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(SignalingUntrustedError, match="signature is not by"):
            await SignalingSession.connect(f"ws://127.0.0.1:{port}", identity("me"), expected_server=real.peer_id)


async def test_a_server_that_is_down_gives_one_error_naming_the_url():
    with pytest.raises(SignalingDownError, match=r"signaling server ws://127\.0\.0\.1:9: cannot connect"):
        await SignalingSession.connect("ws://127.0.0.1:9", identity("me"))


async def test_a_request_that_no_reconnect_saves_names_the_url(world: World):
    session = await SignalingSession.connect(
        world.url, identity("me"), options=SessionOptions(request_timeout_s=0.3, first_backoff_s=0.01)
    )
    await world.stop()
    with pytest.raises(SignalingDownError, match=r"no reply to ListPlans within 0\.3 s"):
        await session.list_plans()
    await session.close()


async def test_unread_events_end_the_session_instead_of_growing(world: World):
    _, _, nodes = await world.cohort(3, cohort_size=3)
    start = await nodes[0].next(RoundStart)
    await nodes[1].close()
    deaf = await SignalingSession.connect(
        world.url, identity("node-1"), options=SessionOptions(event_queue=3, first_backoff_s=0.01)
    )
    ended = False
    while not ended:
        nodes[0].session.relay(deaf.peer_id, start.round_id, "candidate", b"c")
        try:
            await deaf.list_plans()
        except SignalingEndedError as error:
            ended = "events were not read" in str(error)
    await deaf.close()


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_health_and_metrics_are_on_the_same_port(world: World):
    node = await world.node("node")
    await node.session.list_plans()
    base = world.url.replace("ws:", "http:")
    assert await asyncio.to_thread(fetch, base + "/healthz") == (200, "ok\n")
    status, text = await asyncio.to_thread(fetch, base + "/metrics")
    assert status == 200
    assert 'messages_received_total{type="list_plans"} 1.0' in text
    assert "peerplan_signaling_nodes 1.0" in text
    assert node.identity.peer_id not in text
    assert (await asyncio.to_thread(fetch, base + "/elsewhere"))[0] == 404


async def test_a_second_server_on_the_folder_or_port_is_refused(world: World, make_world, tmp_path):
    with pytest.raises(StoreError, match="another signaling server uses this folder"):
        await serve(world.config)
    with pytest.raises(ConfigError, match="cannot listen"):
        await serve(dataclasses.replace(world.config, folder=tmp_path / "other"))


async def test_the_servers_secrets_are_for_its_owner_alone(world: World):
    folder = world.config.folder
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "identity.key").stat().st_mode & 0o077 == 0


async def test_a_blob_that_vanished_from_the_folder_is_told_as_a_fault_and_nobody_else_is_hurt(world: World):
    author = await world.author()
    await world.open_run(author)
    (blob,) = (path for path in (world.config.folder / "blobs").rglob("*") if path.is_file())
    blob.unlink()
    socket = await authenticated(world)
    await socket.send(encode_message(GetBlob(id=1, digest=blob.name, offset=0, length=10)))
    decode_from_server(await socket.recv())
    assert (await last_words(socket)).code == "internal-error"
    await author.session.list_plans()
