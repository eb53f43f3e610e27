"""From exceptions to one line and an exit code.

    0    done
    1    a fault of this program (please report it)
    2    usage: an option or argument that means nothing
    3    refused or invalid: a plan, signature, policy, file or identity; `code` says which
    4    unreachable: the signaling server, or every peer that could have answered
    5    the run failed or was stopped
    130  interrupted

With `--json` an error is also one line `{"error": {"code": ..., "message": ...}}` on stdout.
"""

from __future__ import annotations

from dataclasses import dataclass

from plans import PlanError
from protocol.errors import LinkError, ProtocolError
from python_node.errors import NodeError
from python_node.signaling_errors import (
    SignalingRefusedError,
    SignalingSessionError,
    SignalingUntrustedError,
)
from signaling import ConfigError, SignalingError, StoreError

__all__ = [
    "FAULT",
    "INTERRUPTED",
    "REFUSED",
    "RUN_FAILED",
    "UNREACHABLE",
    "USAGE",
    "CommandError",
    "Failure",
    "explain",
]

FAULT, USAGE, REFUSED, UNREACHABLE, RUN_FAILED, INTERRUPTED = 1, 2, 3, 4, 5, 130


class CommandError(Exception):
    """An error of a command itself: `code` is the word for `--json`, `exit_status` the process's."""

    def __init__(self, message: str, *, code: str, exit_status: int = REFUSED) -> None:
        super().__init__(message)
        self.code = code
        self.exit_status = exit_status


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error as it is shown."""

    code: str
    message: str
    exit_status: int


def explain(error: BaseException) -> Failure | None:
    """How an expected error is shown; None for one that nobody expected."""
    match error:
        case CommandError():
            return Failure(code=error.code, message=str(error), exit_status=error.exit_status)
        case SignalingRefusedError():
            return Failure(code=error.code, message=str(error), exit_status=REFUSED)
        case SignalingUntrustedError():
            return Failure(code="signaling-untrusted", message=str(error), exit_status=REFUSED)
        case SignalingSessionError():
            return Failure(code="signaling-down", message=str(error), exit_status=UNREACHABLE)
        case LinkError():
            return Failure(code=error.code, message=str(error), exit_status=UNREACHABLE)
        case ProtocolError() | PlanError() | NodeError():
            return Failure(code=error.code, message=str(error), exit_status=REFUSED)
        case ConfigError():
            return Failure(code="bad-config", message=str(error), exit_status=REFUSED)
        case StoreError() | SignalingError():
            return Failure(code="bad-store", message=str(error), exit_status=REFUSED)
        case ExceptionGroup() if len(error.exceptions) == 1:
            return explain(error.exceptions[0])
        case _:
            return None
