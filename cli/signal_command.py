"""`peerplan signal`: the signaling server."""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

from cli.options import AsJson
from cli.output import configure_logs, console, print_json
from signaling import Limits, Server, SignalingConfig, Timing, run

__all__ = ["LogLevel", "signal"]


class LogLevel(StrEnum):
    """How much goes to stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def signal(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    folder: Annotated[
        Path | None,
        typer.Option(help="Identity, database and blobs; by default in this user's data folder."),
    ] = None,
    name: Annotated[str, typer.Option(help="The name it tells peers.")] = "peerplan",
    tls_cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate chain: turns TLS on.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="The certificate's private key.")] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER_ID", help="Who may publish; may be given again. Anybody by default."),
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="A name peers may dial it by; any by default. May be given again."),
    ] = None,
    gather_seconds: Annotated[
        float, typer.Option(min=0, help="How long a run waits for more peers once enough are ready.")
    ] = Timing().gather_s,
    absence_seconds: Annotated[
        float, typer.Option(min=0, help="How long a member of a round may be away before it counts as failed.")
    ] = Timing().absence_s,
    connections_per_address: Annotated[
        int, typer.Option(min=1, help="Connections from one IP address; raise it behind a proxy.")
    ] = Limits().connections_per_address,
    metrics: Annotated[bool, typer.Option(help="Serve Prometheus metrics at /metrics.")] = True,
    log_level: Annotated[LogLevel, typer.Option(help="Structured logs on stderr.")] = LogLevel.INFO,
    as_json: AsJson = False,
) -> None:
    """Serve the catalog of signed plans, their runs, and the set-up of links between peers.

    Owners can take part from a browser at /join.

    It never sees data, an update or an unreleased model. SIGTERM and Ctrl-C close it cleanly.

    [bold]Examples[/bold]

      peerplan signal

      peerplan signal --host 0.0.0.0 --tls-cert chain.pem --tls-key key.pem --author PEER_ID
    """
    configure_logs(log_level.value, as_json=as_json)
    config = SignalingConfig(
        folder=folder or user_data_path("peerplan") / "signaling",
        host=host,
        port=port,
        name=name,
        certificate=tls_cert,
        private_key=tls_key,
        audiences=tuple(audience or ()),
        authors=tuple(author or ()),
        metrics=metrics,
        limits=replace(Limits(), connections_per_address=connections_per_address),
        timing=replace(Timing(), gather_s=gather_seconds, absence_s=absence_seconds),
    )
    if tls_cert is None and not _is_loopback(host):
        print(  # noqa: T201 (a warning of a command)
            f"warning: {host} without TLS: anybody on the way sees who talks to whom; pass --tls-cert and --tls-key",
            file=sys.stderr,
        )
    run(config, on_listening=lambda server: _tell(server, as_json=as_json))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tell(server: Server, *, as_json: bool) -> None:
    if as_json:
        print_json({"event": "listening", "url": server.url, "server": server.peer_id, "join": server.join_url})
        return
    console().print(f"listening on [bold]{server.url}[/bold], identity [bold]{server.peer_id}[/bold]", soft_wrap=True)
    if server.join_url is not None:
        console().print(f"owners join from a browser at [bold]{server.join_url}[/bold]", soft_wrap=True)
