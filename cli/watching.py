"""Follow a run: a live table on a terminal, a line per round elsewhere, JSON lines for programs."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import msgspec
from rich.live import Live
from rich.table import Table

from cli.errors import RUN_FAILED, UNREACHABLE, CommandError
from cli.output import console, print_json, text
from protocol.identity import short
from protocol.server_optimizer import FEDAVG
from protocol.signaling import LogEntry, RoundLogged, RoundOpened, RunChanged, RunStatus
from protocol.tail import Metrics
from python_node.author import FINAL_STATES, Author, RunView
from python_node.log_checking import check_entry

__all__ = ["watch_run"]

_ROWS = 25


async def watch_run(author: Author, run: str, *, as_json: bool) -> RunStatus:
    """Show a run's rounds from the first on, until it ends; every round's signatures are checked.

    Raises:
        CommandError: the run failed or was stopped, or the session ended before it did.
        ProtocolError: a logged round that no quorum of its cohort signed.
    """
    view = await author.view(run)
    status = view.status
    with _JsonLines(view) if as_json else _Table(view) as display:
        async for event in author.watch(run):
            match event:
                case RunChanged():
                    status = event.status
                    display.changed(status)
                case RoundOpened():
                    display.opened(event)
                case RoundLogged(entry=entry):
                    check_entry(entry, run=run, number=entry.round, digest=entry.model_digest, terms=view.terms)
                    display.logged(entry, view.metrics(entry))
    if status.state not in FINAL_STATES:
        raise CommandError(
            f"run {short(run)}: the session with {author.session.url} ended after round {status.round} "
            f"of {status.rounds}",
            code="signaling-down",
            exit_status=UNREACHABLE,
        )
    if status.state != "finished":
        because = f": {status.reason}" if status.reason else ""
        raise CommandError(
            f"run {short(run)} {'was stopped' if status.state == 'stopped' else 'failed'} after round {status.round} "
            f"of {status.rounds}{because}",
            code=f"run-{status.state}",
            exit_status=RUN_FAILED,
        )
    return status


class _JsonLines:
    """One JSON object per event."""

    def __init__(self, view: RunView) -> None:
        self._server_optimizer = msgspec.to_builtins(view.terms.server_optimizer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def changed(self, status: RunStatus) -> None:
        print_json({"event": "run", **status_json(status), "server_optimizer": self._server_optimizer})

    def opened(self, event: RoundOpened) -> None:
        print_json(
            {
                "event": "round_opened",
                "run": event.run,
                "round": event.round,
                "attempt": event.attempt,
                "cohort": len(event.cohort),
            }
        )

    def logged(self, entry: LogEntry, metrics: Metrics) -> None:
        named, survived = entry.peers()
        print_json(
            {
                "event": "round",
                "run": entry.run,
                "round": entry.round,
                "attempt": entry.attempt,
                "cohorts": 1 if entry.combining is None else len(entry.combining.groups),
                "cohort": named,
                "survivors": survived,
                "examples": metrics.examples,
                "training": metrics.training,
                "held_out_examples": metrics.held_out_examples,
                "held_out": metrics.held_out,
                "seconds": entry.seconds,
                "model_digest": entry.model_digest,
                "logged_at": entry.logged_at,
            }
        )


def status_json(status: RunStatus) -> dict[str, Any]:
    """A run's status as `runs` and `watch` print it."""
    names = ("run", "plan", "name", "author", "state", "reason", "round", "rounds", "attempt")
    return {name: getattr(status, name) for name in (*names, "model_digest", "accepted", "ready", "opened_at")}


class _Table:
    """A table that grows with the rounds; without a terminal each row is printed once, as text."""

    def __init__(self, view: RunView) -> None:
        self._out = console()
        self._view = view
        self._status = view.status
        self._note = ""
        self._rows: list[list[str]] = []
        self._names = [metric.name for metric in view.manifest.metrics]
        self._live: Live | None = None
        self._told = ""

    def __enter__(self) -> Self:
        if self._out.is_terminal:
            self._live = Live(self._draw(), console=self._out, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._draw())
            self._live.stop()

    def changed(self, status: RunStatus) -> None:
        self._status, self._note = status, ""
        self._tell(self._headline())

    def opened(self, event: RoundOpened) -> None:
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        who = f"{len(event.cohort)} peers"
        if event.place is not None:
            who = f"{len(event.cohort)} delegates" if event.place.level > 1 else f"{event.place.group + 1} cohorts"
        self._note = f"round {event.round} with {who}{again}"
        self._tell(None)

    def logged(self, entry: LogEntry, metrics: Metrics) -> None:
        held_out = metrics.held_out or {}
        named, survived = entry.peers()
        row = [str(entry.round), f"{survived}/{named}"]
        row += [_number(metrics.training.get(name)) for name in self._names]
        row += [_number(held_out.get(name)) for name in self._names]
        row.append(f"{entry.seconds:.2f}")
        self._rows.append(row)
        self._note = ""
        titles = self._titles()
        self._tell("  ".join(f"{title} {cell}" for title, cell in zip(titles, row, strict=True)))

    def _titles(self) -> list[str]:
        held = [f"held-out {name}" for name in self._names]
        return ["round", "survivors", *self._names, *held, "seconds"]

    def _tell(self, line: str | None) -> None:
        if self._live is not None:
            self._live.update(self._draw())
        elif line is not None and line != self._told:
            self._told = line  # of an ended run the last state comes twice
            self._out.print(text(line), soft_wrap=True)

    def _headline(self) -> str:
        status = self._status
        line = f"{status.name} {short(status.run)}: {status.state}, round {status.round} of {status.rounds}"
        if (optimizer := self._view.terms.server_optimizer) != FEDAVG:
            line += f", {optimizer.kind} at {optimizer.learning_rate:g}"
        if status.state not in FINAL_STATES:
            line += f", {status.accepted} peers accepted, {status.ready} ready"
        return line + (f" ({status.reason})" if status.reason else "")

    def _draw(self) -> Table:
        title = self._headline() + (f" · {self._note}" if self._note else "")
        table = Table(title=text(title), title_justify="left")
        for name in self._titles():
            table.add_column(text(name), justify="right")
        for row in self._rows[-_ROWS:]:
            table.add_row(*row)
        return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
