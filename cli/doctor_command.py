"""`peerplan doctor`: what this machine can do, and what stands in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

from cli import doctor_checks as checks
from cli.doctor_report import Finding, failed, show
from cli.errors import REFUSED
from cli.options import AsJson, Server
from cli.output import configure_logs
from python_node.author import default_identity_path
from python_node.loop import run

__all__ = ["doctor"]


def doctor(
    url: Annotated[str | None, typer.Argument(metavar="URL", help="A signaling server to reach.")] = None,
    *,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="The node's state folder.")] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, a WebRTC link within this process, folders, and a signaling server.

    Ends with exit code 3 where one line says [red]fail[/red].

    [bold]Examples[/bold]

      peerplan doctor

      peerplan doctor wss://signal.example --json
    """
    configure_logs("error", as_json=as_json)
    findings = run(_examine(url, (state or user_data_path("peerplan") / "node").absolute(), server))
    show(findings, as_json=as_json)
    if failed(findings):
        raise typer.Exit(REFUSED)


async def _examine(url: str | None, state: Path, server: str | None) -> list[Finding]:
    findings = [
        *checks.check_versions(),
        *checks.check_runtime(),
        await checks.check_loopback(),
        checks.check_folder(state),
        checks.check_identity(default_identity_path()),
    ]
    if url is not None:
        findings.append(await checks.check_signaling(url, server))
        if findings[-1].level != "fail":
            findings.append(await checks.check_clock(url))
    return findings
