"""Prometheus metrics of one signaling server; labels take few values and name no peer."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

__all__ = ["Metrics"]


class Metrics:
    """Counters the server bumps and gauges read when somebody asks."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.messages = self._counter("messages_received", "Messages received, by type.", "type")
        self.errors = self._counter("errors_sent", "Errors sent, by code.", "code")
        self.dropped = self._counter("connections_dropped", "Connections the server ended, by reason.", "reason")
        self.rounds = self._counter("rounds_logged", "Rounds logged.")
        self.relayed = self._counter("relayed_bytes", "Bytes of relayed payloads.")
        self.blob_in = self._counter("blob_received_bytes", "Bytes of blobs received.")
        self.blob_out = self._counter("blob_sent_bytes", "Bytes of blobs sent.")

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A value that is read at every scrape."""
        Gauge(f"peerplan_signaling_{name}", text, registry=self._registry).set_function(read)

    def render(self) -> str:
        """The Prometheus text format."""
        return generate_latest(self._registry).decode()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"peerplan_signaling_{name}", text, labels, registry=self._registry)
