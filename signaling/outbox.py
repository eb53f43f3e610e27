"""What the registry wants done: things to store, then messages to send, in that order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from protocol.signaling import Combining, LogEntry, Message, Place, RunState

__all__ = ["Outbox", "SaveAttempt", "SaveEntry", "SaveRun", "Send", "Write"]


@dataclass(frozen=True)
class Send:
    """One message to each of `peers` that is online."""

    peers: tuple[str, ...]
    message: Message


@dataclass(frozen=True, kw_only=True)
class SaveRun:
    """Where an existing run stands now."""

    run: str
    state: RunState
    reason: str
    round: int
    attempt: int
    model_digest: str


@dataclass(frozen=True, kw_only=True)
class SaveAttempt:
    """A cohort, stored before it is announced, so that its results count after a restart."""

    run: str
    round: int
    attempt: int
    cohort: tuple[str, ...]
    opened_at: float
    place: Place | None = None
    combining: Combining | None = None


@dataclass(frozen=True)
class SaveEntry:
    """A logged round; it ends all attempts at that round."""

    entry: LogEntry


Write: TypeAlias = SaveRun | SaveAttempt | SaveEntry


@dataclass
class Outbox:
    """Collects what one event leads to. `writes` must be safe before any of `sends` leaves."""

    writes: list[Write] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)

    def send(self, peers: str | Iterable[str], message: Message) -> None:
        """Queue a message for one peer or several."""
        to = (peers,) if isinstance(peers, str) else tuple(peers)
        if to:
            self.sends.append(Send(to, message))

    def write(self, record: Write) -> None:
        """Queue something to store."""
        self.writes.append(record)
