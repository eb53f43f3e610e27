"""`peerplan runs` and `peerplan watch`."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.table import Table

from cli.options import AsJson, IdentityPath, Server, Url, author_identity, reader_identity
from cli.output import configure_logs, console, print_json, text
from cli.run_names import all_runs, resolve_run
from cli.watching import status_json, watch_run
from protocol.identity import Identity, short
from protocol.signaling import RunStatus
from python_node.author import Author
from python_node.loop import run as run_loop
from python_node.signaling_link import SignalingSession

__all__ = ["RunName", "runs", "watch"]

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run id, or its first digits.")]


def runs(
    url: Url,
    *,
    stop: Annotated[str | None, typer.Option(metavar="RUN", help="End this run of yours.")] = None,
    reason: Annotated[str, typer.Option(help="Why, told to everybody in the run.")] = "",
    identity: IdentityPath = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of a signaling server, or end one of yours.

    Runs that are limited to members are shown to those alone: give --identity, which no running node may be using
    (what a node takes part in is shown by peerplan receipts).

    [bold]Examples[/bold]

      peerplan runs wss://signal.example

      peerplan runs wss://signal.example --stop 803993eb --reason "wrong learning rate"
    """
    configure_logs("warning", as_json=as_json)
    if stop is not None:
        with author_identity(identity) as key:
            stopped = run_loop(_stop(url, server, key, stop, reason))
        _told_stopped(stopped, as_json=as_json)
        return
    with reader_identity(identity) as key:
        found = run_loop(_list(url, server, key))
    if as_json:
        print_json({"runs": [status_json(status) for status in found]})
    else:
        _show(found, url)


def watch(
    url: Url,
    run: RunName,
    *,
    identity: IdentityPath = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run from its first round to its end; each round's quorum of signatures is checked.

    Ends with exit code 0 when the run finished, 5 when it failed or was stopped.

    [bold]Examples[/bold]

      peerplan watch wss://signal.example 803993eb

      peerplan watch wss://signal.example 803993eb --json | jq -c 'select(.event == "round")'
    """
    configure_logs("warning", as_json=as_json)

    async def go(key: Identity) -> None:
        async with await Author.connect(url, key, expected_server=server) as author:
            await watch_run(author, await resolve_run(author.session, run), as_json=as_json)

    with reader_identity(identity) as key:
        run_loop(go(key))


async def _list(url: str, server: str | None, key: Identity) -> list[RunStatus]:
    async with await SignalingSession.connect(url, key, expected_server=server) as session:
        return [status async for status in all_runs(session)]


async def _stop(url: str, server: str | None, key: Identity, name: str, reason: str) -> str:
    async with await SignalingSession.connect(url, key, expected_server=server) as session:
        found = await resolve_run(session, name)
        await session.stop_run(found, reason)
        return found


def _told_stopped(run: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"stopped": run})
    else:
        console().print(f"stopped run {run}", soft_wrap=True)


def _show(found: list[RunStatus], url: str) -> None:
    out = console()
    if not found:
        out.print(f"no runs at {text(url)}")
        return
    table = Table()
    for title in ("run", "name", "state", "round", "ready", "author", "opened"):
        # names break where the terminal is narrow, all else stays whole at 80 columns
        table.add_column(title, no_wrap=title != "name", overflow="fold")
    for status in found:
        table.add_row(
            short(status.run),
            text(status.name),
            status.state,
            f"{status.round}/{status.rounds}",
            f"{status.ready} of {status.accepted}",
            short(status.author),
            time.strftime("%m-%d %H:%M", time.localtime(status.opened_at)),
        )
    out.print(table)
    for status in found:
        if status.reason:
            out.print(f"{short(status.run)}: {text(status.reason)}", soft_wrap=True)
