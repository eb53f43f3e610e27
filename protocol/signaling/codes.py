"""Codes of `error` messages (spec/errors.md); peers treat one they do not know like `refused`."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BAD_SIGNATURE",
    "BLOB_MISMATCH",
    "INTERNAL",
    "LIMIT_EXCEEDED",
    "MALFORMED_MESSAGE",
    "NOT_ALLOWED",
    "NOT_AUTHENTICATED",
    "NOT_IN_COHORT",
    "PEER_OFFLINE",
    "PLAN_INCOMPLETE",
    "QUOTA_EXCEEDED",
    "RATE_LIMITED",
    "REFUSED",
    "REPLACED",
    "ROUND_CLOSED",
    "RUN_CLOSED",
    "STALE_MODEL",
    "UNKNOWN_BLOB",
    "UNKNOWN_PLAN",
    "UNKNOWN_RUN",
    "VERSION_MISMATCH",
    "WRONG_AUDIENCE",
]

MALFORMED_MESSAGE: Final = "malformed-message"
LIMIT_EXCEEDED: Final = "limit-exceeded"
BAD_SIGNATURE: Final = "bad-signature"
NOT_AUTHENTICATED: Final = "not-authenticated"
VERSION_MISMATCH: Final = "version-mismatch"
WRONG_AUDIENCE: Final = "wrong-audience"
REPLACED: Final = "replaced"
RATE_LIMITED: Final = "rate-limited"
QUOTA_EXCEEDED: Final = "quota-exceeded"
NOT_ALLOWED: Final = "not-allowed"
REFUSED: Final = "refused"
UNKNOWN_PLAN: Final = "unknown-plan"
UNKNOWN_BLOB: Final = "unknown-blob"
UNKNOWN_RUN: Final = "unknown-run"
PLAN_INCOMPLETE: Final = "plan-incomplete"
BLOB_MISMATCH: Final = "blob-mismatch"
RUN_CLOSED: Final = "run-closed"
ROUND_CLOSED: Final = "round-closed"
STALE_MODEL: Final = "stale-model"
NOT_IN_COHORT: Final = "not-in-cohort"
PEER_OFFLINE: Final = "peer-offline"
INTERNAL: Final = "internal-error"
