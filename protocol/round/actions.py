"""What a round machine asks of its shell, in the order it must be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from protocol.secagg.apply import Aggregate

__all__ = ["Action", "Completed", "Failed", "Misbehaviour", "Persist", "Revealed", "Send", "StageEntered", "Work"]


class Send(Struct, frozen=True, gc=False):
    """Give bytes to a link; `bulk` tells the kind of link message. `repr` shows no bytes."""

    to: int
    data: bytes
    bulk: bool

    def __repr__(self) -> str:
        return f"Send(to={self.to}, bytes={len(self.data)}, bulk={self.bulk})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("to", self.to), ("bytes", len(self.data)), ("bulk", self.bulk)]


@dataclass(frozen=True)
class Persist:
    """Write to disk, and only then go on with later actions. `detail` holds no secret."""

    entry: str
    detail: str


@dataclass(frozen=True)
class Work:
    """Run `job` in a thread and hand what it returns, or the RoundError it raises, to `finish_work(number, ...)`."""

    number: int
    job: Callable[[], object]


@dataclass(frozen=True)
class StageEntered:
    """The round entered a stage; for progress and timing."""

    stage: str


@dataclass(frozen=True)
class Misbehaviour:
    """A message of a peer was refused; the round goes on."""

    peer: int
    reason: str


@dataclass(frozen=True)
class Revealed:
    """The aggregate is known: apply it and call `provide_result`."""

    aggregate: Aggregate


@dataclass(frozen=True)
class Completed:
    """t peers signed the same result; `signatures` maps peer index to RESULT signature."""

    model_digest: str
    survivors: frozenset[int]
    tail_digest: bytes
    signatures: dict[int, bytes]


@dataclass(frozen=True)
class Failed:
    """The attempt is over without a result."""

    reason: str


Action = Send | Persist | Work | StageEntered | Misbehaviour | Revealed | Completed | Failed
