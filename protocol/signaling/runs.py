"""Runs, who takes part in them, and their log (spec 03 §5)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocol.encoding import Hex64, Name
from protocol.envelope import Envelope
from protocol.manifest import DatasetSchema
from protocol.signaling.base import MAX_PAGE, Bytes32, Event, Record, Reply, Request, Sentence, Signature

__all__ = [
    "Accept",
    "Decline",
    "Done",
    "GetRun",
    "ListRuns",
    "Offer",
    "OpenRun",
    "Ready",
    "Register",
    "RunChanged",
    "RunReply",
    "RunState",
    "RunStatus",
    "Runs",
    "StopRun",
    "Unwatch",
    "Watch",
    "Withdraw",
]

RunState = Literal["waiting", "running", "finished", "stopped", "failed"]
"""waiting: too few ready peers; running: a round is open; the other three are final."""

RoundNumber = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Datasets = Annotated[tuple[DatasetSchema, ...], msgspec.Meta(max_length=32)]


class RunStatus(Record, frozen=True, kw_only=True):
    """Where a run stands. `round` counts logged rounds; `model_digest` is the model they produced."""

    run: Hex64
    plan: Hex64
    name: Name
    author: Hex64
    state: RunState
    reason: Sentence = ""
    rounds: int
    round: RoundNumber
    attempt: int
    model_digest: Hex64
    accepted: int
    """Peers that consented and are online."""
    ready: int
    """Those of them that hold the run's current model."""
    opened_at: float


class OpenRun(Request, frozen=True, kw_only=True):
    """Open a run of a complete plan; the envelope holds `RunTerms` signed by the plan's author."""

    envelope: Envelope


class GetRun(Request, frozen=True, kw_only=True):
    """Ask for one run's status and signed terms."""

    run: Hex64


class RunReply(Reply, frozen=True, kw_only=True):
    """A run's status and, for `get_run` and `watch`, its terms as signed."""

    status: RunStatus
    envelope: Envelope | None = None


class ListRuns(Request, frozen=True, kw_only=True):
    """One page of runs, oldest first."""

    after: int = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 50
    plan: Hex64 | None = None


class Runs(Reply, frozen=True, kw_only=True):
    """A page; `next` is absent on the last."""

    runs: tuple[RunStatus, ...]
    next: int | None = None


class StopRun(Request, frozen=True, kw_only=True):
    """End a run; only its author may."""

    run: Hex64
    reason: Sentence = ""


class Register(Request, frozen=True, kw_only=True):
    """This peer is a node with these datasets; replaces what it registered before, and offers follow.

    `max_runs` is how many runs the node serves at once; the signaling server names it in no more cohorts.
    """

    datasets: Datasets
    sealing_key: Bytes32 | None = None
    sealing_signature: Signature | None = None
    max_runs: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 4


class Offer(Event, frozen=True, kw_only=True):
    """A run whose plan fits a dataset of this node. Answered, some time, by `accept` or `decline`."""

    run: Hex64
    envelope: Envelope
    plan_envelope: Envelope
    round: RoundNumber
    model_digest: Hex64


class Accept(Request, frozen=True, kw_only=True):
    """The owner consents; answered by `run_reply` with where the run stands.

    The peer is named in a cohort once it is also `ready`.
    """

    run: Hex64
    dataset: Name | None = None


class Ready(Request, frozen=True, kw_only=True):
    """This peer holds the model of `round` logged rounds (0: the plan's initial one) and can train from it.

    Refused with `stale-model`, whose message names the current round, where the run is elsewhere by now.
    """

    run: Hex64
    round: RoundNumber
    model_digest: Hex64


class Decline(Request, frozen=True, kw_only=True):
    """The owner does not consent; the run is not offered again until the node registers anew."""

    run: Hex64
    reason: Sentence = ""


class Withdraw(Request, frozen=True, kw_only=True):
    """Take consent back: no later cohort names this peer."""

    run: Hex64


class Watch(Request, frozen=True, kw_only=True):
    """Stream `run_changed`, `round_opened` and `round_logged` of a run; answered by `run_reply`."""

    run: Hex64


class Unwatch(Request, frozen=True, kw_only=True):
    """End what `watch` began."""

    run: Hex64


class RunChanged(Event, frozen=True, kw_only=True):
    """The status of a watched run, or the end of a run this peer takes part in."""

    status: RunStatus


class Done(Reply, frozen=True, kw_only=True):
    """The request was carried out and there is nothing more to say."""
