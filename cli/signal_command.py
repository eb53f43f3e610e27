"""`peerplan signal`: the signaling server."""

from __future__ import annotations

import ipaddress
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

from cli.errors import USAGE, CommandError
from cli.options import AsJson, ice_address
from cli.output import configure_logs, console, print_json, text
from signaling import ConfigError, IceServers, Limits, Server, SignalingConfig, Timing, run

__all__ = ["LogLevel", "signal"]

_LONGEST_SECRET_BYTES = 1024


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
    stun: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="A STUN server for the page; may be given again.")
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT[?transport=tcp]",
            help="A TURN server for the page; turns:HOST:PORT by TLS. May be given again.",
        ),
    ] = None,
    turn_secret: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The secret that this server shares with the TURN servers."),
    ] = None,
    turn_lifetime: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long a credential made of it opens relays.")
    ] = IceServers().turn_lifetime_s,
    metrics: Annotated[bool, typer.Option(help="Serve Prometheus metrics at /metrics.")] = True,
    log_level: Annotated[LogLevel, typer.Option(help="Structured logs on stderr.")] = LogLevel.INFO,
    as_json: AsJson = False,
) -> None:
    """Serve the catalog of signed plans, their runs, and the set-up of links between peers.

    Owners can take part from a browser at /join. The STUN and TURN servers given here are for that page alone.

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
        audiences=_audiences(audience or ()),
        authors=tuple(author or ()),
        metrics=metrics,
        ice=_ice(stun or (), turn or (), turn_secret, turn_lifetime),
        limits=replace(Limits(), connections_per_address=connections_per_address),
        timing=replace(Timing(), gather_s=gather_seconds, absence_s=absence_seconds),
    )
    if tls_cert is None and not _is_loopback(host):
        print(  # noqa: T201 (a warning of a command)
            f"warning: {host} without TLS: anybody on the way sees who talks to whom; pass --tls-cert and --tls-key",
            file=sys.stderr,
        )
    run(config, on_listening=lambda server: _tell(server, config, as_json=as_json))


def _audiences(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        host, _, port = name.rpartition(":")
        if not host or "/" in host or not port.isdigit():
            raise CommandError(
                f"--audience {name!r}: expected HOST:PORT, as in signal.example.org:443",
                code="usage",
                exit_status=USAGE,
            )
    return tuple(name.lower() for name in names)  # as peers sign it


def _ice(stun: Sequence[str], turn: Sequence[str], secret: Path | None, lifetime_s: int) -> IceServers:
    if bool(turn) != (secret is not None):
        given, missing = ("--turn", "--turn-secret") if turn else ("--turn-secret", "--turn")
        raise CommandError(f"{given} needs {missing}", code="usage", exit_status=USAGE)
    return IceServers(
        stun=tuple(ice_address(address, "stun", "stuns") for address in stun),
        turn=tuple(ice_address(address, "turn", "turns") for address in turn),
        turn_secret=b"" if secret is None else _shared_secret(secret),
        turn_lifetime_s=lifetime_s,
    )


def _shared_secret(path: Path) -> bytes:
    """The first line of a file that nobody but its owner may read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(
                    f"{path}: others may use this secret (mode {mode:04o}, expected 0600); chmod 600 {path}"
                )
            line = file.readline(_LONGEST_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(line) > _LONGEST_SECRET_BYTES:
        raise ConfigError(f"{path}: its first line is longer than {_LONGEST_SECRET_BYTES} bytes")
    return line.strip()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _tell(server: Server, config: SignalingConfig, *, as_json: bool) -> None:
    if as_json:
        print_json({"event": "listening", "url": server.url, "server": server.peer_id, "join": server.join_url})
        return
    out = console()
    out.print(f"listening on [bold]{server.url}[/bold], identity [bold]{server.peer_id}[/bold]", soft_wrap=True)
    if config.audiences:
        out.print(f"peers dial it as [bold]{text(', '.join(config.audiences))}[/bold]", soft_wrap=True)
    if server.join_url is not None:
        out.print(f"owners join from a browser at {_join(server.join_url, config)}", soft_wrap=True)


def _join(url: str, config: SignalingConfig) -> str:
    """Where the page is, as far as this process knows: a proxy may have it under other names."""
    if config.audiences:
        return "[bold]/join[/bold] there"
    if _is_wildcard(config.host):
        host = f"[{config.host}]" if ":" in config.host else config.host
        return f"[bold]{url.replace(host, 'HOST', 1)}[/bold], HOST being a name of this machine"
    return f"[bold]{text(url)}[/bold]"
