"""TLS, uvloop and a process that is killed: what a deployment rests on."""

from __future__ import annotations

import asyncio
import ssl
import sys

import pytest

from protocol.encoding import digest_of
from python_node.signaling_blobs import publish
from python_node.signaling_errors import SignalingUntrustedError
from python_node.signaling_handshake import Dial
from python_node.signaling_link import SignalingSession
from signaling import ConfigError, SignalingConfig, serve
from tests.signaling.world import GRAPH, OPTIONS, identity, plan_envelope, run_envelope, terms
from tests.tls import make_certificate

PROCESS = (
    "import pathlib, sys, signaling\n"
    "signaling.run(signaling.SignalingConfig(folder=pathlib.Path(sys.argv[1]), port=int(sys.argv[2])))\n"
)


async def test_tls_works_and_an_unknown_certificate_is_not_trusted(tmp_path):
    cert, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate(cert, private)
    config = SignalingConfig(folder=tmp_path / "s", port=0, certificate=cert, private_key=private)
    async with await serve(config) as server:
        assert server.url.startswith("wss://")
        trusting = ssl.create_default_context(cafile=str(cert))
        where = Dial(url=server.url, tls=trusting)
        async with await SignalingSession.connect(server.url, identity("me"), where=where) as session:
            assert (await session.list_plans()).plans == ()
        with pytest.raises(SignalingUntrustedError, match="certificate does not verify"):
            await SignalingSession.connect(server.url, identity("me"))


def test_half_a_tls_setting_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs both files"):
        SignalingConfig(folder=tmp_path, certificate=tmp_path / "cert.pem")


async def test_a_missing_certificate_is_refused(tmp_path):
    config = SignalingConfig(
        folder=tmp_path, port=0, certificate=tmp_path / "no.pem", private_key=tmp_path / "no.key"
    )
    with pytest.raises(ConfigError, match=r"no\.pem"):
        await serve(config)


def free_port() -> int:
    import socket  # noqa: PLC0415 (here alone)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def start(folder, port: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", PROCESS, str(folder), str(port), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        while b"listening" not in (line := await process.stdout.readline()):
            assert line, "the signaling server ended before it listened"
    return process


@pytest.mark.slow
async def test_a_killed_process_loses_nothing_and_its_peers_come_back(tmp_path):
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    process = await start(tmp_path / "s", port)
    session = await SignalingSession.connect(url, identity("author"), options=OPTIONS)
    plan = await publish(session, plan_envelope(identity("author")), {digest_of(GRAPH): GRAPH})
    status = await session.open_run(run_envelope(identity("author"), terms(plan)))
    server = session.server
    process.kill()
    await process.wait()
    process = await start(tmp_path / "s", port)
    assert [entry.plan for entry in (await session.list_plans()).plans] == [plan]
    assert (await session.get_run(status.run)).status == status
    assert session.server == server
    await session.close()
    process.terminate()
    assert await process.wait() == 0
