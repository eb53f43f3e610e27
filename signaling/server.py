"""The signaling server on the network: websockets above, the engine below."""

from __future__ import annotations

import asyncio
import errno
import signal
import ssl
from collections.abc import Callable
from typing import Any, Self

import structlog
from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from protocol.identity import PeerId
from signaling.config import SignalingConfig
from signaling.connection import serve_connection
from signaling.engine import Engine
from signaling.errors import ConfigError
from signaling.folder import open_folder
from signaling.http import Door
from signaling.join_page import JoinPage

__all__ = ["Server", "run", "serve"]

_log = structlog.get_logger("signaling")


class Server:
    """A running signaling server."""

    def __init__(self, engine: Engine, sockets: WebsocketServer, *, has_page: bool) -> None:
        self._engine = engine
        self._sockets = sockets
        self._has_page = has_page

    @property
    def url(self) -> str:
        """Where peers connect: ws:// or, with a certificate, wss://."""
        config = self._engine.config
        port = next(iter(self._sockets.sockets)).getsockname()[1]
        host = f"[{config.host}]" if ":" in config.host else config.host
        return f"{'wss' if config.certificate else 'ws'}://{host}:{port}"

    @property
    def join_url(self) -> str | None:
        """Where owners join from a browser; None where the page is not built."""
        return f"http{self.url.removeprefix('ws')}/join" if self._has_page else None

    @property
    def peer_id(self) -> PeerId:
        """The signaling server's own identity, for peers to pin."""
        return self._engine.identity.peer_id

    async def wait_failed(self) -> None:
        """Wait for a failure of the store.

        Raises:
            StoreError: always, when it happens.
        """
        await asyncio.shield(self._engine.failed)

    async def close(self) -> None:
        """Close all connections, store what is pending, release the folder."""
        self._sockets.close()
        await self._sockets.wait_closed()
        await self._engine.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def serve(config: SignalingConfig) -> Server:
    """Start a signaling server on the running event loop (asyncio's or uvloop's).

    Raises:
        StoreError: the folder cannot be used, or another process uses it.
        ConfigError: the address is taken, the certificate cannot be read, or the page at /join is damaged.
    """
    page = JoinPage.load(config.page, config.ice)
    engine = Engine(config, open_folder(config.folder))
    try:
        await engine.start()
        sockets = await _listen(config, engine, page)
    except BaseException:
        await engine.close()
        raise
    server = Server(engine, sockets, has_page=page.is_built)
    _log.info("listening", url=server.url, peer=engine.identity.peer_id)
    return server


async def _listen(config: SignalingConfig, engine: Engine, page: JoinPage) -> WebsocketServer:
    door = Door(engine, page)

    async def handle(socket: ServerConnection) -> None:
        address = door.enter(socket)
        try:
            await serve_connection(engine, socket)
        finally:
            door.leave(address)

    timing = config.timing
    try:
        return await serve_websockets(
            handle,
            config.host,
            config.port,
            ssl=_tls(config),
            process_request=door.process_request,
            compression=None,  # payloads are sealed or already dense; contexts would cost memory per connection
            max_size=config.limits.unauthenticated_frame_bytes,
            max_queue=4,
            open_timeout=timing.authenticate_s,
            ping_interval=timing.heartbeat_s,
            ping_timeout=timing.heartbeat_timeout_s,
            close_timeout=timing.close_s,
            server_header=None,
        )
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {_why(error)}") from None


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or take another port (0 takes a free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "this account may not listen on so low a port"
    return error.strerror or str(error)


def _tls(config: SignalingConfig) -> ssl.SSLContext | None:
    if config.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.certificate, config.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"certificate {config.certificate}, private key {config.private_key}: {error}") from None
    return context


def run(config: SignalingConfig, *, on_listening: Callable[[Server], None] = lambda _server: None) -> None:
    """Serve until SIGINT or SIGTERM; uses uvloop where it is installed. `on_listening` is called once.

    Raises:
        SignalingError: it cannot start, or the store fails.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(config, on_listening))


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 (optional: it does not exist for every system)
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(config: SignalingConfig, on_listening: Callable[[Server], None]) -> None:
    async with await serve(config) as server:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stopped.set)
            except NotImplementedError:  # Windows: KeyboardInterrupt ends the runner instead
                break
        on_listening(server)
        waiting = [asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(server.wait_failed())]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()
