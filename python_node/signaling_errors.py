"""Errors of a session with a signaling server; each names the server's URL.

SignalingSessionError
├── SignalingDownError        it cannot be reached, or the connection was lost for longer than allowed
├── SignalingUntrustedError   it is not the signaling server it should be, or breaks the protocol
├── SignalingRefusedError     it refused a request; `code` is one of spec/errors.md
└── SignalingEndedError       this session is over: closed, replaced by a newer one, or its events were not read
"""

from __future__ import annotations

__all__ = [
    "SignalingDownError",
    "SignalingEndedError",
    "SignalingRefusedError",
    "SignalingSessionError",
    "SignalingUntrustedError",
]


class SignalingSessionError(Exception):
    """Base of errors between this peer and a signaling server."""

    def __init__(self, url: str, message: str) -> None:
        super().__init__(f"signaling server {url}: {message}")
        self.url = url


class SignalingDownError(SignalingSessionError):
    """The signaling server cannot be reached within the time allowed."""


class SignalingUntrustedError(SignalingSessionError):
    """The other end proved another identity, proved none, or does not speak the protocol."""


class SignalingRefusedError(SignalingSessionError):
    """The signaling server refused a request."""

    def __init__(self, url: str, code: str, message: str) -> None:
        super().__init__(url, f"{message} ({code})")
        self.code = code


class SignalingEndedError(SignalingSessionError):
    """The session is over and will not reconnect."""
