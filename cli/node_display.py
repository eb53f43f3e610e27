"""What a node's events look like: JSON lines for programs, lines and one live status line for people."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.status import Status

from cli.output import console, print_json, text
from protocol.identity import PeerId, short
from python_node.node import NodeEvent

__all__ = ["NodeDisplay"]

_STYLES = {
    "accepted": "green",
    "round_completed": "green",
    "ready": "cyan",
    "declined": "yellow",
    "withdrawn": "yellow",
    "waiting": "yellow",
    "offer_refused": "red",
    "round_failed": "red",
    "error": "red",
}
_DIGESTS = {"run", "author", "model_digest", "peer"}


class NodeDisplay:
    """Shows a node's events until it is left. Every JSON line has `event`, `peer` (the node) and `time` (Unix)."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = console()
        self._peer = PeerId("")
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if not self._as_json and self._out.is_terminal:
            self._status = self._out.status("connecting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def start(self, peer: PeerId) -> None:
        """The node has an identity and is about to connect."""
        self._peer = peer
        self.show(NodeEvent("starting"))

    def show(self, event: NodeEvent) -> None:
        """One event: a line, and the status where there is one."""
        if self._as_json:
            head = {"event": event.kind, "peer": self._peer, "time": time.time()}
            print_json(head | event.fields | head)
            return
        style = _STYLES.get(event.kind, "default")
        stamp = time.strftime("%H:%M:%S")
        self._out.print(
            f"[dim]{stamp} {short(self._peer)}[/dim] [{style}]{event.kind.replace('_', ' ')}[/{style}]"
            f"{text(_describe(event.fields))}",
            soft_wrap=True,
        )
        if self._status is not None:
            self._status.update(_status_of(event))


def _status_of(event: NodeEvent) -> str:
    run, number = event.fields.get("run"), event.fields.get("round")
    match event.kind:
        case "round_started":
            return f"run {short(str(run))}: round {number}"
        case "waiting":
            return "waiting for the signaling server"
        case "starting":
            return "connecting"
        case _:
            return "waiting for rounds"


def _describe(fields: dict[str, Any]) -> str:
    """The fields that say something, each after two blanks."""
    return "".join(f"  {key} {shown}" for key, value in fields.items() if (shown := _show(key, value)))


def _show(key: str, value: Any) -> str:
    match value:
        case str() if key in _DIGESTS:
            return short(value)
        case float():
            return f"{value:.4g}"
        case dict():
            return " ".join(f"{name}={_show(name, item)}" for name, item in value.items())
        case list() | tuple():
            return ",".join(str(item) for item in value)
        case _:
            return str(value)
