"""Errors of a round.

RoundError
├── MessageError        bytes from a peer that are no message of this round, or that break a rule
└── RoundFailedError    the attempt is over without a result; another attempt may follow
"""

from __future__ import annotations

from protocol.errors import RoundError

__all__ = ["MessageError", "RoundFailedError"]


class MessageError(RoundError):
    """A message that is refused; the round goes on without it."""

    code = "refused-message"


class RoundFailedError(RoundError):
    """The attempt cannot end in a result."""

    code = "round-failed"
