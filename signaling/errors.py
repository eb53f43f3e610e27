"""Errors of the signaling server.

SignalingError
├── ConfigError       settings that contradict each other
├── StoreError        the folder or database cannot be used
└── RefusedError      a request that is refused; its `code` and message go to the peer
"""

from __future__ import annotations

__all__ = ["ConfigError", "RefusedError", "SignalingError", "StoreError"]


class SignalingError(Exception):
    """Base of all errors of this package."""


class ConfigError(SignalingError):
    """Settings that contradict each other."""


class StoreError(SignalingError):
    """The folder or the database cannot be used, or holds something of another version."""


class RefusedError(SignalingError):
    """A peer's request that is refused: `code` is one of spec/errors.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
