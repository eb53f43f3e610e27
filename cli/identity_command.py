"""`peerplan identity`: who this user is as an author, or a node is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import CommandError
from cli.options import AsJson
from cli.output import console, print_json, text
from python_node.author import default_identity_path
from python_node.state import load_identity, load_or_create_identity

__all__ = ["identity"]


def identity(
    *,
    path: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The key file; by default the author's of this user."),
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make the key where there is none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a peer id: the public half of a key. The key itself is never shown.

    Owners put an author's id into their policy; a node's is in its state folder.

    [bold]Examples[/bold]

      peerplan identity --create

      peerplan identity --path ~/.local/share/peerplan/node/identity.key --json
    """
    file = path or default_identity_path()
    try:
        existed = file.exists()
    except OSError as error:
        raise CommandError(f"identity {file}: {error.strerror or error}", code="no-identity") from error
    if not existed and not create:
        raise CommandError(f"identity {file}: there is none yet; make one with --create", code="no-identity")
    found = load_or_create_identity(file) if create else load_identity(file)
    if as_json:
        print_json({"peer": found.peer_id, "path": str(file), "created": not existed})
        return
    out = console()
    out.print(f"[bold]{found.peer_id}[/bold]", soft_wrap=True)
    out.print(f"[dim]{'made' if not existed else 'kept'} in {text(file)}[/dim]", soft_wrap=True)
