"""Dial a signaling server and prove to each other who is who (spec 03 §3)."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI

from protocol.errors import ProtocolError
from protocol.identity import Identity, PeerId, short
from protocol.signaling import (
    MAX_FRAME_BYTES,
    VERSION,
    Challenge,
    Error,
    FromServer,
    Welcome,
    check_welcome,
    codes,
    decode_from_server,
    encode_message,
    sign_authenticate,
)
from python_node.signaling_errors import SignalingDownError, SignalingRefusedError, SignalingUntrustedError

__all__ = ["Dial", "Opened", "audience_of", "dial"]

_log = structlog.get_logger("signaling_session")
_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True, kw_only=True)
class Dial:
    """How to reach a signaling server. `expected_server` is the peer id to pin; None trusts TLS alone."""

    url: str
    expected_server: str | None = None
    tls: ssl.SSLContext | None = None
    open_timeout_s: float = 10.0
    heartbeat_s: float = 15.0
    heartbeat_timeout_s: float = 10.0


@dataclass(frozen=True)
class Opened:
    """An authenticated connection and who is at its other end."""

    socket: ClientConnection
    server: PeerId
    name: str


def audience_of(url: str) -> str:
    """`host:port` of a ws:// or wss:// URL, in lower case: what the peer signs as the place it dialled.

    Raises:
        SignalingUntrustedError: it is no such URL.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if port is None or not parts.hostname or parts.scheme not in _PORTS:
        raise SignalingUntrustedError(url, "expected a URL like wss://host:port, or ws://127.0.0.1:8080 here")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}".lower()


async def dial(where: Dial, identity: Identity) -> Opened:
    """Connect and authenticate both sides.

    Raises:
        SignalingDownError: nobody answers, or not in time.
        SignalingRefusedError: the signaling server turned this peer away.
        SignalingUntrustedError: it is another one than expected, or does not speak the protocol.
    """
    audience = audience_of(where.url)
    socket = await _connect(where)
    try:
        async with asyncio.timeout(where.open_timeout_s):
            return await _handshake(where, identity, socket, audience)
    except TimeoutError:
        await socket.close()
        raise SignalingDownError(where.url, f"no handshake within {where.open_timeout_s:g} s") from None
    except ConnectionClosed as error:
        raise SignalingDownError(where.url, f"closed the connection during the handshake ({error})") from None
    except ProtocolError as error:
        await socket.close()
        raise SignalingUntrustedError(where.url, str(error)) from None
    except BaseException:
        await socket.close()
        raise


async def _connect(where: Dial) -> ClientConnection:
    local = _is_loopback(where.url)
    if where.url.startswith("ws:") and not local:
        _log.warning("NO TLS: anyone on the way can read and change what is said", url=where.url)
    try:
        return await connect(
            where.url,
            ssl=where.tls or (True if where.url.startswith("wss:") else None),
            compression=None,
            max_size=MAX_FRAME_BYTES,
            open_timeout=where.open_timeout_s,
            ping_interval=where.heartbeat_s,
            ping_timeout=where.heartbeat_timeout_s,
            close_timeout=2,
            proxy=None if local else True,
        )
    except ssl.SSLCertVerificationError as error:
        raise SignalingUntrustedError(where.url, f"its certificate does not verify: {error.verify_message}") from None
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
        raise SignalingDownError(where.url, f"cannot connect: {_why(where.url, error)}") from None


def _why(url: str, error: Exception) -> str:
    """The reason of a failed connection, with what to look at first."""
    match error:
        case ConnectionRefusedError():
            return "nothing listens there; is the signaling server running, and is this its port?"
        case socket.gaierror():
            return f"no machine of that name is known ({error.strerror})"
        case TimeoutError():
            return "no answer in time; is a firewall on the way?"
        case ssl.SSLError() | ConnectionResetError() | EOFError() | InvalidMessage() if url.startswith("wss:"):
            return f"no TLS there ({str(error) or type(error).__name__}); is the URL ws:// instead of wss://?"
        case InvalidURI():
            return f"it sends peers on to {error.uri}; where the URL has a path, is a slash missing at its end?"
        case InvalidStatus() if error.response.status_code == HTTPStatus.NOT_FOUND:
            return f"{error}; there is no signaling server at this path"
        case InvalidMessage():
            return f"the answer is no websocket's ({error}); is the URL wss:// instead of ws://?"
        case OSError():
            return error.strerror or str(error) or type(error).__name__
        case _:
            return str(error) or type(error).__name__


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _handshake(where: Dial, identity: Identity, socket: ClientConnection, audience: str) -> Opened:
    challenge = await _receive(where.url, socket)
    if not isinstance(challenge, Challenge):
        raise SignalingUntrustedError(where.url, f"expected a challenge, got {type(challenge).__name__}")
    if where.expected_server is not None and challenge.server != where.expected_server:
        raise SignalingUntrustedError(
            where.url, f"its identity is {short(challenge.server)}, expected {short(where.expected_server)}"
        )
    if VERSION not in challenge.versions:
        versions = ", ".join(map(str, challenge.versions))
        raise SignalingRefusedError(
            where.url, codes.VERSION_MISMATCH, f"it speaks versions {versions}, this peer {VERSION}"
        )
    answer = sign_authenticate(identity, challenge, version=VERSION, nonce=secrets.token_bytes(32), audience=audience)
    await socket.send(encode_message(answer))
    welcome = await _receive(where.url, socket)
    if not isinstance(welcome, Welcome):
        raise SignalingUntrustedError(where.url, f"expected a welcome, got {type(welcome).__name__}")
    check_welcome(challenge, answer, welcome)
    return Opened(socket, PeerId(challenge.server), challenge.name)


async def _receive(url: str, socket: ClientConnection) -> FromServer:
    frame = await socket.recv()
    if not isinstance(frame, str):
        raise SignalingUntrustedError(url, "sent a binary frame during the handshake")
    message = decode_from_server(frame)
    if isinstance(message, Error):
        raise SignalingRefusedError(url, message.code, message.message)
    return message
