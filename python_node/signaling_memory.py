"""What a session must say again after a reconnect: registration, consents, watches and undecided results."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from protocol.signaling import (
    Accept,
    Decline,
    Register,
    Request,
    Result,
    RoundLogged,
    RunChanged,
    Unwatch,
    Watch,
    Withdraw,
)

__all__ = ["Memory", "with_id"]

MAX_RESULTS = 64
"""Undecided results kept at most; a node takes part in few runs, each with one open round."""


@dataclass
class Memory:
    """Remembers requests that hold beyond their reply, and forgets them when they are taken back or decided."""

    registration: Register | None = None
    accepted: dict[str, Accept] = field(default_factory=dict)
    watched: dict[str, Watch] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def note(self, request: Request) -> None:
        """Keep what a sent request means for later."""
        match request:
            case Register():
                self.registration = request
            case Accept():
                self.accepted[request.run] = request
            case Watch():
                self.watched[request.run] = request
            case Unwatch():
                self.watched.pop(request.run, None)
            case Decline() | Withdraw():
                self.accepted.pop(request.run, None)
            case Result():
                self.results[request.run] = request
                while len(self.results) > MAX_RESULTS:
                    del self.results[next(iter(self.results))]
            case _:
                pass

    def forget(self, request: Request) -> None:
        """A request was refused: it is not said again."""
        match request:
            case Accept() if self.accepted.get(request.run) == request:
                del self.accepted[request.run]
            case Watch() if self.watched.get(request.run) == request:
                del self.watched[request.run]
            case Result() if self.results.get(request.run) == request:
                del self.results[request.run]
            case Register() if self.registration == request:
                self.registration = None
            case _:
                pass

    def see(self, event: object) -> None:
        """Let decided rounds and ended runs go."""
        match event:
            case RoundLogged(entry=entry):
                kept = self.results.get(entry.run)
                if kept is not None and kept.round <= entry.round:
                    del self.results[entry.run]
            case RunChanged(status=status) if status.run in self.results and status.state in ("waiting", "running"):
                if self.results[status.run].round <= status.round:
                    del self.results[status.run]
            case RunChanged(status=status) if status.state in ("finished", "stopped", "failed"):
                self.accepted.pop(status.run, None)
                self.results.pop(status.run, None)
            case _:
                pass

    def again(self) -> list[Request]:
        """What to say after a reconnect, in order, still with the old ids."""
        registration = [] if self.registration is None else [self.registration]
        return [*registration, *self.accepted.values(), *self.watched.values(), *self.results.values()]


def with_id(request: Request, request_id: int) -> Request:
    """The same request under another id."""
    return msgspec.structs.replace(request, id=request_id)
