"""Blobs and models that never end: a stalling signaling server, holders that trickle, fetchers that do not read."""

import asyncio
import hashlib

import pytest
from websockets.asyncio.server import serve

from protocol.errors import LinkError
from protocol.identity import Identity
from protocol.link import MessageKind
from protocol.model_transfer import ModelHeader, ModelPart, ModelRequest, decode, encode
from protocol.signaling import (
    BlobSlice,
    Challenge,
    Error,
    GetBlob,
    codes,
    decode_from_peer,
    encode_blob_part,
    encode_message,
    sign_welcome,
)
from python_node import models
from python_node.models import ModelExchange
from python_node.signaling_blobs import download_blob
from python_node.signaling_core import SessionOptions
from python_node.signaling_errors import SignalingDownError, SignalingUntrustedError
from python_node.signaling_events import Reconnected
from python_node.signaling_link import SignalingSession

SERVER, ME = Identity(b"s" * 32), Identity(b"m" * 32)
RUN, DIGEST = "ab" * 32, "cd" * 32
QUICK = SessionOptions(request_timeout_s=0.3, first_backoff_s=0.01, longest_backoff_s=0.02)


async def shake_hands(socket):
    challenge = Challenge(versions=(1,), nonce=bytes(32), server=SERVER.peer_id, name="lying")
    await socket.send(encode_message(challenge))
    answer = decode_from_peer(await socket.recv())
    await socket.send(encode_message(sign_welcome(SERVER, challenge, answer)))


async def fetch_from(behave, tmp_path, *, size):
    """What becomes of a download from a signaling server that behaves like this."""

    async def handle(socket):
        await shake_hands(socket)
        await behave(socket)

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with await SignalingSession.connect(url, ME, options=QUICK) as session, asyncio.timeout(60):
            await download_blob(session, DIGEST, size, tmp_path / "blob")


async def test_a_slice_longer_than_was_asked_for_is_refused_before_its_bytes_come(tmp_path):
    sent = 0

    async def behave(socket):
        nonlocal sent
        ask = decode_from_peer(await socket.recv())
        assert isinstance(ask, GetBlob)
        endless = 1 << 28
        await socket.send(encode_message(BlobSlice(re=ask.id, digest=DIGEST, offset=0, length=endless, size=1000)))
        while True:
            await socket.send(encode_blob_part(DIGEST, sent, bytes(200_000)))
            sent += 200_000

    with pytest.raises(SignalingUntrustedError, match=r"sends 268435456 bytes, 1000 were asked for"):
        await fetch_from(behave, tmp_path, size=1000)
    assert sent < 50_000_000


async def say_nothing(socket):
    await socket.wait_closed()


async def announce_only(socket):
    ask = decode_from_peer(await socket.recv())
    await socket.send(encode_message(BlobSlice(re=ask.id, digest=DIGEST, offset=0, length=1000, size=1000)))
    await socket.wait_closed()


@pytest.mark.parametrize("behave", [say_nothing, announce_only])
async def test_a_download_that_stalls_ends(tmp_path, behave):
    with pytest.raises(SignalingDownError, match=r"within 0\.3 s"):
        await fetch_from(behave, tmp_path, size=1000)


@pytest.mark.parametrize("code", [codes.NOT_AUTHENTICATED, codes.RATE_LIMITED, codes.INTERNAL])
async def test_a_busy_signaling_server_is_asked_again_after_a_lost_connection(code):
    """A restart under load must not end every node for good."""
    connections = 0

    async def handle(socket):
        nonlocal connections
        connections += 1
        if connections == 2:
            await socket.send(encode_message(Error(code=code, message="busy")))
            return
        await shake_hands(socket)
        if connections == 1:
            return
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with await SignalingSession.connect(url, ME, options=QUICK) as session, asyncio.timeout(60):
            async for event in session.events():
                if isinstance(event, Reconnected):
                    break
            assert connections == 3


class FakeMesh:
    """Links on which everything is noted and, with `stuck`, nothing ever leaves."""

    def __init__(self, *, stuck=False):
        self.sent = asyncio.Queue()
        self._stuck = stuck

    def send(self, peer, kind, payload):
        assert kind is MessageKind.MODEL
        self.sent.put_nowait(decode(payload))

    async def drain(self, _peer):
        if self._stuck:
            await asyncio.Event().wait()


async def test_a_holder_that_trickles_is_given_up():
    exchange = ModelExchange(FakeMesh(), lookup=lambda *_: None, may_fetch=lambda *_: True)
    holder, total = ME.peer_id, 1 << 20
    fetching = asyncio.ensure_future(
        exchange.fetch(holder, run=RUN, round_number=1, digest=DIGEST, total=total, timeout_s=0.2)
    )
    await exchange._mesh.sent.get()
    exchange.receive(holder, encode(ModelHeader(bytes.fromhex(RUN), bytes.fromhex(DIGEST), total)))
    loop, sent = asyncio.get_running_loop(), 0

    def trickle():
        nonlocal sent
        if not fetching.done():
            exchange.receive(holder, encode(ModelPart(bytes.fromhex(RUN), sent, b"x")))
            sent += 1
            loop.call_later(0.02, trickle)

    trickle()
    async with asyncio.timeout(60):
        with pytest.raises(LinkError, match=r"bytes in 0\.2 s"):
            await fetching


async def test_a_fetcher_that_does_not_read_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(models, "_PART_TIMEOUT_S", 0.05)
    data = bytes(1000)
    exchange = ModelExchange(FakeMesh(stuck=True), lookup=lambda *_: data, may_fetch=lambda *_: True)
    request = encode(ModelRequest(bytes.fromhex(RUN), 1, hashlib.sha256(data).digest()))
    exchange.receive(ME.peer_id, request)
    (serving,) = exchange._serving.values()

    await asyncio.wait_for(serving, 60)

    assert exchange._serving == {}
