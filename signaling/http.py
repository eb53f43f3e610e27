"""Plain HTTP on the websocket's port: /healthz, /metrics, /join, and refusals before a websocket is opened."""

from __future__ import annotations

import time
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from signaling.engine import Engine
from signaling.join_page import JoinPage

__all__ = ["Door"]


class Door:
    """Counts open websockets, in all and per address, and turns away what exceeds the limits."""

    def __init__(self, engine: Engine, page: JoinPage) -> None:
        self._engine = engine
        self._page = page
        self._addresses: dict[str, int] = {}
        self._open = 0
        engine.metrics.gauge("connections", "Open websockets.", lambda: self._open)

    def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP; None lets the websocket open."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            if self._engine.failed.done():
                return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the store has failed\n")
            return socket.respond(HTTPStatus.OK, "ok\n")
        if path == "/metrics" and self._engine.config.metrics:
            response = socket.respond(HTTPStatus.OK, self._engine.metrics.render())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return response
        if self._page.owns(path):
            return self._full(socket) or self._serve_page(socket, request, path)
        if path != "/":
            there = "/, /join, /healthz and /metrics"
            return socket.respond(HTTPStatus.NOT_FOUND, f"peerplan signaling: {there} exist here\n")
        return self._full(socket)

    def enter(self, socket: ServerConnection) -> str:
        """A websocket has opened; gives its address, which a closed transport may no longer know."""
        address = address_of(socket)
        self._open += 1
        self._addresses[address] = self._addresses.get(address, 0) + 1
        return address

    def leave(self, address: str) -> None:
        """A websocket from there has closed."""
        self._open -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def _serve_page(self, socket: ServerConnection, request: Request, path: str) -> Response:
        answer = self._page.answer(
            getattr(request, "method", "GET"),  # websockets before 16 lets nothing but GET come here
            path,
            now_s=time.time(),
            accept_encoding=", ".join(request.headers.get_all("Accept-Encoding")),
            if_none_match=", ".join(request.headers.get_all("If-None-Match")),
        )
        response = socket.respond(answer.status, "")
        for name in ("Content-Type", "Content-Length"):
            del response.headers[name]
        if answer.status is not HTTPStatus.NOT_MODIFIED:
            response.headers["Content-Length"] = str(answer.length)
        response.headers.update(answer.headers)
        response.body = answer.body
        return response

    def _full(self, socket: ServerConnection) -> Response | None:
        limits = self._engine.config.limits
        if self._open >= limits.connections:
            self._engine.metrics.dropped.labels("full").inc()
            return socket.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, f"this signaling server has {self._open} connections, its limit\n"
            )
        from_here = self._addresses.get(address_of(socket), 0)
        if from_here >= limits.connections_per_address:
            self._engine.metrics.dropped.labels("address").inc()
            return socket.respond(
                HTTPStatus.TOO_MANY_REQUESTS, f"your address has {from_here} connections, the limit for one\n"
            )
        return None


def address_of(socket: ServerConnection) -> str:
    """The IP address at the other end, or "" where the transport knows none."""
    address = socket.remote_address
    return str(address[0]) if isinstance(address, tuple) and address else ""
