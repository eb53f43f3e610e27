"""Options that several commands share."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import USAGE, CommandError
from protocol.errors import LinkError
from protocol.identity import Identity
from python_node.author import default_identity_path
from python_node.mesh import IceServer, check_ice_servers
from python_node.state import lent_identity

__all__ = [
    "AsJson",
    "IdentityPath",
    "Server",
    "Stun",
    "Turn",
    "TurnCredential",
    "TurnUsername",
    "Url",
    "author_identity",
    "ice_address",
    "ice_servers",
    "reader_identity",
]

Url = Annotated[str, typer.Argument(metavar="URL", help="The signaling server, ws://host:port or wss://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="PEER_ID", help="The signaling server's identity, as it prints it; others are refused."
    ),
]
IdentityPath = Annotated[
    Path | None, typer.Option("--identity", metavar="FILE", help="Your key; the author's of this user by default.")
]
Stun = Annotated[
    list[str] | None, typer.Option("--stun", metavar="HOST:PORT", help="A STUN server; a node uses one.")
]
Turn = Annotated[
    list[str] | None,
    typer.Option(
        "--turn", metavar="HOST:PORT[?transport=tcp]", help="A TURN server; turns:HOST:PORT by TLS. A node uses one."
    ),
]
TurnUsername = Annotated[str | None, typer.Option("--turn-username", help="The user at the TURN servers.")]
TurnCredential = Annotated[
    str | None,
    typer.Option(
        "--turn-credential",
        envvar="PEERPLAN_TURN_CREDENTIAL",
        show_envvar=True,
        help="The password there; the environment hides it from other users, an option does not.",
    ),
]


def ice_servers(
    stun: list[str] | None, turn: list[str] | None, username: str | None, credential: str | None
) -> list[IceServer]:
    """STUN and TURN servers from their options; "stun:" and "turn:" may be left out.

    Raises:
        CommandError: a TURN server without user or password, or what a node cannot use.
    """
    servers = [IceServer(urls=(ice_address(address, "stun", "stuns"),)) for address in stun or ()]
    if turn and (username is None or credential is None):
        raise CommandError("--turn needs --turn-username and --turn-credential", code="usage", exit_status=2)
    servers += [
        IceServer(urls=(ice_address(address, "turn", "turns"),), username=username, credential=credential)
        for address in turn or ()
    ]
    try:
        check_ice_servers(servers)
    except LinkError as error:
        raise CommandError(str(error), code="usage", exit_status=USAGE) from None
    return servers


def ice_address(address: str, *schemes: str) -> str:
    """An address with its scheme, which may be left out where it is the first of these.

    Raises:
        CommandError: an address of another form.
    """
    scheme = next((known for known in schemes if address.startswith(f"{known}:")), None)
    bare = address if scheme is None else address.removeprefix(f"{scheme}:")
    host, _, port = bare.partition("?")[0].rpartition(":")
    if not host or not port.isdigit():
        raise CommandError(f"{address!r}: expected HOST:PORT or {schemes[0]}:HOST:PORT", code="usage", exit_status=2)
    return f"{scheme or schemes[0]}:{bare}"


def author_identity(path: Path | None) -> AbstractContextManager[Identity]:
    """The key given, or the author's; in a `with` block around its session.

    Raises:
        StateError: it is missing, others may read it, or a running node uses it.
    """
    return lent_identity(path or default_identity_path())


def reader_identity(path: Path | None) -> AbstractContextManager[Identity]:
    """The key given, or a fresh one that is forgotten: a session of the author's own would end its other sessions.

    Raises:
        StateError: as `author_identity`.
    """
    return nullcontext(Identity(os.urandom(32))) if path is None else lent_identity(path)
